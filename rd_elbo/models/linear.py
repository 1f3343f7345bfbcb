"""The linear VAE: a model of vectors whose best rate and distortion `exact.gaussian` knows."""

import distrax
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from rd_elbo.errors import number, whole
from rd_elbo.models.priors import StandardNormal
from rd_elbo.models.vae import VAE


class LinearEncoder(nn.Module):
    """e(z|x) = N(V x + a, diag(s^2)), with s the same for every x."""

    latent: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch n"]) -> distrax.DistributionLike:
        """The distribution over z for each x."""
        mean = nn.Dense(self.latent, name="mean")(x)
        log_scale = self.param("log_scale", nn.initializers.zeros, (self.latent,))
        return distrax.MultivariateNormalDiag(
            mean, jnp.broadcast_to(jnp.exp(log_scale), mean.shape)
        )


class LinearDecoder(nn.Module):
    """d(x|z) = N(W z + b, noise^2 I); with `noise` None it is learned, as in probabilistic PCA."""

    dimensions: int
    noise: float | None

    @nn.compact
    def __call__(self, z: Float[Array, "batch latent"]) -> distrax.DistributionLike:
        """The distribution over x for each z."""
        mean = nn.Dense(self.dimensions, name="mean")(z)
        if self.noise is None:
            scale = jnp.exp(self.param("log_noise", nn.initializers.zeros, ()))
        else:
            scale = jnp.asarray(self.noise, z.dtype)
        return distrax.MultivariateNormalDiag(mean, jnp.broadcast_to(scale, mean.shape))


def linear_vae(dimensions: int, latent: int, noise: float | None = 1.0) -> VAE:
    """Build the linear VAE, a model like any other.

    Args:
      dimensions: Dimensions of x.
      latent: Dimensions of z.
      noise: Standard deviation of the decoder, or None to learn it. With a learned one every point
        of slope 1 is as good as any other at beta = 1 where the model has latents enough, and none
        is best below it: the noise falls without end.

    Raises:
      BadInput: If a size is below 1 or noise is not above 0.
    """
    fixed = None if noise is None else number("noise", noise, above=True)
    dimensions, latent = whole("dimensions", dimensions), whole("latent", latent)
    return VAE(LinearEncoder(latent), LinearDecoder(dimensions, fixed), StandardNormal(latent))
