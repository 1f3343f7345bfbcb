"""A sweep: from a configuration to a run directory.

A configuration is a nested mapping (scripts make it with ml_collections):

    data         name, and path, manual_dir, data_dir where the dataset needs them; examples, to use only so many of each split;
                 splits, those that points are reported on
    base         values of `grid.Member` fields that all blocks start from
    blocks       name -> axes: each block is the product of its axes (a single value is an axis of one)
    only         names of the blocks to use; empty means all
    grid, train  where not None, values that replace those of every block
    population   fields of `train.Execution`
"""

import dataclasses
import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rd_elbo import data, disk, evaluate, grid, records, train
from rd_elbo.errors import BadInput
from rd_elbo.evaluate import POINT_COLUMNS, Point
from rd_elbo.models.family import users

Config = Mapping[str, Any]
_SECTIONS = ("name", "data", "base", "blocks", "only", "grid", "train", "population")
_DATA_OPTIONS = ("path", "manual_dir", "data_dir")
# A training step is about three forward passes.
_TRAINING_COST = 3.0


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """Everything decided before any training starts.

    Attributes:
      config: The configuration, as plain values.
      dataset: The data.
      splits: Splits that points are reported on.
      members: In the order of the grid.
      chunks: Parts of groups, trained one after another.
      execution: How to run.
    """

    config: dict[str, Any]
    dataset: data.Dataset
    splits: tuple[str, ...]
    members: list[grid.Member]
    chunks: list[grid.Group]
    execution: train.Execution


@dataclasses.dataclass(frozen=True)
class Status:
    """How far a sweep is.

    Attributes:
      chunk: The part at work, counted from 0.
      chunks: Number of parts.
      members_done: Members of finished parts.
      members: Members in all.
      diverged: Members that diverged so far.
      done: Arithmetic done, as a part of all of it.
      doing: "training" or "evaluating".
      progress: The last report of the training loop; None while evaluating.
    """

    chunk: int
    chunks: int
    members_done: int
    members: int
    diverged: int
    done: float
    doing: str
    progress: train.Progress | None


Listener = Callable[[Status], None]


def members_of(config: Config) -> list[grid.Member]:
    """The members a configuration describes, in order, each once.

    Raises:
      BadInput: If a block, an axis or a value is not allowed, or nothing is left to train.
    """
    blocks, only = config.get("blocks") or {}, tuple(config.get("only") or ())
    for name in only:
        if name not in blocks:
            raise BadInput(f"only={name!r} names no block; there are {', '.join(blocks)}")
    base = _axes(config.get("base") or {})
    given = {section: _axes(config.get(section) or {}) for section in ("grid", "train")}
    for field in given["grid"]:
        if field in given["train"]:
            raise BadInput(f"{field} is given twice, as grid.{field} and as train.{field}; give one of them")
    overrides = {**given["grid"], **given["train"]}
    members: list[grid.Member] = []
    for name, block in blocks.items():
        if not only or name in only:
            # One product, so that a field that matters only together with another one is seen with it.
            axes = _axes(block)
            rest = {field: values for field, values in base.items() if field not in axes}
            members += grid.product(grid.Member(), **{**rest, **axes, **overrides})
    if not members:
        raise BadInput("the grid is empty: the configuration has no blocks")
    for field in overrides:
        if all(field in member.idle for member in members):
            needed = ("objective",) if field in grid.SETTINGS_OF_OBJECTIVES else users(field)
            now = " and ".join(f"{name} is {_listed(members, name)}" for name in needed)
            raise BadInput(f"{field}={overrides[field]!r} has no effect on any member, since {now} everywhere")
    return grid.unique(members)


def _listed(members: Sequence[grid.Member], field: str) -> str:
    return ", ".join(sorted({repr(getattr(member, field)) for member in members}))


def _axes(values: Mapping[str, Any]) -> dict[str, Any]:
    """Axes from values: None is left out, a single value is an axis of one."""
    return {
        name: tuple(value) if isinstance(value, list | tuple) else (value,) for name, value in values.items() if value is not None
    }


def make_plan(config: Config) -> Plan:
    """Checks a configuration, loads its data and decides what is trained together.

    Raises:
      BadInput: If anything in it cannot be done.
    """
    for section in config:
        if section not in _SECTIONS:
            raise BadInput(f"config has no section {section!r}; there are {', '.join(_SECTIONS)}")
    members = members_of(config)
    fields = tuple(field.name for field in dataclasses.fields(train.Execution))
    for name in config.get("population") or {}:
        if name not in fields:
            raise BadInput(f"population.{name} does not exist; there are {', '.join(fields)}")
    execution = train.Execution(**(config.get("population") or {}))
    dataset, splits = load_data(config.get("data") or {})
    for member in members:
        train.steps_per_epoch(member, len(dataset.splits["train"]))
    groups = grid.groups(members, dataset.image_shape, execution.max_waste)
    chunks = [chunk for group in groups for chunk in train.chunks(group, execution)]
    return Plan(_plain(config), dataset, splits, members, chunks, execution)


def load_data(section: Mapping[str, Any]) -> tuple[data.Dataset, tuple[str, ...]]:
    """The data that the section `data` of a configuration describes, and the splits that points are reported on.

    Raises:
      BadInput: If an option does not exist or has no such value, or the data cannot be had.
    """
    section = dict(section)
    splits = tuple(section.pop("splits", None) or ("test", "train"))
    examples = section.pop("examples", None)
    name = section.pop("name", "mnist_static")
    for option in section:
        if option not in _DATA_OPTIONS:
            raise BadInput(f"data.{option} does not exist; there are name, splits, examples, {', '.join(_DATA_OPTIONS)}")
    if examples is not None and (isinstance(examples, bool) or not isinstance(examples, int) or examples < 1):
        raise BadInput(f"data.examples={examples!r} must be a whole number of at least 1, or None for all")
    dataset = data.load(name, **{option: value for option, value in section.items() if value is not None})
    for split in splits:
        if split not in dataset.splits:
            raise BadInput(f"data.splits={split!r} does not exist; {dataset.name!r} has {', '.join(dataset.splits)}")
    return (dataset if examples is None else dataset.head(examples)), splits


def recorded_config(workdir: str | pathlib.Path) -> dict[str, Any]:
    """The configuration of the sweep in `workdir`.

    Raises:
      BadInput: If there is none, or the run is of something else.
    """
    config = disk.read_json(pathlib.Path(workdir) / "config.json")
    # Experiments on exact models keep a config.json too, without blocks.
    if not isinstance(config, dict) or not isinstance(config.get("blocks"), dict):
        raise BadInput(f"workdir={str(workdir)!r} holds no sweep: its config.json has no blocks")
    return config


def recorded_data(workdir: str | pathlib.Path) -> data.Dataset:
    """The data of the sweep in `workdir`, loaded again.

    Raises:
      BadInput: If there is no sweep, or its data cannot be had or are no longer what it was trained on.
    """
    dataset, _ = load_data(recorded_config(workdir).get("data") or {})
    recorded = disk.read_json(pathlib.Path(workdir) / "provenance.json").get("data", {}).get("sha256")
    if dataset.checksum() != recorded:
        raise BadInput(
            f"the data of workdir={str(workdir)!r} have changed: dataset {dataset.name!r} has SHA-256 {dataset.checksum()}, "
            f"and it was trained on {recorded}"
        )
    return dataset


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def run(plan: Plan, workdir: str | pathlib.Path, listener: Listener | None = None, overwrite: bool = False) -> list[Point]:
    """Trains and evaluates every member and fills the run directory, except for its figures.

    Args:
      plan: What to do.
      workdir: The run directory; see `records`.
      listener: Told now and then how far the sweep is.
      overwrite: Whether a different run in `workdir` may be replaced.

    Returns:
      The rows of points.csv.

    Raises:
      BadInput: If `workdir` may not be used; nothing has been trained or written then.
    """
    workdir = pathlib.Path(workdir)
    records.open_run(workdir, plan.config, overwrite)
    began = time.perf_counter()
    group_of = {member: i for i, chunk in enumerate(plan.chunks) for member in chunk.members}
    disk.write_table(workdir / "members.csv", records.MEMBER_COLUMNS, records.member_rows(plan.members, group_of))
    meter = _Meter(plan, listener)
    points: list[Point] = []
    metrics: list[dict[str, Any]] = []
    seconds = {"training": 0.0, "compiling": 0.0, "evaluating": 0.0}
    for index, chunk in enumerate(plan.chunks):
        trained = train.train(chunk, plan.dataset, plan.execution, meter.training(index))
        meter.diverged += int((~trained.finite).sum())
        evaluation_began = time.perf_counter()
        points += evaluate.evaluate(trained, plan.dataset, plan.splits, meter.evaluating(index))
        seconds["evaluating"] += time.perf_counter() - evaluation_began
        seconds["training"] += trained.seconds
        seconds["compiling"] += trained.compile_seconds
        metrics += _metric_rows(trained)
        for i, member in enumerate(chunk.members):
            records.save_params(workdir, member, trained.member_params(i, plan.dataset.image_shape))
        disk.write_table(workdir / "points.partial.csv", POINT_COLUMNS, points)
        disk.write_table(workdir / "metrics.partial.csv", records.METRIC_COLUMNS, metrics)
        meter.members_done += len(chunk.members)
    order = {member.name: i for i, member in enumerate(plan.members)}
    points.sort(key=lambda point: (plan.splits.index(point["split"]), order[point["member"]]))
    about_data = {"name": plan.dataset.name, "origin": plan.dataset.origin, "sha256": plan.dataset.checksum()}
    seconds["total"] = time.perf_counter() - began
    disk.write_json(workdir / "provenance.json", records.provenance(about_data, sys.argv, seconds))
    disk.write_table(workdir / "metrics.csv", records.METRIC_COLUMNS, metrics)
    disk.write_table(workdir / "points.csv", POINT_COLUMNS, points)
    for name in ("points.partial.csv", "metrics.partial.csv"):
        (workdir / name).unlink(missing_ok=True)
    return points


def _metric_rows(trained: train.Trained) -> Iterable[dict[str, Any]]:
    for i, member in enumerate(trained.members):
        # A member that diverged has nothing to say after its last finite step.
        for step in range(int(trained.steps[i])):
            rate, distortion, loss = (float(column[i, step]) for column in trained.metrics)
            yield {"member": member.name, "step": step, "rate": rate, "distortion": distortion, "loss": loss}


class _Meter:
    """Keeps account of the work done and tells the listener."""

    def __init__(self, plan: Plan, listener: Listener | None):
        self.plan, self.listener = plan, listener
        self.members_done = self.diverged = 0
        shape, splits = plan.dataset.image_shape, plan.dataset.splits
        examples = sum(len(splits[s]) for s in plan.splits)
        self.training_work: list[float] = []
        self.evaluation_work: list[float] = []
        for chunk in plan.chunks:
            lead, count = chunk.members[0], len(chunk.members)
            steps = train.total_steps(lead, len(splits["train"]))
            self.training_work.append(_TRAINING_COST * count * steps * grid.work(chunk.padded, shape, lead.batch_size))
            per_batch = grid.work(chunk.padded, shape, evaluate.BATCH)
            self.evaluation_work.append(count * examples / evaluate.BATCH * per_batch)
        self.evaluated: list[float] = [0.0] * len(plan.chunks)

    def training(self, index: int) -> train.Listener:
        def tell(progress: train.Progress) -> None:
            self._tell(index, progress.steps / progress.total_steps, "training", progress)

        return tell

    def evaluating(self, index: int) -> Callable[[int], None]:
        chunk, splits = self.plan.chunks[index], self.plan.dataset.splits
        whole = len(chunk.members) * sum(len(splits[s]) for s in self.plan.splits)

        def tell(examples: int) -> None:
            self.evaluated[index] += examples / whole
            self._tell(index, 1.0, "evaluating", None)

        return tell

    def _tell(self, index: int, trained: float, doing: str, progress: train.Progress | None) -> None:
        if self.listener is None:
            return
        before = sum(self.training_work[:index]) + sum(self.evaluation_work[:index])
        now = before + trained * self.training_work[index] + self.evaluated[index] * self.evaluation_work[index]
        done = now / (sum(self.training_work) + sum(self.evaluation_work))
        chunks, members = len(self.plan.chunks), len(self.plan.members)
        self.listener(Status(index, chunks, self.members_done, members, self.diverged, done, doing, progress))


def summary(points: Sequence[Point]) -> str:
    """One sentence on how the members ended."""
    members = {point["member"]: point["status"] for point in points}
    diverged = sum(status != "ok" for status in members.values())
    ended = f"{diverged} of them diverged" if diverged else "none diverged"
    return f"{len(members)} member{'' if len(members) == 1 else 's'}, {ended}"
