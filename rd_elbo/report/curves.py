"""Curves of the rate-distortion plane: points of a table grouped, averaged over seeds and named."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rd_elbo import objectives
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
    "pixelvae_resnet": "PixelVAE (ResNet)",
    "normal": "N(0, I)",
    "maf": "MAF",
    "maf_affine": "affine MAF",
    "realnvp": "RealNVP",
    "vampprior": "VampPrior",
}
_WORDS = {"kl_warmup_fraction": "KL warm-up"}
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
      averaging: Parameters that the points are of, the last ones ("none") or averages ("ema").
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
    averaging: str
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


def averaged(points: Sequence[Row]) -> list[Row]:
    """The rows that stand for their members: of two in a split, that of the average.

    An average that diverged stands for nothing else, and no row does that names no member, such as
    those of `rd.evaluate`.
    """
    means = {
        _of_member(point)
        for point in points
        if tables.averaging_of(point) != tables.AVERAGINGS[0] and tables.sound(point)
    }
    return [
        point
        for point in points
        if tables.averaging_of(point) != tables.AVERAGINGS[0]
        or "member" not in point
        or _of_member(point) not in means
    ]


def _of_member(row: Row) -> tuple[Any, Any]:
    return row.get("member"), row.get("split")


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
    distortions = [[row["distortion"] for row in same] for same in at]
    distortion, distortion_spread = _mean_and_spread(distortions)
    totals = [[row["rate"] + row["distortion"] for row in same] for same in at]
    _, total_spread = _mean_and_spread(totals)
    seeds = np.asarray([len(same) for same in at])
    members = np.asarray([[row["rate"] for row in rows], [row["distortion"] for row in rows]])
    return Curve(
        label=_label(rows[0], named),
        family=str(rows[0]["family"]),
        averaging=tables.averaging_of(rows[0]),
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
    """The name of a group: its decoder, prior, and the fields in which it differs."""
    sizes = {"decoder_width": "width", "decoder_depth": "depth"}
    words = [_named(row["decoder"])]
    if "encoder" in named:
        words[0] = f"{_named(row['encoder'])}, {words[0]}"
    words += [f"{word} {row[field]}" for field, word in sizes.items() if field in named]
    values = {**row, "averaging": tables.averaging_of(row)}
    words += [_named(row["prior"])] if row["prior"] else []
    others = (field for field in named if field not in ("encoder", "prior", *sizes))
    words += [f"{_WORDS.get(field, field.replace('_', ' '))} {values[field]}" for field in others]
    return ", ".join(words)


def _named(part: str) -> str:
    """A part as legends write it; of "package.module:Class" the class."""
    return _NAMES.get(part, str(part).rpartition(":")[2])
