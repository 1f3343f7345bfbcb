"""The training loop: a population of any models (`fit`), or a group of a grid's members (`train`), in segments, with progress."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import jax
import numpy as np

from rd_elbo import population
from rd_elbo.checkpoint import Checkpoints
from rd_elbo.data.dataset import Dataset
from rd_elbo.errors import BadInput, choice, number, whole
from rd_elbo.grid import Group, Member
from rd_elbo.models.base import Params, Trainable

# A segment draws the order of its epoch anew, so it should be long; but progress should be seen, so not too long.
_SEGMENT_SECONDS = 3.0
# The first tells what compiling took.
_FIRST_STEPS = 1
MOST_STEPS = 512
STRATEGIES: Mapping[str, int | None] = {"auto": None, "vmap": None, "looped": 1}


@dataclasses.dataclass(frozen=True)
class Execution:
    """How members are run; nothing here changes what a member becomes, but for rounding.

    Attributes:
      devices: Devices to spread members over; None means all local ones.
      members: The most members trained at once; None means as many of a group as fit into memory.
      strategy: A key of `STRATEGIES`: "vmap", all members of a device side by side; "looped", one after another; "auto", whichever
        of several is fastest, as sweeps measure (elsewhere it is "vmap").
      lanes: The most members a device advances side by side, see `population.Program`; given, there is nothing to choose.
      max_waste: See `grid.groups`.
      dtype: Of parameters and arithmetic, "float32" or "float64" (which needs JAX's x64 mode). It is the one that changes numbers.
      compute_dtype: See `population.Program`.
      precision: See `population.Program`.
      lowering: See `population.Program`.
      checkpoint_seconds: The least time between two saves of the state of what is being trained.
    """

    devices: int | None = None
    members: int | None = None
    strategy: str = "auto"
    lanes: int | None = None
    max_waste: float = 1.25
    dtype: str = "float32"
    compute_dtype: str | None = None
    precision: str = "default"
    lowering: str = "auto"
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "checkpoint_seconds", number("checkpoint_seconds", self.checkpoint_seconds))
        for field in ("devices", "members", "lanes"):
            if getattr(self, field) is not None:
                object.__setattr__(self, field, whole(field, getattr(self, field)))
        choice("strategy", self.strategy, STRATEGIES)
        if self.lanes is not None and self.strategy != "auto":
            raise BadInput(f"lanes={self.lanes!r} and strategy={self.strategy!r} exclude each other; give one of them")
        object.__setattr__(self, "max_waste", number("max_waste", self.max_waste, 1.0))
        choice("dtype", self.dtype, ("float32", "float64"))

    @property
    def chosen(self) -> bool:
        """Whether it is settled how many members a device advances side by side."""
        return self.lanes is not None or self.strategy != "auto"


@dataclasses.dataclass(frozen=True)
class Progress:
    """What the loop tells a listener now and then.

    Attributes:
      members: Members in training.
      steps: Steps each of them has made.
      total_steps: Steps each of them will make.
      restored: Of the steps made, those that were made before a restart.
      finite: How many of them have not diverged.
      rate: Mean rate over the last segment and the members that have not diverged, in nats.
      distortion: Likewise, distortion.
    """

    members: int
    steps: int
    total_steps: int
    restored: int
    finite: int
    rate: float
    distortion: float


Listener = Callable[[Progress], None]
# Told of the number of steps made before, and the metrics of those made since; after a restart once more from 0 on.
Watcher = Callable[[int, population.Metrics], None]


class Stopped(Exception):
    """Training was asked to stop before its end.

    Attributes:
      saved: Whether its last state is saved.
    """

    def __init__(self, when: str, saved: bool = True):
        super().__init__(when)
        self.saved = saved


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """Models trained together.

    Attributes:
      program: What was compiled.
      params: Parameters of `program.model`, members first, NumPy arrays.
      steps: (members,) updates made.
      finite: (members,) whether the member never diverged.
      metrics: Rate, distortion and loss of the steps kept, (members, steps kept).
      seconds: Wall time of the training, compilation included.
      compile_seconds: Wall time until the first segment of steps had been made.
      devices: Number of devices.
    """

    program: population.Program
    params: Params
    steps: np.ndarray
    finite: np.ndarray
    metrics: population.Metrics
    seconds: float
    compile_seconds: float
    devices: int


@dataclasses.dataclass(frozen=True, eq=False)
class Trained(Fitted):
    """Members of a grid trained together; `params` are at padded widths.

    Attributes:
      members: In the order of the leading axis.
    """

    members: tuple[Member, ...]

    def member_params(self, index: int, image_shape: tuple[int, int]) -> Params:
        """The parameters of one member at its own widths."""
        own = parameter_shapes(self.members[index].build(image_shape), image_shape)
        return jax.tree.map(lambda whole, leaf: whole[(index, *map(slice, leaf.shape))], self.params, own)


@functools.cache
def parameter_shapes(model: Trainable, shape: tuple[int, ...]) -> Params:
    """Shapes and dtypes of the parameters of `model`; nothing is computed."""
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jax.numpy.zeros((1, *shape))))


def steps_per_epoch(member: Member, examples: int) -> int:
    """Whole batches in one pass over `examples`; what is left over is seen in another epoch's order."""
    if member.batch_size > examples:
        raise BadInput(f"batch_size={member.batch_size} is more than the {examples} examples of the training split")
    return examples // member.batch_size


def total_steps(member: Member, examples: int) -> int:
    """Steps a member is trained for: at least one."""
    return max(1, round(member.epochs * steps_per_epoch(member, examples)))


def chunks(group: Group, size: int | None) -> Iterator[Group]:
    """The group in parts of at most `size` members, which are trained one after another; None means in one."""
    size = size or len(group.members)
    for first in range(0, len(group.members), size):
        yield dataclasses.replace(group, members=group.members[first : first + size])


def program_of(group: Group, image_shape: tuple[int, int], execution: Execution) -> population.Program:
    """What is compiled for a group."""
    lead = group.members[0]
    lanes = STRATEGIES[execution.strategy] if execution.lanes is None else execution.lanes
    return population.Program(
        group.padded.build(image_shape),
        lead.objective,
        lead.batch_size,
        lead.schedule,
        lead.optimizer,
        dtype=execution.dtype,
        compute_dtype=execution.compute_dtype,
        precision=execution.precision,
        lowering=execution.lowering,
        segment_steps=MOST_STEPS,
        lanes=lanes,
    )


def train(
    group: Group,
    dataset: Dataset,
    execution: Execution | None = None,
    listener: Listener | None = None,
    *,
    checkpoints: Checkpoints | None = None,
    stop: Callable[[], bool] | None = None,
    watcher: Watcher | None = None,
) -> Trained:
    """Trains the members of one group together.

    Args:
      group: Members that one program can train, see `grid.groups`.
      dataset: Its training split is used.
      execution: How to run.
      listener: Called after every segment of steps.
      checkpoints: See `fit`.
      stop: See `fit`.
      watcher: See `fit`.

    Returns:
      The trained members. A member that diverged is in its last finite state, with `finite` False.

    Raises:
      BadInput: If the batch is larger than the training split, or float64 is wanted and JAX's x64 mode is off.
      Stopped: See `fit`.
    """
    execution = execution or Execution()
    images = dataset.splits["train"]
    program = program_of(group, dataset.image_shape, execution)
    models = [member.build(dataset.image_shape) for member in group.members]
    hypers = population.Hypers.of(group.members, execution.dtype)
    total = total_steps(group.members[0], len(images))
    fitted = fit(
        program,
        models,
        hypers,
        images,
        total,
        devices=execution.devices,
        listener=listener,
        checkpoints=checkpoints,
        stop=stop,
        watcher=watcher,
    )
    return Trained(**vars(fitted), members=group.members)


def fit(
    program: population.Program,
    models: Sequence[Trainable],
    hypers: population.Hypers,
    data: np.ndarray,
    steps: int,
    *,
    devices: int | None = None,
    every: int = 1,
    listener: Listener | None = None,
    checkpoints: Checkpoints | None = None,
    stop: Callable[[], bool] | None = None,
    watcher: Watcher | None = None,
) -> Fitted:
    """Trains a population of models of any kind.

    Args:
      program: What is compiled in: the model that all train as, the objective, the batch size, ...
      models: Each member's own model, whose parameters are drawn and embedded in zeros up to the size of `program.model`.
      hypers: (members,) arrays, or numbers for all of them: seeds, weights of the objective, annealing and learning rates; see
        `population.Hypers.of`.
      data: (examples, ...) training data, in the form that the models take.
      steps: Steps to make; the schedule of the learning rate spans them.
      devices: Devices to spread members over; None means all local ones.
      every: Metrics are kept of every so many steps, among them the last.
      listener: Called after every segment of steps.
      checkpoints: Where the state is saved now and then, and restored from at the beginning if there is one. The result is the
        same to the last bit, on the same devices, as if training had never been interrupted.
      stop: Asked after every segment of steps whether to save and stop.
      watcher: Told the metrics of every segment of steps, see `Watcher`.

    Returns:
      The trained models. One that diverged is in its last finite state, with `finite` False.

    Raises:
      BadInput: If there is nothing to train, the model is no `models.base.Trainable`, the batch is larger than the data, the
        numbers of models and hyperparameters differ, or float64 is wanted and JAX's x64 mode is off.
      Stopped: If `stop` said so before the last step.
    """
    began = time.perf_counter()
    count, steps, every = len(models), whole("steps", steps), whole("every", every)
    if program.dtype == "float64" and jax.dtypes.canonicalize_dtype("float64") != np.float64:
        raise BadInput("dtype='float64' needs JAX's x64 mode: set JAX_ENABLE_X64=1, or choose 'float32'")
    if not isinstance(program.model, Trainable):
        raise BadInput(
            f"model={program.model!r} must be hashable and have init, terms and rate_estimator; see models.base.Trainable"
        )
    hypers = jax.tree.map(lambda leaf: np.full(count, leaf) if np.ndim(leaf) == 0 else leaf, hypers)
    if not count or any(np.shape(leaf) != (count,) for leaf in jax.tree.leaves(hypers)):
        raise BadInput(f"models={count} must be at least 1 and as many as there are of each hyperparameter")
    data = np.asarray(data)
    hypers = jax.tree.map(lambda leaf: np.asarray(leaf, program.dtype), hypers)._replace(seed=np.asarray(hypers.seed, np.uint32))
    if program.batch_size > len(data):
        raise BadInput(f"batch_size={program.batch_size} is more than the {len(data)} examples of the training data")
    mesh = population.make_mesh(devices, count)

    # A mesh takes a multiple of its size; the last member stands in for those that are missing and is dropped at the end.
    models = fill(models, mesh.size)
    hypers = jax.tree.map(lambda leaf: fill_rows(leaf, mesh.size), hypers)
    like = population.state_shapes(program.model, data.shape[1:], program.dtype)
    shapes = [f"{leaf.shape[1:]} {leaf.dtype}" for leaf in jax.tree.leaves(like)]
    checkpoints = checkpoints or Checkpoints()
    # A state that an older version has saved may have another form.
    checkpoints = dataclasses.replace(checkpoints, identity={**checkpoints.identity, "state": shapes})
    saved = checkpoints.restore((like, population.Metrics(like.steps, like.steps, like.steps), 0.0))
    if saved:
        first, (kept, seen, spent) = saved
        state = population.place(jax.tree.map(lambda leaf: fill_rows(leaf, mesh.size), kept), mesh)
        history, spent = [seen], float(spent)
        del kept
        # What is thinned out cannot be told again.
        if watcher and every == 1:
            watcher(0, seen)
    else:
        params = population.initialise(models, hypers.seed.tolist(), program.model, data.shape[1:], program.dtype)
        first, state, history, spent = 0, population.start(params, mesh), [], 0.0
        del params
    del saved
    hypers, resident, restored = population.place(hypers, mesh), population.replicate(data, mesh), first

    def save() -> bool:
        metrics = jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *history)
        kept = jax.tree.map(lambda leaf: np.asarray(leaf)[:count], state)
        return checkpoints.save(first, (kept, metrics, np.float64(spent + time.perf_counter() - began)))

    wanted, compile_seconds = min(_FIRST_STEPS, program.segment_steps), 0.0
    while first < steps:
        segment_began = time.perf_counter()
        longest = population.longest_segment(program.batch_size, len(data), first)
        now = min(wanted, steps - first, steps if longest is None else longest)
        state, seen = population.train(program, mesh, state, hypers, resident, first, now, steps)
        seen = jax.tree.map(lambda a, now=now: np.asarray(a)[:count, :now], seen)
        history.append(jax.tree.map(lambda a, skip=(steps - 1 - first) % every: a[:, skip::every], seen))
        if watcher:
            watcher(first, seen)
        first += now
        if compile_seconds:
            wanted = next_steps(now, time.perf_counter() - segment_began, program.segment_steps)
        else:
            compile_seconds = time.perf_counter() - began
        if listener:
            finite = np.asarray(state.finite)[:count]
            rate, distortion = (float(column[finite].mean(dtype=np.float64)) if finite.any() else math.nan for column in seen[:2])
            listener(Progress(count, first, steps, restored, int(finite.sum()), rate, distortion))
        stopping = first < steps and stop is not None and stop()
        # What follows a long training, its evaluation, may be interrupted too.
        long = first == steps and spent + time.perf_counter() - began > checkpoints.seconds
        kept_now = save() if stopping or long or checkpoints.due() else False
        if stopping:
            raise Stopped(f"after {first} of {steps} steps", kept_now)

    params, made, finite = jax.tree.map(lambda a: np.asarray(a)[:count], (state.params, state.steps, state.finite))
    metrics = jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *history)
    seconds = spent + time.perf_counter() - began
    return Fitted(program, params, made, finite, metrics, seconds, compile_seconds, mesh.size)


def next_steps(steps: int, seconds: float, most: int = MOST_STEPS) -> int:
    """How many steps the next segment should have after one of `steps` took `seconds`; what they compute does not depend on it."""
    return max(1, min(most, 4 * steps, int(_SEGMENT_SECONDS * steps / max(seconds, 1e-9))))


T = TypeVar("T")


def fill(members: Sequence[T], multiple: int) -> list[T]:
    """The members, the last one repeated until their number is a multiple."""
    return [*members, *[members[-1]] * (-len(members) % multiple)]


def fill_rows(array: np.ndarray, multiple: int) -> np.ndarray:
    """`fill` for an array with members first."""
    return np.concatenate([array, np.repeat(array[-1:], -len(array) % multiple, axis=0)])
