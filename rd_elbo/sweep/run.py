"""A sweep: config -> members -> groups -> chunks -> fit -> evaluate -> save -> tables.

`config.load` reads the configuration and the data; `Plan.chunks` divides the grid. Here each chunk
that is not finished is trained, evaluated and saved, one after another, and tables are written. On
a global mesh every process does the same, and process 0 writes.
"""

import contextlib
import dataclasses
import json
import math
import pathlib
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from rd_elbo import disk, provenance, tables
from rd_elbo.errors import BadInput, Failed
from rd_elbo.host import Stop
from rd_elbo.sweep import memory
from rd_elbo.sweep import shard as shards
from rd_elbo.sweep.config import Plan
from rd_elbo.sweep.grid import Group
from rd_elbo.sweep.metrics import MetricWriter
from rd_elbo.sweep.shard import Shard
from rd_elbo.sweep.workdir import Attempt, Finished, Workdir, locked, open_run
from rd_elbo.tables import Point
from rd_elbo.training import fit as fitting
from rd_elbo.training.fit import Progress, Stopped
from rd_elbo.training.sharding import agree, make_mesh
from rd_elbo.training.state import HParams, Metrics

Report = Callable[[str], None]
# Attempts at a chunk that may be killed before a further checkpoint, until it is halved.
_KILLS = 2
_OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "Out of memory", "out of memory")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a sweep ended.

    Attributes:
      points: The rows of points.csv.
      failed: Members that could not be trained -> why.
      missing: Shard -> its members that are neither trained nor failed.
      written: Whether the tables are written.
    """

    points: list[Point]
    failed: dict[str, str]
    missing: dict[int, int]
    written: bool


def run(
    plan: Plan,
    path: str | pathlib.Path,
    *,
    shard: Shard | None = None,
    overwrite: bool = False,
    retrain_stale: bool = False,
    collect: bool = False,
    stop: Stop | None = None,
    report: Report = lambda _: None,
    progress: Callable[[float, str], None] = lambda *_: None,
    tensorboard: bool = False,
) -> Outcome:
    """Train and evaluate every member that is not finished, and fill the run directory.

    However often it is interrupted and run again, the tables are to the last bit those of a run
    that was not, on the same devices and in the same chunks.

    Args:
      plan: What to do, see `config.load`.
      path: The run directory, see `workdir`.
      shard: This process's share; None means all. Shards share the folder and nothing else.
      overwrite: Whether to begin anew, and remove what a run has left there.
      retrain_stale: Whether members that another version has trained are trained again.
      collect: Whether to write tables of what is there, and train nothing.
      stop: Asked now and then whether to save and stop.
      report: Told, in a sentence, of what goes wrong and how it is got round.
      progress: Told the part of the work that is done, and what is being done.
      tensorboard: Whether to write event files too.

    Returns:
      The points and what is missing. Members that failed are tried again by the next run.

    Raises:
      BadInput: If the folder may not be used; nothing has been trained or written then.
      training.fit.Stopped: If `stop` said so; what was done is saved.
      Failed: If other processes of a global mesh do not come.
      OSError: If what was trained cannot be written.
    """
    shard, stop = shard or Shard(), stop or Stop()
    folder = Workdir(
        pathlib.Path(path), plan.identity, provenance.version(), shard.count == 1, report
    )
    with _opened(folder, plan, shard, overwrite, collect):
        done = folder.finished()
        _agree_on("chunks that are finished", sorted(done))
        wanted = _current(folder, plan, done, retrain_stale)
        chunks = plan.chunks()
        owners = shards.owners([sum(plan.work(chunk)) for chunk in chunks], shard.count)
        sweep = _Sweep(plan, folder, done, stop, report, progress, tensorboard)
        if not collect:
            own = [c for c, owner in zip(chunks, owners, strict=True) if owner == shard.index]
            sweep.train([part for chunk in own for part in _unfinished(chunk, wanted)])
        return _tables(plan, folder, sweep, chunks, owners, shard, collect)


@contextlib.contextmanager
def _opened(
    folder: Workdir, plan: Plan, shard: Shard, overwrite: bool, collect: bool
) -> Iterator[None]:
    """The run directory, open and locked by process 0 while the others wait."""
    with contextlib.ExitStack() as held:
        word = b"ready"
        try:
            make_mesh(plan.population.devices)
            if overwrite and (shard.count > 1 or collect):
                raise BadInput("overwrite=True: expected one process that trains everything.")
            if jax.process_index() == 0 and not collect:
                held.enter_context(locked(folder.path, shard))
                open_run(folder.path, plan.config, overwrite, _bound, folder.exclusive)
        except BaseException:
            word = b"cannot begin"
            raise
        finally:
            words = agree("begin", word, report=folder.report)
        if b"cannot begin" in words:
            raise BadInput("another process cannot begin; it says why")
        yield


def _bound(config: Any) -> dict[str, Any]:
    """What may not change in a run directory; grids may."""
    given = config.get("population") or {}
    own = ("dtype", "compute_dtype", "precision")
    arithmetic = {name: given.get(name) for name in own}
    return {"name": config.get("name"), "data": config.get("data"), "population": arithmetic}


def _current(
    folder: Workdir, plan: Plan, done: dict[str, Finished], retrain_stale: bool
) -> set[str]:
    """Members that need not be trained; says so if another version has trained some."""
    versions = {m.name: done[m.name].version for m in plan.members if m.name in done}
    stale = sorted({version for version in versions.values() if version != folder.version})
    if stale:
        count = sum(version != folder.version for version in versions.values())
        what = "are trained again" if retrain_stale else "keep their rows, see the column version"
        advice = "" if retrain_stale else "; --retrain=stale trains them again"
        folder.report(
            f"{count} of {len(plan.members)} members were trained by {', '.join(stale)}, and this "
            f"is {folder.version}: they {what}{advice}"
        )
    return {
        name for name, version in versions.items() if not retrain_stale or version == folder.version
    }


def _unfinished(chunk: Group, finished: set[str]) -> list[Group]:
    """What is left of a chunk: none of it, or the members that are missing."""
    missing = tuple(member for member in chunk.members if member.name not in finished)
    return [Group(missing)] if missing else []


@dataclasses.dataclass(eq=False)
class _Sweep:
    """Trains chunks one after another.

    Attributes:
      done: Member -> the finished chunk that it is in; grows.
      failed: Member -> why it could not be trained.
    """

    plan: Plan
    folder: Workdir
    done: dict[str, Finished]
    stop: Stop
    report: Report
    progress: Callable[[float, str], None]
    tensorboard: bool
    failed: dict[str, str] = dataclasses.field(default_factory=dict)

    def train(self, chunks: Sequence[Group]) -> None:
        """Train, evaluate and save chunks; halves in place of those that do not fit."""
        self._tasks = agree("hosts", platform.node().encode()).count(platform.node().encode())
        self._whole, self._finished = sum(sum(self.plan.work(c)) for c in chunks), 0.0
        ahead = list(chunks)
        while ahead:
            if any(word == b"stop" for word in agree("stop", b"stop" if self.stop() else b"")):
                raise Stopped("between two chunks")
            chunk = ahead.pop(0)
            before = self._finished
            halves = self._complete(chunk)
            ahead[:0] = halves
            self._finished = before if halves else before + sum(self.plan.work(chunk))

    def _complete(self, chunk: Group) -> list[Group]:
        """Complete one chunk; returns its halves if it does not fit."""
        attempt = self._begin(chunk)
        size = math.ceil(len(chunk.members) / 2)
        try:
            if attempt.halved:
                return chunk.split(size)
            if reason := self._too_large(chunk, attempt):
                raise MemoryError(reason)
            finished = self._fit_and_evaluate(chunk)
            self.done |= dict.fromkeys(finished.members, finished)
        except (Stopped, OSError, KeyboardInterrupt):
            self._end(chunk, dataclasses.replace(attempt, running=False))
            raise
        except Exception as error:
            # On a global mesh the others cannot know; the process ends, and they do.
            if jax.process_count() > 1 and not isinstance(error, MemoryError):
                raise
            reason = disk.gist(error)
            if _out_of_memory(error) and len(chunk.members) > 1:
                self.report(
                    f"{len(chunk.members)} members do not fit together ({reason}); they are "
                    "trained in two halves"
                )
                self.folder.checkpoints(chunk, 0.0).clear()
                self._end(chunk, Attempt(halved=True))
                return chunk.split(size)
            self.report(f"{_described(chunk)} failed ({reason})")
            self.failed |= {member.name: reason for member in chunk.members}
            self._end(chunk, Attempt(error=reason))
        return []

    def _begin(self, chunk: Group) -> Attempt:
        """Count an attempt that was killed before it came to a further checkpoint."""
        before = self.folder.attempt(chunk)
        _agree_on("attempts", dataclasses.asdict(before))
        step = self.folder.checkpoints(chunk, 0.0).latest() or 0
        killed = before.running and step <= before.step
        kills = before.kills + 1 if killed else 0
        return Attempt(step, True, kills, before.halved)

    def _end(self, chunk: Group, attempt: Attempt) -> None:
        if jax.process_index() == 0:
            self.folder.mark(chunk, attempt)

    def _too_large(self, chunk: Group, attempt: Attempt) -> str:
        """Why the chunk does not fit, if any process thinks so; compiles it."""
        mesh = make_mesh(self.plan.population.devices, len(chunk.members))
        self._tell(0.0, f"compiling {_described(chunk)}")
        need, room = memory_of(self.plan, chunk), memory.free(mesh, self._tasks)
        reason = ""
        if attempt.kills >= _KILLS:
            reason = f"killed {attempt.kills} times before it could save a further checkpoint"
        elif need > room and len(chunk.members) > 1:
            reason = f"a device needs {_gib(need)} of {_gib(room)} GiB that are free"
        reasons = [word.decode() for word in agree("memory", reason.encode())]
        if not any(reasons):
            self._end(chunk, attempt)
        return next((word for word in reasons if word), "")

    def _fit_and_evaluate(self, chunk: Group) -> Finished:
        plan, name, began = self.plan, self.folder.name(chunk), time.time()
        spec, names = plan.spec(chunk), [member.name for member in chunk.members]
        shape, (training, evaluation) = plan.dataset.image_shape, plan.work(chunk)
        events = self.folder.path / "tensorboard" if self.tensorboard else None
        lead = jax.process_index() == 0
        writer = (
            MetricWriter(self.folder.metrics_path(name), names, self.report, events)
            if lead
            else None
        )

        def tell(seen: Progress, metrics: Metrics) -> None:
            self.stop.saves = True
            if writer:
                writer(metrics)
            done = training * seen.steps / seen.total_steps
            self._tell(
                done,
                f"step {seen.steps}/{seen.total_steps} of {_described(chunk)}, "
                f"R {seen.rate:.1f}, D {seen.distortion:.1f}",
            )

        try:
            fitted = fitting.fit(
                spec,
                [member.build(shape) for member in chunk.members],
                HParams.of(chunk.members, spec),
                plan.dataset.splits["train"],
                plan.steps(chunk),
                mesh=make_mesh(plan.population.devices, len(chunk.members)),
                metrics_every=plan.metrics_every(chunk),
                checkpoints=self.folder.checkpoints(chunk, plan.population.checkpoint_seconds),
                callback=tell,
                stop=self.stop,
            )
        finally:
            self.stop.saves = False
        trained = time.time()
        examples = sum(map(len, plan.evaluated.values()))

        evaluated = 0

        def evaluating(count: int) -> None:
            nonlocal evaluated
            evaluated += count
            self._tell(
                training + evaluation * evaluated / examples, f"evaluating {_described(chunk)}"
            )
            if self.stop() and jax.process_count() == 1:
                raise Stopped("while evaluating")

        points = tables.points(
            chunk.members, fitted, plan.evaluated, plan.population.vmap_size, evaluating
        )
        params = {}
        for i, tree in fitted.local():
            member = chunk.members[i]
            params[member.name] = tables.save_params(self.folder.path, member, tree, shape)
        for word in agree("parameters", json.dumps(params).encode()):
            params |= json.loads(word)
        seconds = {
            "training": fitted.seconds,
            "compiling": fitted.compile_seconds,
            "evaluating": time.time() - trained,
        }
        about = provenance.of_chunk(fitted.devices, began, seconds)
        finished = Finished(name, names, points, self.folder.version, about)
        if lead:
            self.folder.keep(chunk, finished, params, fitted.metrics)
        agree("saved")
        return finished

    def _tell(self, now: float, doing: str) -> None:
        self.progress((self._finished + now) / self._whole, doing)


def memory_of(plan: Plan, chunk: Group) -> int:
    """Bytes on each device that training a chunk takes; compiles it."""
    mesh = make_mesh(plan.population.devices, len(chunk.members))
    images = plan.dataset.splits["train"]
    seeds = [member.seed for member in chunk.members]
    program = fitting.compile_for(plan.spec(chunk), mesh, seeds, images.shape, images.dtype.name)
    return memory.needed(program)


def _tables(
    plan: Plan,
    folder: Workdir,
    sweep: _Sweep,
    chunks: Sequence[Group],
    owners: Sequence[int],
    shard: Shard,
    collect: bool,
) -> Outcome:
    """Write the tables, unless members of other shards are missing."""
    done = folder.finished(report=False) if shard.count > 1 else sweep.done
    failed = dict(sweep.failed)
    missing: dict[int, int] = {}
    for chunk, owner in zip(chunks, owners, strict=True):
        for part in _unfinished(chunk, {*done, *failed}):
            error = folder.attempt(part).error
            if error:
                failed |= {member.name: error for member in part.members}
            else:
                missing[owner] = missing.get(owner, 0) + len(part.members)
    written = jax.process_index() == 0 and (collect or not missing)
    points: list[Point] = []
    if written:
        points = folder.write_points(plan.members, done, list(plan.evaluated))
        folder.write_metrics(plan.members, done)
        folder.write_members(plan.members, done, failed)
        parts = {done[m.name].name: done[m.name] for m in plan.members if m.name in done}
        about = {**plan.identity["data"], "origin": plan.dataset.origin}
        seconds = {"training", "compiling", "evaluating"}
        spent = {
            k: sum(p.provenance["seconds"][k] for p in parts.values()) for k in sorted(seconds)
        }
        content = provenance.provenance(about, sys.argv, spent)
        content["tables"] = {n: disk.sha256(folder.path / n) for n in ("points.csv", "metrics.csv")}
        content["chunks"] = {
            name: p.provenance | {"version": p.version} for name, p in parts.items()
        }
        disk.write_json(folder.path / "provenance.json", content)
    return Outcome(points, failed, missing, written)


def _agree_on(what: str, content: Any) -> None:
    """Make sure that all processes of a global mesh see the same in the run directory."""
    own = disk.digest(content).encode()
    if any(word != own for word in agree(what, own)):
        raise Failed(
            f"{what}: processes see different ones; workdir must be a folder that all share"
        )


def _out_of_memory(error: Exception) -> bool:
    """Whether fewer members at once may help."""
    text = str(error)
    return isinstance(error, MemoryError) or (
        isinstance(error, jax.errors.JaxRuntimeError)
        and any(word in text for word in _OUT_OF_MEMORY)
    )


def _described(chunk: Group) -> str:
    """A chunk in a few words."""
    families = ", ".join(dict.fromkeys(member.family for member in chunk.members))
    count = len(chunk.members)
    return f"{count} member{'' if count == 1 else 's'} of {families}"


def _gib(size: int) -> str:
    return f"{size / 2**30:.2g}" if size < 10 * 2**30 else f"{size / 2**30:.0f}"
