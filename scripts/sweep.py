r"""Trains a grid of models and draws where they lie in the rate-distortion plane.

    python scripts/sweep.py --config=configs/quickstart.py --workdir=runs/mine
    python scripts/sweep.py --config=configs/quickstart.py:quick --workdir=runs/quick
    python scripts/sweep.py --config=configs/quickstart.py --workdir=runs/mine2 \
        --config.grid.beta="(0.1, 0.5, 1.0)" --config.train.epochs=3

The same command resumes what was interrupted; a larger grid in the same folder trains only what is
missing. --shard=0/4 to --shard=3/4 share one sweep among four processes (--shard=auto in a Slurm
array or step, --shard=auto/4 in a Kubernetes indexed job); --distributed makes one mesh of the
devices of all processes. --budget=25m stops after 25 minutes.

Exit codes: 0 when all members that this process answers for are trained, or the budget is spent; 1
when some failed, all diverged, or the folder could not be written to; 2 after one sentence on bad
input, before anything is trained or written; 143 after a termination signal, with what was done
saved; 130 after an interrupt.
"""

import dataclasses
import math
import os
import pathlib
import re
import sys
import time
import traceback
from typing import Any, NoReturn

import console as terminal
import jax
import points_table
from absl import app, flags, logging
from ml_collections import config_flags
from rich import box
from rich.console import Console
from rich.table import Table

from rd_elbo import disk, host, plots
from rd_elbo.data.cache import cache_folder
from rd_elbo.data.dataset import title
from rd_elbo.errors import BadInput, Failed
from rd_elbo.sweep import config as configs
from rd_elbo.sweep import overrides, refined
from rd_elbo.sweep import run as sweep
from rd_elbo.sweep import shard as shards
from rd_elbo.sweep.grid import Group
from rd_elbo.sweep.outcome import Outcome
from rd_elbo.training.fit import Stopped
from rd_elbo.training.sharding import agree
from rd_elbo.training.state import parameter_shapes

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Configuration: a Python file such as those in configs/, perhaps with :quick."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Run directory.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Remove the run in workdir first.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print chunks, steps and memory; train nothing.")
_SHARD = flags.DEFINE_string("shard", None, "Share of this process: i/n, auto or auto/n.")
_COLLECT = flags.DEFINE_bool("collect", False, "Only write tables of the finished members.")
_RETRAIN = flags.DEFINE_enum(
    "retrain", None, ["stale"], "Train again the members of another version of the code."
)
_BUDGET = flags.DEFINE_string("budget", None, "Stop after so long, such as 90s, 25m or 8h.")
_TENSORBOARD = flags.DEFINE_bool("tensorboard", False, "Write event files for TensorBoard too.")
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Make one mesh of the devices of all processes."
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "Address and port of process 0, host:port, outside a cluster that JAX knows.",
)
_PROCESSES = flags.DEFINE_integer("processes", None, "Number of processes, with --coordinator.")
_PROCESS = flags.DEFINE_integer(
    "process", None, "Index of this process, from 0, with --coordinator."
)


def seconds_of(budget: str) -> float:
    """Seconds of a duration such as 90s, 25m or 8h."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget)
    if not match or not float(match[1]):
        raise BadInput(f"budget={budget!r}: expected a duration such as 90s, 25m or 8h.")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def describe(plan: configs.Plan, console: Console, shard: shards.Shard) -> None:
    """Prints what a sweep would take."""
    chunks, shape = plan.chunks(), plan.dataset.image_shape
    owners = shards.owners([sum(plan.work(chunk)) for chunk in chunks], shard.count)
    names = ("chunk", "shard", "members", "family", "parameters", "steps", "GiB a device")
    table = Table(*names, box=box.SIMPLE)
    for i, (chunk, owner) in enumerate(zip(chunks, owners, strict=True)):
        families = ", ".join(dict.fromkeys(member.family for member in chunk.members))
        size = f"{sweep.memory_of(plan, chunk) / 2**30:.2g}"
        parameters = f"{parameters_of(chunk, shape):,}"
        row = (i, owner, len(chunk.members), families, parameters, plan.steps(chunk), size)
        table.add_row(*map(str, row))
    console.print(table)
    groups = len({plan.spec(chunk).model for chunk in chunks})
    line = f"{terminal.counted(groups, 'program')}, {terminal.counted(len(chunks), 'chunk')}"
    console.print(f"{line}; nothing was trained or written")
    if shard.count > 1:
        busiest = shards.imbalance([sum(plan.work(chunk)) for chunk in chunks], shard.count)
        console.print(
            f"The busiest of {shard.count} shards has {busiest:.2f} times the mean work. "
            f"Recommended: --config.population.chunk_size={recommended(plan, shard.count)}",
            soft_wrap=True,
        )


def parameters_of(chunk: Group, shape: tuple[int, ...]) -> int:
    """Parameters of each member of a chunk, padding included."""
    leaves = jax.tree.leaves(parameter_shapes(chunk.padded.build(shape), shape))
    return sum(math.prod(leaf.shape) for leaf in leaves)


def recommended(plan: configs.Plan, count: int) -> int:
    """The largest chunk size with which no shard has much more work than another."""
    most = max(len(chunk.members) for chunk in plan.chunks())

    def busiest(size: int) -> float:
        population = dataclasses.replace(plan.population, chunk_size=size)
        chunks = dataclasses.replace(plan, population=population).chunks()
        return shards.imbalance([sum(plan.work(chunk)) for chunk in chunks], count)

    sizes = sorted({max(1, most // k) for k in range(1, most + 1)}, reverse=True)
    best = min(map(busiest, sizes))
    return next(size for size in sizes if busiest(size) <= 1.1 * best)


def leave(code: int) -> NoReturn:
    """Ends the process before its work is done."""
    if jax.process_count() > 1:
        # An orderly end would wait for all processes to come to theirs.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def unusable(workdir: pathlib.Path, error: OSError) -> str:
    """What is wrong with a folder, in words."""
    where = f" {error.filename!r}" if error.filename else ""
    what = "read or written" if disk.passing(error) else "written"
    return f"{workdir}{where} cannot be {what} ({disk.gist(error)})"


def overridden() -> dict[str, Any]:
    """Fields of the configuration that flags set, such as "grid.beta", and their values."""
    return config_flags.get_override_values(flags.FLAGS["config"])


def prepare() -> tuple[configs.Plan, shards.Shard]:
    """Reads the flags and readies the process; raises `BadInput`."""
    for flag in (_CONFIG, _WORKDIR):
        if not flag.value and not (flag is _WORKDIR and _DRY_RUN.value):
            example = "--config=configs/quickstart.py --workdir=runs/mine"
            raise BadInput(terminal.missing(flag.name, example))
    # A fault of a file is one sentence; libraries would add their traces.
    logging.set_verbosity(logging.FATAL)
    config = _CONFIG.value.to_dict()
    overrides.check_effect(overridden(), config)
    population = config.get("population") or {}
    devices = population.get("devices")
    meeting = (_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    distributed = _DISTRIBUTED.value or any(given is not None for given in meeting)
    shard = shards.parse(_SHARD.value, os.environ) if _SHARD.value else shards.Shard()
    if distributed and _SHARD.value:
        raise BadInput(f"shard={_SHARD.value!r}: expected no shard with --distributed, got both.")
    host.configure(
        devices if isinstance(devices, int) and devices > 0 else None,
        cache_folder() / "xla",
        x64=population.get("dtype") == "float64",
    )
    if distributed:
        host.join(*meeting, report=terminal.warn)
        host.check_platform()
    try:
        plan = configs.load(config, terminal.warn)
    except BaseException:
        if distributed:
            agree("begin", b"cannot begin")
        raise
    # Later, where no process waits: bad input is reported before JAX has started.
    host.check_platform()
    return plan, shard


@terminal.guarded
def main(_: list[str]) -> None:
    limit = time.monotonic() + seconds_of(_BUDGET.value) if _BUDGET.value else None
    plan, shard = prepare()
    if _WORKDIR.value and not _OVERWRITE.value:
        plan = refined.extended(plan, pathlib.Path(_WORKDIR.value))
    # One of them speaks.
    console = terminal.make_console(quiet=jax.process_index() > 0)
    sizes = f"{len(plan.dataset.splits['train'])} training examples"
    own = f"; shard {shard}{f', {shard.origin}' if shard.origin else ''}" * (shard.count > 1)
    members = terminal.counted(len(plan.members), "member")
    line = f"{members} on {title(plan.dataset.name)} ({sizes}){own}"
    console.print(line, soft_wrap=True)
    if axes := overrides.in_words(plan.config):
        console.print(f"in every block: {axes}", soft_wrap=True)
    if values := overrides.of_blocks(overridden()):
        console.print(f"by flags: {values}", soft_wrap=True)
    origin = f"data: {plan.dataset.origin}"
    console.print(origin, soft_wrap=True)
    if _DRY_RUN.value:
        describe(plan, console, shard)
        return
    workdir, stop = pathlib.Path(_WORKDIR.value), host.Stop(deadline=limit)
    options = {"shard": shard, "report": terminal.warn, "tensorboard": _TENSORBOARD.value}
    options |= {"overwrite": _OVERWRITE.value, "collect": _COLLECT.value}
    try:
        with host.stop_on_signals(stop), terminal.progress_bar(console) as progress:
            outcome = sweep.run(
                plan,
                workdir,
                retrain_stale=bool(_RETRAIN.value),
                stop=stop,
                progress=progress,
                **options,
            )
    except Stopped as stopped:
        kept = "finished work is saved" if stopped.saved else "its last state could not be saved"
        spent = "the budget is spent: " * (stop.out_of_time and not stop.signalled)
        print(f"{spent}stopped {stopped}; {kept}, and the same command resumes", file=sys.stderr)
        if not spent or jax.process_count() > 1 or shard.count > 1:
            leave(0 if spent else host.STOPPED)
        outcome = sweep.run(plan, workdir, collect=True, report=terminal.warn)
    except (OSError, Failed) as error:
        why = unusable(workdir, error) if isinstance(error, OSError) else str(error)
        print(f"error: {why}; finished work is saved", file=sys.stderr)
        leave(1)
    except BadInput:
        raise
    except BaseException as error:
        if jax.process_count() == 1:
            raise
        if isinstance(error, KeyboardInterrupt):
            print("interrupted", file=sys.stderr)
            leave(130)
        traceback.print_exc()
        leave(1)
    finish(plan, workdir, outcome, console)


def finish(
    plan: configs.Plan, workdir: pathlib.Path, outcome: Outcome, console: Console
) -> NoReturn:
    """Draws the figures, prints the table, and ends with the exit code."""
    code = 1 if outcome.failed else 0
    if outcome.missing:
        missing = sorted(outcome.missing.items())
        shown = ", ".join(f"{terminal.counted(n, 'member')} of shard {i}" for i, n in missing)
        console.print(f"missing: {shown}", soft_wrap=True)
    if not outcome.written:
        sys.exit(code)
    usable = any(point["status"] == "ok" for point in outcome.points)
    try:
        drawn = plots.draw_all(workdir) if usable else []
    except OSError as error:
        sys.exit(f"error: {unusable(workdir, error)}; finished work is saved")
    # What only draws does not fail a run: matplotlib raises many kinds, by the user's own settings.
    except Exception as error:
        terminal.warn(f"figures could not be drawn ({disk.gist(error)}); run scripts/figures.py")
        drawn = []
    if outcome.points:
        shape = plan.dataset.image_shape
        dimensions = math.prod(shape) if plan.dataset.kind == "grey" else None
        split = next(iter(plan.evaluated))
        terminal.print_table(console, points_table.points_table(outcome.points, split, dimensions))
    times = ", ".join(f"{name} {terminal.duration(t)}" for name, t in outcome.seconds.items())
    if times:
        console.print(f"time by family: {times}", soft_wrap=True)
    where = f"{summary(outcome)}; points in {workdir / 'points.csv'}"
    pictures = ", ".join(str(path) for path in drawn if path.suffix == ".png")
    what = f"figures in {pictures}" if drawn else "and nothing drawn"
    console.print(f"{where}, {what}", soft_wrap=True)
    sys.exit(code if usable or (not outcome.points and outcome.missing) else 1)


def summary(outcome: Outcome) -> str:
    """One sentence on how the members ended."""
    ended = {point["member"]: point["status"] for point in outcome.points}
    diverged = sum(status != "ok" for status in ended.values())
    members = terminal.counted(len(ended) + len(outcome.failed), "member")
    said = f"{members}, {f'{diverged} of them diverged' if diverged else 'none diverged'}"
    again = f", {len(outcome.failed)} failed and will be tried again by the same command"
    return said + again * bool(outcome.failed)


if __name__ == "__main__":
    app.run(main, flags_parser=terminal.parse)
