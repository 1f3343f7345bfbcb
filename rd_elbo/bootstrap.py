"""Resampled rates and distortions, and bands of their convex hull.

Values of single examples are not kept, so the bootstrap over examples is parametric. Means over
many examples are nearly Gaussian, and their recorded standard errors, those of R, D and R + D, give
the covariance of R and D. All points are evaluated on the same examples: what is hard for one model
is hard for others. One draw therefore moves all points of a replicate, each by its own covariance.
That takes errors of different points as fully correlated, so a replicate's hull moves as a whole;
independent draws would let the lower hull pick the lucky points, and make its band too low.

Seeds are resampled as they are: each configuration of n seeds draws n of them with replacement. A
configuration of one seed has no error of training, and a band says nothing of it.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from rd_elbo import frontier

REPLICATES = 1000
# Ends of a 95 % interval.
INTERVAL = (0.025, 0.975)


class Replicates(NamedTuple):
    """Resampled points.

    Attributes:
      rate: (replicates, points) nats.
      distortion: (replicates, points) nats.
      times: (replicates, points) how often each point was drawn, 0 or more.
    """

    rate: Float[np.ndarray, "replicates points"]
    distortion: Float[np.ndarray, "replicates points"]
    times: Int[np.ndarray, "replicates points"]


class Band(NamedTuple):
    """A convex hull and the spread of its replicates.

    Attributes:
      rate: (rates,) nats.
      distortion: (rates,) distortion of the hull, nats.
      low: (rates,) lower end of the 95 % interval, nats.
      high: (rates,) upper end, nats.
      error: (rates,) standard deviation of the replicates, nats.
    """

    rate: Float[np.ndarray, " rates"]
    distortion: Float[np.ndarray, " rates"]
    low: Float[np.ndarray, " rates"]
    high: Float[np.ndarray, " rates"]
    error: Float[np.ndarray, " rates"]


def resample(
    points: tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]],
    errors: tuple[
        Float[np.ndarray, " points"], Float[np.ndarray, " points"], Float[np.ndarray, " points"]
    ],
    configuration: Int[np.ndarray, " points"],
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Replicates:
    """Resample examples, parametrically, and seeds.

    Args:
      points: Rates and distortions, nats.
      errors: Standard errors over examples of R, of D and of R + D, nats.
      configuration: Number of each point's configuration; points of one number differ in seed.
      replicates: Replicates to make.
      seed: Source of all randomness.
    """
    random = np.random.default_rng(seed)
    rate, distortion = (np.asarray(values, float) for values in points)
    of_rate, of_distortion, of_total = (np.asarray(values, float) for values in errors)
    both = of_rate * of_distortion
    covariance = (of_total**2 - of_rate**2 - of_distortion**2) / 2
    correlation = np.clip(covariance / np.where(both > 0, both, 1), -1, 1)
    first, second = random.standard_normal((2, replicates, 1))
    moved = correlation * first + np.sqrt(1 - correlation**2) * second
    times = np.zeros((replicates, len(rate)), int)
    for number in np.unique(configuration):
        seeds = np.flatnonzero(configuration == number)
        drawn = random.integers(len(seeds), size=(replicates, len(seeds)))
        for i, index in enumerate(seeds):
            times[:, index] = (drawn == i).sum(1)
    return Replicates(rate + of_rate * first, distortion + of_distortion * moved, times)


def hull_band(
    points: tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]],
    replicates: Replicates,
    at: Float[np.ndarray, " rates"],
) -> Band:
    """Compute the hull of points at some rates, and its band.

    A hull reaches every distortion of its own at higher rates too, so it is level beyond its last
    corner. Below its first corner it is NaN; replicates that begin later are left out there.

    Args:
      points: Rates and distortions, nats.
      replicates: Replicates of the points.
      at: (rates,) rates to compute the hull at, nats.
    """
    own = _at(*points, at)
    several = np.stack(
        [
            _at(rate[times > 0], distortion[times > 0], at)
            for rate, distortion, times in zip(*replicates, strict=True)
        ]
    )
    covered = np.isfinite(own) & np.isfinite(several).any(0)
    low, high, error = np.full((3, len(at)), np.nan)
    if not covered.any():
        return Band(np.asarray(at, float), own, low, high, error)
    low[covered], high[covered] = np.nanquantile(several[:, covered], INTERVAL, axis=0)
    error[covered] = np.nanstd(several[:, covered], axis=0)
    return Band(np.asarray(at, float), own, low, high, error)


def _at(rate: np.ndarray, distortion: np.ndarray, at: np.ndarray) -> np.ndarray:
    return np.interp(at, *frontier.hull(rate, distortion), left=np.nan)
