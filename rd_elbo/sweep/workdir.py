"""The run directory: what is written where. Files appear whole or not at all.

    config.json                the configuration as given
    refined.json               members beside those of the grid, see `refined`
    members.csv                a row per member, and how it ended
    points.csv                 a row per member and split, two where it has an average
    metrics.csv                what training saw, every so many steps
    provenance.json            versions, device, revision, data checksum, times, of each chunk too
    chunks/<chunk>.json        a finished chunk: points, provenance, SHA-256 of what follows
    params/<member>.msgpack    trained parameters of a member, at its own widths
    params/<member>.ema.msgpack    their moving average, where `ema_decay` is above 0
    metrics/<chunk>.csv        the chunk's part of metrics.csv; while it trains, as far as it is
    checkpoints/<chunk>/       states of a chunk in training, see `training.checkpoint`
    checkpoints/<chunk>.json   how its attempts went: killed, halved, failed

A member is known by what it is and what it is trained on, not by its place in a grid: a larger grid
finds here what a smaller one left. What is damaged is named and trained again.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rd_elbo import aliases, disk
from rd_elbo.errors import BadInput
from rd_elbo.sweep import metrics as metric_files
from rd_elbo.sweep.folder import OTHERWISE
from rd_elbo.sweep.grid import FIELDS, Group, Member
from rd_elbo.sweep.tables import POINT_COLUMNS, Point, params_path
from rd_elbo.training.checkpoint import Checkpoints
from rd_elbo.training.state import Metrics

Report = Callable[[str], None]
MEMBER_COLUMNS = ("member", "family", "chunk", "status", *FIELDS)


@dataclasses.dataclass(frozen=True)
class Finished:
    """Members that were trained and evaluated together.

    Attributes:
      name: Name of the chunk.
      members: Names of the members.
      points: Rows of points.csv of these members.
      version: Version of the code that trained them, see `provenance.version`.
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
    """Record of the attempts at a chunk that is not finished.

    Attributes:
      step: Newest checkpoint when the last attempt began.
      running: Whether that attempt has not ended by itself.
      kills: Attempts in a row that were killed before a further checkpoint.
      halved: Whether the chunk is trained in two halves.
      error: Reason of the failure; empty without one.
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
      identity: Data and arithmetic that all members have in common, as JSON.
      version: Version of the code that is running.
      exclusive: Whether this process alone may write there.
      report: Callback with a sentence on each damage.
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
        with contextlib.suppress(OSError):  # a full disk is reported elsewhere
            disk.write_json(self._attempt(chunk), dataclasses.asdict(attempt))

    def save(
        self, chunk: Group, finished: Finished, params: Mapping[str, str], seen: Metrics
    ) -> None:
        """Save a finished chunk: its metrics, then the record that says that all is there.

        Args:
          chunk: The chunk.
          finished: Record of the chunk.
          params: Name of parameters -> SHA-256 of their file, see `tables.save_all_params`.
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
          BadInput: If the directory holds a chunk of another sweep.
          OSError: If a file cannot be read for a reason that may pass.
        """
        found: dict[str, Finished] = {}
        harmed: dict[pathlib.Path, tuple[list[str], str]] = {}
        for path in sorted((self.path / "chunks").glob("*.json")):
            try:
                record = _unsealed(path)
            except disk.DAMAGE as error:
                # A network file system's passing failure must not cost hours of training.
                if disk.passing(error):
                    raise
                harmed[path] = [], f"{str(path)!r} is damaged ({disk.gist(error)})"
                continue
            difference = disk.difference(
                record.pop("identity"), json.loads(json.dumps(self.identity))
            )
            if difference:
                raise BadInput(
                    f"workdir={str(self.path)!r}: expected a run of this sweep, got one of another "
                    f"({difference}). {OTHERWISE}"
                )
            params, digest = record.pop("params"), record.pop("metrics")
            record["points"] = [aliases.renamed(point) for point in record["points"]]
            chunk = Finished(**record)
            gone = [n for n, sha in params.items() if not _holds(params_path(self.path, n), sha)]
            if gone:
                lost = list(dict.fromkeys(name.partition(".")[0] for name in gone))
                harmed[path] = lost, f"parameters of {', '.join(gone)} are missing or damaged"
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
            # Members that were trained anew in another chunk have other parameters.
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
        rows = []
        for member in (member for member in members if member.name in done):
            chunk = done[member.name]
            for point in chunk.of(member.name):
                # Chunks of other versions may lack what had one value then.
                row = {"averaging": "none"} | point | {"version": chunk.version}
                rows.append({name: row[name] for name in POINT_COLUMNS if name in row})
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
