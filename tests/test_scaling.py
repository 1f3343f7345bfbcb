"""The benchmark of weak scaling: what it divides by what, and that it sees tables that differ."""

import pathlib
import shutil
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "scripts"))

import scaling

from rd_elbo import disk, planning, sweep


def test_what_a_member_step_takes_of_a_core():
    # Two cores, busy for 3 s with 4 members of 1,000 steps each.
    assert scaling.core_microseconds(3.0, 2, 4 * 1000) == pytest.approx(1500.0)


def test_training_is_what_parts_took_without_compiling(tmp_path):
    for i, (training, compiling) in enumerate(((5.0, 1.0), (9.0, 3.0))):
        (tmp_path / f"run_{i}").mkdir()
        disk.write_json(tmp_path / f"run_{i}" / "provenance.json", {"seconds": {"training": training, "compiling": compiling}})
    assert scaling.training_seconds(tmp_path.glob("run_*"), 2) == pytest.approx(5.0)


def row(way, units, turn, cost, tables="same", apart=0.0):
    held = {
        "kind": "mlp",
        "way": way,
        "units": units,
        "cores": min(units, 2),
        "round": turn,
        "members": 4 * units,
        "steps": 100,
        "job_seconds": 9.0,
    }
    return held | {"core_microseconds": cost, "tables": tables, "largest_difference": apart}


def test_overheads_are_medians_of_ratios_within_a_turn():
    # The machine is twice as slow in the second turn, and thrice in the third.
    rows = [row("alone", 1, t, 100.0 * (t + 1)) for t in range(3)]
    rows += [row("alone", 2, t, 120.0 * (t + 1)) for t in range(3)]
    rows += [row("devices", 2, t, 126.0 * (t + 1), "same" if t else "rounded", 0.0 if t else 0.25) for t in range(3)]
    one, two, devices = scaling.summary(rows)
    assert (one["overhead"], one["over_one"]) == (0.0, 0.0)
    assert two["overhead"] == 0.0 and two["over_one"] == pytest.approx(0.2)
    assert devices["overhead"] == pytest.approx(0.05) and devices["over_one"] == pytest.approx(0.26)
    assert (devices["core_microseconds"], devices["least"], devices["most"]) == (252.0, 126.0, 378.0)
    assert (devices["tables"], devices["largest_difference"]) == ("rounded", 0.25)
    assert "±2e-01" in [*scaling.show([one, two, devices]).columns[-1].cells]


def test_every_way_trains_the_same_members_bound_to_cores(tmp_path):
    def told(way, name):
        return [word for job in scaling.commands(way, "mlp", 3, 4, 10, tmp_path) for word in job if word.startswith(f"--{name}=")]

    assert told("alone", "config.grid.beta") == [f"--config.grid.beta=({beta},)" for beta in (0.25, 0.5, 1.0)]
    for way, count in (("devices", 1), ("processes", 3)):
        assert told(way, "config.grid.beta") == ["--config.grid.beta=(0.25, 0.5, 1.0)"] * count
    assert told("devices", "config.population.devices") == ["--config.population.devices=3"]
    assert told("processes", "process") == ["--process=0", "--process=1", "--process=2"]
    assert scaling.places("processes", 4, [5, 7]) == scaling.places("alone", 4, [5, 7]) == [{5}, {7}, {5}, {7}]
    assert scaling.places("devices", 4, [5, 7]) == [{5, 7}] and scaling.places("devices", 1, [5, 7]) == [{5}]


def test_tables_that_differ_are_seen(tmp_path):
    plan = planning.make_plan(
        {
            "name": "tiny",
            "data": {"name": "mnist_static", "examples": 32},
            "base": {"encoder_width": 4, "latent": 2, "decoder_width": 4, "decoder_depth": 1, "batch_size": 16},
            "blocks": {"mlp": {"seed": (0, 1), "beta": 0.5}},
        }
    )
    sweep.run(plan, tmp_path / "reference")

    def compared(name=None, change=None, betas=(0.5,)):
        copy = shutil.copytree(tmp_path / "reference", tmp_path / "copy", dirs_exist_ok=True)
        if name:
            (copy / name).write_bytes(change((copy / name).read_bytes()))
        return scaling.compare([copy], tmp_path / "reference", betas)

    assert compared() == ("same", 0.0)
    rows = disk.read_table(tmp_path / "reference" / "points.csv")
    apart = f",{rows[0]['distortion']},".encode()
    assert compared("points.csv", lambda b: b.replace(apart, f",{rows[0]['distortion'] + 0.5},".encode())) == (
        "rounded",
        pytest.approx(0.5),
    )
    for name in ("metrics.csv", next((tmp_path / "reference").glob("params/*")).relative_to(tmp_path / "reference")):
        assert compared(name, lambda b: b[:-2] + bytes([b[-2] ^ 1]) + b[-1:]) == ("rounded", 0.0), name
    # Rows that are missing, and rows that are there twice.
    for name in ("points.csv", "metrics.csv"):
        assert compared(name, lambda b: b[: b.rstrip().rindex(b"\n") + 1])[0] == "wrong"
        assert compared(name, lambda b: b + b.splitlines(keepends=True)[-1])[0] == "wrong"
    assert compared(betas=(0.7,))[0] == "wrong"
    shutil.rmtree(tmp_path / "copy" / "params")
    assert scaling.compare([tmp_path / "copy"], tmp_path / "reference", (0.5,))[0] == "wrong"
