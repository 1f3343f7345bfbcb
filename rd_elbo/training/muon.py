"""Muon: kernels move by orthogonalised gradients (Jordan et al. 2024).

A gradient of a layer's kernel is dominated by a few directions, and so are Adam's steps. Muon steps
by U V^T in place of a momentum U S V^T: all directions count alike. What is no kernel, such as a
bias, is left to Adam, and so are the masked kernels of flows: for them Muon buys nothing, and costs
much (results/frontier_factors).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, PyTree

_MOMENTUM = 0.95
# Steps have the size that Adam's have on average, so that both go by one learning rate (Liu et al.
# 2025, "Muon is scalable for LLM training").
_RMS = 0.2
# An odd polynomial that is applied five times leads singular values from 0.003 to 1 into 0.7 to
# 1.2 (Jordan et al. 2024).
_POLYNOMIAL, _TIMES = (3.4445, -4.7750, 2.0315), 5
_SMALLEST_NORM = 1e-7
# A decoder's first transposed convolution, whose images have a single pixel. It is a dense layer
# from z, with a kernel (rows, columns, inputs, 2, outputs).
_PAINTER, _AXES, _PAINTED = "decoder/whole/kernel", 5, 2

# Arrays by their path in a tree, such as "encoder/whole/kernel".
Arrays = dict[str, Array]


class MuonState(NamedTuple):
    """State of Muon and of the Adam beside it.

    Attributes:
      momentum: Decaying sums of the gradients of kernels.
      moments: State of `optax.scale_by_adam` of all other parameters.
    """

    momentum: Arrays
    moments: optax.ScaleByAdamState


def split(tree: PyTree) -> tuple[Arrays, Arrays]:
    """Part a tree into kernels and the rest.

    A kernel has two axes or more, and its name ends with "kernel", as flax names the weights of
    dense layers and convolutions. Those of flows are called `kernel_0` and so on.
    """
    kernels: Arrays = {}
    rest: Arrays = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        is_kernel = leaf.ndim > 1 and name.endswith("kernel")
        (kernels if is_kernel else rest)[name] = leaf
    return kernels, rest


def joined(arrays: Arrays, like: PyTree) -> PyTree:
    """Put arrays back into a tree from which they were parted."""
    paths, tree = jax.tree_util.tree_flatten_with_path(like)
    names = (jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths)
    return jax.tree.unflatten(tree, [arrays[name] for name in names])


def orthogonalised(matrix: Float[Array, "rows columns"]) -> Float[Array, "rows columns"]:
    """Replace the singular values of a matrix by about 1; those below a thousandth, by less.

    The polynomial is that of Jordan et al. 2024. Here it is applied to the smaller of the two Gram
    matrices, and the matrix itself is multiplied twice in place of ten times.
    """
    rows, columns = matrix.shape
    matrix = matrix / (jnp.sqrt(jnp.sum(matrix**2)) + _SMALLEST_NORM)
    by = 0 if rows >= columns else 1
    gram = lax.dot_general(matrix, matrix, (((by,), (by,)), ((), ())))
    one, three, five = _POLYNOMIAL
    factor = jnp.eye(len(gram), dtype=matrix.dtype)
    for _ in range(_TIMES):
        polynomial = one * jnp.eye(len(gram), dtype=matrix.dtype) + three * gram
        polynomial = polynomial + five * (gram @ gram)
        factor = factor @ polynomial
        gram = polynomial @ gram @ polynomial
    return matrix @ factor if by == 0 else factor @ matrix


def direction(
    momentum: Float[Array, "*shape"], inputs: int | None = None
) -> Float[Array, "*shape"]:
    """Orthogonalise the momentum of a kernel.

    All axes but the last are inputs. The two halves of a gated layer, (inputs, 2, outputs) or
    (rows, columns, inputs, 2, outputs), are outputs together. Elements without a gradient, which
    are masked or pad the kernel of a narrower member, stay where they are; the root mean square of
    the others is 0.2, about that of Adam's steps.

    Args:
      momentum: Momentum of a kernel.
      inputs: The one axis of inputs where all others are outputs.
    """
    if inputs is not None:
        first = jnp.moveaxis(momentum, inputs, 0)
        moved = orthogonalised(first.reshape(len(first), -1)).reshape(first.shape)
        moved = jnp.moveaxis(moved, 0, inputs)
    else:
        # Layers that are not gated have two axes, or four.
        halves = momentum.ndim in (3, 5) and momentum.shape[-2] == 2
        outputs = math.prod(momentum.shape[-2:] if halves else momentum.shape[-1:])
        moved = orthogonalised(momentum.reshape(-1, outputs)).reshape(momentum.shape)
    moves = momentum != 0
    moved = jnp.where(moves, moved, 0)
    norm = jnp.sqrt(jnp.sum(moved**2)) + _SMALLEST_NORM
    return moved * (_RMS * jnp.sqrt(jnp.sum(moves).astype(moved.dtype)) / norm)


def step(
    kernels: Arrays,
    momentum: Arrays,
    gradient: Arrays,
    step_size: Float[Array, ""],
    alive: Bool[Array, ""],
) -> tuple[Arrays, Arrays]:
    """Make one step of Muon with Nesterov's momentum, or none.

    Args:
      kernels: Kernels by path.
      momentum: Momentum of each kernel.
      gradient: Gradient of each kernel.
      step_size: Learning rate of this step.
      alive: () bool, whether to make the step.

    Returns:
      New kernels and momentum.
    """
    new = jax.tree.map(lambda m, g: jnp.where(alive, _MOMENTUM * m + g, m), momentum, gradient)
    # As with Adam's moments: kernels are computed from the new momentum, not from the old one.
    new = lax.optimization_barrier(new)

    def move(name: str) -> Array:
        # A user's own layer of this name may be another.
        paints = name == _PAINTER and kernels[name].ndim == _AXES
        inputs = _PAINTED if paints else None
        moved = direction(gradient[name] + _MOMENTUM * new[name], inputs)
        return jnp.where(alive, kernels[name] - step_size * moved, kernels[name])

    return {name: move(name) for name in kernels}, new
