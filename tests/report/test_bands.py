"""frontier.csv, and our hull beside the paper's."""

import numpy as np
import pytest

from rd_elbo import disk
from rd_elbo.errors import BadInput
from rd_elbo.report import bands, paper, plane
from rd_elbo.sweep.tables import POINT_COLUMNS
from tests.report.rows import row

ERRORS = {"rate_se": 0.0, "distortion_se": 0.3, "elbo_se": 0.3}


@pytest.fixture
def points():
    """Models two nats below the paper's corners, the first of them trained with two seeds."""
    rates, distortions = paper.reference("mnist_static").hull
    both = list(zip(rates[1:], distortions[1:], strict=True))
    ours = [row("-+v", r, d - 2, beta=1 / (1 + i)) for i, (r, d) in enumerate(both)]
    return [point | ERRORS for point in (*ours, row("-+v", both[0][0], 90.0, seed=1))]


def test_our_hull_beside_the_papers(points):
    """Differences at the corners that we cover; their errors add up by squares."""
    reference = paper.reference("mnist_static")
    rows = bands.beside(bands.Resampled(points, "test"), reference)
    assert [r["rate"] for r in rows] == reference.hull[0][1:].tolist()
    np.testing.assert_allclose([r["difference"] for r in rows], -2)
    errors = [r["difference_se"] for r in rows]
    np.testing.assert_allclose(errors[3:], np.hypot(0.3, paper.DIGITISED_ERROR), rtol=0.06)
    assert errors[0] > 2  # the seed that is worse


def test_the_table_is_read_back_for_the_points_that_it_is_of(points, tmp_path):
    disk.write_table(tmp_path / "points.csv", POINT_COLUMNS, points)
    resampled = bands.Resampled(points, "test")
    assert bands.read(tmp_path, "test") is None
    written = disk.read_table(bands.write(tmp_path, resampled))
    models = [r for r in written if r["section"] == "model"]
    assert models[0]["seeds"] == 2 and models[0]["rate_low"] == models[0]["rate"]
    np.testing.assert_allclose(models[0]["distortion"], (points[0]["distortion"] + 90) / 2)
    np.testing.assert_allclose(models[-1]["distortion_se"], 0.3, rtol=0.06)
    both = [points[0] | {"averaging": name} for name in ("none", "ema")]
    assert [r["seeds"] for r in bands.Resampled(both, "test").models()] == [1, 1]
    band = bands.read(tmp_path, "test")
    np.testing.assert_equal(band, resampled.band())
    assert bands.read(tmp_path, "train") is None
    axes = plane.rd_plane(points, "test", band).axes[0]
    assert "convex hull, 95 %" in [text.get_text() for text in axes.get_legend().get_texts()]
    disk.write_table(tmp_path / "points.csv", POINT_COLUMNS, points[1:])
    assert bands.read(tmp_path, "test") is None
    with pytest.raises(BadInput, match="expected finite standard errors"):
        bands.Resampled([points[0] | {"rate_se": float("nan")}], "test")
