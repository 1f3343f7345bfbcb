"""Many members as one program: initialise, train and evaluate along a leading axis of members.

Every array of a population has the members on its first axis. One member's arithmetic is written as if it were alone, `jax.vmap`
makes a population of it, and `jax.shard_map` spreads that over the devices of a mesh: no device ever waits for another.

Keys: a member's randomness is `fold_in(fold_in(key(seed), stream), index)` of its own seed and of the step, epoch or batch, so its
result does not depend on its neighbours, on its position or on the devices. Members of equal seed see the same batches and the
same noise, which makes differences along beta smaller than differences between runs.
"""

import dataclasses
import enum
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.stages import Compiled, Wrapped
from jaxtyping import Array, Bool, Float, Int, PyTree

from rd_elbo import objectives
from rd_elbo.errors import BadInput, choice, number, whole
from rd_elbo.models import layers
from rd_elbo.models.base import Params, Trainable
from rd_elbo.optimizers import OPTIMIZERS, SCHEDULES

MEMBER_AXIS = "member"
# Of parameters that are drawn at once.
_DRAWN_BYTES = 2**28


class Stream(enum.IntEnum):
    """What a member draws randomness for."""

    INIT, ORDER, NOISE, EVALUATION = range(4)


def key_of(seed: Array, stream: Stream) -> Array:
    """The key of one member for one purpose."""
    # One named generator: others draw differently under vmap, or are no functions of the seed alone.
    return jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), stream)


class Hypers(NamedTuple):
    """Numbers in which members of one program may differ; each array has shape (members,)."""

    seed: Any
    weights: objectives.Weights
    annealing: Any
    learning_rate: Any
    loss_bound: Any = math.inf

    @classmethod
    def of(cls, members: Sequence[Any], dtype: str = "float32") -> "Hypers":
        """Collects them from objects with the fields of `grid.Member`.

        Weights that they do not have are those of `Weights`, and a bound on the loss that they do not have is none.
        """

        def column(field: str, *default: float) -> np.ndarray:
            return np.asarray([getattr(m, field, *default) for m in members], dtype)

        weights = objectives.Weights(*(column(*item) for item in objectives.Weights._field_defaults.items()))
        seed = np.asarray([m.seed for m in members], np.uint32)
        return cls(seed, weights, column("annealing"), column("learning_rate"), column("loss_bound", math.inf))


class State(NamedTuple):
    """A population in training.

    Attributes:
      params: Parameters, members first.
      optimizer: Adam's moments, likewise.
      multiplier: Of the objective `target_distortion`, (members,) arrays; others have no use for it.
      steps: (members,) updates made.
      finite: (members,) False once a member's loss or gradient was not finite, or its loss above its bound; from then on it stays
        as it last was.
    """

    params: PyTree
    optimizer: PyTree
    multiplier: objectives.Multiplier
    steps: Int[Array, " members"]
    finite: Bool[Array, " members"]


class Metrics(NamedTuple):
    """What each step of a segment saw; arrays of shape (members, steps), batch means in nats."""

    rate: Float[Array, "members steps"]
    distortion: Float[Array, "members steps"]
    loss: Float[Array, "members steps"]


@dataclasses.dataclass(frozen=True)
class Program:
    """Everything that is compiled in; two populations with equal programs and shapes share one compilation.

    Attributes:
      model: The model, at the widths that all members are padded to.
      objective: A key of `objectives.OBJECTIVES`.
      batch_size: Examples per step. If that is all of them, a batch is the whole data in its own order.
      schedule: A key of `optimizers.SCHEDULES`.
      optimizer: A key of `optimizers.OPTIMIZERS`.
      adam_b2: Decay of Adam's second moment, between 0 and 1. A lower one than the usual forgets large gradients sooner.
      dtype: Of parameters and arithmetic.
      compute_dtype: Type that images are cast to in training; None means `dtype`. Models compute in the type of their input, so with
        "bfloat16" layers compute in it while parameters, rate, distortion and Adam stay in `dtype`.
      precision: Of matrix products in training: "default" is the platform's, TF32 on recent GPUs, "highest" is the type's own.
      lowering: Of convolutions, see `models.layers.lowering`.
      segment_steps: The most steps one call of `train` may make.
      lanes: The most members a device advances side by side; others wait until these have made the steps of the call. None means
        all at once. Where models are small, as many members as fit into the processor's cache train fastest.
    """

    model: Trainable
    objective: str = "beta"
    batch_size: int = 128
    schedule: str = "cosine"
    optimizer: str = "adam"
    adam_b2: float = 0.999
    dtype: str = "float32"
    compute_dtype: str | None = None
    precision: str = "default"
    lowering: str = "auto"
    segment_steps: int = 64
    lanes: int | None = None

    def __post_init__(self) -> None:
        choice("objective", self.objective, objectives.OBJECTIVES)
        choice("schedule", self.schedule, SCHEDULES)
        choice("optimizer", self.optimizer, OPTIMIZERS)
        choice("dtype", self.dtype, ("float32", "float64"))
        choice("compute_dtype", self.compute_dtype, (None, "float32", "float64", "bfloat16"))
        choice("precision", self.precision, ("default", "high", "highest"))
        choice("lowering", self.lowering, layers.LOWERINGS)
        for field in ("batch_size", "segment_steps", "lanes"):
            if field != "lanes" or self.lanes is not None:
                object.__setattr__(self, field, whole(field, getattr(self, field)))
        if number("adam_b2", self.adam_b2, above=True) >= 1:
            raise BadInput(f"adam_b2={self.adam_b2!r} must be above 0 and below 1")


def make_mesh(devices: int | None = None, members: int | None = None) -> Mesh:
    """A mesh of the first `devices` local devices (all of them by default), no more than there are `members`.

    Raises:
      BadInput: If there are not so many devices.
    """
    available = jax.local_devices()
    if devices is not None and devices > len(available):
        raise BadInput(f"devices={devices!r} must be at most {len(available)}, the devices of this process")
    count = min(devices or len(available), members or len(available))
    return Mesh(np.asarray(available[:count]), (MEMBER_AXIS,))


def place(tree: PyTree, mesh: Mesh) -> PyTree:
    """Spreads the leading axis of every array over the mesh; it must be a multiple of the number of devices."""
    return jax.device_put(tree, NamedSharding(mesh, P(MEMBER_AXIS)))


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Puts a whole copy of every array on each device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, P()))


@functools.cache
def _init(model: Trainable, dtype: str, shape: tuple[int, ...]) -> Callable[..., Params]:
    def one(seed: Array) -> Params:
        params = model.init(key_of(seed, Stream.INIT), jnp.zeros((1, *shape), dtype))
        return jax.tree.map(lambda leaf: leaf.astype(dtype), params)

    # Runs once, so the compiler's time spent optimising it would be lost.
    return jax.jit(jax.vmap(one), compiler_options={"xla_backend_optimization_level": 0})


def initialise(
    models: Sequence[Trainable], seeds: Sequence[int], padded: Trainable, shape: tuple[int, ...], dtype: str = "float32"
) -> Params:
    """Parameters of each member drawn at its own size and embedded in zeros up to the size of `padded`.

    Args:
      models: Each member's own model.
      seeds: Each member's seed.
      padded: The model all of them are trained as.
      shape: Of one example.
      dtype: Of the parameters.

    Returns:
      Stacked parameters as NumPy arrays, members first.

    Raises:
      BadInput: If a model does not fit into `padded`.
    """
    like = jax.eval_shape(_init(padded, dtype, shape), jax.ShapeDtypeStruct((1,), jnp.uint32))
    stacked = jax.tree.map(lambda leaf: np.zeros((len(models), *leaf.shape[1:]), leaf.dtype), like)
    rows_of: dict[Trainable, list[int]] = {}
    for i, model in enumerate(models):
        rows_of.setdefault(model, []).append(i)
    # They are drawn on one device, which has no room for the members of all.
    most = max(1, _DRAWN_BYTES // bytes_of(like))
    for model, rows in (
        (model, all_rows[i : i + most]) for model, all_rows in rows_of.items() for i in range(0, len(all_rows), most)
    ):
        # One shape, so that it is compiled once.
        missing = min(most, len(rows_of[model])) - len(rows)
        drawn = _init(model, dtype, shape)(np.asarray([seeds[i] for i in [*rows, *[rows[0]] * missing]], np.uint32))

        def embed(whole: np.ndarray, part: Array, rows: list[int] = rows) -> None:
            if part.ndim != whole.ndim or any(n > most for n, most in zip(part.shape[1:], whole.shape[1:], strict=True)):
                raise BadInput(
                    f"a model's parameter of shape {part.shape[1:]} does not fit into {whole.shape[1:]}, that of the program"
                )
            # A narrower layer is a leading corner of a wider one: see `models.layers.GatedDense`.
            corner: Any = (np.asarray(rows), *map(slice, part.shape[1:]))
            whole[corner] = np.asarray(part)[: len(rows)]

        jax.tree.map(embed, stacked, drawn)
    return stacked


def _fresh(params: Params) -> State:
    members, dtype = len(jax.tree.leaves(params)[0]), jax.tree.leaves(params)[0].dtype
    # Two arrays, since what is donated must not be given twice.
    multiplier = objectives.Multiplier(jnp.zeros(members, dtype), jnp.zeros(members, dtype))
    optimizer = jax.vmap(optax.scale_by_adam().init)(params)
    return State(params, optimizer, multiplier, jnp.zeros(members, jnp.int32), jnp.ones(members, bool))


def state_shapes(model: Trainable, shape: tuple[int, ...], dtype: str) -> State:
    """Shapes and dtypes of the state of a population of one; nothing is computed."""
    return jax.eval_shape(_fresh, jax.eval_shape(_init(model, dtype, shape), jax.ShapeDtypeStruct((1,), jnp.uint32)))


def bytes_of(tree: PyTree) -> int:
    """Bytes of the arrays of a tree, which may be shapes alone."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


@functools.cache
def _start(mesh: Mesh) -> Callable[[Params], State]:
    return jax.jit(jax.shard_map(_fresh, mesh=mesh, in_specs=P(MEMBER_AXIS), out_specs=P(MEMBER_AXIS)), donate_argnums=0)


def start(params: Params, mesh: Mesh) -> State:
    """The state of a population before its first step; `params` are placed on the mesh."""
    return _start(mesh)(place(params, mesh))


def spread(member: Callable[..., PyTree], mesh: Mesh, lanes: int | None) -> Callable[..., PyTree]:
    """A population's function from one member's: `member(own, *shared)` with trees that have members first in place of its own.

    Args:
      member: What to do for one member.
      mesh: Members are spread over its devices; what is shared is on each of them.
      lanes: The most members a device advances side by side; None means all of its.
    """

    def on_each_device(own: PyTree, *shared: Array) -> PyTree:
        if lanes is None or lanes >= len(jax.tree.leaves(own)[0]):
            return jax.vmap(member, in_axes=(0, *[None] * len(shared)))(own, *shared)
        return lax.map(lambda one: member(one, *shared), own, batch_size=lanes)

    def on_all(own: PyTree, *shared: Array) -> PyTree:
        return jax.shard_map(
            on_each_device,
            mesh=mesh,
            in_specs=(P(MEMBER_AXIS), *[P()] * len(shared)),
            out_specs=P(MEMBER_AXIS),
            check_vma=False,  # the loop over members inside `layers.conv` mixes per-member and shared arrays
        )(own, *shared)

    return on_all


@functools.cache
def _train(program: Program, mesh: Mesh) -> Wrapped:
    objective, schedule = objectives.OBJECTIVES[program.objective], SCHEDULES[program.schedule]
    prepare, adam = OPTIMIZERS[program.optimizer], optax.scale_by_adam(b2=program.adam_b2)
    constrained = program.objective == "target_distortion"

    def member(
        state: State, hypers: Hypers, images: Array, first_step: Array, steps: Array, total_steps: Array
    ) -> tuple[State, Metrics]:
        whole = program.batch_size == len(images)
        steps_per_epoch = len(images) // program.batch_size
        epoch, offset = first_step // steps_per_epoch, first_step % steps_per_epoch
        order = jax.random.permutation(jax.random.fold_in(key_of(hypers.seed, Stream.ORDER), epoch), len(images))
        noise = key_of(hypers.seed, Stream.NOISE)

        def batch(i: Array) -> Array:
            if whole:
                return images
            return images[lax.dynamic_slice(order, ((offset + i) * program.batch_size,), (program.batch_size,))]

        def loss(params: Params, x: Array, key: Array, weights: objectives.Weights) -> tuple[Array, tuple[Array, Array]]:
            terms = program.model.terms(params, x, key)
            rate, distortion = terms.rate.mean(dtype=program.dtype), terms.distortion.mean(dtype=program.dtype)
            return objective(rate, distortion, weights), (rate, distortion)

        def step(i: Array, carry: tuple[State, Metrics]) -> tuple[State, Metrics]:
            state, metrics = carry
            x = batch(i).astype(program.compute_dtype or program.dtype)
            progress = ((first_step + i) / total_steps).astype(program.dtype)
            weights = objectives.annealed(hypers.weights, progress, hypers.annealing)
            if constrained:
                weights = weights._replace(multiplier=objectives.pressure(state.multiplier, weights))
            (value, (rate, distortion)), gradient = jax.value_and_grad(loss, has_aux=True)(
                state.params, x, jax.random.fold_in(noise, first_step + i), weights
            )
            direction, optimizer = adam.update(prepare(gradient), state.optimizer)
            scale = hypers.learning_rate * schedule(progress)
            params = jax.tree.map(lambda p, d: p - scale * d, state.params, direction)
            # Adam's direction is bounded while gradients are finite, so parameters stay finite if the step's size is.
            finite = state.finite & jnp.isfinite(value) & jnp.isfinite(optax.tree.norm(gradient)) & jnp.isfinite(scale)
            finite &= value <= hypers.loss_bound
            multiplier = state.multiplier
            if constrained:
                multiplier = objectives.ascend(multiplier, distortion, weights, schedule(progress))
            params, optimizer, multiplier = jax.tree.map(
                lambda new, old: jnp.where(finite, new, old),
                (params, optimizer, multiplier),
                (state.params, state.optimizer, state.multiplier),
            )
            state = State(params, optimizer, multiplier, state.steps + finite, finite)
            seen = Metrics(rate, distortion, value)
            return state, jax.tree.map(lambda column, now: column.at[i].set(now), metrics, seen)

        blank = Metrics(*(jnp.full(program.segment_steps, jnp.nan, program.dtype) for _ in Metrics._fields))
        return lax.fori_loop(0, steps, step, (state, blank))

    def train_members(state: State, hypers: Hypers, *shared: Array) -> tuple[State, Metrics]:
        with layers.lowering(program.lowering), jax.default_matmul_precision(program.precision):
            return spread(lambda own, *rest: member(*own, *rest), mesh, program.lanes)((state, hypers), *shared)

    return jax.jit(train_members, donate_argnums=0)


def longest_segment(batch_size: int, examples: int, step: int) -> int | None:
    """Steps that one call of `train` may make from `step` on: to the end of the epoch, or any number (None) with whole batches."""
    per_epoch = examples // batch_size
    return None if batch_size == examples else per_epoch - step % per_epoch


@functools.cache
def compiled(program: Program, mesh: Mesh, members: int, shape: tuple[int, ...], dtype: str) -> Compiled:
    """What `train` runs, compiled for so many members and for data of one shape and type; nothing is computed or placed."""

    def shapes(tree: PyTree, spec: P) -> PyTree:
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec)), tree)

    def column(dtype: str) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((members,), dtype)

    one = state_shapes(program.model, shape[1:], program.dtype)
    state = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((members, *leaf.shape[1:]), leaf.dtype), one)
    weights = objectives.Weights(*(column(program.dtype) for _ in objectives.Weights._fields))
    hypers = Hypers(column("uint32"), weights, *(column(program.dtype) for _ in Hypers._fields[2:]))
    images = jax.ShapeDtypeStruct(shape, dtype)
    held = (*shapes((state, hypers), P(MEMBER_AXIS)), shapes(images, P()))
    return _train(program, mesh).lower(*held, np.int32(0), np.int32(0), np.float32(1)).compile()


def train(
    program: Program,
    mesh: Mesh,
    state: State,
    hypers: Hypers,
    images: Array | np.ndarray,
    first_step: int,
    steps: int,
    total_steps: int,
) -> tuple[State, Metrics]:
    """Makes some steps of Adam for every member. `state` is consumed.

    Args:
      program: What is compiled in.
      mesh: Where the members are.
      state: Where they stand.
      hypers: (members,) arrays.
      images: (examples, ...) training data, resident on every device of the mesh.
      first_step: Steps made before.
      steps: Steps to make: at most `program.segment_steps`, and no more than `longest_segment`.
      total_steps: Length of the whole training, which the schedules refer to.

    Returns:
      The new state, and metrics of shape (members, segment_steps), NaN past `steps`.

    Raises:
      ValueError: If there are more steps than a segment takes or than the epoch has left.
    """
    left = longest_segment(program.batch_size, len(images), first_step)
    if not 0 <= steps <= program.segment_steps or (left is not None and steps > left):
        raise ValueError(f"steps={steps} must be at most {program.segment_steps}, a segment, and {left}, the rest of the epoch")
    run = compiled(program, mesh, len(state.steps), images.shape, jax.dtypes.canonicalize_dtype(images.dtype).name)
    return run(state, hypers, images, np.int32(first_step), np.int32(steps), np.float32(total_steps))
