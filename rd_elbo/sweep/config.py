"""From a configuration to members, groups and chunks.

A configuration is a nested mapping (scripts make it with ml_collections):

    data         name; path, manual_dir, data_dir where the dataset needs them; binarise, False to
                 keep grey levels; examples, to use so many of each split; splits, those that
                 points are reported on; eval_examples, to report on a fixed random choice of so
                 many examples of the training split
    base         values of `grid.Member` fields that all blocks start from
    blocks       name -> axes: each block is the product of its axes; a single value is an axis
    only         names of the blocks to use; empty means all
    grid, train  where not None, values that replace those of every block
    population   fields of `Population`
"""

import dataclasses
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder as _unset

from rd_elbo import aliases, data
from rd_elbo.errors import BadInput, choice, number, whole
from rd_elbo.models.lowering import LOWERINGS
from rd_elbo.sweep import grid, grouping
from rd_elbo.sweep.work import work
from rd_elbo.training import regularisation
from rd_elbo.training.state import TrainSpec

Config = Mapping[str, Any]
_SECTIONS = ("name", "data", "base", "blocks", "only", "grid", "train", "population")
_SCALARS = {"epochs": float, "batch_size": int, "learning_rate": float}
_SCALARS |= {"optimizer": str, "schedule": str}
# The name of configurations that `rd.sweep` records.
RD_SWEEP = "rd.sweep"
# Fields of the data that say where they are.
PLACES = ("path", "manual_dir", "data_dir")
_DATA_OPTIONS = (*PLACES, "binarise")
# Steps are counted in 32 bits.
_MOST_STEPS = 2**31
# A training step is about three forward passes.
_TRAINING_COST = 3.0
# Rows of metrics that a member gets, unless `metrics_every` says otherwise.
_METRIC_ROWS = 1000
_ARITHMETIC = ("dtype", "compute_dtype", "precision")
_STRATEGIES = {"auto": None, "vmap": None, "looped": 1}


@dataclasses.dataclass(frozen=True)
class Population:
    """Memory, speed and precision of a run.

    Only dtypes and precision change numbers by more than rounding.

    Attributes:
      devices: Devices of each process to spread members over; None means all of them.
      chunk_size: The most members of a group trained together; None means the whole group.
      vmap_size: The most members that a device advances side by side; None is the default of
        the platform, see `training.sharding.default_vmap_size`; on accelerators large convolutions
        train fastest one by one (1).
      max_padding_overhead: Wasted work that mixing widths may cost, see `grouping.groups`.
      checkpoint_seconds: The least time between two checkpoints.
      metrics_every: Steps between two rows of metrics.csv; None means at most 1,000 rows a member.
      dtype: Type of parameters and of evaluation, "float32" or "float64".
      compute_dtype: Type of the arithmetic of a training step, "float32" (which means `dtype`)
        or "bfloat16".
      precision: Precision of matrix products in training: "default" (TF32 or bfloat16 on
        accelerators), "high" or "highest". Evaluation always runs at the highest.
      lowering: Form of convolutions with a kernel per member, see `models.lowering.lowering`.
    """

    devices: int | None = None
    chunk_size: int | None = None
    vmap_size: int | None = None
    max_padding_overhead: float = 1.25
    checkpoint_seconds: float = 60.0
    metrics_every: int | None = None
    dtype: str = "float32"
    compute_dtype: str = "float32"
    precision: str = "default"
    lowering: str = "auto"

    def __post_init__(self) -> None:
        for field in ("devices", "chunk_size", "vmap_size", "metrics_every"):
            if getattr(self, field) is not None:
                object.__setattr__(self, field, whole(field, getattr(self, field)))
        for field, lowest in (("max_padding_overhead", 1.0), ("checkpoint_seconds", 0.0)):
            object.__setattr__(self, field, number(field, getattr(self, field), lowest))
        choice("dtype", self.dtype, ("float32", "float64"))
        choice("compute_dtype", self.compute_dtype, ("float32", "bfloat16"))
        choice("precision", self.precision, ("default", "high", "highest"))
        choice("lowering", self.lowering, LOWERINGS)

    @property
    def identity(self) -> dict[str, str]:
        """The fields that change numbers, where they are not at their defaults."""
        own = {name: getattr(self, name) for name in _ARITHMETIC}
        changed = {name: value for name, value in own.items() if value != getattr(Population, name)}
        return {"dtype": self.dtype, **changed}


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """Everything decided before any training starts.

    Attributes:
      config: The configuration, as plain values.
      dataset: The data.
      evaluated: Split -> (examples, ...) examples that points are reported on.
      members: Members, in the order of the grid.
      population: Memory, speed and precision.

    Raises:
      BadInput: If a member is not for such data.
    """

    config: dict[str, Any]
    dataset: data.Dataset
    evaluated: Mapping[str, np.ndarray]
    members: list[grid.Member]
    population: Population

    def __post_init__(self) -> None:
        for architecture in dict.fromkeys(map(grid.architecture_of, self.members)):
            dataset = self.dataset
            architecture.check_data(dataset.kind, dataset.image_shape, dataset.range)
            architecture.check_own_parts(dataset.image_shape, dataset.scale)
        for member in self.members:
            regularisation.check_shift(member.shift, self.dataset.image_shape)

    @property
    def identity(self) -> dict[str, Any]:
        """What all members have in common beside what they are: the data, the arithmetic."""
        return {
            "data": {"name": self.dataset.name, "sha256": self.dataset.checksum()},
            "splits": {split: len(images) for split, images in self.evaluated.items()},
            **self.population.identity,
        }

    def chunks(self) -> list[grid.Group]:
        """All members, in the chunks that the grid and `chunk_size` alone decide on.

        Chunks come in the order of their first members, whatever program they are of: a run that
        stops early has what the grid names first. Small chunks of many programs in turn are traced
        again, beyond the programs that `training.step` keeps.
        """
        overhead, size = self.population.max_padding_overhead, self.population.chunk_size
        groups = grouping.groups(self.members, self.dataset.image_shape, overhead)
        chunks = [chunk for group in groups for chunk in group.split(size)]
        position = {member: i for i, member in enumerate(self.members)}
        return sorted(chunks, key=lambda chunk: position[chunk.members[0]])

    def spec(self, chunk: grid.Group) -> TrainSpec:
        """What is compiled for a chunk."""
        how = {
            name: getattr(self.population, name) for name in (*_ARITHMETIC, "lowering", "vmap_size")
        }
        return chunk.spec(self.dataset.image_shape, self.dataset.scale, **how)

    def steps(self, chunk: grid.Group) -> int:
        """Steps that the members of a chunk are trained for."""
        return chunk.steps(len(self.dataset.splits["train"]))

    def metrics_every(self, chunk: grid.Group) -> int:
        """Steps between two rows of metrics."""
        return self.population.metrics_every or math.ceil(self.steps(chunk) / _METRIC_ROWS)

    def work(self, chunk: grid.Group) -> tuple[float, float]:
        """Operations of training and of evaluating a chunk."""
        lead, shape = chunk.members[0], self.dataset.image_shape
        step = work(chunk.padded, shape, lead.batch_size)
        forward = step / lead.batch_size * sum(map(len, self.evaluated.values()))
        forward *= 1 + regularisation.switches(chunk.members)["averages"]
        count = len(chunk.members)
        return count * _TRAINING_COST * self.steps(chunk) * step, count * forward


def blank(name: str) -> ConfigDict:
    """A configuration without blocks, on the embedded digits, in which nothing is overridden.

    Every field a user may want to set from the command line is there: ml_collections refuses flags
    for fields that are not.
    """
    config = ConfigDict()
    config.name = name
    config.data = ConfigDict({"name": "mnist_static", "splits": ("test", "train")})
    kinds = {"binarise": bool}
    config.data.update({option: _unset(kinds.get(option, str)) for option in _DATA_OPTIONS})
    config.data.update({option: _unset(int) for option in ("examples", "eval_examples")})
    config.base = ConfigDict()
    config.blocks = ConfigDict()
    config.only = ()
    # Axes given here replace those of every block; so do the values of `train`.
    config.grid = ConfigDict({field: _unset(tuple) for field in grid.FIELDS})
    config.train = ConfigDict({field: _unset(kind) for field, kind in _SCALARS.items()})
    own = dataclasses.asdict(Population())
    own |= {field: _unset(int) for field, value in own.items() if value is None}
    config.population = ConfigDict({**own, "strategy": _unset(str)})
    return config


def load(
    config: Config,
    report: Callable[[str], None] = warnings.warn,
    place: str | os.PathLike[str] | None = None,
) -> Plan:
    """Check a configuration, load its data and decide what is trained together.

    Args:
      config: The configuration.
      report: Callback with a sentence on each deprecated name.
      place: Present place of data that were moved, see `load_data`.

    Raises:
      BadInput: If anything in it cannot be done.
    """
    config = aliases.current(config, report, dataclasses.asdict(Population()))
    for section in config:
        if section not in _SECTIONS:
            raise BadInput(
                f"config.{section}: expected one of {', '.join(_SECTIONS)}, got {section!r}."
            )
    members = grid.members_of(config)
    population = load_population(config.get("population") or {}, report)
    plain = {section: _plain(section, value) for section, value in config.items()}
    dataset, evaluated = load_data(config.get("data") or {}, place)
    plan = Plan(plain, dataset, evaluated, members, population)
    for member in members:
        steps = grid.Group((member,)).steps(len(dataset.splits["train"]))
        if steps >= _MOST_STEPS:
            raise BadInput(
                f"epochs={member.epochs!r}: expected fewer than 2**31 steps, got {steps:.3g}."
            )
    return plan


def load_population(section: Mapping[str, Any], report: Callable[[str], None]) -> Population:
    """The section `population` of a configuration; `strategy` is understood for one release.

    Raises:
      BadInput: If a field does not exist or has no such value.
    """
    fields = tuple(field.name for field in dataclasses.fields(Population))
    given = dict(section)
    strategy = given.pop("strategy", None)
    if strategy is not None:
        choice("population.strategy", strategy, _STRATEGIES)
        report("population.strategy is gone; give population.vmap_size (1: one after another)")
        if _STRATEGIES[strategy] and given.get("vmap_size") is None:
            given["vmap_size"] = _STRATEGIES[strategy]
    for name in given:
        if name not in fields:
            raise BadInput(f"population.{name}: expected one of {', '.join(fields)}, got {name!r}.")
    return Population(**given)


def load_data(
    section: Mapping[str, Any], place: str | os.PathLike[str] | None = None
) -> tuple[data.Dataset, dict[str, np.ndarray]]:
    """The data that the section `data` of a configuration describes.

    Args:
      section: The section.
      place: Present file or folder of data that were moved, or that were arrays; None means the
        place that the section names.

    Returns:
      The dataset, and the images of each split that points are reported on.

    Raises:
      BadInput: If an option does not exist or has no such value, or the data cannot be loaded.
    """
    section = dict(section)
    given = section.pop("splits", None)
    splits = ("test", "train") if given is None else grid.names("data.splits", given)
    counts = {name: section.pop(name, None) for name in ("examples", "eval_examples")}
    name = section.pop("name", "mnist_static")
    for option in section:
        if option not in _DATA_OPTIONS:
            known = ("name", "splits", *counts, *_DATA_OPTIONS)
            raise BadInput(f"data.{option}: expected one of {', '.join(known)}, got {option!r}.")
    for option, count in counts.items():
        if count is not None:
            whole(f"data.{option}", count)
    options = {option: value for option, value in section.items() if value is not None}
    if place is None:
        dataset = data.load(name, **options)
    else:
        source, option = _source(name, options, place)
        dataset = data.load(source, **{**options, option: place})
        dataset = dataclasses.replace(dataset, name=name)
    if counts["examples"] is not None:
        dataset = dataset.head(counts["examples"])
    return dataset, evaluated_splits(dataset, splits, counts["eval_examples"])


def _source(
    name: str, options: Mapping[str, Any], place: str | os.PathLike[str]
) -> tuple[str, str]:
    """The name to load data by that are in another place now, and the option that says where."""
    for option in PLACES:
        if option in options:
            return name, option
    # Prepared data of tensorflow-datasets are in a folder of their name.
    if os.path.isdir(os.path.join(place, name)):
        return name, "data_dir"
    if name in data.NAMES:
        return name, "manual_dir" if name == "binarized_mnist" else "path"
    # They were arrays in memory, or a sweep in Python has loaded them.
    return "path", "path"


def evaluated_splits(
    dataset: data.Dataset, splits: Sequence[str], eval_examples: int | None
) -> dict[str, np.ndarray]:
    """Images of each split that points are reported on, the training split's a fixed choice.

    Args:
      dataset: The data.
      splits: Names of splits.
      eval_examples: Examples of the training split; None means all.

    Raises:
      BadInput: If a split does not exist or is named twice, or none is named.
    """
    if not splits or len(set(splits)) < len(splits):
        raise BadInput(f"data.splits={splits!r}: expected one split or several, each once.")
    for split in splits:
        if split not in dataset.splits:
            there = ", ".join(dataset.splits)
            raise BadInput(f"data.splits={split!r}: expected one of {there} ({dataset.name!r}).")
    evaluated = {split: dataset.splits[split] for split in splits}
    if eval_examples is not None and "train" in evaluated:
        count = whole("data.eval_examples", eval_examples)
        evaluated["train"] = dataset.head(count).splits["train"]
    return evaluated


def _plain(field: str, value: Any) -> Any:
    """A value of a configuration as JSON has it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(f"{field}.{key}", inner) for key, inner in value.items()}
    if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim == 1):
        return [_plain(field, inner) for inner in value]
    value = value.item() if isinstance(value, np.generic) else value
    finite = not isinstance(value, float) or math.isfinite(value)
    if not isinstance(value, str | int | float | None) or not finite:
        raise BadInput(f"{field}={value!r}: expected a name, a finite number, or a tuple of them.")
    return value
