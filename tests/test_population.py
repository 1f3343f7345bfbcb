"""A member is the same whatever it is trained with. In float64, where rounding cannot hide or fake a difference."""

import dataclasses
import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rd_elbo import evaluate, grid, objectives, optimizers, population, scores, train
from rd_elbo.data.dataset import Dataset
from rd_elbo.errors import BadInput
from rd_elbo.grid import Group, Member, product
from rd_elbo.models.base import Terms
from rd_elbo.models.family import paper_family

SHAPE = (4, 4)
STEPS = 50
BASE = Member(latent=3, encoder_width=6, decoder_width=6, decoder_depth=1, batch_size=4, learning_rate=1e-2, pseudo_inputs=3)
KINDS = {
    "mlp": BASE,
    "pixelcnn": dataclasses.replace(BASE, decoder="pixelcnn", decoder_width=4, decoder_depth=2),
    "vampprior": dataclasses.replace(BASE, marginal="vampprior"),
    "target rate": dataclasses.replace(BASE, objective="target_rate", target_rate=2.0, annealing=0.5),
    "convolutions": dataclasses.replace(
        BASE, encoder="conv", decoder="deconv", encoder_width=3, decoder_width=3, decoder_depth=2, optimizer="normalised_adam"
    ),
}
# Held against narrower ones only.
PADDED = {
    "resnet": dataclasses.replace(KINDS["convolutions"], encoder="resnet", decoder="resnet", encoder_depth=1, decoder_depth=1),
    "pixelvae": dataclasses.replace(KINDS["convolutions"], decoder="pixelvae", encoder="dense", decoder_depth=1, causal_depth=1),
    "pixelcnnpp": dataclasses.replace(BASE, decoder="pixelcnnpp", decoder_width=3, z_in_every_layer=True),
}
STRONG = dataclasses.replace(
    KINDS["convolutions"],
    **paper_family("++v"),
    **dict(encoder_depth=1, decoder_depth=1, flow_steps=2, flow_width=5, flow_depth=1, pseudo_inputs=3),
    **dict(objective="target_distortion", target_distortion=9.0, multiplier_rate=0.1),
)


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
    execution = train.Execution(members=4, dtype="float64")
    parts = list(train.chunks(Group(tuple(members)), execution.members))
    assert [len(part.members) for part in parts] == [4, 2]
    results = [train.train(part, dataset, execution) for part in parts]
    for i in range(6):
        assert_same(of(whole, i), of(results[i // 4], i % 4))


@pytest.mark.parametrize("kind", ["mlp", "pixelcnn", "vampprior", "convolutions", "strong", *PADDED])
def test_padded_from_a_smaller_width(x64, dataset, kind):
    wide = {**KINDS, **PADDED, "strong": STRONG}[kind]
    narrow = dataclasses.replace(wide, decoder_width=2, encoder_width=wide.encoder_width - 1)
    padded = trained([narrow, wide, dataclasses.replace(narrow, seed=3)], dataset)
    # The strong parts take long to compile: there the narrow one alone is held against it, as it is the one that is padded.
    for index, member in ((0, narrow),) if kind not in KINDS else ((0, narrow), (1, wide)):
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
        evaluate.evaluate(train.train(Group(tuple(members)), dataset, train.Execution(devices=2)), dataset)

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
    # Chosen so large that the next loss overflows float64 as well.
    good, bad = lasting(KINDS["mlp"]), lasting(dataclasses.replace(KINDS["mlp"], learning_rate=1e30, beta=1e30))
    together = train.train(Group((good, bad)), dataset, train.Execution(dtype="float64"))
    assert together.finite.tolist() == [True, False]
    assert together.steps[0] == STEPS and together.steps[1] < STEPS
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(together.params))
    assert_same(of(together, 0), of(trained([good], dataset), 0))


@dataclasses.dataclass(frozen=True)
class Echo:
    """A model of one weight that tells what it was given: its rate is `seen` of the batch and the key, its distortion is w."""

    seen: str = "example"

    def init(self, key, x):
        return {"w": jax.random.normal(key) if self.seen == "weight" else jnp.zeros(())}

    def terms(self, params, x, key):
        rate = {
            "example": x[:, 0],
            "key": jnp.full(len(x), jax.random.uniform(key)),
            "one": jnp.ones(len(x)),
            "weight": jnp.full(len(x), params["w"]),
            "poison": jnp.where(x[:, 0] == 7, jnp.nan, 1.0) * params["w"],
        }[self.seen]
        return Terms(rate + 0 * params["w"], jnp.full(len(x), params["w"]), x)

    def rate_estimator(self, params, x):
        return "closed_form"


class Wide(Echo):
    """One that does not fit."""

    def init(self, key, x):
        return {"w": jnp.zeros(2)}


def echo(model, members, images, steps, per_call=None, program=(), total=None):
    """Trains echoes; returns their final state and the rates, distortions and losses of all steps."""
    mesh, per_call = population.make_mesh(1), per_call or steps
    program = population.Program(model, segment_steps=per_call, **{"batch_size": 4, **dict(program)})
    state = population.start(population.initialise([model] * len(members), [m.seed for m in members], model, (1,)), mesh)
    seen = []
    for first in range(0, steps, per_call):
        arguments = (population.Hypers.of(members), images, first, per_call, total or steps)
        state, metrics = population.train(program, mesh, state, *arguments)
        seen.append(metrics)
    return state, jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *seen)


def test_an_epoch_sees_every_example_once():
    images = 2.0 ** np.arange(12)[:, None]  # sums of distinct powers of two are unique
    _, metrics = echo(Echo(), [Member(seed=0), Member(seed=1)], images, steps=6, per_call=3)
    batches = (4 * metrics.rate).reshape(2, 2, 3)
    np.testing.assert_array_equal(batches.sum(axis=-1), images.sum())
    assert len({tuple(row) for row in batches.reshape(4, 3)}) == 4  # other orders in other epochs and for other seeds


def test_noise_is_of_the_own_seed_and_fresh_at_every_step():
    _, metrics = echo(Echo("key"), [Member(seed=s) for s in (0, 1, 0)], np.zeros((400, 1)), steps=80, per_call=20)
    np.testing.assert_array_equal(metrics.rate[0], metrics.rate[2])
    assert len(np.unique(metrics.rate[:2])) == 160


def test_noise_of_an_evaluation_is_fresh_in_every_batch_and_split():
    mesh, program = population.make_mesh(1), population.Program(Echo("key"))
    params, seeds = {"w": jnp.zeros(2)}, jnp.asarray([0, 1], jnp.uint32)
    images = np.zeros((93, 1), np.float32)  # 31 batches: more than one call, the last one not full
    splits = [scores.evaluate(program, mesh, params, seeds, images, split, 3).rate for split in (0, 1)]
    assert splits[0].shape == (2, 93)
    assert len(np.unique(splits)) == 2 * 2 * 31


def test_initial_weights_are_those_of_the_members_own_key():
    drawn = population.initialise([Echo("weight")] * 3, [4, 5, 4], Echo("weight"), (1,))["w"]
    keys = [jax.random.fold_in(jax.random.key(seed), population.Stream.INIT) for seed in (4, 5, 4)]
    np.testing.assert_allclose(drawn, [jax.random.normal(key) for key in keys], rtol=1e-6)
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize("schedule", optimizers.SCHEDULES)
def test_learning_rate_over_the_whole_training(schedule):
    """A constant gradient makes every step of Adam the learning rate itself, so the weight adds up the schedule."""
    state, _ = echo(Echo("one"), [Member(learning_rate=0.01)], np.zeros((80, 1)), 20, program={"schedule": schedule})
    expected = 0.01 * sum(float(optimizers.SCHEDULES[schedule](jnp.float32(i / 20))) for i in range(20))
    np.testing.assert_allclose(-state.params["w"][0], expected, rtol=1e-5)


def test_annealing_over_the_whole_training():
    """With R = 1 and a weight that hardly moves, the loss is the weight of the rate at each step."""
    member = Member(annealing=0.5, beta=0.8, learning_rate=1e-12)
    _, metrics = echo(Echo("one"), [member], np.zeros((80, 1)), 20)
    np.testing.assert_allclose(metrics.loss[0], 0.8 * np.minimum(np.arange(20) / 10, 1), atol=1e-6)


def test_a_frozen_member_never_thaws():
    """One example poisons the loss; the batches after it are healthy again, and must change nothing any more."""
    members = [Member(seed=s, learning_rate=0.01) for s in range(6)]
    images = np.arange(80.0)[:, None]
    state, metrics = echo(Echo("poison"), members, images, 20)
    poisoned = np.argmax(~np.isfinite(metrics.loss), axis=1)
    assert (~np.isfinite(metrics.loss)).any(axis=1).all() and (poisoned < 19).any()
    assert not state.finite.any()
    np.testing.assert_array_equal(state.steps, poisoned)


def test_steps_beyond_the_epoch_or_the_segment_are_refused():
    with pytest.raises(ValueError, match="the rest of the epoch"):
        echo(Echo(), [Member()], np.zeros((12, 1)), steps=4)


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
    assert train.next_steps(400, 0.1) == train.MOST_STEPS


def test_learning_rate_schedules():
    at = jnp.array([0.0, 0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(optimizers.SCHEDULES["half_linear"](at), [1, 1, 1, 0.5, 0])
    np.testing.assert_allclose(optimizers.SCHEDULES["cosine"](at), [1, 0.853553, 0.5, 0.146447, 0], atol=1e-6)
    np.testing.assert_allclose(optimizers.SCHEDULES["constant"](at), 1)
    np.testing.assert_allclose(optimizers.SCHEDULES["warmup_cosine"](at), [0, 0.853553, 0.5, 0.146447, 0], atol=1e-6)
    np.testing.assert_allclose(optimizers.SCHEDULES["warmup_cosine"](0.025), 0.5 * 0.998459, rtol=1e-5)


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


def test_float64_is_refused_where_jax_would_quietly_use_float32(dataset):
    with pytest.raises(BadInput, match="x64"):
        train.train(Group((BASE,)), dataset, train.Execution(dtype="float64"))


def test_lanes_change_nothing(x64, dataset):
    members = product(BASE, beta=(0.3, 1.0, 2.0), seed=(0, 5, 7))
    # 9 members on 2 devices: one more is made up, and the last lanes are not full.
    assert_same(trained(members, dataset, lanes=2).params, trained(members, dataset).params)


def test_a_batch_of_everything_is_the_data_in_its_own_order_for_any_number_of_steps():
    images = 2.0 ** np.arange(4)[:, None]
    _, metrics = echo(Echo(), [Member(seed=0)], images, steps=9, per_call=9)
    np.testing.assert_array_equal(metrics.rate, images.mean())

    class InOrder(Echo):
        def terms(self, params, x, key):
            return Terms(x[:, 0] * jnp.arange(len(x)), jnp.full(len(x), params["w"]), x)

    _, metrics = echo(InOrder(), [Member(seed=0)], images, steps=9, per_call=3)
    np.testing.assert_array_equal(metrics.rate, (images[:, 0] * np.arange(4)).mean())
    assert population.longest_segment(4, 4, 7) is None and population.longest_segment(4, 9, 3) == 1


@pytest.mark.parametrize("b2", [0.9, 0.999])
def test_adam_is_optax_adam_of_that_decay(x64, b2):
    """The gradient of D = w^2 / 2, step by step, by optax itself."""

    class Bowl(Echo):
        def terms(self, params, x, key):
            return Terms(jnp.zeros(len(x)), jnp.full(len(x), 0.5 * params["w"] ** 2), x)

    member = Member(learning_rate=0.1)
    model = Bowl("weight")
    program = population.Program(model, batch_size=4, schedule="constant", adam_b2=b2, dtype="float64")
    fitted = train.fit(program, [model], population.Hypers.of([member], "float64"), np.zeros((4, 1)), 25)
    optimiser = optax.adam(0.1, b2=b2)
    w = jnp.asarray(population.initialise([model], [0], model, (1,), "float64")["w"][0])
    assert abs(w) > 0.1
    state = optimiser.init(w)
    for _ in range(25):
        update, state = optimiser.update(w, state)
        w = w + update
    np.testing.assert_allclose(fitted.params["w"], [w], rtol=1e-12)


@pytest.mark.parametrize("every", [1, 3, 7, 100])
def test_fit_keeps_the_metrics_of_every_so_many_steps(every):
    images, members = np.arange(40.0)[:, None], [Member(seed=0), Member(seed=1), Member(seed=2)]
    program = population.Program(Echo("key"), batch_size=4, segment_steps=8)
    whole, thinned = (train.fit(program, [Echo("key")] * 3, population.Hypers.of(members), images, 23, every=n) for n in (1, every))
    assert whole.metrics.rate.shape == (3, 23)
    np.testing.assert_array_equal(thinned.metrics.rate[:, ::-1], whole.metrics.rate[:, ::-1][:, ::every])
    assert (thinned.steps == 23).all() and thinned.params["w"].shape == (3,)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"models": []}, "models=0 must be at least 1"),
        ({"models": [Echo()]}, "models=1 must be at least 1 and as many as"),
        ({"hypers": population.Hypers.of([Member()])._replace(seed=np.uint32(0))}, "models=2 must be at least 1 and as many as"),
        ({"models": [Wide(), Echo()]}, "does not fit into"),
        ({"steps": 0}, "steps=0 must be"),
        ({"every": 0}, "every=0 must be"),
        ({"data": np.zeros((3, 1))}, "batch_size=4 is more than the 3 examples"),
        ({"program": dict(batch_size=4, dtype="float64")}, "x64 mode"),
        ({"program": dict(objective="elbo", batch_size=4)}, "objective='elbo' does not exist"),
        ({"program": dict(schedule="warm", batch_size=4)}, "schedule='warm' does not exist"),
        ({"program": dict(batch_size=0)}, "batch_size=0 must be"),
        ({"program": dict(batch_size=4, lanes=0)}, "lanes=0 must be"),
        ({"program": dict(batch_size=4, adam_b2=1.0)}, "adam_b2=1.0 must be"),
    ],
)
def test_what_fit_refuses(change, sentence):
    given = {
        "models": [Echo()] * 2,
        "hypers": population.Hypers.of([Member(seed=0), Member(seed=1)]),
        "data": np.zeros((8, 1)),
        "steps": 3,
    }

    def go(program=types.MappingProxyType({}), **rest):
        train.fit(population.Program(Echo(), **{"batch_size": 4, **program}), **{**given, **rest})

    with pytest.raises(BadInput, match=sentence):
        go(**change)
    go()


def test_a_learning_rate_that_is_no_number_freezes_its_member_at_the_start():
    hypers = population.Hypers.of([Member(seed=0), Member(seed=1)])
    hypers = hypers._replace(learning_rate=np.asarray([np.nan, 1e-3], np.float32))
    fitted = train.fit(population.Program(Echo("weight"), batch_size=4), [Echo("weight")] * 2, hypers, np.zeros((8, 1)), 3)
    assert fitted.finite.tolist() == [False, True] and fitted.steps.tolist() == [0, 3]
    np.testing.assert_array_equal(fitted.params["w"][0], population.initialise([Echo("weight")], [0], Echo("weight"), (1,))["w"][0])


def test_what_is_no_model_is_refused():
    program = population.Program(Echo(), batch_size=4)
    object.__setattr__(program, "model", object())  # past the type checks that only tests have
    with pytest.raises(BadInput, match="must be hashable and have init, terms and rate_estimator"):
        train.fit(program, [object()], population.Hypers.of([Member()]), np.zeros((8, 1)), 3)


def test_any_model_is_measured():
    program, members = population.Program(Echo("weight"), batch_size=4), [Member(seed=s) for s in (0, 1, 2)]
    data = np.arange(12.0)[:, None]
    fitted = train.fit(program, [Echo("weight")] * 3, population.Hypers.of(members), data, 2)
    result = evaluate.measure(fitted, [0, 1, 2], data)
    assert result.rate.shape == (3, 12)
    np.testing.assert_allclose(result.distortion, np.repeat(fitted.params["w"][:, None], 12, axis=1))
    means = evaluate.means(np.asarray([1.0, 2.0, 3.0]), np.asarray([4.0, 4.0, 1.0]))
    np.testing.assert_allclose([means["rate"], means["distortion"], means["elbo"]], [2, 3, -5])
    np.testing.assert_allclose([means["rate_se"], means["elbo_se"]], [1 / np.sqrt(3), np.std([5, 6, 4], ddof=1) / np.sqrt(3)])


class Parabolas(Echo):
    """R = |w|^2 and D = |w - 2|^2 of two tensors: -dD/dR = (2 - w) / w where all components are w."""

    def init(self, key, x):
        return {"one": 0.3 + 0.01 * jax.random.normal(key, (1,)), "two": 0.1 * jax.random.normal(key, (3,))}

    def terms(self, params, x, key):
        w = jnp.concatenate([params["one"], params["two"]])
        return Terms(jnp.full(len(x), jnp.sum(w**2)), jnp.full(len(x), jnp.sum((w - 2) ** 2)), x)


def settled(objective, steps=4000, **weights):
    """R and D per component at the end, and the state, of `Parabolas` under an objective."""
    program = population.Program(Parabolas("w"), objective, batch_size=4, schedule="cosine", dtype="float64")
    hypers = population.Hypers(np.arange(2), objectives.Weights(**weights), 0.0, 0.02)
    fitted = train.fit(program, [program.model] * 2, hypers, np.zeros((4, 1)), steps, devices=1)
    return fitted.metrics.rate[:, -1] / 4, fitted.metrics.distortion[:, -1] / 4


@pytest.mark.parametrize("target", [0.25, 1.0, 2.25])
def test_target_distortion_rests_on_the_curve_at_its_target(x64, target):
    """D = target, and there R is least: all components are 2 - sqrt(target)."""
    rate, distortion = settled("target_distortion", target_distortion=4 * target, multiplier_rate=0.003)
    np.testing.assert_allclose(distortion, target, rtol=1e-2)
    np.testing.assert_allclose(rate, (2 - np.sqrt(target)) ** 2, rtol=3e-2)


@dataclasses.dataclass(frozen=True)
class Line(Parabolas):
    """D = 10 - R: the slope is 1 everywhere, so beta, or a multiplier alone, cannot choose a point."""

    def terms(self, params, x, key):
        w = jnp.sum(params["one"])
        return Terms(jnp.full(len(x), w), jnp.full(len(x), 10 - w), x)


def test_target_distortion_rests_at_its_target_where_the_slope_is_constant(x64):
    program = population.Program(Line("w"), "target_distortion", batch_size=4, schedule="cosine", dtype="float64")
    weights = objectives.Weights(target_distortion=5.0, multiplier_rate=Member().multiplier_rate)
    hypers = population.Hypers(0, weights, 0.0, 1e-2)
    fitted = train.fit(program, [program.model], hypers, np.zeros((4, 1)), 4000)
    # Without damping the second half swings by more than a nat.
    np.testing.assert_allclose(fitted.metrics.distortion[0, 2000:], 5.0, atol=0.2)
    np.testing.assert_allclose(fitted.metrics.distortion[0, -1], 5.0, atol=0.06)


@pytest.mark.parametrize(("free", "rests_at"), [(0.25, 1.0), (2.25, 2.25), (9.0, 4.0)])
def test_free_bits_rest_at_the_free_rate_where_more_is_not_worth_its_price(x64, free, rests_at):
    """Without them beta = 1 rests at R = 1; with more than that free, at what is free; never beyond D = 0, R = 4."""
    rate, _ = settled("free_bits", free_bits=4 * free, beta=1.0)
    np.testing.assert_allclose(rate, rests_at, rtol=1e-2)


def test_the_multiplier_moves_as_its_rule_says():
    weights = objectives.Weights(target_distortion=5.0, multiplier_rate=0.1)
    now = objectives.Multiplier(jnp.float32(0.5), jnp.float32(2.0))
    up = objectives.ascend(now, jnp.float32(8.0), weights, jnp.float32(0.5))
    np.testing.assert_allclose(up, (0.5 + 0.1 * 0.5 * 1.0, 0.9 * 2.0 + 0.1 * 3.0), rtol=1e-6)
    down = objectives.ascend(now._replace(excess=0.0), jnp.float32(1.0), weights, jnp.float32(1.0))
    np.testing.assert_allclose(down, (0.5 - 0.1 * 0.4, -0.4), rtol=1e-6)
    np.testing.assert_allclose(objectives.pressure(now, weights), np.exp(0.5) + 2.0, rtol=1e-6)
    assert objectives.pressure(now._replace(excess=jnp.float32(-20.0)), weights) == 0
    for direction in (-1, 1):
        far = objectives.ascend(
            objectives.Multiplier(7.0 * direction, 9.0 * direction), jnp.float32(5.0), weights, jnp.float32(1.0)
        )
        np.testing.assert_allclose(far.log, 7.0 * direction)


def test_normalised_adam_divides_each_tensor_by_its_own_norm(x64):
    """Step by step by optax, with the division written out; the two tensors have gradients of other norms."""
    model = Parabolas("w")
    program = population.Program(model, batch_size=4, schedule="constant", optimizer="normalised_adam", dtype="float64")
    fitted = train.fit(program, [model], population.Hypers(0, objectives.Weights(), 0.0, 0.05), np.zeros((4, 1)), 20)
    start = population.initialise([model], [0], model, (1,), "float64")
    w, optimiser = {name: leaf[0] for name, leaf in start.items()}, optax.adam(0.05)
    state = optimiser.init(w)
    assert abs(np.linalg.norm(w["one"] - 1) - np.linalg.norm(w["two"] - 1)) > 0.1
    for _ in range(20):
        gradient = {name: 2 * leaf + 2 * (leaf - 2) for name, leaf in w.items()}
        gradient = {name: g / np.linalg.norm(g) for name, g in gradient.items()}
        update, state = optimiser.update(gradient, state)
        w = optax.apply_updates(w, update)
    for name, leaf in w.items():
        np.testing.assert_allclose(fitted.params[name][0], leaf, rtol=1e-6)
    assert all((leaf == 0).all() for leaf in optimizers.normalised([np.zeros(3), np.zeros(())]))


def test_a_loss_above_its_bound_is_a_divergence(x64, dataset):
    member = lasting(KINDS["mlp"])
    alone = of(trained([member], dataset), 0)
    losses = train.train(Group((member,)), dataset, train.Execution(dtype="float64")).metrics.loss[0]
    # It is the first of its losses that is above.
    bound = float(np.sort(losses)[-2])
    bounded = dataclasses.replace(member, loss_bound=(bound + losses.max()) / 2)
    exact = dataclasses.replace(member, loss_bound=float(losses.max()))
    together = train.train(Group((member, bounded, exact)), dataset, train.Execution(dtype="float64"))
    assert together.finite.tolist() == [True, False, True]
    assert together.steps.tolist() == [STEPS, int(losses.argmax()), STEPS]
    assert_same(of(together, 0), alone)
    assert member.name != bounded.name


def test_members_are_the_same_however_many_are_drawn_at_once(monkeypatch):
    members = [*product(KINDS["mlp"], seed=range(5)), dataclasses.replace(KINDS["mlp"], encoder_width=4, seed=7)]
    models, seeds = [member.build(SHAPE) for member in members], [member.seed for member in members]
    whole = population.initialise(models, seeds, models[0], SHAPE)
    assert len({leaf.tobytes() for leaf in whole["encoder"]["mean"]["kernel"]}) == 6
    monkeypatch.setattr(
        population, "_DRAWN_BYTES", 2 * population.bytes_of(population.initialise(models[:1], [0], models[0], SHAPE))
    )
    jax.tree.map(np.testing.assert_array_equal, population.initialise(models, seeds, models[0], SHAPE), whole)
