"""Figures of the rate-distortion plane, drawn from tables alone."""

import dataclasses
import functools
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rd_elbo import frontier, grid, records
from rd_elbo.errors import BadInput

Row = Mapping[str, Any]

# Okabe & Ito's palette, safe for the colour-blind, in an order that keeps neighbours apart in lightness too.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
# As in Alemi et al. 2018, Figure 3: the shape tells the marginal.
_MARKERS = {"-": "o", "+": "s", "v": "D"}
STYLE: dict[Any, Any] = {
    "font.family": "serif",
    "font.size": 9,
    "mathtext.fontset": "cm",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
}
# Members that differ only in these are points of one curve.
_POINTS_OF_A_CURVE = ("beta", "target_rate", "seed")
_CURVE = tuple(field for field in grid.FIELDS if field not in _POINTS_OF_A_CURVE)
_ORDER = ("decoder", "decoder_width", "decoder_depth", "marginal", *_CURVE)
_NAMES: dict[str, str] = {"mlp": "MLP", "pixelcnn": "PixelCNN", "dense": "dense", "normal": "N(0, I)", "vampprior": "VampPrior"}


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """Points of one group along its objective, averaged over seeds.

    Attributes:
      label: What sets the group apart from the others.
      family: Its three characters.
      objective: "beta" or "target_rate".
      control: beta or target rate of each point, rising.
      rate: Mean over seeds, nats.
      distortion: Likewise.
      rate_spread: (2, points), how far the seeds' lowest and highest rates are from the mean.
      distortion_spread: Likewise.
      total_spread: Likewise of R + D.
      seeds: Seeds of each point.
      members: (2, members), rate and distortion of every single member.
    """

    label: str
    family: str
    objective: str
    control: np.ndarray
    rate: np.ndarray
    distortion: np.ndarray
    rate_spread: np.ndarray
    distortion_spread: np.ndarray
    total_spread: np.ndarray
    seeds: np.ndarray
    members: np.ndarray


def curves(points: Sequence[Row], split: str = "test") -> list[Curve]:
    """Groups the points of one split, leaving out members that diverged.

    Raises:
      BadInput: If no finite point of that split is there.
    """
    usable = [p for p in points if p["split"] == split and p["status"] == "ok" and np.isfinite([p["rate"], p["distortion"]]).all()]
    if not usable:
        raise BadInput(f"there are no finite points of the split {split!r} to draw")
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for point in usable:
        groups.setdefault(tuple(point[field] for field in _CURVE), []).append(point)
    first = {key: rows[0] for key, rows in groups.items()}
    order = sorted(groups, key=lambda key: tuple(first[key][field] for field in _ORDER))
    return [_curve(groups[key], _varying(first[key], list(first.values()))) for key in order]


def _varying(row: Row, rows: Sequence[Row]) -> list[str]:
    """The fields in which groups with this group's decoder differ."""
    alike = [other for other in rows if other["decoder"] == row["decoder"]]
    return [field for field in _CURVE if len({other[field] for other in alike}) > 1]


def _curve(rows: list[Row], named: Sequence[str]) -> Curve:
    field = "beta" if rows[0]["objective"] == "beta" else "target_rate"
    control = np.unique([row[field] for row in rows])
    at = [[row for row in rows if row[field] == value] for value in control]
    rate, rate_spread = _mean_and_spread([[row["rate"] for row in same] for same in at])
    distortion, distortion_spread = _mean_and_spread([[row["distortion"] for row in same] for same in at])
    _, total_spread = _mean_and_spread([[row["rate"] + row["distortion"] for row in same] for same in at])
    seeds = np.asarray([len(same) for same in at])
    members = np.asarray([[row["rate"] for row in rows], [row["distortion"] for row in rows]])
    return Curve(
        label=_label(rows[0], named),
        family=str(rows[0]["family"]),
        objective=rows[0]["objective"],
        control=control,
        rate=rate,
        distortion=distortion,
        rate_spread=rate_spread,
        distortion_spread=distortion_spread,
        total_spread=total_spread,
        seeds=seeds,
        members=members,
    )


def _mean_and_spread(groups: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    mean = np.asarray([np.mean(values) for values in groups])
    low, high = np.asarray([min(v) for v in groups]), np.asarray([max(v) for v in groups])
    return mean, np.maximum(np.stack([mean - low, high - mean]), 0)


def _label(row: Row, named: Sequence[str]) -> str:
    """The decoder, its size where that varies, the marginal, then whatever else tells this group from the others."""
    sizes = {"decoder_width": "width", "decoder_depth": "depth"}
    words = [_NAMES.get(row["decoder"], str(row["decoder"]))]
    words += [f"{word} {row[field]}" for field, word in sizes.items() if field in named]
    words.append(_NAMES.get(row["marginal"], str(row["marginal"])))
    words += [f"{field.replace('_', ' ')} {row[field]}" for field in named if field not in ("marginal", *sizes)]
    return ", ".join(words)


def rd_plane(points: Sequence[Row], split: str = "test") -> Figure:
    """R against D: every group's points along beta, its stepwise Pareto frontier, the convex hull of all of them, and the diagonal.

    After Alemi et al. 2018, Figure 3a. Seeds are averaged for the lines, their range drawn as bars; frontiers and hull are over
    single members.
    """
    groups = curves(points, split)
    rates, distortions = np.concatenate([curve.members for curve in groups], axis=1)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 4.9))
        for colour, curve in zip(_cycle(groups), groups, strict=True):
            _draw(axes, curve, curve.distortion, curve.distortion_spread, colour)
            steps = curve.members[:, frontier.pareto(*curve.members)]
            axes.step(*steps, where="post", color=colour, lw=0.8, alpha=0.5, zorder=1)
        hull = frontier.convex_hull(rates, distortions)
        axes.plot(rates[hull], distortions[hull], color="0.2", lw=1.0, ls=(0, (1, 1)), label="convex hull", zorder=1)
        best = float((rates + distortions).min())
        axes.plot([0, best], [best, 0], color="0.5", lw=0.9, ls="--", zorder=0, label=f"$R + D = {best:.1f}$, the best $-$ELBO")
        axes.plot([], [], color="0.5", lw=0.8, label="stepped: Pareto frontier of a group")
        axes.set(xlabel="rate $R$ (nats)", ylabel="distortion $D$ (nats)")
        axes.set_xlim(-0.02 * rates.max(), 1.04 * rates.max())
        axes.set_ylim(0.9 * distortions.min(), 1.04 * distortions.max())
        _legend(axes, groups, split)
    return figure


def elbo_against_rate(points: Sequence[Row], split: str = "test") -> Figure:
    """R + D = -ELBO against R, after Alemi et al. 2018, Figure 3b: models of one ELBO lie on a horizontal line."""
    groups = curves(points, split)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 4.6))
        for colour, curve in zip(_cycle(groups), groups, strict=True):
            _draw(axes, curve, curve.rate + curve.distortion, curve.total_spread, colour)
        axes.set(xlabel="rate $R$ (nats)", ylabel="$R + D = -$ELBO (nats)")
        _legend(axes, groups, split)
    return figure


def _cycle(groups: Sequence[Curve]) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(len(groups))]


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
        marker=_MARKERS.get(curve.family[2], "o"),
        mfc=colour if strong else "white",
        ms=4.5,
        lw=1.2,
        elinewidth=1.0,
        capsize=2,
        label=curve.label,
        zorder=3,
    )
    ringed = (curve.control == 1.0) & (curve.objective == "beta")
    axes.plot(curve.rate[ringed], height[ringed], marker="o", ms=11, mfc="none", mec=colour, mew=1.0, ls="none", zorder=4)


def _legend(axes: Axes, groups: Sequence[Curve], split: str) -> None:
    """Explains everything drawn, above the axes, where no data can be."""
    if any(((curve.control == 1.0) & (curve.objective == "beta")).any() for curve in groups):
        axes.plot([], [], marker="o", ms=9, mfc="none", mec="0.3", mew=1.0, ls="none", label=r"ring: $\beta = 1$")
    bars = "; bars: range over seeds" if any((curve.seeds > 1).any() for curve in groups) else ""
    signs = "filled: autoregressive decoder; " if len({curve.family[1] for curve in groups}) > 1 else ""
    title = f"{split} split; {signs}points joined along {'/'.join(dict.fromkeys(c.objective for c in groups))}{bars}"
    axes.legend(
        fontsize=7.5, title=title.replace("_", " "), title_fontsize=7.5, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=2
    )


FIGURES = {"rd_plane": rd_plane, "elbo_against_rate": elbo_against_rate}


def save(figure: Figure, folder: pathlib.Path, name: str) -> list[pathlib.Path]:
    """Writes a figure as PNG and PDF into `folder`, closes it and returns the files."""
    written = []
    for kind in ("png", "pdf"):
        path = folder / f"{name}.{kind}"
        with plt.rc_context(STYLE):
            records.write_whole(path, functools.partial(_write, figure, kind))
        written.append(path)
    plt.close(figure)
    return written


def _write(figure: Figure, kind: str, file: Any) -> None:
    # No creation date: the same table gives the same file.
    metadata = {"CreationDate": None} if kind == "pdf" else {"Software": None}
    # Embedding matplotlib's own fonts makes fontTools warn of their dates.
    chatter = logging.getLogger("fontTools")
    level = chatter.level
    chatter.setLevel(logging.ERROR)
    try:
        figure.savefig(file, format=kind, metadata=metadata)
    finally:
        chatter.setLevel(level)


def draw_all(workdir: pathlib.Path | str, splits: Sequence[str] | None = None) -> list[pathlib.Path]:
    """Draws every figure of a run directory from its points.csv, as PNG and PDF.

    Args:
      workdir: The run directory.
      splits: Splits to draw; by default all that the table has. Figures of the first one have plain names, those of others end in
        the split's name.

    Returns:
      The files written.

    Raises:
      BadInput: If the table is missing, torn or has nothing to draw.
    """
    workdir = pathlib.Path(workdir)
    points = records.read_table(workdir / "points.csv")
    missing = [name for name in ("split", *_CURVE) if points and name not in points[0]]
    if missing:
        raise BadInput(f"table {str(workdir / 'points.csv')!r} has no column {missing[0]!r}; only sweeps are drawn here")
    present = list(dict.fromkeys(point["split"] for point in points))
    written: list[pathlib.Path] = []
    for position, split in enumerate(splits or present):
        for name, draw in FIGURES.items():
            written += save(draw(points, split), workdir / "figures", f"{name}{'' if position == 0 else f'_{split}'}")
    return written
