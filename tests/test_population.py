"""A member is the same whatever it is trained with. In float64, where rounding cannot hide or fake a difference."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rd_elbo import grid, population, train
from rd_elbo.data.dataset import Dataset
from rd_elbo.grid import Group, Member, product
from rd_elbo.models.base import Terms

SHAPE = (4, 4)
STEPS = 50
BASE = Member(latent=3, encoder_width=6, decoder_width=6, decoder_depth=1, batch_size=4, learning_rate=1e-2, pseudo_inputs=3)
KINDS = {
    "mlp": BASE,
    "pixelcnn": dataclasses.replace(BASE, decoder="pixelcnn", decoder_width=4, decoder_depth=2),
    "vampprior": dataclasses.replace(BASE, marginal="vampprior"),
    "target rate": dataclasses.replace(BASE, objective="target_rate", target_rate=2.0, annealing=0.5),
}


@pytest.fixture(scope="module")
def dataset():
    random = np.random.RandomState(0)
    images = (random.random_sample((40, *SHAPE)) < 0.4).astype(np.uint8)
    return Dataset("random", {"train": images, "test": images[:10]}, "made by the test")


def lasting(member, examples=40):
    """The member, to be trained for `STEPS` steps."""
    return dataclasses.replace(member, epochs=STEPS / (examples // member.batch_size))


def trained(members, dataset, **execution):
    group = Group(tuple(lasting(m) for m in members))
    result = train.train(group, dataset, train.Execution(dtype="float64", **execution))
    assert (result.steps == STEPS).all() and result.finite.all()
    return result


def of(result, index):
    return jax.tree.map(lambda leaf: leaf[index], result.params)


def assert_same(a, b, rtol=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-9), a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_in_a_population_alone_elsewhere_and_on_other_devices(x64, dataset, kind):
    base = KINDS[kind]
    field = "target_rate" if base.objective == "target_rate" else "beta"
    members = product(base, **{field: (0.3, 1.0, 2.0)}, seed=(0, 5))
    one, two = trained(members, dataset, devices=1), trained(members, dataset, devices=2)
    backwards = trained(members[::-1], dataset, devices=2)
    assert (one.devices, two.devices) == (1, 2)
    for i, member in enumerate(members):
        alone = trained([member], dataset)
        assert_same(of(one, i), of(alone, 0))
        assert_same(of(two, i), of(alone, 0))
        assert_same(of(backwards, len(members) - 1 - i), of(alone, 0))
        np.testing.assert_allclose(one.metrics.loss[i], alone.metrics.loss[0], rtol=1e-6)
    # The comparison would be empty if members did not differ.
    weights = jax.tree.leaves(one.params["encoder"])[0]
    for i in range(1, len(members)):
        assert np.abs(weights[0] - weights[i]).max() > 1e-4


def test_chunking_changes_nothing(x64, dataset):
    members = [lasting(m) for m in product(KINDS["mlp"], beta=(0.3, 1.0, 2.0), seed=(0, 5))]
    whole = trained(members, dataset)
    execution = train.Execution(chunk=4, dtype="float64")
    parts = list(train.chunks(Group(tuple(members)), execution))
    assert [len(part.members) for part in parts] == [4, 2]
    results = [train.train(part, dataset, execution) for part in parts]
    for i in range(6):
        assert_same(of(whole, i), of(results[i // 4], i % 4))


@pytest.mark.parametrize("kind", ["mlp", "pixelcnn", "vampprior"])
def test_padded_from_a_smaller_width(x64, dataset, kind):
    narrow = dataclasses.replace(KINDS[kind], decoder_width=3, encoder_width=5)
    wide = KINDS[kind]
    padded = trained([narrow, wide, dataclasses.replace(narrow, beta=0.2)], dataset)
    for index, member in ((0, narrow), (1, wide)):
        alone = trained([member], dataset)
        assert_same(padded.member_params(index, SHAPE), of(alone, 0))
    own = train.parameter_shapes(narrow.build(SHAPE), SHAPE)
    beyond = 0

    def check(whole, leaf):
        nonlocal beyond
        outside = np.array(whole)
        outside[tuple(map(slice, leaf.shape))] = 0
        assert (outside == 0).all()  # exactly: nothing has leaked into the padding
        beyond += whole.size - np.prod(leaf.shape, dtype=int)

    jax.tree.map(check, of(padded, 0), own)
    assert beyond > 0


def test_a_second_population_compiles_nothing(dataset):
    def run(**axes):
        members = [lasting(m) for m in product(KINDS["pixelcnn"], **axes)]
        return train.train(Group(tuple(members)), dataset, train.Execution(devices=2))

    compiled = []
    listen = lambda name, seconds, **_: compiled.append(name) if "backend_compile" in name else None  # noqa: E731
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        run(beta=(0.5, 1.0), learning_rate=(1e-3, 1e-2))
        first = len(compiled)
        run(beta=(0.1, 4.0), learning_rate=(2e-3, 3e-2), seed=(7,), annealing=(0.2,))
        assert first > 0  # the counter counts
        assert len(compiled) == first
        run(beta=(0.1, 4.0, 5.0), learning_rate=(2e-3, 3e-2))
        assert len(compiled) > first
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_a_member_that_diverges_is_frozen_and_harms_no_neighbour(x64, dataset):
    good, bad = lasting(KINDS["mlp"]), lasting(dataclasses.replace(KINDS["mlp"], learning_rate=1e200, beta=1.5))
    together = train.train(Group((good, bad)), dataset, train.Execution(dtype="float64"))
    assert together.finite.tolist() == [True, False]
    assert together.steps[0] == STEPS and together.steps[1] < STEPS
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(together.params))
    assert_same(of(together, 0), of(trained([good], dataset), 0))


def test_an_epoch_sees_every_example_once():
    """A model whose "rate" is the example itself shows which examples were drawn."""

    @dataclasses.dataclass(frozen=True)
    class Echo:
        def init(self, key, x):
            return {"w": jnp.zeros(())}

        def terms(self, params, x, key):
            return Terms(x[:, 0] + 0 * params["w"], x[:, 0] * params["w"], x)

        def rate_estimator(self, params, x):
            return "closed_form"

    images = 2.0 ** np.arange(12)[:, None]  # sums of distinct powers of two are unique
    mesh = population.make_mesh(1)
    program = population.Program(Echo(), batch_size=4, segment_steps=3, dtype="float32")
    params = population.initialise([Echo()] * 2, [0, 1], Echo(), (1,))
    state = population.start(params, mesh)
    hypers = population.Hypers.of([Member(seed=0), Member(seed=1)])
    seen = []
    for epoch in range(2):
        state, metrics = population.train(program, mesh, state, hypers, images, 3 * epoch, 3, 6)
        batches = np.asarray(metrics.rate) * 4
        np.testing.assert_array_equal(batches.sum(axis=1), images.sum())
        seen.append(batches)
    assert len({tuple(row) for batches in seen for row in batches}) == 4  # other orders in other epochs and for other seeds


def test_segments_do_not_matter(x64, dataset, monkeypatch):
    whole = trained([BASE], dataset)
    lengths = iter([7, 1, 30, 2, *[9] * 20])
    monkeypatch.setattr(train, "next_steps", lambda *_: next(lengths))
    pieces = trained([BASE], dataset)
    assert_same(of(whole, 0), of(pieces, 0), rtol=1e-12)
    np.testing.assert_allclose(whole.metrics.loss, pieces.metrics.loss, rtol=1e-12)


def test_segments_take_about_the_time_wanted():
    assert train.next_steps(100, 2 * train._SEGMENT_SECONDS) == 50
    assert train.next_steps(1, 1000.0) == 1
    assert train.next_steps(16, 1e-6) == 64
    assert train.next_steps(400, 0.1) == train._MOST_STEPS


def test_learning_rate_schedules():
    at = jnp.array([0.0, 0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(population.SCHEDULES["half_linear"](at), [1, 1, 1, 0.5, 0])
    np.testing.assert_allclose(population.SCHEDULES["cosine"](at), [1, 0.853553, 0.5, 0.146447, 0], atol=1e-6)
    np.testing.assert_allclose(population.SCHEDULES["constant"](at), 1)


def test_the_first_step_is_adams(x64, dataset):
    """After one step every parameter with a gradient has moved by the learning rate, whatever the gradient's size."""
    member = dataclasses.replace(BASE, epochs=1 / 10, schedule="constant", learning_rate=0.037)
    result = train.train(Group((member,)), dataset, train.Execution(dtype="float64"))
    before = population.initialise([member.build(SHAPE)], [member.seed], member.build(SHAPE), SHAPE, "float64")
    moved = np.concatenate([np.abs(a - b).ravel() for a, b in zip(*map(jax.tree.leaves, (result.params, before)), strict=True)])
    assert result.steps[0] == 1
    np.testing.assert_allclose(moved[moved > 1e-3], 0.037, rtol=1e-3)
    assert (moved > 1e-3).mean() > 0.9


def test_progress_reports(dataset):
    heard = []
    group = Group(tuple(lasting(m) for m in product(BASE, beta=(1.0, 2.0))))
    train.train(group, dataset, listener=heard.append)
    assert [p.steps for p in heard][-1] == heard[-1].total_steps == STEPS
    assert all(a.steps < b.steps for a, b in itertools.pairwise(heard))
    assert heard[-1].finite == heard[-1].members == 2
    assert np.isfinite([heard[-1].rate, heard[-1].distortion]).all()


def test_groups_of_a_grid():
    members = product(BASE, decoder_width=(6, 4, 1), beta=(0.5, 1.0)) + product(BASE, batch_size=(8,))
    apart = grid.groups(members, SHAPE, max_waste=1.0)
    assert [len(g.members) for g in apart] == [2, 2, 2, 1]
    together = grid.groups(members, SHAPE, max_waste=10.0)
    assert [len(g.members) for g in together] == [6, 1]
    assert together[0].padded.decoder_width == 6
    assert [m for g in together for m in g.members] == members
    # The rule itself: padding (6, 4) costs some factor; just above it they share, just below they do not.
    pair = product(BASE, decoder_width=(6, 4))
    cost = {m.decoder_width: grid.work(grid.architecture_of(m), SHAPE, m.batch_size) for m in pair}
    factor = 2 * cost[6] / (cost[6] + cost[4])
    assert len(grid.groups(pair, SHAPE, factor + 1e-6)) == 1
    assert len(grid.groups(pair, SHAPE, factor - 1e-6)) == 2
