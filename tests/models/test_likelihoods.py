"""Likelihoods against sums, integrals and scipy, in float64 where nothing else is said."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

from rd_elbo.errors import BadInput
from rd_elbo.models import likelihoods
from rd_elbo.models.family import Architecture
from rd_elbo.models.likelihoods import ContinuousBernoulli, DiscretisedLogistic
from rd_elbo.models.pixelcnn import PixelCNNDecoder
from rd_elbo.sweep import grid
from tests.drawn import random_params

LEVELS = np.arange(256.0)
# Means inside, at and far outside the range; scales from far below a level to far above the range.
MEANS = (-40.0, -1.0, -0.3, 0.0, 0.004, 0.99, 1.0, 17.0)
LOG_SCALES = (-9.0, -7.0, -4.5, -2.0, 0.0, 3.0, 12.0)
GRID = np.stack(np.meshgrid(MEANS, LOG_SCALES), -1).reshape(-1, 2)
LOGITS = np.array(
    [-300.0, -30.0, -4.0, -1.01, -0.99, -1e-2, -1e-5, 0.0, 1e-9, 1e-3, 0.5, 2.0, 90.0]
)


def logistic(dtype):
    """Log-probabilities (parameters, levels)."""
    mean, log_scale = np.asarray(GRID, dtype).T[..., None]
    levels = jnp.asarray(LEVELS, dtype)
    log_prob = jax.jit(lambda *at: DiscretisedLogistic(*at).log_prob(levels))
    return np.asarray(log_prob(mean, log_scale))


def test_levels_are_differences_of_the_logistic_distribution_function(x64):
    log_prob = logistic("float64")
    assert log_prob.shape == (len(GRID), 256)
    np.testing.assert_allclose(scipy.special.logsumexp(log_prob, axis=1), 0, atol=1e-12)
    mean, log_scale = GRID.T[..., None]
    scale = np.exp(np.maximum(log_scale, -7.0))
    edges = (np.arange(257) - 0.5) / 127.5 - 1
    edges[0], edges[-1] = -np.inf, np.inf
    at = (edges - mean) / scale
    # The smaller tails, so that scipy's difference is good too.
    below, above = scipy.stats.logistic.cdf(at), scipy.stats.logistic.sf(at)
    by_hand = np.where(at[:, :-1] > 0, above[:, :-1] - above[:, 1:], below[:, 1:] - below[:, :-1])
    kept = by_hand > 1e-280
    np.testing.assert_allclose(np.exp(log_prob)[kept], by_hand[kept], rtol=1e-9, atol=5e-16)


def test_levels_in_float32():
    """Far out too, where probabilities are 0 to rounding."""
    log_prob = logistic("float32")
    with jax.enable_x64(True):
        exact = logistic("float64")
    np.testing.assert_allclose(log_prob, exact, rtol=2e-5, atol=2e-3)
    assert np.isfinite(log_prob).all()


def test_gradients_of_levels_are_finite():
    @jax.jit
    @jax.vmap
    def gradients(loc, log_scale):
        def total(loc, log_scale):
            return DiscretisedLogistic(loc, log_scale).log_prob(jnp.asarray(LEVELS)).sum()

        return jax.value_and_grad(total, (0, 1))(jnp.full(256, loc), jnp.full(256, log_scale))

    log_scales, locs = (-300.0, -7.0, 0.0, 40.0, 90.0, 300.0), (-1e6, -1.0, 0.0, 1.0, 1e6)
    value, gradient = gradients(*(grid.ravel() for grid in np.meshgrid(locs, log_scales)))
    assert value.shape == (30,) and np.isfinite(value).all()
    assert all(np.isfinite(leaf).all() for leaf in gradient)


def test_means_and_draws_of_levels():
    draws = 20_000

    @jax.jit
    def measured(mean, log_scale):
        d = DiscretisedLogistic(mean, log_scale)
        x = d.sample(seed=jax.random.key(3), sample_shape=draws)
        lowest = d.quantile(jnp.array(0.0))
        return d.log_prob(jnp.asarray(LEVELS, jnp.float32)[:, None]), d.mean(), x, lowest

    at = np.array([[-1.02, -0.5, 0.3, 0.9], [-3.0, -4.5, -1.0, -7.0]], np.float32)
    log_prob, mean, x, lowest = map(np.asarray, measured(*at))
    probability = np.exp(log_prob)
    np.testing.assert_allclose(mean, LEVELS @ probability, rtol=1e-4)
    assert x.shape == (draws, 4) and np.array_equal(x, np.rint(x)) and x.min() == 0
    for i in range(4):
        # Levels with few draws are counted together.
        order = np.argsort(probability[:, i])
        group = np.empty(256, int)
        group[order] = np.minimum(draws * np.cumsum(probability[order, i]) // 20, 40)
        expected = draws * np.bincount(group, probability[:, i], 41)
        counts = np.bincount(group[x[:, i].astype(int)], minlength=41)
        used = expected > 5
        chi_square = ((counts - expected)[used] ** 2 / expected[used]).sum()
        assert chi_square < scipy.stats.chi2.ppf(0.999, used.sum())
    np.testing.assert_array_equal(lowest, np.zeros(4))


def test_continuous_bernoulli_integrates_to_one(x64):
    log_prob = jax.jit(lambda logit, x: ContinuousBernoulli(logit).log_prob(x))
    means = jax.jit(lambda logits: ContinuousBernoulli(logits).mean())(LOGITS)
    for logit, own_mean in zip(LOGITS, means, strict=True):
        density = lambda x, logit=logit: np.exp(float(log_prob(logit, x)))  # noqa: E731
        peak = [] if abs(logit) < 10 else [min(20 / logit, 1 - 1e-3) if logit > 0 else 20 / -logit]
        points = [1 - peak[0]] if peak and logit > 0 else peak
        whole, _ = scipy.integrate.quad(density, 0, 1, points=points or None, limit=40)
        assert abs(whole - 1) < 1e-9
        mean, _ = scipy.integrate.quad(
            lambda x, d=density: x * d(x), 0, 1, points=points or None, limit=40
        )
        np.testing.assert_allclose(own_mean, mean, atol=1e-9)


def test_continuous_bernoulli_near_zero_and_far_out():
    """Against its closed form in 60 digits, also where that is 0 / 0 in floating point."""
    import decimal

    decimal.getcontext().prec = 60
    log_prob = jax.jit(lambda logit, x: ContinuousBernoulli(logit).log_prob(x))
    for logit in LOGITS:
        exact = decimal.Decimal(float(np.float32(logit)))
        constant = ((exact.exp() - 1) / exact).ln() if exact else decimal.Decimal(0)
        for x in (0.0, 0.3, 1.0):
            value = float(decimal.Decimal(float(np.float32(x))) * exact - constant)
            ours = log_prob(np.float32(logit), np.float32(x))
            np.testing.assert_allclose(ours, value, rtol=2e-6, atol=1e-6)
    slope = jax.jit(jax.vmap(jax.grad(lambda logit: log_prob(logit, jnp.float32(0.2)))))
    slopes = slope(np.asarray([0.0, *LOGITS, 1e30, -1e30], np.float32))
    assert np.isfinite(slopes).all()
    # Uniform at zero, whose mean is 1/2.
    np.testing.assert_allclose(slopes[0], 0.2 - 0.5, rtol=1e-6)


def test_draws_of_continuous_bernoulli(x64):
    chosen = np.array([-30.0, -0.9, -1e-4, 0.0, 5e-4, 1.5, 40.0])
    options = {"seed": jax.random.key(0), "sample_shape": 5000}
    draw = jax.jit(lambda at: ContinuousBernoulli(at).sample(**options))
    x = np.asarray(draw(chosen))
    assert x.min() >= 0 and x.max() <= 1
    for i, logit in enumerate(chosen):

        def cdf(x, logit=logit):
            return np.expm1(logit * x) / np.expm1(logit) if logit else x

        assert scipy.stats.kstest(x[:, i], cdf).pvalue > 1e-3


TINY = Architecture(latent=2, encoder_width=3, encoder_depth=1, decoder_width=3, decoder_depth=1)
DATA = {
    "bernoulli": lambda shape: np.random.RandomState(0).rand(12, *shape) < 0.4,
    "continuous_bernoulli": lambda shape: np.random.RandomState(0).rand(12, *shape),
    "gaussian": lambda shape: np.random.RandomState(0).standard_normal((12, *shape)),
    "discretised_logistic": lambda shape: np.random.RandomState(0).randint(0, 256, (12, *shape)),
}


def made(shape, n=3, **fields):
    """A model with parameters that hide nothing behind a zero, and examples."""
    architecture = dataclasses.replace(TINY, **fields)
    model = architecture.build(shape)
    x = jnp.asarray(DATA[architecture.likelihood](shape)[:n], jnp.result_type(float))
    return model, random_params(model, x), x


@pytest.mark.parametrize(
    ("likelihood", "shape", "parts"),
    [
        ("gaussian", (5,), {"prior": "vampprior"}),
        ("continuous_bernoulli", (3, 2), {}),
        ("discretised_logistic", (5, 4, 3), {"encoder": "conv", "decoder": "deconv"}),
    ],
)
def test_distortion_is_the_likelihood_of_the_decoders_outputs(likelihood, shape, parts):
    """In nats an example, through the whole model, with a gradient at every parameter."""
    model, params, x = made(shape, likelihood=likelihood, **parts)
    key = jax.random.key(4)

    @jax.jit
    def measured(params):
        def both(params):
            terms = model.terms(params, x, key)
            d = model.decode(params, model.encode(params, x).sample(seed=key))
            aux = terms, d.distribution, d.sample(seed=key), d.mean(), d.distribution.log_prob(x)
            return terms.rate.sum() + terms.distortion.sum(), aux

        return jax.value_and_grad(both, has_aux=True)(params)

    (_, (terms, values, drawn, mean, each)), gradient = measured(params)
    assert drawn.shape == mean.shape == x.shape and terms.distortion.shape == (3,)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.abs(leaf).max() > 0, path
    by_hand = each
    if likelihood == "gaussian":
        by_hand = scipy.stats.norm.logpdf(x, values.loc, np.exp(params["decoder"]["log_scale"]))
    if likelihood == "discretised_logistic":
        assert drawn.min() >= 0 and drawn.max() <= 255 and np.array_equal(drawn, np.rint(drawn))
    axes = tuple(range(1, len(shape) + 1))
    np.testing.assert_allclose(terms.distortion, -np.sum(by_hand, axes), rtol=1e-5)


def test_encoders_see_levels_from_minus_one_to_one():
    mixed = {"likelihood": "discretised_logistic", "prior": "vampprior", "pseudo_inputs": 2}
    model, params, x = made((3, 2), **mixed)
    plain = dataclasses.replace(TINY).build((3, 2))

    @jax.jit
    def encoded(params):
        # Pseudo-inputs are between 0 and 1 as they are.
        phi = 255 * jax.nn.sigmoid(params["prior"]["pseudo_inputs"])
        ours = [model.encode(params, x), model.encode(params, phi), plain.encode(params, x / 255)]
        m = model.prior_distribution(params, x)
        return [e.mean() for e in ours], m.components_distribution.loc

    (seen, of_phi, same), components = encoded(params)
    np.testing.assert_allclose(seen, same, rtol=1e-5)
    np.testing.assert_allclose(components, of_phi, rtol=1e-5)


def test_densities_may_be_above_one():
    """A distortion below zero, as of values that hardly vary."""

    class Five(nn.Module):
        @nn.compact
        def __call__(self, x):
            return likelihoods.factorised(self, "gaussian", x, 1)

    params = {"params": {"log_scale": jnp.asarray(-9.0)}}
    log_prob = jax.jit(lambda x: Five().apply(params, x).log_prob(x))(jnp.ones((1, 5)))
    np.testing.assert_allclose(log_prob, 5 * (9 - np.log(2 * np.pi) / 2), rtol=1e-6)


def decoder(shape, batch=1, **fields):
    module = PixelCNNDecoder(3, 1, shape, planes=2, likelihood="discretised_logistic", **fields)
    z = jnp.asarray(np.random.RandomState(7).normal(size=(batch, 2)))
    return module, random_params(module, z), z


def test_autoregressive_levels_depend_on_those_before_alone():
    module, params, z = decoder((4, 5))
    x = np.random.RandomState(3).uniform(0, 255, (1, 4, 5)).astype(np.float32)
    jacobian = jax.jit(jax.jacobian(lambda x: module.apply(params, z).outputs(x)))(x)
    jacobian = np.abs(np.asarray(jacobian)).reshape(20, 2, 20).max(1)
    assert (np.triu(jacobian) == 0).all() and (jacobian[1:].max(1) > 0).all()
    for pixel in range(1, 20):
        assert jacobian[pixel, pixel - 1] > 0 or pixel % 5 == 0


def test_autoregressive_levels_are_drawn_from_what_is_scored():
    """With its uniforms known, a draw is the level they reach given the draws before."""
    module, params, z = decoder((4, 3), batch=2)
    key = jax.random.key(5)

    @jax.jit
    def drawn():
        d = module.apply(params, z)
        x = d.sample(seed=key, sample_shape=3)
        outputs = d.outputs(x)
        uniform = jax.random.uniform(key, (12, 6)).T.reshape(3, 2, 4, 3)
        conditional = DiscretisedLogistic(outputs[..., 0], outputs[..., 1])
        by_hand = conditional.quantile(uniform), conditional.log_prob(x).sum((2, 3))
        return x, d.log_prob(x), by_hand

    x, log_prob, by_hand = drawn()
    assert x.shape == (3, 2, 4, 3)
    np.testing.assert_array_equal(x, by_hand[0])
    np.testing.assert_allclose(log_prob, by_hand[1], rtol=1e-5)
    assert len(np.unique(x)) > 20


def test_autoregressive_levels_sum_to_one():
    """Over the last pixel, to the probability of those before it."""
    module, params, z = decoder((1, 3))
    begun = np.array([[0.0, 255.0], [255.0, 17.0], [100.0, 0.0]], np.float32)
    x = np.stack([np.broadcast_to(a, (3, 256)) for a in (begun[:, :1], begun[:, 1:], LEVELS)], -1)
    x = x.astype(np.float32)

    @jax.jit
    def scored():
        d = module.apply(params, z)
        outputs = d.outputs(x[:, 0, None, None])[:, 0, 0, :2]
        first = DiscretisedLogistic(outputs[..., 0], outputs[..., 1]).log_prob(begun).sum(1)
        return d.log_prob(x[:, :, None, None]), first

    log_prob, first = scored()
    np.testing.assert_allclose(scipy.special.logsumexp(log_prob[..., 0], 1), first, rtol=1e-5)


def test_names_of_members_are_those_of_before():
    """A field at its default is no part of a member's name."""
    assert grid.Member().name == grid.Member(likelihood="bernoulli").name == "44136fa355"
    assert grid.Member(likelihood="gaussian").name != grid.Member().name


GAUSSIAN = {"likelihood": "gaussian"}


@pytest.mark.parametrize(
    ("fields", "data", "sentence"),
    [
        ({"likelihood": "poisson"}, None, "likelihood='poisson': expected one of 'bernoulli'"),
        (
            {"likelihood": "gaussian", "decoder": "pixelcnn"},
            None,
            "likelihood='gaussian': expected 'bernoulli' or 'discretised_logistic' with "
            "decoder='pixelcnn', got 'gaussian'. It is for 'mlp' or 'deconv' or 'resnet'.",
        ),
        (
            {},
            ("grey", (4, 4)),
            "likelihood='bernoulli': expected data of zeros and ones, got 8-bit levels. "
            "'discretised_log",
        ),
        # Not 'continuous_bernoulli', which is refused next.
        ({}, ("real", (4,)), "got real values. 'gaussian' will do."),
        (GAUSSIAN, ("binary", (4, 4)), "got data of zeros and ones. 'bernoulli' will do."),
        (GAUSSIAN, ("grey", (4, 4)), "'gaussian': expected real values, got 8-bit levels."),
        (
            {"likelihood": "continuous_bernoulli"},
            ("real", (4,)),
            "expected values in [0, 1], got -1 to 2. Scale them, or give 'g",
        ),
        (
            {"encoder": "conv"},
            ("binary", (16,)),
            "encoder='conv': expected images (height, width) or (height, width, channels), got",
        ),
        ({"encoder": "conv_iaf"}, ("binary", (16,)), "of shape (16,). 'dense' will do."),
        ({"decoder": "deconv"}, ("binary", (16,)), "decoder='deconv': expected images"),
        (
            {"decoder": "pixelcnn", "likelihood": "discretised_logistic"},
            ("grey", (4, 4, 3)),
            "decoder='pixelcnn': expected images (height, width), got examples of shape (4, 4, 3). "
            "'mlp' or 'deconv' or 'resnet'",
        ),
    ],
)
def test_what_does_not_fit_is_refused(fields, data, sentence):
    def make():
        architecture = Architecture(**fields)
        architecture.check_data(*data, (-1.0, 2.0))

    with pytest.raises(BadInput) as refusal:
        make()
    assert sentence in str(refusal.value)


def test_targets_of_densities_may_be_negative():
    target = {"objective": "target_distortion", "target_distortion": -3.0}
    assert grid.Member(likelihood="gaussian", **target).target_distortion == -3.0
    with pytest.raises(BadInput, match="target_distortion"):
        grid.Member(likelihood="discretised_logistic", **target)
    assert {known.kind for known in likelihoods.LIKELIHOODS.values()} == {"binary", "grey", "real"}
