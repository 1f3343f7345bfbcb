"""Whole processes: the quickstart, and compilation with and without a cache."""

import dataclasses
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks.cases import MEMBERS, Case
from benchmarks.measure import MEASURED, Row, Say, blank, quartiles
from rd_elbo.errors import Failed
from rd_elbo.sweep.config import load

ROOT = pathlib.Path(__file__).parents[1]
_COMPILED = Case("compile", "conv, 8 channels", MEMBERS["conv"], 8, ("ours", "cold"))


def _python(*arguments: str, root: pathlib.Path, cache: pathlib.Path) -> tuple[float, str]:
    """Run Python in a checkout with caches of its own: seconds and output."""
    environment = {**os.environ, "PYTHONPATH": str(root), "RD_ELBO_CACHE": str(cache)}
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], cwd=root, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise Failed(f"{' '.join(arguments)}: {done.stderr.strip()[-400:]}")
    return time.perf_counter() - began, done.stdout


def _rows(case: Case, times: dict[str, list[float]], steps: int) -> list[Row]:
    """Make a row for each contender from the seconds of its processes."""
    rows = []
    for name, values in times.items():
        middle, low, high = quartiles(values)
        ratio, below, above = quartiles(
            [own / ours for own, ours in zip(values, times["ours"], strict=True)]
        )
        row = blank(case, name, status=MEASURED, turns=len(values), seconds=middle)
        row |= {"ratio_to_ours": ratio, "ratio_low": below, "ratio_high": above}
        row |= {"seconds_per_member_step": middle / steps, "low": low / steps, "high": high / steps}
        row |= {"member_steps_per_second": steps / middle}
        rows.append(row)
    return rows


def quickstart(full: bool, rounds: int, before: pathlib.Path | None, say: Say) -> list[Row]:
    """Measure `scripts/sweep.py` on the quickstart, with a warm cache.

    Args:
      full: Whether to take the whole of it, and not its quick form.
      rounds: Processes of each contender, after one that fills the cache.
      before: Another checkout, whose processes take turns with ours; None measures ours alone.
      say: Callback with a sentence about the progress.

    Returns:
      A row for ours and one for "before", absent if it is not given.
    """
    form = "full" if full else "quick"
    from configs.quickstart import get_config

    plan = load(get_config(form).to_dict())
    examples = len(plan.dataset.splits["train"])
    members = len(plan.members)
    steps = sum(group.steps(examples) * len(group.members) for group in plan.chunks())
    case = dataclasses.replace(_COMPILED, suite="quickstart", name=form, members=members)
    roots = {"ours": ROOT, **({"before": before} if before else {})}
    times: dict[str, list[float]] = {name: [] for name in roots}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(-1, rounds):
            for name, root in roots.items():
                workdir, cache = (
                    pathlib.Path(folder) / f"{name}{part}" for part in (turn, "cache")
                )
                arguments = f"--config=configs/quickstart.py:{form}", f"--workdir={workdir}"
                seconds, _ = _python("scripts/sweep.py", *arguments, root=root, cache=cache)
                if turn >= 0:
                    times[name].append(seconds)
                say(f"quickstart, {form}: {name} took {seconds:.1f} s{' (cold)' * (turn < 0)}")
    rows = [row | {"batch": ""} for row in _rows(case, times, steps)]
    if before is None:
        absent = blank(case, "before", batch="", status="absent", note="no other checkout given")
        rows.append(absent)
    return rows


def compilation(rounds: int, say: Say) -> list[Row]:
    """Measure how long a population's program takes to compile, in fresh processes.

    Args:
      rounds: Cold processes, each followed by a warm one.
      say: Callback with a sentence about the progress.

    Returns:
      Rows of two cases, the program alone and the process up to its first step; "ours" has a warm
      cache and "cold" an empty one.
    """
    program: dict[str, list[float]] = {"ours": [], "cold": []}
    whole: dict[str, list[float]] = {"ours": [], "cold": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("cold", "ours"):
                cache = pathlib.Path(folder)
                seconds, said = _python(
                    "-m", "benchmarks.processes", folder, root=ROOT, cache=cache
                )
                program[name].append(json.loads(said)["compile_seconds"])
                whole[name].append(seconds)
                say(f"compile: {name} took {program[name][-1]:.1f} s of {seconds:.1f} s")
    cases = ("program", program), ("process", whole)
    return [
        row | {"seconds_per_member_step": "", "low": "", "high": "", "member_steps_per_second": ""}
        for part, times in cases
        for row in _rows(dataclasses.replace(_COMPILED, name=f"{_COMPILED.name}, {part}"), times, 1)
    ]


def _compile_once(cache: pathlib.Path) -> dict[str, Any]:
    """Compile the population of `_COMPILED` in this process, and make a step."""
    from rd_elbo import host

    host.configure(cache_dir=cache / "xla")
    from benchmarks.cases import problem
    from rd_elbo.training import fit, sharding

    own = problem(_COMPILED)
    mesh, seeds = sharding.make_mesh(None, own.members), own.hparams.seed.tolist()
    began = time.perf_counter()
    fit.compile_for(own.spec, mesh, seeds, own.data.shape, own.data.dtype.name)
    seconds = time.perf_counter() - began
    fitted = fit.fit(own.spec, [own.spec.model] * own.members, own.hparams, own.data, 1, mesh=mesh)
    return {"compile_seconds": seconds, "finite": bool(math.isfinite(fitted.metrics.loss.sum()))}


if __name__ == "__main__":
    print(json.dumps(_compile_once(pathlib.Path(sys.argv[1]))))
