"""A study is taken up where it was left: after a stop, a kill, damage, a failure, and with a larger grid."""

import dataclasses
import errno
import itertools
import json
import random
import shutil

import jax
import numpy as np
import pytest

from rd_elbo import attempts, disk, evaluate, parts, planning, records, sweep, train
from rd_elbo.errors import BadInput

TINY = {"encoder_width": 6, "latent": 3, "decoder_width": 6, "decoder_depth": 1, "batch_size": 16, "epochs": 2.0}
TABLES = ("points.csv", "metrics.csv", "members.csv")


def plan(beta=(0.5, 1.0), **changes):
    config = {
        "name": "tiny",
        "data": {"name": "mnist_static", "examples": 64},
        "base": TINY,
        "blocks": {"mlp": {"beta": beta}, "wide": {"beta": 1.0, "decoder_width": 30, "seed": (0, 1)}},
        **changes,
    }
    return planning.make_plan(config)


def tables(workdir):
    return {name: (workdir / name).read_bytes() for name in TABLES}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A run that nothing happened to."""
    workdir = tmp_path_factory.mktemp("reference") / "run"
    outcome = sweep.run(plan(), workdir, report=pytest.fail)
    assert outcome.trained == 4 and not outcome.failed and len(list((workdir / "parts").iterdir())) == 2
    return workdir


@pytest.fixture
def training(monkeypatch):
    """Counts the members that are trained."""
    trained, real = [], train.train

    def counted(group, *args, **kwargs):
        trained.extend(group.members)
        return real(group, *args, **kwargs)

    monkeypatch.setattr(train, "train", counted)
    return trained


def test_the_same_again_trains_nothing_and_mends_the_tables(reference, tmp_path, training):
    copy = shutil.copytree(reference, tmp_path / "run")
    for name in TABLES:
        (copy / name).write_text("harmed")
    outcome = sweep.run(plan(), copy, report=pytest.fail)
    assert not training and outcome.trained == 0
    assert tables(copy) == tables(reference)
    assert sweep.summary(outcome) == "4 members, none diverged (4 found done)"


def test_stopped_at_any_moment_the_tables_are_the_same(reference, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "_FIRST_STEPS", 3)
    monkeypatch.setattr(train, "next_steps", lambda *_: 3)
    stops, heard = 0, []
    while True:
        calls = itertools.count(1)
        try:
            saving, asked = plan(population={"checkpoint_seconds": 0.0}), lambda calls=calls: next(calls) > 2
            outcome = sweep.run(saving, tmp_path / "run", heard.append, stop=asked, report=pytest.fail)
            break
        except train.Stopped:
            stops += 1
            assert stops < 50
            assert not (tmp_path / "run" / "points.csv").exists()
    assert stops >= 3 and 0 < outcome.trained <= 4
    assert {status.doing for status in heard} == {"compiling", "training", "evaluating"}
    assert tables(tmp_path / "run") == tables(reference)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {path.name for path in reference.iterdir()}


def test_a_larger_grid_trains_only_what_is_missing(reference, tmp_path, training):
    copy = shutil.copytree(reference, tmp_path / "run")
    outcome = sweep.run(plan(beta=(0.25, 0.5, 1.0)), copy, report=pytest.fail)
    assert [member.beta for member in training] == [0.25] and outcome.trained == 1
    before, after = (disk.read_table(folder / "points.csv") for folder in (reference, copy))
    assert [row["beta"] for row in after] == [0.25, 0.5, 1.0, 1.0, 1.0] * 2
    assert [row for row in after if row["beta"] != 0.25] == before
    # A smaller one needs nothing, and has its own tables.
    training.clear()
    assert sweep.run(plan(), copy, report=pytest.fail).trained == 0 and not training
    assert (copy / "points.csv").read_bytes() == (reference / "points.csv").read_bytes()


def test_what_matters_to_a_member_makes_it_a_new_one(reference, tmp_path, training):
    copy = shutil.copytree(reference, tmp_path / "run")
    sweep.run(plan(train={"learning_rate": 2e-3}, only=("mlp",)), copy)
    assert len(training) == 2
    # And what does not matter does not.
    training.clear()
    sweep.run(plan(population={"members": 1, "checkpoint_seconds": 1.0}), copy)
    assert not training


def test_other_data_and_arithmetic_are_refused(reference):
    for changes, sentence in (
        ({"data": {"name": "mnist_static", "examples": 32}}, "data.examples was 64 and is 32"),
        ({"data": {"name": "mnist_static", "examples": 64, "splits": ("test",)}}, "data.splits was None"),
        ({"name": "other"}, "name was 'tiny' and is 'other'"),
        ({"population": {"dtype": "float64"}}, "dtype was"),
    ):
        with pytest.raises(BadInput, match=sentence):
            sweep.run(plan(**changes), reference)


def test_a_part_of_another_study_is_refused(reference, tmp_path):
    copy = shutil.copytree(reference, tmp_path / "run")
    sweep.run(plan(data={"name": "mnist_static", "examples": 32}), tmp_path / "other")
    strange = next((tmp_path / "other" / "parts").iterdir())
    shutil.copy(strange, copy / "parts")
    with pytest.raises(BadInput, match="is of another study"):
        sweep.run(plan(), copy)


def test_overwrite_begins_anew(reference, tmp_path, training):
    copy = shutil.copytree(reference, tmp_path / "run")
    sweep.run(plan(), copy, overwrite=True, report=pytest.fail)
    assert len(training) == 4 and tables(copy) == tables(reference)


def damaged(path, harm):
    content = path.read_bytes()
    if harm == "delete":
        path.unlink()
    elif harm == "truncate":
        path.write_bytes(content[: len(content) // 2])
    else:
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 0x10]) + content[middle + 1 :])


@pytest.mark.parametrize("harm", ["delete", "truncate", "flip"])
@pytest.mark.parametrize("pattern", ["parts/*.npz", "params/*.msgpack"])
def test_what_is_damaged_is_named_and_trained_again(reference, tmp_path, training, pattern, harm):
    copy, said = shutil.copytree(reference, tmp_path / "run"), []
    path = sorted(copy.glob(pattern))[0]
    damaged(path, harm)
    sweep.run(plan(), copy, report=said.append)
    assert len(training) == 2 and tables(copy) == tables(reference)
    if not (pattern.startswith("parts") and harm == "delete"):
        assert len(said) == 1 and path.stem in said[0] and "trained again" in said[0]
    for file in reference.rglob("*.msgpack"):
        assert (copy / file.relative_to(reference)).read_bytes() == file.read_bytes()


def test_swapped_files_are_found_out(reference, tmp_path, training):
    copy, said = shutil.copytree(reference, tmp_path / "run"), []
    first, second = sorted((copy / "parts").iterdir())
    first.rename(copy / "kept")
    second.rename(first)
    (copy / "kept").rename(second)
    sweep.run(plan(), copy, report=said.append)
    assert len(training) == 4 and len(said) == 2 and "it is the part" in said[0]
    assert tables(copy) == tables(reference)
    params = sorted((copy / "params").iterdir())
    shutil.copy(params[0], params[1])
    said.clear()
    sweep.run(plan(), copy, report=said.append)
    assert len(said) == 1 and tables(copy) == tables(reference)


def test_a_damaged_plan_is_made_anew(reference, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "_FIRST_STEPS", 3)
    with pytest.raises(train.Stopped):
        sweep.run(plan(), tmp_path / "run", stop=lambda: True)
    damaged(tmp_path / "run" / "plan.json", "truncate")
    said = []
    sweep.run(plan(), tmp_path / "run", report=said.append)
    assert len(said) == 1 and "planned anew" in said[0] and tables(tmp_path / "run") == tables(reference)


def test_a_lost_part_is_trained_again_in_the_same_company(tmp_path, training):
    # Widths 30 and 6 stand in one part by chunking alone: put together anew, they would not.
    blocks = {"blocks": {"wide": {"decoder_width": 30, "seed": (0, 1, 2)}, "narrow": {"decoder_width": 28, "seed": (0, 1)}}}
    mixed = plan(**blocks, population={"members": 2, "max_waste": 1.25})
    sweep.run(mixed, tmp_path / "run")
    before = tables(tmp_path / "run")
    of = {row["member"]: row["part"] for row in disk.read_table(tmp_path / "run" / "members.csv")}
    for planned in (True, False):
        for name, part in of.items():
            company = [member for member in of if of[member] == part]
            training.clear()
            (tmp_path / "run" / "params" / f"{name}.msgpack").write_bytes(b"")
            if not planned:
                (tmp_path / "run" / "plan.json").unlink()
            sweep.run(mixed, tmp_path / "run")
            assert [member.name for member in training] == company
            assert tables(tmp_path / "run") == before
    assert max(len([member for member in of if of[member] == part]) for part in of.values()) == 2
    assert len(list((tmp_path / "run" / "parts").iterdir())) == len(set(of.values()))


def test_another_division_is_taken_up(reference, tmp_path, monkeypatch, training):
    monkeypatch.setattr(train, "_FIRST_STEPS", 3)
    with pytest.raises(train.Stopped):
        sweep.run(plan(), tmp_path / "run", stop=lambda: True)
    training.clear()
    said, real, together = [], train.train, []
    monkeypatch.setattr(train, "train", lambda group, *a, **k: (together.append(len(group.members)), real(group, *a, **k))[1])
    sweep.run(plan(population={"members": 1}), tmp_path / "run", report=said.append)
    assert together == [1, 1, 1, 1]
    assert said == ["what is missing is planned anew (members was None and is 1)"]


def test_no_flipped_bit_of_a_part_is_taken_for_another_number(reference, tmp_path):
    copy, dice = shutil.copytree(reference, tmp_path / "run"), random.Random(0)
    path = sorted((copy / "parts").iterdir())[0]
    content, said, named = path.read_bytes(), [], 0
    with np.load(path) as arrays:
        identity = json.loads(arrays["about"].tobytes())["identity"]

    def read():
        store = parts.Store(copy, identity, {}, said.append)
        return {part.name: (part, list(store.metrics(part))) for part in store.finished().values()}

    whole = read()
    for _ in range(400):
        said.clear()
        place = dice.randrange(len(content))
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << dice.randrange(8)]) + content[place + 1 :])
        found = read()
        assert found.keys() < whole.keys() if said else found == whole
        named += len(said)
    assert named > 300


def test_two_processes_do_not_share_a_folder(reference, tmp_path):
    copy = shutil.copytree(reference, tmp_path / "run")
    with records.locked(copy), pytest.raises(BadInput, match="is in use: another process is at work there"):
        sweep.run(plan(), copy)
    sweep.run(plan(), copy)


def test_what_a_kill_leaves_of_a_first_write_is_in_nobodys_way(reference, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.json.a1b2c3d4").write_text("{")
    sweep.run(plan(), tmp_path / "run")
    assert tables(tmp_path / "run") == tables(reference)
    assert [path.name for path in (tmp_path / "run").glob(".*")] == [".lock"]


def test_a_run_that_breaks_off_says_so(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records, "save_params", full)
    with pytest.raises(OSError, match="No space left"):
        sweep.run(plan(), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "failed"


@pytest.mark.parametrize("error", [jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), MemoryError("no memory")])
def test_too_many_at_once_are_tried_in_halves(reference, tmp_path, monkeypatch, error):
    real, said, heard = train.train, [], []

    def small(group, *args, **kwargs):
        if len(group.members) > 1:
            raise error
        return real(group, *args, **kwargs)

    monkeypatch.setattr(train, "train", small)
    outcome = sweep.run(plan(), tmp_path / "run", heard.append, report=said.append)
    assert not outcome.failed and outcome.trained == 4
    assert said == [f"2 members together failed ({error}); they are tried in two halves"] * 2
    rows = [disk.read_table(folder / "points.csv") for folder in (tmp_path / "run", reference)]
    assert [row["member"] for row in rows[0]] == [row["member"] for row in rows[1]]
    assert [row["elbo"] for row in rows[0]] == pytest.approx([row["elbo"] for row in rows[1]], rel=1e-4)
    assert heard[-1].done == pytest.approx(1.0) and heard[-1].parts == 4


def test_one_that_fails_is_reported_and_tried_again_later(reference, tmp_path, monkeypatch):
    real, said = train.train, []

    def picky(group, *args, **kwargs):
        if any(member.beta == 0.5 for member in group.members):
            raise jax.errors.JaxRuntimeError("INTERNAL: it does not compile\nand more")
        return real(group, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(train, "train", picky)
        outcome = sweep.run(plan(), tmp_path / "run", report=said.append)
    (name,) = outcome.failed
    assert outcome.failed[name] == "INTERNAL: it does not compile" and outcome.trained == 3
    assert sweep.summary(outcome) == "4 members, none diverged, 1 failed and will be tried again by the same command"
    status = {row["member"]: row["status"] for row in disk.read_table(tmp_path / "run" / "members.csv")}
    assert status.pop(name) == "failed: INTERNAL: it does not compile" and set(status.values()) == {"ok"}
    assert name not in {row["member"] for row in disk.read_table(tmp_path / "run" / "points.csv")}
    outcome = sweep.run(plan(), tmp_path / "run", report=pytest.fail)
    assert outcome.trained == 1 and not outcome.failed
    assert len(disk.read_table(tmp_path / "run" / "points.csv")) == 8


def test_a_mistake_in_the_program_is_no_failure_of_a_member(tmp_path, monkeypatch):
    def wrong(*_, **__):
        raise ValueError("a mistake")

    monkeypatch.setattr(evaluate, "evaluate", wrong)
    with pytest.raises(ValueError, match="a mistake"):
        sweep.run(plan(), tmp_path / "run")


def test_tables_that_were_changed_are_not_read(reference, tmp_path):
    copy = shutil.copytree(reference, tmp_path / "run")
    lines = (copy / "points.csv").read_text().splitlines(keepends=True)
    (copy / "points.csv").write_text("".join(lines[:-1]))  # torn at the end of a line, which nothing else would tell
    with pytest.raises(BadInput, match="is not the table that was written"):
        records.read_points(copy)
    sweep.run(plan(), copy)
    assert len(records.read_points(copy)) == 8


def test_names_do_not_depend_on_fields_at_their_defaults():
    member = planning.members_of({"blocks": {"a": {"beta": 0.5}}})[0]
    identity = {"beta": 0.5}
    import hashlib

    assert member.name == hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:10]
    assert dataclasses.replace(member, seed=1).name != member.name


@pytest.mark.parametrize("kills", [0, 1])
def test_a_part_of_which_the_system_has_ended_a_process_is_halved(tmp_path, monkeypatch, kills):
    """A SIGKILL that was nobody's wish; any other kill must change nothing."""
    count = {"boot": "this", "ended": 5}
    monkeypatch.setattr(attempts, "ended_processes", lambda: dict(count))
    whole = plan(blocks={"mlp": {"beta": (0.3, 0.5, 1.0)}})

    class Killed(BaseException):
        pass

    def killed(*args, **kwargs):
        # As it is on disk at the moment of a kill.
        shutil.copytree(tmp_path / "run", tmp_path / "killed")
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(train, "train", killed)
        with pytest.raises(Killed):
            sweep.run(whole, tmp_path / "run")
    # An orderly end leaves no mark.
    assert not list((tmp_path / "run").glob("attempts/*")) and len(list((tmp_path / "killed").glob("attempts/*"))) == 1
    count["ended"] += kills
    said = []
    outcome = sweep.run(whole, tmp_path / "killed", report=said.append)
    assert outcome.trained == 3 and not outcome.failed and not (tmp_path / "killed" / "attempts").exists()
    assert len(list((tmp_path / "killed" / "parts").iterdir())) == 1 + kills
    assert len(said) == kills and all("lack of memory" in sentence and "two halves" in sentence for sentence in said)


def test_a_member_that_takes_too_much_alone_fails_and_is_tried_again_by_the_next_run(tmp_path, monkeypatch):
    count = {"boot": "this", "ended": 0}
    monkeypatch.setattr(attempts, "ended_processes", lambda: dict(count))
    one = plan(blocks={"mlp": {"beta": 0.5}, "wide": {"beta": 1.0, "decoder_width": 30}})
    store = parts.Store(tmp_path / "run", one.identity, one.division)
    pending = store.pending(one.members, {}, one.divide)
    mark = attempts.marked(store.mark(pending[0]))
    mark.__enter__()
    disk.write_json(tmp_path / "run" / "config.json", json.loads(json.dumps(one.config)))
    count["ended"] = 1
    outcome = sweep.run(one, tmp_path / "run")
    (name,) = outcome.failed
    assert name == pending[0].members[0].name and "lack of memory" in outcome.failed[name] and outcome.trained == 1
    assert not sweep.run(one, tmp_path / "run").failed
    # Another start of the machine has counted anew.
    mark = attempts.marked(store.mark(pending[0]))
    mark.__enter__()
    count.update(boot="another", ended=7)
    assert not attempts.took_too_much(store.mark(pending[0]))


def test_files_that_cannot_be_read_for_the_moment_are_not_damaged(reference, tmp_path, monkeypatch):
    copy, real = shutil.copytree(reference, tmp_path / "run"), disk.sha256

    def unreadable(path):
        if path.suffix == ".msgpack":
            raise OSError(errno.EIO, "Input/output error")
        return real(path)

    with monkeypatch.context() as patched:
        patched.setattr(disk, "sha256", unreadable)
        with pytest.raises(OSError, match="Input/output error"):
            sweep.run(plan(), copy)
    assert len(list((copy / "parts").iterdir())) == 2
    assert sweep.run(plan(), copy, report=pytest.fail).trained == 0
