"""What fits is asked of the programs, what is fastest is measured, and both are recorded and replayed."""

import dataclasses

import numpy as np
import pytest

from rd_elbo import disk, evaluate, forecast, memory, planning, sweep, train
from rd_elbo.errors import BadInput
from rd_elbo.memory import Need, Room
from rd_elbo.parts import Store
from rd_elbo.strategy import Choice, Planner, Timing, step_seconds

TINY = {"encoder_width": 6, "latent": 3, "decoder_width": 6, "decoder_depth": 1, "batch_size": 16, "epochs": 2.0}


def plan(seeds=6, **population):
    config = {
        "name": "tiny",
        "data": {"name": "mnist_static", "examples": 64},
        "base": TINY,
        "blocks": {"mlp": {"seed": tuple(range(seeds))}},
        "population": {"devices": 1, **population},
    }
    return planning.make_plan(config)


def planner_of(plan):
    return Planner(plan.dataset, plan.splits, plan.execution)


def of_bytes(host):
    return lambda devices, most=None: Room(None, host, len(devices))


def tables(workdir):
    return {name: (workdir / name).read_bytes() for name in ("points.csv", "metrics.csv")}


def test_members_that_do_not_fit_go_in_parts(tmp_path, monkeypatch):
    whole = plan(strategy="vmap")
    (group,) = whole.divide(whole.members)
    planner, endless = planner_of(whole), Room(None, 2**50, 1)
    _, six = planner.size(group, endless)
    _, two = planner.size(dataclasses.replace(group, members=group.members[:2]), endless)
    _, three = planner.size(dataclasses.replace(group, members=group.members[:3]), endless)
    assert two.device < three.device < six.device and three.host * 2 == six.host
    # Three of them fit, six do not; nor would four.
    monkeypatch.setattr(memory, "room", of_bytes(three.device + three.host))
    said, noted = [], []
    outcome = sweep.run(whole, tmp_path / "run", report=said.append, note=noted.append)
    assert not said and len(outcome.points) == 12
    parts = disk.read_table(tmp_path / "run" / "members.csv")
    assert [len([row for row in parts if row["part"] == name]) for name in dict.fromkeys(row["part"] for row in parts)] == [3, 3]
    assert noted[0] == "6 members of --- need too much memory at once; they go in parts of 3 or fewer"
    assert noted[1].startswith("3 members of ---: all side by side, ") and len(noted) == 3
    # As if it had been asked for; and with more memory, what was divided stays so.
    sweep.run(plan(members=3, strategy="vmap"), tmp_path / "asked")
    assert tables(tmp_path / "run") == tables(tmp_path / "asked")
    monkeypatch.setattr(memory, "room", of_bytes(2**50))
    for path in (tmp_path / "run" / "parts").iterdir():
        path.unlink()
    sweep.run(whole, tmp_path / "run")
    assert tables(tmp_path / "run") == tables(tmp_path / "asked")


def test_evaluation_takes_fewer_side_by_side_where_it_must(tmp_path):
    whole = plan(strategy="vmap")
    (group,) = whole.divide(whole.members)
    planner, endless = planner_of(whole), Room(None, 2**50, 1)
    free, most = planner._evaluation(group, endless)
    assert most == 6
    less, lanes = planner._evaluation(group, Room(None, planner._host_bytes(group, 6) + (free * 2) // 3, 1))
    assert lanes < 6 and less < free
    assert planner._evaluation(group, Room(None, 1, 1))[1] == 1
    trained = train.train(group, whole.dataset, whole.execution)
    rows = [evaluate.evaluate(trained, whole.dataset, lanes=count)[0] for count in (None, 1, 4)]
    for row in rows[1:]:
        assert row["rate"] == pytest.approx(rows[0]["rate"], rel=1e-5)
        assert row["distortion"] == pytest.approx(rows[0]["distortion"], rel=1e-5)


def test_a_member_that_does_not_fit_is_reported_and_may_be_forced(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "room", of_bytes(1000))
    said = []
    outcome = sweep.run(plan(2), tmp_path / "run", report=said.append)
    assert len(outcome.failed) == 2 and not outcome.points and outcome.trained == 0
    assert all("--config.population.members=1 tries it all the same" in why for why in outcome.failed.values())
    outcome = sweep.run(plan(2, members=1), tmp_path / "run", report=said.append)
    assert not outcome.failed and outcome.trained == 2


def test_less_memory_than_before_divides_what_is_left(tmp_path, monkeypatch):
    whole = plan(strategy="vmap")
    monkeypatch.setattr(train, "_FIRST_STEPS", 3)
    with pytest.raises(train.Stopped):
        sweep.run(whole, tmp_path / "run", stop=lambda: True)
    monkeypatch.setattr(memory, "room", of_bytes(1_200_000))
    noted = []
    outcome = sweep.run(whole, tmp_path / "run", note=noted.append)
    assert "go in parts of" in noted[0] and not outcome.failed and outcome.trained == 6


def fake(timings):
    """Timings for lanes; records what is asked."""
    asked = []

    def timing(self, group, lanes):
        asked.append(lanes)
        return timings[lanes] and Timing(lanes, *timings[lanes])

    return timing, asked


@pytest.mark.parametrize(
    ("timings", "seeds", "asked", "chosen", "untried"),
    [
        ({None: (0.0, 1e3), 16: (0.0, 5e2), 1: (0.0, 2e3), 4: (0.0, 6e2)}, 20, [None, 16, 1, 4], 16, ()),
        ({None: (0.0, 1e3), 1: (0.0, 2e3), 4: (0.0, 6e2)}, 16, [None, 1, 4], 4, ()),  # 16 of 16 is all of them
        ({None: (0.0, 1e3), 1: (0.0, 2e3)}, 3, [None, 1], None, ()),
        # Eight steps of a second: compiling another program for a minute could not pay.
        ({None: (60.0, 1.0)}, 20, [None], None, (16, 1, 4)),
        ({None: None}, 20, [None], None, ()),
        # There is nothing to choose.
        ({}, 1, [], None, ()),
    ],
)
def test_the_fastest_is_chosen_among_those_worth_trying(monkeypatch, timings, seeds, asked, chosen, untried):
    whole = plan(seeds)
    (group,) = whole.divide(whole.members)
    timing, heard = fake(timings)
    monkeypatch.setattr(Planner, "timing", timing)
    monkeypatch.setattr(Planner, "_evaluation", lambda *_: (5, 2))
    choice = planner_of(whole).choose(group, Need(3, 4), Room(None, 100, 1))
    assert heard == asked and choice.lanes == chosen and choice.untried == untried
    assert choice.need == Need(5, 4) and choice.evaluation_lanes == 2
    assert len(choice.timings) == sum(value is not None for value in timings.values())


def test_strategies_that_are_given_are_not_measured(monkeypatch):
    monkeypatch.setattr(Planner, "timing", lambda *_: pytest.fail("measured"))
    monkeypatch.setattr(Planner, "_evaluation", lambda *_: (5, 2))
    for given, lanes in (({"strategy": "vmap"}, None), ({"strategy": "looped"}, 1), ({"lanes": 3}, 3)):
        whole = plan(4, **given)
        (group,) = whole.divide(whole.members)
        assert planner_of(whole).choose(group, Need(0, 0), Room(None, 100, 1)).lanes == lanes
    with pytest.raises(BadInput, match="lanes=3 and strategy='vmap' exclude each other"):
        plan(lanes=3, strategy="vmap")
    with pytest.raises(BadInput, match="strategy='fast' does not exist; there are 'auto', 'vmap', 'looped'"):
        plan(strategy="fast")


def test_what_is_measured_is_recorded_and_replayed(tmp_path, monkeypatch):
    monkeypatch.setattr("rd_elbo.strategy._WORTH", 1e9)
    monkeypatch.setattr("rd_elbo.strategy._SECONDS", 0.0)
    noted, said = [], []
    sweep.run(plan(), tmp_path / "run", note=noted.append)
    (record,) = (tmp_path / "run" / "programs").iterdir()
    choice = Choice.from_json(disk.read_json(record)["choice"])
    assert [timing.lanes for timing in choice.timings] == [None, 1, 4] and not choice.untried
    assert all(timing.step_seconds > 0 for timing in choice.timings)
    assert choice.lanes == min(choice.timings, key=lambda timing: timing.step_seconds).lanes
    assert "ms a step" in noted[0] and "GiB of memory" in noted[0]
    # Another choice on record is kept to, though it is slower, and nothing is measured again.
    slow = dataclasses.replace(choice, lanes=4, timings=())
    disk.write_json(record, {**disk.read_json(record), "choice": dataclasses.asdict(slow)})
    monkeypatch.setattr(Planner, "timing", lambda *_: pytest.fail("measured"))
    real, used = train.train, []
    monkeypatch.setattr(train, "train", lambda group, data, ex, *a, **k: (used.append(ex.lanes), real(group, data, ex, *a, **k))[1])
    for path in (tmp_path / "run" / "parts").iterdir():
        path.unlink()
    sweep.run(plan(), tmp_path / "run", report=said.append)
    assert used == [4] and not said
    sweep.run(plan(lanes=4), tmp_path / "lanes")
    assert tables(tmp_path / "run") == tables(tmp_path / "lanes")


def test_a_damaged_record_is_named_and_made_anew(tmp_path):
    said, about, choice = [], {"members": 3}, Choice(None, 2, Need(1, 2), (Timing(None, 1.0, 2.0),), (1,))
    store = Store(tmp_path, {}, {}, said.append)
    assert store.choice(about) is None and not said
    store.keep_choice(about, choice)
    assert store.choice(about) == choice
    (record,) = (tmp_path / "programs").iterdir()
    content = record.read_text()
    for harm in ("", content[: len(content) // 2], content.replace('"members": 3', '"members": 4'), '{"program": {"members": 3}}'):
        said.clear()
        record.write_text(harm)
        assert store.choice(about) is None
        assert len(said) == 1 and "is found out anew" in said[0]


def test_a_step_is_what_a_longer_segment_takes_more():
    # A tenth of a second for every segment, and a hundredth for every step of it.
    assert step_seconds([(0.11, 1), (0.14, 4), (0.26, 16)]) == pytest.approx(0.01)
    assert step_seconds([(5.0, 1)]) == 5.0
    assert step_seconds([(0.5, 1), (0.4, 4)]) == 0.1  # what is noise is no slope


def test_strategies_agree():
    """One after another, or a few or all side by side: the same members."""
    results = []
    for given in ({"strategy": "vmap"}, {"strategy": "looped"}, {"lanes": 4}):
        whole = plan(6, **given)
        (group,) = whole.divide(whole.members)
        results.append(train.train(group, whole.dataset, whole.execution))
    for other in results[1:]:
        np.testing.assert_allclose(other.metrics.loss, results[0].metrics.loss, rtol=1e-4)


def test_another_run_is_replayed_to_the_last_bit(tmp_path, monkeypatch):
    monkeypatch.setattr("rd_elbo.strategy._WORTH", 1e9)
    monkeypatch.setattr("rd_elbo.strategy._SECONDS", 0.0)
    first = plan(strategy="auto")
    (group,) = first.divide(first.members)
    _, need = planner_of(first).size(dataclasses.replace(group, members=group.members[:3]), Room(None, 2**50, 1))
    monkeypatch.setattr(memory, "room", of_bytes(need.device + need.host))
    sweep.run(first, tmp_path / "first")
    # With all the memory there is, and without measuring anything.
    monkeypatch.setattr(memory, "room", of_bytes(2**50))
    monkeypatch.setattr(Planner, "timing", lambda *_: pytest.fail("measured"))
    sweep.run(plan(), tmp_path / "again", replay=tmp_path / "first", report=pytest.fail)
    assert tables(tmp_path / "again") == tables(tmp_path / "first")
    assert len(list((tmp_path / "again" / "parts").iterdir())) == 2
    other = plan()
    other = dataclasses.replace(other, splits=("test",))
    for folder, sentence in (
        (tmp_path / "first", "replay=.*is of another study"),
        (tmp_path / "none", "plan.json' cannot be read"),
    ):
        with pytest.raises(BadInput, match=sentence):
            sweep.run(other, tmp_path / "refused", replay=tmp_path / folder)
        assert not list((tmp_path / "refused").glob("*.json"))


def test_a_forecast_tells_what_the_sweep_does_and_writes_nothing(tmp_path, monkeypatch):
    whole = plan(strategy="vmap")
    (group,) = whole.divide(whole.members)
    _, need = planner_of(whole).size(dataclasses.replace(group, members=group.members[:3]), Room(None, 2**50, 1))
    monkeypatch.setattr(memory, "room", of_bytes(need.device + need.host))
    told = list(forecast.forecast(whole, forecast.peek(whole, None)))
    assert [len(f.part.members) for f in told] == [3, 3] and all(f.fits and f.steps == 8 for f in told)
    # The second is the same program.
    assert told[0].compiling > 0 == told[1].compiling and told[0].training == told[1].training > 0
    assert told[0].evaluating > 0
    sweep.run(whole, tmp_path / "run")
    assert disk.read_json(next((tmp_path / "run" / "programs").iterdir()))["choice"]["need"] == dataclasses.asdict(
        told[0].choice.need
    )
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    larger = plan(seeds=8, strategy="vmap")
    told = list(forecast.forecast(larger, forecast.peek(larger, tmp_path / "run")))
    assert sum(len(f.part.members) for f in told) == 2
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before
    monkeypatch.setattr(memory, "room", of_bytes(1000))
    monkeypatch.setattr(Planner, "timing", lambda *_: pytest.fail("what does not fit was run"))
    assert [f.fits for f in forecast.forecast(whole, forecast.peek(whole, None))] == [False] * 6


def test_the_first_record_of_a_choice_is_kept(tmp_path):
    about, first = {"members": 3}, Choice(None, 2, Need(1, 2))
    store, other = Store(tmp_path, {}), Store(tmp_path, {})
    assert store.keep_choice(about, first) == first
    assert other.keep_choice(about, dataclasses.replace(first, lanes=4)) == first
    assert len(list((tmp_path / "programs").iterdir())) == 1


def test_a_candidate_that_fails_is_no_reason_not_to_use_another(monkeypatch):
    def timing(self, group, lanes):
        if lanes == 1:
            raise MemoryError("too much")
        return Timing(lanes, 0.0, 1000.0)

    monkeypatch.setattr(Planner, "timing", timing)
    monkeypatch.setattr(Planner, "_evaluation", lambda *_: (5, 2))
    whole = plan(3)
    (group,) = whole.divide(whole.members)
    choice = planner_of(whole).choose(group, Need(0, 0), Room(None, 100, 1))
    assert choice.lanes is None and choice.untried == (1,)


def test_short_epochs_do_not_make_measuring_long(monkeypatch):
    whole = plan(2, strategy="vmap")
    (group,) = whole.divide(whole.members)
    long = type(group)(tuple(dataclasses.replace(member, epochs=100_000.0) for member in group.members))
    steps, real = [], train.fit

    def counted(*args, listener, **kwargs):
        return real(*args, listener=lambda progress: (steps.append(progress.steps), listener(progress)), **kwargs)

    monkeypatch.setattr(train, "fit", counted)
    assert planner_of(whole).timing(long, None).step_seconds > 0
    assert steps[-1] < 40_000 == train.total_steps(long.members[0], 64) / 10
    # And a termination is heard.
    with pytest.raises(train.Stopped, match="while measuring"):
        dataclasses.replace(planner_of(whole), stop=lambda: True).timing(long, None)


def test_what_is_on_record_is_held_to_where_memory_is_a_little_scarcer():
    whole = plan(2)
    (group,) = whole.divide(whole.members)
    recorded = Choice(4, 2, Need(900, 100))
    planner = planner_of(whole)
    assert planner.settle(group, recorded, Room(None, 1100, 1)) is recorded
    assert planner.settle(group, recorded, Room(None, 850, 1)) is recorded  # of 1062 that are free
    assert planner.settle(group, recorded, Room(None, 700, 1)) == 1


def test_replays_that_cannot_be(tmp_path):
    sweep.run(plan(2, strategy="vmap"), tmp_path / "run")
    with pytest.raises(BadInput, match="is what --overwrite would remove"):
        sweep.run(plan(2, strategy="vmap"), tmp_path / "run", overwrite=True, replay=tmp_path / "run")
    with pytest.raises(BadInput, match=r"was divided otherwise \(population.members was None and is 1\)"):
        sweep.run(plan(2, members=1), tmp_path / "other", replay=tmp_path / "run")
    assert (tmp_path / "run" / "points.csv").exists() and not (tmp_path / "other").exists()


def test_other_processes_see_only_what_is_missing(tmp_path):
    """Parts that were planned once, of members that are done by now in other company, are nobody's work."""
    both = plan(2, strategy="vmap")
    store = Store(tmp_path, both.identity, both.division)
    (whole,) = store.pending(both.members, {}, both.divide)
    assert len(whole.members) == 2
    first, second = both.members
    (missing,) = store.pending(both.members, {first.name: None}, both.divide)
    assert missing.members == (second,)
    assert [part.members for part in store.planned(both.members)] == [(second,)]
    # Both are on record: the first for those who ask for the members once more.
    recorded = disk.read_json(tmp_path / "plan.json")["parts"]
    assert recorded == [[first.name, second.name], [second.name]]


def test_a_damaged_division_is_told_once_and_a_dry_run_leaves_it(tmp_path):
    whole, told = plan(4, strategy="vmap"), []
    store = Store(tmp_path, whole.identity, whole.division, told.append)
    (group,) = store.pending(whole.members, {}, whole.divide)
    store.split(group, 2)
    (damaged,) = (tmp_path / "splits").iterdir()
    damaged.write_text("{")
    assert len(dataclasses.replace(store, writes=False).pending(whole.members, {}, whole.divide)) == 1
    assert damaged.read_text() == "{" and len(told) == 1
    told.clear()
    assert [part.members for part in store.pending(whole.members, {}, whole.divide)] == [group.members]
    assert len(told) == 1 and "what it divides is tried in one again" in told[0] and not damaged.exists()
