"""The training loop: groups of members, in chunks, in segments of steps, with progress."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from rd_elbo import population
from rd_elbo.data.dataset import Dataset
from rd_elbo.errors import BadInput, choice, number, whole
from rd_elbo.grid import Group, Member
from rd_elbo.models.base import Params, Trainable

# A segment draws the order of its epoch anew, so it should be long; but progress should be seen, so not too long.
_SEGMENT_SECONDS = 3.0
_FIRST_STEPS, _MOST_STEPS = 16, 512


@dataclasses.dataclass(frozen=True)
class Execution:
    """How members are run; nothing here changes what a member becomes.

    Attributes:
      devices: Devices to spread members over; None means all local ones.
      chunk: The most members trained at once; None means all of a group.
      max_waste: See `grid.groups`.
      dtype: Of parameters and arithmetic, "float32" or "float64" (which needs JAX's x64 mode).
    """

    devices: int | None = None
    chunk: int | None = None
    max_waste: float = 1.25
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for field in ("devices", "chunk"):
            if getattr(self, field) is not None:
                object.__setattr__(self, field, whole(field, getattr(self, field)))
        object.__setattr__(self, "max_waste", number("max_waste", self.max_waste, 1.0))
        choice("dtype", self.dtype, ("float32", "float64"))


@dataclasses.dataclass(frozen=True)
class Progress:
    """What the loop tells a listener now and then.

    Attributes:
      group: The group at work.
      members: Members in training.
      steps: Steps each of them has made.
      total_steps: Steps each of them will make.
      finite: How many of them have not diverged.
      rate: Mean rate over the last segment and the members that have not diverged, in nats.
      distortion: Likewise, distortion.
    """

    group: Group
    members: int
    steps: int
    total_steps: int
    finite: int
    rate: float
    distortion: float


Listener = Callable[[Progress], None]


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """Members trained together.

    Attributes:
      members: In the order of the leading axis.
      program: What was compiled.
      params: Parameters at padded widths, members first, NumPy arrays.
      steps: (members,) updates made.
      finite: (members,) whether the member never diverged.
      metrics: Rate, distortion and loss of each step, (members, steps).
      seconds: Wall time of the training, compilation included.
      compile_seconds: Wall time until the first segment of steps had been made.
      devices: Number of devices.
    """

    members: tuple[Member, ...]
    program: population.Program
    params: Params
    steps: np.ndarray
    finite: np.ndarray
    metrics: population.Metrics
    seconds: float
    compile_seconds: float
    devices: int

    def member_params(self, index: int, image_shape: tuple[int, int]) -> Params:
        """The parameters of one member at its own widths."""
        own = parameter_shapes(self.members[index].build(image_shape), image_shape)
        return jax.tree.map(lambda whole, leaf: whole[(index, *map(slice, leaf.shape))], self.params, own)


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


def chunks(group: Group, execution: Execution) -> Iterator[Group]:
    """The group in parts that are trained one after another."""
    size = execution.chunk or len(group.members)
    for first in range(0, len(group.members), size):
        yield dataclasses.replace(group, members=group.members[first : first + size])


def train(group: Group, dataset: Dataset, execution: Execution | None = None, listener: Listener | None = None) -> Trained:
    """Trains the members of one group together.

    Args:
      group: Members that one program can train, see `grid.groups`.
      dataset: Its training split is used.
      execution: How to run.
      listener: Called after every segment of steps.

    Returns:
      The trained members. A member that diverged is in its last finite state, with `finite` False.

    Raises:
      BadInput: If the batch is larger than the training split, or float64 is wanted and JAX's x64 mode is off.
    """
    began = time.perf_counter()
    execution = execution or Execution()
    if execution.dtype == "float64" and jax.dtypes.canonicalize_dtype("float64") != np.float64:
        raise BadInput("dtype='float64' needs JAX's x64 mode: set JAX_ENABLE_X64=1, or choose 'float32'")
    images, members, lead = dataset.splits["train"], group.members, group.members[0]
    per_epoch, total = steps_per_epoch(lead, len(images)), total_steps(lead, len(images))
    mesh = population.make_mesh(execution.devices, len(members))
    padded = group.padded.build(dataset.image_shape)
    program = population.Program(padded, lead.objective, lead.batch_size, lead.schedule, execution.dtype, _MOST_STEPS)

    # A mesh takes a multiple of its size; the last member stands in for those that are missing and is dropped at the end.
    rows = fill(members, mesh.size)
    params = population.initialise(
        [member.build(dataset.image_shape) for member in rows],
        [m.seed for m in rows],
        padded,
        dataset.image_shape,
        execution.dtype,
    )
    state = population.start(params, mesh)
    hypers = population.place(population.Hypers.of(rows, execution.dtype), mesh)
    resident = population.replicate(images, mesh)

    history: list[population.Metrics] = []
    first, wanted, compile_seconds = 0, _FIRST_STEPS, 0.0
    while first < total:
        segment_began = time.perf_counter()
        steps = min(wanted, total - first, per_epoch - first % per_epoch)
        state, seen = population.train(program, mesh, state, hypers, resident, first, steps, total)
        history.append(jax.tree.map(lambda a, steps=steps: np.asarray(a)[: len(members), :steps], seen))
        first += steps
        if compile_seconds:
            wanted = next_steps(steps, time.perf_counter() - segment_began)
        else:
            compile_seconds = time.perf_counter() - began
        if listener:
            finite = np.asarray(state.finite)[: len(members)]
            rate, distortion = (float(column[finite].mean()) if finite.any() else math.nan for column in history[-1][:2])
            listener(Progress(group, len(members), first, total, int(finite.sum()), rate, distortion))

    params, made, finite = jax.tree.map(lambda a: np.asarray(a)[: len(members)], (state.params, state.steps, state.finite))
    metrics = jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *history)
    seconds = time.perf_counter() - began
    return Trained(tuple(members), program, params, made, finite, metrics, seconds, compile_seconds, mesh.size)


def next_steps(steps: int, seconds: float) -> int:
    """How many steps the next segment should have after one of `steps` took `seconds`; what they compute does not depend on it."""
    return max(1, min(_MOST_STEPS, 4 * steps, int(_SEGMENT_SECONDS * steps / max(seconds, 1e-9))))


def fill(members: Sequence[Member], multiple: int) -> list[Member]:
    """The members, the last one repeated until their number is a multiple."""
    return [*members, *[members[-1]] * (-len(members) % multiple)]
