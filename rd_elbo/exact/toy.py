"""The toy model of Alemi et al. 2018 (section 4 and appendix E).

All its functionals are sums over two tables. A hidden bit z* is 0 or 1 with probability 0.7 and
0.3; given it, x is a Gaussian that falls into one of 30 bins, so that x carries 0.5 nats about z*.
Encoder, decoder and prior are categorical,

    e(z_i|x_j) = softmax_i[-(w_i x_j - b_i)^2]
    d(x_j|z_i) = softmax_j[-(v_j z_i - c_j)^2]
    m(z_i) = softmax_i[l_i]

The paper prints the exponents with the other sign and the parameters indexed by what is conditioned
on. Then every d(.|z) is one bump, the model cannot both ignore z and fit p*, and the ELBO does not
collapse; with parameters that belong to the output it does what the paper shows.
"""

import dataclasses
from statistics import NormalDist
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from rd_elbo.errors import BadInput, number, whole
from rd_elbo.exact import discrete
from rd_elbo.exact.discrete import Tables
from rd_elbo.models.layout import members_last
from rd_elbo.models.vae import Params, Terms

SYMBOLS = 30
# Read off the paper's Figure 2: P(z*), and mean and standard deviation of x given z*, in bins.
CLASSES = (0.7, 0.3)
MEANS, DEVIATIONS = (9.83, 19.10), (2.273, 3.359)


def labelled_source() -> np.ndarray:
    """(2, 30) probabilities p(z*, x).

    Bin k is [k - 1/2, k + 1/2]; mass outside all bins is left out.
    """
    edges = np.arange(SYMBOLS + 1) - 0.5
    rows = []
    for weight, mean, deviation in zip(CLASSES, MEANS, DEVIATIONS, strict=True):
        mass = np.diff([NormalDist(mean, deviation).cdf(edge) for edge in edges])
        rows.append(weight * mass / mass.sum())
    return np.stack(rows)


def source() -> np.ndarray:
    """(30,) probabilities p*(x)."""
    return labelled_source().sum(0)


def optimum() -> Tables:
    """The hand-built model with two codes (Alemi et al. 2018, Figure 2a).

    e(z|x) = p(z*|x), d(x|z) = p(x|z*), m = (0.7, 0.3). It lies on the diagonal D = H - R, at R =
    I(x; z*).
    """
    joint = labelled_source()
    given_bit = joint / joint.sum(1, keepdims=True)
    return discrete.tables(joint.sum(0), (joint / joint.sum(0)).T, given_bit, joint.sum(1))


def check_target(rate: float, codes: int) -> float:
    """`rate`, if so many codes can carry it.

    Raises:
      BadInput: If it is negative or above log(codes).
    """
    rate = number("target_rate", rate)
    if rate > np.log(codes):
        raise BadInput(
            f"target_rate={rate!r}: expected at most log {codes} = {np.log(codes):.4g} nats, all "
            f"that {codes} codes can carry."
        )
    return rate


@dataclasses.dataclass(frozen=True)
class Toy:
    """The toy model as the trainer wants it (`models.vae.Trainable`).

    An example is a distribution over the 30 symbols, and its rate and distortion are their exact
    means under it. So training on the single example p* is training on infinitely many data; a
    batch of one-hot rows is a batch of observed symbols.

    Attributes:
      codes: Size of the code's alphabet.
      initial_scale: Standard deviation of the initial w, b, v and c; the prior starts uniform.
    """

    codes: int = 30
    initial_scale: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "codes", whole("codes", self.codes, 2))
        object.__setattr__(self, "initial_scale", number("initial_scale", self.initial_scale))

    def init(self, key: Array, x: Float[Array, "batch symbols"]) -> Params:
        """60 numbers of the encoder, 60 of the decoder and 30 of the prior, with 30 codes."""
        w, b, v, c = (
            self.initial_scale * jax.random.normal(k, (n,), x.dtype)
            for k, n in zip(
                jax.random.split(key, 4),
                (self.codes, self.codes, x.shape[-1], x.shape[-1]),
                strict=True,
            )
        )
        return {
            "encoder": {"w": w, "b": b},
            "decoder": {"v": v, "c": c},
            "prior": {"l": jnp.zeros(self.codes, x.dtype)},
        }

    def terms(self, params: Params, x: Float[Array, "batch symbols"], key: Array) -> Terms:
        """Exact rate and distortion of each distribution in `x`; the code is p_e(z) under it."""
        del key
        return Terms(*_terms(*_leaves(params), x))

    def rate_estimator(self, params: Params, x: Any) -> str:
        """The rate is a closed form."""
        return "closed_form"

    def tables(self, params: Params, p: Float[Array | np.ndarray, " symbols"]) -> Tables:
        """The model as tables, for a source of probabilities `p`."""
        e, d, m = (table.log[..., 0] for table in _tables(*(a[..., None] for a in _leaves(params))))
        return Tables(jnp.log(p), e.T, d, m)


def _leaves(params: Params) -> tuple[Array, ...]:
    encoder, decoder = params["encoder"], params["decoder"]
    leaves = encoder["w"], encoder["b"], decoder["v"], decoder["c"], params["prior"]["l"]
    return tuple(map(jnp.asarray, leaves))


def _positions(count: int) -> np.ndarray:
    """Where the symbols, or the codes, lie: evenly in (-1, 1)."""
    return (np.arange(count) - (count - 1) / 2) / (count / 2)


class _Table(NamedTuple):
    """Log-probabilities and probabilities."""

    log: Array
    p: Array


def _softmax(exponents: Array, axis: int) -> _Table:
    # Both from one exponential, which the gradient uses again: exponentials are what costs here.
    shifted = exponents - lax.stop_gradient(exponents.max(axis, keepdims=True))
    masses = jnp.exp(shifted)
    total = masses.sum(axis, keepdims=True)
    return _Table(shifted - jnp.log(total), masses / total)


def _tables(w: Array, b: Array, v: Array, c: Array, logits: Array) -> tuple[_Table, _Table, _Table]:
    """e(z|x) and d(x|z), both as (z, x, members), and m(z) as (z, members)."""
    x = jnp.asarray(_positions(len(v)), v.dtype)[None, :, None]
    z = jnp.asarray(_positions(len(w)), w.dtype)[:, None, None]
    e = _softmax(-((w[:, None] * x - b[:, None]) ** 2), axis=0)
    d = _softmax(-((v[None] * z - c[None]) ** 2), axis=1)
    return e, d, _softmax(logits, axis=0)


@members_last
def _terms(
    w: Array, b: Array, v: Array, c: Array, logits: Array, p: Array
) -> tuple[Array, Array, Array]:
    """Rate, distortion and p_e(z) of sources p (batch, x, members).

    Returns:
      (batch, members) rate, (batch, members) distortion, nats, and (batch, z, members) p_e(z).
    """
    e, d, m = _tables(w, b, v, c, logits)
    rate = (e.p * (e.log - m.log[:, None])).sum(0)
    distortion = -(e.p * d.log).sum(0)
    return (p * rate).sum(1), (p * distortion).sum(1), (p[:, None] * e.p).sum(2)


# A code of less probability plays no part.
_USED = 1e-3


class Codes(NamedTuple):
    """Relation of the codes to the hidden bit.

    Attributes:
      information: I(z; z*), nats.
      used: Number of codes with a probability p_e(z) above 0.001.
      larger_mass: p_e of the larger of the two clusters into which codes fall by the bit that is
        more probable given them; 1 if the codes say nothing.
    """

    information: Any
    used: Any
    larger_mass: Any


def codes_and_bit(log_labelled: Float[Array, "2 x"], encoder: Float[Array, "x z"]) -> Codes:
    """Compares a code with the hidden bit; `log_labelled` is log p(z*, x)."""
    joint = jax.nn.logsumexp(log_labelled[:, :, None] + encoder[None], axis=1)
    mass = jnp.exp(joint)
    first = jnp.where(mass[0] >= mass[1], mass.sum(0), 0.0).sum()
    return Codes(
        discrete.mutual_information(joint),
        (mass.sum(0) > _USED).sum(),
        jnp.maximum(first, 1 - first),
    )
