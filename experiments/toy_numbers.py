"""Numbers of the toy experiment: its claim in a few fractions, and tables beside the paper's."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from rd_elbo import disk
from rd_elbo.exact import toy

Row = dict[str, Any]
# What the paper reports, where it gives a number (section 4 and Figure 2).
_PAPER = {"optimum": "0.5", "elbo": "0.0002", "target": "0.4999"}
_COLUMNS = ("distortion", "excess", "code_information", "larger_cluster")
_QUANTILES = {"min": 0.0, "q01": 0.01, "median": 0.5, "q99": 0.99, "max": 1.0}
_SPREAD = ("rate", "excess", "code_information", "larger_cluster", "codes_used")


def summary(points: Sequence[Row], config: dict[str, Any]) -> dict[str, Any]:
    """Sum up the rows of points.csv.

    Fractions are of all initialisations; one that diverged counts as failed.

    Args:
      points: Rows of points.csv.
      config: Configuration of the experiment.

    Returns:
      Fractions, quantiles of each study, and the rates found at each beta and target rate, nats.
    """

    def column(study: str, name: str) -> np.ndarray:
        rows = [row for row in points if row["study"] == study]
        return np.asarray([row[name] if row["status"] == "ok" else np.nan for row in rows])

    def near(study: str) -> float:
        return float(np.mean(np.abs(column(study, "rate") - config["target_rate"]) <= 0.001))

    def below(study: str, name: str, most: float) -> float:
        return float(np.mean(column(study, name) <= most))

    p = toy.source()
    result: dict[str, Any] = {
        "entropy": float(-(p * np.log(p)).sum()),
        "initialisations": config["initialisations"],
        "elbo_collapsed_fraction": below("elbo", "rate", 0.005),
        "elbo_gap_fraction": below("elbo", "excess", 0.001),
        "target_rate_fraction": near("target"),
        "target_gap_fraction": below("target", "excess", 0.005),
        "elbo_wide_collapsed_fraction": below("elbo_wide", "rate", 0.005),
        "elbo_wide_gap_fraction": below("elbo_wide", "excess", 0.001),
        "target_wide_rate_fraction": near("target_wide"),
        "target_wide_gap_fraction": below("target_wide", "excess", 0.005),
        "target_printed_rate_fraction": near("target_printed"),
        "diverged": sum(row["status"] != "ok" for row in points),
    }
    for study in dict.fromkeys(row["study"] for row in points):
        if not study.endswith("curve"):
            result[study] = {name: _quantiles(column(study, name)) for name in _SPREAD}
    alive = [row for row in points if row["study"] == "beta_curve" and row["status"] == "ok"]
    result["beta_curve"] = [
        {"beta": beta, **_quantiles(np.asarray([r["rate"] for r in alive if r["beta"] == beta]))}
        for beta in config["betas"]
    ]
    rates = (*config["target_rates"], *config["high_target_rates"])
    result["target_curve"] = [best_at(points, rate) for rate in rates]
    return result


def _quantiles(values: np.ndarray) -> dict[str, float | None]:
    finite = values[np.isfinite(values)]
    return {
        name: float(np.quantile(finite, at)) if len(finite) else None
        for name, at in _QUANTILES.items()
    }


def _at(points: Sequence[Row], target: float) -> list[Row]:
    """Rows of the runs to one target rate."""
    return [r for r in points if r["study"] == "target_curve" and r["target_rate"] == target]


def hits(points: Sequence[Row], target: float) -> list[Row]:
    """Rows of the runs to one target rate, nats, that ended within 0.001 of it."""
    alive = [row for row in _at(points, target) if row["status"] == "ok"]
    return [row for row in alive if abs(row["rate"] - target) <= 0.001]


def best_at(points: Sequence[Row], target: float) -> Row:
    """Count the runs to one target rate and those that hit it; the least R + D - H of these."""
    found = hits(points, target)
    return {
        "target_rate": target,
        "runs": len(_at(points, target)),
        "hits": len(found),
        "least_excess": min((row["excess"] for row in found), default=None),
    }


def report(console: Console, workdir: pathlib.Path) -> None:
    """Print the numbers of a run directory beside the paper's."""
    totals = disk.read_json(workdir / "summary.json")
    config = disk.read_json(workdir / "config.json")
    console.print(_models(workdir, totals["entropy"]))
    console.print(_fractions(totals, config))
    for line in _lines(totals, config["target_rate"]):
        console.print(line)


def _table(title: str, names: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in names:
        table.add_column(name, justify="right" if name else "left")
    return table


def _models(workdir: pathlib.Path, entropy: float) -> Table:
    points = disk.read_table(workdir / "points.csv")
    titles = {"optimum": "built by hand", "elbo": "ELBO", "target": "target rate"}
    names = ("", "R", "paper's R", "D", "R + D - H", "I(z; z*)", "larger cluster")
    table = _table(f"the toy model, seed 0, nats; H = {entropy:.4f}", names)
    for study, row in shown(workdir, points).items():
        paper = _PAPER[study] if study != "target" or row["target_rate"] == 0.5 else ""
        rest = (f"{row[name]:.4f}" for name in _COLUMNS)
        table.add_row(titles[study], f"{row['rate']:.4f}", paper, *rest)
    return table


def shown(workdir: pathlib.Path, points: Sequence[Row]) -> dict[str, Row]:
    """Rows of the three models of Figure 2: the optimum, and the first of each other study."""
    optimum = disk.read_table(workdir / "optimum.csv")[0]
    firsts = {s: next(row for row in points if row["study"] == s) for s in ("elbo", "target")}
    return {"optimum": optimum, **firsts}


def _fractions(totals: dict[str, Any], config: dict[str, Any]) -> Table:
    n, wide = totals["initialisations"], f"from scale {config['wide_scale']:g}"
    near = f"|R - {config['target_rate']:g}| <= 0.001"
    printed = config["printed_weight"]
    lines = [
        ("ELBO, R <= 0.005", "elbo_collapsed_fraction", n),
        ("ELBO, R + D <= H + 0.001", "elbo_gap_fraction", n),
        (f"target, {near}", "target_rate_fraction", n),
        ("target, R + D <= H + 0.005", "target_gap_fraction", n),
        (f"ELBO {wide}, R <= 0.005", "elbo_wide_collapsed_fraction", config["wide"]),
        (f"target {wide}, R + D <= H + 0.005", "target_wide_gap_fraction", config["wide"]),
        (f"target with weight 1, as printed, {near}", "target_printed_rate_fraction", printed),
    ]
    scale = f"of scale {config['initial_scale']:g} where nothing is said"
    title = f"parts of the initialisations, {scale} (the paper: dozens, alike)"
    table = _table(title, ("", "part", "of"))
    for name, fraction, count in lines:
        table.add_row(name, f"{100 * totals[fraction]:.1f} %", str(count))
    return table


def _lines(totals: dict[str, Any], target: float) -> list[str]:
    lines, rate = [], totals["target_printed"]["rate"]
    if rate["min"] is not None:
        line = f"With weight 1 the loss above the target is R + D - {target:g}, constant along"
        ends = f"the runs end at R from {rate['min']:.3f} to {rate['max']:.3f}"
        lines.append(f"{line} the diagonal; {ends}.")
    alive = [row for row in totals["beta_curve"] if row["max"] is not None]
    above = [row["max"] for row in alive if row["beta"] > 1]
    below = [row["min"] for row in alive if row["beta"] < 1]
    if above and below:
        lines.append(f"By beta: R <= {max(above):.4f} above 1, R >= {min(below):.4f} below 1.")
    found = [row for row in totals["target_curve"] if row["hits"]]
    hit = ", ".join(f"{row['target_rate']:g}: {row['least_excess']:.4f}" for row in found)
    lines.append(f"By target rate, best R + D - H: {hit or 'no run hit its target'}.")
    return lines
