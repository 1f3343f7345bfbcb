"""Shards: which one a process is, what it trains, and that together they make one table."""

import pathlib
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rd_elbo import disk
from rd_elbo.errors import BadInput
from rd_elbo.sweep import config, folder, run
from rd_elbo.sweep.shard import Shard, imbalance, owners, parse
from rd_elbo.training import fit as training

ARRAY = {"SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "4", "SLURM_ARRAY_TASK_STEP": "1"}
ARRAY |= {"SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_ID": "3"}
STEP = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}


@pytest.mark.parametrize(
    ("text", "environ", "index", "count"),
    [
        ("0/1", {}, 0, 1),
        ("3/4", {}, 3, 4),
        ("auto", ARRAY, 2, 4),
        ("auto", {**ARRAY, "SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, 2, 4),
        ("auto", STEP, 1, 2),
        ("auto", ARRAY | STEP, 5, 8),
        ("auto/4", {"JOB_COMPLETION_INDEX": "2"}, 2, 4),
    ],
)
def test_which_shard_it_is(text, environ, index, count):
    shard = parse(text, environ)
    assert (shard.index, shard.count) == (index, count) and str(shard) == f"{index}/{count}"
    assert bool(shard.origin) == text.startswith("auto")


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        ("4/4", {}),
        ("-1/4", {}),
        ("0/0", {}),
        ("1", {}),
        ("auto", {}),
        # A batch script that is no step is one process.
        ("auto", {"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}),
        ("auto", ARRAY | {"SLURM_ARRAY_TASK_COUNT": "3"}),
        ("auto/4", {}),
        ("auto/4", {"JOB_COMPLETION_INDEX": "4"}),
    ],
)
def test_what_is_no_shard_is_refused(text, environ):
    with pytest.raises(BadInput, match=f"shard='{text}'"):
        parse(text, environ)


@given(st.lists(st.floats(1.0, 100.0), min_size=1, max_size=40), st.integers(1, 8))
def test_shares_are_balanced_and_fixed(work, count):
    owner = owners(work, count)
    assert owner == owners(work, count) and set(owner) <= set(range(count))
    loads = [sum(w for w, i in zip(work, owner, strict=True) if i == own) for own in range(count)]
    # Graham's bound for the largest first.
    best = max(sum(work) / count, max(work))
    assert max(loads) <= (4 / 3) * best * (1 + 1e-9) or max(loads) <= sum(work) / count + max(work)
    assert imbalance(work, count) >= 1 - 1e-9


TINY = {"encoder_width": 6, "latent": 3, "decoder_width": 6, "decoder_depth": 1}
TINY |= {"batch_size": 16, "epochs": 2.0}
FILES = ("points.csv", "metrics.csv", "members.csv")


def plan(**changes):
    given = {
        "name": "tiny",
        "data": {"name": "mnist_static", "examples": 64},
        "base": TINY,
        "blocks": {"mlp": {"beta": (0.25, 0.5, 1.0, 2.0)}, "wide": {"decoder_width": 30}},
        "population": {"chunk_size": 2},
        **changes,
    }
    return config.load(given, pytest.fail)


def read(workdir: pathlib.Path):
    return {name: (workdir / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("reference") / "run"
    run.run(plan(), workdir, report=pytest.fail)
    return workdir


def test_shards_make_the_tables_of_one_process(reference, tmp_path):
    outcomes = [
        run.run(plan(), tmp_path / "run", shard=Shard(i, 3), report=pytest.fail) for i in range(3)
    ]
    assert [outcome.written for outcome in outcomes] == [False, False, True]
    assert set(outcomes[0].missing) == {1, 2} and set(outcomes[1].missing) == {2}
    assert sum(outcomes[0].missing.values()) in (3, 4) and not outcomes[2].missing
    assert read(tmp_path / "run") == read(reference)
    # Their number may change; nothing is left to train.
    assert run.run(plan(), tmp_path / "run", shard=Shard(1, 2), report=pytest.fail).written
    assert read(tmp_path / "run") == read(reference)


def test_what_is_there_is_collected_at_any_time(reference, tmp_path):
    run.run(plan(), tmp_path / "run", shard=Shard(0, 3))
    assert not (tmp_path / "run" / "points.csv").exists()
    outcome = run.run(plan(), tmp_path / "run", collect=True)
    assert outcome.written and 2 <= len(outcome.points) <= 4 and outcome.missing
    states = disk.read_table(tmp_path / "run" / "members.csv")
    assert {row["status"] for row in states} == {"ok", "to be trained"}
    # Without shards the same folder is completed.
    run.run(plan(), tmp_path / "run", report=pytest.fail)
    assert read(tmp_path / "run") == read(reference)


def test_a_shard_that_fails_is_told_by_the_last(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise ValueError("a mistake")

    with monkeypatch.context() as patch:
        patch.setattr(training, "fit", broken)
        assert run.run(plan(), tmp_path / "run", shard=Shard(0, 2)).failed
    outcome = run.run(plan(), tmp_path / "run", shard=Shard(1, 2))
    assert outcome.written and set(outcome.failed.values()) == {"a mistake"}
    outcome = run.run(plan(), tmp_path / "run", shard=Shard(0, 2))
    assert outcome.written and not outcome.failed and len(outcome.points) == 10


def test_locks_of_shards(tmp_path):
    with folder.locked(tmp_path, "0of2"), folder.locked(tmp_path, "1of2"):
        for share in ("", "0of2"):
            with pytest.raises(BadInput, match="got one in use"), folder.locked(tmp_path, share):
                pass
    with folder.locked(tmp_path), pytest.raises(BadInput), folder.locked(tmp_path, "0of2"):
        pass


def test_a_shard_removes_nothing_that_another_may_be_writing(reference, tmp_path):
    copy = shutil.copytree(reference, tmp_path / "run")
    (copy / "params" / ".x.msgpack.a1b2c3d4").write_bytes(b"half")
    next((copy / "chunks").iterdir()).write_text("{")
    larger = plan(blocks={"mlp": {"beta": (0.25, 0.5, 1.0, 2.0, 4.0)}})
    run.run(larger, copy, shard=Shard(0, 2))
    assert (copy / "params" / ".x.msgpack.a1b2c3d4").exists()
    with pytest.raises(BadInput, match="overwrite=True"):
        run.run(larger, copy, shard=Shard(0, 2), overwrite=True)
