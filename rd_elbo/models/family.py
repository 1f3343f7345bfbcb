"""Names of architectures: from a description in plain values to a model.

A new encoder, decoder or marginal joins by one entry here; nothing outside `models/` knows which exist.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

from rd_elbo.errors import BadInput, truth, whole
from rd_elbo.models import registry
from rd_elbo.models.base import VAE
from rd_elbo.models.decoders import DeconvDecoder, MLPDecoder, ResNetDecoder
from rd_elbo.models.encoders import ConvEncoder, DenseEncoder, FlowEncoder, ResNetEncoder
from rd_elbo.models.flows import AutoregressiveFlow, RealNVP
from rd_elbo.models.marginals import FlowMarginal, StandardNormal, VampPrior
from rd_elbo.models.pixelcnn import PixelCNNDecoder, PixelVAEDecoder
from rd_elbo.models.pixelcnnpp import PixelCNNPPDecoder
from rd_elbo.models.registry import KINDS, Part, find

ImageShape = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A model in plain values.

    Attributes:
      encoder: Name of the encoder, see `registry`; or "package.module:Class" of the user's own.
      decoder: Name of the decoder; or "package.module:Class" of the user's own.
      marginal: Name of the marginal; or "package.module:Class" of the user's own.
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
        for kind in KINDS:
            find(kind, getattr(self, kind))
        for field in _SIZES:
            object.__setattr__(self, field, whole(field, getattr(self, field)))
        object.__setattr__(self, "z_in_every_layer", truth("z_in_every_layer", self.z_in_every_layer))

    @property
    def idle(self) -> tuple[str, ...]:
        """The fields that have no effect, because no part of this architecture looks at them."""
        return idle_fields(vars(self))

    @property
    def _parts(self) -> tuple[Part, ...]:
        return tuple(find(kind, getattr(self, kind)) for kind in KINDS)

    @property
    def sources(self) -> dict[str, str]:
        """Kind of each part that is the user's own -> SHA-256 of the file it is written in."""
        made = zip(KINDS, self._parts, strict=True)
        return {kind: part.source for kind, part in made if part.source}

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


registry.add(
    "encoder",
    dense=Part("-", lambda a, shape: DenseEncoder(a.encoder_width, a.encoder_depth, a.latent)),
    conv=Part("-", lambda a, shape: _conv_encoder(a)),
    resnet=Part("-", lambda a, shape: ResNetEncoder(a.encoder_width, a.encoder_depth, a.latent)),
    conv_iaf=Part("+", lambda a, shape: FlowEncoder(_conv_encoder(a), _flow(a)), uses=_FLOW),
)
registry.add(
    "decoder",
    mlp=Part("-", lambda a, shape: MLPDecoder(a.decoder_width, a.decoder_depth, shape)),
    deconv=Part("-", lambda a, shape: DeconvDecoder(a.decoder_width, a.decoder_depth, shape)),
    resnet=Part("-", lambda a, shape: ResNetDecoder(a.decoder_width, a.decoder_depth, shape)),
    pixelcnn=Part("+", lambda a, shape: PixelCNNDecoder(a.decoder_width, a.decoder_depth, shape)),
    pixelvae=Part("+", _pixelvae, uses=("causal_depth",)),
    pixelcnnpp=Part("+", _pixelcnnpp, uses=("z_in_every_layer",)),
)
registry.add(
    "marginal",
    normal=Part("-", lambda a, shape: StandardNormal(a.latent)),
    maf=Part("+", lambda a, shape: FlowMarginal(_flow(a)), uses=_FLOW),
    maf_affine=Part("+", lambda a, shape: FlowMarginal(_flow(a, affine=True)), uses=_FLOW),
    realnvp=Part("+", lambda a, shape: FlowMarginal(RealNVP(*_flow_sizes(a))), uses=_FLOW),
    vampprior=Part("v", lambda a, shape: VampPrior(a.pseudo_inputs), uses=("pseudo_inputs",)),
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
    return tuple(k for k in KINDS if any(field in find(k, name).uses for name in registry.names(k)))


def idle_fields(parts: Mapping[str, Any]) -> tuple[str, ...]:
    """Fields that no part looks at; `parts` are names by "encoder", "decoder" and "marginal"."""
    used = {field for kind in KINDS for field in registry.uses(kind, parts[kind])}
    return tuple(field for field in _OPTIONAL if field not in used)


def widths_that_pad(architecture: Architecture) -> dict[str, Any]:
    """Widths of `architecture` in which members of one program may differ, and their values."""
    pads = {f"{kind}_width": find(kind, getattr(architecture, kind)).pads for kind in KINDS[:2]}
    return {field: getattr(architecture, field) for field, padded in pads.items() if padded}
