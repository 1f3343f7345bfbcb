"""Layers that stay fast under `jax.vmap` over the members of a population, and that zero padding leaves alone.

`conv` and `conv_transpose` are the one place that decides how convolutions with per-member kernels are lowered. Plain
`lax.conv_general_dilated` under `vmap` becomes a grouped convolution, which XLA runs naively on CPU, and inside loops autodiff's
gradients have dimension orders that miss XLA's fast path. So on CPU the forward pass and the two gradients are each one plain
NHWC/HWIO/NHWC convolution. Each carries a batching rule that loops over the members instead of grouping them. Elsewhere the
gradients are autodiff's. `lowering` chooses otherwise.
"""

import contextlib
import contextvars
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float

from rd_elbo.errors import choice

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]

_NHWC = ("NHWC", "HWIO", "NHWC")


# How convolutions with a kernel per member are lowered; "auto" is what measured fastest on the platform at hand.
LOWERINGS = ("auto", "grouped", "looped", "matmul")
_LOWERING: contextvars.ContextVar[tuple[str, str | None]] = contextvars.ContextVar("lowering", default=("auto", None))


@contextlib.contextmanager
def lowering(name: str, platform: str | None = None) -> Iterator[None]:
    """Lower the convolutions that are traced inside in one way, for whole programs to choose and for benchmarks.

    Args:
      name: "grouped", one grouped convolution of all members; "looped", one convolution after another; "matmul", patches of the
        images times kernels, one batched matrix product of all members; or "auto".
      platform: Platform that the program is for, such as "cpu"; None means JAX's default backend.

    Raises:
      BadInput: If there is no such lowering.
    """
    choice("lowering", name, LOWERINGS)
    token = _LOWERING.set((name, platform))
    try:
        yield
    finally:
        _LOWERING.reset(token)


def _how() -> tuple[str, bool]:
    """The lowering that is asked for, and whether it is for CPU; `lax.platform_dependent` would trace all forms."""
    name, platform = _LOWERING.get()
    return name, (platform or jax.default_backend()) == "cpu"


def _vmap_by_member(one: Callable[..., Array], grouped: Callable[..., Array], loop: bool) -> Callable[..., Array]:
    """The map `one`; its `jax.vmap` is a loop of it over members, or else `jax.vmap(grouped)`, which computes the same."""

    @custom_vmap
    def member_wise(*args: Array) -> Array:
        return one(*args)

    @member_wise.def_vmap
    def rule(_: int, in_batched: list[bool], *args: Array) -> tuple[Array, bool]:
        axes = tuple(0 if batched else None for batched in in_batched)
        if not loop:
            return jax.vmap(grouped, axes)(*args), True
        batched = [a for a, axis in zip(args, axes, strict=True) if axis == 0]

        def of_member(member: list[Array]) -> Array:
            parts = iter(member)
            # member_wise itself: a second vmap around this one then loops as well.
            return member_wise(*[a if axis is None else next(parts) for a, axis in zip(args, axes, strict=True)])

        return lax.map(of_member, batched), True

    return member_wise


class _Parts(NamedTuple):
    """The three maps of a convolution of one geometry, each one plain convolution that vmaps as `_vmap_by_member` says."""

    forward: Callable[[Array, Array], Array]
    input_gradient: Callable[[Array, Array], Array]
    kernel_gradient: Callable[[Array, Array], Array]


@functools.cache
def _parts(size: Pair, kernel: Pair, strides: Pair, padding: Padding, how: str, cpu: bool) -> _Parts:
    """The maps for images of `size`; cached so that every trace meets the same functions."""
    lows = (padding[0][0], padding[1][0])

    def forward(x: Array, w: Array) -> Array:
        return lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=_NHWC)

    def forward_by_patches(x: Array, w: Array) -> Array:
        return _patches(x, kernel, strides, padding) @ w.reshape(-1, w.shape[-1])

    # Beside CPU, autodiff's own gradients: XLA knows them as those of a convolution.
    whole = forward_by_patches if how == "matmul" else forward

    def transposed_in_x(dy: Array, w: Array) -> Array:
        like = jax.ShapeDtypeStruct((dy.shape[0], *size, w.shape[2]), dy.dtype)
        return jax.linear_transpose(lambda x: whole(x, w), like)(dy)[0]

    def transposed_in_w(x: Array, dy: Array) -> Array:
        like = jax.ShapeDtypeStruct((*kernel, x.shape[-1], dy.shape[-1]), x.dtype)
        return jax.linear_transpose(lambda w: whole(x, w), like)(dy)[0]

    def input_gradient(dy: Array, w: Array) -> Array:
        if strides != (1, 1):
            return _by_phases(dy, w, size, strides, lows)
        # A convolution with the flipped kernel.
        before = [k - 1 - low for k, low in zip(kernel, lows, strict=True)]
        pads = [(b, n + k - 1 - out - b) for n, k, b, out in zip(size, kernel, before, dy.shape[1:3], strict=True)]
        return lax.conv_general_dilated(dy, w[::-1, ::-1].swapaxes(2, 3), (1, 1), pads, dimension_numbers=_NHWC)

    # The gradient with respect to the kernel is a convolution in which channels and examples change places.
    def kernel_gradient(x: Array, dy: Array) -> Array:
        pads = [
            (low, (out - 1) * s + k - n - low) for n, k, s, low, out in zip(size, kernel, strides, lows, dy.shape[1:3], strict=True)
        ]
        dw = lax.conv_general_dilated(
            x.transpose(3, 1, 2, 0), dy.transpose(1, 2, 0, 3), (1, 1), pads, rhs_dilation=strides, dimension_numbers=_NHWC
        )
        return dw.transpose(1, 2, 0, 3)

    loop = how == "looped" or (how == "auto" and cpu)
    forms = (forward, whole), (input_gradient, transposed_in_x), (kernel_gradient, transposed_in_w)
    return _Parts(*(_vmap_by_member(own if cpu else plain, plain, loop) for own, plain in forms))


def _patches(x: Array, kernel: Pair, strides: Pair, padding: Padding) -> Array:
    """What each place of a filter meets: (batch, height, width, rows * columns * inputs)."""
    rows, columns = ((n + sum(pad) - k) // s + 1 for n, pad, k, s in zip(x.shape[1:3], padding, kernel, strides, strict=True))
    # A negative padding takes away, which `jnp.pad` does not know.
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)))
    taps = [
        x[:, i : i + (rows - 1) * strides[0] + 1 : strides[0], j : j + (columns - 1) * strides[1] + 1 : strides[1]]
        for i in range(kernel[0])
        for j in range(kernel[1])
    ]
    return jnp.concatenate(taps, axis=-1)


def _by_phases(dy: Array, w: Array, size: Pair, strides: Pair, lows: Pair) -> Array:
    """The input gradient of a strided convolution, without multiplying by the zeros that dilating `dy` would put in.

    Pixel s q + r of the input meets every s-th tap of the kernel only, which ones depends on its phase r. So each phase is a small
    convolution of `dy`. All phases are the channels of one convolution, laid out side by side (sub-pixel convolution).
    """
    taps, pads = [], []
    for n, k, s, low, out in zip(size, w.shape[:2], strides, lows, dy.shape[1:3], strict=True):
        # Output q + j meets pixel s q + r by tap r + low - s j.
        first, last = -((k - 1 - low) // s), (s - 1 + low) // s
        tap = np.arange(s)[:, None] + low - s * np.arange(first, last + 1)
        taps.append(np.where((tap >= 0) & (tap < k), tap, k))  # k: a tap of zeros, put in below
        pads.append((-first, -(-n // s) - out + last))
    kernel = jnp.pad(w, ((0, 1), (0, 1), (0, 0), (0, 0)))[taps[0][:, None, :, None], taps[1][None, :, None, :]]
    kernel = kernel.transpose(2, 3, 5, 0, 1, 4)  # from (phases, taps, inputs, outputs), rows and columns of each
    kernel = kernel.reshape(*kernel.shape[:3], -1)
    dx = lax.conv_general_dilated(dy, kernel, (1, 1), pads, dimension_numbers=_NHWC)
    dx = dx.reshape(*dx.shape[:3], *strides, w.shape[2]).swapaxes(2, 3)
    dx = dx.reshape(len(dy), dx.shape[1] * strides[0], -1, w.shape[2])
    return dx[:, : size[0], : size[1]]


@functools.cache
def _conv(size: Pair, kernel: Pair, strides: Pair, padding: Padding, how: str, cpu: bool) -> Callable[[Array, Array], Array]:
    parts = _parts(size, kernel, strides, padding, how, cpu)
    apply = jax.custom_vjp(parts.forward)
    apply.defvjp(
        lambda x, w: (parts.forward(x, w), (x, w)),
        lambda saved, dy: (parts.input_gradient(dy, saved[1]), parts.kernel_gradient(saved[0], dy)),
    )
    return apply


@functools.cache
def _conv_transpose(
    size: Pair, kernel: Pair, strides: Pair, padding: Padding, how: str, cpu: bool
) -> Callable[[Array, Array], Array]:
    """The same three maps in other parts: each gradient of a transposed convolution is a map of its strided twin."""
    parts = _parts(size, kernel, strides, padding, how, cpu)
    apply = jax.custom_vjp(parts.input_gradient)
    apply.defvjp(
        lambda x, w: (parts.input_gradient(x, w), (x, w)),
        lambda saved, dy: (parts.forward(dy, saved[1]), parts.kernel_gradient(dy, saved[0])),
    )
    return apply


def conv(
    x: Float[Array, "batch height width inputs"],
    kernel: Float[Array, "rows columns kernel_inputs outputs"],
    padding: Padding = ((0, 0), (0, 0)),
    strides: Pair = (1, 1),
) -> Float[Array, "batch new_height new_width outputs"]:
    """A 2-D convolution whose `jax.vmap`, gradients included, costs on CPU what a loop over models costs.

    Differentiable once, in reverse mode.

    Args:
      x: Images, channels last.
      kernel: The filter; correlated, not flipped, as everywhere in deep learning.
      padding: Zeros added ((top, bottom), (left, right)); a negative number takes away.
      strides: Steps of the filter down and to the right.

    Returns:
      The filtered images.

    Raises:
      ValueError: If the filter does not fit into the padded image or the channels disagree.
    """
    size = x.shape[1:3]
    if x.shape[-1] != kernel.shape[2]:
        raise ValueError(f"conv: x has {x.shape[-1]} channels but the kernel takes {kernel.shape[2]}")
    for n, k, pad in zip(size, kernel.shape[:2], padding, strict=True):
        if n + sum(pad) < k:
            raise ValueError(f"conv: a kernel of size {k} does not fit into {n} pixels padded by {pad}")
    x, kernel = _promoted(x, kernel)
    if kernel.shape[:2] == size and not any(map(any, padding)):
        # Only one place for the filter: a matrix product, which vmaps as it is.
        return jnp.einsum("bhwi,hwio->bo", x, kernel)[:, None, None]
    return _conv(size, kernel.shape[:2], strides, padding, *_how())(x, kernel)


def conv_transpose(
    x: Float[Array, "batch height width inputs"],
    kernel: Float[Array, "rows columns outputs kernel_inputs"],
    size: Pair,
    padding: Padding = ((0, 0), (0, 0)),
    strides: Pair = (1, 1),
) -> Float[Array, "batch new_height new_width outputs"]:
    """Apply the transpose of `conv` from images of `size`.

    It takes the gradient of that convolution back to them, and vmaps as well. Differentiable once, in reverse mode.

    Args:
      x: Images of the form of that convolution's result, channels last.
      kernel: The filter of that convolution, so that `inputs`, the channels of `x`, are its last axis.
      size: (new_height, new_width) of the result, which `conv` would filter.
      padding: Padding of that convolution.
      strides: Strides of that convolution.

    Returns:
      Images of `size`.

    Raises:
      ValueError: If that convolution does not take `size` to the size of `x`, or the channels disagree.
    """
    if x.shape[-1] != kernel.shape[3]:
        raise ValueError(f"conv_transpose: x has {x.shape[-1]} channels but the kernel takes {kernel.shape[3]}")
    for n, k, s, pad, out in zip(size, kernel.shape[:2], strides, padding, x.shape[1:3], strict=True):
        if n + sum(pad) < k or (n + sum(pad) - k) // s + 1 != out:
            raise ValueError(
                f"conv_transpose: a kernel of size {k}, stride {s} and padding {pad} does not take {n} pixels to {out}"
            )
    x, kernel = _promoted(x, kernel)
    if kernel.shape[:2] == size and not any(map(any, padding)):
        return jnp.einsum("bi,hwoi->bhwo", x[:, 0, 0], kernel)
    return _conv_transpose(size, kernel.shape[:2], strides, padding, *_how())(x, kernel)


def _promoted(x: Array, kernel: Array) -> tuple[Array, Array]:
    """Both in one type, as a matrix product takes them."""
    dtype = jnp.promote_types(x.dtype, kernel.dtype)
    return x.astype(dtype), kernel.astype(dtype)


def same_padding(size: Pair, kernel: Pair, strides: Pair) -> Padding:
    """The padding with which a convolution of `size` has ceil(size / stride) pixels, what is odd of it at the end."""
    rows, columns = (max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(size, kernel, strides, strict=True))
    return (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)


def gate(h: Float[Array, "*batch two units"]) -> Float[Array, "*batch units"]:
    """Linear gating, h = (W1 x + b1) * sigmoid(W2 x + b2) (Dauphin et al. 2017), of the pair on the axis before last."""
    return h[..., 0, :] * nn.sigmoid(h[..., 1, :])


def in_dtype_of(x: Array, kernel: Array | np.ndarray) -> Array:
    """A kernel in the dtype of its layer's input, which is the dtype that the layer computes in.

    The parameter itself, and so its gradient, keeps its own dtype: bfloat16 examples make a layer compute in bfloat16.
    """
    # Integers are numbers to compute with, not a precision.
    return jnp.asarray(kernel, x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else kernel.dtype)


def biased(h: Float[Array, "*shape"], bias: Array | np.ndarray) -> Float[Array, "*shape"]:
    """The sum of a layer's result and its bias, in the dtype of the former.

    The addition has the precision of the bias, so that its gradient, a sum over all examples and pixels, does too; in bfloat16 that
    sum would be off by a tenth and more.
    """
    return (h.astype(jnp.promote_types(h.dtype, bias.dtype)) + bias).astype(h.dtype)


class GatedDense(nn.Module):
    """A dense layer with linear gating (Alemi et al. 2018, App. A).

    Both halves live in one kernel of shape (inputs, 2, units): one matrix product. A narrower layer is a leading corner of a wider
    one, as padding members of different widths into one program requires.
    """

    units: int

    @nn.compact
    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch units"]:
        """The gated units."""
        kernel = self.param("kernel", lecun_pair, (x.shape[-1], 2, self.units))
        bias = self.param("bias", nn.initializers.zeros, (2, self.units))
        kernel = in_dtype_of(x, kernel)
        # Not an einsum with the kernel as it is: that one's gradient comes out transposed.
        h = x @ kernel.reshape(len(kernel), -1)
        return gate(biased(h.reshape(*h.shape[:-1], 2, self.units), bias))


class GatedConv(nn.Module):
    """A convolution with linear gating; both halves in one kernel, see `GatedDense`.

    Attributes:
      units: Channels of the result.
      kernel: (rows, columns) of the filter.
      strides: Steps of the filter down and to the right.
      same: Whether the images keep their size (divided by the stride, rounded up); otherwise the filter stays inside them.
    """

    units: int
    kernel: Pair
    strides: Pair = (1, 1)
    same: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width inputs"]) -> Float[Array, "batch new_height new_width units"]:
        """The gated images."""
        kernel = self.param("kernel", lecun_pair, (*self.kernel, x.shape[-1], 2, self.units))
        bias = self.param("bias", nn.initializers.zeros, (2, self.units))
        kernel = in_dtype_of(x, kernel)
        height, width = x.shape[1:3]
        padding = same_padding((height, width), self.kernel, self.strides) if self.same else ((0, 0), (0, 0))
        h = conv(x, kernel.reshape(*kernel.shape[:3], -1), padding, self.strides)
        return gate(biased(h.reshape(*h.shape[:-1], 2, self.units), bias))


class GatedConvTranspose(nn.Module):
    """A transposed convolution with linear gating.

    It is the way back from the result of `GatedConv` on images of `size`.

    Attributes:
      units: Channels of the result.
      kernel: (rows, columns) of the filter.
      size: (height, width) of the result.
      strides: Steps of the filter down and to the right.
      same: Whether strides alone decide on the size, as in `GatedConv`; otherwise a filter of the result's size paints a pixel.

    Raises:
      ValueError: If `same` is False and there is more than one pixel or the filter is not of the size of the result.
    """

    units: int
    kernel: Pair
    size: Pair
    strides: Pair = (1, 1)
    same: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width inputs"]) -> Float[Array, "batch new_height new_width units"]:
        """The gated images."""
        if not self.same and (self.kernel != self.size or x.shape[1:3] != (1, 1)):
            raise ValueError(f"kernel={self.kernel} must be size={self.size} and the image (1, 1), not {x.shape[1:3]}, unless same")
        kernel = self.param("kernel", self._init, (*self.kernel, x.shape[-1], 2, self.units))
        bias = self.param("bias", nn.initializers.zeros, (2, self.units))
        kernel = in_dtype_of(x, kernel)
        padding = same_padding(self.size, self.kernel, self.strides) if self.same else ((0, 0), (0, 0))
        h = conv_transpose(x, kernel.reshape(*kernel.shape[:3], -1).swapaxes(2, 3), self.size, padding, self.strides)
        return gate(biased(h.reshape(*h.shape[:-1], 2, self.units), bias))

    def _init(self, key: Array, shape: tuple[int, ...]) -> Array:
        # How many taps a pixel of the result is the sum of: all of them, or one where each input paints a whole image.
        taps = (self.kernel[0] * self.kernel[1]) / (self.strides[0] * self.strides[1]) if self.same else 1
        return jax.random.normal(key, shape) / math.sqrt(taps * shape[2])


def lecun_pair(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """LeCun-normal kernels of shape (..., inputs, 2, units), each half drawn as if it stood alone."""
    fan_in = 1
    for n in shape[:-2]:
        fan_in *= n
    return jax.random.normal(key, shape, dtype) / jnp.sqrt(fan_in).astype(dtype)
