"""The public calls against the layers that they stand on."""

import dataclasses
import doctest
import json
import math
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rd_elbo as rd
from rd_elbo import disk
from rd_elbo.models import registry
from rd_elbo.sweep import config
from rd_elbo.sweep import run as sweeping
from rd_elbo.training import checkpoint, fit, state

TINY = rd.Member(encoder_width=4, decoder_width=4, latent=2, epochs=0.5, batch_size=16)
X = np.random.RandomState(0).randint(0, 2, (8, 4, 4), np.uint8)


@pytest.mark.slow
def test_an_import_draws_nothing_and_starts_nothing():
    """Matplotlib takes a second; a backend of JAX that has started cannot be set up."""
    code = "import sys, rd_elbo; from jax._src import xla_bridge; "
    code += "print('matplotlib' in sys.modules, xla_bridge.backends_are_initialized())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"], done.stderr


# The population that `fit`, `evaluate` and `Result` train is compiled once.
@pytest.mark.parametrize("name", rd.__all__)
def test_examples_in_docstrings(name, monkeypatch):
    for kind, parts in registry._parts.items():
        monkeypatch.setitem(registry._parts, kind, dict(parts))
    named = getattr(rd, name)
    # Of a module, its own docstring: its functions have examples where they need some.
    module = isinstance(named, types.ModuleType)
    finder = doctest.DocTestFinder(recurse=not module)
    found = finder.find(named, name, globs={}, module=None if module else False)
    examples = [test for test in found if test.examples]
    assert examples
    for test in examples:
        assert not any(doctest.SKIP in example.options for example in test.examples)
        assert doctest.DocTestRunner().run(test).failed == 0


def test_a_sweep_is_the_scripts(tmp_path):
    """Tables of points and of metrics byte for byte."""
    data = {"name": "mnist_static", "examples": 64, "eval_examples": 20}
    given = {
        "name": "one",
        "data": data,
        "base": dataclasses.asdict(TINY),
        "blocks": {"all": {"beta": (0.5, 2.0)}},
    }
    given["base"].pop("divergence_threshold")
    plan = config.load(given, pytest.fail)
    rows = sweeping.run(plan, tmp_path / "script").points
    digits = rd.load_data("mnist_static").head(64)
    members = rd.product(TINY, beta=(0.5, 2.0))
    points = rd.sweep(members, digits, tmp_path / "call", eval_examples=20)
    assert points == rows and [p["examples"] for p in points] == [64, 64, 20, 20]
    for name in ("points.csv", "metrics.csv", "members.csv"):
        assert (tmp_path / "script" / name).read_bytes() == (tmp_path / "call" / name).read_bytes()
    # And it resumes: nothing is trained again.
    before = disk.sha256(tmp_path / "call" / "provenance.json")
    assert rd.sweep(members, digits, tmp_path / "call", eval_examples=20) == rows
    assert before and len(list((tmp_path / "call" / "chunks").iterdir())) == 1


def test_the_recorded_configuration_makes_the_same_members(tmp_path):
    from rd_elbo.sweep import grid, tables

    members = rd.product(TINY, objective=("target_rate",), target_rate=(1.0, 2.0))
    rd.sweep(members, rd.load_data("mnist_static").head(64), tmp_path, splits=("test",))
    assert grid.members_of(tables.recorded_config(tmp_path)) == members


def test_a_failed_member_is_an_error(monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("no luck")

    monkeypatch.setattr(fit, "fit", fails)
    with pytest.raises(rd.Failed, match="1 of 1 members failed"):
        rd.sweep([TINY], rd.load_data("mnist_static").head(64), report=lambda _: None)


def test_fit_is_the_populations_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint.Checkpoints, "due", lambda self: self.folder is not None)
    x = (np.random.RandomState(0).rand(32, 4, 4) < 0.4).astype(np.float32)
    model = TINY.build((4, 4))
    grid = rd.product(beta=(0.5, 2.0), seed=(3,), learning_rate=(1e-2,))
    result = rd.fit(model, x, grid, steps=6, batch_size=8, workdir=tmp_path)
    spec = state.TrainSpec(model, batch_size=8)
    whole = fit.fit(spec, [model] * 2, state.HParams.of(grid, spec), x, 6)
    for i in range(2):
        for ours, theirs in zip(
            *(
                list(tree.values())
                for tree in (result.params(i)["encoder"]["mean"], whole.params["encoder"]["mean"])
            ),
            strict=True,
        ):
            np.testing.assert_array_equal(ours, theirs[i])
    # A state of other code: its arithmetic is recorded.
    record = tmp_path / "6.json"
    about = disk.read_json(record)
    about["identity"]["training"]["program"] = "of before"
    record.write_text(json.dumps(about))
    with pytest.warns(UserWarning, match="checkpoint '.*' is left out: it is of another training"):
        anew = rd.fit(model, x, grid, steps=6, batch_size=8, workdir=tmp_path)
    for ours, theirs in zip(*(jax.tree.leaves(r.params(1)) for r in (result, anew)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    points = rd.evaluate(result, x)
    assert points.column("beta").tolist() == [0.5, 2.0] and points[0]["status"] == "ok"
    total = points.column("rate") + points.column("distortion")
    np.testing.assert_allclose(points.column("elbo"), -total, rtol=1e-6)


def test_points_are_a_table(tmp_path):
    points = rd.Points([{"beta": 0.5, "rate": 2.0}, {"beta": 1.0, "rate": 1.5}])
    points.to_csv(tmp_path / "points.csv")
    assert disk.read_table(tmp_path / "points.csv") == list(points)
    assert points.column("rate").tolist() == [2.0, 1.5]
    with pytest.raises(rd.BadInput, match="column='speed'"):
        points.column("speed")


@pytest.mark.parametrize(
    ("axes", "named"),
    [
        ({"epochs": (1.0,)}, "'epochs'"),
        ({"beta": ()}, "beta=()"),
        ({"beta": 0.5}, "beta=0.5"),
        ({"beta": (-1.0,)}, "beta=-1.0"),
        ({"seed": (0.5,)}, "seed=0.5"),
        ({"learning_rate": (0.0,)}, "learning_rate=0.0"),
        ({"kl_warmup_fraction": (1.5,)}, "kl_warmup_fraction=1.5"),
        ({"annealing": (0.5,)}, "expected kl_warmup_fraction"),
    ],
)
def test_what_product_refuses(axes, named):
    with pytest.raises(rd.BadInput) as caught:
        rd.product(**axes)
    assert named in str(caught.value)


def test_product_without_members_is_of_hyperparameters():
    grid = rd.product(beta=(0.1, 1.0), seed=range(2))
    assert [(h.beta, h.seed) for h in grid] == [(0.1, 0), (0.1, 1), (1.0, 0), (1.0, 1)]
    assert all(h.divergence_threshold == math.inf and h.learning_rate == 1e-3 for h in grid)


@pytest.mark.parametrize(
    ("examples", "grid", "words"),
    [
        (rd.Dataset.from_arrays(X, X), rd.product(beta=(1.0,)), "expected an array, got a dataset"),
        (np.full((8, 4, 4), np.nan), rd.product(beta=(1.0,)), "finite numbers, got NaN"),
        (jnp.full((8, 4, 4), np.inf), rd.product(beta=(1.0,)), "finite numbers, got NaN"),
        (X.astype(str), rd.product(beta=(1.0,)), "expected an array of numbers, examples first"),
        (X, rd.product(rd.Member(), beta=(1.0,)), "got a member, whose model would be ignored"),
        (X, rd.Hyperparameters(), "hyperparameters: .* got a single Hyperparameters"),
    ],
)
def test_what_fit_would_misread_is_refused(examples, grid, words):
    model = rd.Member(encoder_width=4, decoder_width=4, latent=2).build((4, 4))
    with pytest.raises(rd.BadInput, match=words):
        rd.fit(model, examples, grid, steps=1, batch_size=4)


def test_examples_on_a_device_are_taken_in_any_float_type():
    result = train(rd.product(seed=(0,)), jnp.asarray(X, jnp.bfloat16))
    with pytest.raises(rd.BadInput, match="finite numbers, got NaN"):
        rd.evaluate(result, jnp.full((8, 4, 4), np.nan))


def train(grid, examples=X, **how):
    return rd.fit(TINY.build((4, 4)), examples, grid, steps=1, batch_size=4, **how)


TARGET = dataclasses.replace(TINY, objective="target_rate")


@pytest.mark.parametrize(
    ("base", "axes", "named"),
    [
        (TARGET, {"seed": (0, 1), "beta": (0.1, 1)}, ("beta=(0.1, 1)", "'target_rate'")),
        (TINY, {"target_rate": iter((0.1, 1))}, ("target_rate=(0.1, 1)", "objective is 'beta'")),
        ([TINY, TARGET], {"free_bits": (1.0,)}, ("free_bits=(1.0,)", "'beta', 'target_rate'")),
        (TINY, {"flow_steps": (1, 2)}, ("flow_steps=(1, 2)", "encoder is 'dense' and prior is")),
    ],
)
def test_an_axis_without_effect_is_refused(base, axes, named):
    with pytest.raises(rd.BadInput) as caught:
        rd.product(base, **axes)
    assert all(words in str(caught.value) for words in named)


def test_an_axis_that_acts_on_some_members_is_one():
    objectives = ("beta", "target_rate")
    members = rd.product(TINY, objective=objectives, beta=(0.5, 2.0), target_rate=(1.0,))
    assert [(m.objective, m.beta) for m in members] == [
        *(("beta", 0.5), ("beta", 2.0), ("target_rate", 1.0))
    ]
    assert len(rd.product([TINY, TARGET], target_rate=(1.0, 2.0))) == 3
    assert rd.product([], beta=(1.0,)) == []


@pytest.mark.parametrize(
    ("axes", "how", "named"),
    [
        ({"beta": (1.0, 2.0)}, {"objective": "target_rate"}, ("beta=2.0", "'target_rate'")),
        ({"free_bits": (1, 2)}, {}, ("free_bits=1.0", "objective is 'beta'")),
        ({"learning_rate": (0.1, 0.2)}, {"learning_rate": 0.3}, ("learning_rate=0.1", "replaces")),
        ({"learning_rate": (0.1,)}, {"optimizer": optax.adam(0.1)}, ("learning_rate=0.1", "opt")),
        ({"beta": (1.0,)}, {"epochs": 3}, ("'epochs'", "batch_size", "vmap_size")),
    ],
)
def test_what_fit_would_not_use_is_refused(axes, how, named):
    with pytest.raises(rd.BadInput) as caught:
        train(rd.product(**axes), **how)
    assert all(words in str(caught.value) for words in named)


@pytest.mark.parametrize(
    ("members", "how", "named"),
    [
        (TINY, {}, ("members: ", "a single Member", "rd.product")),
        (rd.product(beta=(1.0,)), {}, ("members: ", "Hyperparameters", "rd.Member")),
        ([], {}, ("members: ", "none")),
        ([TINY], {"dataset": X}, ("dataset: ", "ndarray", "from_arrays")),
        ([TINY], {"chunk": 3}, ("'chunk'", "splits", "chunk_size")),
        ([TINY], {"splits": "tset"}, ("splits='tset'",)),
    ],
)
def test_slips_in_a_sweep_are_named(members, how, named, tmp_path):
    with pytest.raises(rd.BadInput) as caught:
        rd.sweep(members, **{"dataset": rd.Dataset.from_arrays(X, X), **how}, workdir=tmp_path)
    assert all(words in str(caught.value) for words in named)
    assert not list(tmp_path.iterdir())


def test_a_split_may_be_named_alone():
    tiny = dataclasses.replace(TINY, batch_size=4)
    points = rd.sweep([tiny], rd.Dataset.from_arrays(X, X), splits="test")
    assert [point["split"] for point in points] == ["test"]


def test_a_workdir_may_begin_with_a_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    x = np.random.RandomState(0).randint(0, 2, (32, 4, 4), np.uint8)
    tiny = rd.Member(encoder_width=4, decoder_width=4, latent=2, batch_size=16)
    (point,) = rd.sweep([tiny], rd.Dataset.from_arrays(x, x), "~/run", splits="test")
    assert (tmp_path / "run" / "points.csv").exists()
    assert rd.load_params("~/run", point["member"])[0] == tiny
    np.savez(tmp_path / "x.npz", images=np.concatenate([x, x]))
    assert rd.load_data("path", path="~/x.npz").image_shape == (4, 4)
