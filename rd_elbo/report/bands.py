"""Error bars of a table of points: the band of its hull, and the hull beside the paper's.

frontier.csv has rows of two sections, and the digest of the points.csv that they are of:

    hull   the convex hull at a rate, with the 95 % interval of its distortion
    model  a configuration, averaged over its seeds, with the 95 % intervals of R and D
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rd_elbo import bootstrap, disk, frontier
from rd_elbo.bootstrap import INTERVAL, Band, Replicates
from rd_elbo.errors import BadInput
from rd_elbo.report import paper
from rd_elbo.sweep import grid, tables

Row = dict[str, Any]
FILE = "frontier.csv"
COLUMNS = (
    *(
        "section",
        "split",
        "family",
        "member",
        "averaging",
        "seeds",
        "rate",
        "rate_low",
        "rate_high",
    ),
    *("distortion", "distortion_low", "distortion_high", "distortion_se", "replicates", "points"),
)
_ERRORS = ("rate_se", "distortion_se", "elbo_se")
_RATES = 101


class Resampled:
    """The finite points of one split and their replicates.

    Raises:
      BadInput: If there is no finite point of that split, or a point has no standard error.
    """

    def __init__(self, points: Sequence[Mapping[str, Any]], split: str) -> None:
        self.split, self.rows = split, tables.usable(points, split)
        self.values = _column(self.rows, "rate"), _column(self.rows, "distortion")
        if missing := [name for name in _ERRORS if name not in self.rows[0]]:
            raise BadInput(f"{missing[0]}: expected a column of this name in points.csv, got none.")
        of_rate, of_distortion, of_total = (_column(self.rows, name) for name in _ERRORS)
        errors = of_rate, of_distortion, of_total
        if not np.isfinite(errors).all():
            raise BadInput(
                f"rate_se: expected finite standard errors of the split {split!r}, got others. One "
                "example alone has none."
            )
        # A member and its average are two configurations, not two seeds of one.
        keys = [
            (tables.averaging_of(row), *(row[f] for f in grid.FIELDS if f != "seed"))
            for row in self.rows
        ]
        number = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        self.configuration = np.asarray([number[key] for key in keys])
        self.replicates: Replicates = bootstrap.resample(self.values, errors, self.configuration)

    def band(self, at: np.ndarray | None = None) -> Band:
        """The hull and its band, by default at even rates and all corners."""
        corners = frontier.hull(*self.values)[0]
        if at is None:
            at = np.union1d(np.linspace(corners[0], corners[-1], _RATES), corners)
        return bootstrap.hull_band(self.values, self.replicates, at)

    def models(self) -> list[Row]:
        """Rows of section "model"."""
        rows: list[Row] = []
        for number in range(self.configuration.max() + 1):
            alike = np.flatnonzero(self.configuration == number)
            weight = self.replicates.times[:, alike]
            lead = self.rows[alike[0]]
            row: Row = {"member": lead["member"], "family": lead["family"], "seeds": len(alike)}
            row["averaging"] = tables.averaging_of(lead)
            names, drawn = ("rate", "distortion"), self.replicates[:2]
            for name, own, several in zip(names, self.values, drawn, strict=True):
                means = (weight * several[:, alike]).sum(1) / weight.sum(1)
                low, high = np.quantile(means, INTERVAL)
                row |= {name: float(own[alike].mean()), f"{name}_se": float(means.std())}
                row |= {f"{name}_low": float(low), f"{name}_high": float(high)}
            row.pop("rate_se")
            rows.append(row)
        return rows


def write(workdir: pathlib.Path | str, resampled: Resampled) -> pathlib.Path:
    """Write frontier.csv into a run directory, whole or not at all, and return its path."""
    path = pathlib.Path(workdir) / FILE
    band = resampled.band()
    names = ("rate", "distortion", "distortion_low", "distortion_high", "distortion_se")
    hulls = [
        dict(zip(names, map(float, values), strict=True)) for values in zip(*band, strict=True)
    ]
    shared = {"split": resampled.split, "replicates": bootstrap.REPLICATES}
    shared["points"] = disk.sha256(path.with_name("points.csv"))
    blank = dict.fromkeys(COLUMNS, "")
    sections = (("hull", hulls), ("model", resampled.models()))
    rows = [{**blank, **shared, "section": name, **row} for name, part in sections for row in part]
    try:
        disk.write_table(path, COLUMNS, rows)
    except OSError as error:
        raise BadInput(
            f"{str(path)!r}: expected a file to write, got none ({error.strerror})."
        ) from error
    return path


def read(workdir: pathlib.Path | str, split: str) -> Band | None:
    """The band of frontier.csv; None if there is none of this split and of today's points.csv."""
    path = pathlib.Path(workdir) / FILE
    if not path.exists():
        return None
    digest = disk.sha256(path.with_name("points.csv"))
    rows = [
        row
        for row in disk.read_table(path)
        if row["section"] == "hull" and row["split"] == split and row["points"] == digest
    ]
    names = ("rate", "distortion", "distortion_low", "distortion_high", "distortion_se")
    return Band(*(_column(rows, name) for name in names)) if rows else None


def beside(resampled: Resampled, reference: paper.Reference) -> list[Row]:
    """Our hull beside the paper's at the corners that ours covers, in columns of comparison.csv.

    The error of a difference has two parts: the deviation of our hull's replicates, and that of
    reading the paper's figure, `paper.DIGITISED_ERROR`. How far the paper's own numbers depend on
    its images and seeds is not known.

    Returns:
      A row per corner of the paper's hull between our first and our last; neither is continued.
    """
    rates, distortions = reference.hull
    band, own = resampled.band(rates), frontier.hull(*resampled.values)[0]
    rows: list[Row] = []
    for i in np.flatnonzero((rates >= own[0]) & (rates <= own[-1])):
        rate, ours, theirs = float(rates[i]), float(band.distortion[i]), float(distortions[i])
        row: Row = {"rate": rate, "distortion": ours, "total": rate + ours}
        row |= {"paper_rate": rate, "paper_distortion": theirs, "paper_total": rate + theirs}
        row |= {"paper_how": "digitised", "paper_source": "Figure 3", "difference": ours - theirs}
        error = float(np.hypot(band.error[i], paper.DIGITISED_ERROR))
        rows.append(row | {"curve": "hull", "difference_se": error})
    return rows


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    return np.asarray([row[name] for row in rows], float)
