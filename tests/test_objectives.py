"""Objectives as functions of the mean rate and distortion, and through a whole model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rd_elbo.models.family import Architecture
from rd_elbo.objectives import LossWeights, annealed, beta, target_rate

ARCHITECTURE = Architecture(latent=3, encoder_width=6, decoder_width=4, decoder_depth=1)


def losses(objective, weights, architecture=ARCHITECTURE):
    """The loss of one batch by its weights, and its mean rate and distortion."""
    x = (jax.random.uniform(jax.random.key(0), (8, 5, 4)) < 0.3).astype(float)
    model = architecture.build((5, 4))
    params = model.init(jax.random.key(1), x)
    terms = model.terms(params, x, jax.random.key(2))
    rate, distortion = terms.rate.mean(), terms.distortion.mean()
    loss = jax.value_and_grad(lambda w: objective(rate, distortion, w))(weights)
    return loss, rate, distortion, terms


@pytest.mark.parametrize("decoder", ["mlp", "pixelcnn"])
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0, 4.0])
def test_derivative_with_respect_to_beta_is_the_rate(decoder, value):
    architecture = dataclasses.replace(ARCHITECTURE, decoder=decoder)
    (loss, slope), rate, distortion, _ = losses(beta, LossWeights(value, 0.0, 0.0), architecture)
    assert rate > 0.01
    np.testing.assert_allclose(slope.beta, rate, rtol=1e-6)
    np.testing.assert_allclose(loss, distortion + value * rate, rtol=1e-6)


def test_target_rate_takes_the_mean_before_the_absolute_value():
    _, rate, distortion, terms = losses(beta, LossWeights(1.0, 0.0, 0.0))
    sigma, weight = float(rate), 2.0
    assert np.abs(terms.rate - sigma).mean() > 0.05  # so the two readings differ
    (loss, _), _, _, _ = losses(target_rate, LossWeights(1.0, sigma, weight))
    np.testing.assert_allclose(loss, distortion, rtol=1e-6)
    (loss, slope), _, _, _ = losses(target_rate, LossWeights(1.0, sigma + 3.0, weight))
    np.testing.assert_allclose(loss, distortion + weight * 3.0, rtol=1e-6)
    np.testing.assert_allclose([slope.target_rate, slope.target_weight], [weight, 3.0], rtol=1e-5)


def test_target_rate_of_weight_one_is_flat_on_the_diagonal_and_of_weight_two_is_not():
    """On D = H - R with R > sigma, D + |sigma - R| = H - sigma: no rate is preferred."""

    def diagonal(weight):
        return jax.grad(lambda r: target_rate(r, 10.0 - r, LossWeights(1.0, 3.0, weight)))

    assert diagonal(1.0)(5.0) == 0 and diagonal(2.0)(5.0) == 1 and diagonal(2.0)(1.0) == -3


def test_annealing_rises_linearly_and_never_divides_by_zero():
    weights = LossWeights(jnp.float32(0.8), jnp.float32(5.0), jnp.float32(2.0))
    at = lambda progress, part: annealed(weights, jnp.float32(progress), jnp.float32(part))  # noqa: E731
    early = ((0.0, 0.5, 0.0), (0.25, 0.5, 0.5))
    for progress, part, scale in (*early, (0.5, 0.5, 1.0), (0.9, 0.5, 1.0), (0.0, 0.0, 1.0)):
        got = at(progress, part)
        found = [got.beta, got.target_rate, got.target_weight]
        np.testing.assert_allclose(found, [0.8 * scale, 5.0, 2.0 * scale], rtol=1e-6)
    slope = jax.grad(lambda part: annealed(weights, jnp.float32(0.3), part).beta)
    assert np.isfinite(slope(jnp.float32(0.0)))
