"""Where a new beta can lower a convex frontier most: triangles between the hull and its supports.

A model that minimises D + beta R lies on a line of slope -beta that no model of its kind is below.
The lines of two neighbouring corners of the hull meet below their chord, and any frontier between
them runs inside the triangle. Its area is the most that further models can gain there. The slope of
the chord is the beta whose own line is farthest below the chord. This is the sandwich algorithm for
convex curves (Rote 1992, "The convergence rate of the sandwich algorithm", Computing 48).
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from rd_elbo import frontier
from rd_elbo.errors import BadInput

# Betas closer than this part of each other differ by noise alone.
_CLOSEST = 0.01


class Proposal(NamedTuple):
    """A beta to train at.

    Attributes:
      beta: Slope of the chord, weight of the rate.
      area: Area between the chord and both supporting lines, nats^2.
      left: Index of the corner of lower rate.
      right: Index of the corner of higher rate.
    """

    beta: float
    area: float
    left: int
    right: int


def propose(
    rate: Float[np.ndarray, " points"],
    distortion: Float[np.ndarray, " points"],
    beta: Float[np.ndarray, " points"],
    tried: Sequence[float] = (),
) -> list[Proposal]:
    """Propose betas between neighbouring corners of the convex hull, the most promising first.

    A chord steeper than both of its corners' betas, or flatter than both, shows that one of them
    has missed its own optimum. Its lines bound nothing, and it proposes nothing.

    Args:
      rate: (points,) rates, nats.
      distortion: (points,) distortions, nats.
      beta: (points,) weights of the rate that the points were trained with.
      tried: Further betas that were trained, on the hull or not. A beta within 1 % of one of them,
        or of a corner's, is not proposed.

    Returns:
      Proposals by falling area, all positive.

    Raises:
      BadInput: If the arrays differ in length or hold NaN.
    """
    weights = np.asarray(beta, float)
    corners = frontier.convex_hull(rate, distortion)
    if weights.shape != np.shape(rate):
        raise BadInput(f"beta: expected the shape of rate, {np.shape(rate)}, got {weights.shape}.")
    found = []
    for left, right in itertools.pairwise(corners):
        width = float(rate[right] - rate[left])
        slope = float(distortion[left] - distortion[right]) / width
        steep, flat = weights[left] - slope, slope - weights[right]
        if steep <= 0 or flat <= 0:
            continue
        area = 0.5 * width**2 * float(steep * flat / (steep + flat))
        if is_new(slope, [*tried, weights[left], weights[right]]):
            found.append(Proposal(slope, area, int(left), int(right)))
    return sorted(found, key=lambda proposal: -proposal.area)


def missed(
    rate: Float[np.ndarray, " points"],
    distortion: Float[np.ndarray, " points"],
    beta: Float[np.ndarray, " points"],
) -> tuple[Float[np.ndarray, " points"], Int[np.ndarray, " points"]]:
    """Compute how far each point is above the best of all points at its own beta.

    Points that minimise D + beta R over one set of models are never above another of that set. One
    that is has not reached its optimum.

    Args:
      rate: (points,) rates, nats.
      distortion: (points,) distortions, nats.
      beta: (points,) weights of the rate that the points were trained with.

    Returns:
      (points,) differences in D + beta R, 0 or more, nats; (points,) indices of the best points.
    """
    r, d, weight = (np.asarray(values, float) for values in (rate, distortion, beta))
    losses = d + weight[:, None] * r  # a row for each beta
    best = losses.argmin(1)
    own = np.arange(len(losses))
    return losses[own, own] - losses[own, best], best


def is_new(beta: float, tried: Sequence[float]) -> bool:
    """Whether a beta is more than 1 % away from all that were tried."""
    return bool((np.abs(np.asarray(tried, float) - beta) > _CLOSEST * beta).all())
