"""From a gradient to a step: schedules of the learning rate, and treatment before Adam."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

_WARMUP = 0.05
# Where a gradient vanishes there is no direction to scale up.
_SMALLEST_NORM = 1e-7
# Squares of larger elements, or sums of such squares, would overflow float32.
_LARGEST = 1e15

# Learning-rate multipliers as functions of the part of the training done.
SCHEDULES: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "constant": lambda progress: jnp.ones_like(progress),
        "cosine": lambda progress: 0.5 * (1 + jnp.cos(jnp.pi * progress)),
        # Alemi et al. 2018, section 4: flat for the first half, then linear to zero.
        "half_linear": lambda progress: jnp.minimum(1.0, 2 - 2 * progress),
        # Small steps while Adam's moments are young, and at the end.
        "warmup_cosine": lambda progress: (
            jnp.minimum(1.0, progress / _WARMUP) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
        ),
    }
)


def normalised(gradient: PyTree) -> PyTree:
    """Divide each tensor of a gradient by its own norm; a tensor of zeros stays zero.

    Yu et al. 2017, as Alemi et al. 2018 trained. Adam alone forgets the scale of a tensor's
    gradients slowly. Normalised, the scale does not matter and no step is an outlier.
    """
    return jax.tree.map(lambda g: g / (jnp.sqrt(jnp.sum(g**2)) + _SMALLEST_NORM), gradient)


OPTIMIZERS: Mapping[str, Callable[[PyTree], PyTree]] = MappingProxyType(
    {"adam": lambda gradient: gradient, "normalised_adam": normalised}
)


def is_finite(gradient: PyTree) -> Bool[Array, ""]:
    """Whether every element of a gradient is finite; nothing is squared, so 1e20 is."""
    largest = [jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(gradient)]
    return jnp.isfinite(jnp.max(jnp.stack(largest))) if largest else jnp.asarray(True)


def bounded(gradient: PyTree) -> PyTree:
    """Limit the elements of a gradient to 1e15 in size, so that their squares stay finite."""
    return jax.tree.map(lambda leaf: jnp.clip(leaf, -_LARGEST, _LARGEST), gradient)
