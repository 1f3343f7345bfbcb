"""What is minimised, as a function of the batch means of rate and distortion.

An objective takes the *means* R and D, not the values per example: |sigma - R| of the mean rate is the target-rate objective,
the mean of |sigma - rate| is another thing that pins every example to the same rate. All weights are traced arrays, so members
of one population may differ in them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

Scalar = Float[Array, ""]


class Weights(NamedTuple):
    """The numbers an objective may depend on, one of each per member.

    Attributes:
      beta: Weight of the rate (objective `beta`).
      target_rate: The wanted rate sigma in nats (objective `target_rate`).
      target_weight: Weight of |sigma - R|; at 1 the objective is flat above sigma (objective `target_rate`).
    """

    beta: Any
    target_rate: Any
    target_weight: Any


def beta(rate: Scalar, distortion: Scalar, weights: Weights) -> Scalar:
    """D + beta R (Alemi et al. 2018, section 2); at beta = 1 the negative ELBO. d/d beta of it is R."""
    return distortion + weights.beta * rate


def target_rate(rate: Scalar, distortion: Scalar, weights: Weights) -> Scalar:
    """D + w |sigma - R| (Alemi et al. 2018, section 4, with a weight).

    The paper prints w = 1. On the diagonal D = H - R that leaves the loss constant for every R above sigma, so a weight above 1
    is needed to choose a point.
    """
    return distortion + weights.target_weight * jnp.abs(weights.target_rate - rate)


OBJECTIVES: dict[str, Callable[[Scalar, Scalar, Weights], Scalar]] = {"beta": beta, "target_rate": target_rate}


def annealed(weights: Weights, progress: Scalar, annealing: Scalar) -> Weights:
    """Weights of the rate at a moment of training: rising linearly from 0 over the first `annealing` part, then as given.

    Args:
      weights: The final weights.
      progress: Part of the training done, 0 to 1.
      annealing: Part of the training over which the weight of the rate rises; 0 means it does not.
    """
    # The inner where keeps a division by zero, and its NaN, away from members that do not anneal.
    rising = progress / jnp.where(annealing > 0, annealing, 1.0)
    scale = jnp.where(annealing > 0, jnp.minimum(rising, 1.0), 1.0)
    return weights._replace(beta=weights.beta * scale, target_weight=weights.target_weight * scale)
