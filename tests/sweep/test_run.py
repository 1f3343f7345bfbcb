"""The whole way: from a configuration, or a command line, to a run directory."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rd_elbo import disk
from rd_elbo.errors import BadInput
from rd_elbo.sweep import config, grid, overrides, run, tables
from tests.optimised import OPTIMISED

ROOT = pathlib.Path(__file__).parents[2]
TINY = {"encoder_width": 6, "latent": 3, "decoder_width": 6, "decoder_depth": 1}
TINY |= {"batch_size": 32, "epochs": 1.0}


def given(**changes):
    more = {"beta": (1.0, 2.0), "decoder_width": (6, 5)}
    return {
        "name": "tiny",
        "data": {"name": "mnist_static", "examples": 64},
        "base": TINY,
        "blocks": {"mlp": {"beta": (0.5, 1.0), "seed": 0}, "more": more},
        **changes,
    }


def test_blocks_overrides_and_duplicates():
    members = grid.members_of(given())
    found = [(m.beta, m.decoder_width) for m in members]
    assert found == [(0.5, 6), (1.0, 6), (1.0, 5), (2.0, 6), (2.0, 5)]
    axes = {"grid": {"beta": None, "seed": (3, 4)}, "train": {"epochs": 2.5}}
    only = grid.members_of(given(only=("mlp",), **axes))
    found = [(m.beta, m.seed, m.epochs) for m in only]
    assert found == [(0.5, 3, 2.5), (0.5, 4, 2.5), (1.0, 3, 2.5), (1.0, 4, 2.5)]


def test_a_target_rate_from_the_command_line_needs_no_beta():
    axes = {"objective": ("target_rate",), "target_rate": (3.0, 4.0), "decoder_width": (6,)}
    members = grid.members_of(given(grid=axes))
    found = [(m.objective, m.target_rate, m.beta, m.seed) for m in members]
    assert found == [("target_rate", r, 1.0, 0) for r in (3.0, 4.0)]


def test_run_directory(tmp_path):
    told, population = [], {"chunk_size": 3, "max_padding_overhead": 2.0}
    plan = config.load(given(population=population), pytest.fail)
    points = run.run(plan, tmp_path / "run", progress=lambda *now: told.append(now)).points
    rows = disk.read_table(tmp_path / "run" / "points.csv")
    assert tuple(rows[0]) == tables.POINT_COLUMNS and len(rows) == 10
    for row, point in zip(rows, points, strict=True):
        assert row == point and row["elbo"] == -(row["rate"] + row["distortion"])
        assert row["rate"] >= 0 and row["distortion"] >= 0
    assert [row["member"] for row in rows[:5]] == [m.name for m in plan.members]
    metrics = disk.read_table(tmp_path / "run" / "metrics.csv")
    wanted = {(m.name, step) for m in plan.members for step in (1, 2)}
    assert {(m["member"], m["step"]) for m in metrics} == wanted
    beta = {m.name: m.beta for m in plan.members}
    for row in metrics:
        loss = row["distortion"] + beta[row["member"]] * row["rate"]
        np.testing.assert_allclose(row["loss"], loss, rtol=1e-5)
    table = disk.read_table(tmp_path / "run" / "members.csv")
    assert [row["member"] for row in table] == [m.name for m in plan.members]
    about = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert about["data"]["sha256"] == plan.dataset.checksum()
    assert about["tables"]["points.csv"] == disk.sha256(tmp_path / "run" / "points.csv")
    left = {path.name for path in (tmp_path / "run").iterdir()} - {".lock"}
    files = {"config.json", "members.csv", "metrics.csv", "points.csv", "provenance.json"}
    assert left == files | {"params", "chunks", "metrics", "checkpoints"}
    member, params = tables.load_params(tmp_path / "run", rows[4]["member"])
    assert member == plan.members[4]
    assert params["decoder"]["logits"]["kernel"].shape == (5, 784)
    done = [part for part, _ in told]
    assert done == sorted(done) and done[-1] == pytest.approx(1.0)


def test_saved_parameters_give_the_points_of_the_table(tmp_path):
    plan = config.load(given(only=("mlp",), grid={"ema_decay": (0.0, 0.5)}))
    points = run.run(plan, tmp_path / "run").points
    x, seen = jnp.asarray(plan.dataset.splits["test"], jnp.float32), []
    for point in (p for p in points if p["split"] == "test"):
        member, params = tables.load_params(tmp_path / "run", point["member"], point["averaging"])
        model = member.build((28, 28))
        rate = model.encode(params, x).kl_divergence(model.prior_distribution(params, x)).mean()
        np.testing.assert_allclose(rate, point["rate"], rtol=1e-5)
        seen.append((member.ema_decay, point["averaging"]))
    assert {*seen} == {(0.0, "none"), (0.5, "none"), (0.5, "ema")}
    # The average that a chunk has lost is trained again.
    tables.params_path(tmp_path / "run", f"{member.name}.ema").unlink()
    said = []
    run.run(plan, tmp_path / "run", report=said.append)
    assert said == [
        f"parameters of {member.name}.ema are missing or damaged; its members are trained again"
    ]


def test_points_are_reported_on_a_fixed_choice_of_the_training_split(tmp_path):
    whole = config.load(given())
    data = {"name": "mnist_static", "examples": 64, "eval_examples": 20}
    first, again = (config.load(given(data=data)).evaluated for _ in range(2))
    assert len(first["test"]) == 64 and len(first["train"]) == 20
    np.testing.assert_array_equal(first["train"], again["train"])
    rows = {image.tobytes() for image in whole.evaluated["train"]}
    assert all(image.tobytes() in rows for image in first["train"])
    # All of the split is trained on.
    assert len(config.load(given(data=data)).dataset.splits["train"]) == 64


def test_metrics_are_kept_of_some_steps():
    plan = config.load(given(train={"epochs": 1050.0}))
    assert [plan.steps(chunk) for chunk in plan.chunks()] == [2100]
    assert plan.metrics_every(plan.chunks()[0]) == 3
    plan = config.load(given(population={"metrics_every": 7}))
    assert plan.metrics_every(plan.chunks()[0]) == 7


def test_old_names_are_understood_and_told():
    said = []
    old = {"members": 3, "lanes": 2, "max_waste": 1.5, "strategy": "vmap"}
    plan = config.load(given(population=old), said.append)
    assert plan.population == config.Population(None, 3, 2, 1.5)
    assert len(said) == 4
    for name in ("chunk_size", "vmap_size", "max_padding_overhead"):
        assert any(name in sentence for sentence in said)
    looped = config.load(given(population={"strategy": "looped"}), said.append).population
    assert looped.vmap_size == 1
    blank = config.blank("mine").to_dict()["population"]
    assert config.load_population(blank, pytest.fail) == config.Population()


def test_the_program_of_a_chunk_does_what_its_members_ask():
    axes = {"objective": "free_bits", "free_bits": (1.0, 2.0), "schedule": "constant"}
    how = {"compute_dtype": "bfloat16", "precision": "high", "vmap_size": 4}
    plan = config.load(given(blocks={"free": axes}, population=how))
    (chunk,) = plan.chunks()
    spec = plan.spec(chunk)
    assert (spec.objective, spec.schedule, spec.batch_size) == ("free_bits", "constant", 32)
    assert (spec.compute_dtype, spec.precision, spec.vmap_size) == ("bfloat16", "high", 4)
    assert plan.identity["compute_dtype"] == "bfloat16" and "vmap_size" not in plan.identity


def test_members_that_one_program_cannot_train_are_no_group():
    for field, value in (("batch_size", 3), ("objective", "free_bits"), ("schedule", "constant")):
        with pytest.raises(BadInput, match=f"{field}={value!r}"):
            grid.Group((grid.Member(), grid.Member(**{field: value})))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"blocks": {}}, "blocks={}: expected at least one"),
        ({"blocks": {"mlp": {"beta": ()}}}, "beta=(): expected at least one"),
        ({"blocks": {"mlp": {"beta": -1.0}}}, "beta=-1.0"),
        ({"blocks": {"mlp": {"bta": 1.0}}}, "'bta'"),
        ({"blocks": {"mlp": {"decoder_width": 0}}}, "decoder_width=0"),
        ({"blocks": {"mlp": {"decoder": "cnn"}}}, "decoder='cnn'"),
        ({"only": ("vae",)}, "only='vae'"),
        ({"grid": {"target_rate": (3.0,)}}, "target_rate=(3.0,): expected no value"),
        ({"grid": {"pseudo_inputs": (3, 4)}}, "since prior is 'normal' everywhere"),
        ({"grid": {"flow_width": (3, 4)}}, "since encoder is 'dense' and prior is 'normal'"),
        ({"grid": {"epochs": (1.0,)}, "train": {"epochs": 2.0}}, "epochs: expected grid.epochs or"),
        ({"train": {"batch_size": 100}}, "batch_size=100"),
        ({"population": {"chunk_size": 0}}, "chunk_size=0"),
        ({"population": {"max_padding_overhead": 0.5}}, "max_padding_overhead=0.5"),
        ({"population": {"max_padding_overhead": float("inf")}}, "max_padding_overhead=inf"),
        ({"blocks": None}, "blocks={}: expected at least one"),
        ({"population": {"speed": "fast"}}, "population.speed"),
        ({"data": {"name": "cifar"}}, "'cifar'"),
        ({"data": {"examples": 0}}, "data.examples=0"),
        ({"data": {"splits": ("validation",)}}, "data.splits='validation'"),
        ({"data": {"size": 3}}, "data.size"),
        ({"optimizer": {}}, "'optimizer'"),
    ],
)
def test_bad_configurations_are_one_sentence(changes, sentence):
    with pytest.raises(BadInput) as refusal:
        config.load(given(**changes))
    assert sentence in str(refusal.value) and "\n" not in str(refusal.value)


def test_numbers_of_numpy_are_recorded_as_plain_ones():
    block = {"beta": np.linspace(0.5, 1.0, 2), "seed": tuple(np.arange(2))}
    plan = config.load(given(blocks={"mlp": block}))
    assert len(plan.members) == 4
    recorded = json.loads(json.dumps(plan.config))["blocks"]
    assert recorded == {"mlp": {"beta": [0.5, 1.0], "seed": [0, 1]}}


def script(name, *arguments, **environment):
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / name), *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "80", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


QUICK = "--config=configs/quickstart.py:quick"


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """The quick form of the quickstart, from the command line."""
    workdir = tmp_path_factory.mktemp("quick") / "run"
    result = script("sweep.py", QUICK, f"--workdir={workdir}", **OPTIMISED)
    assert result.returncode == 0, result.stderr
    return workdir, result


@pytest.mark.slow
def test_command_line(quick):
    workdir, result = quick
    rows = disk.read_table(workdir / "points.csv")
    found = {(r["decoder"], r["beta"]) for r in rows}
    assert found == {(d, b) for d in ("mlp", "pixelcnn") for b in (0.251, 1.0)}
    assert all(row["status"] == "ok" for row in rows)
    assert "pixelcnn 3x1" in result.stdout and "R + D" in result.stdout
    last = result.stdout.strip().splitlines()[-1]
    assert "none diverged" in last and str(workdir / "points.csv") in last
    assert "rd_plane.png" in last
    (times,) = re.findall(r"time by family: --- (\d+) s, -\+- (\d+) s\n", result.stdout)
    about = json.loads((workdir / "provenance.json").read_text())
    assert sum(map(int, times)) == pytest.approx(sum(about["seconds"].values()), abs=1)
    assert (workdir / "figures" / "rd_plane.pdf").stat().st_size > 1000


@pytest.mark.slow
def test_a_table_is_held_against_its_parameters_and_they_are_evaluated_further(quick, tmp_path):
    workdir = shutil.copytree(quick[0], tmp_path / "run")
    result = script("compare.py", f"--check={workdir}")
    assert result.returncode == 0 and "The table holds" in result.stdout
    likelihood = ("evaluate.py", f"--workdir={workdir}", "--nll=4", "--examples=32")
    assert script(*likelihood).returncode == 0
    rows = disk.read_table(workdir / "likelihood.csv")
    assert [row["nll_examples"] for row in rows] == [32] * 6
    assert all(0 < row["posterior_gap"] < row["nll"] for row in rows)
    written = (workdir / "likelihood.csv").read_bytes()
    assert "6 members, 0 of them new" in script(*likelihood).stdout
    assert (workdir / "likelihood.csv").read_bytes() == written
    path = workdir / "params" / f"{rows[0]['member']}.msgpack"
    content = flax.serialization.msgpack_restore(path.read_bytes())
    content["params"] = jax.tree.map(lambda leaf: leaf + 0.05, content["params"])
    path.write_bytes(flax.serialization.msgpack_serialize(content))
    result = script("compare.py", f"--check={workdir}")
    assert result.returncode == 1 and "does not hold" in result.stdout
    assert f"member {rows[0]['member']}" in result.stdout


@pytest.mark.slow
def test_figures_are_redrawn_from_tables(quick):
    workdir, _ = quick
    figure = workdir / "figures" / "elbo_against_rate.png"
    before = figure.read_bytes()
    figure.unlink()
    result = script("figures.py", f"--workdir={workdir}")
    assert result.returncode == 0 and figure.read_bytes() == before


@pytest.mark.slow
def test_other_data_are_refused_and_nothing_is_touched(quick):
    workdir, _ = quick
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    result = script("sweep.py", QUICK, "--config.data.examples=128", f"--workdir={workdir}")
    assert result.returncode == 2 and "data.examples was" in result.stderr
    assert {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_settings_of_the_environment_change_no_number(quick, tmp_path):
    environment = OPTIMISED | {
        "JAX_THREEFRY_PARTITIONABLE": "0",
        "JAX_DEFAULT_PRNG_IMPL": "rbg",
        "JAX_ENABLE_X64": "1",
        "JAX_NUMPY_DTYPE_PROMOTION": "strict",
        "JAX_DEFAULT_MATMUL_PRECISION": "bfloat16",
        "JAX_RANDOM_SEED_OFFSET": "5",
    }
    result = script("sweep.py", QUICK, f"--workdir={tmp_path / 'run'}", **environment)
    assert result.returncode == 0, result.stderr
    workdir, _ = quick
    for name in ("points.csv", "metrics.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (workdir / name).read_bytes()


@pytest.mark.slow
def test_a_dry_run_trains_and_writes_nothing(tmp_path):
    result = script("sweep.py", QUICK, "--dry_run", "--shard=0/2", f"--workdir={tmp_path / 'run'}")
    assert result.returncode == 0, result.stderr
    assert "2 programs, 2 chunks; nothing was trained or written" in result.stdout
    assert "population.chunk_size=" in result.stdout and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_spent_budget_is_no_failure(tmp_path):
    where = f"--workdir={tmp_path / 'run'}"
    result = script("sweep.py", QUICK, where, "--budget=0.01s")
    assert result.returncode == 0 and "the budget is spent" in result.stderr
    assert "time by family" not in result.stdout
    assert (tmp_path / "run" / "points.csv").exists()
    result = script("sweep.py", QUICK, where, "--budget=8h")
    assert result.returncode == 0 and "6 members, none diverged" in result.stdout


@pytest.mark.slow
def test_when_all_members_diverge_the_exit_code_says_so(tmp_path):
    only = ("--config.only=('mlp',)", "--config.grid.beta=(1e30,)")
    only += ("--config.train.learning_rate=1e30",)
    result = script("sweep.py", QUICK, *only, f"--workdir={tmp_path / 'run'}", JAX_DEBUG_NANS="1")
    assert result.returncode == 1, result.stderr
    assert "2 members, 2 of them diverged" in result.stdout.strip().splitlines()[-1]
    rows = disk.read_table(tmp_path / "run" / "points.csv")
    assert {row["status"] for row in rows} == {"diverged"}


def test_override_from_the_command_line_reaches_every_block():
    """What --config.grid.beta="(0.1, 0.5, 1.0)" --config.train.epochs=3 sets."""
    from configs import quickstart

    chosen = quickstart.get_config()
    chosen.grid.beta = (0.1, 0.5, 1.0)
    chosen.train.epochs = 3.0
    members = grid.members_of(chosen.to_dict())
    assert {m.beta for m in members} == {0.1, 0.5, 1.0} and {m.epochs for m in members} == {3.0}
    assert {m.decoder for m in members} == {"mlp", "pixelcnn"}
    assert overrides.in_words(chosen.to_dict()) == "beta 0.1, 0.5, 1.0; epochs 3.0"
    given = {"grid.beta": (0.1,), "base.latent": 8, "blocks.mlp.beta": (0.3, 1.0), "name": "x"}
    assert overrides.of_blocks(given) == "base.latent 8; blocks.mlp.beta 0.3, 1.0"


def test_a_flag_for_base_that_every_block_replaces_is_refused():
    blocks = {"a": {"latent": 4}, "b": {}}
    overrides.check_effect(["base.latent"], {"blocks": blocks})
    with pytest.raises(BadInput, match=r"base\.latent: expected a field that some block has"):
        overrides.check_effect(["base.latent"], {"blocks": blocks, "only": ("a",)})


def test_the_quickstart_is_the_experiment_it_says():
    from configs import quickstart

    members = grid.members_of(quickstart.get_config().to_dict())
    plain = [m for m in members if m.prior == "normal"]
    for decoder, betas, ratio in (("mlp", 8, 2), ("pixelcnn", 5, 2)):
        own = [m for m in plain if m.decoder == decoder]
        widths = sorted({m.decoder_width for m in own})
        assert len(widths) >= 2 and ratio <= widths[-1] / widths[0] <= 4
        for width in widths:
            chosen = {m.beta for m in own if m.decoder_width == width}
            assert len(chosen) >= betas and {0.1, 1.0, 4.0} <= chosen
            assert min(chosen) == 0.1 and max(chosen) == 4.0
        assert len({m.seed for m in own}) >= 2
    assert any(m.prior == "vampprior" for m in members)
    spacing = np.diff(np.log(quickstart.BETAS))
    assert spacing.max() / spacing.min() < 1.02  # log-spaced
    assert grid.unique(members) == members
    assert quickstart.get_config().data.eval_examples == 10_000
