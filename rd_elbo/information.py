"""Rate, distortion and ELBO as functions of the four densities (Alemi et al. 2018, section 2).

Everything is in nats, summed over pixels and latent dimensions, one number per example; averages
over examples are the caller's. The symbols are the paper's: p*(x) data, e(z|x) encoder, d(x|z)
decoder, m(z) prior, which the paper calls the marginal. Two joint distributions follow: p_e(x, z) =
p*(x) e(z|x), with marginal p_e(z) and posterior p_e(x|z), and p_d(x, z) = m(z) d(x|z). Every
functional of the paper is the mean of a difference of log-densities under one of the two. The
functions here are those differences, and `exact.discrete` takes their means exactly where alphabets
are finite::

    under p_e:  R = rate,  D = distortion,  I_e = encoder_information,  U = decoder_advantage
                R - I_e = prior_gap,  I_e - (H - D) = decoder_gap,  so that H - D <= I_e <= R
    under p_d:  E = generative_lower <= I_d = generative_information <= G = generative_upper
    under p*:   S = density_gap, and U - S = H - D
    under e:    posterior_gap, and log p_d(x) = ELBO(x) + KL(e(z|x) || p_d(z|x));
                log_weight, whose mean is ELBO(x), and importance_weighted_bound of several draws

>>> import distrax, jax.numpy as jnp, rd_elbo as rd
>>> e = distrax.MultivariateNormalDiag(jnp.array([[2.0, 0.0]]), jnp.ones((1, 2)))
>>> m = distrax.MultivariateNormalDiag(jnp.zeros(2), jnp.ones(2))
>>> rd.information.closed_form_rate(e, m).tolist()  # half the squared distance of the means
[2.0]
"""

import distrax
import jax.numpy as jnp
import numpy as np
from jax.nn import logsumexp
from jaxtyping import Array, Float

Rates = Float[Array, "*batch"] | Float[np.ndarray, "*batch"] | float
LogDensity = Float[Array, "..."]


def rate(log_e: Float[Array, "*batch"], log_m: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """One-sample rate log e(z|x) - log m(z), z ~ e(z|x); its mean is R.

    Alemi et al. 2018, section 2. R is an upper bound on the mutual information of X and Z. A single
    sample of it may be negative; its mean may not.
    """
    return log_e - log_m


def distortion(log_d: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """One-sample distortion -log d(x|z), z ~ e(z|x); its mean is D.

    Alemi et al. 2018, section 2.
    """
    return -log_d


def elbo(rate: Rates, distortion: Rates) -> Rates:
    """The evidence lower bound -(R + D), of examples or of their means."""
    return -(rate + distortion)


def has_closed_form_rate(e: distrax.DistributionLike, m: distrax.DistributionLike) -> bool:
    """Whether `closed_form_rate` applies: both are Gaussians of diagonal covariance."""
    return isinstance(e, distrax.MultivariateNormalDiag) and isinstance(
        m, distrax.MultivariateNormalDiag
    )


def closed_form_rate(
    e: distrax.MultivariateNormalDiag, m: distrax.MultivariateNormalDiag
) -> Float[Array, "*batch"]:
    """The rate KL(e(z|x) || m(z)) of each example without sampling, for diagonal Gaussians.

    Each dimension is a sum of two terms that are never negative: ((mu_e - mu_m) / s_m)^2, and
    expm1(t) - t with t = 2 log(s_e / s_m). The rate of a collapsed encoder does not drown in
    rounding.
    """
    shift = (e.loc - m.loc) / m.scale_diag
    stretch = 2 * jnp.log(e.scale_diag / m.scale_diag)
    return 0.5 * jnp.sum(shift**2 + jnp.maximum(jnp.expm1(stretch) - stretch, 0), axis=-1)


def encoder_information(log_e: LogDensity, log_aggregate: LogDensity) -> LogDensity:
    """log e(z|x) - log p_e(z); its mean under p_e is I_e.

    I_e is the information that the code carries (Alemi et al. 2018, section 2).
    """
    return log_e - log_aggregate


def prior_gap(log_aggregate: LogDensity, log_m: LogDensity) -> LogDensity:
    """log p_e(z) - log m(z); its mean under p_e is R - I_e = KL(p_e(z) || m(z)).

    It is the cost of a wrong prior. Alemi et al. 2018, appendices C and D: zero only for the prior
    m = p_e(z).
    """
    return log_aggregate - log_m


def decoder_gap(log_posterior: LogDensity, log_d: LogDensity) -> LogDensity:
    """log p_e(x|z) - log d(x|z); its mean under p_e is I_e - (H - D).

    It is E KL(p_e(x|z) || d(x|z)), the cost of a wrong decoder. Alemi et al. 2018, appendices C and
    D: zero only for the decoder d = p_e(x|z).
    """
    return log_posterior - log_d


def generative_lower(log_e: LogDensity, log_m: LogDensity) -> LogDensity:
    """log e(z|x) - log m(z); its mean under p_d is E, a lower bound on I_d.

    Alemi et al. 2018, appendices C and D. The same difference as `rate`, under the other joint
    distribution.
    """
    return log_e - log_m


def generative_information(log_d: LogDensity, log_evidence: LogDensity) -> LogDensity:
    """log d(x|z) - log p_d(x); its mean under p_d is I_d.

    I_d is the information between z and an x generated from it.
    """
    return log_d - log_evidence


def generative_upper(log_d: LogDensity, log_q: LogDensity) -> LogDensity:
    """log d(x|z) - log q(x); its mean under p_d is G.

    G is an upper bound on I_d for any density q of x, tight at q = p_d.
    """
    return log_d - log_q


def decoder_advantage(log_d: LogDensity, log_q: LogDensity) -> LogDensity:
    """log d(x|z) - log q(x); its mean under p_e is U.

    U is the gain in predicting x from the code, over q without a code.
    """
    return log_d - log_q


def density_gap(log_p: LogDensity, log_q: LogDensity) -> LogDensity:
    """log p*(x) - log q(x); its mean under p* is S = KL(p* || q).

    U - S = H - D for any q.
    """
    return log_p - log_q


def posterior_gap(
    log_e: LogDensity, log_m: LogDensity, log_d: LogDensity, log_evidence: LogDensity
) -> LogDensity:
    """log e(z|x) - log p_d(z|x), by Bayes' rule.

    Its mean under e is KL(e(z|x) || p_d(z|x)) = log p_d(x) - ELBO(x).
    """
    return log_e - (log_m + log_d - log_evidence)


def log_weight(log_e: LogDensity, log_m: LogDensity, log_d: LogDensity) -> LogDensity:
    """log m(z) d(x|z) / e(z|x), the log importance weight of a draw z ~ e(z|x), nats.

    Under e its mean is ELBO(x), and the mean of its exponential is p_d(x).
    """
    return log_m + log_d - log_e


def importance_weighted_bound(log_weights: LogDensity) -> LogDensity:
    """log 1/K sum_k w_k <= log p_d(x), in expectation (Burda et al. 2016, section 3).

    The expectation is ELBO(x) for one draw, rises with their number, and tends to log p_d(x). If
    the encoder is the posterior p_d(z|x), every draw gives log p_d(x).

    Args:
      log_weights: (samples, ...) logarithms of the weights of independent draws, nats.

    Returns:
      (...) bounds, nats.
    """
    return logsumexp(log_weights, axis=0) - jnp.log(len(log_weights))
