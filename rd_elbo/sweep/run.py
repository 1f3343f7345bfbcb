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
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any

import jax

from rd_elbo import disk
from rd_elbo.errors import BadInput, Failed
from rd_elbo.host import Stop
from rd_elbo.sweep import memory, provenance, refined, tables
from rd_elbo.sweep.config import PLACES, RD_SWEEP, Plan
from rd_elbo.sweep.folder import check_run, locked, open_run
from rd_elbo.sweep.grid import Group
from rd_elbo.sweep.metrics import MetricWriter
from rd_elbo.sweep.outcome import Outcome, concluded
from rd_elbo.sweep.shard import Shard, owners
from rd_elbo.sweep.workdir import Attempt, Finished, Report, Workdir
from rd_elbo.training import fit as training
from rd_elbo.training.sharding import agree, make_mesh
from rd_elbo.training.state import HParams, Metrics

# Attempts that may be killed before they save a further checkpoint, until the chunk is halved.
_KILLS = 2


class _TooLarge(MemoryError):
    """All processes have agreed that a chunk should be halved."""


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
    """Train and evaluate every unfinished member, and fill the run directory.

    The same call resumes after any interruption. On the same devices and in the same chunks the
    tables are those of an uninterrupted run, bit for bit. Members that `refined` has added to the
    run directory are trained and saved too.

    Args:
      plan: Members, data and settings, see `config.load`.
      path: The run directory, see `workdir`.
      shard: Share of this process; None means all. Shards have the folder in common, nothing else.
      overwrite: Whether to remove what a run has left there, and begin anew.
      retrain_stale: Whether members that another version has trained are trained again.
      collect: Whether to write tables of what is there, and train nothing.
      stop: Function that says now and then whether to save and stop.
      report: Callback with a sentence on each fault and its way round.
      progress: Callback with the part of the work done, 0 to 1, and the current activity.
      tensorboard: Whether to write event files too.

    Returns:
      The points, and what is missing. Members that failed are tried again by the next run.

    Raises:
      BadInput: If the folder may not be used; nothing has been trained or written then.
      training.fit.Stopped: If `stop` said so; what was done is saved.
      Failed: If other processes of a global mesh do not come.
      OSError: If what was trained cannot be written.
    """
    shard, stop = shard or Shard(), stop or Stop()
    alone = shard.count == 1 and jax.process_index() == 0 and not collect
    version = provenance.version()
    plan = plan if overwrite else refined.extended(plan, pathlib.Path(path))
    folder = Workdir(pathlib.Path(path), plan.identity, version, alone, report)
    with _opened(folder, plan, shard, overwrite, collect) as done:
        _agree_on("finished chunks", sorted(done))
        chunks = plan.chunks()
        owner = owners([sum(plan.work(chunk)) for chunk in chunks], shard.count)
        sweep = _Sweep(plan, folder, done, stop, progress, tensorboard)
        if not collect:
            kept = _current(plan, folder, done, retrain_stale)
            own = [c for c, i in zip(chunks, owner, strict=True) if i == shard.index]
            sweep.train([part for chunk in own for part in _rest(chunk, kept)])
        done = folder.finished(quiet=True) if shard.count > 1 else sweep.done
        failed, missing = _open_ends(folder, zip(chunks, owner, strict=True), done, sweep.failed)
        if jax.process_index() or (missing and not collect):
            return Outcome([], failed, missing, False, {})
        return concluded(plan, folder, done, failed, missing)


@contextlib.contextmanager
def _opened(
    folder: Workdir, plan: Plan, shard: Shard, overwrite: bool, collect: bool
) -> Iterator[dict[str, Finished]]:
    """Member -> finished chunk; process 0 opens and locks the folder while the others wait."""
    done: dict[str, Finished] = {}
    with contextlib.ExitStack() as held:
        word = b"cannot begin"
        try:
            make_mesh(plan.population.devices)
            if overwrite and (shard.count > 1 or collect):
                raise BadInput("overwrite=True: expected one process that trains all, got a shard.")
            if collect and not (folder.path / "config.json").exists():
                raise BadInput(
                    f"workdir={str(folder.path)!r}: expected a run to collect, got none."
                )
            if jax.process_index() == 0 and not collect:
                check_run(folder.path, plan.config, overwrite, _bound)
                held.enter_context(locked(folder.path, shard.name))
                done = {} if overwrite else folder.finished()
                open_run(folder.path, plan.config, overwrite, _bound, folder.exclusive)
            word = b"ready"
        finally:
            words = agree("begin", word, report=folder.report)
        if set(words) != {b"ready"}:
            raise BadInput(
                "processes: expected all to begin, got one that cannot. Its output says why."
            )
        yield done if folder.exclusive or overwrite else folder.finished()


def _bound(config: Mapping[str, Any]) -> dict[str, Any]:
    """What may not change in a run directory; grids may, and so may the place of the data.

    Data elsewhere that are other data have another checksum, which finished chunks record.
    """
    given = config.get("population") or {}
    arithmetic = {name: given.get(name) for name in ("dtype", "compute_dtype", "precision")}
    own = config.get("data")
    # An experiment has no section of data.
    if own is not None:
        own = {name: value for name, value in own.items() if name not in PLACES}
        if config.get("name") == RD_SWEEP:
            own.pop("binarise", None)  # earlier releases did not record it
    return {"name": config.get("name"), "data": own, "population": arithmetic}


def _current(
    plan: Plan, folder: Workdir, done: Mapping[str, Finished], retrain_stale: bool
) -> set[str]:
    """Members that need not be trained; says so if another version has trained some."""
    versions = {m.name: done[m.name].version for m in plan.members if m.name in done}
    stale = [name for name, version in versions.items() if version != folder.version]
    if stale:
        others = ", ".join(sorted({versions[name] for name in stale}))
        what = "are trained again" if retrain_stale else "keep their rows (column version)"
        folder.report(
            f"{len(stale)} of {len(plan.members)} members are of version {others}, and this is "
            f"{folder.version}; they {what}{'' if retrain_stale else '; see --retrain=stale'}"
        )
    return set(versions) - set(stale if retrain_stale else ())


def _rest(chunk: Group, finished: Set[str]) -> list[Group]:
    """The members of a chunk that are not finished, as a chunk; none if all are."""
    rest = tuple(member for member in chunk.members if member.name not in finished)
    return [Group(rest)] if rest else []


@dataclasses.dataclass(eq=False)
class _Sweep:
    """Trains chunks one after another.

    Attributes:
      done: Member -> the finished chunk that it is in; grows.
      failed: Member -> why it could not be trained; grows.
    """

    plan: Plan
    folder: Workdir
    done: dict[str, Finished]
    stop: Stop
    progress: Callable[[float, str], None]
    tensorboard: bool
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    _behind: float = 0.0
    _whole: float = 0.0

    def train(self, chunks: Sequence[Group]) -> None:
        """Train, evaluate and save chunks, halves in place of those that do not fit."""
        own = platform.node().encode()
        tasks = agree("hosts", own).count(own)
        self._whole, ahead = sum(sum(self.plan.work(chunk)) for chunk in chunks), list(chunks)
        while ahead:
            if b"stop" in agree("stop", b"stop" if self.stop() else b""):
                raise training.Stopped("between two chunks")
            chunk = ahead.pop(0)
            halves = self._complete(chunk, tasks)
            ahead[:0] = halves
            self._behind += 0 if halves else sum(self.plan.work(chunk))

    def _complete(self, chunk: Group, tasks: int) -> list[Group]:
        """Complete one chunk; returns its halves if it does not fit."""
        attempt, halves = self._begin(chunk), chunk.split(math.ceil(len(chunk.members) / 2))
        if attempt.halved:
            return halves
        stopped = dataclasses.replace(attempt, running=False)
        try:
            if reason := self._too_large(chunk, attempt, tasks):
                raise _TooLarge(reason)
            self._mark(chunk, attempt)
            # A signal is no sign of too little memory, even where the process ends at once.
            self.stop.last_words = lambda: self._mark(chunk, stopped)
            finished = self._train(chunk)
            self.done |= dict.fromkeys(finished.members, finished)
        except (training.Stopped, OSError, KeyboardInterrupt):
            self._mark(chunk, stopped)
            raise
        except Exception as error:
            # On a global mesh the others cannot know; this process ends, and they do.
            if jax.process_count() > 1 and not isinstance(error, _TooLarge):
                raise
            reason = disk.gist(error)
            if memory.ran_out(error) and len(halves) > 1:
                self.folder.checkpoints(chunk, 0.0).clear()
                self.folder.report(f"{described(chunk)} are trained in two halves ({reason})")
                self._mark(chunk, Attempt(halved=True))
                return halves
            self.folder.report(f"{described(chunk)} failed ({reason})")
            self.failed |= {member.name: reason for member in chunk.members}
            self._mark(chunk, Attempt(error=reason))
        finally:
            self.stop.last_words = None
        return []

    def _begin(self, chunk: Group) -> Attempt:
        """A further attempt; counts those killed in a row before they saved a checkpoint."""
        before = self.folder.attempt(chunk)
        _agree_on("attempts", dataclasses.asdict(before))
        step = self.folder.checkpoints(chunk, 0.0).latest() or 0
        killed = before.running and step <= before.step
        return Attempt(step, True, before.kills + 1 if killed else 0, before.halved)

    def _mark(self, chunk: Group, attempt: Attempt) -> None:
        if jax.process_index() == 0:
            self.folder.mark(chunk, attempt)

    def _too_large(self, chunk: Group, attempt: Attempt, tasks: int) -> str:
        """Why the chunk should be halved, if any process thinks so; compiles it."""
        self._report_progress(0.0, f"compiling {described(chunk)}")
        mesh = make_mesh(self.plan.population.devices, len(chunk.members))
        need, free, reason = memory_of(self.plan, chunk), memory.free(mesh, tasks), ""
        if attempt.kills >= _KILLS:
            reason = f"killed {attempt.kills} times before it saved a further checkpoint"
        elif need > free and len(chunk.members) > 1:
            reason = f"a device needs {need / 2**30:.2g} of {free / 2**30:.2g} GiB that are free"
        return max(word.decode() for word in agree("memory", reason.encode()))

    def _train(self, chunk: Group) -> Finished:
        """Fit, evaluate and save a chunk."""
        plan, folder, began = self.plan, self.folder, time.time()
        name, names = folder.name(chunk), [member.name for member in chunk.members]
        spec, shape, lead = plan.spec(chunk), plan.dataset.image_shape, jax.process_index() == 0
        fit_work, evaluation_work = plan.work(chunk)
        events = folder.path / "tensorboard" if self.tensorboard and lead else None
        writer = MetricWriter(folder.metrics_path(name), names, folder.report, events)

        def fitting(seen: training.Progress, metrics: Metrics) -> None:
            self.stop.saves = True
            if lead:
                writer(metrics)
            doing = f"step {seen.steps}/{seen.total_steps} of {described(chunk)}"
            doing += f", R {seen.rate:.1f}, D {seen.distortion:.1f}"
            self._report_progress(fit_work * seen.steps / seen.total_steps, doing)

        try:
            fitted = training.fit(
                spec,
                [member.build(shape, plan.dataset.scale) for member in chunk.members],
                HParams.of(chunk.members, spec),
                plan.dataset.splits["train"],
                plan.steps(chunk),
                mesh=make_mesh(plan.population.devices, len(chunk.members)),
                metrics_every=plan.metrics_every(chunk),
                checkpoints=folder.checkpoints(chunk, plan.population.checkpoint_seconds),
                callback=fitting,
                stop=self.stop,
            )
        finally:
            self.stop.saves = False
            writer.close()
        trained, evaluated = time.time(), 0
        whole = (1 + spec.averages) * sum(map(len, plan.evaluated.values()))

        def evaluating(examples: int) -> None:
            nonlocal evaluated
            evaluated += examples
            part = evaluation_work * evaluated / whole
            self._report_progress(fit_work + part, f"evaluating {described(chunk)}")
            if jax.process_count() == 1 and self.stop():
                raise training.Stopped("while evaluating")

        vmap_size = plan.population.vmap_size
        points = tables.points(chunk.members, fitted, plan.evaluated, vmap_size, evaluating)
        params = tables.save_all_params(folder.path, chunk.members, fitted, shape)
        for word in agree("parameters", json.dumps(params).encode()):
            params |= json.loads(word)
        seconds = {"training": fitted.seconds, "compiling": fitted.compile_seconds}
        seconds |= {"evaluating": time.time() - trained}
        about = provenance.of_chunk(fitted.devices, began, seconds)
        finished = Finished(name, names, points, folder.version, about)
        if lead:
            folder.save(chunk, finished, params, fitted.metrics)
        agree("saved")
        return finished

    def _report_progress(self, now: float, doing: str) -> None:
        self.progress((self._behind + now) / self._whole, doing)


def memory_of(plan: Plan, chunk: Group) -> int:
    """Bytes on each device that training a chunk takes; compiles it."""
    mesh = make_mesh(plan.population.devices, len(chunk.members))
    images, seeds = plan.dataset.splits["train"], [member.seed for member in chunk.members]
    program = training.compile_for(plan.spec(chunk), mesh, seeds, images.shape, images.dtype.name)
    return memory.needed(program)


def described(chunk: Group) -> str:
    """A chunk in a few words."""
    families = ", ".join(dict.fromkeys(member.family for member in chunk.members))
    return f"{len(chunk.members)} member{'' if len(chunk.members) == 1 else 's'} of {families}"


def _open_ends(
    folder: Workdir,
    owned: Iterator[tuple[Group, int]],
    done: Mapping[str, Finished],
    failed: Mapping[str, str],
) -> tuple[dict[str, str], dict[int, int]]:
    """Members that failed, here or in another shard, and the number that each shard lacks."""
    failed, missing = dict(failed), dict[int, int]()
    for chunk, owner in owned:
        for rest in _rest(chunk, {*done, *failed}):
            if error := folder.attempt(rest).error:
                failed |= {member.name: error for member in rest.members}
            else:
                missing[owner] = missing.get(owner, 0) + len(rest.members)
    return failed, missing


def _agree_on(what: str, content: Any) -> None:
    """Make sure that all processes of a global mesh see the same in the run directory."""
    if len(set(agree(what, disk.digest(content).encode()))) > 1:
        raise Failed(
            f"{what}: expected one for all processes, got several. Give a workdir that "
            "all hosts see."
        )
