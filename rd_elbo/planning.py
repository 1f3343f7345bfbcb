"""From a configuration to what is to be trained.

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
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rd_elbo import data, disk, evaluate, grid, train
from rd_elbo.errors import BadInput
from rd_elbo.models.family import users

Config = Mapping[str, Any]
_SECTIONS = ("name", "data", "base", "blocks", "only", "grid", "train", "population")
_WITH_FIELDS = ("data", "base", "blocks", "grid", "train", "population")
# Steps are counted in 32 bits.
_MOST_STEPS = 2**31
# A training step is about three forward passes.
_TRAINING_COST = 3.0
_DATA_OPTIONS = ("path", "manual_dir", "data_dir")


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """Everything decided before any training starts.

    Attributes:
      config: The configuration, as plain values.
      dataset: The data.
      splits: Splits that points are reported on.
      members: In the order of the grid.
      execution: How to run.
    """

    config: dict[str, Any]
    dataset: data.Dataset
    splits: tuple[str, ...]
    members: list[grid.Member]
    execution: train.Execution

    @property
    def identity(self) -> dict[str, Any]:
        """What all members have in common beside what they are, see `parts.Store`."""
        about_data = {"name": self.dataset.name, "sha256": self.dataset.checksum()}
        return {"data": about_data, "splits": list(self.splits), "dtype": self.execution.dtype}

    @property
    def division(self) -> dict[str, Any]:
        """What decides on the parts, see `parts.Store`."""
        return {"members": self.execution.members, "max_waste": self.execution.max_waste}

    def work(self, part: grid.Group) -> tuple[float, float]:
        """Arithmetic of training and of evaluating a part, in operations."""
        lead, shape = part.members[0], self.dataset.image_shape
        steps = train.total_steps(lead, len(self.dataset.splits["train"]))
        training = _TRAINING_COST * steps * grid.work(part.padded, shape, lead.batch_size)
        examples = sum(len(self.dataset.splits[split]) for split in self.splits)
        evaluation = examples / evaluate.BATCH * grid.work(part.padded, shape, evaluate.BATCH)
        return len(part.members) * training, len(part.members) * evaluation

    def divide(self, members: Sequence[grid.Member]) -> list[grid.Group]:
        """Some of the members, in parts that are trained one after another."""
        if not members:
            return []
        groups = grid.groups(members, self.dataset.image_shape, self.execution.max_waste)
        return [part for group in groups for part in train.chunks(group, self.execution.members)]


def members_of(config: Config) -> list[grid.Member]:
    """The members a configuration describes, in order, each once.

    Raises:
      BadInput: If a block, an axis or a value is not allowed, or nothing is left to train.
    """
    for section in _WITH_FIELDS:
        _check_fields(section, config.get(section) or {})
    blocks, only = config.get("blocks") or {}, _names("only", config.get("only") or ())
    for name, block in blocks.items():
        _check_fields(f"blocks.{name}", block)
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


def _check_fields(section: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise BadInput(f"{section}={value!r} must have fields, such as those in configs/")


def _names(field: str, value: Any) -> tuple[str, ...]:
    """One name or several."""
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise BadInput(f"{field}={value!r} must be a name or a tuple of names")
    return tuple(names)


def _listed(members: Sequence[grid.Member], field: str) -> str:
    return ", ".join(sorted({repr(getattr(member, field)) for member in members}))


def _is_line(value: Any) -> bool:
    """Whether it is an array of values, such as `np.linspace` gives."""
    return isinstance(value, np.ndarray) and value.ndim == 1


def _axes(values: Mapping[str, Any]) -> dict[str, Any]:
    """Axes from values: None is left out, a single value is an axis of one."""
    return {
        name: tuple(value) if isinstance(value, list | tuple) or _is_line(value) else (value,)
        for name, value in values.items()
        if value is not None
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
    plain = {section: _plain(section, value) for section, value in config.items()}
    dataset, splits = load_data(config.get("data") or {})
    for member in members:
        steps = train.total_steps(member, len(dataset.splits["train"]))
        if steps >= _MOST_STEPS:
            raise BadInput(f"epochs={member.epochs!r} are {steps:.3g} steps and must be below 2**31 of them")
    return Plan(plain, dataset, splits, members, execution)


def load_data(section: Mapping[str, Any]) -> tuple[data.Dataset, tuple[str, ...]]:
    """The data that the section `data` of a configuration describes, and the splits that points are reported on.

    Raises:
      BadInput: If an option does not exist or has no such value, or the data cannot be had.
    """
    section = dict(section)
    given = section.pop("splits", None)
    splits = ("test", "train") if given is None else _names("data.splits", given)
    if not splits or len(set(splits)) < len(splits):
        raise BadInput(f"data.splits={splits!r} must name one split or several, each once")
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
    for section in ("data", "population"):
        if not isinstance(config.get(section) or {}, dict):
            raise BadInput(f"workdir={str(workdir)!r} holds a damaged config.json: its {section} is {config[section]!r}")
    return config


def recorded_data(workdir: str | pathlib.Path) -> data.Dataset:
    """The data of the sweep in `workdir`, loaded again.

    Raises:
      BadInput: If there is no sweep, or its data cannot be had or are no longer what it was trained on.
    """
    dataset, _ = load_data(recorded_config(workdir).get("data") or {})
    about = disk.read_json(pathlib.Path(workdir) / "provenance.json")
    recorded = about["data"].get("sha256") if isinstance(about, dict) and isinstance(about.get("data"), dict) else None
    if dataset.checksum() != recorded:
        raise BadInput(
            f"the data of workdir={str(workdir)!r} have changed: dataset {dataset.name!r} has SHA-256 {dataset.checksum()}, "
            f"and it was trained on {recorded}"
        )
    return dataset


def _plain(field: str, value: Any) -> Any:
    """A value of a configuration as JSON has it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(f"{field}.{key}", inner) for key, inner in value.items()}
    if isinstance(value, list | tuple) or _is_line(value):
        return [_plain(field, inner) for inner in value]
    value = value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, str | int | float | None) or (isinstance(value, float) and not math.isfinite(value)):
        raise BadInput(f"{field}={value!r} must be a name, a finite number, or a tuple of them")
    return value
