"""The Python of the README and of the pages runs as it stands, on a small part of the data."""

import pathlib
import re

import jax.numpy as jnp
import numpy as np
import pytest

import rd_elbo as rd

ROOT = pathlib.Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LINE = r"beta \S+  R \d+\.\d\d  D \d+\.\d\d nats"


def run(path, monkeypatch, capsys):
    """The names that its blocks define, in order, and the lines that they print."""
    blocks = re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)
    assert blocks
    load = rd.load_data
    monkeypatch.setattr(rd, "load_data", lambda name: load(name).head(256))
    monkeypatch.setattr(rd, "configure", lambda: None)  # JAX has started
    names = {}
    for block in blocks:
        exec(block.replace("steps=2000", "steps=800").replace("steps=500", "steps=5"), names)
    return names, capsys.readouterr().out.splitlines()


def test_python_of_the_readme(monkeypatch, capsys):
    names, lines = run(README, monkeypatch, capsys)
    assert len(lines) == 6 and all(re.fullmatch(LINE, line) for line in lines)
    points = names["points"]
    assert points.column("beta").tolist() == [0.1, 1.0, 4.0] and (points.column("steps") == 5).all()
    np.testing.assert_allclose(points.column("elbo"), -points.column("rate") - points.column("distortion"))


def test_python_of_own_models(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    names, lines = run(ROOT / "docs" / "own_models.md", monkeypatch, capsys)
    assert len(lines) == 6 and all(re.fullmatch(LINE, line) for line in lines)
    np.testing.assert_allclose(names["rates"], [0.5] * 8 + [1.0] * 8, atol=0.01)
    assert names["curve"].rate.shape == (3,)
    images = names["images"]
    assert images.shape == (10, 28, 28) and set(jnp.unique(images).tolist()) <= {0, 1}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_files_that_a_page_names_exist(path):
    linked = re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text())
    assert [name for name in linked if not (path.parent / name).exists()] == []


def test_every_page_is_reached_from_the_readme():
    named = set(re.findall(r"\]\(docs/([^)#]+)\)", README.read_text()))
    assert named == {path.name for path in (ROOT / "docs").glob("*.md")}


def test_the_readme_is_short():
    text = README.read_text()
    assert len(text.splitlines()) <= 150 and len(text.split()) <= 900
