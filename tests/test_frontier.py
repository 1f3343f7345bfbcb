"""Frontiers against their definitions, by brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rd_elbo.frontier import convex_hull, pareto

# A coarse grid, so that ties in either coordinate and equal points are common.
points = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=14).map(lambda p: np.asarray(p, float).T)


@given(points)
def test_pareto_is_what_nothing_beats(cloud):
    rate, distortion = cloud
    kept = pareto(rate, distortion)
    beaten = [
        ((rate <= r) & (distortion <= d) & ((rate < r) | (distortion < d))).any() for r, d in zip(rate, distortion, strict=True)
    ]
    assert {(rate[i], distortion[i]) for i in kept} == {(r, d) for r, d, b in zip(rate, distortion, beaten, strict=True) if not b}
    assert (np.diff(rate[kept]) > 0).all() and (np.diff(distortion[kept]) < 0).all()


@given(points)
def test_hull_holds_the_minimisers_of_every_slope(cloud):
    """Corners reach min D + beta R for every beta, and each of them is the only minimiser for some beta."""
    rate, distortion = cloud
    corners = convex_hull(rate, distortion)
    hull_rate, hull_distortion = rate[corners], distortion[corners]
    slopes = -np.diff(hull_distortion) / np.diff(hull_rate)
    assert (np.diff(slopes) < 0).all() and (slopes > 0).all()
    for beta in np.concatenate([[1e-6, 1e6], np.geomspace(0.05, 20, 60), slopes]):
        np.testing.assert_allclose((hull_distortion + beta * hull_rate).min(), (distortion + beta * rate).min(), rtol=1e-12)
    edges = np.concatenate([[2 * slopes[0] + 2 if len(slopes) else 1.0], slopes, [0.0]])
    for at, beta in enumerate((edges[1:] + edges[:-1]) / 2):
        value = hull_distortion + beta * hull_rate
        assert np.flatnonzero(value <= value.min() + 1e-12).tolist() == [at]


def test_a_known_frontier():
    rate, distortion = np.array([0, 1, 2, 3, 4, 2.5]), np.array([10, 8, 7, 3, 2.9, 9.0])
    assert pareto(rate, distortion).tolist() == [0, 1, 2, 3, 4]
    assert convex_hull(rate, distortion).tolist() == [0, 3, 4]


def test_no_points_and_bad_points():
    assert pareto(np.array([]), np.array([])).tolist() == []
    assert convex_hull(np.array([]), np.array([])).tolist() == []
    with pytest.raises(ValueError, match="NaN"):
        pareto(np.array([1.0, np.nan]), np.array([1.0, 2.0]))
    with pytest.raises(ValueError, match="one length"):
        convex_hull(np.array([1.0]), np.array([1.0, 2.0]))
