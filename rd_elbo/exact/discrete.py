"""The paper's functionals on finite alphabets, as exact sums in log space.

A model of a finite source is four tables, and every expectation is a sum over them. Probabilities
of zero are allowed everywhere: what has no probability contributes nothing, and a distortion or a
rate is infinite where the paper's is. All functions work under `jax.vmap`, which makes a population
of tables of one; gradients are finite where no probability is zero. They compute in the type of the
tables: float32 by default, float64 in JAX's x64 mode (`JAX_ENABLE_X64=1`, or `with
jax.enable_x64(True)`).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import logsumexp
from jaxtyping import Array, Float

from rd_elbo import information
from rd_elbo.errors import BadInput

# How far from one the sum of a distribution may be that a user gives.
_TOLERANCE = 1e-6

Scalar = Float[Array, ""]
OverX = Float[Array, " x"]
OverZ = Float[Array, " z"]
ZGivenX = Float[Array, "x z"]
XGivenZ = Float[Array, "z x"]


class Tables(NamedTuple):
    """The four distributions of the paper over finite alphabets, as logarithms; log 0 is -inf.

    Attributes:
      source: (x,) log p*(x).
      encoder: (x, z) log e(z|x).
      decoder: (z, x) log d(x|z).
      prior: (z,) log m(z).
    """

    source: Any
    encoder: Any
    decoder: Any
    prior: Any


def tables(source: Any, encoder: Any, decoder: Any, prior: Any) -> Tables:
    """Tables from probabilities, each distribution along the last axis.

    Shapes are source (x,), encoder (x, z), decoder (z, x) and prior (z,).

    Raises:
      BadInput: If one of them is no distribution, or their shapes do not fit together.
    """
    given = {"source": source, "encoder": encoder, "decoder": decoder, "prior": prior}
    p, e, d, m = (distribution(name, value) for name, value in given.items())
    if p.ndim != 1 or m.ndim != 1 or e.shape != (len(p), len(m)) or d.shape != (len(m), len(p)):
        raise BadInput(
            "source, encoder, decoder and prior: expected shapes (x,), (x, z), (z, x) and (z,), "
            f"got {p.shape}, {e.shape}, {d.shape} and {m.shape}."
        )
    with np.errstate(divide="ignore"):
        return Tables(*(jnp.asarray(np.log(table)) for table in (p, e, d, m)))


def distribution(name: str, probabilities: Any) -> np.ndarray:
    """`probabilities` as an array of floats that sums to exactly one along its last axis.

    Raises:
      BadInput: If anything in it is negative or not finite, or a sum is further than 1e-6 from one.
    """
    try:
        array = np.asarray(probabilities, np.float64)
    except (TypeError, ValueError) as error:
        raise BadInput(
            f"{name}: expected an array of probabilities, got none ({error})."
        ) from error
    if array.ndim == 0 or array.size == 0:
        raise BadInput(f"{name}: expected an array of probabilities, got shape {array.shape}.")
    if not np.isfinite(array).all() or (array < 0).any():
        raise BadInput(
            f"{name}: expected finite probabilities of at least 0, got "
            f"{array[~(np.isfinite(array) & (array >= 0))][0]}."
        )
    sums = array.sum(-1, keepdims=True)
    worst = float(sums.flat[np.abs(sums - 1).argmax()])
    if abs(worst - 1) > _TOLERANCE:
        raise BadInput(f"{name}: expected sums of 1 along the last axis, got {worst:.9g}.")
    return array / sums


def expect(log_weight: Float[Array, "..."], value: Float[Array, "..."]) -> Scalar:
    """The sum of exp(log_weight) * value.

    A weight of zero, also by underflow, outweighs any value, infinite or NaN.
    """
    weight = jnp.exp(log_weight)
    return jnp.sum(weight * jnp.where(weight == 0, 0.0, value))


def entropy(log_p: Float[Array, "..."]) -> Scalar:
    """-sum p log p of a table of any shape, in nats."""
    return -expect(log_p, log_p)


def mutual_information(log_joint: Float[Array, "a b"]) -> Scalar:
    """Information between the row and the column of a joint distribution, in nats."""
    rows, columns = (
        logsumexp(log_joint, axis=1, keepdims=True),
        logsumexp(log_joint, axis=0, keepdims=True),
    )
    return expect(log_joint, log_joint - rows - columns)


# The joint distribution of encoding, p_e(x, z) = p*(x) e(z|x), all as (x, z).


def encoding(source: OverX, encoder: ZGivenX) -> Float[Array, "x z"]:
    """log p_e(x, z)."""
    return source[:, None] + encoder


def aggregate(source: OverX, encoder: ZGivenX) -> Float[Array, " z"]:
    """log p_e(z), the best prior for an encoder (Alemi et al. 2018, section 2)."""
    return logsumexp(encoding(source, encoder), axis=0)


def posterior(source: OverX, encoder: ZGivenX) -> Float[Array, "z x"]:
    """log p_e(x|z), the best decoder for an encoder (Alemi et al. 2018, section 2).

    It is log p*(x) for a z that is never used.
    """
    joint, z = encoding(source, encoder).T, aggregate(source, encoder)[:, None]
    used = z > -jnp.inf
    return jnp.where(used, joint - jnp.where(used, z, 0.0), source)


def rate(t: Tables) -> Scalar:
    """R = E log e(z|x)/m(z) (Alemi et al. 2018, section 2)."""
    return expect(
        encoding(t.source, t.encoder),
        information.rate(t.encoder, jnp.broadcast_to(t.prior, t.encoder.shape)),
    )


def distortion(t: Tables) -> Scalar:
    """D = -E log d(x|z) (Alemi et al. 2018, section 2)."""
    return expect(encoding(t.source, t.encoder), information.distortion(t.decoder.T))


def elbo(t: Tables) -> Scalar:
    """-(R + D)."""
    return -(rate(t) + distortion(t))


def encoder_information(t: Tables) -> Scalar:
    """I_e, the information between x and its code, between H - D and R."""
    return expect(
        encoding(t.source, t.encoder),
        information.encoder_information(t.encoder, aggregate(t.source, t.encoder)[None]),
    )


def prior_gap(t: Tables) -> Scalar:
    """R - I_e = KL(p_e(z) || m(z))."""
    z = aggregate(t.source, t.encoder)
    return expect(z, information.prior_gap(z, t.prior))


def decoder_gap(t: Tables) -> Scalar:
    """I_e - (H - D) = E KL(p_e(x|z) || d(x|z))."""
    gap = information.decoder_gap(posterior(t.source, t.encoder), t.decoder)
    return expect(encoding(t.source, t.encoder).T, gap)


def decoder_advantage(t: Tables, log_q: OverX) -> Scalar:
    """U = E log d(x|z)/q(x) under p_e, for any density q of x."""
    return expect(
        encoding(t.source, t.encoder), information.decoder_advantage(t.decoder.T, log_q[:, None])
    )


def density_gap(t: Tables, log_q: OverX) -> Scalar:
    """S = KL(p* || q), so that U - S = H - D."""
    return expect(t.source, information.density_gap(t.source, log_q))


# The joint distribution of generating, p_d(x, z) = m(z) d(x|z), all as (z, x).


def generating(t: Tables) -> Float[Array, "z x"]:
    """log p_d(z, x)."""
    return t.prior[:, None] + t.decoder


def evidence(t: Tables) -> Float[Array, " x"]:
    """log p_d(x) = log sum_z m(z) d(x|z), of every symbol."""
    return logsumexp(generating(t), axis=0)


def generative_lower(t: Tables) -> Scalar:
    """E <= I_d, by the encoder."""
    return expect(generating(t), information.generative_lower(t.encoder.T, t.prior[:, None]))


def generative_information(t: Tables) -> Scalar:
    """I_d, the information between z and the x generated from it."""
    return expect(generating(t), information.generative_information(t.decoder, evidence(t)[None]))


def generative_upper(t: Tables, log_q: OverX) -> Scalar:
    """G >= I_d, by any density q of x."""
    return expect(generating(t), information.generative_upper(t.decoder, log_q[None]))


# Symbol by symbol, as (x,).


def elbo_of(t: Tables) -> Float[Array, " x"]:
    """ELBO(x) of every symbol; its mean under p* is the ELBO."""
    return -_under_encoder(
        t,
        information.rate(t.encoder, jnp.broadcast_to(t.prior, t.encoder.shape))
        + information.distortion(t.decoder.T),
    )


def posterior_gap(t: Tables) -> Float[Array, " x"]:
    """KL(e(z|x) || p_d(z|x)) = log p_d(x) - ELBO(x) of every symbol.

    It is NaN for a symbol that the model cannot generate.
    """
    return _under_encoder(
        t, information.posterior_gap(t.encoder, t.prior[None], t.decoder.T, evidence(t)[:, None])
    )


def _under_encoder(t: Tables, value: Float[Array, "x z"]) -> Float[Array, " x"]:
    return jax.vmap(expect)(t.encoder, value)


# Where p* and the code are to be compared by eye, as the paper's Figure 2 does.


def generated(t: Tables) -> Float[Array, " x"]:
    """log g(x) = log sum_z m(z) d(x|z), what is drawn from the prior and decoded."""
    return evidence(t)


def reconstruction(t: Tables) -> Float[Array, "x x"]:
    """log p(x'|x) = log sum_z e(z|x) d(x'|z), rows x."""
    return logsumexp(t.encoder[:, :, None] + t.decoder[None], axis=1)


def reconstructed(t: Tables) -> Float[Array, " x"]:
    """log d(x') = log sum_x p*(x) p(x'|x), what data become when encoded and decoded."""
    return logsumexp(t.source[:, None] + reconstruction(t), axis=0)
