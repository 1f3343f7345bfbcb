"""Coordinate descent against EM written out in NumPy, and against Blahut and Arimoto."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_discrete import draw, random_tables

from rd_elbo.errors import BadInput
from rd_elbo.exact import alternating, discrete
from rd_elbo.exact.blahut_arimoto import blahut_arimoto

BITS = np.asarray(list(itertools.product((0, 1), repeat=4)))


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 20), st.sampled_from([0.0, 0.5]))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_the_objective_never_rises(seed, beta, zeros):
    with jax.enable_x64(True):
        p, e, d, m = draw(seed, 12, 9, zeros)
        # So that every symbol can be generated and the start is finite.
        d[:, :12] = 0.9 * d[:, :12] + 0.1 / 12
        start = discrete.tables(p, e, d, 0.9 * m + 0.1 / len(m))
        before = float(discrete.distortion(start) + beta * discrete.rate(start))
        for parts in (alternating.PARTS, ("encoder", "prior"), ("decoder", "prior"), ("encoder",)):
            _, history = alternating.minimise(start, beta, 8, parts)
            values = np.asarray([before, *history])
            assert (np.diff(values) <= 1e-10 * (1 + np.abs(values[1:]))).all()


def bernoulli_mixture(seed=0, codes=3):
    """Data weights on four bits, and a random start for a mixture of Bernoulli products."""
    rng = np.random.default_rng(seed)
    p, on = rng.dirichlet(np.full(16, 0.5)), rng.uniform(0.2, 0.8, (codes, 4))
    d = np.prod(np.where(BITS[None] == 1, on[:, None], 1 - on[:, None]), axis=-1)
    e = rng.dirichlet(np.ones(codes), 16)
    return p, on, discrete.tables(p, e, d, np.full(codes, 1 / codes))


def test_at_beta_one_it_is_em_of_a_mixture(x64):
    p, on, start = bernoulli_mixture()
    products = alternating.bernoulli_products(BITS)
    t, history = alternating.minimise(start, 1.0, 30, decoder_fit=products)
    weights, codes = np.full(3, 1 / 3), range(3)

    def likelihood(z, bits):
        return np.prod([on[z, i] if bit else 1 - on[z, i] for i, bit in enumerate(bits)])

    for _ in range(30):
        joint = [[weights[z] * likelihood(z, bits) for z in codes] for bits in BITS]
        responsible = np.asarray([row / np.sum(row) for row in joint])
        weights = p @ responsible
        on = np.zeros((3, 4))
        for z, i, x in itertools.product(codes, range(4), range(16)):
            on[z, i] += p[x] * responsible[x, z] * BITS[x, i] / weights[z]
    np.testing.assert_allclose(np.exp(t.prior), weights, rtol=1e-10)
    expected = [[likelihood(z, bits) for bits in BITS] for z in codes]
    np.testing.assert_allclose(np.exp(t.decoder), expected, rtol=1e-10)
    assert (np.diff(history) <= 1e-14).all() and history[0] - history[-1] > 1e-3
    # The ELBO is tight after the encoder's step: then it is the log-likelihood of the mixture.
    tight = t._replace(encoder=alternating.encoder_step(t.prior, t.decoder, 1.0))
    evidence = discrete.expect(t.source, discrete.evidence(t))
    np.testing.assert_allclose(discrete.elbo(tight), evidence, rtol=1e-12)


@pytest.mark.parametrize("beta", [0.1, 1.0, 2.0])
def test_the_objective_never_rises_with_bernoulli_products_whose_bits_become_certain(x64, beta):
    for seed in range(3):
        p, _, start = bernoulli_mixture(seed, codes=4)
        p = np.random.default_rng(seed).dirichlet(np.full(16, 0.1))
        start = start._replace(source=jnp.log(p))
        products = alternating.bernoulli_products(BITS)
        _, history = alternating.minimise(start, beta, 300, decoder_fit=products)
        assert np.isfinite(history).all() and (np.diff(history) <= 1e-12).all()


def test_the_encoders_step_keeps_its_digits_at_small_beta():
    rng = np.random.default_rng(0)
    m, log_d, beta = rng.dirichlet(np.ones(5)), np.log(rng.dirichlet(np.ones(6), 5)) - 50, 1e-3
    with jax.enable_x64(True):
        exact = alternating.encoder_step(jnp.log(m), jnp.asarray(log_d), beta)
    log_m = jnp.log(jnp.asarray(m, jnp.float32))
    single = alternating.encoder_step(log_m, jnp.asarray(log_d, jnp.float32), beta)
    # The inputs' own rounding, a part in 2^24 of 50 divided by beta, is all that is left.
    np.testing.assert_allclose(np.exp(single), np.exp(exact), atol=0.02)
    shifted = alternating.encoder_step(log_m, jnp.asarray(log_d + 50, jnp.float32), beta)
    np.testing.assert_allclose(np.exp(shifted), np.exp(exact), atol=1e-3)


@pytest.mark.parametrize("bits", [[[0, 2]], [0, 1], [[0.5, 1.0]]])
def test_bits_are_zeros_and_ones(bits):
    with pytest.raises(BadInput, match="expected a table"):
        alternating.bernoulli_products(bits)


def test_the_fit_of_bernoulli_products_is_the_best_of_them(x64):
    _, _, t = bernoulli_mixture(1)
    fitted = t._replace(decoder=alternating.bernoulli_products(BITS)(t.source, t.encoder))
    np.testing.assert_allclose(np.exp(fitted.decoder).sum(1), 1)

    def distortion(logits):
        signed = jnp.where(BITS[None] == 1, logits[:, None], -logits[:, None])
        log_d = jax.nn.log_sigmoid(signed).sum(-1)
        return discrete.distortion(t._replace(decoder=log_d))

    means = np.exp(fitted.decoder) @ BITS
    logits = jnp.log(means / (1 - means))
    np.testing.assert_allclose(distortion(logits), discrete.distortion(fitted))
    np.testing.assert_allclose(jax.grad(distortion)(logits), 0, atol=1e-13)


@pytest.mark.parametrize("beta", [0.3, 1.0, 2.5])
def test_the_encoders_step_is_stationary_and_minimal(x64, beta):
    t = random_tables(3)
    best = alternating.encoder_step(t.prior, t.decoder, beta)

    @jax.jit
    def objective(logits):
        moved = t._replace(encoder=jax.nn.log_softmax(logits, axis=1))
        return discrete.distortion(moved) + beta * discrete.rate(moved)

    np.testing.assert_allclose(jax.grad(objective)(best), 0, atol=1e-14)
    for seed in range(20):
        other = best + 0.3 * np.random.default_rng(seed).standard_normal(best.shape)
        assert objective(other) > objective(best)


def test_at_beta_one_the_encoder_is_the_posterior(x64):
    t = random_tables(4)
    generated = np.exp(discrete.generating(t))
    encoder = np.exp(alternating.encoder_step(t.prior, t.decoder, 1.0))
    np.testing.assert_allclose(encoder, (generated / generated.sum(0)).T)


def test_a_symbol_no_code_can_emit_keeps_the_prior(x64):
    t = random_tables()
    t = t._replace(decoder=t.decoder.at[:, 2].set(-jnp.inf))
    encoder = alternating.encoder_step(t.prior, t.decoder, 0.5)
    np.testing.assert_array_equal(encoder[2], t.prior)
    np.testing.assert_allclose(np.exp(encoder).sum(1), 1)


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_with_the_decoder_fixed_it_is_blahut_arimoto(x64, beta):
    t = random_tables(5, symbols=6, codes=4)
    reached, history = alternating.minimise(t, beta, 3000, ("encoder", "prior"))
    np.testing.assert_array_equal(reached.decoder, t.decoder)
    curve = blahut_arimoto(np.exp(t.source), -np.asarray(t.decoder).T, beta)
    np.testing.assert_allclose(history[-1], curve.distortion[0] + beta * curve.rate[0], atol=1e-8)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"beta": 0.0}, "beta=0.0: expected above 0"),
        ({"beta": -1.0}, "beta=-1.0: expected above 0"),
        ({"beta": float("nan")}, "beta=nan: expected a finite number"),
        ({"steps": 0}, "steps=0: expected a whole number"),
        ({"parts": ("encoders",)}, "parts='encoders': expected one of"),
    ],
)
def test_bad_input(x64, change, sentence):
    with pytest.raises(BadInput, match=sentence):
        alternating.minimise(random_tables(), **{"beta": 1.0, "steps": 1, **change})
