"""Encoders e(z|x)."""

import distrax
import flax.linen as nn
from jaxtyping import Array, Float

from rd_elbo.models.layers import GatedDense

# A standard deviation of exactly zero would make the rate infinite.
_SMALLEST_SCALE = 1e-5


class DenseEncoder(nn.Module):
    """Encoder `-`: gated dense layers to a Gaussian with diagonal covariance.

    Attributes:
      width: Units of each hidden layer.
      depth: Hidden layers.
      latent: Dimensions of z.
    """

    width: int
    depth: int
    latent: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width"]) -> distrax.MultivariateNormalDiag:
        """e(z|x)."""
        # Alemi et al. 2018, App. A: input scaled to [-1, 1].
        h = 2 * x.reshape(len(x), -1) - 1
        for i in range(self.depth):
            h = GatedDense(self.width, name=f"hidden_{i}")(h)
        mean = nn.Dense(self.latent, name="mean")(h)
        scale = nn.softplus(nn.Dense(self.latent, name="scale")(h)) + _SMALLEST_SCALE
        return distrax.MultivariateNormalDiag(mean, scale)
