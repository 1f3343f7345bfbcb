"""Gated layers, which zero padding leaves alone and whose convolutions vmap well.

See `vmap_conv` for the convolutions. A layer computes in the dtype of its input.
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rd_elbo.models.geometry import UNPADDED, Padding, Pair, same_padding
from rd_elbo.models.vmap_conv import conv, conv_transpose

# Parameters that are read from a file are NumPy's.
Parameter = Array | np.ndarray


def gate(h: Float[Array, "*batch two units"]) -> Float[Array, "*batch units"]:
    """Apply linear gating to a pair of halves on the axis before last.

    It is (W1 x + b1) * sigmoid(W2 x + b2) of the halves W1 x + b1 and W2 x + b2 (Dauphin et al.
    2017).
    """
    return h[..., 0, :] * nn.sigmoid(h[..., 1, :])


def in_dtype_of(x: Array, kernel: Parameter) -> Array:
    """Cast a kernel to the dtype of its layer's input, in which the layer computes.

    The parameter itself, and so its gradient, keeps its own dtype. Examples in bfloat16 make a
    layer compute in bfloat16.
    """
    # Integers are numbers to compute with, not a precision.
    return jnp.asarray(kernel, x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else kernel.dtype)


def biased(h: Float[Array, "*shape"], bias: Parameter) -> Float[Array, "*shape"]:
    """Add a bias to a layer's result `h`, and keep the dtype of `h`.

    The addition has the precision of the bias, and so has its gradient, a sum over all examples and
    pixels. In bfloat16 that sum would be off by a tenth and more.
    """
    return (h.astype(jnp.promote_types(h.dtype, bias.dtype)) + bias).astype(h.dtype)


def pointwise(
    x: Float[Array, "*batch inputs"],
    kernel: Float[Parameter, "kernel_inputs halves units"],
) -> Float[Array, "*batch halves units"]:
    """Map each pixel or example linearly to its halves, in the dtype of `x`."""
    # Not an einsum with the kernel as it is: that one's gradient comes out transposed.
    h = product(x, jnp.reshape(kernel, (len(kernel), -1)))
    return h.reshape(*h.shape[:-1], *kernel.shape[1:])


@jax.custom_vjp
def product(
    x: Float[Array, "*batch inputs"], matrix: Float[Parameter, "inputs outputs"]
) -> Float[Array, "*batch outputs"]:
    """Multiply in the dtype of `x`, with a gradient of the matrix that is summed in its own.

    Autodiff's gradient of the matrix is a transposed product. Where a program has a single member,
    XLA on CPU then puts it in order by a copy. Differentiable in reverse mode alone.
    """
    return x @ in_dtype_of(x, matrix)


def _product_forward(x: Array, matrix: Array) -> tuple[Array, tuple[Array, Array]]:
    return product(x, matrix), (x, matrix)


def _product_backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, matrix = saved
    examples = tuple(range(x.ndim - 1))
    # A sum over 10^4 examples or pixels in bfloat16 stops growing, as a bias's does.
    by_matrix = jax.lax.dot_general(
        x,
        g,
        ((examples, examples), ((), ())),
        preferred_element_type=jnp.promote_types(g.dtype, matrix.dtype),
    )
    return g @ in_dtype_of(x, matrix).T, by_matrix.astype(matrix.dtype)


product.defvjp(_product_forward, _product_backward)


def _dot_general(x: Array, kernel: Array, *_: Any, **__: Any) -> Array:
    return product(x, kernel)


# flax's layer, whose gradient is that of `product`.
Dense = functools.partial(nn.Dense, dot_general=_dot_general)


def conv_to_halves(
    x: Float[Array, "batch height width inputs"],
    kernel: Float[Parameter, "rows columns kernel_inputs halves units"],
    bias: Float[Parameter, "halves units"],
    padding: Padding = UNPADDED,
    strides: Pair = (1, 1),
) -> Float[Array, "batch new_height new_width halves units"]:
    """Filter images to halves with a bias, by one `conv` in the dtype of `x`."""
    filters = in_dtype_of(x, kernel).reshape(*kernel.shape[:3], -1)
    h = conv(x, filters, padding, strides)
    return biased(h.reshape(*h.shape[:-1], *bias.shape), bias)


def lecun_pair(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """Draw a LeCun-normal kernel whose halves are each drawn as if they stood alone.

    Args:
      key: Key of the draw.
      shape: Shape (..., inputs, halves, units) of the kernel.
      dtype: Data type of the kernel.
    """
    return jax.random.normal(key, shape, dtype) / jnp.sqrt(math.prod(shape[:-2])).astype(dtype)


class GatedDense(nn.Module):
    """A dense layer with linear gating (Alemi et al. 2018, App. A).

    Both halves live in one kernel (inputs, 2, units): one matrix product. A narrower layer is a
    leading corner of a wider one, as padding members of different widths into one program requires.

    Attributes:
      units: Units of the result.
    """

    units: int

    @nn.compact
    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch units"]:
        """The gated units."""
        kernel = self.param("kernel", lecun_pair, (x.shape[-1], 2, self.units))
        bias = self.param("bias", nn.initializers.zeros, (2, self.units))
        return gate(biased(pointwise(x, kernel), bias))


class GatedConv(nn.Module):
    """A convolution with linear gating; both halves in one kernel, see `GatedDense`.

    Attributes:
      units: Channels of the result.
      kernel: (rows, columns) of the filter.
      strides: Steps of the filter down and to the right, pixels.
      same: Whether images keep their size, divided by the stride and rounded up; otherwise the
        filter stays inside them.
    """

    units: int
    kernel: Pair
    strides: Pair = (1, 1)
    same: bool = True

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width inputs"]
    ) -> Float[Array, "batch new_height new_width units"]:
        """The gated images."""
        kernel = self.param("kernel", lecun_pair, (*self.kernel, x.shape[-1], 2, self.units))
        bias = self.param("bias", nn.initializers.zeros, (2, self.units))
        height, width = x.shape[1:3]
        padding = UNPADDED
        if self.same:
            padding = same_padding((height, width), self.kernel, self.strides)
        return gate(conv_to_halves(x, kernel, bias, padding, self.strides))


class GatedConvTranspose(nn.Module):
    """A transposed convolution with linear gating.

    It leads back from the result of a `GatedConv` on images of `size`.

    Attributes:
      units: Channels of the result.
      kernel: (rows, columns) of the filter.
      size: (height, width) of the result, pixels.
      strides: Steps of the filter down and to the right, pixels.
      same: Whether strides alone decide on the size, as in `GatedConv`; otherwise a filter of the
        result's size paints a single pixel.

    Raises:
      ValueError: If `same` is False and there is more than one pixel, or the filter is not of the
        size of the result.
    """

    units: int
    kernel: Pair
    size: Pair
    strides: Pair = (1, 1)
    same: bool = True

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width inputs"]
    ) -> Float[Array, "batch new_height new_width units"]:
        """The gated images."""
        if not self.same and (self.kernel != self.size or x.shape[1:3] != (1, 1)):
            raise ValueError(
                f"kernel={self.kernel}: expected size={self.size} and images of (1, 1) pixel where "
                f"same=False, got images of {x.shape[1:3]}. Give same=True."
            )
        kernel = self.param("kernel", self._init, (*self.kernel, x.shape[-1], 2, self.units))
        bias = self.param("bias", nn.initializers.zeros, (2, self.units))
        filters = in_dtype_of(x, kernel).reshape(*kernel.shape[:3], -1).swapaxes(2, 3)
        padding = same_padding(self.size, self.kernel, self.strides) if self.same else UNPADDED
        h = conv_transpose(x, filters, self.size, padding, self.strides)
        return gate(biased(h.reshape(*h.shape[:-1], *bias.shape), bias))

    def _init(self, key: Array, shape: tuple[int, ...]) -> Array:
        # A pixel of the result is a sum of so many taps; of one where an input paints all pixels.
        taps = math.prod(self.kernel) / math.prod(self.strides) if self.same else 1
        return jax.random.normal(key, shape) / math.sqrt(taps * shape[2])
