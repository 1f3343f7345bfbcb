"""A training that was interrupted ends as one that was not; what is damaged is left out."""

import dataclasses
import itertools
import pathlib
import shutil

import jax
import numpy as np
import pytest

from rd_elbo.training import checkpoint, fit, loop, sharding, step
from rd_elbo.training.checkpoint import Checkpoints
from tests.training.populations import Member, assert_identical, of, several, train

STEPS = 40
BASE = Member()
STATE = {
    "a": np.arange(6.0, dtype=np.float32).reshape(2, 3),
    "b": (np.array([True, False]), np.array([3, 4], np.uint32)),
}


def plus(step):
    return jax.tree.map(lambda leaf: (leaf + leaf.dtype.type(step)).astype(leaf.dtype), STATE)


def after(calls):
    """Says stop after so many calls."""
    count = itertools.count(1)
    return lambda: next(count) >= calls


def run(members, **rest):
    return train(members, steps=STEPS, spec={"dtype": "float32"}, **rest)


@pytest.fixture
def short_calls(monkeypatch):
    monkeypatch.setattr(loop.Pace, "measure", lambda pace, *_: pace.adopt(3, True))


@pytest.mark.parametrize("objective", ["beta", "target_distortion"])
def test_resumed_training_is_the_same_to_the_last_bit(tmp_path, objective, short_calls):
    # An odd number, so that a filler is saved too.
    members = several(BASE, beta=(0.3, 0.3, 1.0), seed=(0, 5, 0))
    if objective == "target_distortion":
        averaged = dataclasses.replace(BASE, ema_decay=0.9)
        members = several(averaged, target_distortion=(5.0, 8.0, 9.0), objective=(objective,) * 3)
    whole, interruptions = run(members, metrics_every=2), 0
    while True:
        checkpoints = Checkpoints(tmp_path, {"what": "this"}, report=pytest.fail)
        options = dict(metrics_every=2, checkpoints=checkpoints)
        try:
            resumed = run(members, stop=after(2 + interruptions % 3), **options)
            break
        except fit.Stopped:
            interruptions += 1
    assert interruptions > 2
    assert_identical(resumed.params, whole.params)
    assert_identical(resumed.average, whole.average)
    assert_identical(resumed.metrics, whole.metrics)
    assert resumed.metrics.loss.shape == (3, STEPS // 2)
    assert_identical((resumed.steps, resumed.alive), (whole.steps, whole.alive))


def test_the_first_metrics_after_a_restart_are_all_of_them(tmp_path, short_calls):
    with pytest.raises(fit.Stopped):
        run([BASE], checkpoints=Checkpoints(tmp_path), stop=after(3))
    heard = []
    options = dict(checkpoints=Checkpoints(tmp_path), callback=lambda *news: heard.append(news))
    resumed = run([BASE], **options)
    progress, metrics = heard[0]
    assert progress.restored > 0 and metrics.step.tolist() == [*range(1, progress.steps + 1)]
    losses = np.concatenate([news[1].loss for news in heard], axis=1)
    np.testing.assert_array_equal(losses, resumed.metrics.loss)


@pytest.mark.parametrize(("before", "now"), [(2, 1), (1, 2)])
def test_a_state_comes_back_on_another_number_of_devices(tmp_path, short_calls, before, now):
    """Three members: four rows on two devices, three on one."""
    members = several(BASE, seed=(0, 1, 2))
    whole = run(members, devices=now)
    with pytest.raises(fit.Stopped):
        run(members, devices=before, checkpoints=Checkpoints(tmp_path), stop=after(4))
    checkpoints = Checkpoints(tmp_path, report=pytest.fail)
    resumed = run(members, devices=now, checkpoints=checkpoints)
    assert resumed.devices == now and resumed.alive.all()
    for i in range(3):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
            of(resumed, i),
            of(whole, i),
        )
    np.testing.assert_allclose(resumed.metrics.loss, whole.metrics.loss, rtol=1e-4)


def test_a_finished_training_is_not_trained_again(tmp_path, monkeypatch):
    whole = run([BASE], checkpoints=Checkpoints(tmp_path, seconds=0))
    monkeypatch.setattr(step, "call", lambda *_: pytest.fail("trained again"))
    heard = []
    options = dict(checkpoints=Checkpoints(tmp_path), callback=lambda *news: heard.append(news))
    again = run([BASE], **options)
    assert_identical(again.params, whole.params)
    assert again.seconds > whole.seconds / 2  # the time spent before counts
    ((progress, metrics),) = heard
    assert progress.steps == progress.restored == STEPS and len(metrics.step) == STEPS


@pytest.mark.parametrize(
    "change",
    [{"members": several(BASE, beta=(0.5,))}, {"steps": 41}, {"metrics_every": 5}, {"other": True}],
)
def test_a_state_of_another_training_is_left_out(tmp_path, short_calls, change):
    images = np.random.RandomState(1).randint(0, 2, (40, 4, 4)).astype(np.uint8)
    given = {"members": [BASE], "steps": STEPS, "metrics_every": 1}
    if change.pop("other", False):
        change = {"images": images}
    spec = {"dtype": "float32"}
    with pytest.raises(fit.Stopped):
        train(**given, spec=spec, checkpoints=Checkpoints(tmp_path), stop=after(2))
    said = []
    checkpoints = Checkpoints(tmp_path, report=said.append)
    train(**{**given, **change}, spec=spec, checkpoints=checkpoints)
    assert len(said) == 1 and said[0].endswith("it is of another training")


def test_states_rotate_and_come_back(tmp_path):
    folder = tmp_path / "new"
    checkpoints = Checkpoints(folder, {"what": 1}, max_to_keep=2, report=pytest.fail)
    assert checkpoints.restore(STATE) is None and checkpoints.latest() is None
    for made in (9, 10, 11):
        assert checkpoints.save(made, plus(made))
    assert sorted(path.name for path in folder.iterdir()) == ["10", "10.json", "11", "11.json"]
    assert checkpoints.latest() == 11
    made, found = checkpoints.restore(STATE)
    assert made == 11
    assert_identical(found, plus(11))
    checkpoints.clear()
    assert checkpoints.restore(STATE) is None


def test_saving_is_due_by_time_and_cost():
    checkpoints = Checkpoints(pathlib.Path("nowhere"), seconds=0.0)
    assert checkpoints.due()
    checkpoints._cost = 100.0
    assert not checkpoints.due()
    assert not Checkpoints(pathlib.Path("nowhere"), seconds=100.0).due()
    assert not Checkpoints(seconds=0.0).due()


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    checkpoints = Checkpoints(folder, {"what": 1, "version": "a"})
    for made in (5, 7):
        checkpoints.save(made, plus(made))
    return folder


@pytest.mark.parametrize("harm", ["delete", "truncate", "flip"])
def test_damage_of_any_file_is_named_and_the_state_before_it_taken(saved, tmp_path, harm):
    names = [path.relative_to(saved) for path in [*files_of(saved / "7"), saved / "7.json"]]
    harmed = 0
    for i, name in enumerate(names):
        copy, said = tmp_path / str(i), []
        shutil.copytree(saved, copy)
        path = copy / name
        if harm != "delete" and not path.stat().st_size:
            continue
        if harm == "delete":
            path.unlink()
        elif harm == "truncate":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        else:
            flip(path)
        checkpoints = Checkpoints(copy, {"what": 1, "version": "a"}, report=said.append)
        made, found = checkpoints.restore(STATE)
        assert made == 5
        assert_identical(found, plus(5))
        assert len(said) == 1 and str(copy / "7") in said[0]
        harmed += 1
    assert harmed >= 3


def test_what_is_of_another_training_step_or_unfinished_is_left_out(saved, tmp_path):
    said = []

    def restore(name, **identity):
        said.clear()
        identity = {"what": 1, "version": "a", **identity}
        return Checkpoints(tmp_path / name, identity, report=said.append).restore(STATE)

    for name in ("other", "version", "renamed", "torn"):
        shutil.copytree(saved, tmp_path / name)
    assert restore("other", what=2) is None
    assert [line.endswith("it is of another training") for line in said] == [True] * 2
    assert restore("version", version="b") is None
    assert [line.endswith("it is of version a, this is b") for line in said] == [True] * 2
    # One under the name of another.
    for suffix in ("", ".json"):
        (tmp_path / f"renamed/7{suffix}").rename(tmp_path / f"renamed/9{suffix}")
    assert restore("renamed")[0] == 5
    assert said[0].endswith("it is of step 7")
    # What a kill leaves behind while orbax writes.
    (tmp_path / "torn/8.orbax-checkpoint-tmp-1").mkdir()
    assert restore("torn")[0] == 7
    assert len(said) == 1 and said[0].endswith("it was not written to its end")
    assert not list((tmp_path / "torn").glob("8*"))


def test_a_state_that_cannot_be_written_is_reported_and_the_one_before_stays(
    saved, tmp_path, monkeypatch
):
    folder, said = tmp_path / "full", []
    shutil.copytree(saved, folder)

    def full(*_):
        raise OSError(28, "No space left on device")

    checkpoints = Checkpoints(folder, {"what": 1, "version": "a"}, report=said.append)
    monkeypatch.setattr(checkpoint.disk, "write_json", full)
    assert not checkpoints.save(9, STATE)
    assert len(said) == 1 and str(folder / "9") in said[0] and "No space left" in said[0]
    assert checkpoints.restore(STATE)[0] == 7 and not list(folder.glob("9*"))


def test_rows_that_fill_up_the_mesh_come_and_go(tmp_path):
    one, two = sharding.make_mesh(1), sharding.make_mesh(2)
    rows = np.arange(3, dtype=np.float32)
    assert Checkpoints(tmp_path).save(1, {"rows": sharding.put_members(rows, two)})
    like = {"rows": jax.ShapeDtypeStruct((3,), "float32", sharding=sharding.by_member(one))}
    _, found = Checkpoints(tmp_path).restore(like)
    np.testing.assert_array_equal(found["rows"], rows)
    Checkpoints(tmp_path).save(2, found)
    like = {"rows": jax.ShapeDtypeStruct((4,), "float32", sharding=sharding.by_member(two))}
    _, found = Checkpoints(tmp_path).restore(like)
    np.testing.assert_array_equal(found["rows"], [*rows, 0])
