"""Trains every family at the paper's size for a few steps and reports the time of a step.

    python scripts/full_size.py --workdir=runs/full_size
    python scripts/full_size.py --workdir=runs/full_size --families="---,++v" --steps=40

Models and training are those of configs/mnist_paper.py at beta = 1, but for the length: a batch of
100 a step. Each family gets a process of its own, so that the memory is its own. Writes
full_size.csv: parameters, seconds per step (after the first few, which compile), the process's
largest memory while training, the loss R + D of the first and of the last steps, means over a
quarter of them, and the seconds it takes to draw 16 images from the model, z and all (the second
time, when nothing is compiled).
"""

import argparse
import concurrent.futures
import multiprocessing
import pathlib
import sys
import time
from typing import Any

import console as terminal
from rich import box
from rich.table import Table

from rd_elbo import disk, host
from rd_elbo.errors import BadInput, choice
from rd_elbo.models.family import PAPER_FAMILIES
from rd_elbo.sweep import provenance

COLUMNS = (
    "family",
    "parameters",
    "batch_size",
    "steps",
    "first_seconds",
    "seconds_per_step",
    "memory_gib",
    "first_loss",
    "last_loss",
    "images",
    "sample_seconds",
)
_IMAGES = 16
# Steps of the first call, which compiles; the others are timed.
_FIRST = 4


def measure(family: str, steps: int) -> dict[str, Any]:
    """A row of the table; runs in a process of its own."""
    # One member has one device, which then has all cores.
    host.configure(1)
    import math
    import resource

    import jax

    from rd_elbo import data
    from rd_elbo.models.family import paper_family
    from rd_elbo.sweep import grid, presets
    from rd_elbo.training import fit, state

    decoder = presets.PAPER_STRONG if family[1] == "+" else presets.PAPER_WEAK
    sizes = presets.PAPER_PARTS | decoder
    member = grid.Member(**paper_family(family), **sizes, **presets.PAPER_TRAINING)
    images = data.load("mnist_static").splits["train"]
    model = member.build(images.shape[1:])
    spec = state.TrainSpec(
        model,
        member.objective,
        member.batch_size,
        member.schedule,
        member.optimizer,
        call_steps=_FIRST,
    )
    times: list[tuple[int, float]] = []

    def note(progress: fit.Progress, _: Any) -> None:
        times.append((progress.steps, time.perf_counter()))

    hparams = state.HParams.of([member], spec)
    fitted = fit.fit(spec, [model], hparams, images, steps, callback=note)
    # The first calls find out how long a call should be.
    first = next((i for i, (made, _) in enumerate(times) if made >= _FIRST), 0)
    (steps_before, before), (steps_after, after) = times[first], times[-1]
    # Linux counts kibibytes.
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    loss, part = fitted.metrics.loss[0], max(1, steps // 4)

    @jax.jit
    def sample(params: Any, key: jax.Array) -> jax.Array:
        of_z, of_x = jax.random.split(key)
        prior = model.prior_distribution(params, images[:1].astype("float32"))
        z = prior.sample(seed=of_z, sample_shape=_IMAGES)
        return model.decode(params, z).sample(seed=of_x)

    params = jax.tree.map(lambda leaf: leaf[0], fitted.params)
    for seed in range(2):
        began = time.perf_counter()
        sample(params, jax.random.key(seed)).block_until_ready()
        sample_seconds = time.perf_counter() - began
    parameters = [math.prod(leaf.shape[1:]) for leaf in jax.tree.leaves(fitted.params)]
    return {
        "family": family,
        "parameters": sum(parameters),
        "batch_size": member.batch_size,
        "steps": int(fitted.steps[0]),
        "first_seconds": fitted.compile_seconds,
        "seconds_per_step": (after - before) / (steps_after - steps_before),
        "memory_gib": memory,
        "first_loss": float(loss[:part].mean()),
        "last_loss": float(loss[-part:].mean()),
        "images": _IMAGES,
        "sample_seconds": sample_seconds,
    }


@terminal.guarded
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    families_help = "with commas between; by default all twelve"
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="the table's folder")
    parser.add_argument("--families", default=",".join(PAPER_FAMILIES), help=families_help)
    parser.add_argument("--steps", type=int, default=20, help="of each")
    args = parser.parse_args()
    families = args.families.split(",")
    for family in families:
        choice("--families", family, PAPER_FAMILIES)
    if args.steps < 2 * _FIRST:
        raise BadInput(
            f"--steps={args.steps}: expected at least {2 * _FIRST}; the first {_FIRST} are not "
            "timed."
        )
    # Found out now, not when the first family has been trained.
    with terminal.writing(args.workdir):
        args.workdir.mkdir(parents=True, exist_ok=True)
    began, rows, console = time.perf_counter(), [], terminal.make_console()
    for family in families:
        fresh = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, fresh) as process:
            row = process.submit(measure, family, args.steps).result()
        rows.append(row)
        disk.write_table(args.workdir / "full_size.csv", COLUMNS, rows)
        took = f"{row['seconds_per_step']:.2f} s a step, {row['memory_gib']:.1f} GiB"
        console.print(f"{family}  {took}")
    host.configure(1)
    about = {"name": "mnist_static", "origin": "embedded", "sha256": None}
    seconds = {"total": time.perf_counter() - began}
    record = provenance.provenance(about, sys.argv, seconds)
    disk.write_json(args.workdir / "provenance.json", record)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    shown = {
        "seconds_per_step": "s / step",
        "memory_gib": "GiB",
        "first_loss": "first loss",
        "last_loss": "last loss",
        "sample_seconds": f"s / {_IMAGES} images",
    }
    table.add_column("family", no_wrap=True)
    for name in ("parameters", *shown.values()):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        numbers = [f"{row[name]:.2f}" for name in shown]
        table.add_row(row["family"], f"{row['parameters']:,}", *numbers)
    console.print(table)


if __name__ == "__main__":
    main()
