"""The table of points that a sweep prints, and names of models in tables."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from rd_elbo.models import registry
from rd_elbo.objectives import SETTINGS
from rd_elbo.sweep.tables import averaging_of

# The quantity that an objective sets; others are written out.
_AIMS = {"beta": "β", "target_rate": "R", "target_distortion": "D", "free_bits": "R"}


def points_table(
    points: Sequence[Mapping[str, Any]], split: str, dimensions: int | None = None
) -> Table:
    """The points of one split in nats, group by group, narrow enough for 80 columns.

    Args:
      points: Rows of points.csv.
      split: Split to show.
      dimensions: Dimensions of an example of 8-bit levels, for R + D in bits per dimension; None
        shows active units instead.
    """
    # "none" before "ema": the last parameters, then their average.
    own = [point for point in points if point["split"] == split]
    rows = sorted(own, key=lambda p: (*_group(p), _control(p), p["seed"], averaging_of(p) == "ema"))
    averaged = any(averaging_of(point) == "ema" for point in rows)
    table = Table(
        title=f"{split} split: nats, ± standard error over examples",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 0),
        pad_edge=False,
    )
    by_beta = all(
        point["objective"] == "beta" and not point["kl_warmup_fraction"] for point in rows
    )
    for name in ("family", "decoder", "β" if by_beta else "aim"):
        table.add_column(name, no_wrap=True)
    for name in ("seed", "R", "±", "D", "±", "R + D", "bits/dim" if dimensions else "active"):
        table.add_column(name, justify="right", no_wrap=True)
    if averaged:
        table.add_column("of", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for point, following in zip(rows, [*rows[1:], None], strict=True):
        total = -point["elbo"]
        bits = f"{total / (dimensions * math.log(2)):.3f}" if dimensions else ""
        table.add_row(
            point["family"],
            decoder_of(point),
            f"{_control(point):.3g}" if by_beta else aim(point),
            str(point["seed"]),
            f"{point['rate']:.2f}",
            _error(point["rate_se"]),
            f"{point['distortion']:.2f}",
            _error(point["distortion_se"]),
            f"{total:.2f}",
            bits or str(point["active_units"]),
            *["ema" if averaging_of(point) == "ema" else ""] * averaged,
            point["status"],
            end_section=following is not None and _group(following) != _group(point),
        )
    return table


def _error(value: float) -> str:
    """A standard error; of one example there is none."""
    return "–" if math.isnan(value) else f"{value:.2f}"


def decoder_of(row: Mapping[str, Any]) -> str:
    """A decoder and its width and depth; of an own one the class, and those that it has."""
    size = "x".join(str(row[field]) for field in registry.sizes(row["decoder"]))
    return f"{row['decoder'].rpartition(':')[2]} {size}".rstrip()


def aim(point: Mapping[str, Any]) -> str:
    """What a model was trained for: a beta, or a target; an arrow where that was annealed."""
    objective = point["objective"]
    name, sign = _AIMS.get(objective, objective), "≥" if objective == "free_bits" else "="
    return f"{name} {'→' if point['kl_warmup_fraction'] else sign} {_control(point):.3g}"


def _control(point: Mapping[str, Any]) -> float:
    return point[SETTINGS[point["objective"]][0]]


def _group(point: Mapping[str, Any]) -> tuple[Any, ...]:
    own = ("decoder", "decoder_width", "decoder_depth", "encoder", "prior", "objective")
    return tuple(point[field] for field in own)
