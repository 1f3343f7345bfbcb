"""Our points beside the paper's: run by run, curve against curve, and the best of each family.

A comparison is a table with rows of four sections:

    run    a run of ours and a printed model of the paper of the same family and beta: a row for
           each printed model, or one row with empty columns if there is none
    hull   our hull beside the paper's at the rates of its corners, with the difference's standard
           error
    area   our frontier, stepwise or as convex hull, against the paper's hull
    best   the smallest R + D of a family, ours and the paper's; the family "all" is of all runs of
           ours and all models of the paper
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rd_elbo import disk, frontier
from rd_elbo.errors import BadInput
from rd_elbo.objectives import OBJECTIVES, SETTINGS
from rd_elbo.report import bands, paper
from rd_elbo.sweep import grid, tables

Row = dict[str, Any]

_OURS = (
    "family",
    "model",
    "member",
    "objective",
    "beta",
    "target",
    "kl_warmup_fraction",
    "seed",
    "status",
    "rate",
    "distortion",
    "total",
)
_THEIRS = (
    "paper_annealed",
    "paper_rate",
    "paper_distortion",
    "paper_total",
    "paper_how",
    "paper_source",
    "paper_note",
    "difference",
    "difference_se",
)
_AREA = ("curve", "lowest_rate", "highest_rate", "area", "above", "below", "mean_gap")
COLUMNS = ("section", "split", *_OURS, *_THEIRS, *_AREA)
# What has a column of its own; any other field in which runs of a family differ is in `model`.
_OF_OBJECTIVES = {*OBJECTIVES, "objective", "kl_warmup_fraction", "seed"}


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """Our points of one split beside the paper's, in nats and nats^2.

    Rows have the columns of their section alone.

    Attributes:
      split: Split of our points.
      dataset: The name of our data; None if it is not recorded.
      reference: The paper's numbers; None if there are none to compare with.
      runs: Rows of section "run", in the order of the paper's families, along beta.
      hulls: Rows of section "hull"; empty without a reference, or where no corner of the paper's is
        within our rates.
      areas: Rows of section "area": the stepwise frontier and the convex hull; empty without a
        reference.
      bests: Rows of section "best": one per family that was run, and one of all.
    """

    split: str
    dataset: str | None
    reference: paper.Reference | None
    runs: list[Row]
    hulls: list[Row]
    areas: list[Row]
    bests: list[Row]

    @property
    def rows(self) -> list[Row]:
        """The whole table, with the columns `COLUMNS`; other sections' columns are empty."""
        sections = {"run": self.runs, "hull": self.hulls, "area": self.areas, "best": self.bests}
        blank = {**dict.fromkeys(COLUMNS, ""), "split": self.split}
        named = ((name, row) for name, rows in sections.items() for row in rows)
        return [{**blank, "section": name, **row} for name, row in named]


def compare(
    points: Sequence[Mapping[str, Any]], dataset: str | None, split: str | None = None
) -> Comparison:
    """Put our points beside the paper's.

    Models of the paper are found by family and beta, so only runs of the objective "beta" have any.
    Areas are over the rates that both curves cover; a positive area or difference means that we are
    above the paper, which is worse.

    Args:
      points: Rows of points.csv.
      dataset: The name of the data they are of; None if it is not recorded.
      split: Split to compare; by default "test" where there is one, since the paper's look like
        that, else the first.

    Raises:
      BadInput: If there is no such split or no finite point of it.
    """
    splits = list(dict.fromkeys(point["split"] for point in points))
    if split is None:
        split = "test" if "test" in splits else splits[0]
    elif split not in splits:
        known = ", ".join(map(repr, splits))
        raise BadInput(f"split={split!r}: expected a split of the table, one of {known}.")
    reference = paper.reference(dataset)
    # A member's last parameters and their average are two models, which `model` distinguishes.
    points = [{**point, "averaging": tables.averaging_of(point)} for point in points]
    usable = tables.usable(points, split)
    varying = _varying(points)
    chosen = [point for point in points if point["split"] == split]
    chosen.sort(key=lambda point: _order(point, varying[point["family"]]))
    ours = [_described(point, varying[point["family"]]) for point in chosen]
    runs = [{**run, **theirs} for run in ours for theirs in _printed(run, reference)]
    hulls = bands.beside(bands.Resampled(points, split), reference) if reference else []
    areas, bests = _areas(usable, reference), _bests(ours, reference)
    return Comparison(split, dataset, reference, runs, hulls, areas, bests)


def write(workdir: pathlib.Path | str, comparison: Comparison) -> pathlib.Path:
    """Writes comparison.csv into a run directory, whole or not at all, and returns its path."""
    path = pathlib.Path(workdir) / "comparison.csv"
    try:
        disk.write_table(path, COLUMNS, comparison.rows)
    except OSError as error:
        raise BadInput(
            f"{str(path)!r}: expected a file to write, got none ({error.strerror})."
        ) from error
    return path


def _varying(points: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """For each family the fields in which its runs differ, without those with own columns."""
    families: dict[str, list[Mapping[str, Any]]] = {}
    for point in points:
        families.setdefault(point["family"], []).append(point)
    fields = [field for field in (*grid.FIELDS, "averaging") if field not in _OF_OBJECTIVES]
    return {
        family: [field for field in fields if len({point[field] for point in alike}) > 1]
        for family, alike in families.items()
    }


def _described(point: Mapping[str, Any], varying: Sequence[str]) -> Row:
    """A run of ours in the columns `_OURS`.

    Args:
      point: Row of points.csv.
      varying: Fields in which runs of its family differ.
    """
    objective = point["objective"]
    return {
        "family": point["family"],
        "model": ", ".join(f"{field.replace('_', ' ')} {point[field]}" for field in varying),
        "member": point["member"],
        "objective": objective,
        "beta": point["beta"] if "beta" in SETTINGS[objective] else "",
        "target": "" if objective == "beta" else point.get(objective, ""),
        "kl_warmup_fraction": point["kl_warmup_fraction"],
        "seed": point["seed"],
        "status": point["status"],
        "rate": point["rate"],
        "distortion": point["distortion"],
        "total": point["rate"] + point["distortion"],
    }


def _order(point: Mapping[str, Any], varying: Sequence[str]) -> tuple[Any, ...]:
    objective = point["objective"]
    values = (
        *(point[field] for field in varying),
        objective,
        point.get(objective, 0.0),
        point["kl_warmup_fraction"],
        point["seed"],
    )
    # An empty cell reads as a string, also in a column of numbers.
    return (*_place(point["family"]), *((isinstance(value, str), value) for value in values))


def _place(family: str) -> tuple[int, str]:
    """Where a family stands in the paper's order; others come last."""
    known = family in paper.FAMILIES
    return (paper.FAMILIES.index(family) if known else len(paper.FAMILIES), family)


def _printed(run: Row, reference: paper.Reference | None) -> list[Row]:
    """The printed models beside a run, in the columns `_THEIRS`; one empty row if there is none."""
    if reference is None or run["objective"] != "beta":
        return [{}]
    models = reference.printed(run["family"], run["beta"])
    return [_theirs(point, run["total"]) for point in models] or [{}]


def _theirs(point: paper.PaperPoint, total: float) -> Row:
    return {
        "paper_annealed": {True: "yes", False: "no", None: "not stated"}[point.annealed],
        "paper_rate": point.rate,
        "paper_distortion": point.distortion,
        "paper_total": point.total,
        "paper_how": point.how,
        "paper_source": point.source,
        "paper_note": point.note,
        "difference": total - point.total,
    }


def _areas(usable: Sequence[Mapping[str, Any]], reference: paper.Reference | None) -> list[Row]:
    if reference is None:
        return []
    rates = np.asarray([point["rate"] for point in usable], float)
    distortions = np.asarray([point["distortion"] for point in usable], float)
    rows = []
    for curve, line in (("steps", frontier.stepwise), ("hull", frontier.hull)):
        gap = frontier.area_between(*line(rates, distortions), *reference.hull)
        row = {
            "curve": curve,
            "lowest_rate": gap.lowest_rate,
            "highest_rate": gap.highest_rate,
            "area": gap.area,
            "above": gap.above,
            "below": gap.below,
            "mean_gap": gap.mean,
        }
        rows.append(row)
    return rows


def _bests(ours: Sequence[Row], reference: paper.Reference | None) -> list[Row]:
    finite = [run for run in ours if run["status"] == "ok" and np.isfinite(run["total"])]
    families = sorted({run["family"] for run in finite}, key=_place)
    rows = []
    for family in (*families, "all"):
        own = [run for run in finite if family in ("all", run["family"])]
        best = min(own, key=lambda run: run["total"])
        if family == "all":
            model = ", ".join(filter(None, (best["family"], best["model"])))
            best = {**best, "family": "all", "model": model}
        rows.append({**best, **_best_of_theirs(family, best["total"], reference)})
    return rows


def _best_of_theirs(family: str, total: float, reference: paper.Reference | None) -> Row:
    if reference is None:
        return {}
    if family == "all":
        return _theirs(reference.best, total)
    best = reference.best_of(family)
    if best is None:
        return {}
    if best.point is not None:
        return _theirs(best.point, total)
    return {
        "paper_total": best.total,
        "paper_how": best.how,
        "paper_source": "Figure 3",
        "difference": total - best.total,
    }
