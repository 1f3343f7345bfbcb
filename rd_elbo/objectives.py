"""What is minimised, as a function of the batch means of rate and distortion.

An objective takes the *means* R and D, not the values per example: |sigma - R| of the mean rate is
the target-rate objective; the mean of |sigma - rate| would pin every example to the same rate. They
are means of a batch, so an objective with a kink, |sigma - R| or max(R, free), rests beside it
where batches scatter: at slope 1 and weight 2, 0.67 standard deviations of the batches' mean rate
above sigma. All weights are traced arrays, so members of one population may differ in them.

>>> import jax.numpy as jnp, rd_elbo as rd
>>> rate, distortion = jnp.array(3.0), jnp.array(80.0)
>>> float(rd.objectives.beta(rate, distortion, rd.objectives.LossWeights(beta=0.5)))
81.5
>>> weights = rd.objectives.LossWeights(target_rate=2.0, target_weight=2.0)
>>> float(rd.objectives.target_rate(rate, distortion, weights))
82.0
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

Scalar = Float[Array, ""]


class LossWeights(NamedTuple):
    """The numbers an objective may depend on, one of each per member.

    Attributes:
      beta: Weight of the rate (objectives `beta` and `free_bits`).
      target_rate: The wanted rate sigma in nats (objective `target_rate`).
      target_weight: Weight of |sigma - R|; at 1 the objective is flat above sigma (objective
        `target_rate`).
      target_distortion: The wanted distortion in nats (objective `target_distortion`).
      multiplier: Weight of the distortion that holds it at its target; training moves it, see
        `ascend`.
      multiplier_rate: Largest change of the multiplier's logarithm in a step.
      free_bits: The rate in nats that costs nothing (objective `free_bits`).
    """

    beta: Any = 1.0
    target_rate: Any = 0.0
    target_weight: Any = 2.0
    target_distortion: Any = 0.0
    multiplier: Any = 1.0
    multiplier_rate: Any = 0.0
    free_bits: Any = 0.0


def beta(rate: Scalar, distortion: Scalar, weights: LossWeights) -> Scalar:
    """D + beta R (Alemi et al. 2018, section 2); at beta = 1 the negative ELBO.

    Its derivative by beta is R.
    """
    return distortion + weights.beta * rate


def target_rate(rate: Scalar, distortion: Scalar, weights: LossWeights) -> Scalar:
    """D + w |sigma - R| (Alemi et al. 2018, section 4, with a weight).

    The paper prints w = 1. On the diagonal D = H - R that leaves the loss constant for every R
    above sigma, so a weight above 1 is needed to choose a point.
    """
    return distortion + weights.target_weight * jnp.abs(weights.target_rate - rate)


def target_distortion(rate: Scalar, distortion: Scalar, weights: LossWeights) -> Scalar:
    """R + lambda (D - target), the Lagrangian of min R subject to D <= target.

    GECO, Rezende & Viola 2018. Its multiplier rises while D is above the target and falls below it.
    Where both rest, lambda = -dR/dD = 1 / beta of the curve. Training adds damping, see `pressure`:
    on a stretch of constant slope the two would circle round each other for ever.
    """
    return rate + weights.multiplier * (distortion - weights.target_distortion)


def free_bits(rate: Scalar, distortion: Scalar, weights: LossWeights) -> Scalar:
    """D + beta max(R, free) (Kingma et al. 2016, appendix C.8, with the whole code as one group).

    Below `free` the rate has no price, so it rises to it; beyond it costs beta. One group, and not
    one per dimension, is what families without a rate per dimension, flows and mixtures, have too.
    """
    return distortion + weights.beta * jnp.maximum(rate, weights.free_bits)


Objective = Callable[[Scalar, Scalar, LossWeights], Scalar]
OBJECTIVES: Mapping[str, Objective] = MappingProxyType(
    {
        "beta": beta,
        "target_rate": target_rate,
        "target_distortion": target_distortion,
        "free_bits": free_bits,
    }
)
# What a member's objective depends on; the first is what is varied along a curve.
SETTINGS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "beta": ("beta", "kl_warmup_fraction"),
        "target_rate": ("target_rate", "target_weight", "kl_warmup_fraction"),
        "target_distortion": ("target_distortion", "multiplier_rate"),
        "free_bits": ("free_bits", "beta", "kl_warmup_fraction"),
    }
)


def annealed(weights: LossWeights, progress: Scalar, warmup: Scalar) -> LossWeights:
    """Scale the weight of the rate to a moment of training.

    They rise linearly from 0 to the end of the warm-up, and then stay as given.

    Args:
      weights: The final weights.
      progress: Part of the training done, 0 to 1.
      warmup: Part of the training over which the weight of the rate rises; 0 means it does not.
    """
    # The inner where keeps a division by zero, and its NaN, away from members without a warm-up.
    rising = progress / jnp.where(warmup > 0, warmup, 1.0)
    scale = jnp.where(warmup > 0, jnp.minimum(rising, 1.0), 1.0)
    return weights._replace(beta=weights.beta * scale, target_weight=weights.target_weight * scale)


# Memory of the moving average of D - target, about ten steps; GECO's 0.99 answers so late that the
# multiplier swings.
_MEMORY = 0.9
# Per nat of excess.
_DAMPING = 1.0
# Bounds of the multiplier, for targets that cannot be reached or that nothing is needed for.
_LARGEST_LOG = 7.0


class Multiplier(NamedTuple):
    """State of the multiplier of `target_distortion`.

    Attributes:
      log: Logarithm of the multiplier.
      excess: Moving average of D - target, nats.
    """

    log: Any
    excess: Any


def pressure(multiplier: Multiplier, weights: LossWeights) -> Scalar:
    """The present weight of the distortion, never below zero.

    It is lambda and, as damping, a part of the average excess. This is the derivative of an
    augmented Lagrangian, R + lambda (D - target) + damping (D - target)^2 / 2. The average takes
    the place of the batch's own excess, which is noisy. Where D rests at the target the damping is
    nothing, so it moves no point.
    """
    return jnp.maximum(
        weights.multiplier * jnp.exp(multiplier.log) + _DAMPING * multiplier.excess, 0
    )


def ascend(
    multiplier: Multiplier, distortion: Scalar, weights: LossWeights, step: Scalar
) -> Multiplier:
    """Make one step of ascent on the multiplier.

    Rezende & Viola 2018, algorithm 1, with a bound on the step.

    Args:
      multiplier: State before the step.
      distortion: Mean distortion of the batch, nats.
      weights: Target, and `multiplier_rate`.
      step: Part of the rate to use, as the learning rate falls.

    Returns:
      State after the step: log lambda has moved by rate * step * clip(average excess, -1, 1).
    """
    excess = _MEMORY * multiplier.excess + (1 - _MEMORY) * (distortion - weights.target_distortion)
    log = multiplier.log + weights.multiplier_rate * step * jnp.clip(excess, -1, 1)
    return Multiplier(jnp.clip(log, -_LARGEST_LOG, _LARGEST_LOG), excess)
