"""Names of architectures: from a description in plain values to a model.

A new encoder, decoder or prior joins by one entry here; nothing outside `models/` knows which exist.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from rd_elbo.errors import BadInput, choice, truth, whole
from rd_elbo.models import registry
from rd_elbo.models.decoders import DeconvDecoder, MLPDecoder, ResNetDecoder
from rd_elbo.models.encoders import ConvEncoder, DenseEncoder, FlowEncoder, ResNetEncoder
from rd_elbo.models.flows import AutoregressiveFlow, RealNVP
from rd_elbo.models.likelihoods import LIKELIHOODS
from rd_elbo.models.pixelcnn import PixelCNNDecoder, PixelVAEDecoder
from rd_elbo.models.pixelcnnpp import PixelCNNPPDecoder
from rd_elbo.models.priors import FlowPrior, StandardNormal, VampPrior
from rd_elbo.models.registry import KINDS, Part, find
from rd_elbo.models.vae import VAE

# The shape of an example: (height, width), (height, width, channels) or any other.
ImageShape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A model in plain values.

    Attributes:
      encoder: Name of the encoder, see `registry`; or "package.module:Class" of the user's own.
      decoder: Name of the decoder; or "package.module:Class" of the user's own.
      prior: Name of the prior; or "package.module:Class" of the user's own.
      latent: Dimensions of z.
      encoder_width: Units of each hidden layer of the encoder, or channels of its first.
      encoder_depth: Hidden layers of the encoder, or layers at each size.
      decoder_width: Units of each hidden layer of the decoder, or channels (of the last, where they differ).
      decoder_depth: Hidden layers, residual blocks, or layers at each size of the decoder.
      pseudo_inputs: Components of the VampPrior.
      flow_steps: Steps of each flow, of encoder and prior alike.
      flow_width: Units of each hidden layer of the flows' networks (MADEs, or those of couplings).
      flow_depth: Hidden layers of the flows' networks.
      causal_depth: Residual blocks of the causal network behind decoder "pixelvae".
      z_in_every_layer: Whether every residual layer of decoder "pixelcnnpp" reads z.
      likelihood: Distribution of a pixel or dimension, a key of `likelihoods.LIKELIHOODS`.
    """

    encoder: str = "dense"
    decoder: str = "mlp"
    prior: str = "normal"
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
    likelihood: str = "bernoulli"

    def __post_init__(self) -> None:
        for kind in KINDS:
            find(kind, getattr(self, kind))
        for field in _SIZES:
            object.__setattr__(self, field, whole(field, getattr(self, field)))
        object.__setattr__(self, "z_in_every_layer", truth("z_in_every_layer", self.z_in_every_layer))
        choice("likelihood", self.likelihood, LIKELIHOODS)
        able = find("decoder", self.decoder).likelihoods
        if able and self.likelihood not in able:
            decoders = [name for name in registry.names("decoder") if self.likelihood in find("decoder", name).likelihoods]
            raise BadInput(
                f"likelihood={self.likelihood!r}: expected {_or(able)} with decoder={self.decoder!r}, got {self.likelihood!r}. "
                f"It is for {_or(decoders)}."
            )

    @property
    def unused_fields(self) -> tuple[str, ...]:
        """The fields that have no effect, because no part of this architecture looks at them."""
        return unused_fields(vars(self))

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

        They stand for encoder, decoder and prior; `-` is weak, `+` strong, `v` a VampPrior.
        """
        return "".join(part.sign for part in self._parts)

    @property
    def continuous(self) -> bool:
        """Whether the distortion may be negative: of a density, or of an own decoder, which may have one."""
        return "likelihood" in unused_fields(vars(self)) or LIKELIHOODS[self.likelihood].continuous

    def build(self, image_shape: ImageShape, scale: float | None = None) -> VAE:
        """Make the model.

        Args:
          image_shape: Shape of an example, such as (height, width).
          scale: Divisor of examples before the encoder sees them, see `Dataset.scale`; None means that of the likelihood.
        """
        if scale is None:
            own = "likelihood" in unused_fields(vars(self))
            scale = 1.0 if own else LIKELIHOODS[self.likelihood].scale
        encoder, decoder, prior = (part.build(self, image_shape) for part in self._parts)
        return VAE(encoder, decoder, prior, scale)

    def check_data(self, kind: str, image_shape: ImageShape, values: tuple[float, float]) -> None:
        """Raise `BadInput` unless the model is for such data.

        Args:
          kind: Kind of the data, "binary", "grey" or "real".
          image_shape: Shape of an example.
          values: The smallest and the largest value of the data.
        """
        for part in KINDS[:2]:
            name = getattr(self, part)
            axes = find(part, name).axes
            if axes and len(image_shape) not in axes:
                fitting = [n for n in registry.names(part) if len(image_shape) in (find(part, n).axes or (len(image_shape),))]
                what = " or ".join(_AXES[number] for number in axes)
                raise BadInput(f"{part}={name!r}: expected {what}, got examples of shape {image_shape}. {_or(fitting)} will do.")
        if "likelihood" in unused_fields(vars(self)):
            return
        wanted = LIKELIHOODS[self.likelihood].kind
        if kind != wanted:
            fitting = [name for name, known in LIKELIHOODS.items() if known.kind == kind]
            raise BadInput(
                f"likelihood={self.likelihood!r}: expected {_DATA[wanted]}, got {_DATA[kind]}. "
                f"{_or(fitting)} will do{_HINTS[kind]}."
            )
        if self.likelihood == "continuous_bernoulli" and not (values[0] >= 0 and values[1] <= 1):
            raise BadInput(
                f"likelihood='continuous_bernoulli': expected values in [0, 1], got {values[0]:g} to {values[1]:g}. Scale them, "
                "or give 'gaussian'."
            )


_SIZES = (
    *("latent", "encoder_width", "encoder_depth", "decoder_width", "decoder_depth"),
    *("pseudo_inputs", "flow_steps", "flow_width", "flow_depth", "causal_depth"),
)
# Fields that only some parts have a use for.
_FLOW = ("flow_steps", "flow_width", "flow_depth")
_OPTIONAL = ("pseudo_inputs", *_FLOW, "causal_depth", "z_in_every_layer", "likelihood")
# Parts for images, with colours or without, and for images without; in words.
_COLOUR, _GREY = (2, 3), (2,)
_AXES = {2: "images (height, width)", 3: "(height, width, channels)"}
_DATA = {"binary": "data of zeros and ones", "grey": "8-bit levels", "real": "real values"}
_HINTS = {"binary": "", "grey": ", or data.binarise=True with 'bernoulli'", "real": ""}
_DISCRETE = ("bernoulli", "discretised_logistic")


def _or(names: Sequence[str]) -> str:
    return " or ".join(map(repr, names))


def _flow_sizes(a: Architecture) -> tuple[int, int, int, int]:
    return a.latent, a.flow_steps, a.flow_width, a.flow_depth


def _flow(a: Architecture, affine: bool = False) -> AutoregressiveFlow:
    return AutoregressiveFlow(*_flow_sizes(a), affine)


def _conv_encoder(a: Architecture) -> ConvEncoder:
    return ConvEncoder(a.encoder_width, a.encoder_depth, a.latent)


def _pixelvae(a: Architecture, shape: ImageShape) -> PixelVAEDecoder:
    return PixelVAEDecoder(a.decoder_width, a.decoder_depth, a.causal_depth, shape, a.likelihood)


def _pixelcnn(a: Architecture, shape: ImageShape) -> PixelCNNDecoder:
    return PixelCNNDecoder(a.decoder_width, a.decoder_depth, shape, likelihood=a.likelihood)


def _pixelcnnpp(a: Architecture, shape: ImageShape) -> PixelCNNPPDecoder:
    return PixelCNNPPDecoder(a.decoder_width, a.decoder_depth, shape, a.z_in_every_layer, a.likelihood)


def _vampprior(a: Architecture, shape: ImageShape) -> VampPrior:
    return VampPrior(a.pseudo_inputs, a.likelihood != "gaussian")


def _factorised(build: Any, axes: tuple[int, ...] = _COLOUR) -> Part:
    """A weak decoder of independent values, which takes every likelihood."""
    return Part(
        "-",
        lambda a, shape: build(a.decoder_width, a.decoder_depth, shape, a.likelihood),
        uses=("likelihood",),
        axes=axes,
        likelihoods=tuple(LIKELIHOODS),
        drops=True,
    )


def _causal(build: Any, *uses: str, drops: bool = False) -> Part:
    """A strong decoder of one pixel after another."""
    return Part("+", build, uses=("likelihood", *uses), axes=_GREY, likelihoods=_DISCRETE, drops=drops)


registry.add(
    "encoder",
    dense=Part("-", lambda a, shape: DenseEncoder(a.encoder_width, a.encoder_depth, a.latent), drops=True),
    conv=Part("-", lambda a, shape: _conv_encoder(a), axes=_COLOUR, drops=True),
    resnet=Part("-", lambda a, shape: ResNetEncoder(a.encoder_width, a.encoder_depth, a.latent), axes=_COLOUR, drops=True),
    conv_iaf=Part("+", lambda a, shape: FlowEncoder(_conv_encoder(a), _flow(a)), uses=_FLOW, axes=_COLOUR, drops=True),
)
registry.add(
    "decoder",
    mlp=_factorised(MLPDecoder, axes=()),
    deconv=_factorised(DeconvDecoder),
    resnet=_factorised(ResNetDecoder),
    pixelcnn=_causal(_pixelcnn),
    pixelvae=_causal(_pixelvae, "causal_depth", drops=True),
    pixelcnnpp=_causal(_pixelcnnpp, "z_in_every_layer"),
)
registry.add(
    "prior",
    normal=Part("-", lambda a, shape: StandardNormal(a.latent)),
    maf=Part("+", lambda a, shape: FlowPrior(_flow(a)), uses=_FLOW),
    maf_affine=Part("+", lambda a, shape: FlowPrior(_flow(a, affine=True)), uses=_FLOW),
    realnvp=Part("+", lambda a, shape: FlowPrior(RealNVP(*_flow_sizes(a))), uses=_FLOW),
    vampprior=Part("v", _vampprior, uses=("pseudo_inputs",)),
)


# The parts that Alemi et al. 2018, App. A, built, by the characters of their families' names.
_PAPER = (
    ("encoder", {"-": "conv", "+": "conv_iaf"}),
    ("decoder", {"-": "deconv", "+": "pixelcnnpp"}),
    ("prior", {"-": "normal", "+": "maf", "v": "vampprior"}),
)
PAPER_FAMILIES = tuple("".join(signs) for signs in itertools.product(*(names for _, names in _PAPER)))


def paper_family(name: str) -> dict[str, str]:
    """The parts of one of the paper's families as fields of `Architecture`.

    >>> paper_family("-+v")
    {'encoder': 'conv', 'decoder': 'pixelcnnpp', 'prior': 'vampprior'}

    Raises:
      BadInput: If there is no such family.
    """
    if name not in PAPER_FAMILIES:
        raise BadInput(f"family={name!r} does not exist; there are {', '.join(PAPER_FAMILIES)}")
    return {part: names[sign] for (part, names), sign in zip(_PAPER, name, strict=True)}


def users(field: str) -> tuple[str, ...]:
    """Which of encoder, decoder and prior may have a use for an optional field."""
    return tuple(k for k in KINDS if any(field in find(k, name).uses for name in registry.names(k)))


def unused_fields(parts: Mapping[str, Any]) -> tuple[str, ...]:
    """Fields that no part looks at; `parts` are names by "encoder", "decoder" and "prior"."""
    used = {field for kind in KINDS for field in registry.uses(kind, parts[kind])}
    return tuple(field for field in _OPTIONAL if field not in used)


def widths_that_pad(architecture: Architecture) -> dict[str, Any]:
    """Widths of `architecture` in which members of one program may differ, and their values."""
    pads = {f"{kind}_width": find(kind, getattr(architecture, kind)).pads for kind in KINDS[:2]}
    return {field: getattr(architecture, field) for field, padded in pads.items() if padded}
