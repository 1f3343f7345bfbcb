"""Figures of the rate-distortion plane, drawn from tables alone."""

import pathlib
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rd_elbo import frontier
from rd_elbo.bootstrap import Band
from rd_elbo.errors import BadInput
from rd_elbo.report import bands, families, paper
from rd_elbo.report.curves import Curve, averaged, curves
from rd_elbo.report.style import COLOURS, MARKERS, drawing, save, subplots
from rd_elbo.sweep import tables

Row = Mapping[str, Any]

# Curves beyond which the legend of families says too much.
_MOST_CURVES = 12
# Characters of the longest name of which two fit beside each other in a legend.
_LONGEST_OF_TWO = 46
# Characters of a line above a legend that a figure has room for.
_TITLE = 95
# The mark of beta = 1, around a curve's own marker.
_RING: dict[str, Any] = {"marker": "o", "mfc": "none", "mew": 1.0, "ls": "none"}


def rd_plane(
    points: Sequence[Row],
    split: str = "test",
    band: Band | None = None,
    reference: paper.Reference | None = None,
) -> Figure:
    """Draw R against D: curves, Pareto frontiers, the convex hull of all, and the diagonal.

    After Alemi et al. 2018, Figure 3a. Lines join means over seeds; bars are the range of seeds.
    Frontiers and hull are over single members. A member with an average of its parameters is drawn
    by that alone, as far as rows name their members.

    Args:
      points: Rows of points.csv, of `rd.sweep` or of `rd.evaluate`.
      split: Split to draw.
      band: 95 % interval of the hull, see `bands`; None draws none.
      reference: The paper's numbers on such data, whose hull is drawn behind; None draws none.

    Raises:
      BadInput: If no finite point of that split is there.
    """
    groups = curves(averaged(points), split)
    rates, distortions = _members(groups)
    with drawing():
        figure, axes = subplots(figsize=(6.4, 4.9 + _legend_inches(groups)))
        theirs = _draw_reference(axes, reference, rates, lambda rate, distortion: distortion)
        for colour, curve in zip(_cycle(groups), groups, strict=True):
            _draw(axes, curve, curve.distortion, curve.distortion_spread, colour)
            steps = curve.members[:, frontier.pareto(*curve.members)]
            axes.step(*steps, where="post", color=colour, lw=0.8, alpha=0.5, zorder=1)
        hull = frontier.convex_hull(rates, distortions)
        dotted: dict[str, Any] = {"color": "0.2", "lw": 1.0, "ls": (0, (1, 1)), "zorder": 1}
        axes.plot(rates[hull], distortions[hull], label="convex hull", **dotted)
        if band is not None:
            _draw_band(axes, band, band.low, band.high)
        _draw_diagonal(axes, rates, distortions)
        axes.plot([], [], color="0.5", lw=0.8, label="stepped: Pareto frontier of a group")
        axes.set(xlabel="rate $R$ (nats)", ylabel="distortion $D$ (nats)")
        axes.set_xlim(*_widths(rates))
        axes.set_ylim(*_heights(np.append(distortions, theirs)))
        _legend(axes, groups, _title(points, split))
    return figure


def elbo_against_rate(
    points: Sequence[Row],
    split: str = "test",
    band: Band | None = None,
    reference: paper.Reference | None = None,
) -> Figure:
    """Draw R + D = -ELBO against R, after Alemi et al. 2018, Figure 3b.

    Models of one ELBO lie on a horizontal line. A member with an average of its parameters is drawn
    by that alone, as far as rows name their members.

    Args:
      points: Rows of points.csv, of `rd.sweep` or of `rd.evaluate`.
      split: Split to draw.
      band: 95 % interval of the hull, see `bands`; None draws none.
      reference: The paper's numbers on such data, whose hull is drawn behind; None draws none.

    Raises:
      BadInput: If no finite point of that split is there.
    """
    groups = curves(averaged(points), split)
    rates, distortions = _members(groups)
    with drawing():
        figure, axes = subplots(figsize=(6.4, 4.6 + _legend_inches(groups)))
        theirs = _draw_reference(axes, reference, rates, np.add)
        for colour, curve in zip(_cycle(groups), groups, strict=True):
            _draw(axes, curve, curve.rate + curve.distortion, curve.total_spread, colour)
        if band is not None:
            _draw_band(axes, band, band.rate + band.low, band.rate + band.high)
        if len(theirs):
            axes.set_xlim(*_widths(rates))
            axes.set_ylim(*_heights(np.append(rates + distortions, theirs)))
        axes.set(xlabel="rate $R$ (nats)", ylabel="$R + D = -$ELBO (nats)")
        _legend(axes, groups, _title(points, split))
    return figure


def _members(groups: Sequence[Curve]) -> np.ndarray:
    """(2, members) rate and distortion of the members of all curves."""
    return np.concatenate([curve.members for curve in groups], axis=1)


def _draw_band(axes: Axes, band: Band, low: np.ndarray, high: np.ndarray) -> None:
    grey: dict[str, Any] = {"color": "0.2", "alpha": 0.2, "lw": 0, "zorder": 0}
    axes.fill_between(band.rate, low, high, label="convex hull, 95 %", **grey)


def _draw_reference(
    axes: Axes,
    reference: paper.Reference | None,
    rates: np.ndarray,
    height: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """Draw the paper's hull behind everything.

    Returns:
      Heights of that hull from our smallest to our largest rate, for the frame to show.
    """
    if reference is None:
        return np.empty(0)
    corners = reference.hull
    label = f"the paper's hull, read off ± {paper.DIGITISED_ERROR} nats"
    axes.plot(corners[0], height(*corners), color="0.72", lw=2.2, label=label, zorder=0)
    ends = np.clip([rates.min(), rates.max()], corners[0][0], corners[0][-1])
    at = np.append(corners[0][(corners[0] > ends[0]) & (corners[0] < ends[1])], ends)
    return height(at, np.interp(at, *corners))


def _draw_diagonal(axes: Axes, rates: np.ndarray, distortions: np.ndarray) -> None:
    """The line of all points whose R + D is the best one's."""
    best = float((rates + distortions).min())
    # Of densities even the best total may be negative: then from R = 0 to the largest.
    end = best if best > 0 else float(rates.max())
    dashed: dict[str, Any] = {"color": "0.5", "lw": 0.9, "ls": "--", "zorder": 0}
    label = f"$R + D = {best:.1f}$, the best $-$ELBO"
    axes.plot([0, end], [best, best - end], label=label, **dashed)


def _widths(rates: np.ndarray) -> tuple[float, float]:
    """The range of an axis of rates, from 0 or below."""
    # Of collapsed models every rate may be 0, or estimated slightly below it.
    widest = float(rates.max()) if rates.max() > 0 else 1.0
    return min(0.0, float(rates.min())) - 0.02 * widest, 1.04 * widest


def _heights(distortions: np.ndarray) -> tuple[float, float]:
    """The range of an axis of distortions; those of densities may be negative."""
    low, high = float(distortions.min()), float(distortions.max())
    # Markers at the ends stay whole.
    margin = 0.05 * (high - low or abs(high) or 20.0)
    return (max(low - margin, 0.0) if low > 0 else low - margin), high + margin


def _cycle(groups: Sequence[Curve]) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(len(groups))]


def _legend_inches(groups: Sequence[Curve]) -> float:
    """The height that a legend adds to a figure, so that it takes nothing from the axes."""
    lines = (len(groups) + 4) / _legend_columns(groups)
    return 0.16 * max(0.0, lines - 8)


def _legend_columns(groups: Sequence[Curve]) -> int:
    return 2 if max(len(curve.label) for curve in groups) <= _LONGEST_OF_TWO else 1


def _draw(axes: Axes, curve: Curve, height: np.ndarray, spread: np.ndarray, colour: str) -> None:
    strong = curve.family[1] == "+"
    # A bar where there are seeds; errorbar draws nothing for a spread of NaN.
    many = curve.seeds > 1
    axes.errorbar(
        curve.rate,
        height,
        xerr=np.where(many, curve.rate_spread, np.nan),
        yerr=np.where(many, spread, np.nan),
        color=colour,
        marker=MARKERS.get(curve.family[2], "o"),
        mfc=colour if strong else "white",
        ms=4.5,
        lw=1.2,
        elinewidth=1.0,
        capsize=2,
        label=curve.label,
        zorder=3,
    )
    ringed = (curve.control == 1.0) & (curve.objective == "beta")
    axes.plot(curve.rate[ringed], height[ringed], ms=11, mec=colour, zorder=4, **_RING)


def _title(points: Sequence[Row], split: str) -> str:
    return f"{split} split; " if any("split" in point for point in points) else ""


def _legend(axes: Axes, groups: Sequence[Curve], title: str) -> None:
    """Explains everything drawn, above the axes, where no data can be."""
    if any(((curve.control == 1.0) & (curve.objective == "beta")).any() for curve in groups):
        axes.plot([], [], ms=9, mec="0.3", label=r"ring: $\beta = 1$", **_RING)
    if {curve.averaging for curve in groups} == {"ema"}:
        title += "averaged parameters; "
    both = len({curve.family[1] for curve in groups}) > 1
    signs = "filled: autoregressive decoder; " if both else ""
    names = "/".join(dict.fromkeys(curve.objective for curve in groups))
    bars = "; bars: range over seeds" if any((curve.seeds > 1).any() for curve in groups) else ""
    title += f"{signs}points joined along {names}{bars}"
    axes.legend(
        fontsize=7.5,
        title=textwrap.fill(title.replace("_", " "), _TITLE),
        title_fontsize=7.5,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncol=_legend_columns(groups),
    )


def _drawable(points: Sequence[Row], split: str) -> bool:
    try:
        return bool(tables.usable(points, split))
    except BadInput:
        return False


FIGURES = {"rd_plane": rd_plane, "elbo_against_rate": elbo_against_rate}


def draw_all(
    workdir: pathlib.Path | str, splits: Sequence[str] | None = None
) -> list[pathlib.Path]:
    """Draws every figure of a run directory from its points.csv, as PNG and PDF.

    The paper's Figure 3 is among them where `families.worth_drawing` finds enough families, and is
    all there is where a legend of their curves would be larger than the plane. The paper's own
    frontier is behind the families where `paper.reference` has one for the data, and behind curves
    where the data are the paper's. It looks like one of test images: other splits have none. The
    band of our hull is drawn where frontier.csv has one of this table, see `bands`.

    Args:
      workdir: The run directory.
      splits: Splits to draw; by default all that the table has finite points of. Figures of the
        first one have plain names, those of others end in the split's name.

    Returns:
      The files written.

    Raises:
      BadInput: If the table is missing, torn or has nothing to draw.
    """
    workdir = pathlib.Path(workdir)
    points = tables.read_points(workdir)
    reference = paper.reference(tables.data_name(workdir))
    written: list[pathlib.Path] = []
    if splits is None:
        # A model may be finite on one split and not on another.
        all_splits = list(dict.fromkeys(point["split"] for point in points))
        splits = [split for split in all_splits if _drawable(points, split)] or all_splits
    for split in splits:
        tables.usable(points, split)  # before any figure is drawn
    for position, split in enumerate(splits):
        many_families = families.worth_drawing(points, split)
        figures: dict[str, Figure] = {}
        band = bands.read(workdir, split)
        theirs = reference if split == "test" else None
        if not many_families or len(curves(averaged(points), split)) <= _MOST_CURVES:
            own = theirs if theirs is not None and theirs.same_data else None
            figures |= {name: draw(points, split, band, own) for name, draw in FIGURES.items()}
        if many_families:
            for name, draw_families in families.FIGURES.items():
                figures[name] = draw_families(points, split, theirs, band)
        ending = "" if position == 0 else f"_{split}"
        for name, figure in figures.items():
            written += save(figure, workdir / "figures", f"{name}{ending}")
    return written
