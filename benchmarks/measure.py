"""Races of contenders in turn: times, ratios pair by pair, peak and memory."""

import ctypes
import gc
import math
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import contender, flops
from benchmarks.cases import CASES, SCALING, Case, Problem, problem
from benchmarks.contender import Contender
from rd_elbo.errors import BadInput

COLUMNS = (
    *("suite", "case", "contender", "members", "batch", "seconds_per_member_step", "low", "high"),
    *("ratio_to_ours", "ratio_low", "ratio_high", "member_steps_per_second", "gflops"),
    *("fraction_of_peak", "peak_gflops", "memory_mib", "first_seconds", "seconds", "turns"),
    *("agreement", "status", "note"),
)
# Suites of whole processes.
PROCESSES = ("quickstart", "compile")
MEASURED, ABSENT = "measured", "absent"
# Fewer turns than these say nothing; a contender that is slow has no more.
_FEWEST = 3
_MOST_STEPS = 256
_SIZES = (1024, 2048, 3072)
# Defaults: turns of each contender, and the aim of their length in seconds.
ROUNDS, SECONDS = 5, 1.0

Row = dict[str, Any]
Say = Callable[[str], None]


def builders(case: Case) -> dict[str, Callable[[Problem], Contender]]:
    """Import the contenders of a case that are installed, and not before."""
    from benchmarks import ours, plain

    made: dict[str, Any] = {
        "ours": ours.Evaluation if case.forward else ours.Population,
        "sequential": ours.Sequential,
        "vmap_flax": plain.VmapFlax,
    }
    wanted = [name for name in case.contenders if contender.missing(name) is None]
    if {"torch", "torch_func"} & set(wanted):
        from benchmarks import torch_contenders

        made |= {"torch": torch_contenders.Torch, "torch_func": torch_contenders.TorchFunc}
    if "pythae" in wanted:
        from benchmarks import pythae_contender

        made["pythae"] = pythae_contender.Pythae
    return {name: made[name] for name in wanted}


def gemm_peak(repeats: int = 5) -> float:
    """Measure the best GFLOP/s of a float32 product on all cores, by NumPy or JAX."""
    best = 0.0
    for size in _SIZES:
        a = np.random.RandomState(0).standard_normal((size, size)).astype(np.float32)
        on_device, product = jnp.asarray(a), jax.jit(jnp.matmul)
        ways = (
            lambda a=a: a @ a,
            lambda a=on_device, f=product: jax.block_until_ready(f(a, a)),
        )
        for way in ways:
            way()
            for _ in range(repeats):
                began = time.perf_counter()
                way()
                best = max(best, 2e-9 * size**3 / (time.perf_counter() - began))
    return best


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Median, lower and upper quartile."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return middle, low, high


class Memory:
    """Growth of this process's memory, MiB, while a contender is at work."""

    def __init__(self) -> None:
        self._before = self._rest()

    def grown(self, run: Callable[[], Any]) -> tuple[float | str, float]:
        """Run `run`.

        Returns:
          The most that is held above the beginning meanwhile, "" where nobody knows; and the
          seconds that it took.
        """
        self._rest()
        known = self._before is not None and _write("/proc/self/clear_refs", "5")
        began = time.perf_counter()
        run()
        spent = time.perf_counter() - began
        most = _status("VmHWM")
        if not known or most is None or self._before is None:
            return "", spent
        return max(0.0, (most - self._before) / 1024), spent

    @staticmethod
    def _rest() -> int | None:
        """KiB that are held once all that is free is handed back."""
        gc.collect()
        try:
            ctypes.CDLL(None).malloc_trim(0)
        except (OSError, AttributeError):
            return None
        return _status("VmRSS")


def _status(field: str) -> int | None:
    try:
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), None)


def _write(file: str, text: str) -> bool:
    try:
        pathlib.Path(file).write_text(text)
    except OSError:
        return False
    return True


def blank(case: Case, name: str, **own: Any) -> Row:
    """A row of the table with nothing measured."""
    about = {"suite": case.suite, "case": case.name, "contender": name}
    sizes = {"members": case.members, "batch": case.batch, "turns": 0}
    return dict.fromkeys(COLUMNS, "") | about | sizes | own


def run_case(case: Case, rounds: int, seconds: float, say: Say) -> list[Row]:
    """Measure the contenders of a case, all taking turns.

    Args:
      case: The case.
      rounds: Turns of each contender. One that is very slow has fewer, but three.
      seconds: Aim of a turn's length.
      say: Callback with a sentence about the progress.

    Returns:
      A row for each contender, absent ones included; nothing of the peak yet.

    Raises:
      Failed: If a contender does not compute what ours does.
    """
    shared, available = problem(case), builders(case)
    rows = {
        name: blank(case, name, status=ABSENT, note=contender.missing(name))
        for name in case.contenders
        if name not in available
    }
    for name in rows:
        say(f"{_of(case, name)}: absent, {rows[name]['note']}")
    made: dict[str, Contender] = {}
    steps, losses = {}, {}
    for name, build in available.items():
        memory = Memory()
        own = made[name] = build(shared)
        agreement = contender.check(_of(case, name), own, shared.probe)
        began = time.perf_counter()
        losses[name] = own.run(own.unit)
        first = time.perf_counter() - began
        if losses[name] is not None and name != "ours":
            # The first steps, from the same parameters.
            firsts = losses[name][:, 0], losses["ours"][:, 0]
            agreement = contender.same(_of(case, name), *firsts)
        held, once = memory.grown(lambda own=own: own.run(own.unit))
        steps[name], length = _turn(own, once, seconds)
        rows[name] = blank(case, name, members=own.members, status=MEASURED, note=own.note) | {
            "first_seconds": first,
            "memory_mib": held,
            "agreement": agreement,
        }
        say(f"{_of(case, name)}: ready, {length:.1f} s a turn")
    times = _race(made, steps, max(_FEWEST, rounds), 4 * rounds * seconds)
    for name, values in times.items():
        rows[name] |= _numbers(case, values, times["ours"]) | {"turns": len(values)}
        each = steps[name] * made[name].members
        rows[name]["seconds"] = rows[name]["seconds_per_member_step"] * each
    return [rows[name] for name in case.contenders]


def _race(
    made: dict[str, Contender], steps: dict[str, int], rounds: int, most: float
) -> dict[str, list[float]]:
    """Give turns until each has had its rounds, or `most` seconds and a few."""
    times: dict[str, list[float]] = {name: [] for name in made}
    spent = dict.fromkeys(made, 0.0)
    for _ in range(rounds):
        for name, own in made.items():
            if len(times[name]) < _FEWEST or spent[name] < most:
                began = time.perf_counter()
                own.run(steps[name])
                turn = time.perf_counter() - began
                spent[name] += turn
                times[name].append(turn / (steps[name] * own.members))
    return times


def _turn(own: Contender, once: float, seconds: float) -> tuple[int, float]:
    """Steps of a turn of about so many seconds, and its length.

    Args:
      own: The contender.
      once: Seconds of one unit, in memory that it had to ask for anew.
      seconds: Aim of the length.
    """
    most, units = _MOST_STEPS // own.unit, 1
    # One unit may be too short to tell, and what is slow is known to be.
    while once * units < 10 * seconds:
        began = time.perf_counter()
        own.run(units * own.unit)
        once = (time.perf_counter() - began) / units
        wanted = max(1, min(most, round(seconds / once)))
        if wanted <= 4 * units:
            return wanted * own.unit, wanted * once
        units = wanted // 4
    return own.unit, once


def _of(case: Case, name: str) -> str:
    return f"{case.suite}, {case.name}, {name}"


def _numbers(case: Case, values: list[float], ours: list[float]) -> Row:
    """What times, and those of ours in the same turns, say."""
    middle, low, high = quartiles(values)
    ratio, ratio_low, ratio_high = quartiles(
        [own / reference for own, reference in zip(values, ours, strict=False)]
    )
    row = {
        "seconds_per_member_step": middle,
        "low": low,
        "high": high,
        "ratio_to_ours": ratio,
        "ratio_low": ratio_low,
        "ratio_high": ratio_high,
        "member_steps_per_second": 1 / middle,
    }
    if not case.exact:
        operations = flops.per_step(case.member, case.batch, case.forward)
        row["gflops"] = 1e-9 * operations / middle
    return row


def with_peak(rows: list[Row], peak: float) -> list[Row]:
    """The rows, with the peak of the run and their part of it."""
    for row in rows:
        row["peak_gflops"] = peak
        if row["gflops"] != "":
            row["fraction_of_peak"] = row["gflops"] / peak
    return rows


def run_suite(
    name: str,
    rounds: int,
    seconds: float,
    say: Say,
    minutes: float = math.inf,
    only: str = "",
) -> list[Row]:
    """Measure the cases of a suite; those that the minutes do not suffice for say so.

    Args:
      name: A key of `cases.CASES`, or "scaling".
      rounds: Turns of each contender.
      seconds: Aim of a turn's length.
      say: Callback with a sentence about the progress.
      minutes: No case begins after these.
      only: Part of the names of the cases to measure; "" means all.

    Raises:
      BadInput: If there is no such case.
    """
    every = SCALING if name == "scaling" else CASES[name]
    cases = [case for case in every if only in case.name]
    if not cases:
        names = ", ".join(dict.fromkeys(case.name for case in every))
        raise BadInput(f"only={only!r}: expected a case of {name}, one of {names}.")
    began, rows, peak = time.perf_counter(), [], gemm_peak()
    for case in cases:
        if (time.perf_counter() - began) / 60 > minutes:
            rows += [blank(case, own, status="no time") for own in case.contenders]
            continue
        rows += run_case(case, rounds, seconds, say)
        jax.clear_caches()
    return with_peak(rows, max(peak, gemm_peak()))
