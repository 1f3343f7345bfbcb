"""The three maps of a convolution, in the forms that XLA runs fastest on CPU.

- Each map is one plain NHWC/HWIO/NHWC convolution. Inside loops, autodiff's gradients have
  dimension orders that miss XLA's fast path.
- **Columns become channels where there are few channels.** Neighbouring columns of the images are
  read as channels, by a reshape, and the kernel is laid out once for each of them. That multiplies
  by a few zeros, and fills the vector registers.
- **The gradient of a kernel is summed over tiles of the batch** that fit a core's cache.

results/benchmarks/README.md has the gain of each.
"""

import functools
import math

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from rd_elbo.models.geometry import Geometry, Padding

# Bytes of images and cotangents in a tile: a core's cache where this was measured.
_TILE = 2**21
# Channels that fill a vector register, and so many that more of them gain nothing.
_FILLED, _ENOUGH = 16, 32

convolve = functools.partial(lax.conv_general_dilated, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def forward(geometry: Geometry, x: Array, w: Array) -> Array:
    """Convolve images with a kernel.

    Args:
      geometry: The convolution's geometry.
      x: (batch, *geometry.size, inputs) images.
      w: (*geometry.kernel, inputs, outputs) kernel.

    Returns:
      (batch, *geometry.result, outputs) images.
    """
    columns = _columns(geometry, *w.shape[2:])
    if columns == 1:
        return convolve(x, w, geometry.strides, geometry.padding)
    places, padding = _places(geometry, columns)
    wide = jnp.einsum("bpqk,rkio->rbpiqo", places.astype(w.dtype), w)
    wide = wide.reshape(len(w), len(places), columns * w.shape[2], -1)
    blocks = x.reshape(*x.shape[:2], -1, columns * x.shape[3])
    return convolve(blocks, wide, (1, 1), padding).reshape(len(x), *geometry.result, w.shape[3])


def input_gradient(geometry: Geometry, dy: Array, w: Array) -> Array:
    """Take the cotangent of a convolution's result to that of its images.

    Args:
      geometry: The convolution's geometry.
      dy: (batch, *geometry.result, outputs) cotangent of the result.
      w: (*geometry.kernel, inputs, outputs) kernel.

    Returns:
      (batch, *geometry.size, inputs) cotangent of the images.
    """
    gradient = _by_flipped_kernel if geometry.strides == (1, 1) else _by_phases
    return gradient(geometry, dy, w)


def kernel_gradient(geometry: Geometry, x: Array, dy: Array) -> Array:
    """Take images and the cotangent of a convolution's result to the cotangent of the kernel.

    Args:
      geometry: The convolution's geometry.
      x: (batch, *geometry.size, inputs) images.
      dy: (batch, *geometry.result, outputs) cotangent of the result.

    Returns:
      (*geometry.kernel, inputs, outputs) cotangent of the kernel.
    """
    swaps = geometry.strides == (1, 1) and dy.shape[3] < x.shape[3]
    gradient = functools.partial(_by_exchange_of_both if swaps else _by_exchange, geometry)
    example = x.dtype.itemsize * sum(math.prod(array.shape[1:]) for array in (x, dy))
    most = max(1, min(len(x), _TILE // max(1, example)))
    # An odd number of examples, which are channels here, takes up to four times as long.
    tile = max((n for n in range(1, most + 1) if len(x) % n == 0), key=lambda n: (n % 2 == 0, n))
    if len(x) <= most:
        return gradient(x, dy)

    def add(total: Array, images: tuple[Array, Array]) -> tuple[Array, None]:
        return total + gradient(*images), None

    zero = jnp.zeros((*geometry.kernel, x.shape[3], dy.shape[3]), x.dtype)
    tiles = [array.reshape(-1, tile, *array.shape[1:]) for array in (x, dy)]
    return lax.scan(add, zero, (tiles[0], tiles[1]))[0]


def _columns(geometry: Geometry, inputs: int, outputs: int) -> int:
    """The number of columns that become channels."""
    columns = 1
    while (
        geometry.strides == (1, 1)
        and columns * min(inputs, outputs) < _FILLED
        and columns * outputs < _ENOUGH
        and geometry.size[1] % (2 * columns) == 0
        and geometry.result[1] % (2 * columns) == 0
    ):
        columns *= 2
    return columns


def _places(geometry: Geometry, columns: int) -> tuple[np.ndarray, Padding]:
    """Where the taps of a row of the filter lie in blocks of columns.

    Returns:
      (blocks, columns, columns, taps) of 0 and 1: whether column p of a block is under tap k of the
      filter whose result is column q of the block in the middle; and the padding in blocks.
    """
    low, taps = geometry.padding[1][0], np.arange(geometry.kernel[1])
    # Column q of the result meets columns q - low + taps of the images.
    first, last = -low // columns, (columns - 1 - low + taps[-1]) // columns
    block = np.arange(first, last + 1)[:, None, None, None]
    p, q = np.arange(columns)[:, None, None], np.arange(columns)[:, None]
    places = columns * block + p == q - low + taps
    after = geometry.result[1] // columns + last - geometry.size[1] // columns
    return places, (geometry.padding[0], (-first, after))


def _by_flipped_kernel(geometry: Geometry, dy: Array, w: Array) -> Array:
    """The input gradient of a convolution of stride 1, itself a convolution."""
    flipped = Geometry(geometry.result, geometry.kernel, padding=_flipped_padding(geometry))
    return forward(flipped, dy, w[::-1, ::-1].swapaxes(2, 3))


def _flipped_padding(geometry: Geometry) -> Padding:
    """Padding of the result with which the flipped kernel gives images of the first size."""
    pads = []
    for n, k, _, (low, _), out in zip(*geometry, geometry.result, strict=True):
        before = k - 1 - low
        pads.append((before, n + k - 1 - out - before))
    return pads[0], pads[1]


def _by_phases(geometry: Geometry, dy: Array, w: Array) -> Array:
    """The input gradient of a strided convolution, without a dilated `dy`.

    Pixel s q + r of the input meets every s-th tap of the kernel only, and its phase r says which.
    So each phase is a small convolution of `dy`. All phases are the channels of one convolution,
    laid out side by side (sub-pixel convolution).
    """
    taps, pads = [], []
    for n, k, s, (low, _), out in zip(*geometry, geometry.result, strict=True):
        # Output q + j meets pixel s q + r by tap r + low - s j.
        first, last = -((k - 1 - low) // s), (s - 1 + low) // s
        tap = np.arange(s)[:, None] + low - s * np.arange(first, last + 1)
        taps.append(np.where((tap >= 0) & (tap < k), tap, k))  # k: a tap of zeros, put in below
        pads.append((-first, -(-n // s) - out + last))
    (height, width), strides, inputs = geometry.size, geometry.strides, w.shape[2]
    kernel = jnp.pad(w, ((0, 1), (0, 1), (0, 0), (0, 0)))
    kernel = kernel[taps[0][:, None, :, None], taps[1][None, :, None, :]]
    # From (phases, taps, inputs, outputs), rows and columns of each.
    kernel = kernel.transpose(2, 3, 5, 0, 1, 4)
    kernel = kernel.reshape(*kernel.shape[:3], -1)
    dx = convolve(dy, kernel, (1, 1), pads)
    dx = dx.reshape(*dx.shape[:3], *strides, inputs).swapaxes(2, 3)
    dx = dx.reshape(len(dy), dx.shape[1] * strides[0], -1, inputs)
    return dx[:, :height, :width]


def _by_exchange(geometry: Geometry, x: Array, dy: Array) -> Array:
    """The kernel gradient as a convolution in which channels and examples change places."""
    pads = [
        (low, (out - 1) * s + k - n - low)
        for n, k, s, (low, _), out in zip(*geometry, geometry.result, strict=True)
    ]
    examples_last, dy = x.transpose(3, 1, 2, 0), dy.transpose(1, 2, 0, 3)
    dw = convolve(examples_last, dy, (1, 1), pads, rhs_dilation=geometry.strides)
    return dw.transpose(1, 2, 0, 3)


def _by_exchange_of_both(geometry: Geometry, x: Array, dy: Array) -> Array:
    """The same for stride 1, where `x` filters `dy` and the kernel comes out flipped.

    A convolution is up to three times as fast when its filter has more channels than its images.
    """
    examples_last, x = dy.transpose(3, 1, 2, 0), x.transpose(1, 2, 0, 3)
    dw = convolve(examples_last, x, (1, 1), _flipped_padding(geometry))
    return dw[:, ::-1, ::-1].transpose(1, 2, 3, 0)
