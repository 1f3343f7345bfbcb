"""Gaussian sources and linear models: rate-distortion curves and likelihoods in closed form.

The source is x ~ N(mean, covariance) in n dimensions, or the data with those moments. The model is the linear VAE,

    e(z|x) = N(V (x - a), diag(s^2)),    m(z) = N(0, I),    d(x|z) = N(W z + b, noise^2 I),

whose distortion is a squared error in disguise, D = E|x - W z - b|^2 / (2 noise^2) + n/2 log(2 pi noise^2). So the lowest curve any
encoder and marginal can reach is the source's rate-distortion function of squared error, which reverse water-filling gives, and
the linear VAE contains its optimum. At the slope -dD/dR = beta the water level is beta noise^2. At beta = 1 the model is
probabilistic PCA and its negative ELBO that model's -log likelihood (Tipping & Bishop 1999; Lucas et al. 2019).
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from rd_elbo.errors import BadInput, number, whole
from rd_elbo.models.base import Params

Curve = Float[np.ndarray, " points"]
_LOG_2PI = float(np.log(2 * np.pi))


def covariance(name: str, matrix: Any) -> np.ndarray:
    """`matrix` as an array, checked to be a covariance.

    Raises:
      BadInput: If it is not square, symmetric and positive definite.
    """
    array = np.asarray(matrix, np.float64)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or array.size == 0 or not np.isfinite(array).all():
        raise BadInput(f"{name} must be a square matrix of finite numbers, not of shape {array.shape}")
    if not np.allclose(array, array.T, rtol=1e-6, atol=1e-9 * np.abs(array).max()):
        raise BadInput(f"{name} must be symmetric")
    lowest = float(np.linalg.eigvalsh(array)[0])
    if lowest <= 0:
        raise BadInput(f"{name} must be positive definite; its least eigenvalue is {lowest:.3g}")
    return array


def _variances(variances: Any) -> np.ndarray:
    array = np.asarray(variances, np.float64)
    if array.ndim != 1 or len(array) == 0 or not np.isfinite(array).all() or (array <= 0).any():
        raise BadInput(f"variances={variances!r} must be a list of finite numbers above 0")
    return np.sort(array)[::-1]


class Point(NamedTuple):
    """Points of R(D) of squared error.

    Attributes:
      rate: nats.
      error: E|x - x'|^2, summed over dimensions.
      level: The water level: components of larger variance are described with this error each, the others not at all.
    """

    rate: Any
    error: Any
    level: Any


def water_filling(variances: Any, level: Any) -> Point:
    """Reverse water-filling (Cover & Thomas 2006, theorem 10.3.3).

    R = sum_i max(0, log(variance_i / level) / 2), and the error is sum_i min(variance_i, level).

    Args:
      variances: (n,) eigenvalues of the covariance.
      level: (points,) water levels, above 0.

    Raises:
      BadInput: If a variance or a level is not above 0.
    """
    lam, theta = _variances(variances), np.atleast_1d(np.asarray(level, np.float64))
    if not np.isfinite(theta).all() or (theta <= 0).any():
        raise BadInput(f"level={level!r} must be finite numbers above 0")
    rate = 0.5 * np.maximum(np.log(lam / theta[:, None]), 0).sum(-1)
    return Point(rate, np.minimum(lam, theta[:, None]).sum(-1), theta)


def at_rate(variances: Any, rate: Any) -> Point:
    """The point of R(D) at given rates: the level is found exactly, component by component.

    Args:
      variances: (n,) eigenvalues of the covariance.
      rate: (points,) nats, at least 0.

    Raises:
      BadInput: If a variance is not above 0 or a rate is negative.
    """
    lam, wanted = _variances(variances), np.atleast_1d(np.asarray(rate, np.float64))
    if not np.isfinite(wanted).all() or (wanted < 0).any():
        raise BadInput(f"rate={rate!r} must be finite numbers of at least 0")
    # With the k largest components described, R = (sum_i<=k log variance_i - k log level) / 2; k grows as long as the next
    # component is above the level.
    k = np.arange(1, len(lam) + 1)
    log_levels = (np.cumsum(np.log(lam)) - 2 * wanted[:, None]) / k
    following = np.append(np.log(lam[1:]), -np.inf)
    first = np.argmax(log_levels >= following, axis=1)
    return water_filling(lam, np.exp(log_levels[np.arange(len(wanted)), first]))._replace(rate=wanted)


def distortion(error: Any, dimensions: int, noise: float) -> Any:
    """D of the decoder N(W z + b, noise^2 I), in nats, of a squared error summed over dimensions.

    It may be negative, since x is continuous.
    """
    return error / (2 * noise**2) + dimensions / 2 * (_LOG_2PI + 2 * np.log(noise))


def boundary(variances: Any, rate: Any, noise: float, latent: int | None = None) -> Curve:
    """The least distortion at given rates of any encoder and marginal with a decoder N(f(z), noise^2 I).

    Args:
      variances: (n,) eigenvalues of the covariance.
      rate: (points,) nats.
      noise: Standard deviation of the decoder.
      latent: If given, the best that a linear model with so many latent dimensions can do, which describes the largest components.

    Raises:
      BadInput: As `at_rate`, or if noise or latent is out of range.
    """
    lam, noise = _variances(variances), number("noise", noise, above=True)
    kept = len(lam) if latent is None else min(whole("latent", latent), len(lam))
    return distortion(at_rate(lam[:kept], rate).error + lam[kept:].sum(), len(lam), noise)


class PPCA(NamedTuple):
    """Probabilistic PCA, x ~ N(mean, weights weights^T + noise^2 I).

    Attributes:
      mean: (n,).
      weights: (n, latent).
      noise: Standard deviation.
    """

    mean: Any
    weights: Any
    noise: float

    @classmethod
    def fit(cls, mean: Any, matrix: Any, latent: int) -> "PPCA":
        """The maximum-likelihood fit to data of these moments (Tipping & Bishop 1999, eqs. 7 and 8).

        Raises:
          BadInput: If `matrix` is no covariance or `latent` is not below its size.
        """
        matrix = covariance("covariance", matrix)
        if whole("latent", latent) >= len(matrix):
            raise BadInput(f"latent={latent} must be below {len(matrix)}, the dimensions of the data")
        lam, directions = (a[..., ::-1] for a in np.linalg.eigh(matrix))
        noise2 = lam[latent:].mean()
        return cls(np.asarray(mean), directions[:, :latent] * np.sqrt(lam[:latent] - noise2), float(np.sqrt(noise2)))

    @property
    def covariance(self) -> np.ndarray:
        """Of x under the model."""
        return self.weights @ self.weights.T + self.noise**2 * np.eye(len(self.weights))

    def log_likelihood(self, mean: Any, matrix: Any) -> float:
        """Mean log-likelihood of data with these moments, in nats (Tipping & Bishop 1999, eq. 4)."""
        model, shift = self.covariance, np.asarray(mean) - self.mean
        error = np.trace(np.linalg.solve(model, np.asarray(matrix) + np.outer(shift, shift)))
        return float(-0.5 * (len(model) * _LOG_2PI + np.linalg.slogdet(model)[1] + error))

    def posterior(self) -> tuple[np.ndarray, np.ndarray]:
        """(latent, n) gain and (latent, latent) covariance: z | x ~ N(gain (x - mean), covariance)."""
        precision = self.weights.T @ self.weights + self.noise**2 * np.eye(self.weights.shape[1])
        return np.linalg.solve(precision, self.weights.T), self.noise**2 * np.linalg.inv(precision)


@dataclasses.dataclass(frozen=True)
class Exact:
    """Rate and distortion of a linear VAE on data of given moments, no draw involved; nats."""

    rate: float
    distortion: float


def moments_to_terms(params: Params, mean: Any, matrix: Any, noise: float | None = 1.0) -> Exact:
    """Exact rate and distortion of a `models.linear.linear_vae`: both are quadratic in x, so data matter by their moments alone.

    Args:
      params: Of one linear VAE.
      mean: (n,) mean of the data.
      matrix: (n, n) covariance of the data, divided by their number.
      noise: As given to `linear_vae`.
    """
    p: Any = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), dict(params))
    gain, a, scale = p["encoder"]["mean"]["kernel"], p["encoder"]["mean"]["bias"], np.exp(p["encoder"]["log_scale"])
    weights, b = p["decoder"]["mean"]["kernel"], p["decoder"]["mean"]["bias"]
    noise = float(np.exp(p["decoder"]["log_noise"])) if noise is None else noise
    mean, matrix = np.asarray(mean, np.float64), np.asarray(matrix, np.float64)
    code_mean = mean @ gain + a
    code_square = np.trace(gain.T @ matrix @ gain) + code_mean @ code_mean
    rate = 0.5 * (code_square + (scale**2 - 1 - 2 * np.log(scale)).sum())
    residual = np.eye(len(mean)) - gain @ weights
    shift = mean - code_mean @ weights - b
    error = np.trace(residual.T @ matrix @ residual) + shift @ shift + ((scale[:, None] * weights) ** 2).sum()
    return Exact(float(rate), float(distortion(error, len(mean), noise)))
