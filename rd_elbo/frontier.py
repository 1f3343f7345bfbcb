"""The lower-left boundary of a set of points in the rate-distortion plane."""

import numpy as np
from jaxtyping import Float, Int


def pareto(rate: Float[np.ndarray, " points"], distortion: Float[np.ndarray, " points"]) -> Int[np.ndarray, " kept"]:
    """Points that no other point beats: none has at most their rate and at most their distortion, and less of one.

    Args:
      rate: nats.
      distortion: nats.

    Returns:
      Indices of the points kept, by rising rate and so by falling distortion; of equal points the first.

    Raises:
      ValueError: If the arrays differ in length or hold NaN.
    """
    rate, distortion = _checked(rate, distortion)
    order = np.lexsort((np.arange(len(rate)), distortion, rate))
    best_before = np.minimum.accumulate(np.concatenate([[np.inf], distortion[order][:-1]])) if len(order) else distortion
    return order[distortion[order] < best_before]


def convex_hull(rate: Float[np.ndarray, " points"], distortion: Float[np.ndarray, " points"]) -> Int[np.ndarray, " kept"]:
    """Corners of the convex hull of everything above and to the right of the points.

    Time sharing between two models reaches every point between them, so the hull is what the set of models achieves. The corners
    are the minimisers of D + beta R over beta in (0, inf).

    Args:
      rate: nats.
      distortion: nats.

    Returns:
      Indices of the corners, by rising rate; slopes -dD/dR fall strictly from corner to corner.

    Raises:
      ValueError: If the arrays differ in length or hold NaN.
    """
    rate, distortion = _checked(rate, distortion)
    corners: list[int] = []
    for index in pareto(rate, distortion):
        while len(corners) > 1 and _turn(rate, distortion, corners[-2], corners[-1], int(index)) <= 0:
            corners.pop()
        corners.append(int(index))
    return np.asarray(corners, int)


def _turn(x: np.ndarray, y: np.ndarray, a: int, b: int, c: int) -> float:
    """Positive if the way from a over b to c turns left, as a convex lower boundary does."""
    return float((x[b] - x[a]) * (y[c] - y[a]) - (y[b] - y[a]) * (x[c] - x[a]))


def _checked(rate: np.ndarray, distortion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rate, distortion = np.asarray(rate, float), np.asarray(distortion, float)
    if rate.ndim != 1 or rate.shape != distortion.shape:
        raise ValueError(f"rate and distortion must be two lists of one length, not of shapes {rate.shape} and {distortion.shape}")
    if np.isnan(rate).any() or np.isnan(distortion).any():
        raise ValueError("rate and distortion must not be NaN; leave such points out")
    return rate, distortion
