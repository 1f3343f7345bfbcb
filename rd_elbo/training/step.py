"""The compiled training step: many steps for every member in one call.

One member's arithmetic is written as if it were alone; `sharding.spread` makes a population of it.
The order of the examples is drawn once per distinct seed and block of epochs, outside the member
axis: drawing 50,000 indices takes as long as many steps of a small model.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jax.stages import Compiled, Wrapped
from jaxtyping import Array, Bool, Float, Int, PyTree

from rd_elbo import objectives
from rd_elbo.models.dropout import Dropping
from rd_elbo.models.lowering import lowering
from rd_elbo.models.vae import Params
from rd_elbo.training.optim import checked
from rd_elbo.training.regularisation import moved_average, shifted
from rd_elbo.training.sharding import by_member, everywhere, put_members, side_by_side, spread
from rd_elbo.training.state import (
    HParams,
    State,
    Stream,
    TrainSpec,
    key_of,
    settings,
    state_shapes,
)

# Orders drawn side by side on a device.
_DRAWN_TOGETHER = 16


class Seen(NamedTuple):
    """Results of a call that stay readable while the next one runs.

    Attributes:
      rate: (members, call_steps) batch means, nats, zero past the steps made.
      distortion: (members, call_steps) batch means, nats, zero past the steps made.
      loss: (members, call_steps) batch means, nats, zero past the steps made.
      steps: (members,) updates made so far.
      alive: (members,) whether the member has not diverged.
    """

    rate: Float[Array, "members steps"]
    distortion: Float[Array, "members steps"]
    loss: Float[Array, "members steps"]
    steps: Int[Array, " members"]
    alive: Bool[Array, " members"]


@functools.lru_cache(maxsize=32)
def _train(spec: TrainSpec, mesh: Mesh) -> Wrapped:
    objective, update = objectives.OBJECTIVES[spec.objective], spec.update
    constrained = spec.objective == "target_distortion"
    batch_dtype = spec.compute_dtype if spec.compute_dtype == "bfloat16" else spec.dtype

    def loss(
        params: Params,
        x: Array,
        key: Array,
        weights: objectives.LossWeights,
        more: dict[str, Dropping],
    ) -> tuple[Array, tuple[Array, Array]]:
        terms = spec.model.terms(params, x, key, **more)
        rate = terms.rate.astype(spec.dtype).mean()
        distortion = terms.distortion.astype(spec.dtype).mean()
        return objective(rate, distortion, weights), (rate, distortion)

    def step(
        state: State,
        hparams: HParams,
        row: Array,
        made: Array,
        at: Array,
        orders: Array,
        images: Array,
        total_steps: Array,
    ) -> tuple[State, tuple[Array, Array, Array]]:
        """One step of one member, after `made` others; `at` is the batch's place in `orders`."""
        size, done = spec.batch_size, made.astype(spec.dtype) / total_steps.astype(spec.dtype)
        if size == len(images):
            x = images
        else:
            x = images[lax.dynamic_slice(orders, (row, at * size), (1, size))[0]]
        if spec.shifts:
            moves = jax.random.fold_in(key_of(hparams.seed, Stream.SHIFT), made)
            x = shifted(x, hparams.shift, moves)
        weights = objectives.annealed(hparams.weights, done, hparams.kl_warmup_fraction)
        if constrained:
            pressed = objectives.pressure(state.multiplier, weights)
            weights = weights._replace(multiplier=pressed)
        key = jax.random.fold_in(key_of(hparams.seed, Stream.NOISE), made)
        more = {}
        if spec.drops:
            masks = jax.random.fold_in(key_of(hparams.seed, Stream.DROPOUT), made)
            more = {"dropout": Dropping(hparams.dropout, masks)}
        (value, (rate, distortion)), gradient = jax.value_and_grad(loss, has_aux=True)(
            state.params, x.astype(batch_dtype), key, weights, more
        )
        gradient, sound = checked(gradient)
        factor, part = spec.learning_rate(done, made)
        scale = (hparams.learning_rate * factor).astype(spec.dtype)
        alive = state.alive & jnp.isfinite(value) & sound & jnp.isfinite(scale)
        alive &= value <= hparams.divergence_threshold
        multiplier = state.multiplier
        if constrained:
            multiplier = objectives.ascend(multiplier, distortion, weights, part)
        multiplier = jax.tree.map(
            lambda new, old: jnp.where(alive, new, old), multiplier, state.multiplier
        )
        params, optimizer = update.step(state.params, state.optimizer, gradient, scale, alive)
        average = state.average
        if spec.averages:
            # As with Adam's moments: from what is new, so that nothing is needed twice and copied.
            params = lax.optimization_barrier(params)
            average = moved_average(average, params, hparams.ema_decay, made, alive)
        moved = State(params, optimizer, multiplier, state.steps + alive, alive, average)
        return moved, (rate, distortion, value)

    def members(
        own: tuple[State, HParams, Array],
        orders: Array,
        images: Array,
        first_step: Array,
        offset: Array,
        steps: Array,
        total_steps: Array,
    ) -> tuple[State, Seen]:
        """Steps of members side by side; a loop inside the vmap would be traced thrice."""
        state, hparams, rows = own

        def advance(i: Array, carry: tuple[State, Any]) -> tuple[State, Any]:
            state, columns = carry
            shared = first_step + i, offset + i, orders, images, total_steps
            side_by_side = jax.vmap(step, (0, 0, 0, *[None] * len(shared)))
            state, now = side_by_side(state, hparams, rows, *shared)
            return state, jax.tree.map(lambda column, x: column.at[:, i].set(x), columns, now)

        # Zeros, not NaN, for what is not reached: JAX may be set to look for NaN.
        blank = (jnp.zeros((len(rows), spec.call_steps), spec.dtype),) * 3
        state, (rate, distortion, losses) = lax.fori_loop(0, steps, advance, (state, blank))
        return state, Seen(rate, distortion, losses, state.steps, state.alive)

    population = spread(members, mesh, spec.vmap_size, in_place=True)

    def train(state: State, hparams: HParams, rows: Array, *shared: Array) -> tuple[State, Seen]:
        with lowering(spec.lowering, mesh.devices.flat[0].platform):
            return population((state, hparams, rows), *shared)

    return jax.jit(train, donate_argnums=0)


@functools.lru_cache(maxsize=16)
def compiled(
    spec: TrainSpec, mesh: Mesh, members: int, shape: tuple[int, ...], dtype: str, seeds: int = 1
) -> Compiled:
    """Compile the training of a population; nothing is computed or placed.

    Args:
      spec: The program.
      mesh: Devices that the members are spread over.
      members: Number of members, a multiple of the mesh's size.
      shape: Shape of the data, examples first.
      dtype: Type of the data.
      seeds: Rows of the table of orders on each device, see `Orders`.
    """
    state = state_shapes(spec, shape[1:], members)
    real = jax.ShapeDtypeStruct((members,), spec.dtype)
    weights = objectives.LossWeights(*[real] * len(objectives.LossWeights._fields))
    seed = jax.ShapeDtypeStruct((members,), "uint32")
    hparams = HParams(seed, weights, *[real] * (len(HParams._fields) - 2))
    rows = jax.ShapeDtypeStruct((members,), "int32")
    orders = jax.ShapeDtypeStruct((mesh.size * seeds, _order_length(spec, shape[0])), "int32")
    by_rows = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=by_member(mesh)),
        (state, hparams, rows, orders),
    )
    images = jax.ShapeDtypeStruct(shape, dtype, sharding=everywhere(mesh))
    with settings(spec.dtype, spec.precision):
        scalars = [np.int32(0)] * 4
        return _train(spec, mesh).lower(*by_rows, images, *scalars).compile()


def call(
    spec: TrainSpec,
    mesh: Mesh,
    state: State,
    hparams: HParams,
    orders: "Orders",
    images: Array,
    first_step: int,
    steps: int,
    total_steps: int,
) -> tuple[State, Seen]:
    """Make some steps of Adam for every member. `state` is consumed; nothing is waited for.

    Args:
      spec: The program.
      mesh: Devices that the members are spread over.
      state: Members' state, on the mesh.
      hparams: (members,) arrays, on the mesh.
      orders: Orders of the examples for these members.
      images: (examples, ...) training data, on every device of the mesh.
      first_step: Steps made before.
      steps: Steps to make, at most `longest_call`.
      total_steps: Length of the whole training, which the schedules refer to.

    Raises:
      ValueError: If there are more steps than a call may make.
    """
    most = longest_call(spec, len(images), first_step)
    if not 0 <= steps <= most:
        raise ValueError(f"steps={steps}: expected at most {most}, a call or the rest of the epoch")
    members, dtype = len(state.steps), images.dtype.name
    run = compiled(spec, mesh, members, images.shape, dtype, orders.seeds)
    with settings(spec.dtype, spec.precision):
        offset, table = orders.at(first_step)
        scalars = map(np.int32, (first_step, offset, steps, total_steps))
        return run(state, hparams, orders.rows, table, images, *scalars)


def epochs_per_block(spec: TrainSpec, examples: int) -> int:
    """Epochs whose orders are drawn at once: as many as fit into a call, at least one."""
    return max(1, spec.call_steps // (examples // spec.batch_size))


def longest_call(spec: TrainSpec, examples: int, step: int) -> int:
    """Steps that a call may make from `step` on: `call_steps`, or those left of drawn epochs."""
    if spec.batch_size == examples:
        return spec.call_steps
    block = epochs_per_block(spec, examples) * (examples // spec.batch_size)
    return min(spec.call_steps, block - step % block)


def _order_length(spec: TrainSpec, examples: int) -> int:
    """Indices in a row of the table of orders."""
    if spec.batch_size == examples:
        return 1
    per_epoch = examples // spec.batch_size * spec.batch_size
    return epochs_per_block(spec, examples) * per_epoch


@functools.lru_cache(maxsize=32)
def _draw(spec: TrainSpec, mesh: Mesh, examples: int) -> Wrapped:
    epochs = epochs_per_block(spec, examples)
    used = examples // spec.batch_size * spec.batch_size

    def one(seed: Array, _: PyTree, first_epoch: Array) -> Array:
        key = key_of(seed, Stream.ORDER)

        def epoch(i: Array) -> Array:
            # What is left over of an epoch is seen in another epoch's order.
            return jax.random.permutation(jax.random.fold_in(key, first_epoch + i), examples)[:used]

        return lax.map(epoch, jnp.arange(epochs, dtype=jnp.int32)).astype(jnp.int32).reshape(-1)

    return jax.jit(spread(side_by_side(one), mesh, _DRAWN_TOGETHER))


class Orders:
    """Orders of the examples: on each device a row per distinct seed of its members.

    Attributes:
      seeds: Rows on each device, a power of two, so that another number of seeds seldom compiles.
      rows: (members,) each member's row on its device.
    """

    def __init__(self, spec: TrainSpec, mesh: Mesh, seeds: np.ndarray, examples: int):
        self._spec, self._mesh, self._examples = spec, mesh, examples
        self._block: tuple[int, PyTree] | None = None
        tables, rows, self.seeds = seed_tables(spec, mesh, seeds, examples)
        with settings(spec.dtype):
            self._seeds, self.rows = put_members((tables.reshape(-1), rows), mesh)
            # Where a batch is all of the data there is no order.
            self._none = put_members(np.zeros((mesh.size, 1), np.int32), mesh)

    def at(self, step: int) -> tuple[int, Array]:
        """The place of a step in a table of orders, in steps, and the table."""
        spec, examples = self._spec, self._examples
        if spec.batch_size == examples:
            return 0, self._none
        epochs = epochs_per_block(spec, examples)
        block, offset = divmod(step, epochs * (examples // spec.batch_size))
        if self._block is None or self._block[0] != block:
            self._block = None  # before the next is drawn, which takes its place
            draw = _draw(spec, self._mesh, examples)
            self._block = block, draw(self._seeds, (), np.int32(block * epochs))
        return offset, self._block[1]


def seed_tables(
    spec: TrainSpec, mesh: Mesh, seeds: np.ndarray, examples: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Each device's distinct seeds, (devices, rows); each member's row; the number of rows."""
    by_device = seeds.reshape(mesh.size, -1)
    if spec.batch_size == examples:
        return by_device[:, :1], np.zeros(len(seeds), np.int32), 1
    found = [np.unique(own, return_inverse=True) for own in by_device]
    most = 1 << (max(len(distinct) for distinct, _ in found) - 1).bit_length()
    tables = np.stack([np.resize(distinct, most) for distinct, _ in found])
    rows = np.concatenate([inverse.reshape(-1) for _, inverse in found]).astype(np.int32)
    return tables, rows, most
