"""What became of the members of a study, part by part, so that none is trained twice.

    plan.json                   all parts that were ever planned, members by name, and how they were divided
    splits/<part>.json          the parts that one of them was divided into, once it turned out not to fit
    programs/<program>.json     how members of one program are best run, see `strategy`
    parts/<part>.npz            points, metrics and times of members that were trained together, and the SHA-256 of their parameters
    params/<member>.msgpack     their parameters
    checkpoints/<part>/         states of the part in training, see `checkpoint`
    attempts/<part>.json        that the part is at work, see `attempts`

A member is known by what it is and by what it is trained on, not by its place in a grid: a larger grid finds here what a smaller
one left. What is damaged is named and trained again.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import platform
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any

import jax
import numpy as np

from rd_elbo import disk, records
from rd_elbo.checkpoint import Checkpoints, Report
from rd_elbo.errors import BadInput
from rd_elbo.evaluate import Point
from rd_elbo.grid import Group, Member
from rd_elbo.population import Metrics
from rd_elbo.strategy import Choice
from rd_elbo.train import Trained, chunks

_ABOUT = "about"
# A number of processes.
_ANY = 0


@dataclasses.dataclass(frozen=True)
class Finished:
    """Members that were trained and evaluated together.

    Attributes:
      name: Of the part.
      members: Their names.
      points: Their rows of points.csv.
      steps: Updates that each of them made.
      seconds: Wall times: preparing, training, of it compiling, evaluating.
      devices: Number of devices.
    """

    name: str
    members: tuple[str, ...]
    points: tuple[Point, ...]
    steps: tuple[int, ...]
    seconds: Mapping[str, float]
    devices: int

    def of(self, member: str) -> list[Point]:
        """The rows of one member."""
        return self._rows[member]

    @functools.cached_property
    def _rows(self) -> dict[str, list[Point]]:
        rows: dict[str, list[Point]] = {member: [] for member in self.members}
        for point in self.points:
            rows[point["member"]].append(point)
        return rows


@dataclasses.dataclass(frozen=True, eq=False)
class Store:
    """The finished parts in a run directory, and those to come.

    Attributes:
      workdir: The run directory.
      identity: What all members have in common beside what they are: the data, the splits of the points, the arithmetic. As JSON.
      division: How members are divided into parts. As JSON. Where it changes, what is not trained yet is divided anew.
      report: Told, in a sentence, of what is damaged.
      writes: Whether damaged files are removed and plans recorded; without, the directory stays as it is.
    """

    workdir: pathlib.Path
    identity: Mapping[str, Any]
    division: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    report: Report = lambda _: None
    writes: bool = True

    def name(self, part: Group) -> str:
        """A short name that depends on the members of the part and on `identity`."""
        return self._name(_names(part))

    def _name(self, names: Sequence[str]) -> str:
        return _digest([self.identity, list(names)])

    def checkpoints(self, part: Group, seconds: float) -> Checkpoints:
        """Where states of the part are kept while it is trained."""
        name = self.name(part)
        return Checkpoints(self.workdir / "checkpoints" / name, {"part": name}, seconds, report=self.report)

    def keep(
        self, part: Group, trained: Trained, points: Sequence[Point], spent: Mapping[str, float], shape: tuple[int, int]
    ) -> Finished:
        """Saves what became of a part: the parameters first, then the record that says they are there.

        Args:
          part: What was trained.
          trained: What came of it.
          points: Its rows of points.csv.
          spent: Wall times of what was done beside training.
          shape: Of an image.
        """
        digests = {}
        for i, member in enumerate(part.members):
            path = records.save_params(self.workdir, member, trained.member_params(i, shape))
            digests[member.name] = disk.sha256(path)
        seconds = {"training": trained.seconds, "compiling": trained.compile_seconds, **spent}
        members, steps = tuple(digests), tuple(int(step) for step in trained.steps)
        finished = Finished(self.name(part), members, tuple(points), steps, seconds, trained.devices)
        about = {"identity": self.identity, **dataclasses.asdict(finished), "params": digests}
        content = {_ABOUT: np.frombuffer(json.dumps(about).encode(), np.uint8), **trained.metrics._asdict()}
        disk.write_whole(self._path(finished.name), lambda file: np.savez(file, **content))
        self.checkpoints(part, 0.0).clear()
        return finished

    def finished(self) -> dict[str, Finished]:
        """Members' names and the sound part that each is in; what is damaged is removed.

        Raises:
          BadInput: If the directory holds a part of another study.
          OSError: If a file cannot be read for a reason that may pass.
        """
        found: dict[str, Finished] = {}
        harmed: dict[pathlib.Path, str] = {}
        for path in sorted((self.workdir / "parts").glob("*.npz")):
            try:
                part, identity, params = self._finished(path)
            except disk.DAMAGE as error:
                # Hours of work are not thrown away for a network file system's bad minute.
                if disk.passing(error):
                    raise
                harmed[path] = f"{str(path)!r} is damaged ({disk.gist(error)}); its members are trained again"
                continue
            difference = disk.difference(identity, json.loads(json.dumps(self.identity)))
            if difference:
                raise BadInput(f"{str(path)!r} is of another study ({difference}); choose another folder, or give --overwrite")
            lost = [name for name, digest in params.items() if not self._holds(name, digest)]
            if lost:
                harmed[path] = f"parameters of {', '.join(lost)} are missing or damaged; part {path.stem} is trained again"
                continue
            found |= dict.fromkeys(part.members, part)
        # Not before it is known that the directory may be used.
        for path, sentence in harmed.items():
            self.report(sentence)
            if self.writes:
                path.unlink()
        return found

    def load(self, name: str) -> Finished | None:
        """A part that another process has finished; None if it has not, yet."""
        path = self._path(name)
        return self._finished(path)[0] if path.exists() else None

    def _finished(self, path: pathlib.Path) -> tuple[Finished, dict[str, Any], dict[str, str]]:
        """A finished part, its study, and the digests of its parameters; raises what damage raises."""
        about = self._read(path)
        members, points, steps = tuple(about["members"]), tuple(about["points"]), tuple(about["steps"])
        part = Finished(about["name"], members, points, steps, about["seconds"], about["devices"])
        return part, about["identity"], dict(about["params"])

    def planned(self, members: Sequence[Member]) -> list[Group]:
        """The parts that process 0 has found pending, see `pending`."""
        known = {member.name: member for member in members}
        pending = json.loads((self.workdir / "plan.json").read_text())["pending"]
        return [Group(tuple(known[name] for name in names)) for whole in pending for names in self._divided(whole)]

    def leaves(self, part: Group) -> list[Group]:
        """The part, or those that it was divided into."""
        known = {member.name: member for member in part.members}
        return [Group(tuple(known[name] for name in names)) for names in self._divided(_names(part))]

    def pending(
        self,
        members: Sequence[Member],
        done: Mapping[str, Finished],
        divide: Callable[[Sequence[Member]], list[Group]],
        share: Callable[[list[Group], Set[str]], list[Group]] = lambda parts, _: parts,
        processes: int = 1,
    ) -> list[Group]:
        """The parts to be trained, and a record of them: those planned before as they were, then what else is missing.

        A part that is trained again is trained in the same company, so that its numbers are the same. What no plan has is divided
        as the whole grid would be; only of parts that are there in part are the rest put together anew.

        Args:
          members: All of the grid.
          done: Members' names and finished parts.
          divide: Into parts.
          share: Divides parts further, so that several processes have work; but not those of the names that it is given second,
            which were planned for as many processes before, or have been begun, or are what another sweep had.
          processes: How many there are.
        """
        missing = {member.name: member for member in members if member.name not in done}
        planned, parts = self._planned(), []

        def take(names: Sequence[str]) -> None:
            if names and len(set(names)) == len(names) and all(name in missing for name in names):
                parts.append(Group(tuple(missing.pop(name) for name in names)))

        for names in planned:
            take(names)
        before = [_names(part) for part in parts]
        for whole in divide(members) if missing else []:
            for names in self._divided(_names(whole)):
                take(names)
        whole_parts, recorded = [*parts, *divide(list(missing.values()))], self._processes()
        same = recorded in (processes, _ANY)
        fixed = {self.name(part) for part in whole_parts if (same and _names(part) in before) or self._begun(part)}
        found = share(whole_parts, fixed)
        if self.writes:
            pending = [_names(part) for part in found]
            known = [names for names in planned if names in pending or names not in before]
            fresh = [names for names in pending if names not in known]
            kept = recorded if recorded == _ANY else processes
            plan = {"identity": self.identity, "division": self.division, "processes": kept, "pending": pending}
            disk.write_json(self.workdir / "plan.json", {**plan, "parts": [*known, *fresh]})
        return found

    def _begun(self, part: Group) -> bool:
        """Whether there is a state of the part, or parameters of its members, from when it was finished and sound."""
        results = (records.params_path(self.workdir, name) for name in _names(part))
        return (self.workdir / "checkpoints" / self.name(part)).exists() or any(path.exists() for path in results)

    def _processes(self) -> int:
        """How many processes the recorded plan was made for; `_ANY` if it is to be kept to by however many."""
        with contextlib.suppress(*disk.DAMAGE):
            return int(json.loads((self.workdir / "plan.json").read_text())["processes"])
        return 1

    def split(self, part: Group, size: int) -> list[Group]:
        """The part in parts of at most `size` members, and so from now on."""
        self.checkpoints(part, 0.0).clear()
        smaller = list(chunks(part, size))
        disk.write_json(self._split(self.name(part)), {"parts": [_names(part) for part in smaller]})
        return smaller

    def mark(self, part: Group) -> pathlib.Path:
        """Where it is told that the part is at work, see `attempts`."""
        return self.workdir / "attempts" / f"{self.name(part)}.json"

    def check_replay(self, other: pathlib.Path) -> None:
        """Makes sure that what `other` has recorded can be done again here.

        Raises:
          BadInput: If it holds no plan, or one of another study.
        """
        plan = disk.read_json(other / "plan.json")
        recorded = plan.get("identity") if isinstance(plan, dict) else None
        difference = disk.difference(recorded, json.loads(json.dumps(self.identity)), "identity")
        if difference:
            raise BadInput(f"replay={str(other)!r} is of another study ({difference})")
        difference = disk.difference(plan.get("division"), json.loads(json.dumps(self.division)), "population")
        if difference:
            raise BadInput(f"replay={str(other)!r} was divided otherwise ({difference}); ask for the same here")

    def replay(self, other: pathlib.Path) -> None:
        """Takes over how the sweep in `other` was divided and run, where nothing is planned here yet."""
        if not (self.workdir / "plan.json").exists():
            for name in ("splits", "programs"):
                shutil.rmtree(self.workdir / name, ignore_errors=True)
                if (other / name).is_dir():
                    shutil.copytree(other / name, self.workdir / name)
            plan = json.loads((other / "plan.json").read_text())
            disk.write_json(self.workdir / "plan.json", plan | {"processes": _ANY})

    def choice(self, program: Mapping[str, Any]) -> Choice | None:
        """How members of a program are run, as `keep_choice` has recorded it; None if it is not known."""
        path = self._choice(program)
        if not path.exists():
            return None
        try:
            content = json.loads(path.read_text())
            if content["program"] != json.loads(json.dumps(program)):
                raise ValueError("it is of another program")
            return Choice.from_json(content["choice"])
        except disk.DAMAGE as error:
            if disk.passing(error):
                raise
            self.report(f"{str(path)!r} is damaged ({disk.gist(error)}); what it tells is found out anew")
            if self.writes:
                path.unlink(missing_ok=True)
            return None

    def keep_choice(self, program: Mapping[str, Any], choice: Choice) -> Choice:
        """Records how members of a program are run, unless another process has; returns what is on record."""
        path = self._choice(program)
        own = path.with_name(f"{path.stem}_{platform.node()}_{os.getpid()}.json")
        disk.write_json(own, {"program": program, "choice": dataclasses.asdict(choice)})
        try:
            os.link(own, path)
        except FileExistsError:
            return self.choice(program) or choice
        except OSError:  # not every file system has links
            os.replace(own, path)
        finally:
            own.unlink(missing_ok=True)
        return choice

    def _choice(self, program: Mapping[str, Any]) -> pathlib.Path:
        return self.workdir / "programs" / f"{_digest(program)}.json"

    def _split(self, name: str) -> pathlib.Path:
        return self.workdir / "splits" / f"{name}.json"

    def metrics(self, part: Finished) -> Iterator[dict[str, Any]]:
        """The rows of metrics.csv of one part.

        Raises:
          BadInput: If its file is damaged.
        """
        arrays = disk.read_arrays(self._path(part.name))
        for i, member in enumerate(part.members):
            # A member that diverged has nothing to say after its last finite step.
            for step in range(part.steps[i]):
                yield {"member": member, "step": step, **{name: float(arrays[name][i, step]) for name in Metrics._fields}}

    def _path(self, name: str) -> pathlib.Path:
        return self.workdir / "parts" / f"{name}.npz"

    def _read(self, path: pathlib.Path) -> dict[str, Any]:
        """What a part's file says, once all of it is found sound."""
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
            if broken is not None:
                raise ValueError(f"{broken} has changed")
        with np.load(path) as arrays:
            about = json.loads(arrays[_ABOUT].tobytes())
            members, steps = about["members"], about["steps"]
            if any(arrays[name].shape[0] != len(members) for name in Metrics._fields) or len(steps) != len(members):
                raise ValueError("its metrics are not of its members")
        if about["name"] != path.stem:
            raise ValueError(f"it is the part {about['name']}")
        return about

    def _holds(self, member: str, digest: str) -> bool:
        try:
            return disk.sha256(records.params_path(self.workdir, member)) == digest
        except OSError as error:
            if disk.passing(error):
                raise
            return False

    def _planned(self) -> list[list[str]]:
        path = self.workdir / "plan.json"
        if not path.exists():
            return []
        try:
            plan = json.loads(path.read_text())
            parts = [[str(name) for name in names] for names in plan["parts"]]
            for given in ("identity", "division"):
                changed = disk.difference(plan[given], json.loads(json.dumps(getattr(self, given))))
                if changed:
                    self.report(f"what is missing is planned anew ({changed})")
                    return []
        except disk.DAMAGE as error:
            if disk.passing(error):
                raise
            self.report(f"{str(path)!r} is damaged ({disk.gist(error)}); what is missing is planned anew")
            return []
        return [smaller for names in parts for smaller in self._divided(names)]

    def _divided(self, names: list[str]) -> list[list[str]]:
        """A planned part, or the parts that it was divided into."""
        path = self._split(self._name(names))
        if not path.exists():
            return [names]
        try:
            smaller = [[str(name) for name in part] for part in json.loads(path.read_text())["parts"]]
            if [name for part in smaller for name in part] != names or len(smaller) < 2:
                raise ValueError("it is of other members")
        except disk.DAMAGE as error:
            if disk.passing(error):
                raise
            self.report(f"{str(path)!r} is damaged ({disk.gist(error)}); what it divides is tried in one again")
            if self.writes:
                path.unlink(missing_ok=True)
            return [names]
        return [least for part in smaller for least in self._divided(part)]


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _names(part: Group) -> list[str]:
    return [member.name for member in part.members]


def retried(error: BaseException) -> bool:
    """Whether fewer members at once may help: the compiler or the device failed, or memory ran out."""
    return isinstance(error, jax.errors.JaxRuntimeError | MemoryError)
