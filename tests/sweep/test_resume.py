"""A sweep resumes: after a stop, damage, lack of memory, another version, and a larger grid."""

import errno
import itertools
import json
import random
import shutil

import jax
import pytest

from rd_elbo import disk, host
from rd_elbo.errors import BadInput
from rd_elbo.sweep import folder, provenance, run, tables
from rd_elbo.sweep.workdir import Attempt, Workdir
from rd_elbo.training import fit as training
from tests.sweep.studies import FILES, plan, read


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A run that nothing happened to."""
    workdir = tmp_path_factory.mktemp("reference") / "run"
    outcome = run.run(plan(), workdir, report=pytest.fail)
    assert outcome.written and not outcome.failed and not outcome.missing
    assert len(list((workdir / "chunks").iterdir())) == 2
    return workdir


@pytest.fixture
def trained(monkeypatch):
    """Betas and seeds of the members of each training."""
    seen, real = [], training.fit

    def counted(spec, models, hparams, *args, **kwargs):
        betas = [round(float(beta), 3) for beta in hparams.weights.beta]
        seen.append(list(zip(betas, hparams.seed.tolist(), strict=True)))
        return real(spec, models, hparams, *args, **kwargs)

    monkeypatch.setattr(training, "fit", counted)
    return seen


class Asked(host.Stop):
    """Stops when it has been asked so many times."""

    def __init__(self, times):
        super().__init__()
        self.calls, self.times = itertools.count(1), times

    def __call__(self):
        return next(self.calls) > self.times


def test_the_same_again_trains_nothing_and_mends_the_tables(reference, tmp_path, trained):
    copy = shutil.copytree(reference, tmp_path / "run")
    for name in FILES:
        lines = (copy / name).read_text().splitlines(keepends=True)
        (copy / name).write_text("".join(lines[:-1]))  # torn at the end of a line
    with pytest.raises(BadInput, match="expected the table as it was written"):
        tables.read_points(copy)
    run.run(plan(), copy, report=pytest.fail)
    assert not trained and read(copy) == read(reference)


def test_stopped_at_any_moment_the_tables_are_the_same(reference, tmp_path, monkeypatch):
    stops, told = 0, []
    saving = plan(population={"checkpoint_seconds": 0.0})
    options = {"report": pytest.fail, "progress": lambda *now: told.append(now)}
    while True:
        try:
            run.run(saving, tmp_path / "run", stop=Asked(2 + stops % 3), **options)
            break
        except training.Stopped:
            stops += 1
            assert stops < 50 and not (tmp_path / "run" / "points.csv").exists()
    assert stops >= 2 and all(0 <= done <= 1 + 1e-9 for done, _ in told)
    assert {doing.partition(" ")[0] for _, doing in told} == {"compiling", "step", "evaluating"}
    assert read(tmp_path / "run") == read(reference)
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left == {path.name for path in reference.iterdir()}
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_a_larger_grid_trains_only_what_is_missing(reference, tmp_path, trained):
    copy = shutil.copytree(reference, tmp_path / "run")
    run.run(plan(beta=(0.25, 0.5, 1.0)), copy, report=pytest.fail)
    assert trained == [[(0.25, 0)]]
    before, after = (disk.read_table(where / "points.csv") for where in (reference, copy))
    assert [row["beta"] for row in after] == [0.25, 0.5, 1.0, 1.0, 1.0] * 2
    assert [row for row in after if row["beta"] != 0.25] == before
    # A smaller one needs nothing, and has its own tables.
    run.run(plan(), copy, report=pytest.fail)
    assert len(trained) == 1
    assert (copy / "points.csv").read_bytes() == (reference / "points.csv").read_bytes()


def test_what_matters_to_a_member_makes_it_a_new_one(reference, tmp_path, trained):
    copy = shutil.copytree(reference, tmp_path / "run")
    run.run(plan(train={"learning_rate": 2e-3}, only=("mlp",)), copy)
    assert len(trained) == 1 and len(trained[0]) == 2
    # And what does not matter does not.
    population = {"chunk_size": 1, "checkpoint_seconds": 1.0, "metrics_every": 7, "vmap_size": 1}
    run.run(plan(population=population), copy)
    assert len(trained) == 1


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"data": {"name": "mnist_static", "examples": 32}}, "data.examples"),
        ({"data": {"name": "mnist_static", "examples": 64, "splits": ("test",)}}, "data.splits"),
        ({"data": {"name": "mnist_static", "examples": 64, "eval_examples": 9}}, "eval_examples"),
        ({"name": "other"}, "name"),
        ({"population": {"dtype": "float64"}}, "population.dtype"),
        ({"population": {"precision": "high"}}, "population.precision"),
        ({"population": {"compute_dtype": "bfloat16"}}, "population.compute_dtype"),
    ],
)
def test_other_data_and_arithmetic_are_refused(reference, changes, field):
    before = {path: path.read_bytes() for path in reference.rglob("*") if path.is_file()}
    with pytest.raises(BadInput, match=f"got a different one \\(.*{field} was"):
        run.run(plan(**changes), reference)
    assert {path: path.read_bytes() for path in before} == before


def test_a_chunk_of_another_study_is_refused(reference, tmp_path):
    copy = shutil.copytree(reference, tmp_path / "run")
    path = next((copy / "chunks").iterdir())
    content = json.loads(path.read_text())["content"]
    content["identity"]["splits"]["train"] = 32
    path.write_text(json.dumps({"content": content, "sha256": disk.digest(content)}))
    with pytest.raises(BadInput, match=r"got one of another.*Give another workdir") as refusal:
        run.run(plan(), copy)
    assert str(refusal.value).startswith(f"workdir={str(copy)!r}: ")


def test_overwrite_begins_anew(reference, tmp_path, trained):
    copy = shutil.copytree(reference, tmp_path / "run")
    run.run(plan(), copy, overwrite=True, report=pytest.fail)
    assert len(trained) == 2 and read(copy) == read(reference)


def damaged(path, harm):
    content = path.read_bytes()
    middle = len(content) // 2
    if harm == "delete":
        path.unlink()
    elif harm == "truncate":
        path.write_bytes(content[:middle])
    else:
        flipped = bytes([content[middle] ^ 0x10])
        path.write_bytes(content[:middle] + flipped + content[middle + 1 :])


@pytest.mark.parametrize("harm", ["delete", "truncate", "flip"])
@pytest.mark.parametrize("pattern", ["chunks/*.json", "params/*.msgpack", "metrics/*.csv"])
def test_what_is_damaged_is_named_and_trained_again(reference, tmp_path, trained, pattern, harm):
    copy, said = shutil.copytree(reference, tmp_path / "run"), []
    path = sorted(copy.glob(pattern))[0]
    damaged(path, harm)
    run.run(plan(), copy, report=said.append)
    assert len(trained) == 1 and len(trained[0]) == 2 and read(copy) == read(reference)
    if not (pattern.startswith("chunks") and harm == "delete"):
        assert len(said) == 1 and path.stem in said[0] and "trained again" in said[0]
    for file in reference.rglob("*.msgpack"):
        assert (copy / file.relative_to(reference)).read_bytes() == file.read_bytes()


def test_swapped_files_are_found_out(reference, tmp_path, trained):
    copy, said = shutil.copytree(reference, tmp_path / "run"), []
    first, second = sorted((copy / "chunks").iterdir())
    first.rename(copy / "kept")
    second.rename(first)
    (copy / "kept").rename(second)
    run.run(plan(), copy, report=said.append)
    assert len(trained) == 2 and len(said) == 2 and "it is the chunk" in said[0]
    assert read(copy) == read(reference)
    params = sorted((copy / "params").iterdir())
    shutil.copy(params[0], params[1])
    said.clear()
    run.run(plan(), copy, report=said.append)
    assert len(said) == 1 and read(copy) == read(reference)


def test_a_lost_chunk_is_trained_again_in_the_same_company(tmp_path, trained):
    # Widths 30 and 28 stand in one chunk by chunking alone.
    wide = {"decoder_width": 30, "seed": 0}
    blocks = {"wide": wide, "narrow": {"decoder_width": 28, "seed": (0, 1)}}
    mixed = plan(blocks=blocks, population={"chunk_size": 2})
    run.run(mixed, tmp_path / "run")
    before, chunks = read(tmp_path / "run"), list(trained)
    assert [len(chunk) for chunk in chunks] == [2, 1]
    for row in disk.read_table(tmp_path / "run" / "members.csv"):
        trained.clear()
        (tmp_path / "run" / "params" / f"{row['member']}.msgpack").write_bytes(b"")
        run.run(mixed, tmp_path / "run")
        assert len(trained) == 1 and trained[0] in chunks
        assert read(tmp_path / "run") == before


def test_no_flipped_bit_of_a_record_is_taken_for_another_number(reference, tmp_path):
    copy, dice = shutil.copytree(reference, tmp_path / "run"), random.Random(0)
    path = sorted((copy / "chunks").iterdir())[0]
    content, said = path.read_bytes(), []
    where = Workdir(copy, plan().identity, provenance.version(), False, said.append)
    whole = {chunk.name: chunk for chunk in where.finished().values()}
    for _ in range(200):
        said.clear()
        at = dice.randrange(len(content))
        flipped = bytes([content[at] ^ 1 << dice.randrange(8)])
        path.write_bytes(content[:at] + flipped + content[at + 1 :])
        found = {chunk.name: chunk for chunk in where.finished().values()}
        assert found.keys() < whole.keys() if said else found == whole
        assert said or json.loads(path.read_bytes()) == json.loads(content)


def test_two_processes_do_not_share_a_folder(reference, tmp_path):
    copy = shutil.copytree(reference, tmp_path / "run")
    with folder.locked(copy), pytest.raises(BadInput, match="got one in use"):
        run.run(plan(), copy)
    run.run(plan(), copy)


def test_what_a_kill_leaves_of_a_first_write_is_in_nobodys_way(reference, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.json.a1b2c3d4").write_text("{")
    run.run(plan(), tmp_path / "run")
    assert read(tmp_path / "run") == read(reference)
    assert [path.name for path in (tmp_path / "run").glob(".*")] == [".lock"]


OUT_OF_MEMORY = (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), MemoryError("no"))


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["device", "host"])
def test_too_many_at_once_are_tried_in_halves(reference, tmp_path, monkeypatch, error):
    real, said = training.fit, []

    def small(spec, models, *args, **kwargs):
        if len(models) > 1:
            raise error
        return real(spec, models, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(training, "fit", small)
        outcome = run.run(plan(), tmp_path / "run", report=said.append)
    assert not outcome.failed and len(said) == 2 and all("two halves" in one for one in said)
    rows = [disk.read_table(where / "points.csv") for where in (tmp_path / "run", reference)]
    assert [row["member"] for row in rows[0]] == [row["member"] for row in rows[1]]
    elbos = [[row["elbo"] for row in table] for table in rows]
    assert elbos[0] == pytest.approx(elbos[1], rel=1e-4)
    # The halves are found again.
    run.run(plan(), tmp_path / "run", report=pytest.fail)


def test_an_orderly_stop_is_no_kill(tmp_path, trained):
    for _ in range(4):
        with pytest.raises(training.Stopped):
            run.run(plan(), tmp_path / "run", stop=Asked(1), report=pytest.fail)
    run.run(plan(), tmp_path / "run", report=pytest.fail)
    assert max(map(len, trained)) == 2 and len(list((tmp_path / "run" / "chunks").iterdir())) == 2


def test_a_mark_that_is_damaged_says_nothing(tmp_path):
    where, (chunk, _) = Workdir(tmp_path, {}, "1"), plan().chunks()
    where.mark(chunk, Attempt(3, True, 1))
    assert where.attempt(chunk) == Attempt(3, True, 1)
    next((tmp_path / "checkpoints").glob("*.json")).write_text("{")
    assert where.attempt(chunk) == Attempt()


def test_versions_do_not_mix_without_a_word(reference, tmp_path, monkeypatch, trained):
    copy, said = shutil.copytree(reference, tmp_path / "run"), []
    monkeypatch.setattr(provenance, "version", lambda: "9.9.9")
    run.run(plan(beta=(0.25, 0.5, 1.0)), copy, report=said.append)
    assert trained == [[(0.25, 0)]] and len(said) == 1
    assert "4 of 5 members" in said[0] and "9.9.9" in said[0] and "--retrain=stale" in said[0]
    versions = {row["beta"]: row["version"] for row in tables.read_points(copy)}
    assert versions[0.25] == "9.9.9" and versions[0.5] not in ("", "9.9.9")
    trained.clear()
    run.run(plan(beta=(0.25, 0.5, 1.0)), copy, retrain_stale=True, report=said.append)
    assert sorted(map(len, trained)) == [2, 2]
    assert {row["version"] for row in tables.read_points(copy)} == {"9.9.9"}
    said.clear()
    run.run(plan(beta=(0.25, 0.5, 1.0)), copy, retrain_stale=True, report=said.append)
    assert not said and len(trained) == 2


def test_a_checkpoint_of_another_version_is_not_resumed(reference, tmp_path, monkeypatch):
    said, saving = [], plan(population={"checkpoint_seconds": 0.0})
    with pytest.raises(training.Stopped):
        run.run(saving, tmp_path / "run", stop=Asked(1))
    assert list((tmp_path / "run" / "checkpoints").glob("*/*/"))
    monkeypatch.setattr(provenance, "version", lambda: "9.9.9")
    run.run(saving, tmp_path / "run", report=said.append)
    assert said and all("9.9.9" in one for one in said)
    own, other = (tables.read_points(where) for where in (tmp_path / "run", reference))
    without = [[{**row, "version": ""} for row in rows] for rows in (own, other)]
    assert without[0] == without[1] and {row["version"] for row in own} == {"9.9.9"}


def test_each_chunk_has_its_provenance(reference):
    about = disk.read_json(reference / "provenance.json")
    assert len(about["chunks"]) == 2
    for chunk in about["chunks"].values():
        assert chunk["version"] == provenance.version() and chunk["jax"] == jax.__version__
        assert chunk["devices"] == 2
        assert set(chunk["seconds"]) == {"training", "compiling", "evaluating"}


def test_files_that_cannot_be_read_for_the_moment_are_not_damaged(reference, tmp_path, monkeypatch):
    copy, real = shutil.copytree(reference, tmp_path / "run"), disk.sha256

    def unreadable(path):
        if path.suffix == ".msgpack":
            raise OSError(errno.EIO, "Input/output error")
        return real(path)

    with monkeypatch.context() as patched:
        patched.setattr(disk, "sha256", unreadable)
        with pytest.raises(OSError, match="Input/output error"):
            run.run(plan(), copy)
    assert len(list((copy / "chunks").iterdir())) == 2
    run.run(plan(), copy, report=pytest.fail)
