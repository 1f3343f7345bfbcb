"""The torture's judgement: what it takes for right, and what it sees to be wrong."""

import pathlib
import random
import shutil
import signal
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "scripts"))

import torture

from rd_elbo import planning, sweep


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    plan = planning.make_plan(
        {
            "name": "tiny",
            "data": {"name": "mnist_static", "examples": 32},
            "base": {"encoder_width": 4, "latent": 2, "decoder_width": 4, "decoder_depth": 1, "batch_size": 16},
            "blocks": {"mlp": {"seed": (0, 1)}},
        }
    )
    workdir = tmp_path_factory.mktemp("torture") / "run"
    sweep.run(plan, workdir)
    return workdir


def ended(code=0, said=""):
    return subprocess.CompletedProcess([], code, "", said)


def test_the_same_is_the_same_and_nothing_else_is(reference, tmp_path):
    def outcome(change=lambda run: None, result=None, **kwargs):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        run = shutil.copytree(reference, tmp_path / "run")
        change(run)
        return torture.outcome_of(run, reference, result or ended(said="warning: something was mended\n"), **kwargs)

    dice = random.Random(0)
    params = next(reference.glob("params/*")).relative_to(reference)
    assert outcome() == "same"
    for name in ("points.csv", "metrics.csv", "members.csv", params):
        assert outcome(lambda run, name=name: torture.flip(run / name, dice)) == f"WRONG: {name} differs"
        assert outcome(lambda run, name=name: (run / name).unlink()) == f"WRONG: {name} differs"
    assert outcome(lambda run: shutil.copy(run / params, run / "params" / "other")) == "WRONG: params/other differs"
    assert outcome(lambda run: (run / ".points.csv.half").write_text("")) == "WRONG: .points.csv.half left behind"
    assert outcome(lambda run: (run / "claims").mkdir()) == "same"
    assert outcome(result=ended(0, "Traceback (most recent call last)")) == "WRONG: a traceback"
    assert outcome(result=ended(0, "I have a bad feeling")) == "WRONG: I have a bad feeling"
    assert outcome(result=ended(1, "error: no space"), may_refuse=True) == "refused"
    assert outcome(result=ended(1, "error: no space")) == "WRONG: exit code 1"
    for said in ("", "error: this\nerror: that", "no space"):
        assert outcome(result=ended(2, said), may_refuse=True) == "WRONG: exit code 2"


def test_how_processes_may_end():
    kill, term, abort = signal.SIGKILL, signal.SIGTERM, signal.SIGABRT
    assert torture.killed([-kill], kill, "on its way", "")
    assert not torture.killed([1], kill, "on its way", "")
    # A termination has to save, unless everything is written and the figures are being drawn.
    assert torture.killed([143], term, "on its way", "stopped after 3 of 9 steps; what is done is saved, and ...")
    assert not torture.killed([143], term, "on its way", "stopped; its last state could not be saved")
    assert not torture.killed([-term], term, "on its way", "")
    assert torture.killed([-term], term, "tables written", "")
    assert torture.killed([-kill, -abort], kill, "on its way", "") and torture.killed([0, -kill], kill, "tables written", "")
    assert not torture.killed([-kill, 1], kill, "on its way", "")
    assert not torture.killed([-kill, -kill], kill, "on its way", "Traceback")


def test_only_states_without_their_record_are_half_written(tmp_path):
    folder = tmp_path / "checkpoints" / "part"
    (folder / "5").mkdir(parents=True)
    (folder / "5.json").write_text("{}")
    assert not torture.half_written(tmp_path)
    (folder / "9.orbax-checkpoint-tmp").mkdir()
    (folder / "7").mkdir()
    assert {path.name for path in torture.half_written(tmp_path)} == {"7", "9.orbax-checkpoint-tmp"}
