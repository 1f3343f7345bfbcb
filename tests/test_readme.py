"""The README and the pages: their Python runs on little data, their commands and links exist."""

import ast
import functools
import itertools
import pathlib
import re
import shlex
import sys
from unittest import mock

import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

import rd_elbo as rd
from benchmarks import page
from rd_elbo.errors import BadInput
from rd_elbo.models import registry
from rd_elbo.sweep import grid
from rd_elbo.sweep.config import blank as blank_config

ROOT = pathlib.Path(__file__).parents[1]
README = ROOT / "README.md"
RESULTS = sorted(ROOT.glob("results/*/README.md"))
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")), *RESULTS]
LINE = r"beta \S+  R \d+\.\d\d  D \d+\.\d\d nats"


def run(path, monkeypatch, capsys):
    """The names that its blocks define, in order, and the lines that they print."""
    blocks = re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)
    assert blocks
    load = rd.load_data
    monkeypatch.setattr(rd, "load_data", lambda name, **how: load(name, **how).head(256))
    monkeypatch.setattr(rd, "configure", lambda: None)  # JAX has started
    names = {}
    for block in blocks:
        exec(block.replace("steps=2000", "steps=800").replace("steps=500", "steps=5"), names)
    return names, capsys.readouterr().out.splitlines()


@pytest.mark.slow
def test_python_of_the_readme(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    names, lines = run(README, monkeypatch, capsys)
    assert len(lines) == 6 and all(re.fullmatch(LINE, line) for line in lines)
    points = names["points"]
    assert points.column("beta").tolist() == [0.1, 1.0, 4.0] and (points.column("steps") == 5).all()
    total = points.column("rate") + points.column("distortion")
    np.testing.assert_allclose(points.column("elbo"), -total)


@pytest.mark.slow
def test_python_of_own_models(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(registry._parts, "decoder", dict(registry._parts["decoder"]))
    names, lines = run(ROOT / "docs" / "own_models.md", monkeypatch, capsys)
    assert len(lines) == 6 and all(re.fullmatch(LINE, line) for line in lines)
    np.testing.assert_allclose(names["rates"], [0.5] * 8 + [1.0] * 8, atol=0.01)
    images = names["images"]
    member = rd.Member(decoder="two_layers", decoder_width=64)
    assert names["TwoLayers"](64, (28, 28)) == member.build((28, 28)).decoder
    assert images.shape == (10, 28, 28) and set(jnp.unique(images).tolist()) <= {0, 1}


def test_python_of_objectives(monkeypatch, capsys):
    names, _ = run(ROOT / "docs" / "objectives.md", monkeypatch, capsys)
    assert len(names["grid"]) == 4 and names["loss"] == 85


@pytest.mark.slow
def test_python_of_data(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    names, _ = run(ROOT / "docs" / "data.md", monkeypatch, capsys)
    assert names["digits"].image_shape == (28, 28)
    assert names["sizes"] == {"train": 50, "valid": 10, "test": 10}
    assert names["dataset"].image_shape == (20, 20)
    assert names["dataset"].kind == names["levels"].kind == "grey"
    assert names["vectors"].image_shape == (5,) and 8 < names["bits"] < 12
    assert names["mine"].origin.startswith(
        "file images.npz, 20x20, grey 0 to 255, mean 0.5, binarised with seed"
    )


def test_python_of_exact(monkeypatch, capsys):
    names, _ = run(ROOT / "docs" / "exact.md", monkeypatch, capsys)
    assert (names["curve"].gap <= 1e-9).all()


def test_python_of_api(monkeypatch, capsys):
    names, _ = run(ROOT / "docs" / "api.md", monkeypatch, capsys)
    named = set(re.findall(r"`rd\.(\w+)`", (ROOT / "docs" / "api.md").read_text()))
    assert names["rd"] is rd and named == set(rd.__all__)


def test_every_page_with_python_is_run():
    source = pathlib.Path(__file__).read_text()
    run_here = set(re.findall(r'"docs" / "(\w+\.md)", monkeypatch', source))
    with_python = {path.name for path in PAGES if "```python" in path.read_text()}
    assert run_here == with_python - {"README.md"}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_a_page_names_exist(path):
    linked = re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text())
    assert [name for name in linked if not (path.parent / name).exists()] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_headings_that_a_page_names_exist(path):
    for name, heading in re.findall(r"\]\((?!http)([^)#]*)#([^)]+)\)", path.read_text()):
        text = ((path.parent / name) if name else path).read_text()
        titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
        assert heading in anchors


def test_every_page_is_reached_from_the_readme_and_from_the_index():
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    index = (ROOT / "docs" / "index.md").read_text()
    assert set(re.findall(r"\]\(docs/([^)#]+)\)", README.read_text())) == pages
    assert pages <= set(re.findall(r"\]\(([^)#]+)\)", index))
    trees = "\n".join(re.findall(r"```\{toctree\}\n(.*?)```", index, re.DOTALL)).split()
    names = {tree for tree in trees if not tree.startswith(":")}
    results = {f"../{path.relative_to(ROOT)}" for path in RESULTS}
    assert {f"{name}.md" for name in names} >= pages | results


def test_the_readme_is_short():
    text = README.read_text()
    assert len(text.splitlines()) <= 150 and len(text.split()) <= 900


def test_the_citation_is_of_this_version():
    versions = {
        re.search(rf'^version{sign} "?([\d.]+)"?$', (ROOT / file).read_text(), re.MULTILINE)[1]
        for file, sign in (("CITATION.cff", ":"), ("pyproject.toml", " ="))
    }
    assert len(versions) == 1


# Commands, as the pages have them: in indented or fenced blocks, and between backticks.
CALL = r"(?:python|bin/python) (scripts/\w+\.py|-m experiments\.\w+)([^`|\n]*)"
# Flags of other programs.
OTHERS = {"array", "requeue", "wrap", "nodes", "ntasks", "ntasks-per-node", "gpus-per-node"}
OTHERS |= {"kill-on-bad-exit"}
OTHERS |= {"job-name", "time", "cpus-per-task", "signal"}
EXPERIMENTS = {"toy", "gaussian"}
# ml_collections loads a configuration's file in a way that Python 3.11 warns of.
loads_configs = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


def text_of(path):
    """A page with continued lines joined."""
    return re.sub(r"\\\n\s*", "", path.read_text())


def commands():
    """Every call of a script or an experiment: page, program, arguments."""
    found = []
    for path in PAGES:
        for program, rest in re.findall(CALL, text_of(path)):
            words = shlex.split(rest, comments=True)
            words = list(itertools.takewhile(lambda word: word not in (">", "|"), words))
            found.append((path, program, tuple(words)))
    return list(dict.fromkeys(found))


@functools.cache
def flags_of(program):
    """Names of a script's or experiment's flags, and values of its positional arguments."""
    file = "experiments/common.py" if program.startswith("-m") else program
    names, choices = set(), set()
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            first = node.args[0]
            defines = re.match(r"DEFINE_|add_argument", node.func.attr)
            if isinstance(first, ast.Constant) and defines:
                if node.func.attr == "add_argument" and not first.value.startswith("--"):
                    listed = [key.value for key in node.keywords if key.arg == "choices"]
                    for leaf in (leaf for part in listed for leaf in ast.walk(part)):
                        if isinstance(leaf, ast.Constant):
                            choices.add(leaf.value)
                        elif isinstance(leaf, ast.Attribute):
                            choices.update(getattr(page, leaf.attr))
                names.add(first.value.lstrip("-"))
    assert names
    return names, choices


def parsed(program, *arguments):
    """The configuration that --config flags give, as absl parses them; refuses others."""
    values, argv = flags.FlagValues(), [program, *arguments]
    config_flags.DEFINE_config_file("config", flag_values=values)
    with mock.patch.object(sys, "argv", argv):  # where ml_collections looks for fields
        values(argv)
    return values["config"].value


def said(call):
    path, program, words = call
    return f"{path.relative_to(ROOT)}: {program} {' '.join(words)}"


@loads_configs
@pytest.mark.parametrize("call", commands(), ids=said)
def test_commands_of_the_pages_exist(call):
    path, program, words = call
    experiment = program.removeprefix("-m experiments.") if program.startswith("-m") else None
    assert experiment in EXPERIMENTS if experiment else (ROOT / program).exists()
    names, choices = flags_of(program)
    own = [word for word in words if word.startswith("--config")]
    for word in words:
        if word.startswith("--") and not word.startswith("--config."):
            assert word[2:].partition("=")[0] in names, f"{path.name}: {word}"
        elif not word.startswith("--") and choices:
            # Values of a flag with several follow it.
            assert word in choices or words[words.index(word) - 1].startswith("--"), (
                f"{path.name}: {word}"
            )
    if own:
        if not any(word.startswith("--config=") for word in own):
            own = [f"--config=configs/{experiment}.py", *own]
        own = [word.replace("--config=", f"--config={ROOT}/") for word in own]
        config = parsed(program, *own)
        if program == "scripts/sweep.py":
            assert grid.members_of(config.to_dict())


@loads_configs
@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_flags_that_a_page_names_exist(path):
    scripts = [script for script in (ROOT / "scripts").glob("*.py") if "--" in script.read_text()]
    scripts = [path for path in scripts if re.search(r"add_argument|DEFINE_", path.read_text())]
    programs = [*(f"scripts/{path.name}" for path in scripts), "-m experiments.toy"]
    known = OTHERS.union(*(flags_of(program)[0] for program in programs))
    blank = blank_config("any").to_dict()
    experiments = [parsed(name, f"--config={ROOT}/configs/{name}.py") for name in EXPERIMENTS]
    for flag in re.findall(r"(?<![\w-])--(\w[\w.-]+)", text_of(path)):
        section, _, field = flag.removeprefix("config.").partition(".")
        if not flag.startswith("config."):
            assert flag in known, flag
        elif field:
            assert field in blank[section], flag
        else:
            assert section in blank or any(section in fields for fields in experiments), flag


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_targets_of_make_that_a_page_names_exist(path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"(?:^    |`)make (?:\w+=\S+ )*([a-z-]+)", text_of(path), re.MULTILINE)
    assert set(named) <= targets


@loads_configs
def test_a_command_with_a_field_that_does_not_exist_is_found():
    def check(*words):
        test_commands_of_the_pages_exist((README, "scripts/sweep.py", words))

    with pytest.raises((AttributeError, flags.Error)):
        check("--config=configs/quickstart.py", "--config.grid.bet=1")
    with pytest.raises(BadInput):
        check("--config=configs/quickstart.py", "--config.only=('mpl',)")
    with pytest.raises(AssertionError):
        check("--workdirs=runs/mine")
