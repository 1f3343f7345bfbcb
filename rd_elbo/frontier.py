"""Lower-left boundaries of points in the rate-distortion plane, and areas between.

`pareto` and `convex_hull` say which points are on a boundary; `stepwise` and `hull` give it as a
polyline, vertices from left to right joined by straight lines, vertical ones among them. A polyline
ends at its first and last vertex.

>>> import numpy as np, rd_elbo as rd
>>> rates, distortions = np.array([1.0, 2.0, 3.0, 4.0]), np.array([8.0, 9.0, 5.0, 1.0])
>>> rd.frontier.pareto(rates, distortions), rd.frontier.convex_hull(rates, distortions)
(array([0, 2, 3]), array([0, 3]))
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from rd_elbo.errors import BadInput


def pareto(
    rate: Float[np.ndarray, " points"], distortion: Float[np.ndarray, " points"]
) -> Int[np.ndarray, " kept"]:
    """Find the points that no other point beats.

    None has at most their rate and at most their distortion, and less of one.

    Args:
      rate: (points,) rates, nats.
      distortion: (points,) distortions, nats.

    Returns:
      Indices of the points kept, by rising rate and so by falling distortion; of equal points the
      first.

    Raises:
      BadInput: If the arrays differ in length or hold NaN.
    """
    rate, distortion = _checked(rate, distortion)
    order = np.lexsort((np.arange(len(rate)), distortion, rate))
    best_before = (
        np.minimum.accumulate(np.concatenate([[np.inf], distortion[order][:-1]]))
        if len(order)
        else distortion
    )
    return order[distortion[order] < best_before]


def convex_hull(
    rate: Float[np.ndarray, " points"], distortion: Float[np.ndarray, " points"]
) -> Int[np.ndarray, " kept"]:
    """Find the corners of the convex hull of all above and right of the points.

    Time sharing between two models reaches every point between them, so the hull is what the set of
    models achieves. The corners are the minimisers of D + beta R over beta in (0, inf).

    Args:
      rate: (points,) rates, nats.
      distortion: (points,) distortions, nats.

    Returns:
      Indices of the corners, by rising rate; slopes -dD/dR fall strictly from corner to corner.

    Raises:
      BadInput: If the arrays differ in length or hold NaN.
    """
    rate, distortion = _checked(rate, distortion)
    corners: list[int] = []
    for index in pareto(rate, distortion):
        while (
            len(corners) > 1 and _turn(rate, distortion, corners[-2], corners[-1], int(index)) <= 0
        ):
            corners.pop()
        corners.append(int(index))
    return np.asarray(corners, int)


def stepwise(
    rate: Float[np.ndarray, " points"], distortion: Float[np.ndarray, " points"]
) -> tuple[Float[np.ndarray, " vertices"], Float[np.ndarray, " vertices"]]:
    """Compute the stepwise Pareto frontier as a polyline.

    At each rate it has the least distortion of the points with at most this rate.

    Args:
      rate: (points,) rates, nats.
      distortion: (points,) distortions, nats.

    Returns:
      Rates and distortions of the vertices, from the least to the greatest rate of the points kept
      by `pareto`.

    Raises:
      BadInput: If the arrays differ in length or hold NaN.
    """
    kept = pareto(rate, distortion)
    return np.repeat(np.asarray(rate, float)[kept], 2)[1:], np.repeat(
        np.asarray(distortion, float)[kept], 2
    )[:-1]


def hull(
    rate: Float[np.ndarray, " points"], distortion: Float[np.ndarray, " points"]
) -> tuple[Float[np.ndarray, " corners"], Float[np.ndarray, " corners"]]:
    """Compute the convex hull as a polyline.

    At each rate it has the least distortion of the points and of time sharing between them.

    Args:
      rate: (points,) rates, nats.
      distortion: (points,) distortions, nats.

    Returns:
      Rates and distortions of the corners, from the least to the greatest rate of the points kept
      by `convex_hull`.

    Raises:
      BadInput: If the arrays differ in length or hold NaN.
    """
    kept = convex_hull(rate, distortion)
    return np.asarray(rate, float)[kept], np.asarray(distortion, float)[kept]


@dataclasses.dataclass(frozen=True)
class Gap:
    """Height of one curve above another, over the rates that both cover.

    All numbers are NaN where there are no such rates.

    Attributes:
      above: Area between the curves where the first is above, nats^2, not negative.
      below: Area between the curves where the first is below, nats^2, not negative.
      lowest_rate: Lowest rate that both curves cover, nats.
      highest_rate: Highest rate that both curves cover, nats.
    """

    above: float
    below: float
    lowest_rate: float
    highest_rate: float

    @property
    def area(self) -> float:
        """The integral of the difference in distortion over the common rates, nats^2.

        It is positive if the first curve is above on average.
        """
        return self.above - self.below

    @property
    def mean(self) -> float:
        """The difference in distortion averaged over the common rates, nats."""
        return self.area / (self.highest_rate - self.lowest_rate)


def area_between(
    rate: Float[np.ndarray, " vertices"],
    distortion: Float[np.ndarray, " vertices"],
    other_rate: Float[np.ndarray, " other_vertices"],
    other_distortion: Float[np.ndarray, " other_vertices"],
) -> Gap:
    """Compute the area between two polylines, exactly.

    Both are linear between the vertices of the two taken together. Neither is continued beyond its
    ends: what a set of models does outside its rates is not known. To exchange the two exchanges
    `above` and `below`.

    >>> area_between(*hull(rate, distortion), *reference.hull)    # doctest: +SKIP

    Args:
      rate: (vertices,) rates of the first polyline, rising, nats; two of one rate are a vertical
        line.
      distortion: (vertices,) distortions of the first polyline, nats.
      other_rate: (other_vertices,) rates of the second polyline, rising, nats.
      other_distortion: (other_vertices,) distortions of the second polyline, nats.

    Returns:
      The areas and the range of rates, all NaN where the polylines have at most a single rate in
      common.

    Raises:
      BadInput: If the arrays of a polyline differ in length, hold what is not finite, or its
        rates fall.
    """
    first, second = _polyline(rate, distortion), _polyline(other_rate, other_distortion)
    if not (len(first[0]) and len(second[0])):
        return Gap(np.nan, np.nan, np.nan, np.nan)
    lowest, highest = max(first[0][0], second[0][0]), min(first[0][-1], second[0][-1])
    if lowest >= highest:
        return Gap(np.nan, np.nan, np.nan, np.nan)
    vertices = np.union1d(first[0], second[0])
    at = vertices[(vertices >= lowest) & (vertices <= highest)]
    # The differences just right of the beginning of each piece and just left of its end.
    begins = _after(*first, at[:-1]) - _after(*second, at[:-1])
    ends = _before(*first, at[1:]) - _before(*second, at[1:])
    above, below = (
        float((np.diff(at) * _mean_above_zero(sign * begins, sign * ends)).sum())
        for sign in (1, -1)
    )
    return Gap(above, below, float(lowest), float(highest))


def _mean_above_zero(begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The mean of max(0, .) along straight lines from `begins` to `ends`."""
    low, high = np.minimum(begins, ends), np.maximum(begins, ends)
    # Of a line that crosses zero the part high / (high - low) is above it.
    crossing = np.maximum(high, 0) ** 2 / (2 * np.where(high > low, high - low, 1))
    return np.where(low >= 0, (begins + ends) / 2, crossing)


def _after(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """A polyline just right of rates short of its end."""
    begins = np.searchsorted(x, at, side="right") - 1
    return _on_segment(x, y, begins, at)


def _before(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """A polyline just left of rates beyond its beginning."""
    begins = np.searchsorted(x, at, side="left") - 1
    return _on_segment(x, y, begins, at)


def _on_segment(x: np.ndarray, y: np.ndarray, begins: np.ndarray, at: np.ndarray) -> np.ndarray:
    part = (at - x[begins]) / (x[begins + 1] - x[begins])
    # Both weights, so that the ends are met to the last digit.
    return (1 - part) * y[begins] + part * y[begins + 1]


def _polyline(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = _checked(x, y)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise BadInput("rate, distortion: expected finite numbers in a curve, got others.")
    if (np.diff(x) < 0).any():
        raise BadInput("rate: expected rates that do not fall along a curve, got falling ones.")
    return x, y


def _turn(x: np.ndarray, y: np.ndarray, a: int, b: int, c: int) -> float:
    """Positive if the way from a over b to c turns left, as a convex lower boundary does."""
    return float((x[b] - x[a]) * (y[c] - y[a]) - (y[b] - y[a]) * (x[c] - x[a]))


def _checked(rate: np.ndarray, distortion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rate, distortion = np.asarray(rate, float), np.asarray(distortion, float)
    if rate.ndim != 1 or rate.shape != distortion.shape:
        raise BadInput(
            f"rate, distortion: expected two lists of one length, got shapes {rate.shape} and "
            f"{distortion.shape}."
        )
    if np.isnan(rate).any() or np.isnan(distortion).any():
        raise BadInput("rate, distortion: expected no NaN, got one. Leave such points out.")
    return rate, distortion
