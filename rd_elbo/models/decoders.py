"""Factorised decoders d(x|z); the autoregressive one is in `pixelcnn`."""

import distrax
import flax.linen as nn
from jaxtyping import Array, Float

from rd_elbo.models.layers import GatedDense


class MLPDecoder(nn.Module):
    """Decoder `-`: gated dense layers to one independent Bernoulli per pixel.

    Attributes:
      width: Units of each hidden layer.
      depth: Hidden layers.
      image_shape: (height, width) of the images.
    """

    width: int
    depth: int
    image_shape: tuple[int, int]

    @nn.compact
    def __call__(self, z: Float[Array, "*batch latent"]) -> distrax.Independent:
        """d(x|z)."""
        h = z
        for i in range(self.depth):
            h = GatedDense(self.width, name=f"hidden_{i}")(h)
        logits = nn.Dense(self.image_shape[0] * self.image_shape[1], name="logits")(h)
        return distrax.Independent(distrax.Bernoulli(logits.reshape(*z.shape[:-1], *self.image_shape)), 2)
