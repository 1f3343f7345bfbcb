"""Members that refine.py adds stay with the run directory, whatever the sweep's command is."""

import dataclasses
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from rd_elbo import disk
from rd_elbo.data.dataset import Dataset
from rd_elbo.errors import BadInput
from rd_elbo.sweep import refined
from rd_elbo.sweep.config import Plan, Population
from rd_elbo.sweep.grid import Member
from rd_elbo.sweep.refined import refinements

ROOT = pathlib.Path(__file__).parents[2]


def plan_of(members):
    images = {"test": np.zeros((2, 4, 4), np.uint8), "train": np.zeros((4, 4, 4), np.uint8)}
    return Plan({}, Dataset("d", images, "test"), images, members, Population())


def test_members_are_added_once_and_to_every_plan(tmp_path):
    """A field that is dropped on the way would make another member, of another name."""
    grid = [Member(beta=1.0), Member(beta=0.1)]
    assert refined.extended(plan_of(grid), tmp_path).members == grid
    new = dataclasses.replace(grid[0], beta=0.3, latent=7, seed=2)
    refined.record(tmp_path, [new, grid[1]])
    refined.record(tmp_path, [new])
    assert [m.name for m in refined.extended(plan_of(grid), tmp_path).members] == [
        *(m.name for m in grid),
        new.name,
    ]
    disk.write_json(tmp_path / "refined.json", {"members": [{"bet": 1}]})
    with pytest.raises(BadInput, match=r"refined.json': expected a file as it was written"):
        refined.extended(plan_of(grid), tmp_path)


def row(rate, distortion, averaging="none", **fields):
    """A row of points.csv."""
    member = Member(**fields)
    own = {**dataclasses.asdict(member), "member": member.name, "family": member.family}
    own |= {"split": "valid", "status": "ok", "averaging": averaging}
    return own | {"rate": rate, "distortion": distortion}


def test_groups_and_owners_of_a_table():
    """The proposal between two groups is the nearer one's; groups have hulls of their own."""
    points = [
        row(0.0, 4.0, beta=2.0),
        row(4.0, 0.0, beta=0.8, latent=7, seed=1),
        row(9.0, 9.0, beta=0.7),
        row(1.0, 8.0, objective="target_rate", target_rate=1.0),
    ]
    (found,) = refinements(points, "valid")
    assert (found.scope, found.beta, found.area) == ("all", 1.0, pytest.approx(4 / 3))
    assert found.member == Member(beta=1.0, latent=7, seed=1)
    assert refinements([*points, row(5.0, 5.0, beta=1.0, latent=7)], "valid")[:1] == []
    with pytest.raises(BadInput, match="expected 'beta', the only one that is refined"):
        refinements(points[3:], "valid")


def test_a_missed_optimum_is_seen_among_models_of_one_architecture():
    """Training may differ, architectures may not; a member is as good as the better of two rows."""
    low = row(4.0, 1.0, beta=0.5, epochs=9.0)
    high = row(1.0, 6.0, beta=1.0), row(1.0, 5.5, "ema", beta=1.0)
    points = [
        low,
        *high,
        row(5.0, 1.05, beta=0.25, seed=1),  # D + beta R is 2.3, and 2.0 of `low`
        row(0.0, 0.5, beta=1.0, latent=7),
        row(3.0, 2.2, objective="target_rate", target_rate=3.0),
        row(0.0, 1.0, beta=1.0, seed=2) | {"split": "test"},
        row(0.0, 1.0, beta=1.0, seed=3) | {"status": "diverged"},
    ]
    first, second = refined.misses(points, "valid")
    assert (first.row, first.better, first.nats) == (high[1], low, pytest.approx(1.5))
    assert (second.row, second.better, second.nats) == (points[3], low, pytest.approx(0.3))
    assert (first.differs, second.differs) == (("epochs",), ("seed", "epochs"))
    # 2.05 and 2.0 differ by less than seeds do.
    points[3] = row(5.0, 0.8, beta=0.25, seed=1)
    assert [miss.row for miss in refined.misses(points, "valid")] == [high[1]]


def test_the_script_lists_missed_optima_the_largest_first():
    """In this study an architecture is a family, and no member has an average."""
    command = [sys.executable, "scripts/refine.py", "--workdir=results/mnist_small", "--split=test"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    rows = disk.read_table(ROOT / "results/mnist_small/points.csv")
    largest, family = max(
        (
            own["distortion"] - other["distortion"] + own["beta"] * (own["rate"] - other["rate"]),
            own["family"],
        )
        for own in rows
        for other in rows
        if own["family"] == other["family"] and own["objective"] == "beta"
    )
    _, found = result.stdout.split("beats in D + βR")
    first = found.splitlines()[4].split()
    assert first[0] == family and f"{largest:.2f}" in first


@pytest.mark.slow
def test_a_member_is_added_on_the_chord_and_the_sweeps_command_keeps_it(tmp_path):
    def run(name, *flags):
        command = [sys.executable, f"scripts/{name}", f"--workdir={tmp_path / 'run'}", *flags]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    sweep = ["--config=configs/quickstart.py:quick", "--config.only=('mlp',)"]
    sweep += ["--config.grid.beta=(0.05, 4.0)", "--config.grid.decoder_width=28"]
    run("sweep.py", *sweep, "--config.train.epochs=3")

    def points():
        return disk.read_table(tmp_path / "run" / "points.csv")

    first, second = (row for row in points() if row["split"] == "train")
    slope = (second["distortion"] - first["distortion"]) / (first["rate"] - second["rate"])
    assert "0 members added" in run("refine.py", "--train", "--tolerance=1e6")
    assert "1 member added" in run("refine.py", "--train", "--tolerance=0.001", "--most=1")
    betas = [row["beta"] for row in points() if row["split"] == "train"]
    assert betas == [0.05, 4.0, pytest.approx(slope, rel=1e-3)]
    before = (tmp_path / "run" / "points.csv").read_bytes()
    assert "3 members, none diverged" in run("sweep.py", *sweep, "--config.train.epochs=3")
    assert (tmp_path / "run" / "points.csv").read_bytes() == before
