"""Gaussian ground truth against numerical optimisers, scipy's densities and sampling."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from rd_elbo.errors import BadInput
from rd_elbo.exact import gaussian
from rd_elbo.exact.gaussian import PPCA
from rd_elbo.models.linear import linear_vae
from rd_elbo.sweep.grid import Member
from rd_elbo.training import fit, state

VARIANCES = np.asarray([3.0, 1.5, 0.4, 0.1])


@pytest.mark.parametrize("budget", [0.2, 1.0, 2.5])
def test_water_filling_is_the_least_rate_of_independent_gaussian_channels(budget):
    """Least sum of log(variance_i / d_i) / 2 over d_i <= variance_i of one sum: by scipy."""
    start = VARIANCES * budget / VARIANCES.sum()
    found = optimize.minimize(
        lambda d: 0.5 * np.log(VARIANCES / d).sum(),
        start,
        bounds=[(1e-6, v) for v in VARIANCES],
        constraints={"type": "eq", "fun": lambda d: d.sum() - budget},
        tol=1e-12,
    )
    point = gaussian.at_rate(VARIANCES, found.fun)
    np.testing.assert_allclose(point.error, budget, rtol=1e-5)
    np.testing.assert_allclose(np.minimum(VARIANCES, point.level), found.x, rtol=1e-3)


def test_one_component_is_the_textbook_formula():
    point = gaussian.water_filling([2.0], [0.5, 2.0, 7.0])
    np.testing.assert_allclose(point.rate, [0.5 * np.log(4), 0, 0])  # R = log(variance / D) / 2
    np.testing.assert_allclose(point.error, [0.5, 2.0, 2.0])


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=8), st.floats(0, 30))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_level_and_rate_are_inverse(variances, rate):
    point = gaussian.at_rate(variances, rate)
    assert point.level[0] <= max(variances) * (1 + 1e-12)
    np.testing.assert_allclose(gaussian.water_filling(variances, point.level).rate, rate, atol=1e-9)


def test_the_slope_at_a_level_is_beta():
    beta, noise = np.asarray([0.3, 1.0, 4.0]), 0.7
    point = gaussian.water_filling(VARIANCES, beta * noise**2)
    h = 1e-5
    left, right = (gaussian.boundary(VARIANCES, point.rate + d, noise) for d in (-h, h))
    slope = (left - right) / (2 * h)
    np.testing.assert_allclose(slope, beta, rtol=1e-4)


def problem(seed=0, n=4):
    rng = np.random.default_rng(seed)
    directions, _ = np.linalg.qr(rng.standard_normal((n, n)))
    return rng.standard_normal(n), directions @ np.diag(VARIANCES[:n]) @ directions.T


@pytest.mark.parametrize("latent", [1, 2, 4])
@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_the_boundary_is_the_least_that_any_linear_vae_reaches(x64, latent, beta):
    """Exact D + beta R of a linear VAE, minimised by scipy from several starts."""
    mean, matrix = problem()
    noise = 0.6
    shapes = {"V": (4, latent), "a": (latent,), "s": (latent,), "W": (latent, 4), "b": (4,)}

    def terms(flat):
        parts, at = {}, 0
        for name, shape in shapes.items():
            parts[name] = flat[at : at + int(np.prod(shape))].reshape(shape)
            at += int(np.prod(shape))
        code = mean @ parts["V"] + parts["a"]
        scale2 = jnp.exp(2 * parts["s"])
        spread = jnp.diag(parts["V"].T @ matrix @ parts["V"])
        rate = 0.5 * (spread + code**2 + scale2 - 1 - jnp.log(scale2)).sum()
        left = jnp.eye(4) - parts["V"] @ parts["W"]
        error = jnp.trace(left.T @ matrix @ left)
        error += ((mean - code @ parts["W"] - parts["b"]) ** 2).sum()
        error += (scale2[:, None] * parts["W"] ** 2).sum()
        return rate, error / (2 * noise**2) + 2 * jnp.log(2 * jnp.pi * noise**2)

    objective = jax.jit(jax.value_and_grad(lambda flat: terms(flat)[1] + beta * terms(flat)[0]))
    size = sum(int(np.prod(shape)) for shape in shapes.values())
    starts = [np.random.default_rng(s).standard_normal(size) for s in range(6)]
    how = dict(jac=True, method="BFGS", options={"gtol": 1e-9})
    runs = [optimize.minimize(objective, start, **how) for start in starts]
    best = min(runs, key=lambda run: run.fun)
    rate, distortion = map(float, terms(jnp.asarray(best.x)))
    exact = gaussian.boundary(VARIANCES, rate, noise, latent)
    np.testing.assert_allclose(distortion, exact, rtol=1e-7)
    at_beta = gaussian.water_filling(VARIANCES[:latent], beta * noise**2)
    np.testing.assert_allclose(rate, at_beta.rate, atol=1e-4)
    for run in runs:  # and nothing is below, wherever it ended
        r, d = map(float, terms(jnp.asarray(run.x)))
        few, all_latents = (gaussian.boundary(VARIANCES, r, noise, n)[0] for n in (latent, None))
        assert d >= few - 1e-9 >= all_latents - 2e-9


def linear_params(seed=0, n=4, latent=2, learned=False):
    rng = np.random.default_rng(seed)
    decoder = {"mean": {"kernel": rng.standard_normal((latent, n)), "bias": rng.standard_normal(n)}}
    return {
        "encoder": {
            "mean": {
                "kernel": 0.5 * rng.standard_normal((n, latent)),
                "bias": rng.standard_normal(latent),
            },
            "log_scale": 0.5 * rng.standard_normal(latent),
        },
        "decoder": decoder | ({"log_noise": np.asarray(-0.3)} if learned else {}),
        "prior": {},
    }


@pytest.mark.parametrize("noise", [0.7, None])
def test_closed_form_terms_are_the_mean_of_the_models_own(x64, noise):
    x = np.random.default_rng(2).standard_normal((500, 4)) * [1, 2, 3, 0.1] + [0, 1, -1, 2]
    params = linear_params(learned=noise is None)
    model = linear_vae(4, 2, noise)
    mean, matrix = x.mean(0), np.cov(x.T, bias=True)
    exact = gaussian.moments_to_terms(params, mean, matrix, noise)
    draws = [model.terms(params, jnp.asarray(x), jax.random.key(i)) for i in range(60)]
    # The model's own rate is in closed form too.
    np.testing.assert_allclose(exact.rate, draws[0].rate.mean(), rtol=1e-12)
    sampled = np.asarray([d.distortion.mean() for d in draws])
    assert abs(sampled.mean() - exact.distortion) < 5 * sampled.std() / np.sqrt(60)
    assert sampled.std() / np.sqrt(60) < 0.02 * exact.distortion
    assert model.rate_estimator(params, x) == "closed_form"


def test_ppca_is_the_maximum_likelihood_fit_and_its_likelihood_scipys():
    x = np.random.default_rng(3).standard_normal((300, 4)) @ np.diag([2, 1, 0.5, 0.4]) + 1
    mean, matrix = x.mean(0), np.cov(x.T, bias=True)
    model = PPCA.fit(mean, matrix, 2)
    log_likelihood = stats.multivariate_normal(model.mean, model.covariance).logpdf(x).mean()
    np.testing.assert_allclose(model.log_likelihood(mean, matrix), log_likelihood, rtol=1e-12)
    for seed in range(30):
        rng = np.random.default_rng(seed)
        noise = model.noise * np.exp(0.1 * rng.standard_normal())
        weights = model.weights + 0.1 * rng.standard_normal(model.weights.shape)
        other = model._replace(weights=weights, noise=noise)
        assert other.log_likelihood(mean, matrix) < model.log_likelihood(mean, matrix)


def test_ppca_of_equal_variances_has_no_direction():
    for n in range(3, 9):
        model = PPCA.fit(np.zeros(n), (0.1 + 0.37 * n) * np.eye(n), 1)
        np.testing.assert_allclose(model.weights, 0, atol=1e-7)
        np.testing.assert_allclose(model.noise**2, 0.1 + 0.37 * n)


def test_log_likelihood_is_elbo_plus_kl_to_the_posterior():
    """For every x, with an encoder that is not the posterior; the KL is written out."""
    x = np.random.default_rng(4).standard_normal((20, 4))
    params = linear_params(5)
    noise = 0.8
    decoder = params["decoder"]["mean"]
    model = PPCA(decoder["bias"], decoder["kernel"].T, noise)
    gain, spread = model.posterior()
    # Against conditioning of the joint Gaussian of (z, x).
    cross = model.weights.T @ np.linalg.inv(model.covariance)
    np.testing.assert_allclose(gain, cross, rtol=1e-9)
    np.testing.assert_allclose(spread, np.eye(2) - cross @ model.weights, rtol=1e-9, atol=1e-12)
    scale = np.exp(params["encoder"]["log_scale"])
    for one in x:
        exact = gaussian.moments_to_terms(params, one, np.zeros((4, 4)), noise)
        code = one @ params["encoder"]["mean"]["kernel"] + params["encoder"]["mean"]["bias"]
        shift, precision = gain @ (one - model.mean) - code, np.linalg.inv(spread)
        kl = 0.5 * (
            np.trace(precision @ np.diag(scale**2))
            + shift @ precision @ shift
            - 2
            + np.linalg.slogdet(spread)[1]
            - 2 * np.log(scale).sum()
        )
        log_p = stats.multivariate_normal(model.mean, model.covariance).logpdf(one)
        np.testing.assert_allclose(-(exact.rate + exact.distortion) + kl, log_p, rtol=1e-10)


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_the_trainer_of_image_models_finds_the_curve(beta):
    mean, matrix = problem(n=2)
    rng = np.random.default_rng(0)
    x = (mean + rng.standard_normal((512, 2)) @ np.linalg.cholesky(matrix).T).astype(np.float32)
    member = Member(beta=beta, learning_rate=3e-2, batch_size=64, schedule="half_linear")
    model = linear_vae(2, 2, 0.5)
    spec = state.TrainSpec(model, batch_size=64, schedule="half_linear", call_steps=256)
    fitted = fit.fit(spec, [model], state.HParams.of([member], spec), x, 1500)
    mean, matrix = x.mean(0, dtype=float), np.cov(x.T.astype(float), bias=True)
    params = jax.tree.map(lambda leaf: leaf[0], fitted.params)
    exact = gaussian.moments_to_terms(params, mean, matrix, 0.5)
    gap = exact.distortion - gaussian.boundary(np.linalg.eigvalsh(matrix), exact.rate, 0.5)[0]
    assert -1e-5 < gap < 0.02
    expected = gaussian.water_filling(np.linalg.eigvalsh(matrix), beta * 0.25)
    np.testing.assert_allclose(exact.rate, expected.rate, atol=0.1)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: gaussian.water_filling([1.0, 0.0], 1.0),
            "variances: expected numbers above 0, got 0.0",
        ),
        (
            lambda: gaussian.water_filling([1.0, -2.0], 1.0),
            "variances: expected numbers above 0, got -2.0",
        ),
        (lambda: gaussian.water_filling([], 1.0), "variances: expected"),
        (lambda: gaussian.water_filling("ab", 1.0), "variances: expected"),
        (lambda: gaussian.water_filling([1.0], 0.0), "level: expected numbers above 0, got 0.0"),
        (lambda: gaussian.water_filling([1.0], [[1.0]]), "level: expected"),
        (lambda: gaussian.at_rate([1.0, 2.0], [[1.0, 2.0]]), "rate: expected"),
        (lambda: gaussian.at_rate([1.0], 400.0), "rate=400.0: expected at least 0 and at most 300"),
        (
            lambda: gaussian.PPCA.fit([0.0, np.nan], np.eye(2), 1),
            "mean: expected finite numbers, got nan",
        ),
        (lambda: gaussian.PPCA.fit(np.zeros(3), np.eye(2), 1), "mean: expected 2 elements"),
        (
            lambda: gaussian.PPCA.fit(np.zeros(2), np.eye(2), 1).log_likelihood(
                np.zeros(2), np.eye(3)
            ),
            "covariance: expected shape",
        ),
        (
            lambda: gaussian.moments_to_terms(linear_params(), np.zeros(4), np.eye(4), 0.0),
            "noise=0.0: expected above 0",
        ),
        (lambda: gaussian.at_rate([1.0], -0.1), "rate=-0.1: expected"),
        (lambda: gaussian.at_rate([1.0], np.nan), "rate: expected finite numbers, got nan"),
        (lambda: gaussian.boundary([1.0], 1.0, 0.0), "noise=0.0: expected above 0"),
        (lambda: gaussian.boundary([1.0], 1.0, 1.0, 0), "latent=0: expected"),
        (lambda: gaussian.PPCA.fit(np.zeros(2), np.eye(2), 2), "latent=2: expected below 2"),
        (
            lambda: gaussian.PPCA.fit(np.zeros(2), [[1.0, 2.0], [2.0, 1.0]], 1),
            "covariance: expected a positive definite",
        ),
        (
            lambda: gaussian.PPCA.fit(np.zeros(2), [[1.0, 0.5], [0.0, 1.0]], 1),
            "covariance: expected a symmetric",
        ),
        (
            lambda: gaussian.PPCA.fit(np.zeros(2), [1.0, 2.0], 1),
            "covariance: expected an array of real numbers with 2 axes",
        ),
        (lambda: linear_vae(2, 0), "latent=0: expected"),
        (lambda: linear_vae(2, 1, -1.0), "noise=-1.0: expected"),
    ],
)
def test_bad_input(call, sentence):
    with pytest.raises(BadInput, match=sentence):
        call()


def test_points_are_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        gaussian.Exact(0.0, 1.0).rate = 2.0
