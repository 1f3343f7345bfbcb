"""Coordinate descent on D + beta R over encoder, decoder and prior.

Each step puts one of them at its exact optimum. At beta = 1 this is expectation maximisation: the
encoder's step is the exact posterior (E), the decoder's and the prior's are the weighted
maximum-likelihood fits (M), and the objective is the negative ELBO. With the decoder held fixed it
is the algorithm of Blahut and Arimoto for the distortion -log d(x|z). The objective never rises,
whatever beta, but for rounding.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.nn import logsumexp
from jaxtyping import Array, Float

from rd_elbo.errors import BadInput, choice, number, whole
from rd_elbo.exact import discrete
from rd_elbo.exact.discrete import OverX, OverZ, Tables, XGivenZ, ZGivenX

# From log p*(x) and log e(z|x) to the log d(x|z) of a family that makes the distortion least.
DecoderFit = Callable[[Any, Any], Any]
PARTS = ("encoder", "decoder", "prior")


def encoder_step(prior: OverZ, decoder: XGivenZ, beta: Float[Array, ""] | float) -> ZGivenX:
    """The encoder that makes D + beta R least: e(z|x) in proportion to m(z) d(x|z)^(1/beta).

    At beta = 1 it is the posterior p_d(z|x). A symbol that no code can emit has infinite distortion
    under any encoder; it gets m.
    """
    # Before the division, which would cost digits where beta is small.
    best = decoder.max(axis=0)[:, None]
    logits = prior[None] + (decoder.T - jnp.where(best > -jnp.inf, best, 0.0)) / beta
    possible = (logits > -jnp.inf).any(axis=1, keepdims=True)
    return jnp.where(
        possible, jax.nn.log_softmax(jnp.where(possible, logits, 0.0), axis=1), prior[None]
    )


def bernoulli_products(bits: Any) -> DecoderFit:
    """The fit of Bernoulli decoders, d(x|z) = prod_i mu_zi^x_i (1 - mu_zi)^(1 - x_i).

    Args:
      bits: (x, bits) of zeros and ones, those of every symbol. If they are all 2^n combinations d
        is a distribution, and EM is that of a mixture of Bernoulli products (latent class
        analysis).

    Raises:
      BadInput: If there is anything but zeros and ones.
    """
    array = np.asarray(bits)
    if array.ndim != 2 or not np.isin(array, (0, 1)).all():
        raise BadInput(f"bits={bits!r}: expected a table (symbols, bits) of zeros and ones.")

    def fit(source: OverX, encoder: ZGivenX) -> XGivenZ:
        # Sums in log space for ones and zeros alike: 1 - mu would round to zero where ones are
        # merely likely.
        members = discrete.posterior(source, encoder)[:, :, None]
        one, zero = (
            logsumexp(jnp.where(array[None] == bit, members, -jnp.inf), axis=1) for bit in (1, 0)
        )
        both = jnp.logaddexp(one, zero)
        return jnp.where(array[None] == 1, (one - both)[:, None], (zero - both)[:, None]).sum(-1)

    return fit


def minimise(
    start: Tables,
    beta: float,
    steps: int,
    parts: str | Sequence[str] = PARTS,
    decoder_fit: DecoderFit = discrete.posterior,
) -> tuple[Tables, Float[Array, " steps"]]:
    """Improve the given parts in turn, encoder first.

    Args:
      start: First tables. A code of zero probability stays unused, and an encoder, decoder and
        prior that ignore z are a stationary point, so a start should be random.
      beta: Weight of the rate, above 0.
      steps: Rounds over the parts.
      parts: Parts to improve, of "encoder", "decoder" and "prior"; the others stay as they are.
      decoder_fit: Fit of the decoder; by default the unrestricted best one, p_e(x|z).

    Returns:
      The tables and D + beta R after each round, which never rises but for rounding.

    Raises:
      BadInput: If `beta` or `steps` is out of range or a part does not exist.
    """
    beta, steps = number("beta", beta, above=True), whole("steps", steps)
    for part in (parts,) if isinstance(parts, str) else parts:
        choice("parts", part, PARTS)
    return _minimise(
        start, beta, steps, (parts,) if isinstance(parts, str) else tuple(parts), decoder_fit
    )


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _minimise(
    start: Tables, beta: Any, steps: int, parts: tuple[str, ...], decoder_fit: DecoderFit
) -> tuple[Tables, Float[Array, " steps"]]:
    def round_(t: Tables, _: None) -> tuple[Tables, Array]:
        if "encoder" in parts:
            t = t._replace(encoder=encoder_step(t.prior, t.decoder, beta))
        if "decoder" in parts:
            t = t._replace(decoder=decoder_fit(t.source, t.encoder))
        if "prior" in parts:
            t = t._replace(prior=discrete.aggregate(t.source, t.encoder))
        return t, discrete.distortion(t) + beta * discrete.rate(t)

    return lax.scan(round_, start, None, steps)
