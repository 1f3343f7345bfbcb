"""Trained members of a run directory, read back as the populations that they were trained in."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rd_elbo import disk
from rd_elbo.data.dataset import Dataset
from rd_elbo.errors import BadInput
from rd_elbo.models.vae import Params
from rd_elbo.sweep import config as configs
from rd_elbo.sweep import grid, grouping, tables
from rd_elbo.training import sharding, state
from rd_elbo.training.fit import Fitted
from rd_elbo.training.regularisation import AVERAGINGS
from rd_elbo.training.state import Metrics


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A run directory whose members can be evaluated again.

    Attributes:
      path: The run directory.
      points: Rows of points.csv.
      dataset: The data that the run recorded, checked against its checksum.
      evaluated: Split -> (examples, ...) examples that points.csv reports on.
      population: Memory, speed and precision of the run.
    """

    path: pathlib.Path
    points: Sequence[Mapping[str, Any]]
    dataset: Dataset
    evaluated: Mapping[str, np.ndarray]
    population: configs.Population

    def saved(self) -> list[str]:
        """Names of the members that did not diverge and whose parameters are there, in order."""
        sound = dict.fromkeys(str(p["member"]) for p in self.points if p["status"] == "ok")
        return [name for name in sound if any(self.has(name, kind) for kind in AVERAGINGS)]

    def has(self, name: str, averaging: str) -> bool:
        """Whether these parameters of a member, the last ones or their average, are there."""
        return tables.params_path(self.path, tables.params_name(name, averaging)).exists()

    def params_digest(self, name: str) -> str:
        """SHA-256 of the file of parameters, see `tables.params_name`, abbreviated."""
        return disk.sha256(tables.params_path(self.path, name))[:12]

    def populations(self, names: Sequence[str]) -> Iterator[tuple[list[str], grid.Group, Fitted]]:
        """Restore members, chunk by chunk.

        Args:
          names: Members to restore. Parameters that are not there are those of the other
            averaging; rows of them say nothing, see `has`.

        Yields:
          Names as the tables have them, the members, and the population.

        Raises:
          BadInput: If parameters are missing or damaged.
        """
        shape, overhead = self.dataset.image_shape, self.population.max_padding_overhead
        name_of = {self._load(name, AVERAGINGS[0])[0]: name for name in names}
        for group in grouping.groups(list(name_of), shape, overhead) if name_of else []:
            for chunk in group.split(self.population.chunk_size):
                chosen = [name_of[member] for member in chunk.members]
                yield chosen, chunk, self._population(chunk, chosen)

    def _population(self, chunk: grid.Group, names: Sequence[str]) -> Fitted:
        shape, dtype, count = self.dataset.image_shape, self.population.dtype, len(names)
        spec = chunk.spec(
            shape,
            self.dataset.scale,
            dtype=dtype,
            lowering=self.population.lowering,
            vmap_size=self.population.vmap_size,
        )
        mesh, placed = sharding.make_mesh(self.population.devices, count), list[Params]()
        for averaging in AVERAGINGS[: 1 + spec.averages]:
            params = [self._load(name, averaging)[1] for name in names]
            stacked = state.stack(params, spec.model, shape, dtype)
            with state.settings(dtype):
                placed.append(sharding.put_members(stacked, mesh))
        average = placed[1] if spec.averages else ()
        nothing, zeros = np.zeros((count, 0)), np.zeros(count, int)
        metrics = Metrics(np.zeros(0, int), nothing, nothing, nothing)
        alive = np.ones(count, bool)
        return Fitted(spec, mesh, placed[0], zeros, alive, metrics, 0.0, 0.0, average)

    def _load(self, name: str, averaging: str) -> tuple[grid.Member, Params]:
        """A member and its parameters; the others where those are not there, see `has`."""
        others = (kind for kind in AVERAGINGS if self.has(name, kind))
        kind = averaging if self.has(name, averaging) else next(others, averaging)
        return tables.load_params(self.path, name, kind)


def settings_of(workdir: pathlib.Path | str) -> configs.Population:
    """Memory, speed and precision of the run in `workdir`; JAX need not have started.

    Raises:
      BadInput: If there is no sweep.
    """
    section = tables.recorded_config(workdir).get("population") or {}
    fields = {field.name for field in dataclasses.fields(configs.Population)}
    # Names of older releases change memory and speed alone.
    return configs.Population(**{name: v for name, v in section.items() if name in fields})


def open_run(workdir: pathlib.Path | str, data_path: str | None = None) -> Run:
    """Read the tables of a run directory, and load its data again.

    Args:
      workdir: The run directory.
      data_path: Present place of data that were moved, see `tables.recorded_data`.

    Raises:
      BadInput: If there is no sweep, it has no saved parameters, or its data have changed.
    """
    path = pathlib.Path(workdir)
    points, population = tables.read_points(path), settings_of(path)
    if not (path / "params").is_dir():
        raise BadInput(
            f"workdir={str(path)!r}: expected a folder 'params' of saved parameters, got tables "
            "alone. Run the sweep's command there."
        )
    dataset = tables.recorded_data(path, data_path)
    section = tables.recorded_config(path).get("data") or {}
    splits = tuple(dict.fromkeys(str(point["split"]) for point in points))
    evaluated = configs.evaluated_splits(dataset, splits, section.get("eval_examples"))
    run = Run(path, points, dataset, evaluated, population)
    if not run.saved():
        raise BadInput(
            f"workdir={str(path)!r}: expected parameters of a member of points.csv in 'params', "
            "got none. Run the sweep's command there."
        )
    return run
