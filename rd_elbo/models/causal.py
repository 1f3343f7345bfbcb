"""The distribution that autoregressive decoders share, whatever their networks."""

import abc
from typing import Any

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rd_elbo.models.likelihoods import LIKELIHOODS, of_outputs, size_of_outputs, with_outputs


class CausalImage(distrax.Distribution, metaclass=abc.ABCMeta):
    """p(x|z) = prod_i p(x_i | x_<i, z) over images of one channel, in raster order.

    Attributes:
      params: Parameters of the network that computes the outputs, arrays.
      planes: (*batch, height, width, planes) feature planes of z, the condition.
      likelihood: Distribution of a pixel, "bernoulli" or "discretised_logistic".
    """

    def __init__(
        self,
        params: Any,
        planes: Float[Array, "*batch height width planes"],
        likelihood: str = "bernoulli",
    ):
        self.params, self.planes, self.likelihood = params, planes, likelihood

    @property
    def event_shape(self) -> tuple[int, ...]:
        """(height, width)."""
        return self.planes.shape[-3:-1]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the batch of conditions."""
        return self.planes.shape[:-3]

    def outputs(self, x: Float[Array, "*shape height width"]) -> Float[Array, "..."]:
        """Compute outputs for each pixel given those before it, in one parallel pass.

        The batch shapes of `x` and of the condition are broadcast.

        Args:
          x: (*batch, height, width) images.

        Returns:
          (*batch, height, width) logits, or (*batch, height, width, 2) means and log scales.
        """
        batch = jnp.broadcast_shapes(x.shape[:-2], self.batch_shape)
        planes = self._flat_planes(batch)
        images = jnp.broadcast_to(x, batch + self.event_shape).reshape(-1, *self.event_shape, 1)
        outputs = self._outputs(self._read(images, planes), planes)
        return outputs.reshape(batch + with_outputs(self.event_shape, self.likelihood))

    def log_prob(self, value: Float[Array, "*shape height width"]) -> Float[Array, "*broadcast"]:
        """Log p(x|z) of images, nats, summed over pixels; one parallel pass."""
        pixels = of_outputs(self.likelihood, self.outputs(value))
        return distrax.Independent(pixels, 2).log_prob(value)

    def _sample_n(self, key: Array, n: int) -> Array:
        planes = self._flat_planes((n, *self.batch_shape))
        rows, columns = self.event_shape
        # One uniform per pixel, in raster order.
        dtype = jnp.promote_types(planes.dtype, jnp.float32)
        noise = jax.random.uniform(key, (rows * columns, len(planes)), dtype)
        return self._draw(planes, noise).reshape(n, *self.batch_shape, rows, columns)

    def _flat_planes(self, batch: tuple[int, ...]) -> Array:
        """The planes broadcast to a batch, whose axes are one."""
        shape = self.planes.shape[-3:]
        return jnp.broadcast_to(self.planes, batch + shape).reshape(-1, *shape)

    def _read(self, values: Array, planes: Array) -> Array:
        """Scale pixels to [0, 1] in the condition's dtype, as the network reads them."""
        scale = LIKELIHOODS[self.likelihood].scale
        return values.astype(planes.dtype) if scale == 1 else values.astype(planes.dtype) / scale

    def _pixel(self, outputs: Array, uniform: Array) -> Array:
        """Draw a pixel by a uniform number.

        It is 1 where its probability is above the number, or the level that the number reaches.
        """
        if self.likelihood == "bernoulli":
            return uniform < jax.nn.sigmoid(outputs)
        return of_outputs(self.likelihood, outputs).quantile(uniform)

    @abc.abstractmethod
    def _outputs(self, images: Array, planes: Array) -> Array:
        """Compute outputs for images under conditions.

        Args:
          images: (batch, height, width, 1) images, as `_read` gives them.
          planes: (batch, height, width, planes) conditions.
        """

    @abc.abstractmethod
    def _draw(self, planes: Array, noise: Array) -> Array:
        """Draw images (batch, height, width) with uniforms (height * width, batch)."""


def readout_kernel(key: Array, inputs: int, likelihood: str) -> Array:
    """Draw a kernel of a 1x1 convolution to the outputs of a pixel.

    Args:
      key: Key of the draw.
      inputs: Channels that it reads.
      likelihood: Distribution of a pixel, a key of `LIKELIHOODS`.

    Returns:
      (inputs,), or (inputs, outputs) where a pixel has several.
    """
    kernel = nn.initializers.lecun_normal()(key, (inputs, size_of_outputs((), likelihood)))
    return kernel.reshape(inputs, *with_outputs((), likelihood))
