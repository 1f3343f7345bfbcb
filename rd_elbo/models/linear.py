"""The linear VAE, whose best rate and distortion `exact.gaussian` computes."""

import distrax
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from rd_elbo.errors import number, whole
from rd_elbo.models.priors import StandardNormal
from rd_elbo.models.vae import VAE


class LinearEncoder(nn.Module):
    """e(z|x) = N(V x + a, diag(s^2)), with s the same for every x.

    Attributes:
      latent: Dimensions of z.
    """

    latent: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch n"]) -> distrax.DistributionLike:
        """e(z|x)."""
        mean = nn.Dense(self.latent, name="mean")(x)
        scale = jnp.exp(self.param("log_scale", nn.initializers.zeros, (self.latent,)))
        return distrax.MultivariateNormalDiag(mean, jnp.broadcast_to(scale, mean.shape))


class LinearDecoder(nn.Module):
    """d(x|z) = N(W z + b, noise^2 I).

    Attributes:
      dimensions: Dimensions of x.
      noise: Standard deviation; None means a learned one, as in probabilistic PCA.
    """

    dimensions: int
    noise: float | None

    @nn.compact
    def __call__(self, z: Float[Array, "batch latent"]) -> distrax.DistributionLike:
        """d(x|z)."""
        mean = nn.Dense(self.dimensions, name="mean")(z)
        if self.noise is None:
            scale = jnp.exp(self.param("log_noise", nn.initializers.zeros, ()))
        else:
            scale = jnp.asarray(self.noise, z.dtype)
        return distrax.MultivariateNormalDiag(mean, jnp.broadcast_to(scale, mean.shape))


def linear_vae(dimensions: int, latent: int, noise: float | None = 1.0) -> VAE:
    """Build the linear VAE, a model like any other.

    With learned noise and latents enough, every point of slope 1 is as good as any other at
    beta = 1. Below it none is best: the noise falls without end.

    Args:
      dimensions: Dimensions of x.
      latent: Dimensions of z.
      noise: Standard deviation of the decoder, in units of x; None means a learned one.

    Raises:
      BadInput: If a size is below 1 or noise is not above 0.
    """
    fixed = None if noise is None else number("noise", noise, above=True)
    dimensions, latent = whole("dimensions", dimensions), whole("latent", latent)
    return VAE(LinearEncoder(latent), LinearDecoder(dimensions, fixed), StandardNormal(latent))
