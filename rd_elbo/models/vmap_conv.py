"""Convolutions that stay fast under `jax.vmap` over members, gradients included.

Plain `lax.conv_general_dilated` under `vmap` becomes a grouped convolution, which XLA runs naively
on CPU. Inside loops, autodiff's gradients have dimension orders that miss XLA's fast path. So on
CPU the forward pass and the two gradients are each one plain NHWC/HWIO/NHWC convolution. Each
carries a batching rule that loops over members. Elsewhere the gradients are autodiff's.
`lowering.lowering` chooses another form.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from rd_elbo.models import cpu_conv
from rd_elbo.models.cpu_conv import convolve
from rd_elbo.models.geometry import UNPADDED, Geometry, Padding, Pair
from rd_elbo.models.lowering import chosen, vmap_by_member

Map = Callable[[Array, Array], Array]


def conv(
    x: Float[Array, "batch height width inputs"],
    kernel: Float[Array, "rows columns kernel_inputs outputs"],
    padding: Padding = UNPADDED,
    strides: Pair = (1, 1),
) -> Float[Array, "batch new_height new_width outputs"]:
    """Filter images; on CPU, `jax.vmap` costs what a loop over members costs.

    Differentiable once, in reverse mode.

    Args:
      x: (batch, height, width, inputs) images, channels last.
      kernel: (rows, columns, inputs, outputs) filter; correlated, not flipped, as is usual in deep
        learning.
      padding: Zeros added ((top, bottom), (left, right)); a negative number takes pixels away.
      strides: Steps of the filter down and to the right, pixels.

    Returns:
      (batch, new_height, new_width, outputs) filtered images, in the promoted dtype of both.

    Raises:
      ValueError: If the filter does not fit into the padded image or the channels disagree.
    """
    (_, height, width, channels), (rows, columns, inputs, _) = x.shape, kernel.shape
    if channels != inputs:
        raise ValueError(f"conv: x has {channels} channels but the kernel takes {inputs}")
    geometry = Geometry((height, width), (rows, columns), strides, padding)
    for n, k, pad in zip(geometry.size, geometry.kernel, padding, strict=True):
        if n + sum(pad) < k:
            raise ValueError(
                f"conv: a kernel of size {k} does not fit into {n} pixels padded by {pad}"
            )
    x, kernel = _promoted(x, kernel)
    if geometry.has_one_place:
        # A matrix product vmaps as it is.
        return jnp.einsum("bhwi,hwio->bo", x, kernel)[:, None, None]
    return _conv(geometry, *chosen())(x, kernel)


def conv_transpose(
    x: Float[Array, "batch height width inputs"],
    kernel: Float[Array, "rows columns outputs kernel_inputs"],
    size: Pair,
    padding: Padding = UNPADDED,
    strides: Pair = (1, 1),
) -> Float[Array, "batch new_height new_width outputs"]:
    """Apply the transpose of a `conv` that filters images of `size`.

    It is the map from that convolution's cotangents to those of its images, and vmaps as `conv`
    does. Differentiable once, in reverse mode.

    Args:
      x: (batch, height, width, inputs) images of the shape of that convolution's result.
      kernel: (rows, columns, outputs, inputs) filter of that convolution.
      size: (new_height, new_width) of the images that it filters, pixels.
      padding: Padding of that convolution.
      strides: Strides of that convolution.

    Returns:
      (batch, new_height, new_width, outputs) images, in the promoted dtype of both.

    Raises:
      ValueError: If that convolution does not take `size` to the size of `x`, or the channels
        disagree.
    """
    (_, height, width, channels), (rows, columns, _, inputs) = x.shape, kernel.shape
    if channels != inputs:
        raise ValueError(f"conv_transpose: x has {channels} channels but the kernel takes {inputs}")
    geometry = Geometry(size, (rows, columns), strides, padding)
    for n, k, s, pad, out in zip(*geometry, (height, width), strict=True):
        if n + sum(pad) < k or (n + sum(pad) - k) // s + 1 != out:
            raise ValueError(
                f"conv_transpose: a kernel of size {k}, stride {s} and padding {pad} "
                f"does not take {n} pixels to {out}"
            )
    x, kernel = _promoted(x, kernel)
    if geometry.has_one_place:
        return jnp.einsum("bi,hwoi->bhwo", x[:, 0, 0], kernel)
    return _conv_transpose(geometry, *chosen())(x, kernel)


def _promoted(x: Array, kernel: Array) -> tuple[Array, Array]:
    """Both arrays in one dtype, as a matrix product takes them."""
    dtype = jnp.promote_types(x.dtype, kernel.dtype)
    return x.astype(dtype), kernel.astype(dtype)


class _Maps(NamedTuple):
    """The three maps of a convolution, which vmap as `vmap_by_member` says.

    Attributes:
      forward: Map from (images, kernel) to the result.
      input_gradient: Map from (cotangent of the result, kernel) to that of the images.
      kernel_gradient: Map from (images, cotangent of the result) to that of the kernel.
    """

    forward: Map
    input_gradient: Map
    kernel_gradient: Map


@functools.cache
def _conv(geometry: Geometry, how: str, cpu: bool) -> Map:
    forward, input_gradient, kernel_gradient = _maps(geometry, how, cpu)
    return _with_gradients(
        forward,
        lambda x, w, dy: input_gradient(dy, w),
        lambda x, w, dy: kernel_gradient(x, dy),
    )


@functools.cache
def _conv_transpose(geometry: Geometry, how: str, cpu: bool) -> Map:
    """The maps with exchanged roles: each gradient is a map of the strided twin."""
    forward, input_gradient, kernel_gradient = _maps(geometry, how, cpu)
    return _with_gradients(
        input_gradient,
        lambda x, w, dy: forward(dy, w),
        lambda x, w, dy: kernel_gradient(dy, x),
    )


def _with_gradients(value: Map, of_x: Callable[..., Array], of_w: Callable[..., Array]) -> Map:
    """The map `value` of (x, w), whose gradients are functions of (x, w, dy)."""
    apply = jax.custom_vjp(value)
    apply.defvjp(
        lambda x, w: (value(x, w), (x, w)),
        lambda saved, dy: (of_x(*saved, dy), of_w(*saved, dy)),
    )
    return apply


# Cached, so that every trace meets the same functions.
@functools.cache
def _maps(geometry: Geometry, how: str, cpu: bool) -> _Maps:
    """The maps of one geometry, in the form `how` of `LOWERINGS`."""
    size, kernel = geometry.size, geometry.kernel
    forward = functools.partial(_forward, geometry)
    # Beside CPU, autodiff's own gradients: XLA knows them as those of a convolution.
    whole = functools.partial(_forward_by_patches, geometry) if how == "matmul" else forward

    def transposed_in_x(dy: Array, w: Array) -> Array:
        like = jax.ShapeDtypeStruct((dy.shape[0], *size, w.shape[2]), dy.dtype)
        return jax.linear_transpose(lambda x: whole(x, w), like)(dy)[0]

    def transposed_in_w(x: Array, dy: Array) -> Array:
        like = jax.ShapeDtypeStruct((*kernel, x.shape[-1], dy.shape[-1]), x.dtype)
        return jax.linear_transpose(lambda w: whole(x, w), like)(dy)[0]

    forms = (
        (functools.partial(cpu_conv.forward, geometry), whole),
        (functools.partial(cpu_conv.input_gradient, geometry), transposed_in_x),
        (functools.partial(cpu_conv.kernel_gradient, geometry), transposed_in_w),
    )
    loop = how == "looped" or (how == "auto" and cpu)
    return _Maps(
        *(vmap_by_member(ours if cpu else plain, plain, loop=loop) for ours, plain in forms)
    )


def _forward(geometry: Geometry, x: Array, w: Array) -> Array:
    return convolve(x, w, geometry.strides, geometry.padding)


def _forward_by_patches(geometry: Geometry, x: Array, w: Array) -> Array:
    return _patches(geometry, x) @ w.reshape(-1, w.shape[-1])


def _patches(geometry: Geometry, x: Array) -> Array:
    """Gather the pixels under each place: (batch, height, width, taps * inputs)."""
    # A negative padding takes away, which `jnp.pad` does not know.
    frame = [(low, high, 0) for low, high in geometry.padding]
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *frame, (0, 0, 0)))
    strides, kernel = geometry.strides, geometry.kernel
    ends = [(n - k) // s * s + 1 for n, k, s in zip(x.shape[1:3], kernel, strides, strict=True)]
    taps = [
        x[:, i : i + ends[0] : strides[0], j : j + ends[1] : strides[1]]
        for i in range(kernel[0])
        for j in range(kernel[1])
    ]
    return jnp.concatenate(taps, axis=-1)
