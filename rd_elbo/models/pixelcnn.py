"""Small PixelCNNs conditioned on z, for images of one channel.

Pixels are read row by row. Every filter is a causal crop of 3 rows by 5 columns that ends in the
row of the predicted pixel. Only the right end of that last row is masked. A masked 5x5 filter would
compute twice as much, and throw it away.

One function, `_layer`, computes a layer from a whole image for `log_prob`, all pixels at
once, or from one 3x5 patch for `sample`, one pixel. So sampling keeps every layer's activations and
computes each of them once.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from rd_elbo.models.causal import CausalImage, readout_kernel
from rd_elbo.models.decoders import deconv_trunk, resnet_trunk
from rd_elbo.models.geometry import UNPADDED, Padding
from rd_elbo.models.layers import Dense, Parameter, conv_to_halves, gate, lecun_pair, pointwise
from rd_elbo.models.likelihoods import with_outputs

_ROWS, _COLUMNS = 3, 5
_ABOVE, _LEFT, _RIGHT = _ROWS - 1, _COLUMNS // 2, _COLUMNS // 2
_FRAME: Padding = ((_ABOVE, 0), (_LEFT, _RIGHT))


def causal_mask(*, includes_centre: bool) -> np.ndarray:
    """Mask the taps of a (3, 5) crop after the pixel in the middle of its last row."""
    mask = np.ones((_ROWS, _COLUMNS), np.float32)
    mask[-1, _LEFT + includes_centre :] = 0
    return mask


def _layer(
    params: dict[str, Parameter], x: Array, plane: Array, padding: Padding, *, first: bool
) -> Array:
    """Apply one gated causal layer: the input layer, or a residual block.

    Args:
      params: `kernel` (3, 5, inputs, 2, width), `bias` (2, width), `plane` (planes, 2, width).
      x: (batch, height, width, inputs) input, or (batch, 3, 5, inputs) patches of it.
      plane: (batch, height, width, planes) feature planes made from z.
      padding: `_FRAME`, or `UNPADDED` for patches.
      first: True for the input layer, which must not see the pixel itself.

    Returns:
      (batch, height, width, width of the layer).
    """
    kernel = params["kernel"]
    mask = jnp.asarray(causal_mask(includes_centre=not first), kernel.dtype)
    h = conv_to_halves(x, kernel * mask[:, :, None, None, None], params["bias"], padding)
    h = gate(h + pointwise(plane, params["plane"]))
    if first:
        return h
    return h + (x if padding == _FRAME else x[:, _ABOVE:, _LEFT:-_RIGHT])


def _pad(h: Array) -> Array:
    return jnp.pad(h, ((0, 0), *_FRAME, (0, 0)))


class PixelCNN(CausalImage):
    """The distribution that `PixelCNNDecoder` and `PixelVAEDecoder` make.

    Attributes:
      params: `layers`, parameters of the input layer and then of each residual block; `readout`,
        those of the final 1x1 convolution to one logit, `kernel` (width,), `plane` (planes,) and
        `bias` (), or to two outputs on a last axis.
      planes: (*batch, height, width, planes) feature planes, see `CausalImage`.
      likelihood: Distribution of a pixel, see `CausalImage`.
    """

    def _outputs(self, images: Array, planes: Array) -> Array:
        h = images
        for i, params in enumerate(self.params["layers"]):
            h = _layer(params, h, planes, _FRAME, first=i == 0)
        return self._readout(h, planes)

    def _readout(self, h: Array, plane: Array) -> Array:
        readout = self.params["readout"]
        return h @ readout["kernel"] + plane @ readout["plane"] + readout["bias"]

    def _draw(self, planes: Array, noise: Array) -> Array:
        batch, (rows, columns), layers = len(planes), self.event_shape, self.params["layers"]
        channels = [1, *(params["bias"].shape[-1] for params in layers)]
        # The padded input of each layer, filled in pixel by pixel; the first is the image itself.
        inputs = [_pad(jnp.zeros((batch, rows, columns, c), planes.dtype)) for c in channels[:-1]]

        def pixel(inputs: list[Array], at: tuple[Array, Array]) -> tuple[list[Array], Array]:
            index, uniform = at
            i, j = index // columns, index % columns
            plane = lax.dynamic_slice(planes, (0, i, j, 0), (batch, 1, 1, planes.shape[-1]))
            place, inputs = (0, i + _ABOVE, j + _LEFT, 0), list(inputs)
            for layer, params in enumerate(layers):
                crop = (batch, _ROWS, _COLUMNS, channels[layer])
                patch = lax.dynamic_slice(inputs[layer], (0, i, j, 0), crop)
                h = _layer(params, patch, plane, UNPADDED, first=layer == 0)
                if layer + 1 < len(layers):
                    inputs[layer + 1] = lax.dynamic_update_slice(inputs[layer + 1], h, place)
            drawn = self._pixel(self._readout(h, plane)[:, 0, 0], uniform).astype(planes.dtype)
            read = self._read(drawn, planes)[:, None, None, None]
            inputs[0] = lax.dynamic_update_slice(inputs[0], read, place)
            return inputs, drawn

        _, drawn = lax.scan(pixel, inputs, (jnp.arange(rows * columns), noise))
        return drawn.T.reshape(batch, rows, columns)


class PixelCNNDecoder(nn.Module):
    """Decoder `+`: z enters every layer through feature planes of the image's size.

    Attributes:
      width: Channels of every layer.
      depth: Residual blocks after the input layer.
      image_shape: (height, width) of the images.
      planes: Feature planes made from z.
      likelihood: Distribution of a pixel, see `CausalImage`.
    """

    width: int
    depth: int
    image_shape: tuple[int, ...]
    planes: int = 4
    likelihood: str = "bernoulli"

    @nn.compact
    def __call__(self, z: Float[Array, "*batch latent"]) -> PixelCNN:
        """d(x|z)."""
        pixels = self.image_shape[0] * self.image_shape[1]
        planes = Dense(pixels * self.planes, name="planes")(z)
        planes = planes.astype(z.dtype).reshape(*z.shape[:-1], *self.image_shape, self.planes)
        params = _causal_params(self, self.depth, self.planes)
        return PixelCNN(params, planes, self.likelihood)


# What makes the feature planes of a `PixelVAEDecoder`.
_TRUNKS = {"deconv": deconv_trunk, "resnet": resnet_trunk}


class PixelVAEDecoder(nn.Module):
    """Decoder `+`: a convolutional one whose last layers are a shallow PixelCNN.

    Gulrajani et al. 2017 have such a decoder. The layers of `DeconvDecoder`, or of `ResNetDecoder`,
    but the last give feature planes at the size of the image. A causal network reads the image, and
    in every layer the planes by a linear map. So z says where things are, and the causal network
    only how pixels go together.

    Attributes:
      width: Channels of the planes and of every causal layer.
      depth: Layers of the trunk at each of the three sizes.
      causal_depth: Residual blocks after the causal network's input layer.
      image_shape: (height, width) of the images.
      likelihood: Distribution of a pixel, see `CausalImage`.
      trunk: Network that makes the planes, "deconv" or "resnet".
    """

    width: int
    depth: int
    causal_depth: int
    image_shape: tuple[int, ...]
    likelihood: str = "bernoulli"
    trunk: str = "deconv"

    @nn.compact
    def __call__(self, z: Float[Array, "*batch latent"]) -> PixelCNN:
        """d(x|z)."""
        size = self.image_shape[0], self.image_shape[1]
        planes = _TRUNKS[self.trunk](z, self.width, self.depth, size)
        planes = planes.reshape(*z.shape[:-1], *planes.shape[1:])
        params = _causal_params(self, self.causal_depth, self.width)
        return PixelCNN(params, planes, self.likelihood)


def _causal_params(
    module: PixelCNNDecoder | PixelVAEDecoder, depth: int, planes: int
) -> dict[str, Any]:
    """Make the parameters of a module's `PixelCNN`, inside its compact method.

    Args:
      module: Decoder, whose width is that of every layer.
      depth: Residual blocks after the input layer.
      planes: Number of feature planes.
    """
    width, likelihood, zeros = module.width, module.likelihood, nn.initializers.zeros

    def layer(name: str, inputs: int) -> dict[str, Any]:
        crop = (_ROWS, _COLUMNS, inputs, 2, width)
        return {
            "kernel": module.param(f"{name}_kernel", lecun_pair, crop),
            "bias": module.param(f"{name}_bias", zeros, (2, width)),
            "plane": module.param(f"{name}_plane", lecun_pair, (planes, 2, width)),
        }

    layers = [layer(f"layer_{i}", 1 if i == 0 else width) for i in range(depth + 1)]
    readout = {
        "kernel": module.param("readout_kernel", readout_kernel, width, likelihood),
        "plane": module.param("readout_plane", readout_kernel, planes, likelihood),
        "bias": module.param("readout_bias", zeros, with_outputs((), likelihood)),
    }
    return {"layers": layers, "readout": readout}
