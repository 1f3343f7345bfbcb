"""Figures of the rate-distortion plane, drawn from tables alone."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rd_elbo import frontier, objectives
from rd_elbo.bootstrap import Band
from rd_elbo.errors import BadInput
from rd_elbo.report import bands, families, paper
from rd_elbo.report.style import COLOURS, MARKERS, STYLE, save
from rd_elbo.sweep import grid, tables

Row = Mapping[str, Any]

_ORDER = ("decoder", "decoder_width", "decoder_depth", "prior", "encoder")
_NAMES: dict[str, str] = {
    "dense": "dense",
    "conv": "convolutions",
    "conv_iaf": "convolutions + IAF",
    "resnet": "ResNet",
    "mlp": "MLP",
    "deconv": "deconvolutions",
    "pixelcnn": "PixelCNN",
    "pixelcnnpp": "PixelCNN++",
    "pixelvae": "PixelVAE",
    "normal": "N(0, I)",
    "maf": "MAF",
    "maf_affine": "affine MAF",
    "realnvp": "RealNVP",
    "vampprior": "VampPrior",
}
# Of families, beyond which their legend says too much; and the longest name of which two fit beside
# each other.
_MOST_CURVES, _LONGEST_OF_TWO = 12, 46
# Rows of a model that is none of a sweep's lack these columns.
_OWN = {"family": "   ", "encoder": "", "decoder": "model", "prior": ""}
# What identifies a curve: fields and values, without those in which its points differ or that mean
# nothing to them.
Key = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """Points of one group along its objective, averaged over seeds.

    Attributes:
      label: Name of the group, by its difference to the others.
      family: Name in the paper's three characters.
      objective: A key of `objectives.OBJECTIVES`.
      control: (points,) values varied along the curve, such as beta or the target rate, rising.
      rate: (points,) mean over seeds, nats.
      distortion: (points,) mean over seeds, nats.
      rate_spread: (2, points) distance of the seeds' lowest and highest rates from the mean, nats.
      distortion_spread: (2, points) distance of the lowest and highest distortions, nats.
      total_spread: (2, points) distance of the lowest and highest R + D, nats.
      seeds: (points,) number of seeds.
      members: (2, members) rate and distortion of every single member.
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
    """Group the points of one split, leaving out members that diverged.

    Args:
      points: Rows of points.csv, of `rd.sweep` or of `rd.evaluate`. Rows without a split are of
        every split, and rows without names of parts are of one model.
      split: Split to draw.

    Returns:
      A curve for each group of points that differ only in the objective's value and the seed.

    Raises:
      BadInput: If no finite point of that split is there.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for point in tables.usable([{**_OWN, "split": split, **point} for point in points], split):
        groups.setdefault(tuple(_key(point).items()), []).append(point)
    order = sorted(groups, key=lambda key: (_place(dict(key)), *map(str, key)))
    keys = [dict(key) for key in order]
    return [_curve(groups[key], _varying(dict(key), keys)) for key in order]


def _place(key: Key) -> tuple[Any, ...]:
    return tuple((field in key, key.get(field, 0)) for field in _ORDER)


def _key(row: Row) -> Key:
    left_out = {objectives.SETTINGS[row["objective"]][0], "seed", *grid.unused_fields(row)}
    own = {field: row[field] for field in grid.FIELDS if field in row and field not in left_out}
    # A member's last parameters and their average are points of two curves.
    return own | {"averaging": tables.averaging_of(row)}


def _varying(key: Key, keys: Sequence[Key]) -> list[str]:
    """The fields in which curves with this curve's decoder differ."""
    alike = [other for other in keys if other["decoder"] == key["decoder"]]
    return [field for field in key if len({other[field] for other in alike if field in other}) > 1]


def _curve(rows: list[Row], named: Sequence[str]) -> Curve:
    field = objectives.SETTINGS[rows[0]["objective"]][0]
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
    """The decoder, its size where that varies, the prior, then whatever else tells this group from the others."""
    sizes = {"decoder_width": "width", "decoder_depth": "depth"}
    words = [_named(row["decoder"])]
    if "encoder" in named:
        words[0] = f"{_named(row['encoder'])}, {words[0]}"
    words += [f"{word} {row[field]}" for field, word in sizes.items() if field in named]
    values = {**row, "averaging": tables.averaging_of(row)}
    words += [_named(row["prior"])] if row["prior"] else []
    words += [f"{field.replace('_', ' ')} {values[field]}" for field in named if field not in ("encoder", "prior", *sizes)]
    return ", ".join(words)


def _named(part: str) -> str:
    """A part as legends write it; of "package.module:Class" the class."""
    return _NAMES.get(part, str(part).rpartition(":")[2])


def rd_plane(points: Sequence[Row], split: str = "test", band: Band | None = None) -> Figure:
    """R against D: every group's points along beta, its stepwise Pareto frontier, the convex hull of all of them, and the diagonal.

    After Alemi et al. 2018, Figure 3a. Seeds are averaged for the lines, their range drawn as bars;
    frontiers and hull are over single members. A `band` is the 95 % interval of the hull, see
    `bands`.
    """
    groups = curves(points, split)
    rates, distortions = np.concatenate([curve.members for curve in groups], axis=1)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 4.9 + _legend_inches(groups)))
        for colour, curve in zip(_cycle(groups), groups, strict=True):
            _draw(axes, curve, curve.distortion, curve.distortion_spread, colour)
            steps = curve.members[:, frontier.pareto(*curve.members)]
            axes.step(*steps, where="post", color=colour, lw=0.8, alpha=0.5, zorder=1)
        hull = frontier.convex_hull(rates, distortions)
        axes.plot(rates[hull], distortions[hull], color="0.2", lw=1.0, ls=(0, (1, 1)), label="convex hull", zorder=1)
        if band is not None:
            axes.fill_between(band.rate, band.low, band.high, color="0.2", alpha=0.2, lw=0, label="convex hull, 95 %", zorder=0)
        best = float((rates + distortions).min())
        # Of densities even the best total may be negative: then from R = 0 to the largest.
        end = best if best > 0 else float(rates.max())
        axes.plot(
            [0, end], [best, best - end], color="0.5", lw=0.9, ls="--", zorder=0, label=f"$R + D = {best:.1f}$, the best $-$ELBO"
        )
        axes.plot([], [], color="0.5", lw=0.8, label="stepped: Pareto frontier of a group")
        axes.set(xlabel="rate $R$ (nats)", ylabel="distortion $D$ (nats)")
        # Of collapsed models every rate may be 0, or estimated slightly below it.
        widest = rates.max() if rates.max() > 0 else 1.0
        axes.set_xlim(min(-0.02 * widest, rates.min() - 0.02 * widest), 1.04 * widest)
        axes.set_ylim(*_heights(distortions))
        _legend(axes, groups, _title(points, split))
    return figure


def elbo_against_rate(points: Sequence[Row], split: str = "test", band: Band | None = None) -> Figure:
    """R + D = -ELBO against R, after Alemi et al. 2018, Figure 3b: models of one ELBO lie on a horizontal line."""
    groups = curves(points, split)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 4.6 + _legend_inches(groups)))
        for colour, curve in zip(_cycle(groups), groups, strict=True):
            _draw(axes, curve, curve.rate + curve.distortion, curve.total_spread, colour)
        if band is not None:
            low, high = band.rate + band.low, band.rate + band.high
            axes.fill_between(band.rate, low, high, color="0.2", alpha=0.2, lw=0, label="convex hull, 95 %", zorder=0)
        axes.set(xlabel="rate $R$ (nats)", ylabel="$R + D = -$ELBO (nats)")
        _legend(axes, groups, _title(points, split))
    return figure


def _heights(distortions: np.ndarray) -> tuple[float, float]:
    """The range of an axis of distortions; those of densities may be negative."""
    low, high = float(distortions.min()), float(distortions.max())
    # Markers at the ends stay whole.
    margin = 0.05 * (high - low or abs(high) or 20.0)
    return (max(low - margin, 0.0) if low > 0 else low - margin), high + margin


def _cycle(groups: Sequence[Curve]) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(len(groups))]


def _legend_inches(groups: Sequence[Curve]) -> float:
    """What a legend of many groups, or of long names, needs beyond one of few, so that it takes nothing from the axes."""
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
    axes.plot(curve.rate[ringed], height[ringed], marker="o", ms=11, mfc="none", mec=colour, mew=1.0, ls="none", zorder=4)


def _title(points: Sequence[Row], split: str) -> str:
    return f"{split} split; " if any("split" in point for point in points) else ""


def _legend(axes: Axes, groups: Sequence[Curve], title: str) -> None:
    """Explains everything drawn, above the axes, where no data can be."""
    if any(((curve.control == 1.0) & (curve.objective == "beta")).any() for curve in groups):
        axes.plot([], [], marker="o", ms=9, mfc="none", mec="0.3", mew=1.0, ls="none", label=r"ring: $\beta = 1$")
    bars = "; bars: range over seeds" if any((curve.seeds > 1).any() for curve in groups) else ""
    signs = "filled: autoregressive decoder; " if len({curve.family[1] for curve in groups}) > 1 else ""
    title += f"{signs}points joined along {'/'.join(dict.fromkeys(c.objective for c in groups))}{bars}"
    axes.legend(
        fontsize=7.5,
        title=title.replace("_", " "),
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


def draw_all(workdir: pathlib.Path | str, splits: Sequence[str] | None = None) -> list[pathlib.Path]:
    """Draws every figure of a run directory from its points.csv, as PNG and PDF.

    The paper's Figure 3 is among them where `families.worth_drawing` finds enough families, and is
    all there is where a legend of their curves would be larger than the plane. The paper's own
    frontier is behind ours where `paper.reference` has one for the data, and only on the test
    split, since it looks like one of test images. The band of our hull is drawn where frontier.csv
    has one of this table, see `bands`.

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
        if not many_families or len(curves(points, split)) <= _MOST_CURVES:
            figures |= {name: draw(points, split, band) for name, draw in FIGURES.items()}
        if many_families:
            theirs = reference if split == "test" else None
            figures |= {name: draw(points, split, theirs, band) for name, draw in families.FIGURES.items()}
        for name, figure in figures.items():
            written += save(figure, workdir / "figures", f"{name}{'' if position == 0 else f'_{split}'}")
    return written
