"""A training that was interrupted ends as one that was not, to the last bit; what is damaged is named and left out."""

import itertools
import pathlib
import shutil

import jax
import numpy as np
import pytest

from rd_elbo import population, train
from rd_elbo.checkpoint import Checkpoints
from rd_elbo.data.dataset import Dataset
from rd_elbo.grid import Group, Member, product

STEPS = 40
BASE = Member(latent=3, encoder_width=6, decoder_width=6, decoder_depth=1, batch_size=4, learning_rate=1e-2, epochs=4.0)
STATE = {"a": np.arange(6.0).reshape(2, 3), "b": (np.array([True, False]), np.array([3, 4], np.uint32))}


@pytest.fixture
def dataset():
    random = np.random.RandomState(0)
    images = (random.random_sample((40, 4, 4)) < 0.4).astype(np.uint8)
    return Dataset("random", {"train": images, "test": images}, "made by the test")


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def after(segments):
    """Says stop after so many segments."""
    calls = itertools.count(1)
    return lambda: next(calls) >= segments


@pytest.mark.parametrize("objective", ["beta", "target_distortion"])
def test_resumed_training_is_the_same_to_the_last_bit(dataset, tmp_path, objective, monkeypatch):
    members = [*product(BASE, beta=(0.3, 1.0), seed=(0, 5))][:3]  # an odd number, so that a filler is saved too
    if objective == "target_distortion":
        members = product(BASE, objective=(objective,), target_distortion=(5.0, 8.0, 9.0))
    group = Group(tuple(members))
    monkeypatch.setattr(train, "_FIRST_STEPS", 3)
    monkeypatch.setattr(train, "next_steps", lambda *_: 3)
    whole = train.train(group, dataset)
    interruptions = 0
    while True:
        checkpoints = Checkpoints(tmp_path, {"what": "this"}, report=pytest.fail)
        try:
            resumed = train.train(group, dataset, checkpoints=checkpoints, stop=after(2 + interruptions % 3))
            break
        except train.Stopped:
            interruptions += 1
    assert interruptions > 3
    same(resumed.params, whole.params)
    same(resumed.metrics, whole.metrics)
    assert resumed.metrics.loss.shape == (3, STEPS)
    same((resumed.steps, resumed.finite), (whole.steps, whole.finite))


def test_a_finished_training_is_not_trained_again(dataset, tmp_path, monkeypatch):
    whole = train.train(Group((BASE,)), dataset, checkpoints=Checkpoints(tmp_path, {}, seconds=0))
    monkeypatch.setattr(population, "train", lambda *_: pytest.fail("trained again"))
    again = train.train(Group((BASE,)), dataset, checkpoints=Checkpoints(tmp_path, {}))
    same(again.params, whole.params)
    assert again.seconds > whole.seconds / 2  # the time spent before counts


def test_states_rotate_and_come_back(tmp_path):
    checkpoints = Checkpoints(tmp_path / "new", {"what": 1}, keep=2, report=pytest.fail)
    assert checkpoints.restore(STATE) is None
    for step in (9, 10, 11):
        checkpoints.save(step, jax.tree.map(lambda leaf, step=step: leaf + leaf.dtype.type(step), STATE))
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["10", "10.json", "11", "11.json"]
    step, state = checkpoints.restore(STATE)
    assert step == 11
    same(state, jax.tree.map(lambda leaf: leaf + leaf.dtype.type(11), STATE))
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
    checkpoints = Checkpoints(folder, {"what": 1})
    for step in (5, 7):
        checkpoints.save(step, jax.tree.map(lambda leaf, step=step: leaf + leaf.dtype.type(step), STATE))
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
        step, state = Checkpoints(copy, {"what": 1}, report=said.append).restore(STATE)
        assert step == 5 and state["a"][0, 0] == 5
        assert len(said) == 1 and said[0].startswith(f"checkpoint {str(copy / '7')!r} is left out: it")
        harmed += 1
    assert harmed >= 3


def test_what_is_of_another_training_step_or_unfinished_is_left_out(saved, tmp_path):
    said = []
    shutil.copytree(saved, tmp_path / "other")
    assert Checkpoints(tmp_path / "other", {"what": 2}, report=said.append).restore(STATE) is None
    assert all(line.endswith("it is of another training") for line in said) and len(said) == 2
    # One under the name of another.
    shutil.copytree(saved, tmp_path / "renamed")
    for suffix in ("", ".json"):
        (tmp_path / f"renamed/7{suffix}").rename(tmp_path / f"renamed/9{suffix}")
    said.clear()
    assert Checkpoints(tmp_path / "renamed", {"what": 1}, report=said.append).restore(STATE)[0] == 5
    assert said[0].endswith("it is of step 7")
    # What a kill leaves behind while orbax writes.
    shutil.copytree(saved, tmp_path / "torn")
    (tmp_path / "torn/8.orbax-checkpoint-tmp-1").mkdir()
    said.clear()
    assert Checkpoints(tmp_path / "torn", {"what": 1}, report=said.append).restore(STATE)[0] == 7
    assert len(said) == 1 and said[0].endswith("it was not written to its end")
    assert not list((tmp_path / "torn").glob("8*"))


def test_a_state_that_cannot_be_written_is_reported_and_the_one_before_stays(saved, tmp_path, monkeypatch):
    folder, said = tmp_path / "full", []
    shutil.copytree(saved, folder)

    def full(*_):
        raise OSError(28, "No space left on device")

    checkpoints = Checkpoints(folder, {"what": 1}, report=said.append)
    monkeypatch.setattr("rd_elbo.disk.write_json", full)
    checkpoints.save(9, STATE)
    assert said == [f"checkpoint {str(folder / '9')!r} cannot be written (No space left on device); training goes on"]
    assert checkpoints.restore(STATE)[0] == 7 and not list(folder.glob("9*"))
