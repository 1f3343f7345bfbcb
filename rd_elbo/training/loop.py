"""The calls of a training: how long they are, what is kept of them, and how far they are."""

import collections
import dataclasses
import json
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from rd_elbo.training import sharding, step
from rd_elbo.training.checkpoint import Checkpoints
from rd_elbo.training.state import HParams, Metrics, State, TrainSpec, settings

# Progress should be seen, and a stop answered.
CALL_SECONDS = 3.0
# A call loads the state of members that do not fit into a cache; more steps make that worth it.
_FEW_STEPS, _FEW_STEPS_SECONDS = 8, 20.0
_IN_FLIGHT = 2


@dataclasses.dataclass(frozen=True)
class Progress:
    """Progress of a training.

    Attributes:
      members: Members in training.
      steps: Steps each of them has made.
      total_steps: Steps each of them will make.
      restored: Steps that were made before a restart.
      alive: Members that have not diverged.
      rate: Mean rate over the last call and the members that have not diverged, nats.
      distortion: Mean distortion over the same, nats.
    """

    members: int
    steps: int
    total_steps: int
    restored: int
    alive: int
    rate: float
    distortion: float


# Receives the progress, and the metrics recorded since its last call. After a restart the first
# metrics are those since step 0.
Callback = Callable[[Progress, Metrics], None]


class Stopped(Exception):
    """Training was asked to stop before its end.

    Attributes:
      saved: Whether the last state is saved.
    """

    def __init__(self, when: str, saved: bool = True):
        super().__init__(when)
        self.saved = saved


@dataclasses.dataclass(frozen=True)
class History:
    """Metrics of the steps kept, in arrays of their final size.

    So every state has one form.

    Attributes:
      columns: Rate, distortion and loss, each (members, kept), nats.
      steps: Steps of the whole training.
      every: Steps between two that are kept; the last is kept too.
    """

    columns: tuple[np.ndarray, ...]
    steps: int
    every: int

    @classmethod
    def blank(cls, members: int, steps: int, every: int, dtype: str) -> "History":
        """One of which nothing has been recorded."""
        kept = -(-steps // every)
        return cls(tuple(np.zeros((members, kept), dtype) for _ in range(3)), steps, every)

    def record(self, before: int, columns: tuple[np.ndarray, ...]) -> None:
        """Keep what is to be kept of steps made after `before` others."""
        now = before + columns[0].shape[1]
        first, last = self._rows(before), self._rows(now)
        at = self._numbers(first, last) - 1 - before
        for own, new in zip(self.columns, columns, strict=True):
            own[:, first:last] = new[:, at]

    def since(self, before: int, now: int) -> Metrics:
        """What is kept of the steps after `before` and up to `now`."""
        first, last = self._rows(before), self._rows(now)
        numbers = self._numbers(first, last)
        return Metrics(numbers, *(column[:, first:last].copy() for column in self.columns))

    def _rows(self, made: int) -> int:
        return -(-made // self.every) if made == self.steps else made // self.every

    def _numbers(self, first: int, last: int) -> np.ndarray:
        return np.minimum(self.every * np.arange(first + 1, last + 1), self.steps)


class Pace:
    """The length of a call, fixed once the time of a step is known.

    Calls grow until one takes a fair part of the time wanted. The time of a step is the slope
    between the last two: what a call costs whatever its length must not make calls short.

    Attributes:
      steps: Steps of the next call.
      fixed: Whether all calls that follow have this length.
    """

    def __init__(self, most: int):
        self.steps, self.fixed = 1, most == 1
        self._most, self._warm, self._before = most, False, (0, 0.0)

    def measure(self, steps: int, seconds: float) -> None:
        """Learn from a call that nothing else ran beside."""
        # The first draws the orders, and meets cold caches.
        if self.fixed or not self._warm:
            self._warm = True
            return
        before, then = self._before
        grown, longer = seconds - then, steps - before
        if before and longer > 0:
            clear = seconds >= CALL_SECONDS / 8 and grown >= seconds / 4
            if clear or seconds >= CALL_SECONDS or steps < self.steps or steps == self._most:
                slope = grown / longer if grown > 0 else seconds / steps
                few = min(_FEW_STEPS, int(_FEW_STEPS_SECONDS / slope))
                self.steps = max(1, min(self._most, max(int(CALL_SECONDS / slope), few)))
                self.fixed = True
                return
        self._before = steps, seconds
        self.steps = min(self._most, 2 if steps == 1 else 4 * steps)

    def adopt(self, steps: int, fixed: bool) -> None:
        """Do as another process does."""
        self.steps, self.fixed = steps, fixed


@dataclasses.dataclass(eq=False)
class Loop:
    """A training under way.

    Attributes:
      spec: The program.
      mesh: Devices that the members are spread over.
      members: Number of members, without those that fill up the mesh.
      state: State after the calls that were sent.
      hparams: (members,) arrays on the mesh.
      images: Training data on every device.
      orders: Orders of the examples.
      history: Metrics kept.
      checkpoints: Folder and record of saved states.
      done: Steps whose results have been read.
      spent: Seconds of earlier starts.
      began: Time of this start.
    """

    spec: TrainSpec
    mesh: Mesh
    members: int
    state: State
    hparams: HParams
    images: jax.Array
    orders: step.Orders
    history: History
    checkpoints: Checkpoints
    done: int
    spent: float
    began: float
    callback: Callback | None = None
    stop: Callable[[], bool] | None = None
    compile_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.restored, self._sent, self._reported = self.done, self.done, 0
        self._pace = Pace(self.spec.call_steps)
        self._flying: collections.deque[tuple[int, float, step.Seen]] = collections.deque()

    @property
    def seconds(self) -> float:
        """Wall time of the training so far, earlier starts included."""
        return self.spent + time.perf_counter() - self.began

    def run(self) -> None:
        """Make the steps that are left.

        Raises:
          Stopped: If `stop` said so before the last of them.
        """
        total = self.history.steps
        if self.done == total and self.callback:
            alive = int(sharding.fetch(self.state.alive, self.members).sum())
            self._report(alive, math.nan, math.nan)
        while self.done < total:
            # A call that is measured has the devices for itself.
            most = _IN_FLIGHT if self._pace.fixed else 1
            while self._sent < total and len(self._flying) < most:
                self._send()
            self._receive()
            stopping, saving = self._agree()
            if stopping or saving:
                while self._flying:
                    self._receive()
                saved = self._save()
                if stopping and self.done < total:
                    raise Stopped(f"after {self.done} of {total} steps", saved)

    def _send(self) -> None:
        """Start a call."""
        first, total = self._sent, self.history.steps
        most = step.longest_call(self.spec, len(self.images), first)
        now, start = min(self._pace.steps, total - first, most), time.perf_counter()
        shared = self.hparams, self.orders, self.images, first, now, total
        self.state, seen = step.call(self.spec, self.mesh, self.state, *shared)
        self._flying.append((now, start, sharding.gather(seen, self.mesh)))
        self._sent += now

    def _receive(self) -> None:
        """Read the results of the oldest call."""
        now, start, results = self._flying.popleft()
        seen = jax.tree.map(lambda x: np.asarray(x)[: self.members], results)
        self._pace.measure(now, time.perf_counter() - start)
        self.compile_seconds = self.compile_seconds or time.perf_counter() - self.began
        columns = tuple(column[:, :now] for column in (seen.rate, seen.distortion, seen.loss))
        self.history.record(self.done, columns)
        self.done += now
        alive = [column[seen.alive] for column in columns[:2]]
        means = [float(x.mean(dtype=np.float64)) if x.size else math.nan for x in alive]
        self._report(int(seen.alive.sum()), *means)

    def _report(self, alive: int, rate: float, distortion: float) -> None:
        if self.callback:
            steps = self.done, self.history.steps, self.restored
            progress = Progress(self.members, *steps, alive, rate, distortion)
            self.callback(progress, self.history.since(self._reported, self.done))
            self._reported = self.done

    def _agree(self) -> tuple[bool, bool]:
        """Whether to stop and whether to save: any process stops all, process 0 sets the pace."""
        # What follows a long training, its evaluation, may be interrupted too.
        long = self.done == self.history.steps and self.seconds > self.checkpoints.seconds
        saving = self.checkpoints.due() or (long and self.checkpoints.folder is not None)
        mine = bool(self.stop and self.stop()), saving, self._pace.steps, self._pace.fixed
        own = json.dumps(mine).encode()
        agreed = sharding.agree("call", own, report=self.checkpoints.report)
        words = [json.loads(word) for word in agreed]
        self._pace.adopt(*words[0][2:])
        return any(word[0] for word in words), words[0][1]

    def _save(self) -> bool:
        tree: Any = self.state, self.history.columns, np.asarray(self.seconds)
        with settings(self.spec.dtype):
            return self.checkpoints.save(self.done, tree)
