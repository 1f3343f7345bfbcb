"""Names of architectures: from a description in plain values to a model.

A new encoder, decoder or marginal joins by one entry in a table here; nothing outside `models/` knows which exist.
"""

import dataclasses
import types
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn

from rd_elbo.errors import choice, whole
from rd_elbo.models.base import Model
from rd_elbo.models.decoders import MLPDecoder
from rd_elbo.models.encoders import DenseEncoder
from rd_elbo.models.marginals import StandardNormal, VampPrior
from rd_elbo.models.pixelcnn import PixelCNNDecoder

ImageShape = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A model in plain values.

    Attributes:
      encoder: Name of the encoder, a key of `ENCODERS`.
      decoder: Name of the decoder, a key of `DECODERS`.
      marginal: Name of the marginal, a key of `MARGINALS`.
      latent: Dimensions of z.
      encoder_width: Units of each hidden layer of the encoder.
      encoder_depth: Hidden layers of the encoder.
      decoder_width: Units, or channels, of each hidden layer of the decoder.
      decoder_depth: Hidden layers, or residual blocks, of the decoder.
      pseudo_inputs: Components of the VampPrior; the standard normal has no use for it.
    """

    encoder: str = "dense"
    decoder: str = "mlp"
    marginal: str = "normal"
    latent: int = 32
    encoder_width: int = 256
    encoder_depth: int = 2
    decoder_width: int = 256
    decoder_depth: int = 2
    pseudo_inputs: int = 100

    def __post_init__(self) -> None:
        for field, table in (("encoder", ENCODERS), ("decoder", DECODERS), ("marginal", MARGINALS)):
            choice(field, getattr(self, field), table)
        for field in ("latent", "encoder_width", "encoder_depth", "decoder_width", "decoder_depth", "pseudo_inputs"):
            object.__setattr__(self, field, whole(field, getattr(self, field)))

    @property
    def idle(self) -> tuple[str, ...]:
        """The fields that have no effect, because no part of this architecture looks at them."""
        return () if MARGINALS[self.marginal].uses_pseudo_inputs else ("pseudo_inputs",)

    @property
    def family(self) -> str:
        """The paper's three characters, (encoder, decoder, marginal): `-` weak, `+` strong, `v` VampPrior."""
        return ENCODERS[self.encoder].sign + DECODERS[self.decoder].sign + MARGINALS[self.marginal].sign

    def build(self, image_shape: ImageShape) -> Model:
        """The model for images of (height, width) `image_shape`."""
        tables = (ENCODERS[self.encoder], DECODERS[self.decoder], MARGINALS[self.marginal])
        return Model(*(part.build(self, image_shape) for part in tables))


@dataclasses.dataclass(frozen=True)
class Part:
    """An encoder, a decoder or a marginal that architectures can name.

    Attributes:
      sign: Its character in the paper's family names.
      build: Makes the flax module.
      pads: Whether a narrower one embedded in zeros trains exactly as it would alone. Holds for linear gating and ReLU; normal-
        ised weights, for one, break it (0/0).
      uses_pseudo_inputs: Whether the number of pseudo-inputs means anything to it.
    """

    sign: str
    build: Callable[[Architecture, ImageShape], nn.Module]
    pads: bool = True
    uses_pseudo_inputs: bool = False


ENCODERS: Mapping[str, Part] = types.MappingProxyType(
    {"dense": Part("-", lambda a, shape: DenseEncoder(a.encoder_width, a.encoder_depth, a.latent))}
)
DECODERS: Mapping[str, Part] = types.MappingProxyType(
    {
        "mlp": Part("-", lambda a, shape: MLPDecoder(a.decoder_width, a.decoder_depth, shape)),
        "pixelcnn": Part("+", lambda a, shape: PixelCNNDecoder(a.decoder_width, a.decoder_depth, shape)),
    }
)
MARGINALS: Mapping[str, Part] = types.MappingProxyType(
    {
        "normal": Part("-", lambda a, shape: StandardNormal(a.latent)),
        "vampprior": Part("v", lambda a, shape: VampPrior(a.pseudo_inputs), uses_pseudo_inputs=True),
    }
)


def widths_that_pad(architecture: Architecture) -> dict[str, Any]:
    """The width fields of `architecture` in which it may share a program with wider or narrower ones, and their values."""
    parts = {"encoder_width": ENCODERS[architecture.encoder], "decoder_width": DECODERS[architecture.decoder]}
    return {field: getattr(architecture, field) for field, part in parts.items() if part.pads}
