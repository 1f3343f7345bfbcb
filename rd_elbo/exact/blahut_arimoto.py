"""The exact rate-distortion function of a finite source, by Blahut's and Arimoto's algorithm, with a certificate.

R(D) = min I(x; z) over encoders with E d(x, z) <= D. Each point of the curve is the least of D + beta I for one beta, where the
slope is -dD/dR = beta; the encoder and the best marginal are improved in turn. Arimoto's and Blahut's bound tells after every
round how far from the optimum it is at most, so what is returned is known to that accuracy.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.nn import logsumexp
from jaxtyping import Array, Float

from rd_elbo.errors import BadInput, number, whole
from rd_elbo.exact import alternating, discrete


class Curve(NamedTuple):
    """Points of a rate-distortion curve, one for each beta, as NumPy arrays in float64.

    Attributes:
      beta: (slopes,) -dD/dR.
      rate: (slopes,) nats.
      distortion: (slopes,) in the units of the distortion matrix.
      encoder: (slopes, x, z) log e(z|x).
      marginal: (slopes, z) log m(z), the best one for the encoder.
      gap: (slopes,) D + beta R is at most this far above its least value, and R at most gap / beta above R(D).
      iterations: (slopes,) rounds made.
    """

    beta: np.ndarray
    rate: np.ndarray
    distortion: np.ndarray
    encoder: np.ndarray
    marginal: np.ndarray
    gap: np.ndarray
    iterations: np.ndarray


def blahut_arimoto(source: Any, distortion: Any, beta: Any, *, tolerance: float = 1e-9, max_iterations: int = 100_000) -> Curve:
    """Points of R(D) at the slopes -dD/dR = beta.

    Args:
      source: (x,) probabilities p*(x).
      distortion: (x, z) finite and not negative: what it costs to have z stand for x. For a decoder d(x|z) it is -log d(x|z), and
        the curve is the lowest that decoder can reach with any encoder and marginal.
      beta: (slopes,) above 0. Small ones give high rates.
      tolerance: Each slope stops once its `gap` and gap / beta are at most this.
      max_iterations: Or after so many rounds; only `gap` then tells how good the point is.

    Returns:
      The curve, in the order of `beta`. Computed in float64 whatever JAX's settings.

    Raises:
      BadInput: If the source is no distribution, a distortion is negative or not finite, or beta is not above 0.
    """
    p = discrete.distribution("source", source)
    costs = np.asarray(distortion, np.float64)
    slopes = np.atleast_1d(np.asarray(beta, np.float64))
    if p.ndim != 1 or costs.ndim != 2 or len(costs) != len(p) or costs.shape[1] == 0:
        raise BadInput(f"shapes source {p.shape} and distortion {costs.shape} must be (x,) and (x, z)")
    if not np.isfinite(costs).all() or (costs < 0).any():
        raise BadInput(f"distortion holds {costs[~(np.isfinite(costs) & (costs >= 0))][0]}; it must be finite and not negative")
    if slopes.ndim != 1 or not np.isfinite(slopes).all() or (slopes <= 0).any():
        raise BadInput(f"beta={beta!r} must be finite numbers above 0")
    tolerance, max_iterations = number("tolerance", tolerance), whole("max_iterations", max_iterations)
    with jax.enable_x64(True), np.errstate(divide="ignore"):
        result = _solve(np.log(p), costs, slopes, tolerance, max_iterations)
        return Curve(slopes, *(np.asarray(array) for array in result))


@functools.partial(jax.jit, static_argnums=4)
@functools.partial(jax.vmap, in_axes=(None, None, 0, None, None))
def _solve(log_p: Any, costs: Any, beta: Any, tolerance: Any, max_iterations: int) -> tuple[Array, ...]:
    decoder = -costs.T  # a decoder up to a factor, which is all that the encoder's step needs

    def ratio(marginal: Float[Array, " z"]) -> Float[Array, " z"]:
        """log c(z), p_e(z) / m(z) after the encoder's step; the gap is beta max log c, and none where all used z have c = 1."""
        return logsumexp(log_p[:, None] - costs / beta - logsumexp(marginal[None] - costs / beta, axis=1, keepdims=True), axis=0)

    def unfinished(carry: tuple[Array, Array, Array]) -> Array:
        _, log_c, i = carry
        return (jnp.maximum(1.0, beta) * log_c.max() > tolerance) & (i < max_iterations)

    def improve(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        marginal, log_c, i = carry
        marginal = jax.nn.log_softmax(marginal + log_c)
        return marginal, ratio(marginal), i + 1

    codes = costs.shape[1]
    uniform = jnp.full(codes, -jnp.log(codes))
    marginal, log_c, iterations = lax.while_loop(unfinished, improve, (uniform, ratio(uniform), jnp.int32(0)))
    encoder = alternating.encoder_step(marginal, decoder, beta)
    joint = discrete.encoding(log_p, encoder)
    best = discrete.aggregate(log_p, encoder)
    rate = discrete.expect(joint, encoder - best[None])
    gap = jnp.maximum(beta * log_c.max(), 0.0)
    return jnp.maximum(rate, 0.0), discrete.expect(joint, costs), encoder, best, gap, iterations
