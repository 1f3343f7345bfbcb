"""Tables of a benchmark, in a terminal and as files, and a plot of one."""

import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.measure import COLUMNS, MEASURED, PROCESSES, Row
from rd_elbo import disk
from rd_elbo.sweep import provenance


def write(folder: pathlib.Path, suite: str, rows: Iterable[Row], record: dict[str, Any]) -> None:
    """Write a suite's table and its provenance.

    Args:
      folder: Folder of the two files.
      suite: Name of the suite, and of the files.
      rows: Rows with `measure.COLUMNS`.
      record: Provenance.
    """
    folder.mkdir(parents=True, exist_ok=True)
    disk.write_table(folder / f"{suite}.csv", COLUMNS, rows)
    disk.write_json(folder / f"{suite}.json", record)


def record(command: Sequence[str], seconds: float) -> dict[str, Any]:
    """Provenance of a table, with the versions of the contenders."""
    about = {"name": "mnist_static", "origin": "embedded", "sha256": None}
    made = provenance.provenance(about, command, {"total": seconds})
    others = {name: provenance.package_version(name) for name in ("torch", "pythae")}
    return made | {"versions": made["versions"] | others}


def show(rows: Sequence[Row], console: Console | None = None) -> None:
    """Print a suite's table."""
    whole = rows[0]["suite"] in PROCESSES
    unit = "seconds" if whole else "ms per member-step, quartiles"
    title = f"{rows[0]['suite']}: {unit}; ratios to ours"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", padding=(0, 1, 0, 0))
    table.add_column("contender", no_wrap=True)
    for name in ("time", "range", "per second", "ratio", "peak", "MiB"):
        table.add_column(name, justify="right", no_wrap=True)
    last = None
    for row in rows:
        if row["case"] != last:
            last = row["case"]
            table.add_section()
            table.add_row(last)
        if row["status"] != MEASURED:
            table.add_row(f"  {row['contender']}", row["status"])
            continue
        low, high = (_number(row[name], ".4g", 1e3) for name in ("low", "high"))
        each = row["seconds_per_member_step"]
        table.add_row(
            f"  {row['contender']}",
            f"{row['seconds']:.1f}" if whole else _number(each, ".4g", 1e3),
            "" if whole else f"{low} - {high}",
            _number(row["member_steps_per_second"], ",.0f"),
            _number(row["ratio_to_ours"], ".2f"),
            _number(row["fraction_of_peak"], ".0%"),
            _number(row["memory_mib"], ",.0f"),
        )
    (console or Console()).print(table)


def _number(value: Any, how: str, scale: float = 1) -> str:
    return "" if value == "" else format(value * scale, how)


def plot(folder: pathlib.Path) -> list[pathlib.Path]:
    """Draw member-steps per second against the number of members, from `scaling.csv`.

    Returns:
      The files written.
    """
    from rd_elbo.report import style

    rows = [row for row in disk.read_table(folder / "scaling.csv") if row["status"] == MEASURED]
    with style.drawing():
        figure, axes = style.subplots(figsize=(4.2, 3))
        names = dict.fromkeys(row["contender"] for row in rows)
        for name, colour, marker in zip(names, style.COLOURS, style.MARKERS.values(), strict=False):
            own = [row for row in rows if row["contender"] == name]
            x = [row["members"] for row in own]
            axes.plot(
                x,
                [row["member_steps_per_second"] for row in own],
                color=colour,
                marker=marker,
                markersize=4,
                label={"ours": "rd_elbo", "torch": "PyTorch, one by one"}.get(name, name),
            )
            slow, fast = ([1 / row[side] for row in own] for side in ("high", "low"))
            axes.fill_between(x, slow, fast, color=colour, alpha=0.2, linewidth=0)
        axes.set_xscale("log", base=2)
        axes.set_xticks(x, [str(count) for count in x])
        axes.set_ylim(bottom=0)
        axes.set_xlabel("members")
        axes.set_ylabel("member-steps per second")
        axes.legend(loc="lower right")
    return style.save(figure, folder, "scaling")
