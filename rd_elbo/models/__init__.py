"""Encoders, decoders and priors, and the models they make."""

from rd_elbo.models.decoders import DeconvDecoder, MLPDecoder, ResNetDecoder
from rd_elbo.models.dropout import Dropout
from rd_elbo.models.encoders import ConvEncoder, DenseEncoder, FlowEncoder, ResNetEncoder
from rd_elbo.models.flows import AutoregressiveFlow, RealNVP
from rd_elbo.models.pixelcnn import PixelCNNDecoder, PixelVAEDecoder
from rd_elbo.models.pixelcnnpp import PixelCNNPPDecoder
from rd_elbo.models.priors import FlowPrior, StandardNormal, VampPrior
from rd_elbo.models.vae import VAE

__all__ = [
    "VAE",
    "AutoregressiveFlow",
    "ConvEncoder",
    "DeconvDecoder",
    "DenseEncoder",
    "Dropout",
    "FlowEncoder",
    "FlowPrior",
    "MLPDecoder",
    "PixelCNNDecoder",
    "PixelCNNPPDecoder",
    "PixelVAEDecoder",
    "RealNVP",
    "ResNetDecoder",
    "ResNetEncoder",
    "StandardNormal",
    "VampPrior",
]
