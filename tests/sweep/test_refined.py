"""Members that refine.py adds stay with the run directory, whatever the sweep's command is."""

import dataclasses

import numpy as np
import pytest

from rd_elbo import disk
from rd_elbo.data.dataset import Dataset
from rd_elbo.errors import BadInput
from rd_elbo.sweep import refined
from rd_elbo.sweep.config import Plan, Population
from rd_elbo.sweep.grid import Member
from rd_elbo.sweep.refined import refinements


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


def test_groups_and_owners_of_a_table():
    """The proposal between two groups is the nearer one's; groups have hulls of their own."""

    def row(rate, distortion, **fields):
        member = Member(**fields)
        own = {**dataclasses.asdict(member), "member": member.name, "family": member.family}
        return own | {"split": "valid", "status": "ok", "rate": rate, "distortion": distortion}

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
