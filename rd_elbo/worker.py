"""Parts are prepared, trained, evaluated and kept, one after another; by one process, or by several that share them."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from rd_elbo import attempts, disk, evaluate, grid, parts, population, train
from rd_elbo.checkpoint import Report
from rd_elbo.errors import Failed
from rd_elbo.hosts import Claims
from rd_elbo.live import Live
from rd_elbo.meter import Meter
from rd_elbo.parts import Finished, Store
from rd_elbo.planning import Plan
from rd_elbo.strategy import Choice, Planner

_POLL = 0.3


@dataclasses.dataclass(eq=False)
class Worker:
    """Works until there is nothing left to do.

    Attributes:
      plan: What is trained.
      store: Where it is kept.
      planner: Asked how each part is run.
      claims: Tells which parts are this process's.
      meter: Told of all that is done.
      note: Told, in a sentence, how each part is run.
      writer: What writes event files for TensorBoard, see `live.event_writer`; None writes none.
      kept: Called after each part.
    """

    plan: Plan
    store: Store
    planner: Planner
    claims: Claims
    meter: Meter
    note: Report
    writer: Callable[..., Any] | None = None
    kept: Callable[[], None] = lambda: None

    def work(self, pending: Sequence[grid.Group], done: dict[str, Finished]) -> dict[str, str]:
        """Trains what is pending and no other process has taken, and waits for the others.

        Args:
          pending: Parts, in the order in which they are taken.
          done: Members' names and finished parts; what is finished here, by whomever, is added.

        Returns:
          Members that could not be trained, by name, and why.
        """
        failed: dict[str, str] = {}
        open_parts = list(pending)
        while open_parts:
            # What another process has divided is there in parts for all.
            open_parts = [smaller for part in open_parts for smaller in self._leaves(part)]
            self._collect(open_parts, done, failed)
            taken = next((part for part in open_parts if self.claims.take(self.store.name(part))), None)
            if taken is not None:
                open_parts.remove(taken)
                open_parts[:0] = self._one(taken, done, failed)
                self.kept()
                continue
            if self.meter.stop and self.meter.stop():
                raise train.Stopped("while other processes were at work")
            if open_parts:
                time.sleep(_POLL)
        return failed

    def _leaves(self, part: grid.Group) -> list[grid.Group]:
        leaves = self.store.leaves(part)
        if len(leaves) > 1:
            self.meter.split(part, leaves)
        return leaves

    def _collect(self, open_parts: list[grid.Group], done: dict[str, Finished], failed: dict[str, str]) -> None:
        """Takes from the parts those that other processes have finished, or failed to."""
        if self.claims.hosts.count == 1:
            return
        failures = self.claims.failures()
        for part in list(open_parts):
            name = self.store.name(part)
            finished = self.store.load(name)
            if finished or name in failures:
                open_parts.remove(part)
                done |= dict.fromkeys(finished.members, finished) if finished else {}
                failed |= failures.get(name, {})
                self.meter.finish(part, finished)

    def _one(self, part: grid.Group, done: dict[str, Finished], failed: dict[str, str]) -> list[grid.Group]:
        """Trains one part, if it fits; else returns what it is divided into."""
        began = time.perf_counter()
        try:
            self.meter.preparing(part)
            if attempts.took_too_much(self.store.mark(part)):
                raise MemoryError("the system has ended a process for lack of memory while it was at work on this")
            with attempts.marked(self.store.mark(part)):
                prepared = self._prepare(part)
                if isinstance(prepared, int):
                    return self._divide(part, prepared)
                finished = self._complete(part, prepared, time.perf_counter() - began)
            done |= dict.fromkeys(finished.members, finished)
            self.meter.finish(part, finished)
        except Exception as error:
            if not parts.retried(error):
                raise
            if isinstance(error, jax.errors.JaxRuntimeError):
                self._check_devices(part)
            if len(part.members) > 1:
                self.store.report(f"{len(part.members)} members together failed ({disk.gist(error)}); they are tried in two halves")
                return self._divide(part, (len(part.members) + 1) // 2)
            (member,) = part.members
            failed[member.name] = disk.gist(error)
            self.store.report(f"member {member.name} failed ({failed[member.name]})")
            self.claims.fail(self.store.name(part), {member.name: failed[member.name]})
            self.meter.finish(part, None)
        return []

    def _check_devices(self, part: grid.Group) -> None:
        """Makes sure that it was the part: a device that is out of order would fail all that are left, one after another.

        Raises:
          Failed: If it was the device.
        """
        for device in population.make_mesh(self.plan.execution.devices, len(part.members)).devices.flat:
            try:
                jax.block_until_ready(jax.device_put(np.ones(8, np.float32), device) + 1)
            except (jax.errors.JaxRuntimeError, MemoryError) as error:
                raise Failed(f"{device} has stopped working ({disk.gist(error)})") from error

    def _divide(self, part: grid.Group, size: int) -> list[grid.Group]:
        smaller = self.store.split(part, size)
        self.meter.split(part, smaller)
        return smaller

    def _prepare(self, part: grid.Group) -> Choice | int:
        """How a part is run; or, where it does not fit into memory, of what size the parts should be that do.

        Raises:
          MemoryError: If not even one member fits.
        """
        about, available = self.planner.about(part), self.planner.room(part)
        recorded = self.store.choice(about)
        choice = self.planner.settle(part, recorded, available)
        if isinstance(choice, int):
            self.note(f"{described(part)} need too much memory at once; they go in parts of {choice} or fewer")
            return choice
        if recorded is None:
            choice = self.store.keep_choice(about, choice)
        self.note(f"{described(part)}: {choice.describe()}, {available.compare(choice.need)}")
        return choice

    def _complete(self, part: grid.Group, choice: Choice, preparing: float) -> Finished:
        """Trains and evaluates one part and saves what became of it."""
        plan, meter = self.plan, self.meter
        checkpoints = self.store.checkpoints(part, plan.execution.checkpoint_seconds)
        execution = dataclasses.replace(plan.execution, strategy="auto" if choice.lanes else "vmap", lanes=choice.lanes)
        names = [member.name for member in part.members]
        live = Live(self.store.workdir, self.store.name(part), names, self.store.report, self.writer)
        tell, stop = meter.training(part), meter.stop
        try:
            trained = train.train(part, plan.dataset, execution, tell, checkpoints=checkpoints, stop=stop, watcher=live)
        except BaseException:
            live.close(done=False)
            raise
        began = time.perf_counter()
        points = evaluate.evaluate(trained, plan.dataset, plan.splits, meter.evaluating(part), lanes=choice.evaluation_lanes)
        spent = {"preparing": preparing, "evaluating": time.perf_counter() - began}
        finished = self.store.keep(part, trained, points, spent, plan.dataset.image_shape)
        live.close(done=True)
        return finished


def described(part: grid.Group) -> str:
    """A part in a few words."""
    families = ", ".join(dict.fromkeys(member.family for member in part.members))
    return f"{len(part.members)} member{'' if len(part.members) == 1 else 's'} of {families}"
