"""Any optimizer of optax, member by member, against optax itself with one model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rd_elbo as rd
from rd_elbo import objectives
from rd_elbo.errors import BadInput
from rd_elbo.models.vae import Terms
from rd_elbo.training import checkpoint, fit, optim, state
from tests.training.populations import Echo, Member, echo, several


class Valley(Echo):
    """D = |s w|^2 / 2 of two tensors, scaled so that the gradients of a seed are all its own."""

    def init(self, key, x):
        return {"one": jax.random.normal(key, (3,)), "two": 20 * jax.random.normal(key, (2, 2))}

    def terms(self, params, x, key):
        total = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params)) / 2
        return Terms(jnp.zeros(len(x)), jnp.full(len(x), total), x)


MODEL = Valley("weight")
X = np.zeros((4, 1))


def by_hand(transformation, seed, steps):
    """Parameters of one model after some steps of a transformation; their own gradient."""
    drawn = state.initialise([MODEL], [seed], MODEL, (1,), "float64")
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), drawn)
    moments = transformation.init(params)
    for _ in range(steps):
        updates, moments = transformation.update(params, moments, params)
        params = optax.apply_updates(params, updates)
    return params


def clipped(learning_rate):
    return optax.chain(optax.clip_by_global_norm(5.0), optax.sgd(learning_rate, momentum=0.5))


@pytest.mark.parametrize("factory", [optax.adamw, clipped, optim.clipped_adam, optax.lion])
def test_members_move_as_optax_moves_one(x64, factory):
    """Of clipping: by the global norm of each member, which are a factor apart."""
    rates = (0.05, 0.2, 0.1)
    hparams = state.HParams(np.arange(3), objectives.LossWeights(), 0.0, np.asarray(rates))
    options = dict(batch_size=4, schedule="constant", dtype="float64")
    spec = state.TrainSpec(MODEL, optimizer=factory, **options)
    fitted = fit.fit(spec, [MODEL] * 3, hparams, X, 15)
    for seed, rate in enumerate(rates):
        expected = by_hand(factory(rate), seed, 15)
        for name, leaf in expected.items():
            np.testing.assert_allclose(fitted.params[name][seed], leaf, rtol=1e-10)
    assert np.abs(fitted.params["two"][0] - fitted.params["two"][1]).max() > 0.1


def test_a_schedule_of_optax_counts_steps(x64):
    schedule = optax.warmup_exponential_decay_schedule(0.0, 0.3, 4, 5, 0.5)
    spec = state.TrainSpec(MODEL, batch_size=4, dtype="float64", schedule=schedule)
    spec = dataclasses.replace(spec, optimizer=optax.sgd)
    hparams = state.HParams(np.arange(2), objectives.LossWeights(), 0.0, np.asarray([1.0, 0.5]))
    fitted = fit.fit(spec, [MODEL] * 2, hparams, X, 12)
    for seed, factor in ((0, 1.0), (1, 0.5)):
        expected = by_hand(optax.sgd(lambda made, f=factor: f * schedule(made)), seed, 12)
        np.testing.assert_allclose(fitted.params["one"][seed], expected["one"], rtol=1e-10)


def test_a_transformation_has_a_learning_rate_of_its_own(x64):
    own = optax.adam(0.1, b1=0.5)
    result = rd.fit(
        MODEL, X, rd.product(seed=(3,)), steps=9, batch_size=4, optimizer=own, dtype="float64"
    )
    np.testing.assert_allclose(result.params(0)["two"], by_hand(own, 3, 9)["two"], rtol=1e-10)


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_optimizers_by_name_freeze_with_their_member(name):
    """Where a gradient is not finite neither parameters nor the optimizer's state move again."""
    member = dataclasses.replace(Member(), optimizer=name)
    images = np.arange(80.0)[:, None]
    fitted = echo(Echo("poison"), several(member, seed=range(3)), images, 20, optimizer=name)
    assert not fitted.alive.any() and np.isfinite(fitted.params["w"]).all()
    poisoned = np.argmax(~np.isfinite(fitted.metrics.loss), axis=1)
    np.testing.assert_array_equal(fitted.steps, poisoned)


def test_peaks_and_schedules_that_contradict_are_refused():
    grid = rd.product(seed=(0,))
    adam = optax.adam(0.1)
    for given, field in (
        (dict(optimizer=adam, schedule="cosine"), "schedule='cosine'"),
        (dict(optimizer=adam, learning_rate=0.1), "learning_rate=0.1"),
        (dict(learning_rate=lambda made: 0.1, schedule="constant"), "schedule='constant'"),
        (dict(learning_rate=-1.0), "learning_rate=-1.0"),
        (dict(optimizer="sgd"), "optimizer='sgd'"),
    ):
        with pytest.raises(BadInput) as refusal:
            rd.fit(MODEL, X, grid, steps=1, batch_size=4, **given)
        assert field in str(refusal.value)


def test_a_training_resumes_with_its_own_optimizer_alone(tmp_path, monkeypatch):
    """Another learning rate inside of a transformation is another training."""
    monkeypatch.setattr(checkpoint.Checkpoints, "due", lambda self: True)
    said = []

    def run(optimizer, folder, stop=None):
        spec = state.TrainSpec(MODEL, batch_size=4, optimizer=optimizer, call_steps=4)
        kept = checkpoint.Checkpoints(tmp_path / folder, report=said.append)
        hparams = state.HParams(np.arange(2), objectives.LossWeights(), 0.0, 1.0)
        return fit.fit(spec, [MODEL] * 2, hparams, X, 12, checkpoints=kept, stop=stop)

    whole = run(optax.adam(0.1), "whole")
    with pytest.raises(fit.Stopped):
        run(optax.adam(0.1), "parts", stop=lambda: True)
    resumed = run(optax.adam(0.1), "parts")
    jax.tree.map(np.testing.assert_array_equal, resumed.params, whole.params)
    assert not said
    other = run(optax.adam(0.2), "parts")
    assert said and "another training" in said[0]
    assert np.abs(other.params["two"] - whole.params["two"]).max() > 1e-3
