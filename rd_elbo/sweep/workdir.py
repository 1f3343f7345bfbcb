"""The run directory: what is written where. Files appear whole or not at all.

    config.json                the configuration as given
    members.csv                a row per member, and how it ended
    points.csv                 a row per member and split
    metrics.csv                what training saw, every so many steps
    provenance.json            versions, device, revision, data checksum, times, of each chunk too
    chunks/<chunk>.json        a finished chunk: points, provenance, SHA-256 of what follows
    params/<member>.msgpack    trained parameters of a member, at its own widths
    metrics/<chunk>.csv        the chunk's part of metrics.csv; while it trains, as far as it is
    checkpoints/<chunk>/       states of a chunk in training, see `training.checkpoint`
    checkpoints/<chunk>.json   how its attempts went: killed, halved, failed

A member is known by what it is and what it is trained on, not by its place in a grid: a larger grid
finds here what a smaller one left. What is damaged is named and trained again.
"""

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import json
import pathlib
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from rd_elbo import disk
from rd_elbo.errors import BadInput
from rd_elbo.sweep import metrics as metric_files
from rd_elbo.sweep.grid import FIELDS, Group, Member
from rd_elbo.sweep.shard import Shard
from rd_elbo.tables import POINT_COLUMNS, Point, params_path
from rd_elbo.training.checkpoint import Checkpoints
from rd_elbo.training.state import Metrics

Report = Callable[[str], None]
MEMBER_COLUMNS = ("member", "family", "chunk", "status", *FIELDS)
_FOLDERS = ("chunks", "params", "metrics", "checkpoints", "figures")
# What is made of what was trained, and that; patterns of all that runs write, and of nothing else.
_TABLES = (
    *("points.csv", "metrics.csv", "members.csv", "comparison.csv", "gallery.csv", "gallery.npz"),
    *("optimum.csv", "phase_diagram.csv", "curves.csv", "models.npz", "summary.json"),
    *("provenance.json", "figures/*.png", "figures/*.pdf"),
)
_TRAINED = ("chunks/*.json", "params/*.msgpack", "metrics/*.csv", "checkpoints/*", "tensorboard/*")
# Run directories of 0.1.0 hold one of these.
_OF_OLD = ("plan.json", "parts")
# What a kill leaves of a file that was being written, see `disk.write_whole`.
_LEFT_OVER = re.compile(r"\..+\.(csv|json|npz|msgpack|png|pdf)\.[a-z0-9_]{8}")


@dataclasses.dataclass(frozen=True)
class Finished:
    """Members that were trained and evaluated together.

    Attributes:
      name: Of the chunk.
      members: Their names.
      points: Their rows of points.csv.
      version: Of the code that trained them, see `provenance.version`.
      provenance: Device, revision, times and the like.
    """

    name: str
    members: list[str]
    points: list[Point]
    version: str
    provenance: dict[str, Any]

    def of(self, member: str) -> list[Point]:
        """The rows of one member."""
        return self._rows[member]

    @functools.cached_property
    def _rows(self) -> dict[str, list[Point]]:
        rows: dict[str, list[Point]] = {member: [] for member in self.members}
        for point in self.points:
            rows[point["member"]].append(point)
        return rows


@dataclasses.dataclass(frozen=True)
class Attempt:
    """How the attempts at a chunk that is not finished went.

    Attributes:
      step: Newest checkpoint when the last attempt began.
      running: Whether that attempt has come to no end of its own.
      kills: Attempts in a row that were killed before a further checkpoint.
      halved: Whether it is trained in two halves.
      error: Why it failed.
    """

    step: int = 0
    running: bool = False
    kills: int = 0
    halved: bool = False
    error: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Workdir:
    """The run directory of a sweep.

    Attributes:
      path: The folder.
      identity: What all members have in common beside what they are, as JSON.
      version: Of the code that is running.
      exclusive: Whether no other process may be writing there.
      report: Told, in a sentence, of damage.
    """

    path: pathlib.Path
    identity: Mapping[str, Any]
    version: str
    exclusive: bool = True
    report: Report = lambda _: None

    def name(self, chunk: Group) -> str:
        """A short name that depends on the chunk's members and on `identity`."""
        return disk.digest([self.identity, [member.name for member in chunk.members]])[:12]

    def checkpoints(self, chunk: Group, seconds: float) -> Checkpoints:
        """States of the chunk while it is trained."""
        name = self.name(chunk)
        identity = {"chunk": name, "version": self.version}
        folder = self.path / "checkpoints" / name
        return Checkpoints(folder, identity, seconds, report=self.report)

    def attempt(self, chunk: Group) -> Attempt:
        """How the attempts at the chunk went."""
        try:
            return Attempt(**json.loads(self._attempt(chunk).read_text()))
        except disk.DAMAGE:
            return Attempt()

    def mark(self, chunk: Group, attempt: Attempt) -> None:
        """Record how the attempts at the chunk went."""
        with contextlib.suppress(OSError):  # a full disk is told of elsewhere
            disk.write_json(self._attempt(chunk), dataclasses.asdict(attempt))

    def keep(
        self, chunk: Group, finished: Finished, params: Mapping[str, str], seen: Metrics
    ) -> None:
        """Save a finished chunk: its metrics, then the record that says that all is there.

        Args:
          chunk: The chunk.
          finished: Its record.
          params: Member -> SHA-256 of its parameters, see `save_params`.
          seen: Metrics of training.
        """
        steps = [finished.of(name)[0]["steps"] for name in finished.members]
        text = [",".join(metric_files.COLUMNS) + "\n"]
        text += metric_files.lines(finished.members, seen, steps)
        content = "".join(text).encode()
        disk.write_whole(self.metrics_path(finished.name), lambda file: file.write(content))
        digests = {"params": dict(params), "metrics": hashlib.sha256(content).hexdigest()}
        record = {"identity": self.identity, **dataclasses.asdict(finished), **digests}
        sealed = json.dumps({"content": record, "sha256": disk.digest(record)}).encode()
        disk.write_whole(self._record(finished.name), lambda file: file.write(sealed))
        self.checkpoints(chunk, 0.0).clear()
        self._attempt(chunk).unlink(missing_ok=True)

    def finished(self, quiet: bool = False) -> dict[str, Finished]:
        """Member -> the sound chunk that it is in; damage is reported, unless `quiet`.

        Raises:
          BadInput: If the directory holds a chunk of another study.
          OSError: If a file cannot be read for a reason that may pass.
        """
        found: dict[str, Finished] = {}
        harmed: dict[pathlib.Path, tuple[list[str], str]] = {}
        for path in sorted((self.path / "chunks").glob("*.json")):
            try:
                record = _unsealed(path)
            except disk.DAMAGE as error:
                # Hours of work are not thrown away for a network file system's bad minute.
                if disk.passing(error):
                    raise
                harmed[path] = [], f"{str(path)!r} is damaged ({disk.gist(error)})"
                continue
            difference = disk.difference(record.pop("identity"), _plain(self.identity))
            if difference:
                raise BadInput(
                    f"{str(path)!r} is of another study ({difference}); choose another folder, or "
                    "give --overwrite"
                )
            params, digest = record.pop("params"), record.pop("metrics")
            chunk = Finished(**record)
            lost = [n for n, sha in params.items() if not _holds(params_path(self.path, n), sha)]
            if lost:
                harmed[path] = lost, f"parameters of {', '.join(lost)} are missing or damaged"
            elif not _holds(self.metrics_path(chunk.name), digest):
                harmed[path] = (
                    chunk.members,
                    f"metrics of chunk {chunk.name} are missing or damaged",
                )
            else:
                current = chunk.version == self.version
                new = {n: chunk for n in chunk.members if current or n not in found}
                found |= new
        for path, (lost, sentence) in harmed.items():
            # Members that were trained anew in other company have other parameters.
            if not lost or not all(name in found for name in lost):
                if not quiet:
                    self.report(f"{sentence}; its members are trained again")
                if self.exclusive:
                    path.unlink()
        return found

    def metrics_path(self, chunk: str) -> pathlib.Path:
        """Metrics of a chunk."""
        return self.path / "metrics" / f"{chunk}.csv"

    def _record(self, chunk: str) -> pathlib.Path:
        return self.path / "chunks" / f"{chunk}.json"

    def _attempt(self, chunk: Group) -> pathlib.Path:
        return self.path / "checkpoints" / f"{self.name(chunk)}.json"

    def write_points(
        self, members: Sequence[Member], done: Mapping[str, Finished], splits: Sequence[str]
    ) -> list[Point]:
        """Write points.csv, in the order of the grid, split by split; returns its rows."""
        rows = [
            point | {"version": done[member.name].version}
            for member in members
            if member.name in done
            for point in done[member.name].of(member.name)
        ]
        rows.sort(key=lambda point: splits.index(point["split"]))
        disk.write_table(self.path / "points.csv", POINT_COLUMNS, rows)
        return rows

    def write_metrics(self, members: Sequence[Member], done: Mapping[str, Finished]) -> None:
        """Write metrics.csv: what the chunks' files say of these members."""
        wanted = {member.name: done[member.name].name for member in members if member.name in done}

        def write(file: Any) -> None:
            file.write((",".join(metric_files.COLUMNS) + "\n").encode())
            for chunk in dict.fromkeys(wanted.values()):
                with self.metrics_path(chunk).open("rb") as part:
                    next(part)
                    for line in part:
                        if wanted.get(line.partition(b",")[0].decode()) == chunk:
                            file.write(line)

        disk.write_whole(self.path / "metrics.csv", write)

    def write_members(
        self, members: Sequence[Member], done: Mapping[str, Finished], failed: Mapping[str, str]
    ) -> None:
        """Write members.csv: what each member is, and how it ended."""

        def row(member: Member) -> dict[str, Any]:
            chunk, status = "", "to be trained"
            if member.name in failed:
                status = f"failed: {failed[member.name]}"
            elif member.name in done:
                chunk = done[member.name].name
                status = done[member.name].of(member.name)[0]["status"]
            own = {"member": member.name, "family": member.family, "chunk": chunk, "status": status}
            return own | dataclasses.asdict(member)

        disk.write_table(self.path / "members.csv", MEMBER_COLUMNS, map(row, members))


def open_run(
    workdir: pathlib.Path,
    config: Mapping[str, Any],
    overwrite: bool = False,
    bound: Callable[[Mapping[str, Any]], Any] = lambda config: config,
    exclusive: bool = True,
) -> None:
    """Record the configuration in `workdir`, if it may hold that run.

    Args:
      workdir: The run directory.
      config: The configuration.
      overwrite: Whether to remove what a run has left, and begin anew.
      bound: The part of a configuration that a run directory is bound to; by default all of it.
        A configuration that differs elsewhere replaces tables and pictures, not what was trained.
      exclusive: Whether no other process may be writing there; otherwise nothing is removed.

    Raises:
      BadInput: If the folder holds another run or something else, or cannot be written to.
    """
    given = _plain(config)
    try:
        before = _recorded(workdir, given, overwrite, bound)
        workdir.mkdir(parents=True, exist_ok=True)
        if exclusive:
            for folder in (workdir, *(workdir / name for name in _FOLDERS)):
                _remove(path for path in folder.glob(".*") if _LEFT_OVER.fullmatch(path.name))
            stale = (*_TABLES, *_TRAINED) if overwrite else _TABLES if before != given else ()
            _remove(path for pattern in stale for path in workdir.glob(pattern))
        if before != given:
            disk.write_json(workdir / "config.json", given)
    except OSError as error:
        raise BadInput(
            f"workdir={str(workdir)!r} cannot be written to ({error.strerror})"
        ) from error


def _recorded(
    workdir: pathlib.Path, config: Any, overwrite: bool, bound: Callable[[Mapping[str, Any]], Any]
) -> Any:
    """The configuration that `workdir` holds, or None; raises `BadInput` if it may not be used."""
    where = f"workdir={str(workdir)!r}"
    if workdir.exists() and not workdir.is_dir():
        raise BadInput(f"{where} is a file; it must be a folder, new or of the same run")
    for name in _OF_OLD:
        if (workdir / name).exists():
            raise BadInput(
                f"{where}: expected a new folder or a run of this release, got a run of 0.1.0 "
                f"({name}). Choose another folder; its tables stay readable."
            )
    # They are written to when the first members have been trained, which is late to find out.
    for folder in _FOLDERS:
        if (workdir / folder).exists() and not (workdir / folder).is_dir():
            raise BadInput(f"{where} holds a file {folder!r} where a run has a folder")
    if overwrite:
        return None
    if not (workdir / "config.json").exists():
        if workdir.is_dir() and any(not _passes(path.name) for path in workdir.iterdir()):
            raise BadInput(
                f"{where} holds files but no run; choose another folder, or give --overwrite"
            )
        return None
    try:
        before = json.loads((workdir / "config.json").read_text())
        difference = disk.difference(bound(before), bound(config))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        known = isinstance(error, OSError | ValueError)
        why = disk.gist(error) if known else "it is no configuration"
        raise BadInput(
            f"{where} holds a config.json that cannot be read ({why}); give --overwrite"
        ) from error
    if difference:
        raise BadInput(
            f"{where} already holds a different run ({difference}); choose another folder, or give "
            "--overwrite to replace it"
        )
    return before


@contextlib.contextmanager
def locked(workdir: pathlib.Path, shard: Shard | None = None) -> Iterator[None]:
    """Keep other processes of this machine out of a run directory; a process that dies lets go.

    Shards keep out a process that trains everything, and a second process of the same shard.

    Raises:
      BadInput: If another process is at work there, or the folder cannot be written to.
    """
    alone = shard is None or shard.count == 1
    locks = [(".lock", fcntl.LOCK_EX if alone else fcntl.LOCK_SH)]
    if shard and not alone:
        locks.append((f".lock.{shard.index}of{shard.count}", fcntl.LOCK_EX))
    with contextlib.ExitStack() as held:
        for name, kind in locks:
            try:
                workdir.mkdir(parents=True, exist_ok=True)
                file = held.enter_context((workdir / name).open("w"))
                fcntl.flock(file, kind | fcntl.LOCK_NB)
            except BlockingIOError as error:
                what = "" if alone else f" on shard {shard}"
                raise BadInput(
                    f"workdir={str(workdir)!r} is in use: another process is at work there{what}"
                ) from error
            except OSError as error:
                if not (workdir / name).exists():
                    raise BadInput(
                        f"workdir={str(workdir)!r} cannot be written to ({error.strerror})"
                    ) from error
                # Some network file systems have no locks.
        yield


def _passes(name: str) -> bool:
    return name.startswith(".lock") or bool(_LEFT_OVER.fullmatch(name))


def _remove(paths: Iterable[pathlib.Path]) -> None:
    for path in list(paths):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _plain(content: Any) -> Any:
    """Content as JSON gives it back."""
    return json.loads(json.dumps(content))


def _unsealed(path: pathlib.Path) -> dict[str, Any]:
    """The content of a record, once it is found sound; raises what damage raises."""
    sealed = json.loads(path.read_text())
    if disk.digest(sealed["content"]) != sealed["sha256"]:
        raise ValueError("its content has changed")
    if sealed["content"]["name"] != path.stem:
        raise ValueError(f"it is the chunk {sealed['content']['name']}")
    return dict(sealed["content"])


def _holds(path: pathlib.Path, digest: str) -> bool:
    try:
        return disk.sha256(path) == digest
    except OSError as error:
        if disk.passing(error):
            raise
        return False
