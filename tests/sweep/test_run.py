"""The whole way: from a configuration, or a command line, to a run directory."""

import json
import os
import pathlib
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from rd_elbo import disk, grid, planning, records, sweep
from rd_elbo.errors import BadInput
from rd_elbo.evaluate import POINT_COLUMNS

ROOT = pathlib.Path(__file__).parents[1]
TINY = {
    "encoder_width": 6,
    "latent": 3,
    "decoder_width": 6,
    "decoder_depth": 1,
    "batch_size": 32,
    "epochs": 1.0,
}


def config(**changes):
    return {
        "name": "tiny",
        "data": {"name": "mnist_static", "examples": 64},
        "base": TINY,
        "blocks": {
            "mlp": {"beta": (0.5, 1.0), "seed": 0},
            "more": {"beta": (1.0, 2.0), "decoder_width": (6, 5)},
        },
        **changes,
    }


def test_blocks_overrides_and_duplicates():
    members = planning.members_of(config())
    assert [(m.beta, m.decoder_width) for m in members] == [
        (0.5, 6),
        (1.0, 6),
        (1.0, 5),
        (2.0, 6),
        (2.0, 5),
    ]
    only = planning.members_of(
        config(only=("mlp",), grid={"beta": None, "seed": (3, 4)}, train={"epochs": 2.5})
    )
    assert [(m.beta, m.seed, m.epochs) for m in only] == [
        (0.5, 3, 2.5),
        (0.5, 4, 2.5),
        (1.0, 3, 2.5),
        (1.0, 4, 2.5),
    ]


def test_a_target_rate_from_the_command_line_needs_no_beta():
    members = planning.members_of(
        config(
            grid={"objective": ("target_rate",), "target_rate": (3.0, 4.0), "decoder_width": (6,)}
        )
    )
    assert [(m.objective, m.target_rate, m.beta, m.seed) for m in members] == [
        ("target_rate", r, 1.0, 0) for r in (3.0, 4.0)
    ]


def test_run_directory(tmp_path):
    heard = []
    plan = planning.make_plan(config(population={"members": 3, "max_waste": 2.0}))
    points = sweep.run(plan, tmp_path / "run", heard.append).points
    rows = disk.read_table(tmp_path / "run" / "points.csv")
    assert tuple(rows[0]) == POINT_COLUMNS and len(rows) == 10
    for row, point in zip(rows, points, strict=True):
        assert row == point
        assert (
            row["elbo"] == -(row["rate"] + row["distortion"])
            and row["rate"] >= 0
            and row["distortion"] >= 0
        )
    assert [row["member"] for row in rows[:5]] == [m.name for m in plan.members]
    metrics = disk.read_table(tmp_path / "run" / "metrics.csv")
    assert {(m["member"], m["step"]) for m in metrics} == {
        (m.name, step) for m in plan.members for step in range(2)
    }
    beta = {m.name: m.beta for m in plan.members}
    for row in metrics:
        np.testing.assert_allclose(
            row["loss"], row["distortion"] + beta[row["member"]] * row["rate"], rtol=1e-5
        )
    table = disk.read_table(tmp_path / "run" / "members.csv")
    assert [row["member"] for row in table] == [m.name for m in plan.members]
    provenance = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert provenance["data"]["sha256"] == plan.dataset.checksum()
    assert provenance["tables"]["points.csv"] == disk.sha256(tmp_path / "run" / "points.csv")
    left = {path.name for path in (tmp_path / "run").iterdir()} - {".lock", "plan.json"}
    files = {
        "config.json",
        "members.csv",
        "metrics.csv",
        "points.csv",
        "provenance.json",
        "status.json",
    }
    assert left == files | {"params", "parts", "programs"}
    member, params = records.load_params(tmp_path / "run", rows[4]["member"])
    assert member == plan.members[4] and params["decoder"]["logits"]["kernel"].shape == (5, 784)
    done = [status.done for status in heard]
    assert done == sorted(done) and done[-1] == pytest.approx(1.0)
    assert heard[-1].members == 5 and {status.doing for status in heard} == {
        "compiling",
        "training",
        "evaluating",
    }


def test_saved_parameters_give_the_points_of_the_table(tmp_path):
    plan = planning.make_plan(config(only=("mlp",)))
    points = sweep.run(plan, tmp_path / "run").points
    member, params = records.load_params(tmp_path / "run", points[1]["member"])
    model, x = member.build((28, 28)), jnp.asarray(plan.dataset.splits["test"], jnp.float32)
    rate = model.encode(params, x).kl_divergence(model.prior(params, x)).mean()
    np.testing.assert_allclose(rate, points[1]["rate"], rtol=1e-5)


def test_the_same_configuration_gives_the_same_points(tmp_path):
    fields = ("member", "rate", "distortion", "rate_se", "distortion_se", "active_units")
    results = [
        sweep.run(planning.make_plan(config(only=("mlp",))), tmp_path / name).points
        for name in ("a", "b")
    ]
    assert [[p[f] for f in fields] for p in results[0]] == [
        [p[f] for f in fields] for p in results[1]
    ]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"blocks": {}}, "the grid is empty"),
        ({"blocks": {"mlp": {"beta": ()}}}, "beta=() is empty"),
        ({"blocks": {"mlp": {"beta": -1.0}}}, "beta=-1.0 must be at least 0"),
        ({"blocks": {"mlp": {"bta": 1.0}}}, "'bta' does not exist"),
        ({"blocks": {"mlp": {"decoder_width": 0}}}, "decoder_width=0"),
        ({"blocks": {"mlp": {"decoder": "cnn"}}}, "decoder='cnn' does not exist"),
        ({"only": ("vae",)}, "only='vae' names no block"),
        (
            {"grid": {"target_rate": (3.0,)}},
            "target_rate=(3.0,) has no effect on any member, since objective is 'beta' everywhere",
        ),
        (
            {"grid": {"pseudo_inputs": (3, 4)}},
            "has no effect on any member, since marginal is 'normal' everywhere",
        ),
        (
            {"grid": {"flow_width": (3, 4)}},
            "since encoder is 'dense' and marginal is 'normal' everywhere",
        ),
        ({"grid": {"epochs": (1.0,)}, "train": {"epochs": 2.0}}, "epochs is given twice"),
        ({"train": {"batch_size": 100}}, "batch_size=100 is more than the 64 examples"),
        ({"population": {"members": 0}}, "members=0 must be a whole number"),
        ({"population": {"max_waste": 0.5}}, "max_waste=0.5"),
        ({"population": {"max_waste": float("inf")}}, "max_waste=inf must be a finite number"),
        ({"blocks": None}, "the grid is empty"),
        ({"population": {"speed": "fast"}}, "population.speed does not exist"),
        ({"data": {"name": "cifar"}}, "'cifar' does not exist"),
        ({"data": {"examples": 0}}, "data.examples=0"),
        ({"data": {"splits": ("validation",)}}, "data.splits='validation' does not exist"),
        ({"data": {"size": 3}}, "data.size does not exist"),
        ({"optimizer": {}}, "no section 'optimizer'"),
    ],
)
def test_bad_configurations_are_one_sentence(changes, sentence):
    with pytest.raises(BadInput) as refusal:
        planning.make_plan(config(**changes))
    assert sentence in str(refusal.value) and "\n" not in str(refusal.value)


def test_numbers_of_numpy_are_recorded_as_plain_ones():
    plan = planning.make_plan(
        config(blocks={"mlp": {"beta": np.linspace(0.5, 1.0, 2), "seed": tuple(np.arange(2))}})
    )
    assert len(plan.members) == 4 and json.loads(json.dumps(plan.config))["blocks"] == {
        "mlp": {"beta": [0.5, 1.0], "seed": [0, 1]}
    }


def script(name, *arguments, cwd=ROOT, **environment):
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / name), *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "80", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """The quick form of the quickstart, from the command line."""
    workdir = tmp_path_factory.mktemp("quick") / "run"
    result = script("sweep.py", "--config=configs/quickstart.py:quick", f"--workdir={workdir}")
    assert result.returncode == 0, result.stderr
    return workdir, result


def test_command_line(quick):
    workdir, result = quick
    rows = disk.read_table(workdir / "points.csv")
    assert {(r["decoder"], r["beta"]) for r in rows} == {
        (d, b) for d in ("mlp", "pixelcnn") for b in (0.251, 1.0)
    }
    assert all(row["status"] == "ok" for row in rows)
    assert "pixelcnn 3x1" in result.stdout and "R + D" in result.stdout
    last = result.stdout.strip().splitlines()[-1]
    assert (
        "none diverged" in last and str(workdir / "points.csv") in last and "rd_plane.png" in last
    )
    assert (workdir / "figures" / "rd_plane.pdf").stat().st_size > 1000


def test_figures_are_redrawn_from_tables(quick):
    workdir, _ = quick
    figure = workdir / "figures" / "elbo_against_rate.png"
    before = figure.read_bytes()
    figure.unlink()
    result = script("figures.py", f"--workdir={workdir}")
    assert result.returncode == 0 and figure.read_bytes() == before


QUICK = "--config=configs/quickstart.py:quick"


def test_other_data_are_refused_and_nothing_is_touched(quick):
    workdir, _ = quick
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    result = script("sweep.py", QUICK, "--config.data.examples=128", f"--workdir={workdir}")
    assert (
        result.returncode == 2
        and "already holds a different run (data.examples was" in result.stderr
    )
    assert {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()} == before


def test_when_all_members_diverge_the_tables_are_there_and_the_exit_code_says_so(tmp_path):
    only = (
        "--config.only=('mlp',)",
        "--config.grid.beta=(1e30,)",
        "--config.train.learning_rate=1e30",
    )
    result = script("sweep.py", QUICK, *only, f"--workdir={tmp_path / 'run'}")
    assert result.returncode == 1, result.stderr
    assert "2 members, 2 of them diverged" in result.stdout.strip().splitlines()[-1]
    rows = disk.read_table(tmp_path / "run" / "points.csv")
    assert {row["status"] for row in rows} == {"diverged"}


def test_override_from_the_command_line_reaches_every_block():
    """What --config.grid.beta="(0.1, 0.5, 1.0)" --config.train.epochs=3 sets, in the full quickstart."""
    from configs import quickstart

    chosen = quickstart.get_config()
    chosen.grid.beta = (0.1, 0.5, 1.0)
    chosen.train.epochs = 3.0
    members = planning.members_of(chosen.to_dict())
    assert {m.beta for m in members} == {0.1, 0.5, 1.0} and {m.epochs for m in members} == {3.0}
    assert {m.decoder for m in members} == {"mlp", "pixelcnn"}


def test_the_quickstart_is_the_experiment_it_says():
    from configs import quickstart

    members = planning.members_of(quickstart.get_config().to_dict())
    plain = [m for m in members if m.marginal == "normal"]
    for decoder, betas, ratio in (("mlp", 8, 2), ("pixelcnn", 5, 2)):
        own = [m for m in plain if m.decoder == decoder]
        widths = sorted({m.decoder_width for m in own})
        assert len(widths) >= 2 and ratio <= widths[-1] / widths[0] <= 4
        for width in widths:
            chosen = {m.beta for m in own if m.decoder_width == width}
            assert (
                len(chosen) >= betas and 1.0 in chosen and min(chosen) == 0.1 and max(chosen) == 4.0
            )
        assert len({m.seed for m in own}) >= 2
    assert any(m.marginal == "vampprior" for m in members)
    spacing = np.diff(np.log(quickstart.BETAS))
    assert spacing.max() / spacing.min() < 1.02  # log-spaced
    assert grid.unique(members) == members
