"""Puts the points of a run beside the paper's: prints tables and writes comparison.csv.

python scripts/compare.py --workdir=runs/mine
python scripts/compare.py --workdir=runs/mine --markdown > page.md

--check evaluates the saved parameters of a run again and says whether its table holds; the exit
code is 1 where a rate or a distortion differs by more than --tolerance nats.

python scripts/compare.py --check results/mine
"""

import argparse
import math
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import console as terminal
from rich import box
from rich.table import Table

from rd_elbo import host
from rd_elbo.data.cache import cache_folder
from rd_elbo.errors import BadInput, number
from rd_elbo.report import bands, compare, paper
from rd_elbo.sweep import check, restore, tables

Cells = list[list[str]]

_AIMS = {"target_rate": "R", "target_distortion": "D"}
_THEIRS = ["paper's R", "its D", "its R + D", "difference", "from"]
_WORDS = ("family", "model", "aim", "from", "our frontier", "our hull is", "rates")
_HULLS = (
    "Our convex hull at the corners of the paper's that it covers, with the standard error of the "
    "difference"
)
_AREAS = "Area between our frontier and the paper's hull; positive: we are above it"
_LEGEND = (
    "The paper's numbers are printed in the figures named, rounded to 0.1 nat, unless marked: "
    f"text, stated there; read off, from a figure to about {paper.DIGITISED_ERROR} nats, as was "
    "its hull. Whether its models were annealed is said where it is known. Differences are in "
    "R + D, ours less the paper's."
)
_NARROWEST, _WIDTH_IN_FILES = 100, 160  # columns


@terminal.guarded
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=pathlib.Path, help="a run directory with a points.csv")
    parser.add_argument("--check", type=pathlib.Path, help="a run directory to evaluate again")
    parser.add_argument("--tolerance", type=float, default=0.05, help="nats that --check allows")
    parser.add_argument("--data_path", help="with --check: present place of data that were moved")
    parser.add_argument("--split", help="the split to compare; by default the test split")
    parser.add_argument(
        "--markdown", action="store_true", help="print Markdown, for a page of results"
    )
    args = parser.parse_args()
    if args.check and not args.workdir:
        hold(args.check, args.tolerance, args.data_path)
        return
    if not args.workdir or args.check:
        raise BadInput(
            f"--workdir={args.workdir and str(args.workdir)!r}: expected --workdir, to compare a "
            "run, or --check, to evaluate it again. Give one of them."
        )
    if args.data_path:
        raise BadInput(
            f"--data_path={args.data_path!r}: expected no value without --check. Leave it out."
        )
    points = tables.read_points(args.workdir)
    comparison = compare.compare(points, tables.data_name(args.workdir), args.split)
    written = compare.write(args.workdir, comparison)
    show = markdown if args.markdown else plain
    show(heading(comparison, points))
    show("Runs", runs(comparison.runs))
    if comparison.hulls:
        show(_HULLS, hulls(comparison.hulls))
    if comparison.areas:
        show(_AREAS, areas(comparison.areas))
    show("Best R + D of each family", bests(comparison.bests))
    if comparison.reference:
        show(_LEGEND)
    band = bands.write(args.workdir, bands.Resampled(points, comparison.split))
    if not args.markdown:
        show(f"tables in {written} and, with the band of our hull, {band}")


def hold(workdir: pathlib.Path, tolerance: float, data_path: str | None) -> None:
    """Says whether the table of a run holds; ends the process with code 1 where it does not."""
    number("tolerance", tolerance)
    population = restore.settings_of(workdir)
    host.configure(population.devices, cache_folder() / "xla", x64=population.dtype == "float64")
    host.check_platform()
    run, console = restore.open_run(workdir, data_path), terminal.make_console()
    with terminal.progress_bar(console) as progress:
        found = check.differences(run, progress)
    worst = check.worst(found)
    names = dict.fromkeys(str(point["member"]) for point in run.points)
    holds = worst.largest <= tolerance
    console.print(
        f"The table {'holds' if holds else 'does not hold'}: of {len(names)} members, "
        f"{len(run.saved())} have saved parameters, for {len(found)} of {len(run.points)} rows; "
        "evaluated again, their largest difference is "
        f"{worst.rate:+.2g} nats in R and {worst.distortion:+.2g} in D "
        f"(member {worst.member}, {worst.split} split; tolerance {tolerance:g}).",
        soft_wrap=True,
    )
    if not holds:
        sys.exit(1)


def heading(comparison: compare.Comparison, points: Sequence[Mapping[str, Any]]) -> str:
    images = next(point["examples"] for point in points if point["split"] == comparison.split)
    name, reference = comparison.dataset or "these data", comparison.reference
    remark = reference.remark if reference else paper.why_none(comparison.dataset)
    text = f"{comparison.split} split ({images} images), nats. {name}: {remark}."
    if reference and comparison.split != "test":
        text += " The paper's numbers look like those of test images."
    return text


def runs(rows: Sequence[compare.Row]) -> Cells:
    """A header and a line per run and printed model; a run is named once."""
    annealed = any(row["kl_warmup_fraction"] for row in rows)
    models = any(row["model"] for row in rows)
    theirs = any("paper_rate" in row for row in rows)
    fields = [*["model"] * models, "aim", *["anneal"] * annealed]
    lines = [["family", *fields, "seed", "R", "D", "R + D", *_THEIRS * theirs]]
    before = None
    for row in rows:
        warmup = f"{row['kl_warmup_fraction']:g}"
        control = [*[row["model"]] * models, aim(row), *[warmup] * annealed]
        ours = [row["family"], *control, str(row["seed"]), *numbers(row)]
        line = ours if (row["member"], row["model"]) != before else [""] * len(ours)
        before = row["member"], row["model"]
        if theirs:
            line = line + printed(row)
        lines.append(line)
    return lines


def bests(rows: Sequence[compare.Row]) -> Cells:
    theirs = any("paper_total" in row for row in rows)
    header = ["family", "model", "aim", "R", "D", "R + D", *_THEIRS * theirs]
    lines = [[row["family"], row["model"], aim(row), *numbers(row)] for row in rows]
    if theirs:
        lines = [[*line, *printed(row)] for line, row in zip(lines, rows, strict=True)]
    return [header, *lines]


def hulls(rows: Sequence[compare.Row]) -> Cells:
    """A sentence a line: how far our hull is below the paper's, or above it."""
    lines = [["our hull is", "nats", "±", "at R", "our R + D", "the paper's"]]
    for row in rows:
        side = "below the paper's hull by" if row["difference"] < 0 else "above the paper's hull by"
        difference = [f"{abs(row['difference']):.2f}", f"{row['difference_se']:.2f}"]
        totals = [f"{row[name]:.1f}" for name in ("rate", "total", "paper_total")]
        lines.append([side, *difference, *totals])
    return lines


def areas(rows: Sequence[compare.Row]) -> Cells:
    lines = [["our frontier", "rates", "area (nats²)", "of it above", "below", "mean gap (nats)"]]
    for row in rows:
        if math.isnan(row["area"]):
            lines.append([row["curve"], "none that both cover", "", "", "", ""])
            continue
        range_ = f"{row['lowest_rate']:.1f} to {row['highest_rate']:.1f}"
        sizes = [f"{row[name]:.2f}" for name in ("area", "above", "below")]
        lines.append([row["curve"], range_, *sizes, f"{row['mean_gap']:+.2f}"])
    return lines


def aim(row: compare.Row) -> str:
    if row["objective"] == "beta":
        return f"β = {row['beta']:.3g}"
    name = _AIMS.get(row["objective"], row["objective"])
    return name if row["target"] == "" else f"{name} = {row['target']:.3g}"


def numbers(row: compare.Row) -> list[str]:
    if row["status"] != "ok":
        return [row["status"], "", ""]
    return [f"{row[name]:.2f}" for name in ("rate", "distortion", "total")]


def printed(row: compare.Row) -> list[str]:
    """The paper's columns, empty where it has nothing."""
    if "paper_total" not in row:
        return [""] * len(_THEIRS)
    names = ("paper_rate", "paper_distortion", "paper_total")
    values = [known(row[name]) if name in row else "" for name in names]
    difference = "" if math.isnan(row["difference"]) else f"{row['difference']:+.2f}"
    source = row["paper_source"].replace("Figures", "Fig.").replace("Figure", "Fig.")
    words = [source.replace("Appendix", "App.")]
    words += {"digitised": ["read off"], "text": ["text"]}.get(row["paper_how"], [])
    words += {"yes": ["annealed"], "no": ["not annealed"]}.get(row.get("paper_annealed", ""), [])
    return [*values, difference, "; ".join(words)]


def known(value: float) -> str:
    """A number of the paper's with the digits it has."""
    exact = math.isclose(value, round(value, 1), abs_tol=1e-9)
    return f"{value:.1f}" if exact else f"{value:.4g}"


def plain(title: str, cells: Cells | None = None) -> None:
    console = terminal.make_console()
    width = max(console.width, _NARROWEST) if console.is_terminal else _WIDTH_IN_FILES
    console = terminal.make_console(width=width)
    console.print(title, soft_wrap=True)
    if cells:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        for name in cells[0]:
            side, wraps = "left" if name in _WORDS else "right", name in ("model", "from")
            table.add_column(name, justify=side, no_wrap=not wraps, overflow="fold")
        for line in cells[1:]:
            table.add_row(*line)
        console.print(table)


def markdown(title: str, cells: Cells | None = None) -> None:
    print(f"{title}\n")
    if cells:
        header, *lines = cells
        rule = ["---" if name in _WORDS else "---:" for name in header]
        for line in (header, rule, *(map(quoted, line) for line in lines)):
            print(f"| {' | '.join(line)} |")
        print()


def quoted(cell: str) -> str:
    """A family as code: Markdown has other uses for --- and +."""
    return f"`{cell}`" if cell and set(cell) <= set("-+v") else cell


if __name__ == "__main__":
    main()
