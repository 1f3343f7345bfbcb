"""Terms of an evaluation against direct computation from the model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rd_elbo.training import evaluate, sharding, state
from tests.training.populations import (
    SHAPE,
    Echo,
    Member,
    echo,
    images_of,
    models_of,
    several,
    train,
)

BASE = Member(decoder_width=5, batch_size=8)
# Three: no multiple of two devices.
MEMBERS = several(BASE, decoder_width=(5, 5, 4), beta=(0.5, 1.0, 0.5))
TEST = images_of(23)


@pytest.fixture(scope="module")
def fitted():
    return train(MEMBERS, steps=10, spec={"dtype": "float32"})


def own_params(fitted, index):
    """A member's parameters at its own widths."""
    like = state.parameter_shapes(models_of([MEMBERS[index]])[1], SHAPE)
    return jax.tree.map(lambda x, s: x[(index, *map(slice, s.shape))], fitted.params, like)


@pytest.fixture(scope="module")
def terms(fitted):
    """Each member's rates, distortions by many draws of z, and codes, directly from its model."""
    x, found = jnp.asarray(TEST, jnp.float32), []
    for i, member in enumerate(MEMBERS):
        model = models_of([member])[1]

        @jax.jit
        def measured(params, keys, model=model):
            e, m = model.encode(params, x), model.prior_distribution(params, x)
            drawn = jax.vmap(lambda key: model.decode(params, e.sample(seed=key)).log_prob(x))(keys)
            return e.kl_divergence(m), -drawn.mean(1), e.mean()

        drawn = measured(own_params(fitted, i), jax.random.split(jax.random.key(0), 40))
        found.append([np.asarray(value, np.float64) for value in drawn])
    return found


@pytest.mark.parametrize("batch", [250, 10])
def test_terms_are_those_of_the_model_image_by_image(fitted, terms, batch, monkeypatch):
    """Whether or not the batch divides the split."""
    monkeypatch.setattr(evaluate, "BATCH", batch)
    result = evaluate.evaluate(fitted, [0] * 3, TEST)
    assert result.rate.shape == result.distortion.shape == (3, 23)
    active = evaluate.active_units(result)
    for i, (rate, draws, code) in enumerate(terms):
        np.testing.assert_allclose(result.rate[i], rate, rtol=1e-3, atol=1e-6)
        means = evaluate.means(result.rate[i], result.distortion[i])
        np.testing.assert_allclose(means["rate"], rate.mean(), rtol=1e-4)
        np.testing.assert_allclose(means["rate_se"], rate.std(ddof=1) / np.sqrt(23), rtol=1e-3)
        # The distortion has a draw of z in it: compare with its spread over many draws.
        assert abs(means["distortion"] - np.mean(draws)) < 5 * np.std(draws)
        assert active[i] == (code.var(axis=0) > evaluate.ACTIVE_VARIANCE).sum()


def test_means_and_standard_errors():
    means = evaluate.means(np.asarray([1.0, 2.0, 3.0]), np.asarray([4.0, 4.0, 1.0]))
    assert (means["rate"], means["distortion"], means["elbo"]) == (2, 3, -5)
    expected = [1 / np.sqrt(3), np.std([5, 6, 4], ddof=1) / np.sqrt(3)]
    np.testing.assert_allclose([means["rate_se"], means["elbo_se"]], expected)
    assert np.isnan(evaluate.means(np.ones(1), np.ones(1))["rate_se"])


def test_active_units_are_counted_over_all_batches(monkeypatch):
    """Codes that differ between batches, within batches, and not at all; the last is not full."""
    monkeypatch.setattr(evaluate, "BATCH", 4)
    codes = np.zeros((10, 3))
    codes[:, 0] = np.repeat([0.0, 0.3, 0.6], [4, 4, 2])
    codes[:, 1] = np.tile([0.0, 0.3], 5)
    codes[:, 2] = 5.0
    batches = [codes[:4], codes[4:8], codes[8:]]
    moments = [
        np.stack([f(b) for b in batches])[None] for f in (lambda b: b.mean(0), lambda b: b.var(0))
    ]
    result = evaluate.Evaluation(np.zeros((1, 10)), np.zeros((1, 10)), *moments)
    assert evaluate.active_units(result).tolist() == [2]
    monkeypatch.setattr(evaluate, "ACTIVE_VARIANCE", codes.var(axis=0)[0] - 1e-9)
    expected = (codes.var(axis=0) > evaluate.ACTIVE_VARIANCE).sum()
    assert evaluate.active_units(result).tolist() == [expected]


def test_terms_do_not_depend_on_neighbours_or_devices(fitted):
    together = evaluate.evaluate(fitted, [0, 1, 2], TEST, 1)
    one = dataclasses.replace(
        fitted,
        mesh=sharding.make_mesh(1),
        sharded=jax.tree.map(lambda x: x[1:2], fitted.params),
        steps=fitted.steps[1:2],
    )
    alone = evaluate.evaluate(one, [1], TEST, 1)
    np.testing.assert_allclose(alone.rate[0], together.rate[1], rtol=1e-5)
    np.testing.assert_allclose(alone.distortion[0], together.distortion[1], rtol=1e-5)
    other = evaluate.evaluate(fitted, [0, 1, 2], TEST, 1, mesh=sharding.make_mesh(1), vmap_size=1)
    np.testing.assert_allclose(other.distortion, together.distortion, rtol=1e-5)


def test_noise_is_fresh_in_every_batch_split_and_seed(monkeypatch):
    monkeypatch.setattr(evaluate, "BATCH", 3)
    images, members = np.zeros((93, 1), np.float32), several(Member(), seed=(0, 1))
    fitted = echo(Echo("key"), members, images, 1)
    # 31 batches: more than one call, the last one not full.
    splits = [evaluate.evaluate(fitted, [0, 1], images, split).rate for split in (0, 1)]
    assert splits[0].shape == (2, 93)
    assert len(np.unique(splits)) == 2 * 2 * 31


def test_any_model_is_evaluated_and_progress_told():
    data, heard = np.arange(12.0)[:, None], []
    fitted = echo(Echo("weight"), several(Member(), seed=(0, 1, 2)), data, 2)
    result = evaluate.evaluate(fitted, [0, 1, 2], data, callback=heard.append)
    assert result.rate.shape == (3, 12) and sum(heard) == 12
    expected = np.repeat(fitted.params["w"][:, None], 12, axis=1)
    np.testing.assert_allclose(result.distortion, expected)


def test_estimator_of_the_rate(fitted):
    assert evaluate.rate_estimator(fitted.spec, SHAPE) == "closed_form"
    vamp = dataclasses.replace(BASE, prior="vampprior")
    spec = dataclasses.replace(fitted.spec, model=models_of([vamp])[1])
    assert evaluate.rate_estimator(spec, SHAPE) == "monte_carlo"


def test_an_evaluation_shares_its_program_with_all_that_trained_otherwise(fitted):
    other = dataclasses.replace(
        fitted.spec, objective="target_rate", batch_size=3, precision="high"
    )
    like = fitted.mesh, 3, TEST.shape, "uint8"
    first, second = (evaluate.compile_for(spec, *like) for spec in (fitted.spec, other))
    assert first is second


def test_a_last_step_that_explodes_is_noticed():
    """After one step nothing has been evaluated at the new parameters yet."""
    member = dataclasses.replace(BASE, learning_rate=1e30)
    fitted = train([member], steps=1, spec={"dtype": "float32"})
    assert fitted.steps[0] == 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fitted.params))
    result = evaluate.evaluate(fitted, [0], TEST)
    assert not np.isfinite(result.rate + result.distortion).all()
