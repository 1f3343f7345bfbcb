"""Encoders, decoders and priors, and the models they make.

>>> import jax, jax.numpy as jnp, rd_elbo as rd
>>> encoder, x = rd.models.DenseEncoder(width=8, depth=1, latent=4), jnp.zeros((2, 6, 6))
>>> e = encoder.apply(jax.jit(encoder.init)(jax.random.key(0), x), x)
>>> e.sample(seed=jax.random.key(1)).shape
(2, 4)
"""

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
