"""Frontiers against their definitions, by brute force."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rd_elbo.frontier import Gap, area_between, convex_hull, hull, pareto, stepwise

# A coarse grid, so that ties in either coordinate and equal points are common.
clouds = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=14)
points = clouds.map(lambda p: np.asarray(p, float).T)


@given(points)
def test_pareto_is_what_nothing_beats(cloud):
    rate, distortion = cloud
    kept = pareto(rate, distortion)
    beaten = [
        ((rate <= r) & (distortion <= d) & ((rate < r) | (distortion < d))).any()
        for r, d in zip(rate, distortion, strict=True)
    ]
    assert {(rate[i], distortion[i]) for i in kept} == {
        (r, d) for r, d, b in zip(rate, distortion, beaten, strict=True) if not b
    }
    assert (np.diff(rate[kept]) > 0).all() and (np.diff(distortion[kept]) < 0).all()


@given(points)
def test_hull_holds_the_minimisers_of_every_slope(cloud):
    """Corners reach min D + beta R for every beta; each is the only minimiser for some."""
    rate, distortion = cloud
    corners = convex_hull(rate, distortion)
    hull_rate, hull_distortion = rate[corners], distortion[corners]
    slopes = -np.diff(hull_distortion) / np.diff(hull_rate)
    assert (np.diff(slopes) < 0).all() and (slopes > 0).all()
    for beta in np.concatenate([[1e-6, 1e6], np.geomspace(0.05, 20, 60), slopes]):
        least_of_all = (distortion + beta * rate).min()
        np.testing.assert_allclose((hull_distortion + beta * hull_rate).min(), least_of_all, 1e-12)
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


FINE = 64


def least(cloud, at):
    """The stepwise frontier by definition: the least distortion at this rate or less."""
    rate, distortion = cloud
    return np.array([distortion[rate <= r].min() for r in at])


def time_shared(cloud, at):
    """The hull by definition: the least distortion of two points' mixtures at this rate."""
    values = least(cloud, at)
    for r0, d0 in cloud.T:
        for r1, d1 in cloud.T:
            if r0 < r1:
                part = np.clip((at - r0) / (r1 - r0), 0, 1)
                values = np.where(at >= r0, np.minimum(values, d0 + part * (d1 - d0)), values)
    return values


CURVES = {"steps": (stepwise, least), "hull": (hull, time_shared)}


def covered(cloud):
    """The rates that a frontier covers: from its least rate to that of its least distortion."""
    rate, distortion = cloud
    return rate.min(), rate[distortion == distortion.min()].min()


@pytest.mark.parametrize("ours", ["steps", "hull"])
@pytest.mark.parametrize("theirs", ["hull", "steps"])
@given(first=points, second=points)
def test_areas_are_the_integrals_of_the_definitions(ours, theirs, first, second):
    """Vertices are whole: midpoint sums are exact but in cells in which curves cross."""
    (build, define), (build_other, define_other) = CURVES[ours], CURVES[theirs]
    gap = area_between(*build(*first), *build_other(*second))
    lowest = max(covered(first)[0], covered(second)[0])
    highest = min(covered(first)[1], covered(second)[1])
    if lowest >= highest:
        assert np.isnan([*dataclasses.astuple(gap), gap.area, gap.mean]).all()
        return
    assert (gap.lowest_rate, gap.highest_rate) == (lowest, highest)
    cells = int(highest - lowest) * FINE
    at = lowest + (np.arange(cells) + 0.5) / FINE
    difference = define(first, at) - define_other(second, at)
    np.testing.assert_allclose(gap.area, difference.sum() / FINE, atol=1e-9)
    np.testing.assert_allclose(gap.mean, difference.mean(), atol=1e-9)
    # Lines of slopes up to 8 differ within half a cell by at most 16 / 128; at most one crossing a
    # whole-number cell and pair.
    above = np.maximum(difference, 0).sum() / FINE
    np.testing.assert_allclose(gap.above, above, atol=8 * 16 / 128 / FINE)
    assert gap.above >= 0 and gap.below >= 0


@given(points, points)
def test_exchanging_curves_exchanges_signs(first, second):
    one, other = hull(*first), stepwise(*second)
    forth, back = area_between(*one, *other), area_between(*other, *one)
    np.testing.assert_equal((forth.above, forth.below), (back.below, back.above))
    np.testing.assert_array_equal((forth.area, forth.mean), (-back.area, -back.mean))
    np.testing.assert_equal(forth.lowest_rate, back.lowest_rate)
    np.testing.assert_equal(forth.highest_rate, back.highest_rate)


@given(points)
def test_nothing_lies_between_a_curve_and_itself_and_steps_lie_above_their_hull(cloud):
    steps, corners = stepwise(*cloud), hull(*cloud)
    if covered(cloud)[0] == covered(cloud)[1]:
        return
    for curve in (steps, corners):
        lowest, highest = covered(cloud)
        assert area_between(*curve, *curve) == Gap(0.0, 0.0, lowest, highest)
        raised = area_between(curve[0], curve[1] + 3.0, *curve)
        expected = [3 * (highest - lowest), 0, 3]
        np.testing.assert_allclose([raised.above, raised.below, raised.mean], expected, 1e-12)
    assert area_between(*steps, *corners).below <= 1e-12


def test_a_known_area():
    """From (0, 4) to (4, 0) against a step from 3 to 1 at 2: they cross at 1, 2 and 3."""
    line = (np.array([0.0, 4.0]), np.array([4.0, 0.0]))
    steps = stepwise(np.array([-1.0, 2.0, 3.5]), np.array([3.0, 1.0, 0.0]))
    assert steps[0].tolist() == [-1, 2, 2, 3.5, 3.5] and steps[1].tolist() == [3, 3, 1, 1, 0]
    gap = area_between(*line, *steps)
    # Above: half on (0, 1) and half on (2, 3). Below: half on (1, 2) and an eighth on (3, 3.5). The
    # last step has no width.
    found = [gap.above, gap.below, gap.area, gap.mean]
    np.testing.assert_allclose(found, [1.0, 0.625, 0.375, 0.375 / 3.5], rtol=1e-12)
    assert (gap.lowest_rate, gap.highest_rate) == (0.0, 3.5)


def test_curves_without_a_common_range_and_curves_that_are_none():
    left = (np.array([0.0, 1.0]), np.array([2.0, 1.0]))
    right = (np.array([1.0, 2.0]), np.array([1.0, 0.0]))
    for one, other in (
        (left, right),
        (right, left),
        (left, (np.array([]), np.array([]))),
        (left, (np.array([0.5]), np.array([1.0]))),
    ):
        gap = area_between(*one, *other)
        assert np.isnan([*dataclasses.astuple(gap), gap.area, gap.mean]).all()
    with pytest.raises(ValueError, match="do not fall"):
        area_between(left[0][::-1], left[1], *left)
    with pytest.raises(ValueError, match="finite"):
        area_between(*left, np.array([0.0, np.inf]), left[1])
    with pytest.raises(ValueError, match="one length"):
        area_between(*left, left[0], left[1][:1])
