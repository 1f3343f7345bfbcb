r"""Proposes betas where the frontier of a sweep is sparse, and trains them with --train.

    python scripts/refine.py --workdir=runs/mine
    python scripts/refine.py --workdir=runs/mine --train --tolerance=1 --most=8

A corner of the convex hull that was trained at beta lies on a line of slope -beta, and no model of
its kind is below that line. Two neighbouring lines meet below their chord. The area of that
triangle is the most that members between them can gain; the slope of the chord is their beta.

--train adds the members to the run directory (refined.json), trains them and proposes again, until
the largest area is below --tolerance or --most members are added. The sweep's own command keeps
them. Only members of the objective "beta" are refined.

Exit codes: 0; 1 when a member failed or the folder could not be written to; 2 after one sentence on
bad input; 143 after a termination signal, with its state saved; 130 after an interrupt.
"""

import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import console as terminal
import points_table
from absl import app, flags, logging
from rich import box
from rich.console import Console
from rich.table import Table

from rd_elbo import disk, host, plots
from rd_elbo.data.cache import cache_folder
from rd_elbo.errors import BadInput, Failed, number, whole
from rd_elbo.sweep import config as configs
from rd_elbo.sweep import refined, restore, tables
from rd_elbo.sweep import run as sweep
from rd_elbo.sweep.folder import locked
from rd_elbo.sweep.refined import Miss, Refinement
from rd_elbo.training.fit import Stopped

_WORKDIR = flags.DEFINE_string("workdir", None, "The run directory of a sweep.")
_SPLIT = flags.DEFINE_string("split", None, "The split of the hull; by default valid, else train.")
_SCOPE = flags.DEFINE_enum(
    "scope", "all", ["all", "group"], "Train on the hull of all members, or on that of each group."
)
_TRAIN = flags.DEFINE_bool("train", False, "Train what is proposed.")
_TOLERANCE = flags.DEFINE_float("tolerance", 1.0, "Area, nats^2, below which nothing is trained.")
_MOST = flags.DEFINE_integer("most", 8, "The most members to add.")
_TOGETHER = flags.DEFINE_integer("together", 1, "Members to train before the next proposals.")
_DATA_PATH = flags.DEFINE_string("data_path", None, "Present place of data that were moved.")


def proposals_table(found: Sequence[Refinement], scope: str) -> Table:
    """The proposals of one scope."""
    title = {"all": "hull of all members", "group": "hull of each group"}[scope]
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("family", "decoder", "β", "area", "between R", "and R", "their β"):
        table.add_column(name, justify="left" if name in ("family", "decoder") else "right")
    for r in (r for r in found if r.scope == scope):
        ends = f"{r.left['beta']:.3g}, {r.right['beta']:.3g}"
        rates = f"{r.left['rate']:.2f}", f"{r.right['rate']:.2f}"
        table.add_row(
            r.owner["family"],
            points_table.decoder_of(r.owner),
            f"{r.beta:.4g}",
            f"{r.area:.3g}",
            *rates,
            ends,
        )
    return table


def misses_table(found: Sequence[Miss]) -> Table:
    """Members that have missed their optimum."""
    title = "members that another one of their architecture beats in D + βR at their own β"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("family", "decoder", "β", "R", "by", "its β", "its R", "differs in"):
        words = name in ("family", "decoder", "differs in")
        table.add_column(name, justify="left" if words else "right")
    for miss in found:
        row = miss.row
        better = f"{miss.better['beta']:.4g}" if miss.better["objective"] == "beta" else ""
        table.add_row(
            row["family"],
            points_table.decoder_of(row),
            f"{row['beta']:.4g}",
            f"{row['rate']:.2f}",
            f"{miss.nats:.2f}",
            better,
            f"{miss.better['rate']:.2f}",
            ", ".join(miss.differs).replace("_", " "),
        )
    return table


def worth(points: Sequence[Mapping[str, Any]], split: str) -> list[Refinement]:
    """The proposals of --scope that are worth --tolerance, each member once."""
    found = refined.refinements(points, split)
    chosen = [r for r in found if r.scope == _SCOPE.value and r.area >= _TOLERANCE.value]
    return list({r.member: r for r in chosen}.values())


@terminal.guarded
def main(_: list[str]) -> None:
    workdir, console = terminal.required_workdir(_WORKDIR.value), terminal.make_console()
    number("tolerance", _TOLERANCE.value)
    for flag in (_MOST, _TOGETHER):
        whole(flag.name, flag.value)
    logging.set_verbosity(logging.FATAL)
    points = tables.read_points(workdir)
    split = _SPLIT.value or refined.default_split(points)
    found = refined.refinements(points, split)
    for scope in ("all", "group"):
        console.print(proposals_table(found, scope))
    if missed := refined.misses(points, split):
        console.print(misses_table(missed))
    console.print(f"{split} split; nats, areas in nats²")
    if not _TRAIN.value and _DATA_PATH.present:
        raise BadInput(
            f"--data_path={_DATA_PATH.value!r}: expected no value without --train. Leave it out."
        )
    if _TRAIN.value:
        train(workdir, points, split, console)


def train(
    workdir: pathlib.Path, points: Sequence[Mapping[str, Any]], split: str, console: Console
) -> None:
    """Adds members and trains them, round by round."""
    if not any((workdir / "chunks").glob("*.json")):
        raise BadInput(
            f"workdir={str(workdir)!r}: expected finished chunks to add to, got tables alone, and "
            "all members would be trained again. Run the sweep's command there first."
        )
    population = restore.settings_of(workdir)
    host.configure(population.devices, cache_folder() / "xla", x64=population.dtype == "float64")
    host.check_platform()
    config, place = tables.recorded_config(workdir), _DATA_PATH.value
    with tables.advice_on_moved_data(place):
        plan = configs.load(config, terminal.warn, place)
    added, stop = 0, host.Stop()
    while (best := worth(points, split)) and added < _MOST.value:
        chosen = best[: min(_TOGETHER.value, _MOST.value - added)]
        with terminal.writing(workdir), locked(workdir):
            refined.record(workdir, [r.member for r in chosen])
        try:
            with host.stop_on_signals(stop), terminal.progress_bar(console) as progress:
                outcome = sweep.run(
                    plan, workdir, stop=stop, report=terminal.warn, progress=progress
                )
        except Stopped as stopped:
            print(f"stopped {stopped}; the sweep's command resumes", file=sys.stderr)
            sys.exit(host.STOPPED)
        except (OSError, Failed) as error:
            why = disk.gist(error) if isinstance(error, OSError) else str(error)
            print(f"error: {workdir}: {why}; finished work is saved", file=sys.stderr)
            sys.exit(1)
        if outcome.failed:
            name, reason = next(iter(outcome.failed.items()))
            print(f"error: member {name} failed ({reason}); the rest is saved", file=sys.stderr)
            sys.exit(1)
        points, added = outcome.points, added + len(chosen)
        for r in chosen:
            report_point(console, r, outcome.points, split)
    if added:
        with terminal.writing(workdir):
            plots.draw_all(workdir)
    rest = max((r.area for r in best), default=0.0)
    left = f"the largest area left is {rest:.3g} nats²"
    why = left if rest else "no area is above the tolerance"
    console.print(f"{terminal.counted(added, 'member')} added; {why}")


def report_point(
    console: Console, r: Refinement, points: Sequence[Mapping[str, Any]], split: str
) -> None:
    """Says where a new member lies."""
    own = [p for p in points if p["member"] == r.member.name and p["split"] == split]
    # A member and its average: the better one at the member's own beta.
    row = min(own, key=lambda p: p["distortion"] + r.beta * p["rate"])
    where = f"R {row['rate']:.2f}, D {row['distortion']:.2f}, {row['status']}"
    line = f"β {r.beta:.4g} of {r.owner['family']}: {where}; it could gain {r.area:.3g} nats²"
    console.print(line)


if __name__ == "__main__":
    app.run(main, flags_parser=terminal.parse)
