"""A sweep: what a plan asks for, trained part by part into a run directory, and taken up again where it was left."""

import contextlib
import dataclasses
import functools
import math
import pathlib
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

from rd_elbo import disk, grid, memory, population, records, train
from rd_elbo.checkpoint import Report
from rd_elbo.errors import BadInput, Failed
from rd_elbo.evaluate import POINT_COLUMNS, Point
from rd_elbo.hosts import Claims, Hosts, await_content
from rd_elbo.meter import Meter, Stop
from rd_elbo.parts import Finished, Store
from rd_elbo.planning import Plan
from rd_elbo.strategy import Planner
from rd_elbo.watch import Listener, Recorder, Status
from rd_elbo.worker import Worker

# How often the points there are so far are written.
_PARTIAL_SECONDS = 10.0
# How long process 0, whose end is the others' end, waits for them to save.
_LAST_WORDS = 15.0
_ALONE = Hosts()


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
    hosts: Hosts = _ALONE,
    writer: Callable[..., Any] | None = None,
    replay: str | pathlib.Path | None = None,
) -> Outcome:
    """Trains and evaluates every member that is not done yet and fills the run directory, except for its figures.

    However often it is interrupted and run again, the tables are to the last bit those of a run that was not, on the same devices
    and with the same strategy: one that is measured may be another where no choice was on record yet.

    Args:
      plan: What to do.
      workdir: The run directory; see `records` and `parts`.
      listener: Told now and then how far the sweep is.
      overwrite: Whether to begin anew, and remove what a run has left in `workdir`.
      stop: Asked now and then whether to save and stop.
      report: Told, in a sentence, of what went wrong and how it was got round.
      note: Told, in a sentence, how each part is run.
      hosts: The processes that share the sweep, all of which call this with equal plans and a folder that all of them see.
      writer: What writes event files for TensorBoard, see `live.event_writer`; None writes none.
      replay: Another run directory: members are divided and run as they were there, so that the numbers are the same to the last
        bit on the same devices.

    Returns:
      The points, and members that failed: those are tried again by the next run.

    Raises:
      BadInput: If `workdir` may not be used; nothing has been trained or written then.
      train.Stopped: If `stop` said so; what was done is saved.
      Failed: If a device stops working, what process 0 has written is not seen here, or a finished part is damaged meanwhile.
      OSError: If what was trained cannot be written.
    """
    workdir, replay = pathlib.Path(workdir), pathlib.Path(replay) if replay else None
    claims = Claims(workdir, hosts)

    def stopping() -> bool:
        return (stop is not None and stop()) or claims.stopping()

    with contextlib.ExitStack() as held:
        try:
            population.make_mesh(plan.execution.devices)
            if hosts.index == 0:
                records.check_run(workdir, plan.config, overwrite, _bound)
                if replay and overwrite and workdir.resolve() == replay.resolve():
                    raise BadInput(f"replay={str(replay)!r} is what --overwrite would remove; give one of them")
                if replay:
                    Store(workdir, plan.identity, plan.division).check_replay(replay)
                held.enter_context(records.locked(workdir))
        except BaseException:
            hosts.agree(False)
            raise
        try:
            if hosts.index:
                return _assist(plan, workdir, stopping, report, note, claims, writer)
            return _lead(plan, workdir, listener, overwrite, stopping, report, note, claims, writer, replay)
        except BaseException:
            # Who dies takes the others along; they should save before.
            claims.stop()
            claims.await_stops(_LAST_WORDS if hosts.index == 0 else 0.0)
            raise


def _lead(
    plan: Plan,
    workdir: pathlib.Path,
    listener: Listener | None,
    overwrite: bool,
    stop: Stop,
    report: Report,
    note: Report,
    claims: Claims,
    writer: Callable[..., Any] | None,
    replay: pathlib.Path | None,
) -> Outcome:
    """What process 0 does: it plans, works like the others, and writes the tables."""
    began, recorder = time.perf_counter(), Recorder(workdir)
    store, agreed, begun = Store(workdir, plan.identity, plan.division, report), False, False
    try:
        # Before anything is removed: files of the same name and other content make another study, too.
        done = {} if overwrite else store.finished()
        records.open_run(workdir, plan.config, overwrite, _bound)
        if replay:
            store.replay(replay)
        share = functools.partial(_balanced, plan, store, claims.hosts.count)
        pending = store.pending(plan.members, done, plan.divide, share, claims.hosts.count)
        claims.open()
        meter = Meter(plan, pending, done, _both(recorder, listener), stop)
        missing = sum(len(part.members) for part in pending)
        recorder.write("running", members=len(plan.members), members_done=meter.members_done, diverged=meter.diverged)
        _write_members(workdir, plan.members, done, {})
        most, digest = _most(claims.hosts), bytes.fromhex(disk.sha256(workdir / "plan.json"))
        agreed = True
        fine, _ = claims.hosts.agree(True, digest)
        if not fine:
            raise BadInput("another process cannot begin; it says why")
        written, begun = -math.inf, True

        def kept() -> None:
            nonlocal written
            if time.monotonic() - written >= _PARTIAL_SECONDS:
                _write_points(workdir / "points.partial.csv", plan, done)
                written = time.monotonic()

        planner = Planner(plan.dataset, plan.splits, plan.execution, most, stop)
        failed = Worker(plan, store, planner, claims, meter, note, writer, kept).work(pending, done)
        points = _write_tables(plan, workdir, store, done, failed)
        own = {done[member.name].name: done[member.name] for member in plan.members if member.name in done}.values()
        spent = ("preparing", "training", "compiling", "evaluating")
        seconds = {key: sum(part.seconds.get(key, 0.0) for part in own) for key in spent}
        seconds["total"] = time.perf_counter() - began
        about_data = {**store.identity["data"], "origin": plan.dataset.origin}
        about = records.provenance(about_data, sys.argv, seconds) | {"processes": claims.hosts.count}
        about["tables"] = {name: disk.sha256(workdir / name) for name in ("points.csv", "metrics.csv")}
        disk.write_json(workdir / "provenance.json", about)
        ended = {"members": len(plan.members), "members_done": meter.members_done, "diverged": meter.diverged}
        recorder.write("finished", **ended, failed=len(failed))
        claims.end()
        return Outcome(points, failed, missing - len(failed))
    except BaseException as error:
        if not agreed:
            claims.hosts.agree(False)
        if begun or not isinstance(error, BadInput):
            recorder.write("stopped" if isinstance(error, train.Stopped | KeyboardInterrupt) else "failed")
        if begun and isinstance(error, BadInput):
            raise Failed(str(error)) from error
        raise


def _assist(
    plan: Plan, workdir: pathlib.Path, stop: Stop, report: Report, note: Report, claims: Claims, writer: Callable[..., Any] | None
) -> Outcome:
    """What the other processes do: they work on parts that process 0 has planned, until there are none."""
    most = _most(claims.hosts)
    fine, digest = claims.hosts.agree(True)
    if not fine:
        raise BadInput("another process cannot begin; it says why")
    try:
        await_content(workdir / "plan.json", digest)
    except BadInput as error:
        raise Failed(str(error)) from error
    store, recorder = Store(workdir, plan.identity, plan.division, report), Recorder(workdir, claims.hosts.index)
    pending = _largest_first(plan, store.planned(plan.members))
    meter, done = Meter(plan, pending, {}, recorder, stop), dict[str, Finished]()
    planner = Planner(plan.dataset, plan.splits, plan.execution, most, stop)
    failed = Worker(plan, store, planner, claims, meter, note, writer).work(pending, done)
    recorder.write("finished", members=len(plan.members), members_done=meter.members_done, diverged=meter.diverged)
    if not claims.await_end():
        raise train.Stopped("while process 0 wrote the tables")
    points = [point for member in plan.members if member.name in done for point in done[member.name].of(member.name)]
    return Outcome(points, failed, meter.members_done)


def _most(hosts: Hosts) -> int | None:
    """Memory that this process may take, where it is not alone on its host; asked before any of them takes some."""
    return int(memory.SHARE * memory.free_host_memory() / hosts.neighbours) if hosts.neighbours > 1 else None


def _both(first: Listener, second: Listener | None) -> Listener:
    def tell(status: Status) -> None:
        first(status)
        if second:
            second(status)

    return tell


def _largest_first(plan: Plan, pending: Sequence[grid.Group]) -> list[grid.Group]:
    """In an order in which processes that take one after another end at about the same time."""
    return sorted(pending, key=lambda part: -sum(plan.work(part)))


def _balanced(plan: Plan, store: Store, processes: int, pending: Sequence[grid.Group], fixed: Set[str]) -> list[grid.Group]:
    """Parts of which none is more than a process's share of the work, unless it is fixed or its size was asked for."""
    if processes == 1:
        return list(pending)
    share = sum(sum(plan.work(part)) for part in pending) / processes
    balanced: list[grid.Group] = []
    for part in pending:
        pieces = max(1, math.ceil(sum(plan.work(part)) / share - 1e-6))
        divisible = plan.execution.members is None and store.name(part) not in fixed
        balanced += train.chunks(part, -(-len(part.members) // pieces) if divisible else None)
    return _largest_first(plan, balanced)


def _write_tables(
    plan: Plan, workdir: pathlib.Path, store: Store, done: Mapping[str, Finished], failed: Mapping[str, str]
) -> list[Point]:
    """Writes the tables, and removes what was kept to go on from; returns the points."""
    points = _write_points(workdir / "points.csv", plan, done)
    _write_metrics(workdir / "metrics.csv", plan, store, done)
    _write_members(workdir, plan.members, done, failed)
    (workdir / "points.partial.csv").unlink(missing_ok=True)
    # States of parts outside this grid wait for a larger one.
    for name in {part.name for part in done.values()}:
        shutil.rmtree(workdir / "checkpoints" / name, ignore_errors=True)
    with contextlib.suppress(OSError):
        (workdir / "checkpoints").rmdir()
    for folder in ("live", "attempts"):
        shutil.rmtree(workdir / folder, ignore_errors=True)
    return points


def _bound(config: Mapping[str, Any]) -> dict[str, Any]:
    """What may not change in a run directory; grids may."""
    population = config.get("population")
    dtype = population.get("dtype") if isinstance(population, Mapping) else None
    return {"name": config.get("name"), "data": config.get("data"), "population": {"dtype": dtype}}


def _write_points(path: pathlib.Path, plan: Plan, done: Mapping[str, Finished]) -> list[Point]:
    """Writes the points there are, in the order of the grid, split by split."""
    rows = [point for member in plan.members if member.name in done for point in done[member.name].of(member.name)]
    rows.sort(key=lambda point: plan.splits.index(point["split"]))
    disk.write_table(path, POINT_COLUMNS, rows)
    return rows


def _write_metrics(path: pathlib.Path, plan: Plan, store: Store, done: Mapping[str, Finished]) -> None:
    wanted = {member.name for member in plan.members}
    own = {done[member.name].name: done[member.name] for member in plan.members if member.name in done}
    rows = (
        row
        for part in own.values()
        for row in store.metrics(part)
        if row["member"] in wanted and done[row["member"]].name == part.name
    )
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


def summary(outcome: Outcome) -> str:
    """One sentence on how the members ended."""
    ended = {point["member"]: point["status"] for point in outcome.points}
    diverged, failed = sum(status != "ok" for status in ended.values()), len(outcome.failed)
    count = len(ended) + failed
    said = f"{count} member{'' if count == 1 else 's'}, {f'{diverged} of them diverged' if diverged else 'none diverged'}"
    said += f", {failed} failed and will be tried again by the same command" if failed else ""
    found = count - failed - outcome.trained
    return said + (f" ({found} found done)" if found > 0 else "")
