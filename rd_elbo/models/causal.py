"""What autoregressive decoders of binary images have in common, however their networks look."""

import abc
from typing import Any

import distrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rd_elbo.models.bernoulli import Bernoulli


class CausalBernoulli(distrax.Distribution, metaclass=abc.ABCMeta):
    """p(x|z) = prod_i Bernoulli(x_i | x_<i, z) over binary images, in raster order.

    Holds arrays only, so it may leave the module that made it.

    Attributes:
      params: Parameters of the network that finds the logits.
      planes: (*batch, height, width, planes) feature planes, the condition.
    """

    def __init__(self, params: Any, planes: Float[Array, "*batch height width planes"]):
        self.params, self.planes = params, planes

    @property
    def event_shape(self) -> tuple[int, ...]:
        """(height, width)."""
        return self.planes.shape[-3:-1]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The shape of the batch of conditions."""
        return self.planes.shape[:-3]

    def logits(self, x: Float[Array, "*shape height width"]) -> Float[Array, "*broadcast height width"]:
        """The logit of each pixel of `x` given the pixels before it, all in one parallel pass.

        The batch shapes of `x` and of the condition are broadcast.
        """
        batch = jnp.broadcast_shapes(x.shape[:-2], self.batch_shape)
        planes = jnp.broadcast_to(self.planes, batch + self.planes.shape[-3:]).reshape(-1, *self.planes.shape[-3:])
        images = jnp.broadcast_to(x, batch + self.event_shape).reshape(-1, *self.event_shape, 1).astype(self.planes.dtype)
        return self._logits(images, planes).reshape(batch + self.event_shape)

    def log_prob(self, value: Float[Array, "*shape height width"]) -> Float[Array, "*broadcast"]:
        """Log p(x|z) in nats, summed over pixels; one parallel pass."""
        return distrax.Independent(Bernoulli(self.logits(value)), 2).log_prob(value)

    def _sample_n(self, key: Array, n: int) -> Array:
        planes = jnp.broadcast_to(self.planes, (n, *self.planes.shape)).reshape(-1, *self.planes.shape[-3:])
        rows, columns = self.event_shape
        # One uniform per pixel, in raster order: a pixel is 1 where its probability is above it.
        dtype = jnp.promote_types(planes.dtype, jnp.float32)
        noise = jax.random.uniform(key, (rows * columns, len(planes)), dtype)
        return self._draw(planes, noise).reshape(n, *self.batch_shape, rows, columns)

    @abc.abstractmethod
    def _logits(self, images: Array, planes: Array) -> Array:
        """(batch, height, width) logits of (batch, height, width, 1) images under (batch, height, width, planes) conditions."""

    @abc.abstractmethod
    def _draw(self, planes: Array, noise: Array) -> Array:
        """(batch, height, width) images drawn with (height * width, batch) uniforms."""
