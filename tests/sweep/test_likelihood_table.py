"""likelihood.csv keeps finished rows and renews those whose member or question has changed."""

import types

import numpy as np
import pytest

from rd_elbo import disk
from rd_elbo.data.dataset import Dataset
from rd_elbo.errors import BadInput
from rd_elbo.sweep import likelihood, tables
from rd_elbo.sweep.config import Population
from rd_elbo.sweep.restore import Run


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of two members with stand-ins for parameters, and the names that are evaluated."""
    points = [{"member": m, "status": "ok", "family": "---"} for m in ("1234567890", "b")]
    for point in points:
        disk.write_json(tables.params_path(tmp_path, point["member"]), point)
    images = {"test": np.zeros((5, 2, 2), np.uint8), "train": np.ones((5, 2, 2), np.uint8)}
    seen = []

    class Fake(Run):
        def populations(self, names):
            for name in names:
                seen.append(name)
                yield [name], types.SimpleNamespace(members=[types.SimpleNamespace(seed=0)]), name

    def bound(fitted, seeds, data, samples, split, **rest):
        return np.full((1, len(data)), -1.0 - samples), np.full((1, len(data)), -3.0 - samples)

    monkeypatch.setattr(likelihood, "importance_weighted", bound)
    dataset = Dataset("d", images, "test")
    return Fake(tmp_path, points, dataset, images, Population()), seen


def test_only_what_is_missing_or_has_changed_is_evaluated(run):
    """A key of fewer fields would mix draws, or keep the row of old parameters."""
    run, seen = run
    rows, new = likelihood.fill(run, 10, 3, "test")
    assert new == 2 and seen == ["1234567890", "b"]
    assert (rows[0]["nll"], rows[0]["posterior_gap"], rows[0]["nll_se"]) == (11, 2, 0)
    again, new = likelihood.fill(run, 10, 3, "test")
    assert new == 0 and [row["nll"] for row in again] == [11, 11] and len(seen) == 2
    likelihood.fill(run, 20, 3, "test")
    assert len(disk.read_table(run.path / "likelihood.csv")) == 4
    disk.write_json(tables.params_path(run.path, "b"), "trained again")
    assert likelihood.fill(run, 10, 3, "test")[1] == 1 and seen[-1] == "b"
    assert len(disk.read_table(run.path / "likelihood.csv")) == 4
    with pytest.raises(BadInput, match="split='valid': expected one of"):
        likelihood.fill(run, 10, 3, "valid")
