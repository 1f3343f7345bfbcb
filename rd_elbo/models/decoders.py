"""Factorised decoders d(x|z).

The autoregressive ones are in `pixelcnn` and `pixelcnnpp`.
"""

import distrax
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from rd_elbo.models.dropout import Dropout
from rd_elbo.models.geometry import Pair, same_padding
from rd_elbo.models.layers import Dense, GatedConv, GatedConvTranspose, GatedDense, in_dtype_of
from rd_elbo.models.likelihoods import factorised, size_of_outputs, with_outputs
from rd_elbo.models.vmap_conv import conv


class MLPDecoder(nn.Module):
    """Decoder `-`: gated dense layers to one independent distribution per pixel.

    Attributes:
      width: Units of each hidden layer.
      depth: Hidden layers.
      image_shape: Shape of an example, such as (height, width).
      likelihood: Distribution of a pixel, a key of `likelihoods.LIKELIHOODS`.
    """

    width: int
    depth: int
    image_shape: tuple[int, ...]
    likelihood: str = "bernoulli"

    @nn.compact
    def __call__(self, z: Float[Array, "*batch latent"]) -> distrax.Independent:
        """d(x|z)."""
        h = z
        for i in range(self.depth):
            h = Dropout()(GatedDense(self.width, name=f"hidden_{i}")(h))
        logits = Dense(size_of_outputs(self.image_shape, self.likelihood), name="logits")(h)
        outputs = logits.reshape(*z.shape[:-1], *with_outputs(self.image_shape, self.likelihood))
        return factorised(self, self.likelihood, outputs, len(self.image_shape))


def deconv_trunk(
    z: Float[Array, "*batch latent"], width: int, depth: int, image_size: Pair
) -> Float[Array, "examples height width planes"]:
    """Make feature planes of z by gated transposed convolutions, see `DeconvDecoder`.

    To be called inside a compact module.

    Args:
      z: (*batch, latent) latents.
      width: Channels of the planes.
      depth: Layers at each of the three sizes.
      image_size: (height, width) of the images, pixels.

    Returns:
      (examples, height, width, planes) in the dtype of `z`, the batch axes as one.
    """
    h = z.reshape(-1, 1, 1, z.shape[-1])
    for level, size in enumerate(_sizes(image_size)):
        for i in range(depth):
            wide = level == 0 or (level == 1 and i == 0)
            channels = 2 * width if wide else width
            name = f"deconv_{level}_{i}"
            if level == 0 and i == 0:
                layer = GatedConvTranspose(channels, size, size, same=False, name="whole")
            elif i == 0:
                layer = GatedConvTranspose(channels, (5, 5), size, (2, 2), name=name)
            else:
                kernel = (4, 4) if level == 2 else (5, 5)
                layer = GatedConvTranspose(channels, kernel, size, name=name)
            h = Dropout()(layer(h))
    return h


class DeconvDecoder(nn.Module):
    """Decoder `-` of Alemi et al. 2018, App. A: gated transposed convolutions.

    At a quarter, a half and the whole of the image's size there are `depth` layers:

    | size | first layer | other layers | channels |
    |---|---|---|---|
    | quarter (7x7 of 28x28) | one filter that paints z as an image | 5x5 | 2 `width` |
    | half | 5x5, doubles the size | 5x5 | 2 `width`, then `width` |
    | whole | 5x5, doubles the size | 4x4 | `width` |

    A linear 5x5 filter gives one distribution per pixel. The paper has width 32 and depth 2.

    Attributes:
      width: Channels of the last layers.
      depth: Layers at each of the three sizes.
      image_shape: (height, width) of the images, or (height, width, channels).
      likelihood: Distribution of a pixel, a key of `likelihoods.LIKELIHOODS`.
    """

    width: int
    depth: int
    image_shape: tuple[int, ...]
    likelihood: str = "bernoulli"

    @nn.compact
    def __call__(self, z: Float[Array, "*batch latent"]) -> distrax.Independent:
        """d(x|z)."""
        h = deconv_trunk(z, self.width, self.depth, _size(self.image_shape))
        return _of_image(self, h, z.shape[:-1])


def resnet_trunk(
    z: Float[Array, "*batch latent"], width: int, depth: int, image_size: Pair
) -> Float[Array, "examples height width planes"]:
    """Make feature planes of z by a small residual network, see `ResNetDecoder`.

    To be called inside a compact module.

    Args:
      z: (*batch, latent) latents.
      width: Channels of the planes.
      depth: Residual layers at each of the three sizes.
      image_size: (height, width) of the images, pixels.

    Returns:
      (examples, height, width, planes) in the dtype of `z`, the batch axes as one.
    """
    h = z.reshape(-1, 1, 1, z.shape[-1])
    for level, size in enumerate(_sizes(image_size)):
        channels = width * 2 ** (2 - level)
        if level == 0:
            h = GatedConvTranspose(channels, size, size, same=False, name="whole")(h)
        else:
            h = GatedConvTranspose(channels, (4, 4), size, (2, 2), name=f"grow_{level}")(h)
        for i in range(depth):
            h = h + Dropout()(GatedConv(channels, (3, 3), name=f"residual_{level}_{i}")(h))
    return h


class ResNetDecoder(nn.Module):
    """Decoder `-`: a small residual network to one distribution per pixel.

    It mirrors `ResNetEncoder`:

    - One gated filter paints z as an image of a quarter of the size.
    - At a quarter, a half and the whole there are `depth` residual layers. Each is a gated 3x3
      convolution added to its input.
    - Gated transposed 4x4 filters double the size.
    - A linear 5x5 filter comes at last.

    Channels are 4 `width`, 2 `width` and `width`.

    Attributes:
      width: Channels at the size of the image.
      depth: Residual layers at each of the three sizes.
      image_shape: (height, width) of the images, or (height, width, channels).
      likelihood: Distribution of a pixel, a key of `likelihoods.LIKELIHOODS`.
    """

    width: int
    depth: int
    image_shape: tuple[int, ...]
    likelihood: str = "bernoulli"

    @nn.compact
    def __call__(self, z: Float[Array, "*batch latent"]) -> distrax.Independent:
        """d(x|z)."""
        h = resnet_trunk(z, self.width, self.depth, _size(self.image_shape))
        return _of_image(self, h, z.shape[:-1])


def _size(image_shape: tuple[int, ...]) -> Pair:
    """(height, width) of an image's shape."""
    return image_shape[0], image_shape[1]


def _sizes(size: Pair) -> tuple[Pair, Pair, Pair]:
    """A quarter of an image's size, a half, and the whole, rounded up."""
    half = (-(-size[0] // 2), -(-size[1] // 2))
    return (-(-half[0] // 2), -(-half[1] // 2)), half, size


def _of_image(
    module: DeconvDecoder | ResNetDecoder,
    h: Float[Array, "examples height width channels"],
    batch: tuple[int, ...],
) -> distrax.Independent:
    """Independent pixels by a linear 5x5 filter, whose parameters are the module's.

    Args:
      module: Decoder, inside its compact method.
      h: (examples, height, width, channels) features.
      batch: Shape of the batch, of as many elements as there are examples.
    """
    shape, likelihood = module.image_shape, module.likelihood
    size, outputs = _size(shape), with_outputs(shape[2:], likelihood)
    filters = (5, 5, h.shape[-1], size_of_outputs(shape[2:], likelihood))
    kernel = module.param("logits_kernel", nn.initializers.lecun_normal(), filters)
    bias = module.param("logits_bias", nn.initializers.zeros, outputs)
    logits = conv(h, in_dtype_of(h, kernel), same_padding(size, (5, 5), (1, 1)))
    logits = logits.reshape(*logits.shape[:-1], *outputs)
    logits = logits.astype(jnp.promote_types(h.dtype, kernel.dtype)) + bias
    return factorised(module, likelihood, logits.reshape(*batch, *size, *outputs), len(shape))
