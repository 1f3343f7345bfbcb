"""Exact functionals against written-out sums; the paper's inequalities and where they are tight."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rd_elbo.errors import BadInput
from rd_elbo.exact import discrete
from rd_elbo.exact.discrete import Tables

LARGEST = 40
FUNCTIONALS = (
    "rate",
    "distortion",
    "encoder_information",
    "prior_gap",
    "decoder_gap",
    "generative_lower",
    "generative_information",
)
HUNDREDS = settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


def draw(seed, symbols, codes, zeros):
    """Four random tables of `LARGEST` symbols and codes: some unused, some entries zero."""
    rng = np.random.default_rng(seed)

    def rows(count, size):
        table = np.zeros((count, LARGEST))
        raw = rng.gamma(rng.choice([0.1, 1.0, 10.0]), size=(count, size)) + 1e-12
        raw *= rng.random(raw.shape) >= zeros
        # Something is always possible.
        raw[np.arange(count), rng.integers(size, size=count)] += 1e-3
        table[:, :size] = raw / raw.sum(1, keepdims=True)
        return table

    return rows(1, symbols)[0], rows(LARGEST, codes), rows(LARGEST, symbols), rows(1, codes)[0]


SIZES = st.integers(2, LARGEST)
cases = given(st.integers(0, 2**32 - 1), SIZES, SIZES, st.sampled_from([0.0, 0.0, 0.2, 0.7]))


@functools.cache
def everything():
    def run(t, log_q):
        values = {name: getattr(discrete, name)(t) for name in FUNCTIONALS}
        for name in ("generative_upper", "decoder_advantage", "density_gap"):
            values[name] = getattr(discrete, name)(t, log_q)
        for name in ("elbo", "elbo_of", "posterior_gap", "evidence"):
            values[name] = getattr(discrete, name)(t)
        return values | {"entropy": discrete.entropy(t.source)}

    return jax.jit(run)


def values_of(t, q=None):
    with np.errstate(divide="ignore"):
        values = everything()(t, t.source if q is None else jnp.log(q))
        return {name: np.asarray(value) for name, value in values.items()}


def plog(weight, ratio):
    """Sum of weight log ratio, term by term, where 0 log anything is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.where(weight > 0, weight * np.log(ratio), 0.0).sum())


def written_out(p, e, d, m, q):
    """The paper's functionals as they are printed, in probabilities."""
    with np.errstate(divide="ignore", invalid="ignore"):
        joint, generated = p[:, None] * e, m[:, None] * d
        pz, px = joint.sum(0), generated.sum(0)
        return {
            "rate": plog(joint, e / m),
            "distortion": -plog(joint, d.T),
            "encoder_information": plog(joint, joint / (p[:, None] * pz)),
            "prior_gap": plog(pz, pz / m),
            "decoder_gap": plog(joint, joint / pz / d.T),
            "generative_lower": plog(generated, (e / m).T),
            "generative_information": plog(generated, generated / (m[:, None] * px)),
            "generative_upper": plog(generated, d / q),
            "decoder_advantage": plog(joint, d.T / q[:, None]),
            "density_gap": plog(p, p / q),
            "entropy": -plog(p, p),
        }


@cases
@HUNDREDS
def test_values_bounds_and_gaps_of_random_tables(seed, symbols, codes, zeros):
    with jax.enable_x64(True):
        p, e, d, m = draw(seed, symbols, codes, zeros)
        q = np.random.default_rng(seed + 1).dirichlet(np.ones(LARGEST))
        v = values_of(discrete.tables(p, e, d, m), q)
    for name, value in written_out(p, e, d, m, q).items():
        np.testing.assert_allclose(v[name], value, rtol=1e-9, atol=1e-11, err_msg=name)
    rate, distortion, entropy = v["rate"], v["distortion"], v["entropy"]
    information, generative = v["encoder_information"], v["generative_information"]
    assert -1e-11 <= information <= min(entropy, np.log(codes)) + 1e-11
    assert entropy - distortion <= information + 1e-11 and information <= rate + 1e-11
    assert v["prior_gap"] >= -1e-11 and v["decoder_gap"] >= -1e-11
    assert v["elbo"] == -(rate + distortion)
    if np.isfinite(rate):
        np.testing.assert_allclose(rate - information, v["prior_gap"], atol=1e-11)
    if np.isfinite(distortion):
        least = entropy - distortion
        np.testing.assert_allclose(information - least, v["decoder_gap"], atol=1e-10)
        np.testing.assert_allclose(v["decoder_advantage"] - v["density_gap"], least, atol=1e-10)
    assert v["generative_lower"] <= generative + 1e-11 <= v["generative_upper"] + 2e-11


@cases
@HUNDREDS
def test_log_likelihood_is_elbo_plus_posterior_gap(seed, symbols, codes, zeros):
    with jax.enable_x64(True):
        p, e, d, m = draw(seed, symbols, codes, zeros)
        v = values_of(discrete.tables(p, e, d, m))
        generated = v["evidence"] > -np.inf  # of others the model has no posterior
        finite = np.isfinite(v["elbo_of"])
        gap = v["posterior_gap"]
        sums = v["elbo_of"][finite] + gap[finite]
        np.testing.assert_allclose(sums, v["evidence"][finite], atol=1e-10)
        assert (gap[generated] >= -1e-11).all() and np.isnan(gap[~generated]).all()
        assert (v["posterior_gap"][generated & ~finite] == np.inf).all()
        # The mean under p*, of an ELBO that may be infinite where p* is zero.
        mean = (p * np.where(p > 0, v["elbo_of"], 0)).sum()
        np.testing.assert_allclose(mean, v["elbo"], rtol=1e-10)


@cases
@settings(parent=HUNDREDS, max_examples=100)
def test_bounds_are_tight_where_theory_says_and_nowhere_else(seed, symbols, codes, zeros):
    with jax.enable_x64(True):
        t = discrete.tables(*draw(seed, symbols, codes, zeros))
        prior, decoder = (f(t.source, t.encoder) for f in (discrete.aggregate, discrete.posterior))
        best = t._replace(prior=prior, decoder=decoder)
        v = values_of(best)
        np.testing.assert_allclose(v["rate"], v["encoder_information"], atol=1e-11)
        least = v["entropy"] - v["distortion"]
        np.testing.assert_allclose(least, v["encoder_information"], atol=1e-11)
        np.testing.assert_allclose(v["elbo"], -v["entropy"], atol=1e-11)
        # Half of another prior, or decoder, costs what it is away.
        shifted = jnp.logaddexp(best.prior, jnp.roll(best.prior, 1)) - np.log(2)
        if np.abs(np.exp(shifted) - np.exp(best.prior)).max() > 1e-3:
            assert values_of(best._replace(prior=shifted))["rate"] > v["rate"] + 1e-8
        # A posterior encoder: E = I_d, and with q = p_d also G.
        log_z = discrete.generating(t)
        evidence = discrete.evidence(t)
        usable = evidence > -jnp.inf
        posterior = (log_z - jnp.where(usable, evidence, 0)).T
        bayes = t._replace(encoder=jnp.where(usable[:, None], posterior, t.encoder))
        v = values_of(bayes, np.exp(evidence))
        np.testing.assert_allclose(v["generative_lower"], v["generative_information"], atol=1e-11)
        np.testing.assert_allclose(v["generative_upper"], v["generative_information"], atol=1e-11)
        np.testing.assert_allclose(v["posterior_gap"][usable], 0, atol=1e-11)


def random_tables(seed=0, symbols=5, codes=4):
    rng = np.random.default_rng(seed)
    return discrete.tables(
        rng.dirichlet(np.ones(symbols)),
        rng.dirichlet(np.ones(codes), symbols),
        rng.dirichlet(np.ones(symbols), codes),
        rng.dirichlet(np.ones(codes)),
    )


def test_best_prior_and_decoder_are_stationary_and_minimal(x64):
    t = random_tables()
    prior = discrete.aggregate(t.source, t.encoder)
    decoder = discrete.posterior(t.source, t.encoder)

    @jax.jit
    def rate(logits):
        return discrete.rate(t._replace(prior=jax.nn.log_softmax(logits)))

    @jax.jit
    def distortion(logits):
        return discrete.distortion(t._replace(decoder=jax.nn.log_softmax(logits, axis=1)))

    for functional, at in ((rate, prior), (distortion, decoder)):
        np.testing.assert_allclose(jax.grad(functional)(at), 0, atol=1e-14)
        assert np.abs(jax.grad(functional)(at + jnp.arange(at.shape[-1]))).max() > 1e-2
        for seed in range(50):
            away = at + 0.3 * np.random.default_rng(seed).standard_normal(at.shape)
            assert functional(away) > functional(at)


def test_infinite_where_the_paper_is(x64):
    t = random_tables()
    assert discrete.rate(t._replace(prior=t.prior.at[1].set(-jnp.inf))) == jnp.inf
    impossible = t._replace(decoder=t.decoder.at[:, 2].set(-jnp.inf))
    assert discrete.distortion(impossible) == jnp.inf
    # What never happens costs nothing.
    never = impossible._replace(source=jnp.log(jnp.asarray([0.25, 0.25, 0.0, 0.25, 0.25])))
    assert np.isfinite(discrete.distortion(never)) and np.isfinite(discrete.rate(never))


def test_a_weight_that_underflows_outdoes_an_infinite_value(x64):
    assert discrete.expect(jnp.asarray([-1000.0, 0.0]), jnp.asarray([jnp.inf, 1.0])) == 1.0
    almost = jnp.asarray([[0.0, -1000.0], [-1000.0, 0.0]])
    halves = jnp.log(jnp.asarray([0.5, 0.5]))
    t = Tables(halves, almost, jnp.log(jnp.eye(2)), halves)
    assert discrete.distortion(t) == 0 and discrete.decoder_gap(t) == 0
    np.testing.assert_allclose(discrete.rate(t), np.log(2))


def test_mutual_information_of_known_joints(x64):
    independent = np.outer([0.2, 0.8], [0.5, 0.3, 0.2])
    np.testing.assert_allclose(discrete.mutual_information(jnp.log(independent)), 0, atol=1e-15)
    copied = jnp.log(jnp.diag(jnp.asarray([0.2, 0.8])))
    entropy = -(0.2 * np.log(0.2) + 0.8 * np.log(0.8))
    np.testing.assert_allclose(discrete.mutual_information(copied), entropy)


def test_generated_and_reconstructed_are_the_sums_they_are_called(x64):
    t = random_tables()
    p, e, d, m = np.exp(t.source), np.exp(t.encoder), np.exp(t.decoder), np.exp(t.prior)
    np.testing.assert_allclose(np.exp(discrete.generated(t)), m @ d)
    np.testing.assert_allclose(np.exp(discrete.reconstruction(t)), e @ d)
    np.testing.assert_allclose(np.exp(discrete.reconstructed(t)), p @ e @ d)


def test_tables_vmap(x64):
    several = [random_tables(seed) for seed in range(3)]
    stacked = Tables(*(jnp.stack(columns) for columns in zip(*several, strict=True)))
    rates = [discrete.rate(t) for t in several]
    np.testing.assert_allclose(jax.vmap(discrete.rate)(stacked), rates)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ([0.5, 0.6], "source: expected sums of 1 along the last axis, got 1.1"),
        ([0.5, 0.499], "source: expected sums of 1 along the last axis, got 0.999"),
        ([1.5, -0.5], "source: expected finite .* got -0.5"),
        ([np.nan, 1.0], "source: expected finite .* got nan"),
        ([np.inf, 1.0], "source: expected finite .* got inf"),
        ([], "source: expected an array"),
        (0.3, "source: expected an array"),
        ("half", "source: expected an array"),
        ([[0.5], [0.1, 0.4]], "source: expected an array"),
    ],
)
def test_what_is_no_distribution_is_refused(value, sentence):
    with pytest.raises(BadInput, match=sentence):
        discrete.distribution("source", value)


def test_rounding_is_forgiven():
    third = np.asarray([0.3333333, 0.3333333, 0.3333333])
    np.testing.assert_allclose(discrete.distribution("source", third).sum(), 1, atol=1e-15)


@pytest.mark.parametrize("wrong", range(4))
def test_tables_that_do_not_fit_are_refused(wrong):
    given_tables = [np.full(shape, 1 / shape[-1]) for shape in ((3,), (3, 2), (2, 3), (2,))]
    given_tables[wrong] = np.full((*given_tables[wrong].shape[:-1], 5), 1 / 5)
    with pytest.raises(BadInput, match="and prior: expected shapes"):
        discrete.tables(*given_tables)
