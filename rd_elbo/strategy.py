"""How a group is best run on the devices there are: how many members at once, and how many of them side by side.

Two questions, each answered by what is to be run itself: what fits is asked of the compiled programs, before anything runs, and
what is fastest of a few steps. Neither answer changes what a member becomes, but for rounding; so that even the rounding can be had
again, answers are recorded, see `parts.Store.choice`.
"""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import Mesh
from jax.stages import Compiled

from rd_elbo import evaluate, memory, population, scores, train
from rd_elbo.data.dataset import Dataset
from rd_elbo.grid import Group
from rd_elbo.memory import Need, Room

# A candidate is timed until a segment of steps takes so long, after one warm step.
_SECONDS = 0.3
# Trying others may take this part of what training is expected to take.
_WORTH = 0.1
# After "vmap": small models want as many members as fit into a cache, large ones want to be alone.
_LANES = (16, 1, 4)
# Of an evaluation, whose batches are large: on CPU more members side by side are no faster, and from some dozens on slower.
_EVALUATION_LANES = 16


def step_seconds(segments: Sequence[tuple[float, int]]) -> float:
    """What a step takes, from the seconds and steps of segments of growing length.

    A segment begins by drawing the order of its epoch, which for small models takes as long as many steps. Training has long
    segments, so a step is what a longer segment takes more than a shorter one.
    """
    (least, few), (most, many) = segments[0], max(segments, key=lambda segment: segment[1])
    slope = (most - least) / (many - few) if many > few else 0.0
    return slope if slope > 0 else most / many


@dataclasses.dataclass(frozen=True)
class Timing:
    """What a few steps of a candidate took.

    Attributes:
      lanes: Members a device advances side by side; None means all of them ("vmap"), 1 one after another ("looped").
      compile_seconds: Of its program; little where another part had it compiled, or it was on disk.
      step_seconds: Of one step of all members.
    """

    lanes: int | None
    compile_seconds: float
    step_seconds: float


@dataclasses.dataclass(frozen=True)
class Choice:
    """How so many members of a group are run.

    Attributes:
      lanes: See `population.Program`, in training.
      evaluation_lanes: Likewise, in evaluation.
      need: Bytes that it takes.
      timings: What was measured; nothing where there was nothing to choose.
      untried: Candidates (their lanes) that it was not worth the time to try.
    """

    lanes: int | None
    evaluation_lanes: int
    need: Need
    timings: tuple[Timing, ...] = ()
    untried: tuple[int, ...] = ()

    @property
    def how(self) -> str:
        """How members are advanced, in words."""
        return {None: "all side by side", 1: "one after another"}.get(self.lanes, f"{self.lanes} side by side")

    def describe(self) -> str:
        """The choice in words."""
        best = min((timing.step_seconds for timing in self.timings), default=None)
        return self.how if best is None else f"{self.how}, {1000 * best:.3g} ms a step"

    @classmethod
    def from_json(cls, content: Any) -> "Choice":
        """The choice of which `dataclasses.asdict` made `content`; raises what malformed content raises."""
        timings = tuple(Timing(**timing) for timing in content["timings"])
        need, untried = Need(**content["need"]), tuple(content["untried"])
        return cls(content["lanes"], content["evaluation_lanes"], need, timings, untried)


@dataclasses.dataclass(frozen=True, eq=False)
class Planner:
    """Asks the questions of groups of one study.

    Attributes:
      dataset: What they are trained on.
      splits: What they are evaluated on.
      execution: What was asked for.
      most: Bytes of this host's memory that may be taken, where processes share it.
      stop: Asked, while it measures, whether to stop.
    """

    dataset: Dataset
    splits: Sequence[str]
    execution: train.Execution
    most: int | None = None
    stop: Callable[[], bool] | None = None
    _seconds: dict[Any, float] = dataclasses.field(default_factory=dict)

    def room(self, group: Group) -> Room:
        """What there is for a group."""
        mesh = population.make_mesh(self.execution.devices, len(group.members))
        return memory.room(list(mesh.devices.flat), self.most)

    def about(self, group: Group) -> dict[str, Any]:
        """All that its choice depends on, as JSON."""
        lead, images = group.members[0], self.dataset.splits["train"]
        mesh = population.make_mesh(self.execution.devices, len(group.members))
        return {
            "architecture": dataclasses.asdict(group.padded),
            **{field: getattr(lead, field) for field in ("objective", "batch_size", "schedule", "optimizer")},
            **{field: getattr(self.execution, field) for field in ("dtype", "strategy", "lanes")},
            "members": len(group.members),
            # What is worth measuring depends on it, and the memory of the metrics.
            "steps": train.total_steps(lead, len(images)),
            "devices": [device.device_kind for device in mesh.devices.flat],
            "data": list(images.shape),
        }

    def size(self, group: Group, available: Room) -> tuple[int, Need]:
        """How many of the members fit at once, and what they need in training.

        Where `Execution.members` says how many, as many as there are.
        """
        mesh, images = population.make_mesh(self.execution.devices, len(group.members)), self.dataset.splits["train"]
        program = train.program_of(group, self.dataset.image_shape, self.execution)

        def need(members: int) -> Need:
            return Need(memory.of(self._compiled(program, mesh, members)[0]), self._host_bytes(group, members))

        if self.execution.members is not None:
            return len(group.members), need(len(group.members))
        return memory.largest(len(group.members), mesh.size, need, images.nbytes, available)

    def settle(self, group: Group, recorded: Choice | None, available: Room) -> Choice | int:
        """How a group is run; or, where it does not fit into memory, of what size the parts should be that may.

        What is on record is held to, also where a little less memory is free than it needs with room to spare.

        Raises:
          memory.TooLarge: If not even one member fits.
          train.Stopped: If `stop` said so.
        """
        count, given = len(group.members), self.execution.members is not None
        if recorded is not None and (given or available.taken(recorded.need) * memory.SHARE <= 1):
            return recorded
        size, need = self.size(group, available)
        if size < count:
            return size
        if recorded is not None:
            return recorded
        try:
            if not given and available.taken(need) > 1:
                raise memory.TooLarge(need, available)
            return self.choose(group, need, available)
        except memory.TooLarge:
            if count == 1:
                raise
            return (count + 1) // 2

    def choose(self, group: Group, need: Need, available: Room) -> Choice:
        """How to run a group all of whose members fit at once, and need so much in training.

        Raises:
          memory.TooLarge: If they do not fit in evaluation, not even one after another.
          train.Stopped: If `stop` said so.
        """
        device, evaluation_lanes = self._evaluation(group, available)
        lanes = train.program_of(group, self.dataset.image_shape, self.execution).lanes
        chosen = Choice(lanes, evaluation_lanes, Need(max(need.device, device), need.host))
        if self.execution.members is None and available.taken(chosen.need) > 1:
            raise memory.TooLarge(chosen.need, available)
        mesh = population.make_mesh(self.execution.devices, len(group.members))
        candidates = [lanes for lanes in _LANES if lanes * mesh.size < len(group.members)]
        if self.execution.chosen or not candidates:
            return chosen
        began, untried = time.perf_counter(), []
        first = self.timing(group, None)
        if first is None:
            return chosen
        # Another will cost what this one has, its compiling too, which was done before.
        cost = time.perf_counter() - began + first.compile_seconds
        steps = train.total_steps(group.members[0], len(self.dataset.splits["train"]))
        budget, timings = _WORTH * steps * first.step_seconds, [first]
        for candidate in candidates:
            began, timing = time.perf_counter(), None
            # One that cannot be compiled or run is no reason not to use another.
            with contextlib.suppress(jax.errors.JaxRuntimeError, MemoryError):
                timing = self.timing(group, candidate) if cost <= budget else None
            if timing is None:
                untried.append(candidate)
            else:
                timings.append(timing)
                budget -= time.perf_counter() - began
        best = min(timings, key=lambda timing: timing.step_seconds)
        return dataclasses.replace(chosen, lanes=best.lanes, timings=tuple(timings), untried=tuple(untried))

    def timing(self, group: Group, lanes: int | None) -> Timing | None:
        """A few steps of the group; None where its training is shorter.

        Raises:
          train.Stopped: If `stop` said so.
        """
        execution = dataclasses.replace(self.execution, strategy="vmap" if lanes is None else "auto", lanes=lanes)
        program, images = train.program_of(group, self.dataset.image_shape, execution), self.dataset.splits["train"]
        mesh = population.make_mesh(self.execution.devices, len(group.members))
        _, compile_seconds = self._compiled(program, mesh, len(group.members))
        marks: list[tuple[float, int]] = []

        def mark(progress: train.Progress) -> None:
            marks.append((time.perf_counter(), progress.steps))

        def enough() -> bool:
            # Where epochs are short, so are segments.
            long = len(marks) > 1 and (marks[-1][0] - marks[-2][0] >= _SECONDS or marks[-1][0] - marks[0][0] >= 3 * _SECONDS)
            return long or (self.stop is not None and self.stop())

        with contextlib.suppress(train.Stopped):
            models = [member.build(self.dataset.image_shape) for member in group.members]
            hypers = population.Hypers.of(group.members, execution.dtype)
            steps = train.total_steps(group.members[0], len(images))
            train.fit(program, models, hypers, images, steps, devices=execution.devices, listener=mark, stop=enough)
        if self.stop is not None and self.stop():
            raise train.Stopped("while measuring")
        if len(marks) < 2:
            return None
        segments = [(now - then, after - before) for (then, before), (now, after) in itertools.pairwise(marks)]
        return Timing(lanes, compile_seconds, step_seconds(segments))

    def _compiled(self, program: population.Program, mesh: Mesh, members: int) -> tuple[Compiled, float]:
        """A program for so many members, and the seconds that it took to compile when it was."""
        key, images = (program, mesh, -(-members // mesh.size) * mesh.size), self.dataset.splits["train"]
        began = time.perf_counter()
        compiled = population.compiled(*key, images.shape, images.dtype.name)
        return compiled, self._seconds.setdefault(key, time.perf_counter() - began)

    def _evaluation(self, group: Group, available: Room) -> tuple[int, int]:
        """Bytes on each device that evaluating the group takes, and how many members side by side fit."""
        mesh = population.make_mesh(self.execution.devices, len(group.members))
        whole = -(-len(group.members) // mesh.size) * mesh.size
        host = self._host_bytes(group, len(group.members))
        trained = train.program_of(group, self.dataset.image_shape, self.execution)
        lanes = min(trained.lanes or whole, whole // mesh.size)
        if mesh.devices.flat[0].platform == "cpu":
            lanes = min(lanes, _EVALUATION_LANES)
        while True:
            program, device = dataclasses.replace(trained, lanes=lanes), 0
            for split in self.splits:
                images = self.dataset.splits[split]
                batch = min(evaluate.BATCH, len(images))
                compiled = scores.compiled(program, mesh, whole, images.shape, images.dtype.name, batch)
                device = max(device, memory.of(compiled))
            taken = available.taken(Need(device, host))
            if taken <= 1 or lanes == 1:
                return device, lanes
            lanes = max(1, min(lanes // 2, int(lanes / taken)))

    def _host_bytes(self, group: Group, members: int) -> int:
        """NumPy arrays of so many members: parameters drawn, padded and trained; metrics and terms, twice while they are joined."""
        images = self.dataset.splits["train"]
        state = population.state_shapes(group.padded.build(self.dataset.image_shape), images.shape[1:], self.execution.dtype)
        parameters = population.bytes_of(state.params)
        itemsize = 8 if self.execution.dtype == "float64" else 4
        steps = train.total_steps(group.members[0], len(images))
        examples = max(len(self.dataset.splits[split]) for split in self.splits)
        return members * (3 * parameters + 2 * itemsize * (3 * steps + 2 * examples))
