"""Likelihoods: distributions of one value of an example, a pixel or a dimension.

All log-probabilities and log-densities are in nats. A density may be above 1, so the distortion of
continuous values may be negative.
"""

import dataclasses
import math
from typing import Any

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rd_elbo.models.bernoulli import Bernoulli

LEVELS = 256
# As in PixelCNN++: a scale below an eighth of a level makes no difference.
_LEAST_LOG_SCALE = -7.0
# Half a level, where levels 0 to 255 lie between -1 and 1.
_HALF = 1 / (LEVELS - 1)
# Coefficients of h^2, h^4, ... of log(sinh(h) / h).
_SERIES = (1 / 6, -1 / 180, 1 / 2835, -1 / 37800, 1 / 467775, -691 / 3831077250, 2 / 127702575)
_SERIES_END = 0.5


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """A likelihood that architectures can name.

    Attributes:
      kind: Kind of data that it is for, "binary", "grey" or "real", see `data.Dataset`.
      outputs: Number of a decoder's outputs for each value.
      continuous: Whether values have a density in place of a probability.
      scale: Divisor of values that brings them to [0, 1] for networks.
    """

    kind: str
    outputs: int = 1
    continuous: bool = False
    scale: float = 1.0


LIKELIHOODS: dict[str, Likelihood] = {
    "bernoulli": Likelihood("binary"),
    "continuous_bernoulli": Likelihood("real", continuous=True),
    "gaussian": Likelihood("real", continuous=True),
    "discretised_logistic": Likelihood("grey", outputs=2, scale=LEVELS - 1.0),
}


class DiscretisedLogistic(distrax.Distribution):
    """A logistic distribution rounded to levels 0 to 255.

    It is that of Salimans et al. 2017 with one component. Levels lie at equal distances between -1
    and 1. Values below level 0 count to it, and those above 255 to that:

        P(k) = s((x_k + 1/255 - loc) / scale) - s((x_k - 1/255 - loc) / scale)

    with s the logistic function and x_k = k / 127.5 - 1. With a and b the two arguments, P(k) is
    s(a) s(-b) (1 - exp(b - a)), whose logarithm has no difference of nearly equal numbers.

    Attributes:
      loc: (...) means, -1 to 1 for levels 0 to 255.
      log_scale: (...) logarithms of the scale, which counts as -7 where it is lower.
    """

    def __init__(self, loc: Float[Array, "..."], log_scale: Float[Array, "..."]):
        self.loc, self.log_scale = loc, jnp.maximum(log_scale, _LEAST_LOG_SCALE)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """No axes."""
        return ()

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The shape of the parameters."""
        return self.loc.shape

    def log_prob(self, value: Array) -> Float[Array, "..."]:
        """Log-probability of levels 0 to 255, nats."""
        value = value.astype(self.loc.dtype)
        inverse = jnp.exp(-self.log_scale)
        centred = value * (2 * _HALF) - 1 - self.loc
        above, below = inverse * (centred + _HALF), inverse * (centred - _HALF)
        # Of an open bin one factor is 1.
        up = jnp.where(value >= LEVELS - 1, 0.0, jax.nn.log_sigmoid(above))
        down = jnp.where(value <= 0, 0.0, jax.nn.log_sigmoid(-below))
        inside = (value > 0) & (value < LEVELS - 1)
        return up + down + jnp.where(inside, self._log_width(inverse), 0.0)

    def _log_width(self, inverse: Array) -> Array:
        """log(1 - exp(-w)) of the width w of a level in units of the scale."""
        width = 2 * _HALF * inverse
        near = width < _SERIES_END
        # By the logarithm of w itself, which is finite where w underflows.
        series = math.log(2 * _HALF) - self.log_scale - width / 2 + _log_sinhc(width / 2)
        return jnp.where(near, series, jnp.log(-jnp.expm1(-jnp.where(near, 1.0, width))))

    def quantile(self, uniform: Array) -> Float[Array, "..."]:
        """The level at which the distribution function reaches `uniform`, (...) in [0, 1)."""
        drawn = self.loc + jnp.exp(self.log_scale) * (jnp.log(uniform) - jnp.log1p(-uniform))
        return jnp.clip(jnp.rint((drawn + 1) / (2 * _HALF)), 0, LEVELS - 1)

    def mean(self) -> Float[Array, "..."]:
        """The mean level."""
        inverse = jnp.exp(-self.log_scale)

        def add(level: Array, total: Array) -> Array:
            edge = (2 * level + 1) * _HALF - 1
            return total + jax.nn.sigmoid(inverse * (self.loc - edge))

        # The mean of a count is the sum of the probabilities of more than 0, 1, ...
        return jax.lax.fori_loop(0, LEVELS - 1, add, jnp.zeros_like(self.loc))

    def _sample_n(self, key: Array, n: int) -> Array:
        return self.quantile(jax.random.uniform(key, (n, *self.batch_shape), self.loc.dtype))


class ContinuousBernoulli(distrax.Distribution):
    """The density exp(x l - A(l)) of values in [0, 1].

    Loaiza-Ganem & Cunningham 2019 have A(l) = log((e^l - 1) / l). Here it is computed as
    l / 2 + log(sinh(l / 2) / (l / 2)), with a series near 0.

    Attributes:
      logits: (...) natural parameters l.
    """

    def __init__(self, logits: Float[Array, "..."]):
        self.logits = logits

    @property
    def event_shape(self) -> tuple[int, ...]:
        """No axes."""
        return ()

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The shape of the parameters."""
        return self.logits.shape

    def log_prob(self, value: Array) -> Float[Array, "..."]:
        """Log-density of values in [0, 1], nats."""
        # Around 1/2, where the large parts of both terms cancel.
        centred = (value.astype(self.logits.dtype) - 0.5) * self.logits
        return centred - _log_sinhc(self.logits / 2)

    def mean(self) -> Float[Array, "..."]:
        """The mean, the derivative of A."""
        return 0.5 + jax.grad(lambda logits: _log_sinhc(logits / 2).sum())(self.logits)

    def _sample_n(self, key: Array, n: int) -> Array:
        uniform = jax.random.uniform(key, (n, *self.batch_shape), self.logits.dtype)
        # The distribution function is inverted where l is negative; elsewhere 1 - x has -l.
        size = jnp.abs(self.logits)
        small = size < 1e-3
        away = jnp.where(small, 1.0, size)
        near = uniform - size * uniform * (1 - uniform) / 2
        drawn = jnp.where(small, near, -jnp.log1p(uniform * jnp.expm1(-away)) / away)
        return jnp.clip(jnp.where(self.logits > 0, 1 - drawn, drawn), 0, 1)


def _log_sinhc(half: Array) -> Array:
    """log(sinh(h) / h), with a finite gradient everywhere."""
    near = jnp.abs(half) < _SERIES_END
    square = jnp.where(near, half, 0.0) ** 2
    series = jnp.zeros_like(half)
    for coefficient in reversed(_SERIES):
        series = square * (coefficient + series)
    size = jnp.where(near, 1.0, jnp.abs(half))
    return jnp.where(near, series, size + jnp.log1p(-jnp.exp(-2 * size)) - jnp.log(2 * size))


def of_outputs(likelihood: str, outputs: Array) -> Any:
    """Make the distribution of values from a network's outputs.

    Args:
      likelihood: Key of `LIKELIHOODS`, but for "gaussian".
      outputs: (...) logits; (..., 2) means and log scales of "discretised_logistic".
    """
    if likelihood == "discretised_logistic":
        return DiscretisedLogistic(outputs[..., 0], outputs[..., 1])
    if likelihood == "continuous_bernoulli":
        return ContinuousBernoulli(outputs)
    return Bernoulli(outputs)


def with_outputs(shape: tuple[int, ...], likelihood: str) -> tuple[int, ...]:
    """Compute the shape of a network's outputs for examples of `shape`."""
    outputs = LIKELIHOODS[likelihood].outputs
    return shape if outputs == 1 else (*shape, outputs)


def size_of_outputs(shape: tuple[int, ...], likelihood: str) -> int:
    """Count a network's outputs for an example of `shape`."""
    return math.prod(with_outputs(shape, likelihood))


def factorised(
    module: nn.Module, likelihood: str, outputs: Array, axes: int
) -> distrax.Independent:
    """Make the distribution of an example's independent values.

    To be called inside a compact method.

    Args:
      module: Decoder, which gets a parameter `log_scale` if the likelihood is "gaussian": one scale
        of all values.
      likelihood: Key of `LIKELIHOODS`.
      outputs: (*batch, *shape) outputs or, see `with_outputs`, (*batch, *shape, outputs).
      axes: Number of axes of an example.
    """
    if likelihood != "gaussian":
        return distrax.Independent(of_outputs(likelihood, outputs), axes)
    scale = jnp.exp(module.param("log_scale", nn.initializers.zeros, ()))
    values = distrax.Normal(outputs, jnp.broadcast_to(scale, outputs.shape))
    return distrax.Independent(values, axes)
