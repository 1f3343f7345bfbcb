"""How a gradient becomes a step: schedules of the learning rate, and what is done to a gradient before Adam sees it."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

_WARMUP = 0.05
# Where a gradient vanishes there is no direction to scale up.
_SMALLEST_NORM = 1e-7

# Learning-rate multipliers as functions of the part of the training done.
SCHEDULES: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "constant": lambda progress: jnp.ones_like(progress),
        "cosine": lambda progress: 0.5 * (1 + jnp.cos(jnp.pi * progress)),
        # Alemi et al. 2018, section 4: flat for the first half, then linear to zero.
        "half_linear": lambda progress: jnp.minimum(1.0, 2 - 2 * progress),
        # Small steps while Adam's moments are young, and at the end.
        "warmup_cosine": lambda progress: jnp.minimum(1.0, progress / _WARMUP) * 0.5 * (1 + jnp.cos(jnp.pi * progress)),
    }
)


def normalised(gradient: PyTree) -> PyTree:
    """Each tensor of a gradient divided by its own norm (Yu et al. 2017), as Alemi et al. 2018 trained; one of zeros stays so.

    Adam alone forgets the scale of a tensor's gradients slowly. So it does not matter, while squares neither overflow nor vanish,
    and no step is an outlier.
    """
    return jax.tree.map(lambda g: g / (jnp.sqrt(jnp.sum(g**2)) + _SMALLEST_NORM), gradient)


OPTIMIZERS: Mapping[str, Callable[[PyTree], PyTree]] = MappingProxyType(
    {"adam": lambda gradient: gradient, "normalised_adam": normalised}
)
