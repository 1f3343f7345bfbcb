"""Names of architectures: from a description in plain values to a model."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import jax

from rd_elbo import disk
from rd_elbo.errors import BadInput, choice, truth, whole
from rd_elbo.models import registry
from rd_elbo.models.likelihoods import LIKELIHOODS
from rd_elbo.models.parts import KINDS, OPTIONAL, ImageShape, Part
from rd_elbo.models.registry import find
from rd_elbo.models.vae import VAE

_SIZES = (
    *("latent", "encoder_width", "encoder_depth", "decoder_width", "decoder_depth"),
    *("pseudo_inputs", "flow_steps", "flow_width", "flow_depth", "causal_depth"),
)
# Kinds of examples and of data, in words.
_AXES = {2: "images (height, width)", 3: "(height, width, channels)"}
_DATA = {"binary": "data of zeros and ones", "grey": "8-bit levels", "real": "real values"}
_HINTS = {"binary": "", "grey": ", or data.binarise=True with 'bernoulli'", "real": ""}


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A model in plain values.

    Attributes:
      encoder: Name of the encoder, see `registry`; or "package.module:Class" of the user's own.
      decoder: Name of the decoder, or "package.module:Class" of the user's own.
      prior: Name of the prior, or "package.module:Class" of the user's own.
      latent: Dimensions of z.
      encoder_width: Units of each hidden layer of the encoder, or channels of its first.
      encoder_depth: Hidden layers of the encoder, or layers at each size.
      decoder_width: Units of each hidden layer of the decoder, or channels (of the last layer where
        they differ).
      decoder_depth: Hidden layers, residual blocks, or layers at each size of the decoder.
      pseudo_inputs: Components of the VampPrior.
      flow_steps: Steps of each flow, of encoder and prior alike.
      flow_width: Units of each hidden layer of the flows' networks.
      flow_depth: Hidden layers of the flows' networks.
      causal_depth: Residual blocks of the causal network behind decoders "pixelvae" and
        "pixelvae_resnet".
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
        reads = truth("z_in_every_layer", self.z_in_every_layer)
        object.__setattr__(self, "z_in_every_layer", reads)
        choice("likelihood", self.likelihood, LIKELIHOODS)
        able = find("decoder", self.decoder).likelihoods
        if able and self.likelihood not in able:
            others = (
                name
                for name in registry.names("decoder")
                if self.likelihood in find("decoder", name).likelihoods
            )
            raise BadInput(
                f"likelihood={self.likelihood!r}: expected {_or(able)} with "
                f"decoder={self.decoder!r}, got {self.likelihood!r}. It is for {_or(others)}."
            )

    @property
    def unused_fields(self) -> tuple[str, ...]:
        """Fields that have no effect, because no part of this architecture uses them."""
        return unused_fields(vars(self))

    @property
    def sources(self) -> dict[str, str]:
        """Map from the kinds of the user's own parts to the SHA-256 of their text."""
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
        """Whether the distortion may be negative: of a density, or of an own decoder."""
        return self._own_likelihood or LIKELIHOODS[self.likelihood].continuous

    @property
    def _parts(self) -> tuple[Part, ...]:
        return tuple(find(kind, getattr(self, kind)) for kind in KINDS)

    @property
    def _own_likelihood(self) -> bool:
        """Whether the decoder is the user's own and has a likelihood of its own."""
        return "likelihood" in unused_fields(vars(self))

    def build(self, image_shape: ImageShape, scale: float | None = None) -> VAE:
        """Make the model.

        Args:
          image_shape: Shape of an example, such as (height, width).
          scale: Divisor of examples before the encoder sees them, see `Dataset.scale`; None means
            that of the likelihood.
        """
        if scale is None:
            scale = 1.0 if self._own_likelihood else LIKELIHOODS[self.likelihood].scale
        encoder, decoder, prior = (part.build(self, image_shape) for part in self._parts)
        return VAE(encoder, decoder, prior, scale)

    def check_data(self, kind: str, image_shape: ImageShape, values: tuple[float, float]) -> None:
        """Raise `BadInput` unless the model is for such data.

        Args:
          kind: Kind of the data, "binary", "grey" or "real".
          image_shape: Shape of an example.
          values: Smallest and largest value of the data.
        """
        for part in ("encoder", "decoder"):
            _check_axes(part, getattr(self, part), image_shape)
        if not self._own_likelihood:
            _check_values(self.likelihood, kind, values)

    def check_own_parts(self, image_shape: ImageShape, scale: float) -> None:
        """Raise `BadInput` unless the user's own parts make a model; nothing is computed.

        Args:
          image_shape: Shape of an example.
          scale: Divisor of examples before the encoder sees them.
        """
        named = zip(KINDS, self._parts, strict=True)
        own = [f"{kind}={getattr(self, kind)!r}" for kind, part in named if part.made_by]
        if not own:
            return
        x = jax.ShapeDtypeStruct((2, *image_shape), "float32")
        key = jax.eval_shape(lambda: jax.random.key(0))
        try:
            model = self.build(image_shape, scale)
            params = jax.eval_shape(model.init, key, x)
            jax.eval_shape(model.terms, params, x, key)
        except BadInput as error:
            raise BadInput(f"{', '.join(own)}: {error}") from error
        except Exception as error:
            words = f"{type(error).__name__}: {disk.gist(error)}"
            raise BadInput(
                f"{', '.join(own)}: expected parts for examples of shape {image_shape}, got {words}"
            ) from error


def _check_axes(kind: str, name: str, image_shape: ImageShape) -> None:
    """Raise `BadInput` unless a part is for examples of that shape."""
    part, number = find(kind, name), len(image_shape)
    if part.takes_axes(number):
        return
    expected = " or ".join(_AXES[axes] for axes in part.axes)
    fitting = (other for other in registry.names(kind) if find(kind, other).takes_axes(number))
    raise BadInput(
        f"{kind}={name!r}: expected {expected}, got examples of shape {image_shape}. "
        f"{_or(fitting)} will do."
    )


def _check_values(likelihood: str, kind: str, values: tuple[float, float]) -> None:
    """Raise `BadInput` unless a likelihood is for data of that kind and range."""
    expected, (least, most) = LIKELIHOODS[likelihood].kind, values
    outside = {"continuous_bernoulli"} if least < 0 or most > 1 else set()
    if kind != expected:
        of_kind = (name for name, known in LIKELIHOODS.items() if known.kind == kind)
        fitting = (name for name in of_kind if name not in outside)
        raise BadInput(
            f"likelihood={likelihood!r}: expected {_DATA[expected]}, got {_DATA[kind]}. "
            f"{_or(fitting)} will do{_HINTS[kind]}."
        )
    if likelihood in outside:
        raise BadInput(
            f"likelihood={likelihood!r}: expected values in [0, 1], got {least:g} to "
            f"{most:g}. Scale them, or give 'gaussian'."
        )


def _or(names: Iterable[str]) -> str:
    return " or ".join(map(repr, names))


# The parts that Alemi et al. 2018, App. A, built, by their characters in names of families.
_PAPER = {
    "encoder": {"-": "conv", "+": "conv_iaf"},
    "decoder": {"-": "deconv", "+": "pixelcnnpp"},
    "prior": {"-": "normal", "+": "maf", "v": "vampprior"},
}
PAPER_FAMILIES = tuple(map("".join, itertools.product(*_PAPER.values())))


def paper_family(name: str) -> dict[str, str]:
    """Name the parts of one of the paper's families, as fields of `Architecture`.

    >>> paper_family("-+v")
    {'encoder': 'conv', 'decoder': 'pixelcnnpp', 'prior': 'vampprior'}

    Raises:
      BadInput: If there is no such family.
    """
    choice("family", name, PAPER_FAMILIES)
    return {kind: parts[sign] for sign, (kind, parts) in zip(name, _PAPER.items(), strict=True)}


def users(field: str) -> tuple[str, ...]:
    """Name the kinds, such as "decoder", with parts that use an optional field."""
    return tuple(
        kind
        for kind in KINDS
        if any(field in find(kind, name).uses for name in registry.names(kind))
    )


def unused_fields(parts: Mapping[str, Any]) -> tuple[str, ...]:
    """List the optional fields that no part uses.

    Args:
      parts: Names of parts by kind; other entries do not matter.
    """
    used = {field for kind in KINDS for field in registry.uses(kind, parts[kind])}
    return tuple(field for field in OPTIONAL if field not in used)


def widths_that_pad(architecture: Architecture) -> dict[str, int]:
    """Select the widths in which members of one program may differ, with their values."""
    return {
        field: getattr(architecture, field)
        for kind, field in (("encoder", "encoder_width"), ("decoder", "decoder_width"))
        if find(kind, getattr(architecture, kind)).pads
    }
