"""Importance-weighted bounds against enumeration and closed forms."""

import itertools

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from rd_elbo import information
from rd_elbo.exact import discrete
from rd_elbo.exact.gaussian import PPCA
from rd_elbo.models.linear import linear_vae
from rd_elbo.models.vae import VAE
from rd_elbo.training import sharding, state
from rd_elbo.training.fit import Fitted
from rd_elbo.training.likelihood import columns, importance_weighted

TABLES = discrete.tables(
    source=[0.5, 0.3, 0.2],
    encoder=[[0.7, 0.3], [0.4, 0.6], [0.1, 0.9]],
    decoder=[[0.6, 0.3, 0.1], [0.2, 0.3, 0.5]],
    prior=[0.6, 0.4],
)


def population(model, params, shape, dtype="float64", vmap_size=None):
    """Given parameters, as if members had been trained to them."""
    spec = state.TrainSpec(model, dtype=dtype, vmap_size=vmap_size)
    stacked = state.stack(params, model, shape, dtype)
    mesh, count = sharding.make_mesh(1), len(params)
    return Fitted(spec, mesh, stacked, np.zeros(count), np.ones(count, bool), None, 0.0, 0.0)


def test_the_bound_rises_from_the_elbo_to_the_evidence_by_enumeration():
    """The expectation over every tuple of draws; a missing log K would shift it by log 2."""
    encoder, expected = np.asarray(TABLES.encoder), []
    log_w = information.log_weight(TABLES.encoder, TABLES.prior[None], TABLES.decoder.T)
    log_w = np.asarray(log_w)
    for count in (1, 2, 6):
        tuples = np.asarray(list(itertools.product(range(2), repeat=count))).T
        weight = np.exp(encoder[:, tuples].sum(1))
        bound = information.importance_weighted_bound(
            jnp.asarray(np.moveaxis(log_w[:, tuples], 1, 0))
        )
        expected.append((weight * np.asarray(bound)).sum(-1))
    elbo, evidence = jax.jit(lambda t: (discrete.elbo_of(t), discrete.evidence(t)))(TABLES)
    np.testing.assert_allclose(expected[0], elbo, rtol=1e-6)
    assert (expected[0] < expected[1]).all() and (expected[1] < expected[2]).all()
    assert (expected[2] < evidence).all()
    np.testing.assert_allclose(expected[2], evidence, atol=0.05)


class Symbols(distrax.Categorical):
    """A categorical distribution whose symbols may come as floats, as batches do."""

    def log_prob(self, value):
        return super().log_prob(value.astype(int))


class Table(nn.Module):
    """A row of a table of log-probabilities for each symbol."""

    table: str

    @nn.compact
    def __call__(self, symbol, *_):
        rows = jnp.asarray(getattr(TABLES, self.table))
        chosen = rows[symbol.astype(int)] if self.table != "prior" else rows
        return Symbols(logits=chosen)


def test_a_population_of_a_finite_model_has_the_evidence_of_enumeration():
    """K = 4000 draws, within five standard errors of the estimate of each symbol."""
    model = VAE(Table("encoder"), Table("decoder"), Table("prior"))
    params = {"encoder": {}, "decoder": {"unused": np.zeros(1)}, "prior": {}}
    spec = state.TrainSpec(model)
    mesh = sharding.make_mesh(1)
    stacked = jax.tree.map(lambda leaf: np.stack([leaf] * 2), params)
    fitted = Fitted(spec, mesh, stacked, np.zeros(2), np.ones(2, bool), None, 0.0, 0.0)
    found = importance_weighted(fitted, [0, 1], np.arange(3), 4000, chunk=500)
    truth = np.asarray(discrete.evidence(TABLES))
    log_w = np.asarray(information.log_weight(TABLES.encoder, TABLES.prior[None], TABLES.decoder.T))
    e = np.exp(np.asarray(TABLES.encoder))
    spread = np.sqrt((e * np.exp(2 * (log_w - truth[:, None]))).sum(1) - 1)
    assert (np.abs(found.log_evidence - truth) < 5 * spread / np.sqrt(4000)).all()
    assert (found.log_evidence[0] != found.log_evidence[1]).all()  # noise of their own
    elbo = np.asarray(discrete.elbo_of(TABLES))
    of_elbo = np.sqrt((e * (log_w - elbo[:, None]) ** 2).sum(1) / 4000)
    assert (np.abs(found.elbo - elbo) < 5 * of_elbo).all()


def linear(weights, noise, offset=0.0):
    """A linear VAE whose encoder is the posterior of its model, its mean moved by `offset`."""
    ppca = PPCA(np.zeros(len(weights)), weights, noise)
    gain, covariance = ppca.posterior()
    scale = 0.5 * np.log(np.diag(covariance))
    mean = {"kernel": gain.T, "bias": np.full(weights.shape[1], offset)}
    decoder = {"mean": {"kernel": weights.T, "bias": np.zeros(len(weights))}}
    return {"encoder": {"mean": mean, "log_scale": scale}, "decoder": decoder, "prior": {}}


def test_linear_models_have_the_likelihood_of_probabilistic_pca(x64):
    """Every draw gives log p(x) under the posterior; a wrong encoder rises to it with K."""
    rng = np.random.default_rng(0)
    directions, _ = np.linalg.qr(rng.standard_normal((4, 2)))
    # Orthogonal columns: the posterior's covariance is diagonal.
    weights, noise = directions * [1.5, 0.7], 0.6
    x = rng.standard_normal((300, 4))
    truth = stats.multivariate_normal(np.zeros(4), weights @ weights.T + noise**2 * np.eye(4))
    members = [linear(weights, noise), linear(weights, noise, offset=0.2)]
    fitted = population(linear_vae(4, 2, noise), members, (4,), vmap_size=1)
    one = importance_weighted(fitted, [0, 0], x, 1)
    np.testing.assert_allclose(one.log_evidence[0], truth.logpdf(x), rtol=1e-9)
    np.testing.assert_allclose(one.elbo, one.log_evidence)
    ten = importance_weighted(fitted, [0, 0], x, 10, chunk=4)
    np.testing.assert_allclose(ten.log_evidence[0], truth.logpdf(x), rtol=1e-9)
    wrong = [one.log_evidence[1].mean(), ten.log_evidence[1].mean()]
    assert wrong[0] < wrong[1] - 0.1 and abs(wrong[1] - truth.logpdf(x).mean()) < 0.05
    # The gap at the ELBO is the KL to the posterior, that of the moved mean alone.
    variance = np.diag(PPCA(np.zeros(4), weights, noise).posterior()[1])
    means = columns(truth.logpdf(x), ten.elbo[1])
    np.testing.assert_allclose(means["posterior_gap"], (0.04 / variance).sum() / 2, rtol=0.1)
    np.testing.assert_allclose(
        importance_weighted(fitted, [0, 0], x, 10).log_evidence, ten.log_evidence, rtol=1e-9
    )
