"""Names of architectures: from a description in plain values to a model.

A new encoder, decoder or marginal joins by one entry in a table here; nothing outside `models/` knows which exist.
"""

import dataclasses
import itertools
import types
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn

from rd_elbo.errors import BadInput, choice, truth, whole
from rd_elbo.models.base import VAE
from rd_elbo.models.decoders import DeconvDecoder, MLPDecoder, ResNetDecoder
from rd_elbo.models.encoders import ConvEncoder, DenseEncoder, FlowEncoder, ResNetEncoder
from rd_elbo.models.flows import AutoregressiveFlow, RealNVP
from rd_elbo.models.marginals import FlowMarginal, StandardNormal, VampPrior
from rd_elbo.models.pixelcnn import PixelCNNDecoder, PixelVAEDecoder
from rd_elbo.models.pixelcnnpp import PixelCNNPPDecoder

ImageShape = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A model in plain values.

    Attributes:
      encoder: Name of the encoder, a key of `ENCODERS`.
      decoder: Name of the decoder, a key of `DECODERS`.
      marginal: Name of the marginal, a key of `MARGINALS`.
      latent: Dimensions of z.
      encoder_width: Units of each hidden layer of the encoder, or channels of its first.
      encoder_depth: Hidden layers of the encoder, or layers at each size.
      decoder_width: Units of each hidden layer of the decoder, or channels (of the last, where they differ).
      decoder_depth: Hidden layers, residual blocks, or layers at each size of the decoder.
      pseudo_inputs: Components of the VampPrior.
      flow_steps: Steps of each flow, of encoder and marginal alike.
      flow_width: Units of each hidden layer of the flows' networks (MADEs, or those of couplings).
      flow_depth: Hidden layers of the flows' networks.
      causal_depth: Residual blocks of the causal network behind decoder "pixelvae".
      z_in_every_layer: Whether every residual layer of decoder "pixelcnnpp" reads z.
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
    flow_steps: int = 4
    flow_width: int = 640
    flow_depth: int = 3
    causal_depth: int = 3
    z_in_every_layer: bool = False

    def __post_init__(self) -> None:
        for field, table in (("encoder", ENCODERS), ("decoder", DECODERS), ("marginal", MARGINALS)):
            choice(field, getattr(self, field), table)
        for field in _SIZES:
            object.__setattr__(self, field, whole(field, getattr(self, field)))
        object.__setattr__(self, "z_in_every_layer", truth("z_in_every_layer", self.z_in_every_layer))

    @property
    def idle(self) -> tuple[str, ...]:
        """The fields that have no effect, because no part of this architecture looks at them."""
        used = {field for part in self._parts for field in part.uses}
        return tuple(field for field in _OPTIONAL if field not in used)

    @property
    def _parts(self) -> tuple["Part", "Part", "Part"]:
        return ENCODERS[self.encoder], DECODERS[self.decoder], MARGINALS[self.marginal]

    @property
    def family(self) -> str:
        """Name in the paper's three characters, such as `-+v`.

        They stand for encoder, decoder and marginal; `-` is weak, `+` strong, `v` a VampPrior.
        """
        return "".join(part.sign for part in self._parts)

    def build(self, image_shape: ImageShape) -> VAE:
        """The model for images of (height, width) `image_shape`."""
        return VAE(*(part.build(self, image_shape) for part in self._parts))


_SIZES = (
    *("latent", "encoder_width", "encoder_depth", "decoder_width", "decoder_depth"),
    *("pseudo_inputs", "flow_steps", "flow_width", "flow_depth", "causal_depth"),
)
# Fields that only some parts have a use for.
_FLOW = ("flow_steps", "flow_width", "flow_depth")
_OPTIONAL = ("pseudo_inputs", *_FLOW, "causal_depth", "z_in_every_layer")


@dataclasses.dataclass(frozen=True)
class Part:
    """An encoder, a decoder or a marginal that architectures can name.

    Attributes:
      sign: Character of the part in the paper's family names.
      build: Makes the flax module.
      pads: Whether a narrower part embedded in zeros trains exactly as it would alone. Holds for linear gating and ReLU; normal-
        ised weights, for one, break it (0/0).
      uses: The fields that not every part has a use for, and that this one does.
    """

    sign: str
    build: Callable[[Architecture, ImageShape], nn.Module]
    pads: bool = True
    uses: tuple[str, ...] = ()


def _flow_sizes(a: Architecture) -> tuple[int, int, int, int]:
    return a.latent, a.flow_steps, a.flow_width, a.flow_depth


def _flow(a: Architecture, affine: bool = False) -> AutoregressiveFlow:
    return AutoregressiveFlow(*_flow_sizes(a), affine)


def _conv_encoder(a: Architecture) -> ConvEncoder:
    return ConvEncoder(a.encoder_width, a.encoder_depth, a.latent)


def _pixelvae(a: Architecture, shape: ImageShape) -> PixelVAEDecoder:
    return PixelVAEDecoder(a.decoder_width, a.decoder_depth, a.causal_depth, shape)


def _pixelcnnpp(a: Architecture, shape: ImageShape) -> PixelCNNPPDecoder:
    return PixelCNNPPDecoder(a.decoder_width, a.decoder_depth, shape, a.z_in_every_layer)


ENCODERS: Mapping[str, Part] = types.MappingProxyType(
    {
        "dense": Part("-", lambda a, shape: DenseEncoder(a.encoder_width, a.encoder_depth, a.latent)),
        "conv": Part("-", lambda a, shape: _conv_encoder(a)),
        "resnet": Part("-", lambda a, shape: ResNetEncoder(a.encoder_width, a.encoder_depth, a.latent)),
        "conv_iaf": Part("+", lambda a, shape: FlowEncoder(_conv_encoder(a), _flow(a)), uses=_FLOW),
    }
)
DECODERS: Mapping[str, Part] = types.MappingProxyType(
    {
        "mlp": Part("-", lambda a, shape: MLPDecoder(a.decoder_width, a.decoder_depth, shape)),
        "deconv": Part("-", lambda a, shape: DeconvDecoder(a.decoder_width, a.decoder_depth, shape)),
        "resnet": Part("-", lambda a, shape: ResNetDecoder(a.decoder_width, a.decoder_depth, shape)),
        "pixelcnn": Part("+", lambda a, shape: PixelCNNDecoder(a.decoder_width, a.decoder_depth, shape)),
        "pixelvae": Part("+", lambda a, shape: _pixelvae(a, shape), uses=("causal_depth",)),
        "pixelcnnpp": Part("+", lambda a, shape: _pixelcnnpp(a, shape), uses=("z_in_every_layer",)),
    }
)
MARGINALS: Mapping[str, Part] = types.MappingProxyType(
    {
        "normal": Part("-", lambda a, shape: StandardNormal(a.latent)),
        "maf": Part("+", lambda a, shape: FlowMarginal(_flow(a)), uses=_FLOW),
        "maf_affine": Part("+", lambda a, shape: FlowMarginal(_flow(a, affine=True)), uses=_FLOW),
        "realnvp": Part("+", lambda a, shape: FlowMarginal(RealNVP(*_flow_sizes(a))), uses=_FLOW),
        "vampprior": Part("v", lambda a, shape: VampPrior(a.pseudo_inputs), uses=("pseudo_inputs",)),
    }
)


# The parts that Alemi et al. 2018, App. A, built, by the characters of their families' names.
_PAPER = (
    ("encoder", {"-": "conv", "+": "conv_iaf"}),
    ("decoder", {"-": "deconv", "+": "pixelcnnpp"}),
    ("marginal", {"-": "normal", "+": "maf", "v": "vampprior"}),
)
PAPER_FAMILIES = tuple("".join(signs) for signs in itertools.product(*(names for _, names in _PAPER)))


def paper_family(name: str) -> dict[str, str]:
    """The parts of one of the paper's families as fields of `Architecture`.

    >>> paper_family("-+v")
    {'encoder': 'conv', 'decoder': 'pixelcnnpp', 'marginal': 'vampprior'}

    Raises:
      BadInput: If there is no such family.
    """
    if name not in PAPER_FAMILIES:
        raise BadInput(f"family={name!r} does not exist; there are {', '.join(PAPER_FAMILIES)}")
    return {part: names[sign] for (part, names), sign in zip(_PAPER, name, strict=True)}


def users(field: str) -> tuple[str, ...]:
    """Which of encoder, decoder and marginal may have a use for an optional field."""
    tables = {"encoder": ENCODERS, "decoder": DECODERS, "marginal": MARGINALS}
    return tuple(name for name, table in tables.items() if any(field in part.uses for part in table.values()))


def widths_that_pad(architecture: Architecture) -> dict[str, Any]:
    """The width fields of `architecture` in which it may share a program with wider or narrower ones, and their values."""
    parts = {"encoder_width": ENCODERS[architecture.encoder], "decoder_width": DECODERS[architecture.decoder]}
    return {field: getattr(architecture, field) for field, part in parts.items() if part.pads}
