"""Gaussian sources and linear models: rate-distortion curves and likelihoods in closed form.

The source is x ~ N(mean, covariance) in n dimensions, or the data with those moments. The model is
the linear VAE,

    e(z|x) = N(V (x - a), diag(s^2)),    m(z) = N(0, I),    d(x|z) = N(W z + b, noise^2 I),

whose distortion is a squared error in disguise, D = E|x - W z - b|^2 / (2 noise^2) + n/2 log(2 pi
noise^2). So the lowest curve of a Gaussian source over all encoders and priors is its
rate-distortion function of squared error. Reverse water-filling gives it, and a linear VAE attains
it. Rate and distortion of a linear VAE depend on the data by mean and covariance alone. Among
linear VAEs that curve is therefore the lowest for any data of this covariance. At the slope -dD/dR
= beta the water level is beta noise^2. At beta = 1 the model is probabilistic PCA and its negative
ELBO that model's -log likelihood (Tipping & Bishop 1999; Lucas et al. 2019).
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from rd_elbo.errors import BadInput, number, reals, whole
from rd_elbo.models.vae import Params

# In nats and components: errors of e^-600 of a variance are as good as none.
_HIGHEST_RATE = 300.0
PerPoint = Float[np.ndarray, " points"]
_LOG_2PI = float(np.log(2 * np.pi))


def covariance(name: str, matrix: Any) -> np.ndarray:
    """`matrix` as an array, checked to be a covariance.

    Raises:
      BadInput: If it is not square, symmetric and positive definite.
    """
    array = reals(name, matrix, 2)
    if array.shape[0] != array.shape[1]:
        raise BadInput(f"{name}: expected a square matrix, got shape {array.shape}.")
    if not np.allclose(array, array.T, rtol=1e-6, atol=1e-9 * np.abs(array).max()):
        raise BadInput(f"{name}: expected a symmetric matrix, got one that is not.")
    lowest = float(np.linalg.eigvalsh(array)[0])
    if lowest <= 0:
        raise BadInput(
            f"{name}: expected a positive definite matrix, got one with an eigenvalue of "
            f"{lowest:.3g}."
        )
    return array


def _variances(variances: Any) -> np.ndarray:
    array = reals("variances", variances, 1)
    if (array <= 0).any():
        raise BadInput(f"variances: expected numbers above 0, got {array.min()}.")
    return np.sort(array)[::-1]


def _several(field: str, value: Any) -> np.ndarray:
    """One number or a list of them, as a list."""
    return reals(field, [value] if np.ndim(value) == 0 else value, 1)


class CurvePoint(NamedTuple):
    """Points of R(D) of squared error.

    Attributes:
      rate: (points,) nats.
      error: (points,) E|x - x'|^2, summed over dimensions.
      level: (points,) water level: components of larger variance are described with this error
        each, the others not at all.
    """

    rate: Any
    error: Any
    level: Any


def water_filling(variances: Any, level: Any) -> CurvePoint:
    """Reverse water-filling (Cover & Thomas 2006, theorem 10.3.3).

    R = sum_i max(0, log(variance_i / level) / 2), and the error is sum_i min(variance_i, level).

    Args:
      variances: (n,) eigenvalues of the covariance.
      level: (points,) water levels, above 0.

    Raises:
      BadInput: If a variance or a level is not above 0.
    """
    lam, theta = _variances(variances), _several("level", level)
    if (theta <= 0).any():
        raise BadInput(f"level: expected numbers above 0, got {theta.min()}.")
    rate = 0.5 * np.maximum(np.log(lam / theta[:, None]), 0).sum(-1)
    return CurvePoint(rate, np.minimum(lam, theta[:, None]).sum(-1), theta)


def at_rate(variances: Any, rate: Any) -> CurvePoint:
    """The point of R(D) at given rates: the level is found exactly, component by component.

    Args:
      variances: (n,) eigenvalues of the covariance.
      rate: (points,) nats, at least 0.

    Raises:
      BadInput: If a variance is not above 0 or a rate is negative.
    """
    lam, wanted = _variances(variances), _several("rate", rate)
    if (wanted < 0).any() or (wanted > _HIGHEST_RATE * len(lam)).any():
        raise BadInput(
            f"rate={rate!r}: expected at least 0 and at most {_HIGHEST_RATE:g} for each of the "
            f"{len(lam)} components."
        )
    # With the k largest components described, R = (sum_i<=k log variance_i - k log level) / 2; k
    # grows as long as the next component is above the level.
    k = np.arange(1, len(lam) + 1)
    log_levels = (np.cumsum(np.log(lam)) - 2 * wanted[:, None]) / k
    following = np.append(np.log(lam[1:]), -np.inf)
    first = np.argmax(log_levels >= following, axis=1)
    return water_filling(lam, np.exp(log_levels[np.arange(len(wanted)), first]))._replace(
        rate=wanted
    )


def distortion(error: Any, dimensions: int, noise: float) -> Any:
    """D of the decoder N(W z + b, noise^2 I), in nats, of a squared error summed over dimensions.

    It may be negative, since x is continuous.
    """
    return error / (2 * noise**2) + dimensions / 2 * (_LOG_2PI + 2 * np.log(noise))


def boundary(variances: Any, rate: Any, noise: float, latent: int | None = None) -> PerPoint:
    """Find the least distortion at given rates with a decoder N(f(z), noise^2 I).

    It is that of any encoder and prior.

    Args:
      variances: (n,) eigenvalues of the covariance.
      rate: (points,) nats.
      noise: Standard deviation of the decoder.
      latent: Latent dimensions of a linear model, which describes the largest components; None
        means any model.

    Raises:
      BadInput: As `at_rate`, or if noise or latent is out of range.
    """
    lam, noise = _variances(variances), number("noise", noise, above=True)
    kept = len(lam) if latent is None else min(whole("latent", latent), len(lam))
    return distortion(at_rate(lam[:kept], rate).error + lam[kept:].sum(), len(lam), noise)


def _mean(mean: Any, dimensions: int) -> np.ndarray:
    array = reals("mean", mean, 1)
    if len(array) != dimensions:
        raise BadInput(
            f"mean: expected {dimensions} elements, one for each dimension, got {len(array)}."
        )
    return array


class PPCA(NamedTuple):
    """Probabilistic PCA, x ~ N(mean, weights weights^T + noise^2 I).

    Attributes:
      mean: (n,) mean of x.
      weights: (n, latent) factor loadings.
      noise: Standard deviation of the noise.
    """

    mean: Any
    weights: Any
    noise: float

    @classmethod
    def fit(cls, mean: Any, matrix: Any, latent: int) -> "PPCA":
        """The maximum-likelihood fit to data of these moments.

        Tipping & Bishop 1999, eqs. 7 and 8.

        Raises:
          BadInput: If `matrix` is no covariance, `mean` does not fit it or `latent` is not below
            its size.
        """
        matrix = covariance("covariance", matrix)
        if whole("latent", latent) >= len(matrix):
            raise BadInput(
                f"latent={latent}: expected below {len(matrix)}, the dimensions of the data."
            )
        lam, directions = (a[..., ::-1] for a in np.linalg.eigh(matrix))
        noise2 = lam[latent:].mean()
        return cls(
            _mean(mean, len(matrix)),
            directions[:, :latent] * np.sqrt(np.maximum(lam[:latent] - noise2, 0)),
            float(np.sqrt(noise2)),
        )

    @property
    def covariance(self) -> np.ndarray:
        """Of x under the model."""
        return self.weights @ self.weights.T + self.noise**2 * np.eye(len(self.weights))

    def log_likelihood(self, mean: Any, matrix: Any) -> float:
        """Mean log-likelihood of data with these moments, in nats (Tipping & Bishop 1999, eq. 4).

        Raises:
          BadInput: If the moments are not of the model's size.
        """
        model, moments = self.covariance, reals("covariance", matrix, 2)
        if moments.shape != model.shape:
            raise BadInput(
                f"covariance: expected shape {model.shape}, the model's, got {moments.shape}."
            )
        shift = _mean(mean, len(model)) - self.mean
        error = np.trace(np.linalg.solve(model, moments + np.outer(shift, shift)))
        return float(-0.5 * (len(model) * _LOG_2PI + np.linalg.slogdet(model)[1] + error))

    def posterior(self) -> tuple[np.ndarray, np.ndarray]:
        """The posterior z | x ~ N(gain (x - mean), covariance).

        Returns:
          (latent, n) gain and (latent, latent) covariance.
        """
        precision = self.weights.T @ self.weights + self.noise**2 * np.eye(self.weights.shape[1])
        return np.linalg.solve(precision, self.weights.T), self.noise**2 * np.linalg.inv(precision)


@dataclasses.dataclass(frozen=True)
class Exact:
    """Rate and distortion of a linear VAE on data of given moments, no draw involved; nats."""

    rate: float
    distortion: float


def moments_to_terms(params: Params, mean: Any, matrix: Any, noise: float | None = 1.0) -> Exact:
    """Compute the exact rate and distortion of a `models.linear.linear_vae`.

    Both are quadratic in x, so data matter by their moments alone. Parameters so large that their
    squares overflow give infinity or NaN.

    Args:
      params: Parameters of one linear VAE.
      mean: (n,) mean of the data.
      matrix: (n, n) covariance of the data, divided by their number.
      noise: Standard deviation of the decoder, as given to `linear_vae`.

    Raises:
      BadInput: If noise is not above 0.
    """
    p: Any = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), dict(params))
    gain, a, log_scale = (
        p["encoder"]["mean"]["kernel"],
        p["encoder"]["mean"]["bias"],
        p["encoder"]["log_scale"],
    )
    weights, b = p["decoder"]["mean"]["kernel"], p["decoder"]["mean"]["bias"]
    noise = (
        float(np.exp(p["decoder"]["log_noise"]))
        if noise is None
        else number("noise", noise, above=True)
    )
    mean, matrix = np.asarray(mean, np.float64), np.asarray(matrix, np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        code_mean = mean @ gain + a
        code_square = np.trace(gain.T @ matrix @ gain) + code_mean @ code_mean
        rate = 0.5 * (code_square + (np.expm1(2 * log_scale) - 2 * log_scale).sum())
        residual = np.eye(len(mean)) - gain @ weights
        shift = mean - code_mean @ weights - b
        error = (
            np.trace(residual.T @ matrix @ residual)
            + shift @ shift
            + ((np.exp(log_scale)[:, None] * weights) ** 2).sum()
        )
    return Exact(float(rate), float(distortion(error, len(mean), noise)))
