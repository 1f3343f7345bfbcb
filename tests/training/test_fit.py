"""A member is the same whatever it is trained with; in float64, where rounding cannot hide it."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from rd_elbo import objectives
from rd_elbo.errors import BadInput
from rd_elbo.models.family import paper_family
from rd_elbo.training import evaluate, fit, loop, sharding, state
from tests.training.populations import (
    SHAPE,
    STEPS,
    Echo,
    Member,
    Wide,
    assert_same,
    echo,
    images_of,
    models_of,
    of,
    several,
    spec_of,
    train,
    trained,
)

BASE = Member()
KINDS = {
    "mlp": BASE,
    "pixelcnn": Member(decoder="pixelcnn", decoder_width=4),
    "vampprior, target rate": Member(
        prior="vampprior", objective="target_rate", target_rate=2.0, kl_warmup_fraction=0.5
    ),
    "convolutions": Member(
        encoder="conv",
        decoder="deconv",
        encoder_width=3,
        decoder_width=3,
        encoder_depth=1,
        optimizer="normalised_adam",
    ),
}
STRONG = dataclasses.replace(
    KINDS["convolutions"],
    **paper_family("++v"),
    **dict(z_in_every_layer=True, flow_steps=2, flow_width=5, flow_depth=1),
)


# Each kind is a few programs that take seconds to compile; those of the first are others' too.
MARKED = [pytest.param(k, marks=() if k == "mlp" else pytest.mark.slow) for k in KINDS]


@pytest.mark.parametrize("kind", MARKED)
def test_in_a_population_alone_elsewhere_and_on_other_devices(kind):
    base = KINDS[kind]
    field = "target_rate" if base.objective == "target_rate" else "beta"
    members = several(base, **{field: (0.3, 0.3, 1.0, 1.0, 2.0, 2.0)}, seed=(0, 5, 0, 5, 0, 5))
    two, backwards = trained(members, devices=2), trained(members[::-1], devices=2)
    assert two.devices == 2
    # One device's program has another number of members: for one kind that is worth compiling.
    one = trained(members, devices=1) if kind == "mlp" else two
    assert one.devices == (1 if kind == "mlp" else 2)
    for i, member in enumerate(members):
        alone = trained([member])
        assert_same(of(one, i), of(alone, 0))
        assert_same(of(two, i), of(alone, 0))
        assert_same(of(backwards, len(members) - 1 - i), of(alone, 0))
        np.testing.assert_allclose(two.metrics.loss[i], alone.metrics.loss[0], rtol=1e-6)
    # The comparison would be empty if members did not differ.
    weights = jax.tree.leaves(two.params["encoder"])[0]
    for i in range(1, len(members)):
        assert np.abs(weights[0] - weights[i]).max() > 1e-4


def test_chunking_changes_nothing():
    members = several(BASE, beta=(0.3, 0.3, 1.0, 1.0, 2.0, 2.0), seed=(0, 5, 0, 5, 0, 5))
    whole, first, second = trained(members), trained(members[:3]), trained(members[3:])
    for i in range(6):
        assert_same(of(whole, i), of((first, second)[i // 3], i % 3))


# Held against narrower ones only.
PADDED = {
    "resnet": dataclasses.replace(KINDS["convolutions"], encoder="resnet", decoder="resnet"),
    **{
        kind: dataclasses.replace(
            KINDS["convolutions"], decoder=kind, encoder="dense", causal_depth=1
        )
        for kind in ("pixelvae", "pixelvae_resnet")
    },
    "levels": Member(decoder="pixelcnn", likelihood="discretised_logistic"),
    "muon": dataclasses.replace(KINDS["convolutions"], optimizer="muon"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*KINDS, "muon"])
def test_padded_from_a_smaller_width(kind):
    wide = dataclasses.replace({**KINDS, **PADDED}[kind], ema_decay=0.9, dropout=0.3)
    narrow = dataclasses.replace(wide, decoder_width=2, encoder_width=wide.encoder_width - 1)
    # Six of them, as above: one program.
    rest = [dataclasses.replace(narrow, seed=seed) for seed in range(1, 5)]
    padded = trained([narrow, wide, *rest], devices=2)
    own = state.parameter_shapes(models_of([narrow])[1], SHAPE, "float64")
    alone = trained([narrow])
    for ours, theirs in ((padded.params, alone.params), (padded.averaged, alone.averaged)):
        corner = jax.tree.map(lambda x, s: x[0][tuple(map(slice, s.shape))], ours, own)
        assert_same(corner, jax.tree.map(lambda x: x[0], theirs))
    assert_same(of(padded, 1), of(trained([wide]), 0))
    beyond = 0

    def check(whole, leaf):
        nonlocal beyond
        outside = np.array(whole)
        outside[tuple(map(slice, leaf.shape))] = 0
        assert (outside == 0).all()  # exactly: nothing has leaked into the padding
        beyond += whole.size - np.prod(leaf.shape, dtype=int)

    jax.tree.map(check, of(padded, 0), own)
    assert beyond > 0


LONGEST = [
    pytest.param(kind, marks=pytest.mark.slow) for kind in ("strong", "resnet", "pixelvae_resnet")
]


@pytest.mark.parametrize("kind", [*LONGEST, "mlp", "pixelvae", "levels"])
def test_a_padded_gradient_is_that_of_the_smaller_width(kind):
    """Of parts that take long to compile; the steps of an elementwise optimizer follow from it."""
    wide = {**KINDS, **PADDED, "strong": STRONG}[kind]
    narrow = dataclasses.replace(wide, decoder_width=2, encoder_width=wide.encoder_width - 1)
    (small, _), large = models_of([narrow, wide])
    x, shapes = images_of()[:4].astype(float), state.parameter_shapes(large, SHAPE, "float64")
    drawn, random = (
        state.initialise([small], [0], small, SHAPE, "float64"),
        np.random.RandomState(0),
    )
    # Biases that are not zero, so that they could leak.
    params = jax.tree.map(lambda leaf: leaf[0] + 0.1 * random.normal(size=leaf[0].shape), drawn)

    def gradient(model, params):
        def loss(params, x):
            terms = model.terms(params, x, jax.random.key(3))
            return terms.rate.mean() + terms.distortion.mean()

        return jax.jit(jax.value_and_grad(loss))(params, x)

    def embedded(leaf, shape):
        whole = np.zeros(shape.shape)
        whole[tuple(map(slice, leaf.shape))] = leaf
        return whole

    with state.settings("float64"):
        value, alone = gradient(small, params)
        padded_value, padded = gradient(large, jax.tree.map(embedded, params, shapes))
    np.testing.assert_allclose(padded_value, value, rtol=1e-12)
    expected = jax.tree.map(embedded, jax.tree.map(np.asarray, alone), shapes)
    assert_same(padded, expected, rtol=1e-9)
    outside = jax.tree.map(embedded, jax.tree.map(np.ones_like, params), shapes)
    leaked = jax.tree.map(lambda leaf, own: np.abs(np.where(own, 0, leaf)).max(), padded, outside)
    assert max(jax.tree.leaves(leaked)) == 0
    assert any((np.asarray(leaf) == 0).any() for leaf in jax.tree.leaves(outside))


def test_a_second_population_compiles_nothing():
    images = np.arange(40.0)[:, None]

    def run(**axes):
        members = several(BASE, **axes)
        result = echo(Echo("weight"), members, images, 9, mesh=sharding.make_mesh(2))
        evaluate.evaluate(result, [m.seed for m in members], images)

    compiled = []
    listen = lambda name, _, **__: compiled.append(name) if "backend_compile" in name else None  # noqa: E731
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        run(beta=(0.5, 1.0, 2.0, 4.0, 5.0, 6.0), seed=(0, 1, 2, 0, 1, 2))
        first = len(compiled)
        others = dict(learning_rate=(2e-3,) * 6, kl_warmup_fraction=(0.2,) * 6)
        run(beta=(0.1, 4.0, 3.0, 1.0, 0.2, 0.3), seed=(7, 8, 9, 7, 8, 9), **others)
        # Three and four seeds on a device have one table of orders.
        assert first > 0  # the counter counts
        assert len(compiled) == first
        run(beta=(0.1, 4.0, 5.0, 6.0), seed=(0, 1, 0, 1))
        assert len(compiled) > first
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_another_number_of_seeds_compiles_nothing():
    images, mesh = np.zeros((40, 1), np.uint8), sharding.make_mesh(1)
    spec = state.TrainSpec(Echo("weight"), batch_size=4)
    programs = {
        seeds: fit.compile_for(spec, mesh, [i % seeds for i in range(8)], images.shape, "uint8")
        for seeds in (3, 4)
    }
    assert programs[3] is programs[4]


def test_a_member_that_diverges_is_frozen_and_harms_no_neighbour():
    # Chosen so large that the next loss overflows float64 as well.
    good, bad = BASE, dataclasses.replace(BASE, learning_rate=1e100, beta=1e30)
    together = train([good, bad])
    assert together.alive.tolist() == [True, False]
    assert together.steps[0] == STEPS and together.steps[1] < STEPS
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(together.params))
    assert_same(of(together, 0), of(trained([good]), 0))


def test_calls_do_not_matter(monkeypatch):
    whole = trained([BASE])
    lengths = iter([7, 1, 30, 2, *[9] * 20])
    monkeypatch.setattr(
        loop.Pace, "measure", lambda pace, *_: vars(pace).update(steps=next(lengths))
    )
    pieces = trained([BASE])
    assert_same(of(whole, 0), of(pieces, 0), rtol=1e-12)
    np.testing.assert_allclose(whole.metrics.loss, pieces.metrics.loss, rtol=1e-12)


def test_two_calls_are_in_flight(monkeypatch):
    """Once the length is fixed, a call starts before the results of the one before it are read."""
    events = []
    send, receive = loop.Loop._send, loop.Loop._receive
    monkeypatch.setattr(loop.Loop, "_send", lambda self: (events.append("send"), send(self)))
    monkeypatch.setattr(loop.Loop, "_receive", lambda self: (events.append("read"), receive(self)))
    monkeypatch.setattr(loop.Pace, "measure", lambda pace, *_: pace.adopt(2, True))
    trained([BASE])
    assert events[:2] == ["send", "read"]
    assert events[2:6] == ["send", "send", "read", "send"]
    assert events.count("send") == events.count("read")


def test_progress_and_metrics_of_every_call():
    heard = []
    members = several(BASE, beta=(1.0, 2.0))
    fitted = train(members, callback=lambda *news: heard.append(news), metrics_every=7)
    progress, metrics = zip(*heard, strict=True)
    assert [p.steps for p in progress][-1] == progress[-1].total_steps == STEPS
    assert all(a.steps < b.steps for a, b in itertools.pairwise(progress))
    assert progress[-1].alive == progress[-1].members == 2
    assert np.isfinite([progress[-1].rate, progress[-1].distortion]).all()
    steps = np.concatenate([m.step for m in metrics])
    assert steps.tolist() == [7, 14, 21, 28, 35, 42, 49, 50] == fitted.metrics.step.tolist()
    losses = np.concatenate([m.loss for m in metrics], axis=1)
    np.testing.assert_array_equal(losses, fitted.metrics.loss)


@pytest.mark.parametrize("every", [1, 3, 7, 100])
def test_fit_keeps_the_metrics_of_every_so_many_steps_and_of_the_last(every):
    images, members = np.arange(40.0)[:, None], several(BASE, seed=(0, 1, 2))
    whole, thinned = (
        echo(Echo("key"), members, images, 23, call_steps=8, metrics_every=n) for n in (1, every)
    )
    assert whole.metrics.rate.shape == (3, 23)
    kept = [*range(every, 23, every), 23]
    assert thinned.metrics.step.tolist() == kept
    np.testing.assert_array_equal(thinned.metrics.rate, whole.metrics.rate[:, np.asarray(kept) - 1])
    assert (thinned.steps == 23).all() and thinned.params["w"].shape == (3,)


def test_vmap_size_changes_nothing():
    members = several(BASE, beta=(0.3, 1.0, 2.0) * 2, seed=(0, 0, 0, 5, 5, 5))
    # 3 members on each of 2 devices: the last one is alone.
    assert_same(trained(members, spec={"vmap_size": 2}).params, trained(members).params)


@pytest.mark.parametrize(("kernel", "together"), [((3, 3, 1, 2), 1), ((5, 2), 16)])
def test_members_with_convolutions_are_advanced_one_by_one_on_cpu(kernel, together):
    traced = []

    def members(own, _):
        traced.append(len(own))
        return own

    own = jax.ShapeDtypeStruct((32, *kernel), "float32")
    done = jax.eval_shape(sharding.spread(members, sharding.make_mesh(1), None), own, ())
    assert set(traced) == {together} and done.shape == own.shape


def test_parameters_of_this_process_are_those_of_all():
    fitted = trained(several(BASE, seed=(0, 1, 2)), devices=2)
    own = dict(fitted.local())
    assert sorted(own) == [0, 1, 2]
    for i, params in own.items():
        jax.tree.map(np.testing.assert_array_equal, params, of(fitted, i))


def test_members_are_the_same_however_many_are_drawn_at_once(monkeypatch):
    members = [*several(BASE, seed=range(5)), dataclasses.replace(BASE, encoder_width=4, seed=7)]
    models, seeds = models_of(members)[0], [member.seed for member in members]
    whole = state.initialise(models, seeds, models[0], SHAPE)
    assert len({leaf.tobytes() for leaf in whole["encoder"]["mean"]["kernel"]}) == 6
    size = state.bytes_of(state.initialise(models[:1], [0], models[0], SHAPE))
    monkeypatch.setattr(state, "_DRAWN_BYTES", 2 * size)
    parts = state.initialise(models, seeds, models[0], SHAPE)
    jax.tree.map(np.testing.assert_array_equal, parts, whole)


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"models": []}, "models=0"),
        ({"models": [Echo()]}, "models=1"),
        ({"models": [Wide(), Echo()]}, "(2,)"),
        ({"steps": 0}, "steps=0"),
        ({"metrics_every": 0}, "metrics_every=0"),
        ({"data": np.zeros((3, 1))}, "batch_size=4"),
        ({"spec": dict(objective="elbo")}, "objective='elbo'"),
        ({"spec": dict(schedule="warm")}, "schedule='warm'"),
        ({"spec": dict(batch_size=0)}, "batch_size=0"),
        ({"spec": dict(vmap_size=0)}, "vmap_size=0"),
        ({"spec": dict(call_steps=0)}, "call_steps=0"),
        ({"spec": dict(adam_b2=1.0)}, "adam_b2=1.0"),
        ({"spec": dict(precision="low")}, "precision='low'"),
        ({"spec": dict(compute_dtype="float16")}, "compute_dtype='float16'"),
    ],
)
def test_what_fit_refuses(change, fields):
    given = {"models": [Echo()] * 2, "data": np.zeros((8, 1)), "steps": 3}

    def go(spec=(), **rest):
        members = several(BASE, seed=(0, 1))
        hparams = state.HParams.of(members, state.TrainSpec(Echo(), batch_size=4))
        program = state.TrainSpec(Echo(), **{"batch_size": 4, **dict(spec)})
        kinds = {**given, **rest}
        fit.fit(program, kinds.pop("models"), hparams, **kinds)

    with pytest.raises(BadInput) as caught:
        go(**change)
    assert fields in str(caught.value)
    go()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("objective", "target_rate"),
        ("optimizer", "normalised_adam"),
        ("schedule", "constant"),
        ("batch_size", 5),
    ],
)
def test_members_that_ask_for_another_program_are_refused(field, value):
    spec = spec_of([BASE])
    members = [BASE, dataclasses.replace(BASE, **{field: value})]
    with pytest.raises(BadInput, match=f"{field}={value!r}, of member 1"):
        state.HParams.of(members, spec)
    state.HParams.of(members[:1], spec)


def test_a_learning_rate_that_is_no_number_freezes_its_member_at_the_start():
    spec = state.TrainSpec(Echo("weight"), batch_size=4)
    hparams = state.HParams.of(several(BASE, seed=(0, 1)), spec)
    hparams = hparams._replace(learning_rate=np.asarray([np.nan, 1e-3], np.float32))
    fitted = fit.fit(spec, [Echo("weight")] * 2, hparams, np.zeros((8, 1)), 3)
    assert fitted.alive.tolist() == [False, True] and fitted.steps.tolist() == [0, 3]
    drawn = state.initialise([Echo("weight")], [0], Echo("weight"), (1,))["w"][0]
    np.testing.assert_array_equal(fitted.params["w"][0], drawn)


def test_what_is_no_model_is_refused():
    with pytest.raises(BadInput, match="model=<object object"):
        state.TrainSpec(object())


def test_a_loss_above_its_bound_is_a_divergence():
    alone = trained([BASE])
    losses = alone.metrics.loss[0]
    # It is the first of its losses that is above.
    bound = float(np.sort(losses)[-2])
    bounded = dataclasses.replace(BASE, divergence_threshold=(bound + losses.max()) / 2)
    exact = dataclasses.replace(BASE, divergence_threshold=float(losses.max()))
    together = train([BASE, bounded, exact])
    assert together.alive.tolist() == [True, False, True]
    assert together.steps.tolist() == [STEPS, int(losses.argmax()), STEPS]
    assert_same(of(together, 0), of(alone, 0))


def test_loss_changes_with_beta_as_the_rate():
    """d loss / d beta = R, at the first step, where nothing else has changed yet."""
    members = several(BASE, beta=(0.7 - 1e-4, 0.7, 0.7 + 1e-4))
    metrics = train(members, steps=1).metrics
    slope = (metrics.loss[2, 0] - metrics.loss[0, 0]) / 2e-4
    np.testing.assert_allclose(slope, metrics.rate[1, 0], rtol=1e-7)
    assert metrics.rate[1, 0] > 1e-3


def test_numbers_for_all_members_are_as_good_as_arrays():
    spec = spec_of([BASE])
    numbers = state.HParams(0, objectives.LossWeights(), 0.0, 1e-2)
    models, _ = models_of([BASE] * 2)
    both = fit.fit(spec, models, numbers, images_of(), 5)
    assert_same(both.params, train([BASE] * 2, steps=5).params, rtol=0)
