"""Several real processes on this machine at one sweep."""

import dataclasses
import functools
import json
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from rd_elbo import hosts, parts, planning, records, sweep, train
from rd_elbo.errors import BadInput
from rd_elbo.hosts import Claims, Hosts
from rd_elbo.meter import Meter
from rd_elbo.strategy import Planner
from rd_elbo.worker import Worker

ROOT = pathlib.Path(__file__).parents[1]
TABLES = ("points.csv", "metrics.csv", "members.csv")
# Parts of one member, so that there are more of them than processes, and one device each, so that nothing is rounded otherwise.
SWEEP = (
    "--config=configs/quickstart.py:quick",
    "--config.only=('mlp',)",
    "--config.grid.beta=(0.1,0.3,0.5,0.8,1.0,2.0)",
    "--config.population.devices=1",
    "--config.population.members=1",
    "--config.population.strategy=vmap",
    "--config.population.checkpoint_seconds=0",
)


def start(workdir, count=1, *more):
    """The processes of one job."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = f"--coordinator=127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "scripts/sweep.py", *SWEEP, f"--workdir={workdir}", *more]
    each = [[where, f"--processes={count}", f"--process={i}"] if count > 1 else [] for i in range(count)]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return [subprocess.Popen([*command, *own], cwd=ROOT, **pipes) for own in each]


def ends(processes):
    """Exit codes and what was said."""
    said = [process.communicate(timeout=240)[1] for process in processes]
    return [process.returncode for process in processes], said


def tables(workdir):
    return {name: (workdir / name).read_bytes() for name in TABLES}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("hosts") / "one"
    codes, said = ends(start(workdir))
    assert codes == [0], said
    return workdir


def taken(workdir, count):
    """Waits until parts are taken, and by then trained."""
    until = time.monotonic() + 120
    while time.monotonic() < until and len(list(workdir.glob("claims/*/[0-9a-f]*"))) < count:
        time.sleep(0.05)


def test_two_processes_make_the_tables_of_one(reference, tmp_path):
    codes, said = ends(start(tmp_path / "run", 2))
    assert codes == [0, 0], said
    assert tables(tmp_path / "run") == tables(reference)
    assert json.loads((tmp_path / "run" / "provenance.json").read_text())["processes"] == 2
    # Both have worked: who has not would have compiled nothing.
    own = [json.loads((tmp_path / "run" / name).read_text()) for name in ("status.json", "status_1.json")]
    assert all(status["state"] == "finished" and status["member_steps_per_second"] for status in own)


def test_four_processes_killed_and_started_again(reference, tmp_path):
    job = start(tmp_path / "run", 4)
    taken(tmp_path / "run", 5)
    job[2].send_signal(signal.SIGKILL)
    job[2].wait()
    # As a cluster does with those that are left.
    for process in job:
        process.kill()
    ends(job)
    assert not (tmp_path / "run" / "points.csv").exists()
    codes, said = ends(start(tmp_path / "run", 4))
    assert codes == [0] * 4, said
    assert tables(tmp_path / "run") == tables(reference)


def test_a_termination_of_one_stops_all_and_loses_nothing(reference, tmp_path):
    job = start(tmp_path / "run", 2, "--config.train.epochs=30")
    taken(tmp_path / "run", 3)
    job[1].send_signal(signal.SIGTERM)
    codes, said = ends(job)
    assert codes == [143, 143], said
    assert all("what is done is saved" in text for text in said)
    found = list((tmp_path / "run" / "parts").glob("*.npz"))
    codes, said = ends(start(tmp_path / "run", 1, "--config.train.epochs=30"))
    assert codes == [0], said
    assert all(path.exists() for path in found)


def test_bad_input_ends_all_of_them(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("something else")
    codes, said = ends(start(tmp_path / "run", 2))
    assert codes == [2, 2]
    assert "holds files but no run" in said[0] and "another process cannot begin; it says why" in said[1]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (("here:1", None, 0), "--processes is missing; give --coordinator, --processes and --process together"),
        (("here:1", 2, 2), "process=2 must be below processes=2"),
        (("here", 2, 0), "coordinator='here' must be an address and a port, such as 10.0.0.1:9000"),
        (("here:1", 0, 0), "processes=0 must be a whole number of at least 1"),
        ((None, None, None), "the processes cannot be brought together"),
    ],
)
def test_what_joins_nothing(given, sentence, monkeypatch):
    def refuse(*_):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(hosts.jax.distributed, "initialize", refuse)
    with pytest.raises(BadInput, match=sentence):
        hosts.join(*given)


def test_a_part_is_taken_once_and_anew_after_a_start(tmp_path):
    first, second = (Claims(tmp_path, Hosts(i, 2, "a")) for i in range(2))
    first.open()
    assert first.take("p") and not second.take("p") and not first.take("p") and second.take("q")
    second.fail("q", {"member": "too large"})
    assert first.failures() == {"q": {"member": "too large"}}
    assert not first.stopping()
    second.stop()
    time.sleep(0.3)
    assert first.stopping()
    again = Claims(tmp_path, Hosts(0, 2, "b"))
    again.open()
    assert again.take("p") and not again.failures() and [path.name for path in (tmp_path / "claims").iterdir()] == ["b"]
    # With one process there is nothing to agree on.
    alone = Claims(tmp_path / "alone", Hosts())
    alone.open()
    assert alone.take("p") and alone.take("p") and not alone.failures() and not list(tmp_path.glob("alone"))


def plan(**population):
    base = {"encoder_width": 6, "latent": 3, "decoder_width": 6, "decoder_depth": 1, "batch_size": 16, "epochs": 2.0}
    config = {
        "name": "tiny",
        "data": {"name": "mnist_static", "examples": 64},
        "base": base,
        "blocks": {"mlp": {"seed": (0, 1, 2, 3)}},
        "population": {"strategy": "vmap", "devices": 1, **population},
    }
    return planning.make_plan(config)


def test_what_another_process_divides_is_there_for_all(tmp_path):
    """One has taken a part, finds that it does not fit, divides it, and finishes or fails what it takes of it."""
    shared = plan()
    (whole,) = shared.divide(shared.members)
    identity = {"data": {"name": "tiny"}, "splits": list(shared.splits), "dtype": "float32"}
    stores = [parts.Store(tmp_path, identity) for _ in range(2)]
    claims = [Claims(tmp_path, Hosts(i, 2, "a")) for i in range(2)]
    claims[0].open()
    assert claims[0].take(stores[0].name(whole))
    planner = Planner(shared.dataset, shared.splits, shared.execution)
    meter = Meter(shared, [whole], {}, lambda _: None, None)
    worker, result, done = Worker(shared, stores[1], planner, claims[1], meter, lambda _: None), {}, {}
    thread = threading.Thread(target=lambda: result.update(worker.work([whole], done)))
    thread.start()
    time.sleep(1)
    assert thread.is_alive()
    # The first one is held before its pieces are to be had.
    claims[0].take(stores[0].name(type(whole)(whole.members[:1])))
    pieces = stores[0].split(whole, 1)
    claims[0].fail(stores[0].name(pieces[0]), {pieces[0].members[0].name: "too large"})
    thread.join(timeout=120)
    assert result == {pieces[0].members[0].name: "too large"}
    assert sorted(done) == sorted(member.name for member in whole.members[1:])


def test_work_is_shared_evenly(tmp_path):
    shared = plan()
    store = parts.Store(tmp_path, {"splits": []})
    pending = shared.divide(shared.members)

    def sizes(processes, study=shared, fixed=frozenset()):
        return [len(part.members) for part in sweep._balanced(study, store, processes, pending, fixed)]

    assert (sizes(1), sizes(2), sizes(3)) == ([4], [2, 2], [2, 2])
    assert sizes(2, plan(members=4)) == [4]
    assert sizes(2, fixed={store.name(pending[0])}) == [4]


def test_what_is_shared_stays_so_and_is_shared_anew_by_other_processes(tmp_path):
    shared = plan()
    store = parts.Store(tmp_path, {"splits": []})

    def sizes(processes, done=()):
        share = functools.partial(sweep._balanced, shared, store, processes)
        pending = store.pending(shared.members, dict.fromkeys(done), shared.divide, share, processes)
        assert [part.members for part in store.planned(shared.members)] == [part.members for part in pending]
        return [len(part.members) for part in pending]

    assert sizes(1) == [4]
    # Nothing of it was begun. It is all in the plan: nothing to be lost between two files.
    assert sizes(2) == [2, 2] and not (tmp_path / "splits").exists()
    assert sizes(2) == [2, 2]
    # One half is done: the other is not halved for those who had planned it as it is.
    first = [member.name for member in shared.members[:2]]
    assert sizes(2, first) == [2]
    assert sizes(1, first) == [2]
    # One that was begun stays, so that its states are of use.
    (rest,) = store.pending(shared.members, dict.fromkeys(first), shared.divide)
    state = tmp_path / "checkpoints" / store.name(rest)
    state.mkdir(parents=True)
    assert sizes(2, first) == [2]
    state.rmdir()
    assert sizes(1, first) == [2] and sizes(2, first) == [1, 1]
    # Nor is what was finished and has lost a file: its numbers depend on its company.
    (tmp_path / "plan.json").unlink()
    assert sizes(1) == [4]
    params = records.params_path(tmp_path, shared.members[1].name)
    params.parent.mkdir()
    params.touch()
    assert sizes(2) == [4]
    params.unlink()
    # Another sweep's plan is kept to by however many.
    other = dataclasses.replace(store, workdir=tmp_path / "replay")
    other.replay(tmp_path)
    share = functools.partial(sweep._balanced, shared, other, 2)
    for processes in (2, 1, 2):
        (part,) = other.pending(shared.members, {}, shared.divide, share, processes)
        assert len(part.members) == 4


def test_a_part_of_little_work_is_no_part_of_nothing(tmp_path):
    """Beside one of a million times its work."""
    config = {"base": {"batch_size": 16, "encoder_width": 4, "latent": 2, "decoder_width": 4, "decoder_depth": 1}}
    blocks = {"short": {"epochs": 0.001, "beta": (0.5, 1.0)}, "long": {"epochs": 1e6, "beta": (0.5, 1.0)}}
    uneven = planning.make_plan({"name": "uneven", "data": {"name": "mnist_static", "examples": 64}, **config, "blocks": blocks})
    pending = uneven.divide(uneven.members)
    store = parts.Store(tmp_path, {})
    assert sorted(len(part.members) for part in sweep._balanced(uneven, store, 2, pending, set())) == [1, 1, 2]


def test_what_another_run_has_trained_is_neither_done_nor_to_be_done():
    study, heard = plan(), []
    (whole,) = study.divide(study.members)
    meter = Meter(study, [whole], {}, heard.append, None)
    tell = meter.training(whole)
    tell(train.Progress(4, 60, 100, 50, 4, 0.0, 0.0))
    training, evaluation = study.work(whole)
    assert heard[-1].done == pytest.approx(0.1 * training / (0.5 * training + evaluation))
    # It does not fit after all: all of it is to be done.
    halves = [type(whole)(whole.members[:2]), type(whole)(whole.members[2:])]
    meter.split(whole, halves)
    meter.preparing(halves[0])
    assert heard[-1].done == 0.0
    tell = meter.training(halves[0])
    tell(train.Progress(2, 100, 100, 0, 2, 0.0, 0.0))
    own = study.work(halves[0])
    assert heard[-1].done == pytest.approx(own[0] / (2 * sum(own)))
    meter.finish(halves[0], None)
    meter.preparing(halves[1])
    assert heard[-1].done == pytest.approx(0.5)


def test_a_stop_is_heard_for_good(tmp_path):
    claims = Claims(tmp_path, Hosts(1, 2, "a"))
    claims.open()
    assert not claims.stopping()
    Claims(tmp_path, Hosts(0, 2, "a")).stop()
    time.sleep(0.3)
    assert claims.stopping() and claims.stopping()
    assert not claims.await_end()


def test_files_of_other_hosts_are_waited_for(tmp_path, monkeypatch):
    path = tmp_path / "plan.json"
    threading.Timer(0.5, lambda: path.write_text("planned")).start()
    import hashlib

    hosts.await_content(path, hashlib.sha256(b"planned").digest())
    monkeypatch.setattr(hosts, "_PATIENCE", 0.3)
    with pytest.raises(BadInput, match="workdir must be a folder that all hosts share"):
        hosts.await_content(path, hashlib.sha256(b"another").digest())
