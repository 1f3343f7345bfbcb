"""Which models a gallery shows: those of Alemi et al. 2018, Figures 4, 5 and 6.

Code chooses them from the rows of points.csv, not an eye.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rd_elbo import frontier
from rd_elbo.sweep import tables
from rd_elbo.sweep.grid import FIELDS

Row = Mapping[str, Any]

# Models beside each other in a panel of Figure 4, and in Figure 6.
_FEW, _MANY = 4, 12
# Models count as of one ELBO within so many nats; those of the paper's Figure 4d lie within 3.2.
TOLERANCE = 4.0
# The paper shows Figure 4c for this prior.
_PRIORS = "v+-"
# Members that differ only in these are points of one curve along beta.
_ALONG_BETA = ("beta", "seed")


@dataclasses.dataclass(frozen=True, eq=False)
class Selected:
    """One model at one place in a gallery.

    Attributes:
      figure: Number of the paper's figure: 4, 5 or 6.
      panel: Letter of the figure's panel.
      part: Kind of the images shown, "reconstruction" or "sample".
      choice: Name of the function that chose this model.
      position: Index of the model in its panel, from 0.
      row: Row of points.csv.
    """

    figure: int
    panel: str
    part: str
    choice: str
    position: int
    row: Row


def select(
    rows: Sequence[Row], split: str = "test", tolerance: float = TOLERANCE
) -> list[Selected]:
    """Choose the models of Figures 4, 5 and 6 from a table of points.

    Figure 4 shows one family along beta (a reconstructions, b samples), families at beta = 1 (c)
    and models of nearly one ELBO (d); Figure 5 every family at beta = 1; Figure 6 the frontier (a
    reconstructions, b samples each). In Figure 4c there are at most four families, those of one
    prior. A member with an average shows the parameters of lower R + D.

    Args:
      rows: Rows of points.csv.
      split: Split whose rates and distortions count.
      tolerance: Largest excess of R + D over the lowest in Figure 4d, nats.

    Returns:
      The selection, figure by figure; panels without a model are left out.

    Raises:
      BadInput: If no model of that split is finite.
    """
    of_split = one_of_each(tables.usable(rows, split))
    families = by_family(of_split)
    chosen = {
        (4, "a", "reconstruction", "by_beta"): (along_beta := by_beta(of_split)),
        (4, "b", "sample", "by_beta"): along_beta,
        (4, "c", "reconstruction", "by_family"): of_one_prior(families),
        (4, "d", "reconstruction", "equal_elbo"): equal_elbo(of_split, tolerance=tolerance),
        (5, "a", "reconstruction", "by_family"): families,
        (5, "b", "sample", "by_family"): families,
        (6, "a", "reconstruction", "along_frontier"): (best := along_frontier(of_split)),
        (6, "b", "sample", "along_frontier"): best,
    }
    return [
        Selected(*place, position, row)
        for place, rows in chosen.items()
        for position, row in enumerate(rows)
    ]


def finite(rows: Sequence[Row]) -> list[Row]:
    """Rows of members that did not diverge."""
    return [row for row in rows if tables.sound(row)]


def one_of_each(rows: Sequence[Row]) -> list[Row]:
    """Keep one row of a member that has two, of its last parameters and of their average.

    Args:
      rows: Points of one split.

    Returns:
      The rows in order, without those whose twin has a lower R + D; of equal ones the last
      parameters stay.
    """
    totals: dict[tuple[str, str], float] = {}
    for row in rows:
        at = tables.averaging_of(row), str(row["member"])
        totals[at] = min(_total(row), totals.get(at, math.inf))

    def stays(row: Row) -> bool:
        last, mean = (
            totals.get((averaging, str(row["member"])), math.inf) for averaging in ("none", "ema")
        )
        return last <= mean if tables.averaging_of(row) == "none" else mean < last

    return [row for row in rows if stays(row)]


def by_beta(rows: Sequence[Row], most: int = _FEW) -> list[Row]:
    """One model along beta, spread over log beta, both ends included.

    Of the members that differ in nothing but beta and seed it takes those with an autoregressive
    decoder, the most betas, and the lowest R + D, in this order of importance; one beta alone is no
    curve and comes last.

    Args:
      rows: Points of one split.
      most: Models at most.

    Returns:
      Rows by rising beta, each of the lowest seed; none if no member was trained along beta.
    """
    curves: dict[tuple[Any, ...], list[Row]] = {}
    for row in finite(rows):
        if row["objective"] == "beta":
            curves.setdefault(
                tuple(row.get(field) for field in FIELDS if field not in _ALONG_BETA), []
            ).append(row)
    if not curves:
        return []

    def merit(curve: list[Row]) -> tuple[bool, bool, int, float]:
        betas = len({row["beta"] for row in curve})
        return betas > 1, _autoregressive(curve[0]), betas, -min(map(_total, curve))

    at: dict[float, Row] = {}
    best = max(curves.values(), key=merit)
    for row in sorted(best, key=lambda row: (row["beta"], row["seed"])):
        at.setdefault(row["beta"], row)
    # A beta of 0 has no logarithm; it counts as a tenth of the next.
    smallest = min((beta for beta in at if beta > 0), default=1.0) / 10
    kept = spread([math.log(max(beta, smallest)) for beta in at], most)
    return [list(at.values())[i] for i in kept]


def by_family(rows: Sequence[Row], beta: float = 1.0) -> list[Row]:
    """Choose a model of every family at one beta.

    It is not annealed, has the lowest seed, and of the models left (of other sizes, say) the lowest
    R + D.

    Args:
      rows: Points of one split.
      beta: Wanted beta. A family without it gives its nearest in ratio, the lower of two; the row
        says which it is.

    Returns:
      Rows, factorised decoders first, then by prior and encoder. Families without a member trained
      along beta are not there.
    """
    families: dict[str, list[Row]] = {}
    for row in finite(rows):
        if row["objective"] == "beta" and row["kl_warmup_fraction"] == 0:
            families.setdefault(row["family"], []).append(row)

    def order(row: Row) -> tuple[float, float, int, float]:
        return _distance(row["beta"], beta), row["beta"], row["seed"], _total(row)

    def place(row: Row) -> list[int]:
        encoder, decoder, prior = ("-+v".find(sign) for sign in row["family"])
        return [decoder, prior, encoder]

    return sorted((min(family, key=order) for family in families.values()), key=place)


def _distance(beta: float, wanted: float) -> float:
    if beta == wanted:
        return 0.0
    # Rounded, so that 0.5 and 2 are equally far from 1 whatever the last digit of a logarithm.
    return round(abs(math.log(beta / wanted)), 9) if beta > 0 and wanted > 0 else math.inf


def of_one_prior(rows: Sequence[Row], most: int = _FEW) -> list[Row]:
    """Keep the families of one prior: the one with the most of them.

    Args:
      rows: Rows of different families.
      most: Rows at most.

    Returns:
      All rows if they are no more than `most`. Of priors with equally many, the VampPrior's.
    """
    if len(rows) <= most:
        return list(rows)
    count = Counter(row["family"][2] for row in rows)
    kept = max(_PRIORS, key=lambda sign: count[sign])
    return [row for row in rows if row["family"][2] == kept][:most]


def equal_elbo(rows: Sequence[Row], most: int = _FEW, tolerance: float = TOLERANCE) -> list[Row]:
    """Choose models of nearly the best R + D, as far apart in rate as possible.

    Args:
      rows: Points of one split.
      most: Models at most.
      tolerance: Largest excess of R + D over the lowest, nats.

    Returns:
      Rows by rising rate.
    """
    alive = finite(rows)
    best = min(map(_total, alive), default=0.0)
    return _spread_in_rate([row for row in alive if _total(row) <= best + tolerance], most)


def along_frontier(rows: Sequence[Row], most: int = _MANY) -> list[Row]:
    """Choose corners of the convex hull, spread over the rate, both ends included.

    Where the hull has fewer corners than `most`, the whole Pareto frontier is spread.

    Args:
      rows: Points of one split.
      most: Models at most.

    Returns:
      Rows by rising rate.
    """
    alive = finite(rows)
    rate, distortion = (
        np.asarray([float(row[name]) for row in alive]) for name in ("rate", "distortion")
    )
    hull = frontier.convex_hull(rate, distortion)
    kept = hull if len(hull) >= most else frontier.pareto(rate, distortion)
    return _spread_in_rate([alive[i] for i in kept], most)


def _spread_in_rate(rows: Sequence[Row], most: int) -> list[Row]:
    return [rows[i] for i in spread([row["rate"] for row in rows], most)]


def spread(values: Sequence[float], most: int) -> list[int]:
    """Choose values whose smallest gap between neighbours is as large as it can be.

    Args:
      values: Values in any order.
      most: Values at most.

    Returns:
      Indices by rising value, the lowest and the highest value among them (the lowest alone if only
      one may be); all of them if there are no more than `most`.
    """
    order = np.argsort(values, kind="stable")
    ordered = np.asarray(values, float)[order]
    if len(ordered) <= most or most < 2:
        return [int(i) for i in order[:most]]

    def at_least(gap: float) -> list[int]:
        taken = [0]
        for i, value in enumerate(ordered):
            if i and value - ordered[taken[-1]] >= gap:
                taken.append(i)
        return taken

    # Taking every value as soon as it is far enough gives the most of them, so the largest gap with
    # enough is the answer.
    gaps = np.unique((ordered[None] - ordered[:, None])[np.triu_indices(len(ordered), 1)])
    low, high = 0, len(gaps) - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(at_least(gaps[middle])) >= most else (low, middle - 1)
    taken = [*at_least(gaps[low])[: most - 1], len(ordered) - 1]
    return [int(order[i]) for i in taken]


def _total(row: Row) -> float:
    return float(row["rate"]) + float(row["distortion"])


def _autoregressive(row: Row) -> bool:
    return bool(row["family"][1] == "+")
