"""A decoder that is not the library's: the spatial broadcast decoder (Watters et al. 2019).

A sweep takes it by "experiments.own_decoder:BroadcastDecoder", see configs/own_decoder.py.
"""

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp

from rd_elbo.models.bernoulli import Bernoulli
from rd_elbo.models.layers import GatedConv


class BroadcastDecoder(nn.Module):
    """Draw every pixel from z and its place: z is the same at all pixels, and convolutions follow.

    Attributes:
      decoder_width: Channels; filled in from the member, as every field that a member has.
      image_shape: (height, width) of the images; filled in from the data.
      kernel: Rows and columns of the filters; no field of a member, so it stays as it is.
    """

    decoder_width: int
    image_shape: tuple[int, int]
    kernel: int = 3

    # Each pixel is independent of the others given z: a weak decoder in the paper's sense.
    sign = "-"
    # Gated convolutions of zeros stay zeros: members of several widths may share a program.
    pads = True

    @nn.compact
    def __call__(self, z: jax.Array) -> distrax.DistributionLike:
        """d(x|z) of z (batch, latent)."""
        axes = (jnp.linspace(-1, 1, n, dtype=z.dtype) for n in self.image_shape)
        places = jnp.stack(jnp.meshgrid(*axes, indexing="ij"), -1)
        shape = (len(z), *self.image_shape)
        codes = jnp.broadcast_to(z[:, None, None], (*shape, z.shape[-1]))
        h = jnp.concatenate([codes, jnp.broadcast_to(places, (*shape, 2))], -1)
        for _ in range(2):
            h = GatedConv(self.decoder_width, (self.kernel, self.kernel))(h)
        return distrax.Independent(Bernoulli(nn.Dense(1)(h)[..., 0]), 2)
