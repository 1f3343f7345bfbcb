"""Adaptive betas against an even grid, on the exact curve of a Gaussian source."""

import pathlib
import re

import numpy as np
import pytest

from rd_elbo import frontier, refinement
from rd_elbo.exact import gaussian
from rd_elbo.refinement import propose

VARIANCES, NOISE = np.asarray([60.0, 20.0, 4.0, 1.0, 0.3]), 0.5
LOWEST, HIGHEST = 0.05, 1000.0


def trained(beta):
    """The model that minimises D + beta R, exactly: water level beta noise^2."""
    point = gaussian.water_filling(VARIANCES, np.asarray(beta) * NOISE**2)
    return point.rate, gaussian.distortion(point.error, len(VARIANCES), NOISE)


def missed(beta):
    """Area between the hull of such models and the exact curve, nats^2."""
    corners = frontier.hull(*trained(beta))
    rate = np.linspace(corners[0][0], corners[0][-1], 4001)
    curve = gaussian.boundary(VARIANCES, rate, NOISE)
    return frontier.area_between(*corners, rate, curve).area


def refined(count):
    """Betas of as many members, each further one where the triangle is largest."""
    betas = [HIGHEST, LOWEST]
    while len(betas) < count:
        proposals = propose(*trained(betas), np.asarray(betas))
        # The triangles hold the curve: what they promise is at least what is missed.
        assert sum(p.area for p in proposals) >= missed(betas) - 1e-3
        betas.append(proposals[0].beta)
    return betas


def test_fewer_members_than_an_even_grid_for_the_same_area():
    """A proposal at the corners' mean, or in the smallest triangle, needs more than the grid."""
    assert missed(refined(9)) < missed(np.geomspace(LOWEST, HIGHEST, 11))
    assert missed(refined(17)) < missed(np.geomspace(LOWEST, HIGHEST, 23))


def test_the_table_of_the_page_is_measured():
    page = (pathlib.Path(__file__).parents[1] / "docs" / "frontier.md").read_text()
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) \| ([\d.]+) \|$", page, re.MULTILINE)
    assert len(rows) == 4
    for count, *areas in rows:
        even = np.geomspace(LOWEST, HIGHEST, int(count))
        found = [missed(refined(int(count))), missed(even)]
        np.testing.assert_allclose(found, np.asarray(areas, float), atol=0.051)


def test_the_triangle_by_hand():
    """Lines D = 4 - 2 R and D = 2 - R / 2 meet at (4/3, 4/3), below the chord R + D = 4."""
    rate, distortion = np.asarray([0.0, 4.0, 3.0]), np.asarray([4.0, 0.0, 9.0])
    (found,) = propose(rate, distortion, np.asarray([2.0, 0.5, 1.0]))
    corners = np.asarray([[0, 4], [4, 0], [4 / 3, 4 / 3]])
    (a, b), (c, d) = corners[1] - corners[0], corners[2] - corners[0]
    np.testing.assert_allclose((found.beta, found.area), (1.0, abs(a * d - b * c) / 2))
    assert (found.left, found.right) == (0, 1)
    assert propose(rate, distortion, np.asarray([2.0, 0.5, 1.0]), tried=[1.005]) == []
    # The left model is worse at its own beta than the right one is: its line bounds nothing.
    assert propose(rate, distortion, np.asarray([0.9, 0.5, 1.0])) == []
    with pytest.raises(ValueError, match="beta: expected the shape"):
        propose(rate, distortion, np.ones(2))


def test_models_of_the_exact_curve_miss_nothing_and_others_by_what_they_are_above_it():
    betas = np.geomspace(LOWEST, HIGHEST, 12)
    rate, distortion = trained(betas)
    np.testing.assert_allclose(refinement.missed(rate, distortion, betas)[0], 0, atol=1e-9)
    # The model of the seventh beta, trained with the price of the fourth.
    columns = (rate, rate[6]), (distortion, distortion[6]), (betas, betas[3])
    nats, best = refinement.missed(*(np.append(*column) for column in columns))
    loss = distortion + betas[3] * rate
    assert nats[-1] == pytest.approx(loss[6] - loss[3]) and nats[-1] > 0.01 and best[-1] == 3
