"""The README's Python runs as it stands, on a small part of the data."""

import pathlib
import re

import jax.numpy as jnp
import numpy as np

from rd_elbo import data, host

README = (pathlib.Path(__file__).parents[1] / "README.md").read_text()


def test_python_blocks(monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 3
    load = data.load
    monkeypatch.setattr(data, "load", lambda name: load(name).head(256))
    monkeypatch.setattr(host, "configure", lambda: None)  # JAX has started
    names = {}
    for block in blocks:
        exec(block.replace("steps=2000", "steps=800"), names)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and all(re.fullmatch(r"beta \S+  R \d+\.\d\d  D \d+\.\d\d nats", line) for line in lines)
    np.testing.assert_allclose(names["rates"], [0.5] * 8 + [1.0] * 8, atol=0.01)
    assert names["curve"].rate.shape == (3,)
    images = names["images"]
    assert images.shape == (10, 28, 28) and set(jnp.unique(images).tolist()) <= {0, 1}


def test_files_that_it_names_exist():
    root = pathlib.Path(__file__).parents[1]
    linked = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert len(linked) > 5
    assert [name for name in linked if not (root / name).exists()] == []
