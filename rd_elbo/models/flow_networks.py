"""Networks of the flows: MADEs and the networks of couplings, dense with ReLU.

A network gives shifts. That of an affine flow also gives log-scales, as the second half.
"""

import itertools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Shifts start small, so that a flow starts near the identity, but not at zero, where weights before
# the last have no gradient.
_FIRST_SHIFTS = 0.1
# Variance of the first log-scales: small, since those of all steps add up in an exponent.
_FIRST_LOG_SCALES = 0.01


def made_masks(dimensions: int, width: int, depth: int) -> list[np.ndarray]:
    """Make the masks of a MADE's weights, from input to output (Germain et al. 2015).

    Unit k of a hidden layer reads inputs 1 to d_k, its degree. Output i reads units of a degree
    below i. Degrees run through 1, ..., dimensions - 1, again and again in a wide layer. A narrower
    layer spreads its units over them, and an output may miss some of the inputs before it.

    Args:
      dimensions: Number of inputs, and of outputs.
      width: Units of each hidden layer.
      depth: Hidden layers.

    Returns:
      depth + 1 arrays (inputs, outputs) of zeros and ones.
    """
    most = max(dimensions - 1, 1)
    # With a single dimension no output may read any unit: degree 1 is not below it.
    hidden = (np.arange(width) % most if width >= most else np.arange(width) * most // width) + 1
    degrees = [np.arange(1, dimensions + 1), *[hidden] * depth]
    masks = [before[:, None] <= after for before, after in itertools.pairwise(degrees)]
    masks.append(hidden[:, None] < degrees[0])
    return [mask.astype(np.float32) for mask in masks]


class MADE(nn.Module):
    """A dense ReLU network whose output i depends on the inputs before i alone.

    Alemi et al. 2018, App. A.

    Attributes:
      width: Units of each hidden layer.
      depth: Hidden layers.
      affine: Whether each dimension has a log-scale besides its shift.
    """

    width: int
    depth: int
    affine: bool = False

    @nn.compact
    def __call__(self, z: Float[Array, "*batch n"]) -> Float[Array, "*batch outputs"]:
        """One shift per dimension, then, if affine, one unbounded log-scale each."""
        masks = made_masks(z.shape[-1], self.width, self.depth)
        if self.affine:
            masks[-1] = np.tile(masks[-1], (1, 2))
        return _dense_relu(self, z, masks, self.affine)


class Coupler(nn.Module):
    """A dense ReLU network of a coupling step.

    It leads from the dimensions that the step keeps to shifts and log-scales of the others.

    Attributes:
      width: Units of each hidden layer.
      depth: Hidden layers.
      moved: Number of dimensions that the step moves.
    """

    width: int
    depth: int
    moved: int

    @nn.compact
    def __call__(self, z: Float[Array, "*batch n"]) -> Float[Array, "*batch outputs"]:
        """One shift per moved dimension, then one unbounded log-scale each."""
        sizes = (z.shape[-1], *[self.width] * self.depth, 2 * self.moved)
        masks = [np.ones(shape, np.float32) for shape in itertools.pairwise(sizes)]
        return _dense_relu(self, z, masks, affine=True)


def _dense_relu(module: nn.Module, h: Array, masks: Sequence[np.ndarray], affine: bool) -> Array:
    """Apply dense layers with ReLU between, each with a mask (inputs, outputs)."""
    for i, mask in enumerate(masks):
        last = i == len(masks) - 1
        # 2 makes up for the half that ReLU drops.
        variance: float | np.ndarray = 2.0
        if last:
            halves = (_FIRST_SHIFTS, _FIRST_LOG_SCALES)
            variance = np.repeat(halves, mask.shape[1] // 2) if affine else _FIRST_SHIFTS
        kernel = module.param(f"kernel_{i}", _masked_init(mask, variance), mask.shape)
        h = h @ (kernel if mask.all() else kernel * mask)
        h = h + module.param(f"bias_{i}", nn.initializers.zeros, mask.shape[1:])
        h = h if last else nn.relu(h)
    return h


def _masked_init(mask: np.ndarray, variance: float | np.ndarray) -> nn.initializers.Initializer:
    """Make an initializer of normal weights.

    Args:
      mask: (inputs, outputs) mask of the weights.
      variance: Variance of each sum, one or (outputs,), in units of the variance of the inputs.
    """
    inputs = np.maximum(mask.sum(0), 1)
    return lambda key, shape, dtype=jnp.float32: (
        jax.random.normal(key, shape, dtype) * np.sqrt(variance / inputs).astype(dtype)
    )
