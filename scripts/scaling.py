"""Weak scaling: what a member-step costs as devices or processes are added, each with as many members as the first.

    python scripts/scaling.py --workdir=runs/scaling
    python scripts/scaling.py --workdir=runs/scaling --kinds mlp --units 1 2 --rounds 1

Sweeps of the quickstart's members are run as a user would run them, three ways: `alone`, so many processes that know nothing of
each other, each with a run directory and members of its own; `devices`, one process with so many devices; `processes`, so many
processes that share one sweep. Each process is bound to one core, as a cluster's scheduler would, and a process with several
devices to as many cores; where there are more of them than cores, all cores get equally many. `alone` is therefore one device at
equal load per core: what the others take beyond it is the price of sharing.

What is measured is the time in which steps are made, with everything that comes with them (metrics, status, and the states that
are saved once a minute, if it takes so long), as each part records it, without the first step, which compiles; and the seconds of
the whole job, from the command to its end. All ways take turns. Every run's tables and parameters are held against those of one
process with one device. Writes scaling.csv, a row per way and turn.
"""

import argparse
import contextlib
import csv
import itertools
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import console as terminal
from rich import box
from rich.console import Console
from rich.table import Table

from rd_elbo import disk, records
from rd_elbo.errors import BadInput, number, whole

_ROOT = pathlib.Path(__file__).parents[1]
WAYS = ("alone", "devices", "processes")
COLUMNS = (
    *("kind", "way", "units", "cores", "round", "members", "steps", "job_seconds", "training_seconds"),
    *("core_microseconds", "tables", "largest_difference"),
)
# The quickstart's blocks, and the steps of an epoch.
_BLOCKS = {
    "mlp": ("mlp", ("--config.grid.decoder_width=128",)),
    "pixelcnn": ("pixelcnn_small", ()),
}
_BATCH = {"mlp": 64, "pixelcnn": 8}
_EXAMPLES = 4096
# Members differ in beta from unit to unit, and in their seed within one.
_BETAS = (0.25, 0.5, 1.0, 2.0, 4.0, 0.1, 0.35, 0.7)
_COMMON = (
    "--config=configs/quickstart.py",
    f"--config.data.examples={_EXAMPLES}",
    "--config.data.splits=test",
    # Which is fastest is measured, and may be another in another run.
    "--config.population.strategy=vmap",
)


def command(kind: str, betas: Sequence[float], each: int, steps: int, workdir: pathlib.Path, *more: str) -> list[str]:
    """A sweep over some betas, with `each` members of every beta."""
    block, own = _BLOCKS[kind]
    grid = (
        f"--config.only=('{block}',)",
        f"--config.grid.beta={tuple(betas)}",
        f"--config.grid.seed={tuple(range(each))}",
        f"--config.train.epochs={steps * _BATCH[kind] / _EXAMPLES}",
    )
    return [sys.executable, str(_ROOT / "scripts" / "sweep.py"), *_COMMON, *own, *grid, f"--workdir={workdir}", *more]


def commands(way: str, kind: str, units: int, each: int, steps: int, folder: pathlib.Path) -> list[list[str]]:
    """The commands of all processes of a job; in `folder` are run, or run_0, run_1, ... of those alone."""
    betas = _BETAS[:units]
    if way == "alone":
        return [command(kind, betas[i : i + 1], each, steps, folder / f"run_{i}", *_one(each)) for i in range(units)]
    if way == "devices":
        several = (f"--config.population.devices={units}", f"--config.population.members={units * each}")
        return [command(kind, betas, each, steps, folder / "run", *several)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = f"--coordinator=127.0.0.1:{free.getsockname()[1]}"
    own = (*_one(each), where, f"--processes={units}")
    return [command(kind, betas, each, steps, folder / "run", *own, f"--process={i}") for i in range(units)]


def _one(each: int) -> tuple[str, str]:
    """One device, and parts of so many members."""
    return ("--config.population.devices=1", f"--config.population.members={each}")


def go(jobs: Sequence[Sequence[str]], places: Sequence[set[int]]) -> float:
    """Runs processes, each bound to some cores, to their end; the seconds until the last has ended."""
    began = time.perf_counter()
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with contextlib.ExitStack() as held:
        processes = []
        for job, cores in zip(jobs, places, strict=True):
            bind = lambda cores=cores: os.sched_setaffinity(0, cores)  # noqa: E731
            process = held.enter_context(subprocess.Popen(job, cwd=_ROOT, preexec_fn=bind, **pipes))
            held.callback(process.kill)
            processes.append(process)
        for process in processes:
            said = process.communicate()[1]
            if process.returncode:
                raise SystemExit(f"error: a sweep ended with exit code {process.returncode}: {said.strip()[-500:]}")
    return time.perf_counter() - began


def places(way: str, units: int, cores: Sequence[int]) -> list[set[int]]:
    """The cores of each process: one, in turn, or as many as a process has devices."""
    return [set(cores[:units])] if way == "devices" else [{cores[i % len(cores)]} for i in range(units)]


def compare(runs: Iterable[pathlib.Path], reference: pathlib.Path, betas: Sequence[float]) -> tuple[str, float]:
    """Whether rows and parameters of members are those of the reference, and how far apart rate or distortion are at most.

    Args:
      runs: Folders that have the members of all of `betas` between them, each once.
      reference: A folder that has them all.
      betas: Those of the members to be compared.

    Returns:
      "same" to the last byte, "rounded", or "wrong" if rows are missing or there twice; the largest difference of R or D in nats.
    """
    runs, equal, apart = list(runs), True, 0.0
    points = [row for row in _rows(reference, "points.csv") if float(row["beta"]) in betas]
    wanted = {row["member"] for row in points}
    metrics = [row for row in _rows(reference, "metrics.csv") if row["member"] in wanted]
    for table, known in (("points.csv", points), ("metrics.csv", metrics)):
        found = [row for run in runs for row in _rows(run, table)]
        by_key = {_key(row): row for row in known}
        if sorted(map(_key, found)) != sorted(map(_key, known)):
            return "wrong", apart
        equal &= all(row == by_key[_key(row)] for row in found)
        differences = [abs(float(row[name]) - float(by_key[_key(row)][name])) for row in found for name in ("rate", "distortion")]
        apart = max(apart, *differences) if table == "points.csv" else apart
    params = {path.stem: path.read_bytes() for run in runs for path in run.glob("params/*")}
    if set(params) != wanted:
        return "wrong", apart
    equal &= all((reference / "params" / f"{name}.msgpack").read_bytes() == content for name, content in params.items())
    return "same" if equal else "rounded", apart


def _key(row: dict[str, str]) -> tuple[str, str]:
    """A row's member, and split or step."""
    return row["member"], row.get("split") or row["step"]


def _rows(run: pathlib.Path, table: str) -> list[dict[str, str]]:
    with (run / table).open(newline="") as file:
        return list(csv.DictReader(file))


def training_seconds(runs: Iterable[pathlib.Path], parts: int) -> float:
    """What parts took to train, without their first steps: the mean over so many parts of all runs."""
    spent = [disk.read_json(run / "provenance.json")["seconds"] for run in runs]
    return sum(seconds["training"] - seconds["compiling"] for seconds in spent) / parts


def core_microseconds(seconds: float, cores: int, member_steps: int) -> float:
    """What a member-step takes of a core, where so many cores were busy for so many seconds."""
    return 1e6 * cores * seconds / member_steps


def measure(
    kind: str, units: Sequence[int], each: int, steps: int, rounds: int, folder: pathlib.Path, cores: Sequence[int]
) -> Iterable[dict[str, Any]]:
    """A row per way, number of units, and turn."""
    # One device, one part after another: the members of every other run.
    reference = folder / "reference"
    go([command(kind, _BETAS[: max(units)], each, steps, reference, *_one(each))], places("alone", 1, cores))
    ways = [("alone", count) for count in units] + [(way, count) for count in units if count > 1 for way in WAYS[1:]]
    for way, count in ways:  # so that programs are in the cache
        go(commands(way, kind, count, each, 2, folder / "warm"), places(way, count, cores))
        shutil.rmtree(folder / "warm")
    for turn, (way, count) in itertools.product(range(rounds), ways):
        shutil.rmtree(folder / "now", ignore_errors=True)
        job = go(commands(way, kind, count, each, steps, folder / "now"), places(way, count, cores))
        runs, used, members = list((folder / "now").glob("run*")), min(count, len(cores)), count * each
        tables, apart = compare(runs, reference, _BETAS[:count])
        seconds = training_seconds(runs, 1 if way == "devices" else count)
        cost = core_microseconds(seconds, used, members * (steps - 1))
        row = (kind, way, count, used, turn, members, steps, job, seconds, cost, tables, apart)
        yield dict(zip(COLUMNS, row, strict=True))


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians over turns: microseconds of a core per member-step; and what it is above `alone`, with as many and with one."""
    turns = sorted({row["round"] for row in rows})
    cost = {(row["kind"], row["way"], row["units"], row["round"]): row["core_microseconds"] for row in rows}
    found = []
    for kind, way, units in dict.fromkeys((row["kind"], row["way"], row["units"]) for row in rows):
        own = [cost[kind, way, units, turn] for turn in turns]

        def above(others: int, kind: str = kind, own: list[float] = own) -> float:
            return statistics.median(mine / cost[kind, "alone", others, turn] for mine, turn in zip(own, turns, strict=True)) - 1

        same = [row for row in rows if (row["kind"], row["way"], row["units"]) == (kind, way, units)]
        found.append(
            {
                "kind": kind,
                "way": way,
                "units": units,
                "cores": same[0]["cores"],
                "members": same[0]["members"],
                "job_seconds": statistics.median(row["job_seconds"] for row in same),
                "core_microseconds": statistics.median(own),
                "least": min(own),
                "most": max(own),
                "overhead": above(units),
                "over_one": above(min(row["units"] for row in rows)),
                "tables": max((row["tables"] for row in same), key=("same", "rounded", "wrong").index),
                "largest_difference": max(row["largest_difference"] for row in same),
            }
        )
    return found


def show(found: Sequence[dict[str, Any]]) -> Table:
    """The summary, narrow enough for 80 columns."""
    title = "a core's µs per member-step; how much above `alone`, and above one; tables: the same, or ±nats"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 0), pad_edge=False)
    for name in ("kind", "units"):
        table.add_column(name, no_wrap=True)
    for name in ("cores", "members", "job, s", "median", "least", "most", "alone", "one", "tables"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in found:
        times = [f"{row['job_seconds']:.0f}", *(f"{row[name]:.0f}" for name in ("core_microseconds", "least", "most"))]
        above = [f"{row[name]:+.1%}" for name in ("overhead", "over_one")]
        tables = f"±{row['largest_difference']:.0e}" if row["tables"] == "rounded" else row["tables"]
        table.add_row(row["kind"], f"{row['units']} {row['way']}", str(row["cores"]), str(row["members"]), *times, *above, tables)
    return table


@terminal.guarded
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="a folder for the runs and the table")
    parser.add_argument("--kinds", nargs="+", default=list(_BLOCKS), choices=list(_BLOCKS), help="of members; by default all")
    parser.add_argument("--units", nargs="+", type=int, default=[1, 2, 4], help="devices and processes")
    parser.add_argument("--members", type=int, default=4, help="of each device")
    parser.add_argument("--seconds", type=float, default=10.0, help="about how long one device trains")
    parser.add_argument("--rounds", type=int, default=3, help="turns of every way")
    args = parser.parse_args()
    if not hasattr(os, "sched_setaffinity"):
        raise BadInput("processes cannot be bound to cores on this system; it takes Linux")
    for units in args.units:
        if whole("--units", units) > len(_BETAS):
            raise BadInput(f"--units={units} must be at most {len(_BETAS)}")
    for name in ("members", "rounds"):
        whole(f"--{name}", getattr(args, name))
    number("--seconds", args.seconds, above=True)
    units, cores = sorted({1, *args.units}), sorted(os.sched_getaffinity(0))
    for count in units:
        if count > len(cores) and count % len(cores):
            raise BadInput(f"--units={count} cannot be shared evenly by {len(cores)} cores; give a multiple of them, or fewer")
    with terminal.writing(args.workdir):
        args.workdir.mkdir(parents=True, exist_ok=True)
    folder, console, rows, began = args.workdir.absolute() / "runs", Console(highlight=False), [], time.perf_counter()
    for kind in dict.fromkeys(args.kinds):
        shutil.rmtree(folder, ignore_errors=True)
        steps = length(kind, args.members, args.seconds, folder / "length", cores)
        console.print(f"{kind}: {steps} steps")
        for row in measure(kind, units, args.members, steps, args.rounds, folder, cores):
            rows.append(row)
            disk.write_table(args.workdir / "scaling.csv", COLUMNS, rows)
            times = f"{row['core_microseconds']:.1f} core-µs per member-step"
            console.print(f"{kind}, {row['units']} {row['way']}, turn {row['round']}: {times}, tables {row['tables']}")
    shutil.rmtree(folder, ignore_errors=True)
    about = {"name": "mnist_static", "origin": "embedded", "sha256": None}
    seconds = {"total": time.perf_counter() - began}
    disk.write_json(args.workdir / "provenance.json", records.provenance(about, sys.argv, seconds))
    console.print(show(summary(rows)))
    sys.exit(1 if any(row["tables"] == "wrong" for row in rows) else 0)


def length(kind: str, each: int, seconds: float, folder: pathlib.Path, cores: Sequence[int]) -> int:
    """Steps for which one device trains for about so many seconds."""
    few = 256
    go([command(kind, _BETAS[:1], each, few, folder / "run", *_one(each))], places("alone", 1, cores))
    return max(few, round(seconds * few / training_seconds([folder / "run"], 1)))


if __name__ == "__main__":
    main()
