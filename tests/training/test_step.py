"""The step against arithmetic written out, with models of one weight that echo what they see."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rd_elbo import objectives
from rd_elbo.models.vae import Terms
from rd_elbo.training import evaluate, fit, loop, optim, sharding, state, step
from tests.training.populations import SHAPE, Echo, Member, echo, several, spec_of

ONE = Member()


@pytest.fixture
def calls_of_three(monkeypatch):
    monkeypatch.setattr(loop.Pace, "measure", lambda pace, *_: pace.adopt(3, True))


@pytest.mark.parametrize("call_steps", [3, 64])
def test_an_epoch_sees_every_example_once(call_steps):
    images = 2.0 ** np.arange(12)[:, None]  # sums of distinct powers of two are unique
    metrics = echo(Echo(), several(ONE, seed=(0, 1)), images, 6, call_steps=call_steps).metrics
    batches = (4 * metrics.rate).reshape(2, 2, 3)
    np.testing.assert_array_equal(batches.sum(axis=-1), images.sum())
    # Other orders in other epochs and for other seeds.
    assert len({tuple(row) for row in batches.reshape(4, 3)}) == 4


@pytest.mark.parametrize("call_steps", [1, 2, 3, 64])
def test_the_order_of_an_epoch_is_a_permutation_by_seed_and_epoch(call_steps):
    """What is left over of an epoch is dropped from that epoch."""
    images, seeds = np.arange(10.0)[:, None], (7, 3, 7)
    metrics = echo(Echo(), several(ONE, seed=seeds), images, 8, call_steps=call_steps).metrics
    for i, seed in enumerate(seeds):
        key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), state.Stream.ORDER)
        orders = [jax.random.permutation(jax.random.fold_in(key, e), 10)[:8] for e in range(4)]
        expected = np.concatenate([np.asarray(o).reshape(2, 4).mean(1) for o in orders])
        np.testing.assert_allclose(metrics.rate[i], expected)


def test_noise_is_of_the_own_seed_and_fresh_at_every_step():
    members = several(ONE, seed=(0, 1, 0))
    metrics = echo(Echo("key"), members, np.zeros((400, 1)), 80, call_steps=20).metrics
    np.testing.assert_array_equal(metrics.rate[0], metrics.rate[2])
    assert len(np.unique(metrics.rate[:2])) == 160


def test_initial_weights_are_those_of_the_members_own_key():
    drawn = state.initialise([Echo("weight")] * 3, [4, 5, 4], Echo("weight"), (1,))["w"]
    keys = [jax.random.fold_in(jax.random.key(seed), state.Stream.INIT) for seed in (4, 5, 4)]
    np.testing.assert_allclose(drawn, [jax.random.normal(key) for key in keys], rtol=1e-6)
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize("schedule", optim.SCHEDULES)
def test_learning_rate_over_the_whole_training(schedule):
    """A constant gradient makes every step of Adam the learning rate: the weight adds them up."""
    member = dataclasses.replace(ONE, schedule=schedule)
    fitted = echo(Echo("one"), [member], np.zeros((80, 1)), 20, schedule=schedule)
    rule = optim.SCHEDULES[schedule]
    expected = 0.01 * sum(float(rule(jnp.float32(i / 20))) for i in range(20))
    np.testing.assert_allclose(-fitted.params["w"][0], expected, rtol=1e-5)


def test_annealing_over_the_whole_training():
    """With R = 1 and a weight that hardly moves, the loss is the weight of the rate."""
    member = dataclasses.replace(ONE, kl_warmup_fraction=0.5, beta=0.8, learning_rate=1e-12)
    metrics = echo(Echo("one"), [member], np.zeros((80, 1)), 20).metrics
    np.testing.assert_allclose(metrics.loss[0], 0.8 * np.minimum(np.arange(20) / 10, 1), atol=1e-6)


def test_progress_has_the_dtype_of_the_program():
    """A third of the way is a third to 64 bits."""
    member = dataclasses.replace(ONE, kl_warmup_fraction=1.0, learning_rate=1e-30)
    images = np.zeros((40, 1))
    metrics = echo(Echo("one"), [member], images, 3, dtype="float64").metrics
    np.testing.assert_allclose(metrics.loss[0], np.arange(3) / 3, rtol=1e-15, atol=1e-25)


def test_a_frozen_member_never_thaws():
    """One example poisons the loss; the batches after it are healthy and must change nothing."""
    images = np.arange(80.0)[:, None]
    fitted = echo(Echo("poison"), several(ONE, seed=range(6)), images, 20)
    poisoned = np.argmax(~np.isfinite(fitted.metrics.loss), axis=1)
    assert (~np.isfinite(fitted.metrics.loss)).any(axis=1).all() and (poisoned < 19).any()
    assert not fitted.alive.any()
    np.testing.assert_array_equal(fitted.steps, poisoned)


@dataclasses.dataclass(frozen=True)
class Steep(Echo):
    """A gradient of `slope`, at any weight."""

    slope: float = 1e20

    def terms(self, params, x, key):
        return Terms(jnp.zeros(len(x)), jnp.full(len(x), self.slope * params["w"]), x)


@pytest.mark.parametrize("optimizer", optim.OPTIMIZERS)
def test_a_large_finite_gradient_is_no_divergence(optimizer):
    member = dataclasses.replace(ONE, optimizer=optimizer, schedule="constant")
    options = dict(optimizer=optimizer, schedule="constant")
    fitted = echo(Steep(), [member], np.zeros((4, 1)), 5, **options)
    assert fitted.alive.all() and (fitted.steps == 5).all()
    np.testing.assert_allclose(fitted.params["w"], -0.05, rtol=1e-4)


def test_steps_beyond_the_epoch_or_the_call_are_refused():
    spec = state.TrainSpec(Echo(), batch_size=4, call_steps=2)
    mesh = sharding.make_mesh(1)
    orders = step.Orders(spec, mesh, np.zeros(1, np.uint32), 12)
    nothing = state.State(*[None] * 5), state.HParams(0, objectives.LossWeights(), 0, 0)
    with pytest.raises(ValueError, match="steps=4"):
        step.call(spec, mesh, *nothing, orders, jnp.zeros((12, 1)), 0, 4, 9)
    assert step.longest_call(spec, 12, 2) == 1
    assert step.longest_call(dataclasses.replace(spec, batch_size=12), 12, 7) == 2


def test_a_batch_of_everything_is_the_data_in_its_own_order(calls_of_three):
    images = 2.0 ** np.arange(4)[:, None]
    metrics = echo(Echo(), [ONE], images, 9).metrics
    np.testing.assert_array_equal(metrics.rate, np.full((1, 9), images.mean()))

    class InOrder(Echo):
        def terms(self, params, x, key):
            return Terms(x[:, 0] * jnp.arange(len(x)), jnp.full(len(x), params["w"]), x)

    metrics = echo(InOrder(), [ONE], images, 9).metrics
    np.testing.assert_array_equal(metrics.rate, (images[:, 0] * np.arange(4)).mean())


class Bowl(Echo):
    """D = w^2 / 2."""

    def terms(self, params, x, key):
        return Terms(jnp.zeros(len(x)), jnp.full(len(x), 0.5 * params["w"] ** 2), x)


@pytest.mark.parametrize("b2", [0.9, 0.999])
def test_adam_is_optax_adam_of_that_decay(x64, b2):
    """The gradient of D = w^2 / 2, step by step, by optax itself."""
    model = Bowl("weight")
    spec = state.TrainSpec(model, batch_size=4, schedule="constant", adam_b2=b2, dtype="float64")
    hparams = state.HParams(0, objectives.LossWeights(), 0.0, 0.1)
    fitted = fit.fit(spec, [model], hparams, np.zeros((4, 1)), 25)
    w = jnp.asarray(state.initialise([model], [0], model, (1,), "float64")["w"][0])
    assert abs(w) > 0.1
    optimiser = optax.adam(0.1, b2=b2)
    moments = optimiser.init(w)
    for _ in range(25):
        update, moments = optimiser.update(w, moments)
        w = w + update
    np.testing.assert_allclose(fitted.params["w"], [w], rtol=1e-12)


def test_a_gradient_is_bounded_tensor_by_tensor_and_told_to_be_finite():
    gradient = {
        "small": jnp.array([3.0, -4.0]),
        "zero": jnp.zeros(2),
        "large": jnp.array([1e20, -5e19]),
    }
    bounded, finite = optim.checked(gradient)
    assert finite
    np.testing.assert_array_equal(bounded["small"], gradient["small"])
    np.testing.assert_array_equal(bounded["zero"], 0)
    # The direction is kept.
    np.testing.assert_allclose(bounded["large"], [1e15, -5e14], rtol=1e-6)
    for bad in (jnp.inf, -jnp.inf, jnp.nan):
        assert not optim.checked({**gradient, "bad": jnp.array([1.0, bad])})[1]


def test_learning_rate_schedules():
    at = jnp.array([0.0, 0.25, 0.5, 0.75, 1.0])
    values = {
        "half_linear": [1, 1, 1, 0.5, 0],
        "cosine": [1, 0.853553, 0.5, 0.146447, 0],
        "constant": [1] * 5,
        "warmup_cosine": [0, 0.853553, 0.5, 0.146447, 0],
    }
    assert set(values) == set(optim.SCHEDULES)
    for name, expected in values.items():
        np.testing.assert_allclose(optim.SCHEDULES[name](at), expected, atol=1e-6)
    half = optim.SCHEDULES["warmup_cosine"](0.025)
    np.testing.assert_allclose(half, 0.5 * 0.998459, rtol=1e-5)


class Parabolas(Echo):
    """R = |w|^2 and D = |w - 2|^2 of two tensors: -dD/dR = (2 - w) / w where all are w."""

    def init(self, key, x):
        one = 0.3 + 0.01 * jax.random.normal(key, (1,))
        return {"one": one, "two": 0.1 * jax.random.normal(key, (3,))}

    def terms(self, params, x, key):
        w = jnp.concatenate([params["one"], params["two"]])
        return Terms(jnp.full(len(x), jnp.sum(w**2)), jnp.full(len(x), jnp.sum((w - 2) ** 2)), x)


class Line(Parabolas):
    """D = 10 - R: the slope is 1 everywhere, so beta, or a multiplier alone, chooses no point."""

    def terms(self, params, x, key):
        w = jnp.sum(params["one"])
        return Terms(jnp.full(len(x), w), jnp.full(len(x), 10 - w), x)


def settled(objective, steps=4000, model=None, rate=0.02, **weights):
    """Metrics of a model, by default `Parabolas`, under an objective."""
    model = model or Parabolas("w")
    spec = state.TrainSpec(model, objective, batch_size=4, dtype="float64")
    hparams = state.HParams(np.arange(2), objectives.LossWeights(**weights), 0.0, rate)
    return fit.fit(spec, [model] * 2, hparams, np.zeros((4, 1)), steps).metrics


@pytest.mark.parametrize("target", [0.25, 1.0, 2.25])
def test_target_distortion_rests_on_the_curve_at_its_target(target):
    """D = target, and there R is least: all components are 2 - sqrt(target)."""
    seen = settled("target_distortion", target_distortion=4 * target, multiplier_rate=0.003)
    np.testing.assert_allclose(seen.distortion[:, -1] / 4, target, rtol=1e-2)
    np.testing.assert_allclose(seen.rate[:, -1] / 4, (2 - np.sqrt(target)) ** 2, rtol=3e-2)


def test_target_distortion_rests_at_its_target_where_the_slope_is_constant():
    weights = dict(target_distortion=5.0, multiplier_rate=ONE.multiplier_rate)
    seen = settled("target_distortion", model=Line("w"), rate=1e-2, **weights)
    # Without damping the second half swings by more than a nat.
    np.testing.assert_allclose(seen.distortion[0, 2000:], 5.0, atol=0.2)
    np.testing.assert_allclose(seen.distortion[0, -1], 5.0, atol=0.06)


@pytest.mark.parametrize(("free", "rests_at"), [(0.25, 1.0), (2.25, 2.25), (9.0, 4.0)])
def test_free_bits_rest_at_the_free_rate_where_more_is_not_worth_its_price(free, rests_at):
    """Without them beta = 1 rests at R = 1; with more free, at that; never beyond D = 0, R = 4."""
    seen = settled("free_bits", free_bits=4 * free, beta=1.0)
    np.testing.assert_allclose(seen.rate[:, -1] / 4, rests_at, rtol=1e-2)


def test_the_multiplier_moves_as_its_rule_says():
    weights = objectives.LossWeights(target_distortion=5.0, multiplier_rate=0.1)
    now = objectives.Multiplier(jnp.float32(0.5), jnp.float32(2.0))
    up = objectives.ascend(now, jnp.float32(8.0), weights, jnp.float32(0.5))
    np.testing.assert_allclose(up, (0.5 + 0.1 * 0.5 * 1.0, 0.9 * 2.0 + 0.1 * 3.0), rtol=1e-6)
    down = objectives.ascend(now._replace(excess=0.0), jnp.float32(1.0), weights, jnp.float32(1.0))
    np.testing.assert_allclose(down, (0.5 - 0.1 * 0.4, -0.4), rtol=1e-6)
    np.testing.assert_allclose(objectives.pressure(now, weights), np.exp(0.5) + 2.0, rtol=1e-6)
    assert objectives.pressure(now._replace(excess=jnp.float32(-20.0)), weights) == 0
    for direction in (-1, 1):
        far = objectives.Multiplier(7.0 * direction, 9.0 * direction)
        far = objectives.ascend(far, jnp.float32(5.0), weights, jnp.float32(1.0))
        np.testing.assert_allclose(far.log, 7.0 * direction)


def test_normalised_adam_divides_each_tensor_by_its_own_norm(x64):
    """Step by step by optax, with the division written out; gradients differ in norm."""
    model, options = Parabolas("w"), dict(schedule="constant", optimizer="normalised_adam")
    spec = state.TrainSpec(model, batch_size=4, dtype="float64", **options)
    hparams = state.HParams(0, objectives.LossWeights(), 0.0, 0.05)
    fitted = fit.fit(spec, [model], hparams, np.zeros((4, 1)), 20)
    start = state.initialise([model], [0], model, (1,), "float64")
    w, optimiser = {name: leaf[0] for name, leaf in start.items()}, optax.adam(0.05)
    moments = optimiser.init(w)
    assert abs(np.linalg.norm(w["one"] - 1) - np.linalg.norm(w["two"] - 1)) > 0.1
    for _ in range(20):
        gradient = {name: 2 * leaf + 2 * (leaf - 2) for name, leaf in w.items()}
        gradient = {name: g / np.linalg.norm(g) for name, g in gradient.items()}
        update, moments = optimiser.update(gradient, moments)
        w = optax.apply_updates(w, update)
    for name, leaf in w.items():
        np.testing.assert_allclose(fitted.params[name][0], leaf, rtol=1e-6)
    assert all((leaf == 0).all() for leaf in optim.normalised([np.zeros(3), np.zeros(())]))


class Typed(Echo):
    """Its rate is the number of bits of what it is given."""

    def terms(self, params, x, key):
        bits = jnp.full(len(x), jnp.finfo(x.dtype).bits, x.dtype)
        return Terms(bits, x[:, 0] * params["w"].astype(x.dtype), x)


@pytest.mark.parametrize(
    ("dtype", "compute_dtype", "bits"),
    [("float32", "float32", 32), ("float32", "bfloat16", 16), ("float64", "float32", 64)],
)
def test_the_model_computes_in_the_dtype_asked_for(dtype, compute_dtype, bits):
    model = Typed()
    spec = state.TrainSpec(model, batch_size=4, dtype=dtype, compute_dtype=compute_dtype)
    hparams = state.HParams(0, objectives.LossWeights(), 0.0, 0.1)
    fitted = fit.fit(spec, [model], hparams, np.ones((4, 1)), 3)
    assert (fitted.metrics.rate == bits).all()
    assert fitted.metrics.loss.dtype == fitted.params["w"].dtype == dtype
    whole = evaluate.evaluate(fitted, [0], np.ones((4, 1)))
    assert (whole.rate == (64 if dtype == "float64" else 32)).all()


class Product(Echo):
    """One matrix product."""

    def terms(self, params, x, key):
        y = jnp.broadcast_to(x, (len(x), 8)) @ (jnp.ones((8, 8), x.dtype) * params["w"])
        return Terms(jnp.zeros(len(x)), y[:, 0], x)


@pytest.mark.parametrize("precision", ["default", "high", "highest"])
def test_matrix_products_have_the_precision_asked_for(precision):
    spec = state.TrainSpec(Product(), batch_size=4, precision=precision)
    mesh = sharding.make_mesh(1)
    text = step._train(spec, mesh)
    with state.settings("float32", spec.precision):
        like = state.state_shapes(spec, (1,))
        column = jax.ShapeDtypeStruct((1,), "float32")
        hparams = state.HParams(
            jax.ShapeDtypeStruct((1,), "uint32"),
            objectives.LossWeights(*[column] * 7),
            *[column] * (len(state.HParams._fields) - 2),
        )
        ints = jax.ShapeDtypeStruct((1,), "int32"), jax.ShapeDtypeStruct((1, 8), "int32")
        images = jax.ShapeDtypeStruct((8, 1), "float32")
        text = text.lower(like, hparams, *ints, images, *[np.int32(0)] * 4).as_text().upper()
    names = {"default": "DEFAULT", "high": "HIGH,", "highest": "HIGHEST"}
    assert ("DOT_GENERAL" in text) and all(
        (word in text) == (name == precision) or name == "default" for name, word in names.items()
    )


SETTINGS = {
    "jax_threefry_partitionable": False,
    "jax_random_seed_offset": 5,
    "jax_enable_x64": True,
    "jax_default_prng_impl": "rbg",
    "jax_default_matmul_precision": "bfloat16",
    "jax_numpy_dtype_promotion": "strict",
    "jax_debug_nans": True,
}


def numbers_of_all_kinds():
    """Draws, weights, losses and an evaluation; nothing is left of earlier compilations."""
    images = np.random.RandomState(0).random_sample((12, 1)).astype(np.float32)
    caches = step._train, step.compiled, step._draw, state._init
    for cached in (*caches, evaluate._evaluate, evaluate._compiled):
        cached.cache_clear()
    fitted = echo(Echo("all"), several(ONE, seed=(3, 4)), images, 7)
    scores = evaluate.evaluate(fitted, [3, 4], images)
    return fitted.params["w"], *fitted.metrics[1:], scores.rate


def test_settings_of_the_process_change_no_number():
    expected = numbers_of_all_kinds()
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    try:
        for name, value in SETTINGS.items():
            jax.config.update(name, value)
        found = numbers_of_all_kinds()
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
    for a, b in zip(expected, found, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_members_that_take_turns_are_updated_in_place():
    members = several(Member(encoder_width=64), seed=range(8))
    spec, mesh = spec_of(members, vmap_size=1), sharding.make_mesh(1)
    program = fit.compile_for(spec, mesh, range(8), (40, *SHAPE), "uint8")
    size, found = state.bytes_of(state.state_shapes(spec, SHAPE, 8)), program.memory_analysis()
    assert found.alias_size_in_bytes >= size
    assert found.temp_size_in_bytes < 0.5 * size
