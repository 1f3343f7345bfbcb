"""Models as one would write them with flax, under plain `jax.vmap`."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.cases import QUICKLY, Probe, Problem
from rd_elbo.exact import toy
from rd_elbo.models.pixelcnn import causal_mask
from rd_elbo.models.vae import Terms
from rd_elbo.training.state import settings


def halves(h: jax.Array) -> jax.Array:
    """Linear gating."""
    linear, gate = jnp.split(h, 2, axis=-1)
    return linear * nn.sigmoid(gate)


class DenseEncoder(nn.Module):
    """Mean and scale of e(z|x)."""

    width: int
    depth: int
    latent: int

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(batch, latent) each."""
        h = (2 * x - 1).reshape(len(x), -1)
        for i in range(self.depth):
            h = halves(nn.Dense(2 * self.width, name=f"hidden_{i}")(h))
        mean = nn.Dense(self.latent, name="mean")(h)
        return mean, nn.softplus(nn.Dense(self.latent, name="scale")(h)) + 1e-5


class ConvEncoder(nn.Module):
    """Mean and scale of e(z|x)."""

    width: int
    depth: int
    latent: int

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(batch, latent) each."""
        h = 2 * x[..., None] - 1
        for size in range(2):
            for i in range(self.depth):
                features, strides = 2 * self.width * 2**size, 2 if i == self.depth - 1 else 1
                h = halves(nn.Conv(features, (5, 5), strides, name=f"conv_{size}_{i}")(h))
        whole = nn.Conv(16 * self.width, h.shape[1:3], padding="VALID", name="whole")
        h = halves(whole(h)).reshape(len(h), -1)
        variance = nn.softplus(nn.Dense(self.latent, name="variance")(h)) + 1e-10
        return nn.Dense(self.latent, name="mean")(h), jnp.sqrt(variance)


class MLPDecoder(nn.Module):
    """Logits of d(x|z)."""

    width: int
    depth: int

    @nn.compact
    def __call__(self, z: jax.Array, x: jax.Array) -> jax.Array:
        """(batch, height, width)."""
        h = z
        for i in range(self.depth):
            h = halves(nn.Dense(2 * self.width, name=f"hidden_{i}")(h))
        return nn.Dense(x[0].size, name="logits")(h).reshape(x.shape)


class DeconvDecoder(nn.Module):
    """Logits of d(x|z) of 28x28 images."""

    width: int
    depth: int

    @nn.compact
    def __call__(self, z: jax.Array, x: jax.Array) -> jax.Array:
        """(batch, height, width)."""
        h = z[:, None, None]
        for level in range(3):
            for i in range(self.depth):
                channels = 2 if level == 0 or (level == 1 and i == 0) else 1
                size, strides = 5, (2, 2) if level and i == 0 else (1, 1)
                name = f"deconv_{level}_{i}"
                if level == 0 and i == 0:
                    size, name = 7, "whole"
                elif level == 2 and i:
                    size = 4
                padding = "VALID" if name == "whole" else "SAME"
                how = {"padding": padding, "transpose_kernel": True, "name": name}
                features = 2 * channels * self.width
                h = halves(nn.ConvTranspose(features, (size, size), strides, **how)(h))
        return nn.Conv(1, (5, 5), name="logits")(h)[..., 0]


class PixelCNN(nn.Module):
    """Logits of d(x|z), each pixel's given the pixels before it: masked convolutions."""

    width: int
    depth: int
    planes: int = 4

    @nn.compact
    def __call__(self, z: jax.Array, x: jax.Array) -> jax.Array:
        """(batch, height, width)."""
        planes = nn.Dense(x[0].size * self.planes, name="planes")(z)
        planes = planes.reshape(*x.shape, self.planes)
        h = x[..., None]
        for i in range(self.depth + 1):
            shape = 3, 5, h.shape[-1], 2 * self.width
            mask = np.broadcast_to(causal_mask(includes_centre=i > 0)[:, :, None, None], shape)
            how = {"padding": ((2, 0), (2, 2)), "mask": jnp.asarray(mask), "name": f"layer_{i}"}
            said = nn.Dense(2 * self.width, use_bias=False, name=f"plane_{i}")(planes)
            read = halves(nn.Conv(2 * self.width, (3, 5), **how)(h) + said)
            h = read + (h if i else 0)
        readout = nn.Dense(1, name="readout")(h)
        return (readout + nn.Dense(1, use_bias=False, name="readout_plane")(planes))[..., 0]


class VAE(nn.Module):
    """Rate and distortion of examples."""

    encoder: nn.Module
    decoder: nn.Module

    def __call__(self, x: jax.Array, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(batch,) nats each, at z = mean + scale noise."""
        mean, scale = self.encoder(x)
        logits = self.decoder(mean + scale * noise, x)
        rate = 0.5 * (mean**2 + scale**2 - 1 - 2 * jnp.log(scale)).sum(-1)
        return rate, optax.sigmoid_binary_cross_entropy(logits, x).sum((-1, -2))


def model_of(problem: Problem) -> VAE:
    """The plain model of a problem's architecture."""
    m = problem.case.member
    encoder = {"dense": DenseEncoder, "conv": ConvEncoder}[m.encoder]
    decoder = {"mlp": MLPDecoder, "deconv": DeconvDecoder, "pixelcnn": PixelCNN}[m.decoder]
    return VAE(
        encoder(m.encoder_width, m.encoder_depth, m.latent),
        decoder(m.decoder_width, m.decoder_depth),
    )


def arranged(problem: Problem, tree: Any) -> Any:
    """A population's parameters, or gradients, of ours, arranged for the plain model."""
    if problem.case.exact:
        return tree
    encoder = {name: _flat(layer) for name, layer in tree["encoder"].items()}
    ours, kind = tree["decoder"], problem.case.member.decoder
    if kind == "mlp":
        return {"encoder": encoder, "decoder": {name: _flat(ours[name]) for name in ours}}
    if kind == "deconv":
        decoder = {
            name: {
                "kernel": _joined(layer["kernel"]).swapaxes(-1, -2),
                "bias": _joined(layer["bias"]),
            }
            for name, layer in ours.items()
            if not name.startswith("logits")
        }
        bias = ours["logits_bias"][:, None]
        return {
            "encoder": encoder,
            "decoder": {**decoder, "logits": {"kernel": ours["logits_kernel"], "bias": bias}},
        }
    decoder = {"planes": ours["planes"]}
    for i in range(problem.case.member.decoder_depth + 1):
        kernel, bias, plane = (ours[f"layer_{i}_{name}"] for name in ("kernel", "bias", "plane"))
        decoder[f"layer_{i}"] = {"kernel": _joined(kernel), "bias": _joined(bias)}
        decoder[f"plane_{i}"] = {"kernel": _joined(plane)}
    kernel, bias = ours["readout_kernel"][..., None], ours["readout_bias"][:, None]
    decoder["readout"] = {"kernel": kernel, "bias": bias}
    decoder["readout_plane"] = {"kernel": ours["readout_plane"][..., None]}
    return {"encoder": encoder, "decoder": decoder}


def _joined(array: np.ndarray) -> np.ndarray:
    """Both halves of a gate on one axis."""
    return array.reshape(*array.shape[:-2], -1)


def _flat(layer: Any) -> Any:
    """A layer of ours; the bias of a gated one is (members, 2, units)."""
    return {name: _joined(a) for name, a in layer.items()} if layer["bias"].ndim == 3 else layer


@dataclasses.dataclass(frozen=True)
class PlainToy(toy.Toy):
    """The toy model as one would write it for one member."""

    def terms(self, params: Any, x: jax.Array, key: jax.Array) -> Terms:
        """Exact rate and distortion."""
        sizes = toy.SYMBOLS, self.codes
        e, d, at = (
            params["encoder"],
            params["decoder"],
            [(np.arange(n) - (n - 1) / 2) / (n / 2) for n in sizes],
        )
        log_e = jax.nn.log_softmax(-((at[0][:, None] * e["w"] - e["b"]) ** 2), axis=1)
        log_d = jax.nn.log_softmax(-((at[1][:, None] * d["v"] - d["c"]) ** 2), axis=1)
        log_m = jax.nn.log_softmax(params["prior"]["l"])
        joint = x[0][:, None] * jnp.exp(log_e)
        rate, distortion = (joint * (log_e - log_m)).sum(), -(joint * log_d.T).sum()
        return Terms(rate[None], distortion[None], joint.sum(0)[None])


class VmapFlax:
    """`vmap_flax`: a vmapped step with `optax.adam`, one call a step, one device."""

    unit, note = 1, ""

    def __init__(self, problem: Problem):
        self.members, self._problem, self._at = problem.members, problem, 0
        self._optimizer = optax.adam(problem.learning_rate, b1=0.9, b2=0.999, eps=1e-8)
        with settings(problem.spec.dtype):
            self._params = jax.tree.map(jnp.array, arranged(problem, problem.params))
            self._moments = jax.vmap(self._optimizer.init)(self._params)
            self._data, self._betas = jnp.asarray(problem.data), jnp.asarray(problem.betas)
        self._step = jax.jit(self._advance, donate_argnums=(0, 1))
        self._forward = jax.jit(self._evaluate)

    @functools.cached_property
    def _terms(self) -> Any:
        if self._problem.case.exact:
            terms = PlainToy().terms
            return lambda params, x, noise: terms(params, x, noise)[:2]
        model = model_of(self._problem)
        return lambda params, x, noise: model.apply({"params": params}, x, noise)

    def _loss(self, params: Any, x: jax.Array, noise: jax.Array, beta: jax.Array) -> jax.Array:
        rate, distortion = self._terms(params, x, noise)
        return beta * rate.mean() + distortion.mean()

    def _advance(
        self, params: Any, moments: Any, data: jax.Array, index: jax.Array, key: jax.Array
    ) -> Any:
        shape = (*index.shape, self._problem.latent)
        noise = jax.random.normal(key, shape, self._problem.spec.dtype)

        def one(params: Any, moments: Any, index: Any, noise: Any, beta: Any) -> Any:
            x = data[index].astype(self._problem.spec.dtype)
            loss, gradient = jax.value_and_grad(self._loss)(params, x, noise, beta)
            updates, moments = self._optimizer.update(gradient, moments, params)
            return optax.apply_updates(params, updates), moments, loss

        return jax.vmap(one)(params, moments, index, noise, self._betas)

    def _evaluate(self, params: Any, data: jax.Array, index: jax.Array, key: jax.Array) -> Any:
        shape = (self.members, *index.shape, self._problem.latent)
        noise = jax.random.normal(key, shape, self._problem.spec.dtype)
        x = data[index].astype(self._problem.spec.dtype)
        return jax.vmap(self._terms, (0, None, 0))(params, x, noise)

    def run(self, steps: int) -> None:
        """Make so many steps, or evaluate so many batches."""
        rows, last = self._problem.rows, None
        with settings(self._problem.spec.dtype):
            for _ in range(steps):
                key = jax.random.key(self._at)
                if self._problem.case.forward:
                    index = rows[self._at % self._problem.case.batches]
                    last = self._forward(self._params, self._data, index, key)
                else:
                    index = np.tile(rows[self._at % len(rows)], (self.members, 1))
                    state = self._params, self._moments
                    self._params, self._moments, last = self._step(*state, self._data, index, key)
                self._at += 1
            jax.block_until_ready(last)

    def probed(self, probe: Probe) -> tuple[np.ndarray, Any]:
        """Losses and gradients by the same function that is trained."""
        few = self._problem.pick(*range(len(probe.loss)))
        with settings(self._problem.spec.dtype):
            over = jax.vmap(jax.value_and_grad(self._loss), (0, None, 0, 0))
            values = jax.jit(over, compiler_options=QUICKLY)(
                self.arranged(few.params), probe.x, probe.noise, few.betas
            )
        return jax.tree.map(np.asarray, values)

    def arranged(self, tree: Any) -> Any:
        """Our parameters for the plain model."""
        return arranged(self._problem, tree)
