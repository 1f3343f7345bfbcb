"""What a population is made of: its specification, its hyperparameters and its state.

Every array of a population has the members on its first axis. A member's randomness is
`fold_in(fold_in(key(seed), stream), index)` of its own seed and of the step, epoch or batch, so its
result does not depend on its neighbours, its position or the devices. Members of equal seed see the
same batches and the same noise: differences along beta are smaller than differences between runs.
"""

import contextlib
import dataclasses
import enum
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from rd_elbo import objectives
from rd_elbo.errors import BadInput, choice, number, whole
from rd_elbo.models.lowering import LOWERINGS
from rd_elbo.models.vae import Params, Trainable
from rd_elbo.training import regularisation
from rd_elbo.training.optim import SCHEDULES, Optax, Optimizer, choose_optimizer

# Parameters drawn at once, in bytes.
_DRAWN_BYTES = 2**28
_PRECISIONS = ("default", "high", "highest")


class Stream(enum.IntEnum):
    """Purposes for which a member draws randomness."""

    INIT, ORDER, NOISE, EVALUATION, LIKELIHOOD, DROPOUT, SHIFT = range(7)


def key_of(seed: Array, stream: Stream) -> Array:
    """The key of one member for one purpose."""
    # `jax.random.key`, without the process-wide offset that it adds to seeds.
    data = jnp.stack([jnp.zeros_like(seed), seed])
    return jax.random.fold_in(jax.random.wrap_key_data(data, impl="threefry2x32"), stream)


@dataclasses.dataclass(frozen=True)
class TrainSpec:
    """Static arguments of a compiled step; populations of equal spec and shapes share one program.

    Attributes:
      model: The model, at the widths that all members are padded to.
      objective: A key of `objectives.OBJECTIVES`.
      batch_size: Examples per step. If it is all of them, a batch is the data in its own order.
      schedule: A key of `optim.SCHEDULES`; or a schedule of optax, a function from the number of
        steps made to a learning rate, which members' own learning rates multiply.
      optimizer: A key of `optim.OPTIMIZERS`; or a function from a learning rate to a transformation
        of optax, or its "package.module:name"; or a transformation, for which schedule and learning
        rates have no effect.
      adam_b2: Decay of Adam's second moment, between 0 and 1. A lower one forgets large gradients
        sooner.
      dtype: Type of parameters, "float32" or "float64".
      compute_dtype: "bfloat16" gives the model batches of that type in training; "float32" gives it
        batches of `dtype`. The loss has `dtype` either way.
      precision: Precision of matrix products in training, "default", "high" or "highest"; it
        matters on accelerators. Evaluation always has the highest.
      lowering: Form of convolutions with a kernel per member, see `models.lowering.lowering`.
      averages: Whether members keep an average of their parameters, see `HParams.ema_decay`.
      drops: Whether members have dropout, see `HParams.dropout`.
      shifts: Whether members see images moved, see `HParams.shift`.
      call_steps: The most steps of one call of the compiled program.
      vmap_size: The most members that a device advances side by side; the others wait until these
        have made the steps of the call. None means `sharding.default_vmap_size`.
    """

    model: Trainable
    objective: str = "beta"
    batch_size: int = 128
    schedule: str | Callable[[Any], Any] = "cosine"
    optimizer: str | Optax = "adam"
    adam_b2: float = 0.999
    dtype: str = "float32"
    compute_dtype: str = "float32"
    precision: str = "default"
    lowering: str = "auto"
    averages: bool = False
    drops: bool = False
    shifts: bool = False
    call_steps: int = 512
    vmap_size: int | None = None

    def __post_init__(self) -> None:
        choice("objective", self.objective, objectives.OBJECTIVES)
        if not callable(self.schedule):
            choice("schedule", self.schedule, SCHEDULES)
        choose_optimizer(self.optimizer)
        choice("dtype", self.dtype, ("float32", "float64"))
        choice("compute_dtype", self.compute_dtype, ("float32", "bfloat16"))
        choice("precision", self.precision, _PRECISIONS)
        choice("lowering", self.lowering, LOWERINGS)
        for field in ("batch_size", "call_steps", "vmap_size"):
            if field != "vmap_size" or self.vmap_size is not None:
                object.__setattr__(self, field, whole(field, getattr(self, field)))
        if number("adam_b2", self.adam_b2, above=True) >= 1:
            raise BadInput(f"adam_b2={self.adam_b2!r}: expected above 0 and below 1.")
        if not isinstance(self.model, Trainable):
            raise BadInput(
                f"model={self.model!r}: expected a hashable object with init, terms and "
                "rate_estimator, see models.vae.Trainable."
            )

    @property
    def update(self) -> Optimizer:
        """How a member moves."""
        return choose_optimizer(self.optimizer, self.adam_b2)

    def learning_rate(self, progress: Any, made: Any) -> tuple[Any, Any]:
        """Factor of members' learning rates, and its part of the largest, at a moment of training.

        Args:
          progress: Part of the training done, 0 to 1.
          made: Steps made so far.
        """
        if isinstance(self.schedule, str):
            return (SCHEDULES[self.schedule](progress),) * 2
        # The largest is not known.
        return self.schedule(made), jnp.ones_like(progress)


@contextlib.contextmanager
def settings(dtype: str, precision: str = "highest") -> Iterator[None]:
    """Set JAX's process-wide settings that change numbers to what a program of `dtype` means.

    Results then follow from the spec, whatever the environment of the process says.
    """
    with (
        jax.enable_x64(dtype == "float64"),
        jax.threefry_partitionable(True),
        jax.default_prng_impl("threefry2x32"),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.default_matmul_precision(precision),
    ):
        yield


class HParams(NamedTuple):
    """Numbers in which members of one program may differ; each array has shape (members,).

    Attributes:
      seed: (members,) uint32, source of all randomness of a member.
      weights: (members,) arrays, see `objectives.LossWeights`.
      kl_warmup_fraction: (members,) part of the training in which the weight of the rate rises.
      learning_rate: (members,) peak step size of Adam.
      divergence_threshold: (members,) nats; a batch's loss above it counts as a divergence.
      ema_decay: (members,) decay of the average of the parameters, 0 to below 1.
      dropout: (members,) probability that a hidden unit is dropped, 0 to below 1.
      shift: (members,) pixels by which images move at most, whole numbers.
    """

    seed: Any
    weights: objectives.LossWeights
    kl_warmup_fraction: Any
    learning_rate: Any
    divergence_threshold: Any = math.inf
    ema_decay: Any = 0.0
    dropout: Any = 0.0
    shift: Any = 0.0

    @classmethod
    def of(cls, members: Sequence[Any], spec: TrainSpec) -> "HParams":
        """Collect the hyperparameters of objects with the fields of a grid's member.

        Args:
          members: Objects with `seed`, `kl_warmup_fraction` and `learning_rate`. A weight that they
            lack has its default, a threshold that they lack is infinite, and a part of
            `regularisation` that they lack is off.
          spec: The program that is to train them.

        Returns:
          NumPy arrays in the dtype of `spec`.

        Raises:
          BadInput: If a member asks for another objective, optimizer, schedule or batch size than
            `spec` has.
        """
        for field in ("objective", "optimizer", "schedule", "batch_size"):
            for i, member in enumerate(members):
                if getattr(member, field, (own := getattr(spec, field))) != own:
                    raise BadInput(
                        f"{field}={getattr(member, field)!r}, of member {i}: expected {own!r}, "
                        "that of the program. Train unlike members apart."
                    )

        def column(field: str, *default: float) -> np.ndarray:
            return np.asarray([getattr(m, field, *default) for m in members], spec.dtype)

        weights = objectives.LossWeights(
            *(column(*item) for item in objectives.LossWeights._field_defaults.items())
        )
        seed = np.asarray([m.seed for m in members], np.uint32)
        bound = column("divergence_threshold", math.inf)
        rest = (column(field, 0.0) for field in regularisation.SWITCHES.values())
        return cls(
            seed, weights, column("kl_warmup_fraction"), column("learning_rate"), bound, *rest
        )

    def checked(self, members: int, dtype: str) -> "HParams":
        """NumPy arrays of shape (members,) in `dtype`; a number stands for all members.

        Raises:
          BadInput: If there are not as many of each as members.
        """
        full = jax.tree.map(lambda x: np.full(members, x) if np.ndim(x) == 0 else x, self)
        if not members or any(np.shape(leaf) != (members,) for leaf in jax.tree.leaves(full)):
            raise BadInput(
                f"models={members}: expected at least 1, and as many as there are of each "
                "hyperparameter."
            )
        typed = jax.tree.map(lambda leaf: np.asarray(leaf, dtype), full)
        return typed._replace(seed=np.asarray(full.seed, np.uint32))


class State(NamedTuple):
    """A population in training.

    Attributes:
      params: Parameters, members first.
      optimizer: State of the optimizer, such as Adam's moments; members first.
      multiplier: (members,) arrays of the objective `target_distortion`; others do not use it.
      steps: (members,) updates made.
      alive: (members,) bool, False once a member's loss or gradient was not finite, or its loss
        above its bound; from then on the member stays as it was.
      average: Moving average of the parameters, like `params`; () where the program keeps none.
    """

    params: PyTree
    optimizer: PyTree
    multiplier: objectives.Multiplier
    steps: Int[Array, " members"]
    alive: Bool[Array, " members"]
    average: PyTree = ()


class Metrics(NamedTuple):
    """Batch means that some steps saw, in nats.

    Attributes:
      step: (kept,) updates made when the step was done: 1 for the first.
      rate: (members, kept) nats.
      distortion: (members, kept) nats.
      loss: (members, kept) nats.
    """

    step: Int[Any, " kept"]
    rate: Float[Any, "members kept"]
    distortion: Float[Any, "members kept"]
    loss: Float[Any, "members kept"]


@functools.lru_cache(maxsize=64)
def _init(model: Trainable, dtype: str, shape: tuple[int, ...]) -> Callable[..., Params]:
    def one(seed: Array) -> Params:
        # Two examples, since one hides that a part sums over the batch.
        params = model.init(key_of(seed, Stream.INIT), jnp.zeros((2, *shape), dtype))
        return jax.tree.map(lambda leaf: leaf.astype(dtype), params)

    # Runs once, so the compiler's time spent optimising it would be lost.
    return jax.jit(jax.vmap(one), compiler_options={"xla_backend_optimization_level": 0})


def parameter_shapes(model: Trainable, shape: tuple[int, ...], dtype: str = "float32") -> Params:
    """Shapes and dtypes of the parameters of one member; nothing is computed."""
    with settings(dtype):
        stacked = jax.eval_shape(_init(model, dtype, shape), jax.ShapeDtypeStruct((1,), "uint32"))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), stacked)


def initialise(
    models: Sequence[Trainable],
    seeds: Sequence[int],
    padded: Trainable,
    shape: tuple[int, ...],
    dtype: str = "float32",
) -> Params:
    """Draw each member's parameters at its own size and embed them in zeros.

    Args:
      models: Each member's own model.
      seeds: Each member's seed.
      padded: The model that all of them are trained as.
      shape: Shape of one example.
      dtype: Type of the parameters.

    Returns:
      Stacked parameters as NumPy arrays, members first.

    Raises:
      BadInput: If a model does not fit into `padded`.
    """
    like = parameter_shapes(padded, shape, dtype)
    stacked = jax.tree.map(lambda leaf: np.zeros((len(models), *leaf.shape), leaf.dtype), like)
    rows_of: dict[Trainable, list[int]] = {}
    for i, model in enumerate(models):
        rows_of.setdefault(model, []).append(i)
    # One device draws them, which has no room for the members of all.
    most = max(1, _DRAWN_BYTES // max(1, bytes_of(like)))
    for model, all_rows in rows_of.items():
        # One shape, so that it is compiled once.
        size = min(most, len(all_rows))
        for rows in (all_rows[i : i + size] for i in range(0, len(all_rows), size)):
            filled = [*rows, *[rows[0]] * (size - len(rows))]
            with settings(dtype):
                drawn = _init(model, dtype, shape)(
                    np.asarray([seeds[i] for i in filled], np.uint32)
                )
            jax.tree.map(functools.partial(_embed, rows), stacked, drawn)
    return stacked


def stack(
    params: Sequence[Params], padded: Trainable, shape: tuple[int, ...], dtype: str = "float32"
) -> Params:
    """Stack members' own parameters, such as saved ones, embedded in zeros.

    Args:
      params: Parameters of each member, at its own size.
      padded: The model that all of them fit into.
      shape: Shape of one example.
      dtype: Type of the parameters.

    Returns:
      Stacked parameters as NumPy arrays, members first.

    Raises:
      BadInput: If a parameter does not fit into `padded`.
    """
    like = parameter_shapes(padded, shape, dtype)
    stacked = jax.tree.map(lambda leaf: np.zeros((len(params), *leaf.shape), leaf.dtype), like)
    for i, own in enumerate(params):
        jax.tree.map(lambda whole, leaf, i=i: _embed([i], whole, leaf[None]), stacked, own)
    return stacked


def _embed(rows: Sequence[int], stacked: np.ndarray, drawn: Array) -> None:
    """Put parameters into the leading corner of wider ones, see `models.layers.GatedDense`."""
    inside = zip(drawn.shape[1:], stacked.shape[1:], strict=False)
    if drawn.ndim != stacked.ndim or any(n > most for n, most in inside):
        raise BadInput(
            f"model: expected parameters that fit into {stacked.shape[1:]}, the program's, got "
            f"{drawn.shape[1:]}."
        )
    corner: Any = (np.asarray(rows), *map(slice, drawn.shape[1:]))
    stacked[corner] = np.asarray(drawn)[: len(rows)]


def fresh(params: Params, spec: TrainSpec) -> State:
    """The state of a population before its first step."""
    leaf = jax.tree.leaves(params)[0]
    members, dtype = len(leaf), leaf.dtype
    # Two arrays, since what is donated must not be given twice.
    multiplier = objectives.Multiplier(jnp.zeros(members, dtype), jnp.zeros(members, dtype))
    optimizer = jax.vmap(spec.update.init)(params)
    steps, alive = jnp.zeros(members, jnp.int32), jnp.ones(members, bool)
    average = jax.tree.map(jnp.copy, params) if spec.averages else ()
    return State(params, optimizer, multiplier, steps, alive, average)


@functools.lru_cache(maxsize=64)
def state_shapes(spec: TrainSpec, shape: tuple[int, ...], members: int = 1) -> State:
    """Shapes and dtypes of the state of members on examples of `shape`; nothing is computed."""
    params = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((members, *leaf.shape), leaf.dtype),
        parameter_shapes(spec.model, shape, spec.dtype),
    )
    with settings(spec.dtype):
        return jax.eval_shape(functools.partial(fresh, spec=spec), params)


def bytes_of(tree: PyTree) -> int:
    """Bytes of the arrays of a tree, which may be shapes alone."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
