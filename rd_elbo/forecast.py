"""What a sweep would do, without doing it: its parts, the memory they take, and the time, from a few steps of each program."""

import dataclasses
import pathlib
from collections.abc import Iterator

from rd_elbo import grid, memory, train
from rd_elbo.memory import Room
from rd_elbo.parts import Store
from rd_elbo.planning import Plan
from rd_elbo.strategy import Choice, Planner


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What one part would take.

    Attributes:
      part: Its members.
      steps: That each of them makes.
      choice: How they are run.
      room: What memory there is.
      compiling: Seconds that compiling its programs took just now, or when its record was made; nothing where another part did.
      training: Seconds, from a few steps.
      evaluating: Seconds, from the training's by arithmetic.
    """

    part: grid.Group
    steps: int
    choice: Choice
    room: Room
    compiling: float
    training: float
    evaluating: float

    @property
    def fits(self) -> bool:
        """Whether there is memory for it."""
        return self.room.taken(self.choice.need) <= 1

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.compiling + self.training + self.evaluating


def forecast(plan: Plan, store: Store) -> Iterator[Forecast]:
    """What each part that is not finished would take. Programs are compiled, and a few steps are run.

    Args:
      plan: What to do.
      store: The run directory that may hold some of it, see `peek`.
    """
    planner = Planner(plan.dataset, plan.splits, plan.execution)
    done = store.finished()
    pending = store.pending(plan.members, done, plan.divide)
    known: dict[str, tuple[Choice, float, float]] = {}
    while pending:
        part = pending.pop(0)
        room, about = planner.room(part), planner.about(part)
        if str(about) not in known:
            try:
                choice = planner.settle(part, store.choice(about), room)
            except memory.TooLarge as error:
                yield Forecast(part, steps_of(plan, part), Choice(None, 1, error.need), room, 0.0, 0.0, 0.0)
                continue
            if isinstance(choice, int):
                pending[:0] = train.chunks(part, choice)
                continue
            timing = next((timing for timing in choice.timings if timing.lanes == choice.lanes), None)
            timing = timing or planner.timing(part, choice.lanes)
            compiling = sum(timing.compile_seconds for timing in choice.timings) or (timing.compile_seconds if timing else 0.0)
            known[str(about)] = choice, compiling, timing.step_seconds if timing else 0.0
        choice, compiling, step_seconds = known[str(about)]
        known[str(about)] = choice, 0.0, step_seconds
        steps = steps_of(plan, part)
        training, evaluation = plan.work(part)
        spent = steps * step_seconds
        yield Forecast(part, steps, choice, room, compiling, spent, spent * evaluation / training)


def steps_of(plan: Plan, part: grid.Group) -> int:
    """Steps that each member of a part makes."""
    return train.total_steps(part.members[0], len(plan.dataset.splits["train"]))


def peek(plan: Plan, workdir: pathlib.Path | None) -> Store:
    """The run directory as it is and stays; none is as good as an empty one."""
    return Store(workdir or pathlib.Path("/nonexistent"), plan.identity, plan.division, writes=False)
