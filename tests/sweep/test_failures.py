"""A sweep goes on after a chunk that fails, a full disk and a kill."""

import errno

import jax
import pytest

from rd_elbo import disk, host
from rd_elbo.sweep import run, tables
from rd_elbo.training import fit as training
from tests.sweep.studies import plan


def test_a_chunk_that_fails_is_recorded_once_and_tried_again_later(tmp_path, monkeypatch):
    real, said, calls = training.fit, [], []

    def picky(spec, models, hparams, *args, **kwargs):
        calls.append(len(models))
        if 0.5 in hparams.weights.beta:
            raise jax.errors.JaxRuntimeError("INTERNAL: it does not compile\nand more")
        return real(spec, models, hparams, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(training, "fit", picky)
        outcome = run.run(plan(), tmp_path / "run", report=said.append)
    assert calls == [2, 2] and len(said) == 1
    assert set(outcome.failed.values()) == {"INTERNAL: it does not compile"}
    assert len(outcome.failed) == 2 and outcome.written
    members = disk.read_table(tmp_path / "run" / "members.csv")
    ended = {row["member"]: row["status"] for row in members}
    assert {name for name, status in ended.items() if "failed" in status} == set(outcome.failed)
    points = disk.read_table(tmp_path / "run" / "points.csv")
    assert {row["member"] for row in points} == set(ended) - set(outcome.failed)
    assert not run.run(plan(), tmp_path / "run", report=pytest.fail).failed
    assert len(disk.read_table(tmp_path / "run" / "points.csv")) == 8


def test_a_full_disk_ends_the_run(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tables, "save_params", full)
        with pytest.raises(OSError, match="No space left"):
            run.run(plan(), tmp_path / "run")
    assert len(run.run(plan(), tmp_path / "run", report=pytest.fail).points) == 8


class Killed(BaseException):
    """As far as the disk knows, the process is gone."""


def test_a_chunk_killed_twice_without_progress_is_halved(tmp_path, monkeypatch):
    three, said = plan(blocks={"mlp": {"beta": (0.3, 0.5, 1.0)}}), []

    def killed(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(training, "fit", killed)
        for _ in range(2):
            with pytest.raises(Killed):
                run.run(three, tmp_path / "run", report=pytest.fail)
    outcome = run.run(three, tmp_path / "run", report=said.append)
    assert not outcome.failed and len(said) == 1 and "killed 2 times" in said[0]
    assert len(list((tmp_path / "run" / "chunks").iterdir())) == 2


def test_a_signal_that_ends_the_process_at_once_is_no_kill(tmp_path, monkeypatch):
    """As while a program is compiled or evaluated, see `host.stop_on_signals`."""
    stop = host.Stop()

    def signalled(*_, **__):
        stop.last_words()
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(training, "fit", signalled)
        for _ in range(3):
            with pytest.raises(Killed):
                run.run(plan(), tmp_path / "run", stop=stop, report=pytest.fail)
    assert stop.last_words is None
    run.run(plan(), tmp_path / "run", report=pytest.fail)
    assert len(list((tmp_path / "run" / "chunks").iterdir())) == 2
