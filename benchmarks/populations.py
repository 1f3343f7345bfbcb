"""Populations compared with themselves: several sizes, several vmap sizes."""

import contextlib
import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.ours import trainer
from rd_elbo import data
from rd_elbo.errors import Failed
from rd_elbo.sweep import grid
from rd_elbo.sweep.config import Plan
from rd_elbo.sweep.run import described
from rd_elbo.training import fit, sharding, state

Say = Callable[[str], None]


def of_sizes(counts: list[int], seconds: float, vmap_size: int | None, say: Say) -> None:
    """Report the milliseconds per member-step of populations of several sizes.

    Members are small MLPs (encoder and decoder of width 16) on 50,000 images. Calls count from the
    fifth on, and their lengths are reported too.

    Args:
      counts: Numbers of members.
      seconds: Time of each number of them.
      vmap_size: Members advanced side by side on a device; None means the default.
      say: Callback with a sentence for each number of members.
    """
    images = data.load("mnist_static").splits["train"]
    base = grid.Member(encoder_width=16, decoder_width=16, epochs=1000.0)
    for count in counts:
        group = grid.product(base, beta=tuple(np.geomspace(0.1, 4, count).tolist()))
        model = base.build(images.shape[1:])
        spec = state.TrainSpec(model, batch_size=base.batch_size, vmap_size=vmap_size)
        calls, began = [(0, time.perf_counter())], time.perf_counter()

        def note(
            progress: fit.Progress, _: state.Metrics, calls: list[tuple[int, float]] = calls
        ) -> None:
            calls.append((progress.steps, time.perf_counter()))

        def late(began: float = began, calls: list[tuple[int, float]] = calls) -> bool:
            return len(calls) > 9 and time.perf_counter() - began > seconds

        steps = fit.total_steps(base.epochs, base.batch_size, len(images))
        with contextlib.suppress(fit.Stopped):
            how: dict[str, Any] = {"metrics_every": 1000, "callback": note, "stop": late}
            hparams = state.HParams.of(group, spec)
            fit.fit(spec, [model] * count, hparams, images, steps, **how)
        lengths = [after - before for (before, _), (after, _) in itertools.pairwise(calls)]
        (made, start), (all_made, end) = calls[5], calls[-1]
        ms = 1e3 * (end - start) / (all_made - made) / count
        say(f"{count} members: {ms:.3f} ms per member-step; steps of the calls {lengths}")


def of_vmap_sizes(
    plan: Plan, sizes: list[int], steps: int, rounds: int, say: Say
) -> list[dict[str, Any]]:
    """Measure each group of a sweep at several vmap sizes, and recommend one for each.

    Args:
      plan: The sweep.
      sizes: Sizes to try, besides the default and all members of a device.
      steps: Steps of a turn.
      rounds: Turns of each size.
      say: Callback with a sentence for each group, the recommendation.

    Returns:
      A row for each group and size: "group", "way", milliseconds per member-step "ms", "low" and
      "high", and "ratio" to the default's.
    """
    rows: list[dict[str, Any]] = []
    images = plan.dataset.splits["train"]
    # One chunk a group: the largest.
    chunks = {chunk.padded: chunk for chunk in sorted(plan.chunks(), key=lambda c: len(c.members))}
    for chunk in chunks.values():
        members = list(chunk.members)
        mesh = sharding.make_mesh(plan.population.devices, len(members))
        spec = dataclasses.replace(plan.spec(chunk), call_steps=steps, vmap_size=None)
        shape, seeds = plan.dataset.image_shape, [m.seed for m in members]
        models = [m.build(shape) for m in members]
        params = state.initialise(models, seeds, spec.model, shape, spec.dtype)
        hparams, own = state.HParams.of(members, spec), -(-len(members) // mesh.size)
        ways = {
            f"vmap_size={size or 'None'}": trainer(
                dataclasses.replace(spec, vmap_size=size), params, hparams, mesh, images
            )
            for size in (None, *[size for size in sizes if size < own], own)
        }
        found = _race(described(chunk), ways, len(members), steps, rounds)
        best = min(found, key=lambda row: row["ms"])
        # A gain within the noise is none.
        sound = best if best["high"] < found[0]["low"] else found[0]
        ratio = f"({sound['ratio']:.2f} of the default's time)"
        say(f"{described(chunk)}: population.{sound['way']} {ratio}")
        rows += found
    return rows


def _race(
    group: str,
    ways: Mapping[str, Callable[[int], np.ndarray]],
    members: int,
    steps: int,
    rounds: int,
) -> list[dict[str, Any]]:
    """Measure ways in turn, ms per member-step; the first is the reference."""
    first = {name: go(steps) for name, go in ways.items()}
    reference = next(iter(first.values()))
    for name, losses in first.items():
        apart = np.abs(losses[:, :5] / reference[:, :5] - 1).max()
        if not apart < 1e-3:
            raise Failed(f"{group}: {name} is {apart:.1e} from the default after five steps")
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, go in ways.items():
            began = time.perf_counter()
            go(steps)
            times[name].append(1e3 * (time.perf_counter() - began) / (steps * members))
    middle = {name: statistics.median(values) for name, values in times.items()}
    base = next(iter(middle.values()))
    return [
        {
            "group": group,
            "way": name,
            "ms": middle[name],
            "low": min(values),
            "high": max(values),
            "ratio": middle[name] / base,
        }
        for name, values in times.items()
    ]
