"""Rate, distortion and ELBO as functions of the four densities (Alemi et al. 2018, section 2).

Everything is in nats, summed over pixels and latent dimensions, one number per example; averages over examples are the caller's.
The names are the paper's: p*(x) data, e(z|x) encoder, d(x|z) decoder, m(z) marginal.
"""

import distrax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Rates = Float[Array, "*batch"] | Float[np.ndarray, "*batch"] | float


def rate(log_e: Float[Array, "*batch"], log_m: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """One-sample rate log e(z|x) - log m(z), z ~ e(z|x); its mean is R (Alemi et al. 2018, section 2).

    R is an upper bound on the mutual information of X and Z. A single sample of it may be negative; its mean may not.
    """
    return log_e - log_m


def distortion(log_d: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """One-sample distortion -log d(x|z), z ~ e(z|x); its mean is D (Alemi et al. 2018, section 2)."""
    return -log_d


def elbo(rate: Rates, distortion: Rates) -> Rates:
    """The evidence lower bound -(R + D), of examples or of their means."""
    return -(rate + distortion)


def has_closed_form_rate(e: distrax.DistributionLike, m: distrax.DistributionLike) -> bool:
    """Whether `closed_form_rate` applies: both encoder and marginal are Gaussians with diagonal covariance."""
    return isinstance(e, distrax.MultivariateNormalDiag) and isinstance(m, distrax.MultivariateNormalDiag)


def closed_form_rate(e: distrax.MultivariateNormalDiag, m: distrax.MultivariateNormalDiag) -> Float[Array, "*batch"]:
    """The rate KL(e(z|x) || m(z)) of each example without sampling, for diagonal Gaussians.

    Each dimension is written as a sum of two terms that are never negative, ((mu_e - mu_m) / s_m)^2 and expm1(t) - t with
    t = 2 log(s_e / s_m), so that the rate of a collapsed encoder does not drown in rounding.
    """
    shift = (e.loc - m.loc) / m.scale_diag
    stretch = 2 * jnp.log(e.scale_diag / m.scale_diag)
    return 0.5 * jnp.sum(shift**2 + jnp.maximum(jnp.expm1(stretch) - stretch, 0), axis=-1)
