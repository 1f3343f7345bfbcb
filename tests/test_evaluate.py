"""Points of the table against direct computation from the model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rd_elbo import evaluate, population, scores, train
from rd_elbo.data.dataset import SPLITS, Dataset
from rd_elbo.evaluate import POINT_COLUMNS
from rd_elbo.grid import Group, Member, product

SHAPE = (4, 4)
BASE = Member(latent=3, encoder_width=6, decoder_width=5, decoder_depth=1, batch_size=8, epochs=2.0, learning_rate=1e-2)


@pytest.fixture(scope="module")
def dataset():
    random = np.random.RandomState(0)
    images = lambda n: (random.random_sample((n, *SHAPE)) < 0.4).astype(np.uint8)  # noqa: E731
    return Dataset("random", {"train": images(40), "test": images(23)}, "made by the test")


@pytest.fixture(scope="module")
def group():
    return Group(tuple(product(BASE, decoder_width=(5, 4), beta=(0.5, 1.0))[:3]))  # three: not a multiple of two devices


@pytest.fixture(scope="module")
def trained(group, dataset):
    return train.train(group, dataset)


def test_rows_are_complete_and_consistent(trained, dataset):
    points = evaluate.evaluate(trained, dataset)
    assert [(p["member"], p["split"]) for p in points] == [(m.name, s) for s in ("test", "train") for m in trained.members]
    for point in points:
        assert tuple(point) == POINT_COLUMNS
        assert point["elbo"] == -(point["rate"] + point["distortion"])
        assert point["rate"] >= 0 and point["distortion"] >= 0
        assert point["examples"] == len(dataset.splits[point["split"]])
        assert (point["steps"], point["status"], point["rate_estimator"]) == (10, "ok", "closed_form")


@pytest.mark.parametrize("batch", [250, 5])
def test_values_and_standard_errors(trained, dataset, monkeypatch, batch):
    """The same numbers from the model, image by image, whether or not the batch divides the split."""
    monkeypatch.setattr(evaluate, "BATCH", batch)
    test = dataset.splits["test"]
    points = evaluate.evaluate(trained, dataset, ("test",))
    for i, point in enumerate(points):
        member = trained.members[i]
        model, params = member.build(SHAPE), trained.member_params(i, SHAPE)
        e = model.encode(params, jnp.asarray(test, jnp.float32))
        rate = np.asarray(e.kl_divergence(model.prior(params, jnp.zeros((1, *SHAPE)))), np.float64)
        np.testing.assert_allclose([point["rate"], point["rate_se"]], [rate.mean(), rate.std(ddof=1) / np.sqrt(23)], rtol=1e-4)
        terms = scores.evaluate(
            trained.program, population.make_mesh(1), *one(trained, i), test, SPLITS.index("test"), min(batch, 23)
        )
        distortion = terms.distortion[0].astype(np.float64)
        total = distortion + terms.rate[0]
        expected = [values.std(ddof=1) / np.sqrt(23) for values in (distortion, total)]
        np.testing.assert_allclose([point["distortion_se"], point["elbo_se"]], expected, rtol=1e-4)
        np.testing.assert_allclose(point["distortion"], distortion.mean(), rtol=1e-5)
        # The distortion has a draw of z in it: compare with its spread over many draws.
        draws = [
            -model.decode(params, e.sample(seed=jax.random.key(k))).log_prob(jnp.asarray(test, jnp.float32)).mean()
            for k in range(40)
        ]
        assert abs(point["distortion"] - np.mean(draws)) < 5 * np.std(draws)
        variance = np.asarray(e.mean(), np.float64).var(axis=0)
        assert point["active_units"] == (variance > evaluate.ACTIVE_VARIANCE).sum()
        assert point["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(params))


def one(trained, index):
    """The parameters and the seed of one member, as a population of one."""
    return jax.tree.map(lambda a: a[index : index + 1], trained.params), jnp.asarray([trained.members[index].seed], jnp.uint32)


def test_active_units_are_counted_over_all_batches(monkeypatch):
    """Codes that differ between batches alone, within batches alone, and not at all; the last batch is not full."""
    monkeypatch.setattr(evaluate, "BATCH", 4)
    codes = np.zeros((10, 3))
    codes[:, 0] = np.repeat([0.0, 0.3, 0.6], [4, 4, 2])
    codes[:, 1] = np.tile([0.0, 0.3], 5)
    codes[:, 2] = 5.0
    batches = [codes[:4], codes[4:8], codes[8:]]
    moments = [np.stack([f(b) for b in batches])[None] for f in (lambda b: b.mean(0), lambda b: b.var(0))]
    result = scores.Evaluation(np.zeros((1, 10)), np.zeros((1, 10)), *moments)
    assert evaluate.active_units(result, 10).tolist() == [2]
    monkeypatch.setattr(evaluate, "ACTIVE_VARIANCE", codes.var(axis=0)[0] - 1e-9)
    expected = (codes.var(axis=0) > evaluate.ACTIVE_VARIANCE).sum()
    assert evaluate.active_units(result, 10).tolist() == [expected]


def test_points_do_not_depend_on_neighbours_or_devices(trained, dataset):
    together = evaluate.evaluate(trained, dataset, ("test",))
    alone = dataclasses.replace(
        trained, members=trained.members[1:2], params=jax.tree.map(lambda a: a[1:2], trained.params), devices=1
    )
    (point,) = evaluate.evaluate(alone, dataset, ("test",))
    for field in ("rate", "distortion", "rate_se", "distortion_se"):
        np.testing.assert_allclose(point[field], together[1][field], rtol=1e-5)


def test_monte_carlo_where_there_is_no_closed_form(dataset):
    member = dataclasses.replace(BASE, marginal="vampprior", pseudo_inputs=3)
    (point,) = evaluate.evaluate(train.train(Group((member,)), dataset), dataset, ("test",))
    assert point["rate_estimator"] == "monte_carlo"


def test_a_diverged_member_is_reported(dataset):
    member = dataclasses.replace(BASE, learning_rate=1e30, beta=1e30)
    points = evaluate.evaluate(train.train(Group((BASE, member)), dataset), dataset, ("test",))
    assert [p["status"] for p in points] == ["ok", "diverged"]
    assert points[1]["steps"] < points[0]["steps"]


def test_a_last_step_that_explodes_is_reported(dataset):
    """After one step nothing has been evaluated at the new parameters yet; the evaluation itself must notice."""
    member = dataclasses.replace(BASE, learning_rate=1e30, epochs=1 / 5)
    trained = train.train(Group((member,)), dataset)
    assert trained.steps[0] == 1 and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(trained.params))
    (point,) = evaluate.evaluate(trained, dataset, ("test",))
    assert point["status"] == "diverged"
