"""The exact rate-distortion function of a finite source, with a certificate.

By the algorithm of Blahut and Arimoto. R(D) = min I(x; z) over encoders with E d(x, z) <= D. Each
point of the curve is the least of D + beta I for one beta, where the slope is -dD/dR = beta; the
encoder and the best prior are improved in turn. Arimoto's and Blahut's bound limits the distance
from the optimum after every round, so the result is known to that accuracy. Where many symbols are
almost interchangeable the algorithm needs millions of rounds; slopes that it leaves unfinished are
finished by Newton's method on the same convex problem, and held to the same certificate.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.nn import logsumexp
from jaxtyping import Array, Float

from rd_elbo.errors import BadInput, number, reals, whole
from rd_elbo.exact import alternating, discrete

# Each divides the distance from the optimum by about ten; far more than that are needed only where
# rounding ends it anyway.
_NEWTON_STEPS = 40
# Of beta log c and of D, relative to beta and the largest distortion.
_ROUNDING = 8 * np.finfo(np.float64).eps


class RDCurve(NamedTuple):
    """Points of a rate-distortion curve, one for each beta, as NumPy arrays in float64.

    Attributes:
      beta: (slopes,) -dD/dR.
      rate: (slopes,) nats.
      distortion: (slopes,) in the units of the distortion matrix.
      encoder: (slopes, x, z) log e(z|x).
      prior: (slopes, z) log m(z), the best one for the encoder.
      gap: (slopes,) D + beta R is at most this far above its least value, rounding included, and R
        at most gap / beta above R(D).
      iterations: (slopes,) rounds of Blahut and Arimoto.
    """

    beta: np.ndarray
    rate: np.ndarray
    distortion: np.ndarray
    encoder: np.ndarray
    prior: np.ndarray
    gap: np.ndarray
    iterations: np.ndarray


def blahut_arimoto(
    source: Any, distortion: Any, beta: Any, *, tolerance: float = 1e-9, max_iterations: int = 1_000
) -> RDCurve:
    """Points of R(D) at the slopes -dD/dR = beta.

    Args:
      source: (x,) probabilities p*(x).
      distortion: (x, z) finite and not negative: what it costs to have z stand for x. For a decoder
        it is -log d(x|z), the transpose of -`discrete.Tables.decoder`, if nothing in that is
        impossible; the curve is then the lowest the decoder can reach with any encoder and prior.
      beta: (slopes,) above 0. Small ones give high rates.
      tolerance: Accuracy at which a slope is done: its largest `gap` and gap / beta, but for
        rounding.
      max_iterations: Most rounds of a slope; Newton's method finishes the rest. `gap` says how
        good each point is.

    Returns:
      The curve, in the order of `beta`. Computed in float64 whatever JAX's settings.

    Raises:
      BadInput: If the source is no distribution, a distortion is negative or not finite, or beta is
        not above 0 or too small for float64.
    """
    p = discrete.distribution("source", source)
    costs = reals("distortion", distortion, 2)
    slopes = reals("beta", np.atleast_1d(beta) if np.ndim(beta) == 0 else beta, 1)
    if p.ndim != 1 or len(costs) != len(p):
        raise BadInput(
            f"source and distortion: expected shapes (x,) and (x, z), got {p.shape} and "
            f"{costs.shape}."
        )
    if (costs < 0).any():
        raise BadInput(f"distortion: expected numbers of at least 0, got {costs[costs < 0][0]}.")
    with np.errstate(all="ignore"):
        overflows = not np.isfinite(costs.max() / slopes).all()
    if (slopes <= 0).any() or overflows:
        raise BadInput(
            "beta: expected numbers above 0 that divide the distortion without overflow, got "
            f"{slopes.min()}."
        )
    tolerance, max_iterations = (
        number("tolerance", tolerance),
        whole("max_iterations", max_iterations),
    )
    # What every code costs a symbol changes no encoder, only digits.
    least = costs.min(axis=1)
    spread = costs - least[:, None]
    with jax.enable_x64(True), np.errstate(divide="ignore"):
        result = _solve(np.log(p), spread, slopes, tolerance, max_iterations)
        rate, distortion, encoder, prior, gap, iterations = (np.asarray(array) for array in result)
    rounding = _ROUNDING * (slopes + spread.max() + least.max())
    return RDCurve(slopes, rate, distortion + p @ least, encoder, prior, gap + rounding, iterations)


@functools.partial(jax.jit, static_argnums=4)
@functools.partial(jax.vmap, in_axes=(None, None, 0, None, None))
def _solve(
    log_p: Any, costs: Any, beta: Any, tolerance: Any, max_iterations: int
) -> tuple[Array, ...]:
    def ratio(prior: Float[Array, " z"]) -> Float[Array, " z"]:
        """log c(z) = log p_e(z)/m(z) after the encoder's step.

        D + beta R is at most beta max log c above its least value.
        """
        log_z = logsumexp(prior[None] - costs / beta, axis=1, keepdims=True)
        return logsumexp(log_p[:, None] - costs / beta - log_z, axis=0)

    def unfinished(state: tuple[Array, Array, Array]) -> Array:
        _, log_c, i = state
        return (jnp.maximum(1.0, beta) * log_c.max() > tolerance) & (i < max_iterations)

    def improve(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        prior, log_c, i = state
        prior = jax.nn.log_softmax(prior + log_c)
        return prior, ratio(prior), i + 1

    uniform = jnp.full(costs.shape[1], -jnp.log(costs.shape[1]))
    prior, log_c, iterations = lax.while_loop(
        unfinished, improve, (uniform, ratio(uniform), jnp.int32(0))
    )
    polished = jnp.log(_interior_point(jnp.exp(log_p), costs / beta))
    # False where the polished one is NaN.
    better = (log_c.max() * jnp.maximum(1.0, beta) > tolerance) & (
        ratio(polished).max() < log_c.max()
    )
    prior = jnp.where(better, polished, prior)

    encoder = alternating.encoder_step(
        prior, -costs.T, beta
    )  # -distortion is a log decoder, but for a factor
    best = discrete.aggregate(log_p, encoder)
    joint = discrete.encoding(log_p, encoder)
    rate, distortion = discrete.expect(joint, encoder - best[None]), discrete.expect(joint, costs)
    return (
        jnp.maximum(rate, 0.0),
        distortion,
        encoder,
        best,
        beta * jnp.maximum(ratio(prior).max(), 0.0),
        iterations,
    )


def _interior_point(p: Float[Array, " x"], costs: Float[Array, "x z"]) -> Float[Array, " z"]:
    """Find the prior m that minimises -sum_x p(x) log sum_z m(z) exp(-costs(x, z)).

    By a primal-dual interior-point method. Every symbol's least cost is 0, so that nothing
    underflows that matters.

    With c(z) = sum_x p(x) exp(-costs(x, z)) / sum_z' m(z') exp(-costs(x, z')), the best m has c <=
    1 and m (1 - c) = 0; that m sums to one follows. Newton's method is applied to m s = mu, s = 1 -
    c, for a falling mu.
    """
    kernel = jnp.exp(-costs)
    codes = costs.shape[1]

    def longest(value: Array, step: Array) -> Array:
        return jnp.minimum(1.0, 0.99 * jnp.min(jnp.where(step < 0, -value / step, jnp.inf)))

    def newton(_: Any, state: tuple[Array, Array]) -> tuple[Array, Array]:
        m, s = state
        weight = p / (kernel @ m)
        hessian = (kernel.T * (weight / (kernel @ m))) @ kernel
        mu = 0.1 * (m @ s) / codes
        dm = jnp.linalg.solve(hessian + jnp.diag(s / m), mu / m + kernel.T @ weight - 1)
        ds = (mu - s * dm) / m - s
        step = jnp.minimum(longest(m, dm), longest(s, ds))
        new = m + step * dm, s + step * ds
        # Codes that are copies of each other make the Hessian singular in the end; by then m is as
        # good as it gets.
        good = jnp.isfinite(new[0]).all() & jnp.isfinite(new[1]).all()
        return jax.tree.map(lambda after, before: jnp.where(good, after, before), new, state)

    m, _ = lax.fori_loop(0, _NEWTON_STEPS, newton, (jnp.full(codes, 1 / codes), jnp.ones(codes)))
    return m / m.sum()
