"""Keeps account of the work done, tells the listener, and asks whether to stop."""

import math
from collections.abc import Callable, Mapping, Sequence

from rd_elbo import grid, train
from rd_elbo.parts import Finished
from rd_elbo.planning import Plan
from rd_elbo.watch import Listener, Status

# Stops are asked for between segments of training and calls of an evaluation.
Stop = Callable[[], bool]


class Meter:
    """Keeps account of the work done, tells the listener, and asks whether to stop."""

    def __init__(
        self,
        plan: Plan,
        pending: Sequence[grid.Group],
        done: Mapping[str, Finished],
        listener: Listener,
        stop: Stop | None,
    ):
        self.plan, self.listener, self.stop = plan, listener, stop
        self.parts, self.part = len(pending), 0
        found = [done[member.name].of(member.name)[0] for member in plan.members if member.name in done]
        self.members_done, self.diverged = len(found), sum(point["status"] != "ok" for point in found)
        self.examples = sum(len(plan.dataset.splits[split]) for split in plan.splits)
        self.whole = sum(sum(self.plan.work(part)) for part in pending)
        self.finished = self.evaluated = self._restored = 0.0

    def preparing(self, part: grid.Group) -> None:
        """A part is about to be compiled."""
        self._tell(part, 0.0, "compiling")

    def training(self, part: grid.Group) -> train.Listener:
        """A listener for the training of a part."""
        training, _ = self.plan.work(part)
        self.evaluated = 0.0

        def tell(progress: train.Progress) -> None:
            # The steps that another run has made are work neither done nor to be done.
            self._restore(training * progress.restored / progress.total_steps)
            self._tell(part, training * progress.steps / progress.total_steps, "training", progress)

        return tell

    def evaluating(self, part: grid.Group) -> Callable[[int], None]:
        """A listener for its evaluation; raises `train.Stopped`."""
        training, evaluation = self.plan.work(part)

        def tell(examples: int) -> None:
            if self.stop and self.stop():
                raise train.Stopped("while evaluating")
            self.evaluated += examples / (len(part.members) * self.examples)
            self._tell(part, training + evaluation * self.evaluated, "evaluating")

        return tell

    def finish(self, part: grid.Group, finished: Finished | None) -> None:
        """A part is finished, or has failed."""
        self.finished += sum(self.plan.work(part))
        self._restored = 0.0
        self.part += 1
        if finished:
            self.members_done += len(finished.members)
            ended = [finished.of(member)[0]["status"] for member in finished.members]
            self.diverged += sum(status != "ok" for status in ended)

    def split(self, part: grid.Group, halves: Sequence[grid.Group]) -> None:
        """The part is trained as several, from their beginning."""
        self._restore(0.0)
        self.parts += len(halves) - 1
        self.whole += sum(sum(self.plan.work(half)) for half in halves) - sum(self.plan.work(part))

    def _restore(self, work: float) -> None:
        """So much of the part at work has been done by another run."""
        self.whole -= work - self._restored
        self.finished -= work - self._restored
        self._restored = work

    def _tell(self, part: grid.Group, now: float, doing: str, progress: train.Progress | None = None) -> None:
        p = progress or train.Progress(len(part.members), 0, 0, 0, 0, math.nan, math.nan)
        self.listener(
            Status(
                part=self.part,
                parts=self.parts,
                members_done=self.members_done,
                members=len(self.plan.members),
                diverged=self.diverged + (p.members - p.finite if progress else 0),
                done=min(1.0, (self.finished + now) / self.whole),
                doing=doing,
                at_work=p.members,
                step=p.steps,
                steps=p.total_steps,
                rate=p.rate,
                distortion=p.distortion,
            )
        )
