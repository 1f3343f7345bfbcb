"""The population on all devices, its members one by one, and evaluation."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks.cases import Probe, Problem
from rd_elbo.training import evaluate, fit, sharding, state, step

# Steps of a call, where members wait for others: to begin and end with each group of them, which
# training does once in hundreds of steps, must not weigh on one.
_STEPS = 4


def trainer(
    spec: state.TrainSpec, params: Any, hparams: Any, mesh: Any, examples: Any
) -> Callable[[int], np.ndarray]:
    """Make a function of a number of steps that trains on and returns losses."""
    orders = step.Orders(spec, mesh, sharding.fill_rows(hparams.seed, mesh.size), len(examples))
    with state.settings(spec.dtype):
        held = {"state": state.fresh(sharding.put_members(params, mesh), spec), "at": 0}
        filled = jax.tree.map(lambda leaf: sharding.fill_rows(leaf, mesh.size), hparams)
        placed = sharding.put_members(filled, mesh)
        resident = sharding.put_everywhere(examples, mesh)
    members = len(hparams.seed)

    def train_on(steps: int) -> np.ndarray:
        # The order of an epoch is drawn where it begins; a call never goes beyond one.
        left = step.longest_call(spec, len(examples), held["at"])
        first = held["at"] if steps <= left else held["at"] + left
        where = placed, orders, resident, first, steps, 10**6
        trained, seen = step.call(spec, mesh, held["state"], *where)
        held.update(state=trained, at=first + steps)
        return np.asarray(seen.loss)[:members, :steps]

    return train_on


class Population:
    """`ours`: all members as one program, spread over the devices."""

    unit, note = 1, ""

    def __init__(self, problem: Problem, devices: int | None = None):
        self.members = problem.members
        mesh = sharding.make_mesh(devices, problem.members)
        own_share = -(-self.members // mesh.size)
        how = own_share, mesh.devices.flat[0].platform
        together = problem.spec.vmap_size or sharding.default_vmap_size(problem.params, *how)
        self.unit = 1 if own_share <= together else _STEPS
        own = problem.spec, problem.params, problem.hparams
        self.run = trainer(*own, mesh, problem.data)

    def probed(self, probe: Probe) -> tuple[np.ndarray, Any]:
        """Nothing to compare: it is the reference."""
        return probe.loss, None

    def arranged(self, tree: Any) -> Any:
        """The tree."""
        return tree


class Sequential(Population):
    """`sequential`: one member after another, each by our step on one device."""

    def __init__(self, problem: Problem):
        self.members = problem.members
        # One copy of the data serves all of them.
        data = sharding.put_everywhere(problem.data, sharding.make_mesh(1))
        problem = dataclasses.replace(problem, data=data)
        singles = [Population(problem.pick(i), 1) for i in range(problem.members)]
        self.run = lambda steps: np.concatenate([single.run(steps) for single in singles])


class Evaluation(Population):
    """`ours`, forward only: `training.evaluate` of all members."""

    def __init__(self, problem: Problem):
        self.members, self.unit = problem.members, problem.case.batches
        spec, mesh = problem.spec, sharding.make_mesh(None, problem.members)
        data = problem.data[problem.rows[: self.unit].reshape(-1)]
        with state.settings(spec.dtype):
            params = sharding.put_members(problem.params, mesh)
            resident = sharding.put_everywhere(data, mesh)
        none = np.zeros(0, np.int32)
        steps, alive = np.zeros(self.members, np.int32), np.ones(self.members, bool)
        metrics = state.Metrics(none, *[np.zeros((self.members, 0))] * 3)
        fitted = fit.Fitted(spec, mesh, params, steps, alive, metrics, 0.0, 0.0)

        def run(steps: int) -> None:
            for _ in range(0, steps, self.unit):
                evaluate.evaluate(fitted, problem.hparams.seed.tolist(), resident)

        self.run = run
