"""Models as one would write them with flax, for benchmarks to compare ours with."""

import dataclasses
from collections.abc import Callable
from typing import Any

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rd_elbo.models.base import VAE
from rd_elbo.models.pixelcnn import causal_mask


class PlainPixelCNN(nn.Module):
    """The small PixelCNN as one would write it with flax: masked `nn.Conv`s over causally padded images."""

    width: int
    depth: int
    image_shape: tuple[int, int]
    planes: int = 4

    @nn.compact
    def __call__(self, z: jax.Array) -> Any:
        """d(x|z), good for scoring alone."""
        planes = nn.Dense(self.image_shape[0] * self.image_shape[1] * self.planes)(z)
        planes = planes.reshape(len(z), *self.image_shape, self.planes)
        convs, conditions = [], []
        for i in range(self.depth + 1):
            inputs = 1 if i == 0 else self.width
            mask = np.broadcast_to(causal_mask(includes_centre=i > 0)[:, :, None, None], (3, 5, inputs, 2 * self.width))
            convs.append(nn.Conv(2 * self.width, (3, 5), padding=((2, 0), (2, 2)), mask=jnp.asarray(mask)))
            conditions.append(nn.Dense(2 * self.width, use_bias=False))
        readout, readout_plane = nn.Dense(1), nn.Dense(1, use_bias=False)

        def log_prob(x: jax.Array) -> jax.Array:
            h = x[..., None].astype(planes.dtype)
            for i, (conv, condition) in enumerate(zip(convs, conditions, strict=True)):
                linear, gate = jnp.split(conv(h) + condition(planes), 2, axis=-1)
                h = linear * nn.sigmoid(gate) + (h if i else 0)
            logits = (readout(h) + readout_plane(planes))[..., 0]
            return distrax.Independent(distrax.Bernoulli(logits), 2).log_prob(x)

        if self.is_initializing():
            log_prob(jnp.zeros(planes.shape[:3]))
        return _Scored(log_prob)


@dataclasses.dataclass(frozen=True)
class _Scored:
    """Just enough of a distribution to train with."""

    log_prob: Callable[[jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class PlainModel(VAE):
    """A model whose decoder's distribution holds modules, so that it must be scored inside the call that makes it."""

    def decode(self, params: Any, z: jax.Array) -> Any:
        """d(x|z)."""

        def log_prob(x: jax.Array) -> jax.Array:
            return nn.apply(lambda module, z: module(z).log_prob(x), self.decoder)({"params": params["decoder"]}, z)

        return _Scored(log_prob)


class PlainConvEncoder(nn.Module):
    """The convolutional encoder as one would write it with flax."""

    width: int
    latent: int

    @nn.compact
    def __call__(self, x: jax.Array) -> Any:
        """e(z|x)."""
        h = 2 * x[..., None] - 1
        for channels, strides in ((1, 1), (1, 2), (2, 1), (2, 2)):
            h = halves(nn.Conv(2 * channels * self.width, (5, 5), strides)(h))
        h = halves(nn.Conv(16 * self.width, h.shape[1:3], padding="VALID")(h)).reshape(len(h), -1)
        variance = nn.softplus(nn.Dense(self.latent, name="variance")(h)) + 1e-10
        return distrax.MultivariateNormalDiag(nn.Dense(self.latent, name="mean")(h), jnp.sqrt(variance))


class PlainDeconvDecoder(nn.Module):
    """The deconvolutional decoder as one would write it with flax."""

    width: int

    @nn.compact
    def __call__(self, z: jax.Array) -> Any:
        """d(x|z) of 28x28 images."""
        h = halves(nn.ConvTranspose(4 * self.width, (7, 7), padding="VALID", transpose_kernel=True)(z[:, None, None]))
        for channels, kernel, stride in ((2, 5, 1), (2, 5, 2), (1, 5, 1), (1, 5, 2), (1, 4, 1)):
            strides = (stride, stride)
            h = halves(nn.ConvTranspose(2 * channels * self.width, (kernel, kernel), strides, transpose_kernel=True)(h))
        return distrax.Independent(distrax.Bernoulli(nn.Conv(1, (5, 5))(h)[..., 0]), 2)


def halves(h: jax.Array) -> jax.Array:
    """Linear gating."""
    linear, gate = jnp.split(h, 2, axis=-1)
    return linear * nn.sigmoid(gate)


def plain_conv_params(params: Any) -> Any:
    """The parameters of a population of `---`, arranged for the plain encoder and decoder."""
    flat = lambda a: a.reshape(*a.shape[:-2], -1)  # noqa: E731
    encoder, decoder = dict(params["encoder"]), dict(params["decoder"])
    plain = {"encoder": {name: encoder.pop(name) for name in ("mean", "variance")}, "decoder": {}, "marginal": {}}
    for i, name in enumerate(("conv_0_0", "conv_0_1", "conv_1_0", "conv_1_1", "whole")):
        plain["encoder"][f"Conv_{i}"] = {"kernel": flat(encoder[name]["kernel"]), "bias": flat(encoder[name]["bias"])}
    for i, name in enumerate(("whole", "deconv_0_1", "deconv_1_0", "deconv_1_1", "deconv_2_0", "deconv_2_1")):
        kernel = flat(decoder[name]["kernel"]).swapaxes(-1, -2)
        plain["decoder"][f"ConvTranspose_{i}"] = {"kernel": kernel, "bias": flat(decoder[name]["bias"])}
    plain["decoder"]["Conv_0"] = {"kernel": decoder["logits_kernel"], "bias": decoder["logits_bias"][:, None]}
    return plain


def plain_params(params: Any, depth: int) -> Any:
    """The parameters of a population of our PixelCNNs, arranged for `PlainPixelCNN`."""
    ours = params["decoder"]
    flat = lambda a: a.reshape(*a.shape[:-2], -1)  # noqa: E731
    plain = {"Dense_0": ours["planes"]}
    for i in range(depth + 1):
        plain[f"Conv_{i}"] = {"kernel": flat(ours[f"layer_{i}_kernel"]), "bias": flat(ours[f"layer_{i}_bias"])}
        plain[f"Dense_{i + 1}"] = {"kernel": flat(ours[f"layer_{i}_plane"])}
    plain[f"Dense_{depth + 2}"] = {"kernel": ours["readout_kernel"][..., None], "bias": ours["readout_bias"][:, None]}
    plain[f"Dense_{depth + 3}"] = {"kernel": ours["readout_plane"][..., None]}
    return {**params, "decoder": plain}
