"""A sweep: what a plan asks for, trained part by part into a run directory, and taken up again where it was left."""

import dataclasses
import math
import pathlib
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rd_elbo import disk, evaluate, grid, parts, records, train
from rd_elbo.checkpoint import Report
from rd_elbo.errors import BadInput
from rd_elbo.evaluate import POINT_COLUMNS, Point
from rd_elbo.parts import Finished, Store
from rd_elbo.planning import Plan
from rd_elbo.strategy import Choice, Planner
from rd_elbo.watch import Listener, Recorder, Status

# A training step is about three forward passes.
_TRAINING_COST = 3.0
# How often the points there are so far are written.
_PARTIAL_SECONDS = 10.0


# Stops are asked for between segments of training and calls of an evaluation.
Stop = Callable[[], bool]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a sweep ended with.

    Attributes:
      points: The rows of points.csv.
      failed: Members that could not be trained, by name, and why.
      trained: Number of members that this run trained; the others were found done.
    """

    points: list[Point]
    failed: dict[str, str]
    trained: int


def run(
    plan: Plan,
    workdir: str | pathlib.Path,
    listener: Listener | None = None,
    overwrite: bool = False,
    *,
    stop: Stop | None = None,
    report: Report = lambda _: None,
    note: Report = lambda _: None,
) -> Outcome:
    """Trains and evaluates every member that is not done yet and fills the run directory, except for its figures.

    However often it is interrupted and run again, the tables are to the last bit those of a run that was not, on the same devices.

    Args:
      plan: What to do.
      workdir: The run directory; see `records` and `parts`.
      listener: Told now and then how far the sweep is.
      overwrite: Whether to begin anew, and remove what a run has left in `workdir`.
      stop: Asked now and then whether to save and stop.
      report: Told, in a sentence, of what went wrong and how it was got round.
      note: Told, in a sentence, how each part is run.

    Returns:
      The points, and members that failed: those are tried again by the next run.

    Raises:
      BadInput: If `workdir` may not be used; nothing has been trained or written then.
      train.Stopped: If `stop` said so; what was done is saved.
      OSError: If what was trained cannot be written.
    """
    workdir = pathlib.Path(workdir)
    records.check_run(workdir, plan.config, overwrite, _bound)
    with records.locked(workdir):
        recorder = Recorder(workdir)
        try:
            return _run(plan, workdir, listener, overwrite, stop, report, note, recorder)
        except BadInput:
            raise
        except BaseException as error:
            recorder.write("stopped" if isinstance(error, train.Stopped | KeyboardInterrupt) else "failed")
            raise


def _run(
    plan: Plan,
    workdir: pathlib.Path,
    listener: Listener | None,
    overwrite: bool,
    stop: Stop | None,
    report: Report,
    note: Report,
    recorder: Recorder,
) -> Outcome:
    began = time.perf_counter()
    about_data = {"name": plan.dataset.name, "sha256": plan.dataset.checksum()}
    identity = {"data": about_data, "splits": list(plan.splits), "dtype": plan.execution.dtype}
    division = {"members": plan.execution.members, "max_waste": plan.execution.max_waste}
    store = Store(workdir, identity, division, report)
    # Before anything is removed: files of the same name and other content make another study, too.
    done = {} if overwrite else store.finished()
    records.open_run(workdir, plan.config, overwrite, _bound)
    pending = store.pending(plan.members, done, plan.divide)
    missing = sum(len(part.members) for part in pending)

    def tell(status: Status) -> None:
        recorder(status)
        if listener:
            listener(status)

    meter = _Meter(plan, pending, done, tell, stop)
    recorder.write("running", members=len(plan.members), members_done=meter.members_done, diverged=meter.diverged)
    _write_members(workdir, plan.members, done, {})
    failed = _train(plan, pending, done, store, meter, note)
    points = _write_tables(plan, workdir, store, done, failed)
    own = {done[member.name].name: done[member.name] for member in plan.members if member.name in done}.values()
    spent = ("preparing", "training", "compiling", "evaluating")
    seconds = {key: sum(part.seconds.get(key, 0.0) for part in own) for key in spent}
    seconds["total"] = time.perf_counter() - began
    about = records.provenance({**about_data, "origin": plan.dataset.origin}, sys.argv, seconds)
    about["tables"] = {name: disk.sha256(workdir / name) for name in ("points.csv", "metrics.csv")}
    disk.write_json(workdir / "provenance.json", about)
    ended = {"members": len(plan.members), "members_done": meter.members_done, "diverged": meter.diverged, "failed": len(failed)}
    recorder.write("finished", **ended)
    return Outcome(points, failed, missing - len(failed))


def _train(
    plan: Plan, pending: list[grid.Group], done: dict[str, Finished], store: Store, meter: "_Meter", note: Report
) -> dict[str, str]:
    """Trains what is pending, which `done` then has; returns why the others failed, by name."""
    failed: dict[str, str] = {}
    written = -math.inf
    planner = Planner(plan.dataset, plan.splits, plan.execution)

    def divide(part: grid.Group, size: int) -> None:
        smaller = store.split(part, size)
        pending[:0] = smaller
        meter.split(part, smaller)

    while pending:
        part, began = pending.pop(0), time.perf_counter()
        try:
            meter.preparing(part)
            prepared = _prepare(part, store, planner, note)
            if isinstance(prepared, int):
                divide(part, prepared)
                continue
            finished = _complete(plan, part, prepared, store, meter, time.perf_counter() - began)
            done |= dict.fromkeys(finished.members, finished)
            meter.finish(part, finished)
        except Exception as error:
            if not parts.retried(error):
                raise
            if len(part.members) > 1:
                store.report(f"{len(part.members)} members together failed ({disk.gist(error)}); they are tried in two halves")
                divide(part, (len(part.members) + 1) // 2)
            else:
                (member,) = part.members
                failed[member.name] = disk.gist(error)
                store.report(f"member {member.name} failed ({failed[member.name]})")
                meter.finish(part, None)
        if pending and time.monotonic() - written >= _PARTIAL_SECONDS:
            _write_points(store.workdir / "points.partial.csv", plan, done)
            written = time.monotonic()
    return failed


def _write_tables(
    plan: Plan, workdir: pathlib.Path, store: Store, done: Mapping[str, Finished], failed: Mapping[str, str]
) -> list[Point]:
    """Writes the tables, and removes what was kept to go on from; returns the points."""
    points = _write_points(workdir / "points.csv", plan, done)
    _write_metrics(workdir / "metrics.csv", plan, store, done)
    _write_members(workdir, plan.members, done, failed)
    (workdir / "points.partial.csv").unlink(missing_ok=True)
    shutil.rmtree(workdir / "checkpoints", ignore_errors=True)
    return points


def _bound(config: Mapping[str, Any]) -> dict[str, Any]:
    """What may not change in a run directory; grids may."""
    return {"name": config.get("name"), "data": config.get("data"), "dtype": (config.get("population") or {}).get("dtype")}


def _prepare(part: grid.Group, store: Store, planner: Planner, note: Report) -> Choice | int:
    """How a part is run; or, where it does not fit into memory, of what size the parts should be that do.

    Raises:
      MemoryError: If not even one member fits.
    """
    about, available, given = planner.about(part), planner.room(part), planner.execution.members is not None
    choice, count = store.choice(about), len(part.members)
    if choice is None or (not given and available.taken(choice.need) > 1):
        size, need = planner.size(part, available)
        if size < count:
            note(f"{described(part)} need too much memory at once; they go in parts of {size} or fewer")
            return size
        if not given and available.taken(need) > 1:
            if count > 1:
                return 1
            raise MemoryError(f"it needs {available.compare(need)}; --config.population.members=1 tries it all the same")
        choice = planner.choose(part, need, available)
        store.keep_choice(about, choice)
    note(f"{described(part)}: {choice.describe()}, {available.compare(choice.need)}")
    return choice


def described(part: grid.Group) -> str:
    """A part in a few words."""
    families = ", ".join(dict.fromkeys(member.family for member in part.members))
    return f"{len(part.members)} member{'' if len(part.members) == 1 else 's'} of {families}"


def _complete(plan: Plan, part: grid.Group, choice: Choice, store: Store, meter: "_Meter", preparing: float) -> Finished:
    """Trains and evaluates one part and saves what became of it."""
    checkpoints = store.checkpoints(part, plan.execution.checkpoint_seconds)
    execution = dataclasses.replace(plan.execution, strategy="auto" if choice.lanes else "vmap", lanes=choice.lanes)
    trained = train.train(part, plan.dataset, execution, meter.training(part), checkpoints=checkpoints, stop=meter.stop)
    began = time.perf_counter()
    points = evaluate.evaluate(trained, plan.dataset, plan.splits, meter.evaluating(part), lanes=choice.evaluation_lanes)
    spent = {"preparing": preparing, "evaluating": time.perf_counter() - began}
    return store.keep(part, trained, points, spent, plan.dataset.image_shape)


def _write_points(path: pathlib.Path, plan: Plan, done: Mapping[str, Finished]) -> list[Point]:
    """Writes the points there are, in the order of the grid, split by split."""
    rows = [point for member in plan.members if member.name in done for point in done[member.name].of(member.name)]
    rows.sort(key=lambda point: plan.splits.index(point["split"]))
    disk.write_table(path, POINT_COLUMNS, rows)
    return rows


def _write_metrics(path: pathlib.Path, plan: Plan, store: Store, done: Mapping[str, Finished]) -> None:
    wanted = {member.name for member in plan.members}
    own = {done[member.name].name: done[member.name] for member in plan.members if member.name in done}
    rows = (row for part in own.values() for row in store.metrics(part) if row["member"] in wanted)
    disk.write_table(path, records.METRIC_COLUMNS, rows)


def _write_members(
    workdir: pathlib.Path, members: Sequence[grid.Member], done: Mapping[str, Finished], failed: Mapping[str, str]
) -> None:
    def status(member: grid.Member) -> tuple[str, str]:
        if member.name in failed:
            return "", f"failed: {failed[member.name]}"
        part = done.get(member.name)
        return (part.name, part.of(member.name)[0]["status"]) if part else ("", "to be trained")

    disk.write_table(workdir / "members.csv", records.MEMBER_COLUMNS, records.member_rows(members, status))


class _Meter:
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
        self.whole = sum(sum(self._work(part)) for part in pending)
        self.finished = self.evaluated = 0.0

    def preparing(self, part: grid.Group) -> None:
        self._tell(part, 0.0, "compiling")

    def training(self, part: grid.Group) -> train.Listener:
        training, _ = self._work(part)
        self.evaluated = 0.0

        def tell(progress: train.Progress) -> None:
            self._tell(part, training * progress.steps / progress.total_steps, "training", progress)

        return tell

    def evaluating(self, part: grid.Group) -> Callable[[int], None]:
        training, evaluation = self._work(part)

        def tell(examples: int) -> None:
            if self.stop and self.stop():
                raise train.Stopped("while evaluating")
            self.evaluated += examples / (len(part.members) * self.examples)
            self._tell(part, training + evaluation * self.evaluated, "evaluating")

        return tell

    def finish(self, part: grid.Group, finished: Finished | None) -> None:
        self.finished += sum(self._work(part))
        self.part += 1
        if finished:
            self.members_done += len(finished.members)
            ended = [finished.of(member)[0]["status"] for member in finished.members]
            self.diverged += sum(status != "ok" for status in ended)

    def split(self, part: grid.Group, halves: Sequence[grid.Group]) -> None:
        """The part is trained as several."""
        self.parts += len(halves) - 1
        self.whole += sum(sum(self._work(half)) for half in halves) - sum(self._work(part))

    def _work(self, part: grid.Group) -> tuple[float, float]:
        """Arithmetic of training and of evaluating a part."""
        lead, count, shape = part.members[0], len(part.members), self.plan.dataset.image_shape
        steps = train.total_steps(lead, len(self.plan.dataset.splits["train"]))
        training = _TRAINING_COST * count * steps * grid.work(part.padded, shape, lead.batch_size)
        return training, count * self.examples / evaluate.BATCH * grid.work(part.padded, shape, evaluate.BATCH)

    def _tell(self, part: grid.Group, now: float, doing: str, progress: train.Progress | None = None) -> None:
        p = progress or train.Progress(len(part.members), 0, 0, 0, math.nan, math.nan)
        self.listener(
            Status(
                part=self.part,
                parts=self.parts,
                members_done=self.members_done,
                members=len(self.plan.members),
                diverged=self.diverged + (p.members - p.finite if progress else 0),
                done=(self.finished + now) / self.whole,
                doing=doing,
                at_work=p.members,
                step=p.steps,
                steps=p.total_steps,
                rate=p.rate,
                distortion=p.distortion,
            )
        )


def summary(outcome: Outcome) -> str:
    """One sentence on how the members ended."""
    ended = {point["member"]: point["status"] for point in outcome.points}
    diverged, failed = sum(status != "ok" for status in ended.values()), len(outcome.failed)
    count = len(ended) + failed
    said = f"{count} member{'' if count == 1 else 's'}, {f'{diverged} of them diverged' if diverged else 'none diverged'}"
    said += f", {failed} failed and will be tried again by the same command" if failed else ""
    found = count - failed - outcome.trained
    return said + (f" ({found} found done)" if found > 0 else "")
