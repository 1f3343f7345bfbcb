"""Measures member-steps per second on a device, by model, members, lowering and arithmetic.

    python scripts/benchmark_device.py --minutes=8 --output=results/benchmarks/device.csv
    python scripts/benchmark_device.py --minutes=1 --output=/tmp/device.csv --tiny  # any machine

First the device's own ceilings: a large matrix product in float32, in the platform's default (TF32
on recent GPUs) and in bfloat16, and a large copy. Then populations in the order of `plan`, until
the minutes are over; a row is written after each. A row that does not fit into memory, or that a
platform cannot compile, says so in `error`. Steps are those of training, Adam and all, on real
digits, batch 128, by `training.fit` for two seconds; the median over its calls is reported.
Operations are XLA's count of rate and distortion of one batch, times three. `lowering` is that of
convolutions, `models.lowering`; "one by one" advances one member after another.
"""

import argparse
import contextlib
import csv
import dataclasses
import itertools
import pathlib
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import console as terminal
import jax
import jax.numpy as jnp
import numpy as np

from rd_elbo import data
from rd_elbo.disk import write_json
from rd_elbo.errors import number
from rd_elbo.models.family import paper_family
from rd_elbo.sweep import grid, memory, provenance
from rd_elbo.sweep.work import work
from rd_elbo.training import fit as training
from rd_elbo.training.sharding import make_mesh
from rd_elbo.training.state import HParams, TrainSpec

BATCH = 128
_WEAK = {**paper_family("---"), "encoder_depth": 2, "decoder_depth": 2}


def _member(encoder_width: int, decoder_width: int, **parts: Any) -> grid.Member:
    return grid.Member(
        encoder_width=encoder_width, decoder_width=decoder_width, batch_size=BATCH, **parts
    )


MODELS = {
    "dense": _member(512, 512, encoder_depth=2, decoder_depth=2, latent=64),
    "conv_small": _member(8, 8, **_WEAK, latent=32),
    "conv": _member(32, 32, **_WEAK, latent=64),
    "pixelcnn": _member(128, 32, decoder="pixelcnn", decoder_depth=4),
    "pixelvae": _member(32, 32, encoder="conv", decoder="pixelvae", causal_depth=4, latent=64),
    "pixelcnnpp": _member(32, 64, encoder="conv", decoder="pixelcnnpp", decoder_depth=2, latent=64),
}
TINY = {"dense": _member(8, 8, latent=4)}
COLUMNS = (
    *("model", "members", "lowering", "arithmetic", "batch", "seconds_per_member_step"),
    *("spread", "member_steps_per_second", "flops_per_second", "fraction_of_peak"),
    *("memory_gib", "compile_seconds", "error"),
)
ONE_BY_ONE = "one by one"
ARITHMETIC = {
    "float32": {"precision": "highest"},
    "default": {"precision": "default"},
    "bfloat16": {"precision": "default", "compute_dtype": "bfloat16"},
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One population to measure."""

    model: str
    members: int
    lowering: str
    arithmetic: str


def plan() -> Iterator[Case]:
    """What to measure, most useful first."""
    for arithmetic in ("default", "bfloat16"):
        for lowering in (ONE_BY_ONE, "looped", "grouped"):
            yield Case("pixelvae", 4, lowering, arithmetic)
            yield Case("conv", 4, lowering, arithmetic)
    for lowering in ("looped", "grouped", "matmul", ONE_BY_ONE):
        yield Case("conv_small", 16, lowering, "default")
    for lowering in ("auto", ONE_BY_ONE):
        yield Case("dense", 16, lowering, "default")
    for members in (1, 4, 64, 256):
        yield Case("dense", members, "auto", "default")
    for arithmetic in ("bfloat16", "float32"):
        yield Case("dense", 16, "auto", arithmetic)
    for arithmetic in ("default", "bfloat16"):
        yield Case("pixelcnnpp", 2, ONE_BY_ONE, arithmetic)
        yield Case("pixelcnnpp", 2, "looped", arithmetic)
        yield Case("conv", 4, "matmul", arithmetic)
    for members in (1, 4, 64):
        for lowering in ("looped", "grouped", "matmul"):
            yield Case("conv_small", members, lowering, "default")
    for lowering in ("looped", "grouped", "matmul", ONE_BY_ONE):
        for arithmetic in ("default", "bfloat16"):
            yield Case("pixelcnn", 16, lowering, arithmetic)
    for members in (1, 16):
        for lowering in ("looped", "matmul", ONE_BY_ONE):
            yield Case("conv", members, lowering, "bfloat16")
    yield Case("conv", 4, ONE_BY_ONE, "float32")
    for members in (1, 4, 64):
        yield Case("pixelcnn", members, "looped", "default")


def tiny_plan() -> Iterator[Case]:
    """The same in seconds."""
    for lowering in ("auto", ONE_BY_ONE):
        yield Case("dense", 2, lowering, "default")


def seconds(run: Any, repeats: int = 5) -> list[float]:
    """Wall times of `run`, which returns an array, after one call to warm up."""
    jax.block_until_ready(run())
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - began)
    return times


def ceilings(size: int) -> dict[str, float]:
    """Operations a second of matrix products, and bytes a second of a copy, read and written."""
    found = {}
    for name, dtype, precision in (
        ("float32", "float32", "highest"),
        ("default", "float32", "default"),
        ("bfloat16", "bfloat16", "default"),
    ):
        a = jax.random.normal(jax.random.key(0), (size, size), dtype)
        product = jax.jit(lambda a, precision=precision: jnp.matmul(a, a, precision=precision))
        times = seconds(lambda a=a, product=product: product(a))
        found[name] = 2 * size**3 / statistics.median(times)
    a = jax.random.normal(jax.random.key(0), (16 * size, size))
    copy = jax.jit(lambda a: a + 1)
    found["copy"] = 2 * a.nbytes / statistics.median(seconds(lambda: copy(a)))
    return found


def spec_of(case: Case, member: grid.Member, shape: tuple[int, int]) -> TrainSpec:
    """What is compiled for a case."""
    by_member = case.lowering == ONE_BY_ONE
    return TrainSpec(
        member.build(shape),
        batch_size=BATCH,
        optimizer=member.optimizer,
        vmap_size=1 if by_member else case.members,
        lowering="auto" if by_member else case.lowering,
        **ARITHMETIC[case.arithmetic],
    )


def compiled(case: Case, member: grid.Member, images: np.ndarray) -> tuple[Any, float]:
    """The program of a case and the seconds it took to compile, or what kept it from being so."""
    began, mesh = time.perf_counter(), make_mesh(1)
    try:
        spec, seeds = spec_of(case, member, images.shape[1:]), range(case.members)
        program = training.compile_for(spec, mesh, seeds, images.shape, images.dtype.name)
        return program, time.perf_counter() - began
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        return error, time.perf_counter() - began


def measure(
    case: Case, member: grid.Member, images: np.ndarray, made: Any, seconds: float
) -> dict[str, Any]:
    """A row's numbers, from a training of some seconds; `made` is its compiled program."""
    spec = spec_of(case, member, images.shape[1:])
    members = [dataclasses.replace(member, seed=i) for i in range(case.members)]
    marks: list[tuple[float, int, int]] = []

    def mark(seen: training.Progress, _: Any) -> None:
        marks.append((time.perf_counter(), seen.steps, seen.alive))

    def enough() -> bool:
        return len(marks) > 5 and marks[-1][0] - marks[0][0] > seconds

    with contextlib.suppress(training.Stopped):
        hparams, length = HParams.of(members, spec), 10**6
        training.fit(
            spec,
            [spec.model] * len(members),
            hparams,
            images,
            length,
            mesh=make_mesh(1),
            metrics_every=length,
            callback=mark,
            stop=enough,
        )
    calls = [
        (now - then, after - before)
        for (then, before, _), (now, after, _) in itertools.pairwise(marks)
    ]
    longest = max(steps for _, steps in calls)
    each = [spent / steps / len(members) for spent, steps in calls if steps == longest]
    best = statistics.median(each)
    operations = 3 * work(grid.architecture_of(member), images.shape[1:], BATCH)
    return {
        "seconds_per_member_step": best,
        "spread": (max(each) - min(each)) / best,
        "member_steps_per_second": 1 / best,
        "flops_per_second": operations / best,
        "memory_gib": memory.needed(made) / 2**30,
        "error": "" if marks[-1][2] == len(members) else "diverged",
    }


def attempt(
    case: Case, images: np.ndarray, made: Any, peaks: dict[str, float], tiny: bool
) -> dict[str, Any]:
    """A row's numbers with its part of the device's ceiling, or the error that prevented them."""
    member, seconds = (TINY if tiny else MODELS)[case.model], 0.1 if tiny else 2.0
    try:
        found = measure(case, member, images, made, seconds)
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        return {"error": gist(error)}
    return {**found, "fraction_of_peak": found["flops_per_second"] / peaks[case.arithmetic]}


def gist(error: Exception) -> str:
    """The beginning of an error's first line."""
    return str(error).splitlines()[0][:200]


def line(row: dict[str, Any]) -> str:
    """A row as it is printed."""
    nothing = float("nan")
    ms = 1e3 * row.get("seconds_per_member_step", nothing)
    return (
        f"{row['model']:11} {row['members']:4} {row['lowering']:10} {row['arithmetic']:9} "
        f"{ms:9.3f} ms/member-step {row.get('fraction_of_peak', nothing):6.1%} of peak "
        f"{row.get('memory_gib', 0):6.2f} GiB compiled in {row['compile_seconds']:5.1f} s "
        f"{row.get('error', '')}"
    )


@terminal.guarded
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    table_help = "the table, a CSV file; a JSON file goes beside it"
    tiny_help = "tiny models, for a machine without an accelerator"
    parser.add_argument("--minutes", type=float, default=20.0, help="when to stop")
    parser.add_argument("--output", type=pathlib.Path, required=True, help=table_help)
    parser.add_argument("--tiny", action="store_true", help=tiny_help)
    parser.add_argument("--only", default="", help="models, with commas between")
    args = parser.parse_args()
    number("--minutes", args.minutes, above=True)
    began, models = time.perf_counter(), TINY if args.tiny else MODELS
    wanted = args.only.split(",") if args.only else list(models)
    cases = [case for case in (tiny_plan() if args.tiny else plan()) if case.model in wanted]
    args.output.parent.mkdir(parents=True, exist_ok=True)
    images = data.load("mnist_static").splits["train"][: 16 * BATCH]
    peaks = ceilings(256 if args.tiny else 8192)
    print(" ".join(f"{name} {rate / 1e12:.3g} T/s" for name, rate in peaks.items()), flush=True)
    # Compiling needs a core and little of the device, so the next programs are compiled while one
    # is measured; what is measured waits for no one, and shares the device with autotuning alone.
    workers = 1 if args.tiny else 6
    with args.output.open("w", newline="") as file, ThreadPoolExecutor(workers) as pool:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        waiting: list[tuple[Case, Future[Any]]] = []
        while cases or waiting:
            if (time.perf_counter() - began) / 60 > args.minutes:
                break
            batch, cases = cases[:6], cases[6:]
            waiting = [
                (case, pool.submit(compiled, case, models[case.model], images)) for case in batch
            ]
            # All of a batch are compiled before any is timed.
            for _, future in waiting:
                future.result()
            for case, future in waiting:
                made, compile_seconds = future.result()
                row = {**dataclasses.asdict(case), "batch": BATCH}
                row["compile_seconds"] = compile_seconds
                if isinstance(made, Exception):
                    row["error"] = gist(made)
                elif (time.perf_counter() - began) / 60 > args.minutes:
                    break
                else:
                    row |= attempt(case, images, made, peaks, args.tiny)
                table.writerow(row)
                file.flush()
                print(line(row), flush=True)
            waiting = []
    about = {"name": "mnist_static", "origin": "embedded", "sha256": None}
    record = provenance.provenance(about, sys.argv, {"total": time.perf_counter() - began})
    write_json(args.output.with_suffix(".json"), {**record, "ceilings": peaks})


if __name__ == "__main__":
    main()
