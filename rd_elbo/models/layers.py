"""Layers that stay fast under `jax.vmap` over the members of a population, and that zero padding leaves alone.

`conv` is the one place that decides how a convolution with per-member kernels is lowered. Plain `lax.conv_general_dilated`
under `vmap` becomes a grouped convolution, which XLA runs naively on CPU, and inside loops autodiff's gradients have dimension
orders that miss XLA's fast path. So the forward pass and the two gradients are each written as one plain NHWC/HWIO/NHWC
convolution, and each carries a batching rule that, on CPU, loops over the members instead of grouping them.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float

Padding = tuple[tuple[int, int], tuple[int, int]]

_NHWC = ("NHWC", "HWIO", "NHWC")


def _vmap_by_member(fun: Callable[..., Array]) -> Callable[..., Array]:
    """Gives `fun` a batching rule chosen by platform: a loop over members on CPU, XLA's grouped convolution elsewhere."""
    member_wise = custom_vmap(fun)

    @member_wise.def_vmap
    def rule(_: int, in_batched: list[bool], *args: Array) -> tuple[Array, bool]:
        axes = tuple(0 if batched else None for batched in in_batched)

        def looped(*args: Array) -> Array:
            batched = [a for a, axis in zip(args, axes, strict=True) if axis == 0]

            def one(member: list[Array]) -> Array:
                parts = iter(member)
                # member_wise, not fun: a second vmap around this one then loops as well.
                return member_wise(*[a if axis is None else next(parts) for a, axis in zip(args, axes, strict=True)])

            return lax.map(one, batched)

        grouped = jax.vmap(fun, axes)
        return lax.platform_dependent(*args, cpu=looped, default=grouped), True

    return member_wise


@functools.cache
def _conv(size: tuple[int, int], kernel: tuple[int, int], strides: tuple[int, int], padding: Padding) -> Callable[..., Array]:
    """The convolution of one static geometry; cached so that every trace meets the same function."""

    @_vmap_by_member
    def forward(x: Array, w: Array) -> Array:
        return lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=_NHWC)

    # The gradient with respect to the input is a convolution of the dilated cotangent with the flipped kernel.
    @_vmap_by_member
    def input_gradient(dy: Array, w: Array) -> Array:
        pads = []
        for n, k, s, (low, _), out in zip(size, kernel, strides, padding, dy.shape[1:3], strict=True):
            before = k - 1 - low
            pads.append((before, n + k - 1 - ((out - 1) * s + 1) - before))
        flipped = w[::-1, ::-1].swapaxes(2, 3)
        return lax.conv_general_dilated(dy, flipped, (1, 1), pads, lhs_dilation=strides, dimension_numbers=_NHWC)

    # The gradient with respect to the kernel is a convolution in which channels and examples change places.
    @_vmap_by_member
    def kernel_gradient(x: Array, dy: Array) -> Array:
        pads = [
            (low, (out - 1) * s + k - n - low)
            for n, k, s, (low, _), out in zip(size, kernel, strides, padding, dy.shape[1:3], strict=True)
        ]
        dw = lax.conv_general_dilated(
            x.transpose(3, 1, 2, 0), dy.transpose(1, 2, 0, 3), (1, 1), pads, rhs_dilation=strides, dimension_numbers=_NHWC
        )
        return dw.transpose(1, 2, 0, 3)

    @jax.custom_vjp
    def apply(x: Array, w: Array) -> Array:
        return forward(x, w)

    def apply_forward(x: Array, w: Array) -> tuple[Array, tuple[Array, Array]]:
        return forward(x, w), (x, w)

    def apply_backward(saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
        x, w = saved
        return input_gradient(dy, w), kernel_gradient(x, dy)

    apply.defvjp(apply_forward, apply_backward)
    return apply


def conv(
    x: Float[Array, "batch height width inputs"],
    kernel: Float[Array, "rows columns kernel_inputs outputs"],
    padding: Padding = ((0, 0), (0, 0)),
    strides: tuple[int, int] = (1, 1),
) -> Float[Array, "batch new_height new_width outputs"]:
    """A 2-D convolution whose `jax.vmap`, gradients included, costs on CPU what a loop over models costs.

    Differentiable once, in reverse mode.

    Args:
      x: Images, channels last.
      kernel: The filter; correlated, not flipped, as everywhere in deep learning.
      padding: Zeros added ((top, bottom), (left, right)).
      strides: Steps of the filter down and to the right.

    Returns:
      The filtered images.

    Raises:
      ValueError: If the filter does not fit into the padded image or the channels disagree.
    """
    if x.shape[-1] != kernel.shape[2]:
        raise ValueError(f"conv: x has {x.shape[-1]} channels but the kernel takes {kernel.shape[2]}")
    for n, k, pad in zip(x.shape[1:3], kernel.shape[:2], padding, strict=True):
        if n + sum(pad) < k:
            raise ValueError(f"conv: a kernel of size {k} does not fit into {n} pixels padded by {pad}")
    return _conv(x.shape[1:3], kernel.shape[:2], strides, padding)(x, kernel)


def gate(h: Float[Array, "*batch two units"]) -> Float[Array, "*batch units"]:
    """Linear gating, h = (W1 x + b1) * sigmoid(W2 x + b2) (van den Oord et al. 2016), of the pair on the axis before last."""
    return h[..., 0, :] * nn.sigmoid(h[..., 1, :])


class GatedDense(nn.Module):
    """A dense layer with linear gating (Alemi et al. 2018, App. A).

    Both halves live in one kernel of shape (inputs, 2, units): one matrix product, and a narrower layer is a leading corner of
    a wider one, which is what padding members of different widths into one program relies on.
    """

    units: int

    @nn.compact
    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch units"]:
        """The gated units."""
        kernel = self.param("kernel", lecun_pair, (x.shape[-1], 2, self.units))
        bias = self.param("bias", nn.initializers.zeros, (2, self.units))
        return gate(jnp.einsum("...i,igu->...gu", x, kernel) + bias)


def lecun_pair(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """LeCun-normal kernels of shape (..., inputs, 2, units), each half drawn as if it stood alone."""
    fan_in = 1
    for n in shape[:-2]:
        fan_in *= n
    return jax.random.normal(key, shape, dtype) / jnp.sqrt(fan_in).astype(dtype)
