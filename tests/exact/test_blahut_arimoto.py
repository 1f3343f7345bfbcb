"""Rate-distortion functions against closed forms, brute force and another optimiser."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special
from test_discrete import draw, random_tables

from rd_elbo.errors import BadInput
from rd_elbo.exact import discrete, toy
from rd_elbo.exact.blahut_arimoto import blahut_arimoto

BETAS = np.geomspace(0.03, 5, 30)


def binary_entropy(p):
    return special.entr(p) + special.entr(1 - p)


@pytest.mark.parametrize("p", [0.5, 0.3, 0.02])
def test_binary_source_with_hamming_distortion(p):
    curve = blahut_arimoto([p, 1 - p], 1 - np.eye(2), BETAS)
    # Cover & Thomas 2006, theorem 10.3.1.
    entropy = binary_entropy(np.asarray(p))
    exact = np.where(curve.distortion < p, entropy - binary_entropy(curve.distortion), 0)
    np.testing.assert_allclose(curve.rate, exact, atol=1e-6)
    assert curve.rate[0] > 0.9 * entropy and curve.rate[-1] < (1e-9 if p < 0.5 else 0.01)
    assert (curve.gap <= 1e-8).all()


@pytest.mark.parametrize("m", [2, 3, 10])
def test_uniform_source_with_hamming_distortion(m):
    curve = blahut_arimoto(np.full(m, 1 / m), 1 - np.eye(m), BETAS)
    exact = np.log(m) - binary_entropy(curve.distortion) - curve.distortion * np.log(m - 1)
    np.testing.assert_allclose(curve.rate, exact, atol=1e-6)
    # The slope is the beta that was asked for: at D, dR/dD = log((1 - D)/((m - 1) ... )), so D = 1
    # / (1 + exp(1/beta)/(m - 1)).
    np.testing.assert_allclose(curve.distortion, (m - 1) / (m - 1 + np.exp(1 / BETAS)), atol=1e-9)


def test_erasures():
    # A bit may be said, or left open at cost 1/2, or said wrong at a cost never worth it: R = (1 -
    # 2D) log 2.
    costs = np.asarray([[0.0, 50.0, 0.5], [50.0, 0.0, 0.5]])
    curve = blahut_arimoto([0.5, 0.5], costs, [0.1, 0.3, 0.6, 0.7, 0.75, 2.0])
    np.testing.assert_allclose(curve.rate, (1 - 2 * curve.distortion) * np.log(2), atol=1e-6)
    # One straight line of slope 1 / (2 log 2): beta below it says everything, above it nothing.
    exact = np.where(curve.beta < 1 / (2 * np.log(2)), np.log(2), 0)
    np.testing.assert_allclose(curve.rate, exact, atol=1e-5)


def objective(p, costs, beta, encoder):
    joint = p[:, None] * encoder
    with np.errstate(divide="ignore", invalid="ignore"):
        information = special.rel_entr(joint, p[:, None] * joint.sum(0)).sum()
    return (joint * costs).sum() + beta * information


def test_brute_force_over_all_encoders():
    p, costs = np.asarray([0.35, 0.65]), np.asarray([[0.1, 0.9], [1.3, 0.2]])

    def finest(beta, low=(0.0, 0.0), width=1.0):
        """The least objective on a grid of encoders, refined about its best point three times."""
        for _ in range(4):
            axes = [np.clip(np.linspace(start, start + width, 41), 0, 1) for start in low]
            values = {
                (a, b): objective(p, costs, beta, np.asarray([[a, 1 - a], [b, 1 - b]]))
                for a, b in itertools.product(*axes)
            }
            best = min(values, key=values.get)
            low, width = tuple(at - width / 20 for at in best), width / 10
        return values[best]

    for beta in (0.2, 0.5, 1.0):
        best, curve = finest(beta), blahut_arimoto(p, costs, beta)
        value = curve.distortion[0] + beta * curve.rate[0]
        assert value <= best + 1e-12 and best - value < 1e-7


@pytest.mark.parametrize("seed", range(4))
def test_another_optimiser_finds_nothing_lower(seed):
    rng = np.random.default_rng(seed)
    p, costs = rng.dirichlet(np.ones(4)), rng.exponential(size=(4, 3))
    beta = (0.1, 0.3, 0.6, 1.0)[seed]

    # With the best encoder for a prior m the objective is convex in m.
    def of_prior(m):
        return -beta * p @ np.log(np.exp(-costs / beta) @ m)

    simplex = {"type": "eq", "fun": lambda m: m.sum() - 1}
    how = dict(bounds=[(0, 1)] * 3, constraints=simplex, method="SLSQP", tol=1e-14)
    found = optimize.minimize(of_prior, np.full(3, 1 / 3), **how).fun
    curve = blahut_arimoto(p, costs, beta)
    np.testing.assert_allclose(curve.distortion[0] + beta * curve.rate[0], found, atol=1e-6)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.5]), st.floats(0.02, 30))
@settings(max_examples=12, deadline=None, derandomize=True)
def test_never_above_another_model_of_the_same_decoder(seed, zeros, beta):
    """Random encoders and priors, and p* with symbols that never occur."""
    p, e, d, m = draw(seed, 10, 7, zeros)
    d = 0.95 * d + 0.05 / d.shape[1]
    curve = blahut_arimoto(p, -np.log(d).T, [beta])
    assert np.isfinite(curve.rate + curve.distortion).all() and curve.gap[0] <= 1e-8
    with jax.enable_x64(True):
        t = discrete.tables(p, e, d, m)
        other = discrete.distortion(t) + beta * discrete.rate(t)
        assert curve.distortion[0] + beta * curve.rate[0] <= other + 1e-9
        # What is returned is a model of those numbers.
        t = t._replace(encoder=jnp.asarray(curve.encoder[0]), prior=jnp.asarray(curve.prior[0]))
        np.testing.assert_allclose(discrete.rate(t), curve.rate[0], atol=1e-10)
        np.testing.assert_allclose(discrete.distortion(t), curve.distortion[0], atol=1e-10)


def test_the_curve_is_convex_and_monotone():
    t = random_tables(2, symbols=8, codes=6)
    curve = blahut_arimoto(np.exp(t.source), -np.asarray(t.decoder).T, np.geomspace(0.01, 100, 80))
    assert (np.diff(curve.rate) <= 1e-9).all() and (np.diff(curve.distortion) >= -1e-9).all()
    moved = np.diff(curve.rate) < -1e-7
    slopes = -np.diff(curve.distortion)[moved] / np.diff(curve.rate)[moved]
    assert (np.diff(slopes) >= -1e-6).all()
    # Every chord's slope lies between the betas of its ends.
    assert (slopes >= curve.beta[:-1][moved] - 1e-6).all()
    assert (slopes <= curve.beta[1:][moved] + 1e-6).all()


def bumps():
    k = np.arange(toy.SYMBOLS)
    decoder = np.exp(-0.5 * (k[None] - k[:, None]) ** 2)
    return toy.source(), -np.log(decoder / decoder.sum(1, keepdims=True)).T


def test_where_the_algorithm_alone_is_too_slow_newton_finishes():
    source, costs = bumps()
    curve = blahut_arimoto(source, costs, [2.0, 8.0, 20.0])
    assert (curve.iterations == 1000).all() and (curve.gap < 1e-9).all()
    # Many rounds of the algorithm come close, and from above.
    plain = blahut_arimoto(source, costs, [2.0, 8.0, 20.0], max_iterations=1)
    np.testing.assert_allclose(plain.rate, curve.rate, atol=1e-9)
    easy = blahut_arimoto([0.3, 0.7], 1 - np.eye(2), 0.3)
    assert easy.iterations < 1000  # and where it is fast it is the one that finishes


@pytest.mark.parametrize("beta", [1e-6, 1e6])
def test_the_ends_of_the_curve(beta):
    source, costs = bumps()
    curve = blahut_arimoto(source, costs, beta)
    if beta < 1:  # nothing but distortion counts: every symbol gets its best code
        np.testing.assert_allclose(curve.distortion, source @ costs.min(1), atol=1e-9)
    else:  # one code for everything, the best on average
        end = [0, (source @ costs).min()]
        np.testing.assert_allclose([curve.rate[0], curve.distortion[0]], end, atol=1e-6)


def test_one_code_and_equal_codes():
    one = blahut_arimoto([0.3, 0.7], [[1.0], [2.0]], [0.1, 10.0])
    np.testing.assert_allclose([one.rate, one.distortion], [[0, 0], [1.7, 1.7]], atol=1e-12)
    single = blahut_arimoto([0.3, 0.7], 1 - np.eye(2), 0.2)
    twice = blahut_arimoto([0.3, 0.7], np.tile(1 - np.eye(2), 2), 0.2)
    np.testing.assert_allclose(twice.rate, single.rate, atol=1e-8)
    np.testing.assert_allclose(twice.distortion, single.distortion, atol=1e-8)


def test_copies_of_codes_are_finished_too():
    rng = np.random.default_rng(0)
    for _ in range(6):
        p, costs, betas = rng.dirichlet(np.ones(4)), rng.random((4, 3)), np.geomspace(0.01, 1e4, 7)
        single = blahut_arimoto(p, costs, betas)
        twice = blahut_arimoto(p, np.c_[costs, costs], betas)
        assert (twice.gap <= 1e-9 * np.maximum(1, betas)).all()
        ours, theirs = (curve.distortion + betas * curve.rate for curve in (twice, single))
        np.testing.assert_allclose(ours, theirs, rtol=1e-8)


def test_what_a_symbol_costs_anyway_changes_nothing_but_the_distortion():
    source, costs = bumps()
    plain = blahut_arimoto(source, costs, [0.3, 3.0])
    shifted = blahut_arimoto(source, costs + 1e6, [0.3, 3.0])
    np.testing.assert_allclose(shifted.rate, plain.rate, atol=1e-8)
    np.testing.assert_allclose(shifted.distortion - 1e6, plain.distortion, atol=1e-8)


def test_the_gap_contains_rounding():
    # At such a beta nothing can be told apart in float64, and the gap must say so.
    p = np.asarray([0.2, 0.3, 0.5])
    curve = blahut_arimoto(p, 1 - np.eye(3), 1e16)
    assert curve.distortion[0] + 1e16 * curve.rate[0] - curve.gap[0] <= 0.5


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"source": [0.5, 0.6]}, "source: expected sums of 1"),
        ({"source": [[0.5, 0.5]]}, "source and distortion: expected shapes"),
        (
            {"distortion": [[0.0, -0.1], [1.0, 0.0]]},
            "distortion: expected numbers of at least 0, got -0.1",
        ),
        (
            {"distortion": [[0.0, np.inf], [1.0, 0.0]]},
            "distortion: expected finite numbers, got inf",
        ),
        (
            {"distortion": [[0.0, np.nan], [1.0, 0.0]]},
            "distortion: expected finite numbers, got nan",
        ),
        ({"distortion": [[0.0, 1.0]]}, "source and distortion: expected shapes"),
        ({"distortion": np.zeros((2, 0))}, "distortion: expected an array"),
        ({"distortion": [[0.0, 1.0], [1.0]]}, "distortion: expected an array"),
        ({"distortion": "hamming"}, "distortion: expected an array"),
        ({"distortion": [[0.0, 1j], [1.0, 0.0]]}, "distortion: expected an array of real"),
        ({"beta": 0.0}, "beta: expected numbers above 0 .* got 0.0"),
        ({"beta": [0.1, -1.0]}, "beta: expected numbers above 0 .* got -1.0"),
        ({"beta": [np.inf]}, "beta: expected finite numbers, got inf"),
        ({"beta": 1e-320}, "beta: expected numbers above 0 .* got 1e-320"),
        ({"beta": "one"}, "beta: expected"),
        ({"beta": [[1.0]]}, "beta: expected"),
        ({"tolerance": -1.0}, "tolerance=-1.0"),
        ({"max_iterations": 0}, "max_iterations=0"),
    ],
)
def test_bad_input(change, sentence):
    with pytest.raises(BadInput, match=sentence):
        blahut_arimoto(**{"source": [0.5, 0.5], "distortion": 1 - np.eye(2), "beta": 1.0, **change})
