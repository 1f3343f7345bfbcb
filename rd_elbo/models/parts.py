"""The library's own encoders, decoders and priors by name.

A part joins by one entry here; nothing outside `models/` knows which there are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import flax.linen as nn

from rd_elbo.models.decoders import DeconvDecoder, MLPDecoder, ResNetDecoder
from rd_elbo.models.encoders import ConvEncoder, DenseEncoder, FlowEncoder, ResNetEncoder
from rd_elbo.models.flows import AutoregressiveFlow, RealNVP
from rd_elbo.models.likelihoods import LIKELIHOODS
from rd_elbo.models.pixelcnn import PixelCNNDecoder, PixelVAEDecoder
from rd_elbo.models.pixelcnnpp import PixelCNNPPDecoder
from rd_elbo.models.priors import FlowPrior, StandardNormal, VampPrior

if TYPE_CHECKING:
    from rd_elbo.models.family import Architecture

KINDS = ("encoder", "decoder", "prior")
# The shape of an example: (height, width), (height, width, channels) or any other.
ImageShape = tuple[int, ...]
Build = Callable[..., nn.Module]


@dataclasses.dataclass(frozen=True)
class Part:
    """An encoder, a decoder or a prior that architectures can name.

    Attributes:
      sign: Character of the part in names of families.
      build: Function from (architecture, shape of an example) to the flax module.
      pads: Whether a narrower part embedded in zeros trains exactly as it would alone. This holds
        for linear gating and ReLU; normalised weights, for one, break it (0/0).
      uses: Optional fields of the architecture that have an effect on the part.
      source: SHA-256 of the text of the user's own part, 16 digits; "" for the library's parts.
      made_by: Module and name of the class or function of the user's own part.
      axes: Numbers of axes that an example may have, such as (2, 3) for images with and without
        colour; () for any.
      likelihoods: Likelihoods that a decoder takes; () where it has one of its own.
      drops: Whether an encoder or a decoder has layers `dropout.Dropout`.
    """

    sign: str
    build: Build
    pads: bool = True
    uses: tuple[str, ...] = ()
    source: str = ""
    made_by: str = ""
    axes: tuple[int, ...] = ()
    likelihoods: tuple[str, ...] = ()
    drops: bool = False

    def takes_axes(self, number: int) -> bool:
        """Whether an example may have so many axes."""
        return not self.axes or number in self.axes


_GREY, _COLOUR = (2,), (2, 3)
_DISCRETE = ("bernoulli", "discretised_logistic")
_FLOW = ("flow_steps", "flow_width", "flow_depth")
# Fields of an architecture that only some parts use.
OPTIONAL = ("pseudo_inputs", *_FLOW, "causal_depth", "z_in_every_layer", "likelihood")
# Fields of the size of a decoder, which all of the library's have.
SIZES = ("decoder_width", "decoder_depth")


def _gaussian(module: Any, axes: tuple[int, ...] = _COLOUR) -> Part:
    """A weak encoder, to a Gaussian with diagonal covariance."""
    return Part("-", lambda a, shape: _sized(module, a), axes=axes, drops=True)


def _sized(module: Any, a: Architecture) -> nn.Module:
    return module(a.encoder_width, a.encoder_depth, a.latent)


def _conv_iaf(a: Architecture, shape: ImageShape) -> FlowEncoder:
    return FlowEncoder(_sized(ConvEncoder, a), AutoregressiveFlow(*_flow_sizes(a)))


def _factorised(module: Any, axes: tuple[int, ...] = _COLOUR) -> Part:
    """A weak decoder of independent values, which takes every likelihood."""

    def build(a: Architecture, shape: ImageShape) -> nn.Module:
        return module(a.decoder_width, a.decoder_depth, shape, a.likelihood)

    every = tuple(LIKELIHOODS)
    return Part("-", build, uses=("likelihood",), axes=axes, likelihoods=every, drops=True)


def _causal(build: Build, *uses: str, drops: bool = False) -> Part:
    """A strong decoder of one pixel after another."""
    uses = ("likelihood", *uses)
    return Part("+", build, uses=uses, axes=_GREY, likelihoods=_DISCRETE, drops=drops)


def _pixelcnn(a: Architecture, shape: ImageShape) -> PixelCNNDecoder:
    return PixelCNNDecoder(a.decoder_width, a.decoder_depth, shape, likelihood=a.likelihood)


def _pixelvae(trunk: str) -> Part:
    """A strong decoder, a convolutional network with a shallow PixelCNN behind it."""

    def build(a: Architecture, shape: ImageShape) -> PixelVAEDecoder:
        sizes = a.decoder_width, a.decoder_depth, a.causal_depth
        return PixelVAEDecoder(*sizes, shape, a.likelihood, trunk)

    return _causal(build, "causal_depth", drops=True)


def _pixelcnnpp(a: Architecture, shape: ImageShape) -> PixelCNNPPDecoder:
    width, depth = a.decoder_width, a.decoder_depth
    return PixelCNNPPDecoder(width, depth, shape, a.z_in_every_layer, a.likelihood)


def _flow_prior(flow: Callable[..., AutoregressiveFlow | RealNVP], **how: Any) -> Part:
    """A strong prior, a normal distribution moved by a flow."""
    return Part("+", lambda a, shape: FlowPrior(flow(*_flow_sizes(a), **how)), uses=_FLOW)


def _flow_sizes(a: Architecture) -> tuple[int, int, int, int]:
    return a.latent, a.flow_steps, a.flow_width, a.flow_depth


def _vampprior(a: Architecture, shape: ImageShape) -> VampPrior:
    return VampPrior(a.pseudo_inputs, bounded=a.likelihood != "gaussian")


ENCODERS = {
    "dense": _gaussian(DenseEncoder, axes=()),
    "conv": _gaussian(ConvEncoder),
    "resnet": _gaussian(ResNetEncoder),
    "conv_iaf": Part("+", _conv_iaf, uses=_FLOW, axes=_COLOUR, drops=True),
}
DECODERS = {
    "mlp": _factorised(MLPDecoder, axes=()),
    "deconv": _factorised(DeconvDecoder),
    "resnet": _factorised(ResNetDecoder),
    "pixelcnn": _causal(_pixelcnn),
    "pixelvae": _pixelvae("deconv"),
    "pixelvae_resnet": _pixelvae("resnet"),
    "pixelcnnpp": _causal(_pixelcnnpp, "z_in_every_layer"),
}
PRIORS = {
    "normal": Part("-", lambda a, shape: StandardNormal(a.latent)),
    "maf": _flow_prior(AutoregressiveFlow),
    "maf_affine": _flow_prior(AutoregressiveFlow, affine=True),
    "realnvp": _flow_prior(RealNVP),
    "vampprior": Part("v", _vampprior, uses=("pseudo_inputs",)),
}
PARTS = dict(zip(KINDS, (ENCODERS, DECODERS, PRIORS), strict=True))
