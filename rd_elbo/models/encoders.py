"""Encoders e(z|x)."""

import distrax
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from rd_elbo.models.dropout import Dropout
from rd_elbo.models.flows import AutoregressiveFlow
from rd_elbo.models.layers import Dense, GatedConv, GatedDense

# A standard deviation of exactly zero would make the rate infinite.
_SMALLEST_SCALE = 1e-5


class DenseEncoder(nn.Module):
    """Encoder `-`: gated dense layers to a diagonal Gaussian.

    Attributes:
      width: Units of each hidden layer.
      depth: Hidden layers.
      latent: Dimensions of z.
    """

    width: int
    depth: int
    latent: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch ..."]) -> distrax.MultivariateNormalDiag:
        """e(z|x)."""
        h = _scaled(x).reshape(len(x), -1)
        for i in range(self.depth):
            h = Dropout()(GatedDense(self.width, name=f"hidden_{i}")(h))
        mean = Dense(self.latent, name="mean")(h)
        scale = nn.softplus(Dense(self.latent, name="scale")(h)) + _SMALLEST_SCALE
        return distrax.MultivariateNormalDiag(mean, scale)


class ConvEncoder(nn.Module):
    """Encoder `-`: gated convolutions to a diagonal Gaussian.

    At the size of the image and at half of it there are `depth` layers of 5x5 filters, the last of
    stride 2. One filter as large as the rest (7x7 of 28x28 images) follows. Channels are `width`,
    2 `width` and 8 `width`. Alemi et al. 2018, App. A, have width 32 and depth 2.

    Attributes:
      width: Channels of the first layers.
      depth: Layers at each of the two sizes.
      latent: Dimensions of z.
    """

    width: int
    depth: int
    latent: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch ..."]) -> distrax.MultivariateNormalDiag:
        """e(z|x)."""
        h = _with_channels(_scaled(x))
        for level in range(2):
            for i in range(self.depth):
                strides = (2, 2) if i == self.depth - 1 else (1, 1)
                name = f"conv_{level}_{i}"
                h = GatedConv(self.width * 2**level, (5, 5), strides, name=name)(h)
                h = Dropout()(h)
        return _gaussian_of_image(h, 8 * self.width, self.latent)


class ResNetEncoder(nn.Module):
    """Encoder `-`: a small residual network to a diagonal Gaussian.

    - A gated 5x5 filter comes first.
    - At the size of the image, a half and a quarter of it there are `depth` residual layers. Each
      is a gated 3x3 convolution added to its input.
    - Gated 4x4 filters of stride 2 halve the size.
    - One gated filter as large as the rest comes at last.

    Channels are `width`, 2 `width` and 4 `width`, and 8 `width` of the last filter.

    Attributes:
      width: Channels at the size of the image.
      depth: Residual layers at each of the three sizes.
      latent: Dimensions of z.
    """

    width: int
    depth: int
    latent: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch ..."]) -> distrax.MultivariateNormalDiag:
        """e(z|x)."""
        h = GatedConv(self.width, (5, 5), name="enter")(_with_channels(_scaled(x)))
        for level in range(3):
            channels = self.width * 2**level
            if level:
                h = GatedConv(channels, (4, 4), (2, 2), name=f"shrink_{level}")(h)
            for i in range(self.depth):
                h = h + Dropout()(GatedConv(channels, (3, 3), name=f"residual_{level}_{i}")(h))
        return _gaussian_of_image(h, 8 * self.width, self.latent)


def _gaussian_of_image(
    h: Float[Array, "batch height width channels"], units: int, latent: int
) -> distrax.MultivariateNormalDiag:
    """A Gaussian from features, through one gated filter as large as they are.

    To be called inside a compact module.
    """
    h = GatedConv(units, h.shape[1:3], same=False, name="whole")(h)
    h = Dropout()(h.reshape(len(h), -1))
    # Alemi et al. 2018, App. A, has the variance, and not the standard deviation, as the softplus.
    variance = nn.softplus(Dense(latent, name="variance")(h)) + _SMALLEST_SCALE**2
    return distrax.MultivariateNormalDiag(Dense(latent, name="mean")(h), jnp.sqrt(variance))


class FlowEncoder(nn.Module):
    """Encoder `+`: the Gaussian of another encoder, moved by a flow.

    Alemi et al. 2018, App. A, have an inverse autoregressive flow.

    Attributes:
      base: Encoder that gives the Gaussian.
      flow: Flow of the draws, the same for every x.
    """

    base: nn.Module
    flow: AutoregressiveFlow

    @nn.compact
    def __call__(self, x: Float[Array, "batch ..."]) -> distrax.Transformed:
        """e(z|x)."""
        return distrax.Transformed(self.base(x), self.flow())


def _with_channels(x: Array) -> Array:
    return x[..., None] if x.ndim == 3 else x


def _scaled(x: Array) -> Array:
    # Alemi et al. 2018, App. A: input scaled to [-1, 1].
    return 2 * x - 1
