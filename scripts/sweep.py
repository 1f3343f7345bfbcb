r"""Trains a grid of models and draws where they lie in the rate-distortion plane.

    python scripts/sweep.py --config=configs/quickstart.py --workdir=runs/mine
    python scripts/sweep.py --config=configs/quickstart.py:quick --workdir=runs/quick
    python scripts/sweep.py --config=configs/quickstart.py --workdir=runs/mine2 \
        --config.grid.beta="(0.1, 0.5, 1.0)" --config.train.epochs=3

The same command goes on where it was interrupted, by whatever; a larger grid in the same folder trains only what is missing.

Exit codes: 0 when all members are in the table; 1 when some failed, all diverged, or the folder could not be written to; 2 after
one sentence on bad input, before anything is trained or written; 143 after a termination signal, with what was done saved; 130
after an interrupt, from which the same command goes on as from a kill.
"""

import os
import pathlib
import sys
import traceback
from typing import NoReturn

import console as terminal
from absl import app, flags, logging
from ml_collections import config_flags
from rich import box
from rich.console import Console
from rich.table import Table

from rd_elbo import disk, forecast, host, hosts, live, planning, plotting, sweep, train, worker
from rd_elbo.data.cache import cache_folder
from rd_elbo.errors import BadInput, Failed

_CONFIG = config_flags.DEFINE_config_file("config", None, "What to train: a file in configs/, perhaps with :quick.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The run directory to fill.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Remove what a run has left in workdir and begin anew, each time.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only tell what would be trained, in what memory and what time.")
_REPLAY = flags.DEFINE_string("replay", None, "A run directory: divide and run the members as was done there.")
_TENSORBOARD = flags.DEFINE_bool("tensorboard", False, "Also write event files, a folder per member, in workdir/tensorboard.")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "One process of several; where they meet is asked of the cluster.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "Where they meet outside a cluster: address:port of process 0.")
_PROCESSES = flags.DEFINE_integer("processes", None, "How many they are.")
_PROCESS = flags.DEFINE_integer("process", None, "Which of them this is, from 0.")


def tell(plan: planning.Plan, workdir: pathlib.Path | None, console: Console) -> None:
    """Prints what a sweep would take."""
    forecasts = list(forecast.forecast(plan, forecast.peek(plan, workdir)))
    table = Table("members", "steps", "how", "memory", "ms a step", "time", box=box.SIMPLE)
    for f in forecasts:
        step = f"{1000 * f.training / f.steps:.3g}"
        memory = f.room.compare(f.choice.need) + ("" if f.fits else ", which is too little")
        table.add_row(worker.described(f.part), str(f.steps), f.choice.how, memory, step, terminal.duration(f.seconds))
    console.print(table)
    missing, seconds = sum(len(f.part.members) for f in forecasts), sum(f.seconds for f in forecasts)
    done = len(plan.members) - missing
    console.print(
        f"{terminal.counted(missing, 'member')} in {terminal.counted(len(forecasts), 'part')}, about {terminal.duration(seconds)}"
        f"{f'; {done} found done' if done else ''}; nothing was written",
        highlight=False,
    )


def leave(code: int, together: hosts.Hosts) -> NoReturn:
    """Ends the process before its work is done."""
    if together.count > 1:
        # An orderly end would wait for all processes to come to theirs.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def unusable(workdir: pathlib.Path, error: OSError) -> str:
    """What is wrong with a folder, in words."""
    where = f" {error.filename!r}" if error.filename else ""
    return f"{workdir}{where} cannot be {'read or written' if disk.passing(error) else 'written'} ({disk.gist(error)})"


@terminal.guarded
def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise BadInput(f"{argv[1]!r} is not understood; everything is given as --flag=value")
    for flag in (_CONFIG, _WORKDIR):
        if not flag.value and not (flag is _WORKDIR and _DRY_RUN.value):
            raise BadInput(f"--{flag.name} is missing; for example --config=configs/quickstart.py --workdir=runs/mine")
    # What goes wrong with a file is told in a sentence; libraries would add their traces.
    logging.set_verbosity(logging.FATAL)
    config = _CONFIG.value.to_dict()
    population = config.get("population") or {}
    devices = population.get("devices")
    x64 = population.get("dtype") == "float64"
    host.configure(devices if isinstance(devices, int) and devices > 0 else None, cache_folder() / "xla", x64=x64)

    writer = live.event_writer() if _TENSORBOARD.value else None
    meeting = (_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    together = hosts.join(*meeting) if _DISTRIBUTED.value or any(given is not None for given in meeting) else hosts.Hosts()
    # One of them speaks.
    console = Console(quiet=together.index > 0)
    try:
        plan = planning.make_plan(config)
    except BaseException:
        together.agree(False)
        raise
    if not together.agree(True)[0]:
        raise BadInput("another process cannot begin; it says why")
    console.print(
        f"{terminal.counted(len(plan.members), 'member')} on {plan.dataset.name} "
        f"({len(plan.dataset.splits['train'])} training images)",
        highlight=False,
    )

    if _DRY_RUN.value:
        tell(plan, pathlib.Path(_WORKDIR.value) if _WORKDIR.value else None, console)
        return
    workdir = pathlib.Path(_WORKDIR.value)

    def note(sentence: str) -> None:
        console.print(sentence, soft_wrap=True, highlight=False)

    try:
        with terminal.stoppable() as stop, terminal.progress(console) as listener:
            told = {"stop": stop, "report": terminal.warn, "note": note, "writer": writer, "replay": _REPLAY.value}
            outcome = sweep.run(plan, workdir, listener, _OVERWRITE.value, **told, hosts=together)
    except train.Stopped as stopped:
        kept = "what is done is saved" if stopped.saved else "its last state could not be saved"
        print(f"stopped {stopped}; {kept}, and the same command goes on from there", file=sys.stderr)
        leave(terminal.STOPPED, together)
    except OSError as error:
        print(f"error: {unusable(workdir, error)}; what is done is kept", file=sys.stderr)
        leave(1, together)
    except Failed as error:
        print(f"error: {error}; what is done is kept", file=sys.stderr)
        leave(1, together)
    except BadInput:
        raise
    except BaseException as error:
        if together.count == 1:
            raise
        if isinstance(error, KeyboardInterrupt):
            print("interrupted", file=sys.stderr)
            leave(130, together)
        traceback.print_exc()
        leave(1, together)
    # From here on all processes end, and in order: each waits for the others.
    if together.index:
        sys.exit(1 if outcome.failed else 0)
    usable = any(point["status"] == "ok" for point in outcome.points)
    try:
        pictures = [str(path) for path in plotting.draw_all(workdir) if path.suffix == ".png"] if usable else []
    except OSError as error:
        sys.exit(f"error: {unusable(workdir, error)}; what is done is kept")
    if outcome.points:
        console.print(terminal.points_table(outcome.points, plan.splits[0]))
    where = f"{sweep.summary(outcome)}; points in {workdir / 'points.csv'}"
    if all(point["status"] != "ok" for point in outcome.points):
        console.print(f"{where}, and nothing to draw", soft_wrap=True, highlight=False)
        sys.exit(1)
    console.print(f"{where}, figures in {', '.join(pictures)}", soft_wrap=True, highlight=False)
    sys.exit(1 if outcome.failed else 0)


if __name__ == "__main__":
    app.run(main, flags_parser=terminal.parse)
