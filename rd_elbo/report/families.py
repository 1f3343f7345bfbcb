"""The paper's Figure 3, of families of models, beside the paper's own frontier.

Drawn from tables alone.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rd_elbo import frontier
from rd_elbo.bootstrap import Band
from rd_elbo.report.curves import averaged
from rd_elbo.report.paper import DIGITISED_ERROR, FAMILIES, Reference
from rd_elbo.report.style import COLOURS, MARKERS, drawing, subplots
from rd_elbo.sweep import tables

Row = Mapping[str, Any]

# ColorBrewer's Paired: light and dark of one hue are a family with a weak and with a strong
# decoder.
_PAIRED = (
    "#a6cee3",
    "#1f78b4",
    "#b2df8a",
    "#33a02c",
    "#fb9a99",
    "#e31a1c",
    "#fdbf6f",
    "#ff7f00",
    "#cab2d6",
    "#6a3d9a",
    "#ffff99",
    "#b15928",
)
FAMILY_COLOURS = dict(zip(FAMILIES, _PAIRED, strict=True))
# The signs as figures write them: the minus, not the hyphen.
_SIGNS = str.maketrans("-", "\N{MINUS SIGN}")
_PARTS = ("encoder", "decoder", "prior")
# Points beyond this many times the smallest R + D say nothing and would squeeze all others into a
# corner.
_FRAME = 3.0
# The paper's Figure 3b, nats.
PAPER_RATES = (-1.0, 40.0)
PAPER_TOTALS = (79.0, 90.0)
_BAND: dict[str, Any] = {
    "color": "black",
    "alpha": 0.2,
    "lw": 0,
    "zorder": 0,
    "label": "our convex hull, 95 %",
}


def worth_drawing(points: Sequence[Row], split: str = "test") -> bool:
    """Whether the split's points are of enough families for these figures.

    Four are enough, with weak and strong decoders among them. `plots.rd_plane` shows fewer better.
    """
    families = {point["family"] for point in tables.usable(points, split)}
    return len(families) >= 4 and {"-", "+"} <= {family[1] for family in families}


def figure3a(
    points: Sequence[Row],
    split: str = "test",
    reference: Reference | None = None,
    band: Band | None = None,
) -> Figure:
    """Draw the rate-distortion plane, after Alemi et al. 2018, Figure 3a.

    It shows all runs, then groups them by encoder, decoder and prior. A member with an average of
    its parameters is drawn by that alone.

    Args:
      points: Rows of points.csv.
      split: Split to draw.
      reference: The paper's numbers on such data, drawn behind ours; None if there are none.
      band: The 95 % interval of our hull; None draws none.

    Raises:
      BadInput: If no finite point of that split is there.
    """
    drawn = tables.usable(averaged(points), split)
    rates, distortions = _columns(drawn)
    with drawing():
        figure, panels = subplots(2, 2, figsize=(7.2, 7.4), sharex=True, sharey=True)
        lines = _all_runs(panels[0, 0], drawn, reference, band)
        for axes, part in zip(panels.flat[1:], _PARTS, strict=True):
            _grouped(axes, drawn, part)
        reach = _reach(rates + distortions)
        for axes in panels.flat:
            _frame(axes, rates, distortions, reach, reference)
        for axes in panels[1]:
            axes.set_xlabel("rate $R$ (nats)")
        for axes in panels[:, 0]:
            axes.set_ylabel("distortion $D$ (nats)")
        outside = int(((rates > reach) | (distortions > reach)).sum())
        _family_legend(figure, drawn, lines, _caption(split, len(drawn), outside))
    return figure


def figure3b(
    points: Sequence[Row],
    split: str = "test",
    reference: Reference | None = None,
    band: Band | None = None,
) -> Figure:
    """Draw R + D = -ELBO against R, after Alemi et al. 2018, Figure 3b.

    The frame is the paper's, 79 to 90 nats, if the best model of every family is in it. Otherwise
    it shows the best of every family and of the paper, and says so. A member with an average of its
    parameters is drawn by that alone.

    Args:
      points: Rows of points.csv.
      split: Split to draw.
      reference: The paper's numbers on such data, drawn behind ours; None if there are none.
      band: The 95 % interval of our hull; None draws none.

    Raises:
      BadInput: If no finite point of that split is there.
    """
    drawn = tables.usable(averaged(points), split)
    rates, distortions = _columns(drawn)
    with drawing():
        figure, axes = subplots(figsize=(7.2, 5.2))
        lines: list[Artist] = []
        if reference is not None:
            theirs = frontier.stepwise(reference.rate, reference.distortion)
            lines += axes.plot(
                *_tilted(*theirs), color="0.72", lw=2.2, label=_reference_label(reference), zorder=1
            )
        _scatter(axes, drawn, lambda rate, distortion: rate + distortion)
        ours = frontier.stepwise(rates, distortions)
        lines += axes.plot(
            *_tilted(*ours), color="black", lw=0.9, label="our Pareto frontier", zorder=2
        )
        if band is not None:
            low, high = band.rate + band.low, band.rate + band.high
            lines.append(axes.fill_between(band.rate, low, high, **_BAND))
        wide, tall, as_in_paper = _best_frame(drawn, reference)
        axes.set(xlim=wide, ylim=tall, xlabel="rate $R$ (nats)", ylabel="$R + D = -$ELBO (nats)")
        totals = rates + distortions
        outside = int(
            ((rates < wide[0]) | (rates > wide[1]) | (totals < tall[0]) | (totals > tall[1])).sum()
        )
        framed = (
            "79 to 90 nats as in the paper"
            if as_in_paper
            else "not the 79 to 90 nats of the paper's MNIST"
        )
        _family_legend(figure, drawn, lines, f"{_caption(split, len(drawn), outside)}; {framed}")
    return figure


FIGURES = {"figure3a": figure3a, "figure3b": figure3b}


def _columns(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray([row["rate"] for row in rows], float), np.asarray(
        [row["distortion"] for row in rows], float
    )


def _tilted(rate: np.ndarray, distortion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A line of the rate-distortion plane, where the height is R + D.

    Straight lines stay straight.
    """
    return rate, rate + distortion


def _all_runs(
    axes: Axes, drawn: Sequence[Row], reference: Reference | None, band: Band | None
) -> list[Artist]:
    """Draw all runs, their frontier, hull and diagonal before the paper's frontier.

    Returns:
      The lines, for the legend.
    """
    rates, distortions = _columns(drawn)
    lines: list[Artist] = []
    if reference is not None:
        theirs = frontier.stepwise(reference.rate, reference.distortion)
        lines += axes.plot(
            *theirs, color="0.72", lw=2.2, label=_reference_label(reference), zorder=1
        )
    _scatter(axes, drawn, lambda rate, distortion: distortion)
    lines += axes.plot(
        *frontier.stepwise(rates, distortions),
        color="black",
        lw=0.9,
        label="our Pareto frontier",
        zorder=2,
    )
    hull = frontier.hull(rates, distortions)
    lines += axes.plot(
        *hull, color="black", lw=0.9, ls=(0, (1, 1.2)), label="our convex hull", zorder=2
    )
    if band is not None:
        lines.append(axes.fill_between(band.rate, band.low, band.high, **_BAND))
    best = float((rates + distortions).min())
    label = rf"$R + D = \hat{{H}} = {best:.1f}$, our smallest"
    end = best if best > 0 else float(rates.max())
    lines += axes.plot(
        [0, end], [best, best - end], color="0.35", lw=0.9, ls="--", label=label, zorder=1
    )
    axes.set_title("all runs", fontsize=9)
    return lines


def _reach(totals: np.ndarray) -> float:
    """The largest rate and distortion shown.

    A multiple of the best total, or the largest where totals may be negative.
    """
    return float(_FRAME * totals.min()) if totals.min() > 0 else np.inf


def _reference_label(reference: Reference) -> str:
    data = reference.name if reference.same_data else f"{reference.name}, another draw"
    return f"the paper's frontier ({data}; read off, ± {DIGITISED_ERROR} nats)"


def _scatter(
    axes: Axes, drawn: Sequence[Row], height: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> None:
    for family in _families(drawn):
        rates, distortions = _columns([row for row in drawn if row["family"] == family])
        axes.plot(rates, height(rates, distortions), ls="none", zorder=3, **_marker(family))


def _families(drawn: Sequence[Row]) -> list[str]:
    """The families that are there, the paper's in its order."""
    there = dict.fromkeys(row["family"] for row in drawn)
    return [family for family in FAMILIES if family in there] + sorted(there.keys() - set(FAMILIES))


def _marker(family: str) -> dict[str, Any]:
    """The shape is the prior's, dark means a strong decoder, filled a strong encoder."""
    colour = FAMILY_COLOURS.get(family, "0.4")
    filled = family[0] == "+"
    return {
        "marker": MARKERS.get(family[2], "^"),
        "mfc": colour if filled else "white",
        # Paired's yellow is hard to see on white without an edge.
        "mec": "0.25" if filled else colour,
        "mew": 0.4 if filled else 1.2,
        "ms": 5.0 if filled else 4.4,
    }


def _grouped(axes: Axes, drawn: Sequence[Row], part: str) -> None:
    """Runs coloured by the sign of one part, with each group's Pareto frontier."""
    position = _PARTS.index(part)
    handles = []
    there = {row["family"][position] for row in drawn}
    for colour, sign in zip(COLOURS, [*MARKERS, *sorted(there - set(MARKERS))], strict=False):
        if sign not in there:
            continue
        rates, distortions = _columns([row for row in drawn if row["family"][position] == sign])
        marker = MARKERS.get(sign, "^")
        axes.plot(
            rates,
            distortions,
            ls="none",
            marker=marker,
            ms=3.2,
            mfc=colour,
            mec="none",
            alpha=0.55,
            zorder=2,
        )
        axes.plot(*frontier.stepwise(rates, distortions), color=colour, lw=1.4, zorder=3)
        handles.append(
            Line2D(
                [],
                [],
                color=colour,
                lw=1.4,
                marker=marker,
                ms=4,
                label=f"{part} {sign.translate(_SIGNS)}",
            )
        )
    # Above the axes, where no data can be.
    axes.legend(
        handles=handles,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncol=3,
        fontsize=8.5,
        columnspacing=1.2,
        handlelength=1.6,
    )


def _frame(
    axes: Axes,
    rates: np.ndarray,
    distortions: np.ndarray,
    reach: float,
    reference: Reference | None,
) -> None:
    shown = (rates <= reach) & (distortions <= reach)
    wide, tall = rates[shown].max(), distortions[shown].max()
    if reference is not None:
        wide, tall = max(wide, reference.rate[-1]), max(tall, reference.distortion[0])
    axes.set_xlim(-0.02 * wide, 1.03 * wide)
    low = float(distortions[shown].min())
    # From zero, unless distortions of densities lie below it.
    axes.set_ylim(
        *(
            (-0.02 * tall, 1.03 * tall)
            if low >= 0
            else (low - 0.03 * (tall - low), tall + 0.03 * (tall - low))
        )
    )


def _best_frame(
    drawn: Sequence[Row], reference: Reference | None
) -> tuple[tuple[float, float], tuple[float, float], bool]:
    """Ranges of R and of R + D that show the best model of every family.

    Returns:
      Both ranges, and whether the latter is the paper's.
    """
    best = []
    for family in _families(drawn):
        rates, distortions = _columns([row for row in drawn if row["family"] == family])
        at = int((rates + distortions).argmin())
        best.append((float(rates[at]), float(rates[at] + distortions[at])))
    rates, totals = np.asarray(best).T
    wide = (min(PAPER_RATES[0], rates.min() - 1), max(PAPER_RATES[1], 1.1 * rates.max()))
    if PAPER_TOTALS[0] <= totals.min() and totals.max() <= PAPER_TOTALS[1]:
        return wide, PAPER_TOTALS, True
    lowest = min(totals.min(), reference.best.total if reference is not None else np.inf)
    # About the paper's margins below the best of all and above the worst family's best.
    return wide, (float(lowest) - 1.2, float(totals.max()) + 3.0), False


def _caption(split: str, models: int, outside: int) -> str:
    return f"{split} split, {models} models" + (
        f", {outside} of them outside the frame" if outside else ""
    )


def _family_legend(
    figure: Figure, drawn: Sequence[Row], lines: Sequence[Artist], title: str
) -> None:
    """Above everything, where no data can be: families, then lines, then what the markers mean."""
    families = [
        Line2D([], [], ls="none", label=family, **_marker(family)) for family in _families(drawn)
    ]
    title += (
        "\ndark: decoder +; filled: encoder +; circle, square, diamond: prior \N{MINUS SIGN}, +, v"
    )
    legend = figure.legend(
        handles=families,
        loc="outside upper center",
        ncol=6,
        title=title,
        prop={"family": "monospace", "size": 9.5},
        title_fontsize=8.5,
    )
    legend.get_title().set_multialignment("center")
    figure.legend(handles=list(lines), loc="outside lower center", ncol=2, fontsize=8)
