"""What is written while training runs: whole lines, nothing twice, and event files."""

import errno
import itertools

import numpy as np
import pytest

from rd_elbo import disk, live, planning, sweep, train
from rd_elbo.live import COLUMNS, Live, event_writer
from rd_elbo.population import Metrics


def metrics(members, steps, first=0):
    values = 1000.0 * np.arange(members)[:, None] + np.arange(first, first + steps)
    return Metrics(values, values + 0.25, values + 0.5)


def plan(**population):
    base = {"encoder_width": 6, "latent": 3, "decoder_width": 6, "decoder_depth": 1, "batch_size": 16, "epochs": 4.0}
    config = {
        "name": "tiny",
        "data": {"name": "mnist_static", "examples": 64},
        "base": base,
        "blocks": {"mlp": {"beta": (0.5, 1.0)}},
        "population": {"strategy": "vmap", **population},
    }
    return planning.make_plan(config)


def test_steps_are_added_and_begun_anew(tmp_path):
    watch = Live(tmp_path, "part", ["a", "b"], pytest.fail, None)
    watch(0, metrics(2, 3))
    watch(3, metrics(2, 2, 3))
    rows = disk.read_table(tmp_path / "live" / "part.csv")
    assert tuple(rows[0]) == COLUMNS
    assert [(row["member"], row["step"]) for row in rows] == [(m, s) for steps in (range(3), (3, 4)) for m in "ab" for s in steps]
    assert rows[-1] == {"member": "b", "step": 4, "rate": 1004, "distortion": 1004.25, "loss": 1004.5}
    watch(0, metrics(2, 1))
    assert len(disk.read_table(tmp_path / "live" / "part.csv")) == 2
    watch.close(done=True)
    assert not list((tmp_path / "live").iterdir())


def test_many_members_are_shown_every_so_many_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "_ROWS", 10)
    watch = Live(tmp_path, "part", ["a", "b", "c"], pytest.fail, None)
    watch(0, metrics(3, 8))
    assert [row["step"] for row in disk.read_table(tmp_path / "live" / "part.csv")] == [1, 4, 7] * 3


def test_what_diverged_has_nothing_to_say(tmp_path):
    watch, seen = Live(tmp_path, "part", ["a", "b"], pytest.fail, None), metrics(2, 2)
    seen.rate[1, 1] = np.nan
    watch(0, seen)
    assert len(disk.read_table(tmp_path / "live" / "part.csv")) == 3


def test_a_full_disk_is_told_once_and_training_goes_on(tmp_path, monkeypatch):
    said = []
    watch = Live(tmp_path, "part", ["a"], said.append, None)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(watch, "_write", full)
    watch(0, metrics(1, 1))
    watch(1, metrics(1, 1, 1))
    assert len(said) == 1 and "No space left on device); training goes on" in said[0]


def test_a_training_taken_up_again_tells_all_its_steps_once(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "_FIRST_STEPS", 3)
    monkeypatch.setattr(train, "next_steps", lambda *_: 3)
    calls, seen = itertools.count(1), {}
    with pytest.raises(train.Stopped):
        sweep.run(plan(checkpoint_seconds=0.0), tmp_path / "run", stop=lambda: next(calls) > 2)
    (path,) = (tmp_path / "run" / "live").iterdir()
    rows = disk.read_table(path)
    steps = [row["step"] for row in rows if row["member"] == rows[0]["member"]]
    assert steps == list(range(7)) and len(rows) == 14  # segments of 3, of 1 to the end of the epoch, and of 3

    def last(self, done):
        seen["rows"] = disk.read_table(path) if done else []

    monkeypatch.setattr(Live, "close", last)
    sweep.run(plan(checkpoint_seconds=0.0), tmp_path / "run")
    final = disk.read_table(tmp_path / "run" / "metrics.csv")
    assert sorted(map(str, seen["rows"])) == sorted(map(str, final)) and len(final) == 32
    assert not (tmp_path / "run" / "live").exists()


def test_event_files_hold_the_metrics(tmp_path):
    from tensorboardX.proto import event_pb2

    sweep.run(plan(), tmp_path / "run", writer=event_writer())
    final = disk.read_table(tmp_path / "run" / "metrics.csv")
    folders = sorted((tmp_path / "run" / "tensorboard").iterdir())
    assert [folder.name for folder in folders] == sorted({row["member"] for row in final})
    for folder in folders:
        (path,) = folder.iterdir()
        content, found, place = path.read_bytes(), {}, 0
        while place < len(content):
            # Length and its checksum, the record, and its checksum.
            length = int.from_bytes(content[place : place + 8], "little")
            event = event_pb2.Event.FromString(content[place + 12 : place + 12 + length])
            place += 16 + length
            for value in event.summary.value:
                found[value.tag, event.step] = value.simple_value
        own = {(name, row["step"]): row[name] for row in final if row["member"] == folder.name for name in Metrics._fields}
        assert found.keys() == own.keys()
        assert all(found[key] == pytest.approx(own[key], rel=1e-6) for key in own)


def test_where_event_files_cannot_be_opened_those_that_were_are_closed(tmp_path):
    made, said = [], []

    class Writer:
        def __init__(self, folder):
            if len(made) == 2:
                raise OSError(errno.EMFILE, "Too many open files")
            made.append(self)
            self.open = True

        def close(self):
            self.open = False

    watch = Live(tmp_path, "part", ["a", "b", "c"], said.append, Writer)
    watch(0, metrics(3, 1))
    watch(1, metrics(3, 1, 1))
    assert len(said) == 1 and "Too many open files); training goes on" in said[0]
    assert len(made) == 2 and not any(writer.open for writer in made)
