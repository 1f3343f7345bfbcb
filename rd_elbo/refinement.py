"""Where a new beta can lower a convex frontier most: triangles between the hull and its supports.

A model that minimises D + beta R lies on a line of slope -beta that no model of its kind is below.
The lines of two neighbouring corners of the hull meet below their chord, and any frontier between
them runs inside the triangle. Its area is the most that further models can gain there. The slope of
the chord is the beta whose own line is farthest below the chord. This is the sandwich algorithm for
convex curves (Rote 1992, "The convergence rate of the sandwich algorithm", Computing 48).
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from rd_elbo import frontier, tables
from rd_elbo.errors import BadInput
from rd_elbo.sweep.grid import FIELDS, Member, idle_fields

Row = Mapping[str, Any]

# Betas closer than this part of each other are told apart by noise alone.
_CLOSEST = 0.01


class Proposal(NamedTuple):
    """A beta to train at.

    Attributes:
      beta: Slope of the chord, weight of the rate.
      area: Area between the chord and both supporting lines, nats^2.
      left: Index of the corner of lower rate.
      right: Index of the corner of higher rate.
    """

    beta: float
    area: float
    left: int
    right: int


def propose(
    rate: Float[np.ndarray, " points"],
    distortion: Float[np.ndarray, " points"],
    beta: Float[np.ndarray, " points"],
    tried: Sequence[float] = (),
) -> list[Proposal]:
    """Propose betas between neighbouring corners of the convex hull, the most promising first.

    A chord steeper than both of its corners' betas, or flatter than both, shows that one of them
    has missed its own optimum. Its lines bound nothing, and it proposes nothing.

    Args:
      rate: (points,) rates, nats.
      distortion: (points,) distortions, nats.
      beta: (points,) weights of the rate that the points were trained with.
      tried: Further betas that were trained, on the hull or not. A beta within 1 % of one of them,
        or of a corner's, is not proposed.

    Returns:
      Proposals by falling area, all positive.

    Raises:
      ValueError: If the arrays differ in length or hold NaN.
    """
    weights = np.asarray(beta, float)
    corners = frontier.convex_hull(rate, distortion)
    if weights.shape != np.shape(rate):
        raise ValueError(f"beta must have the shape of rate, {np.shape(rate)}, not {weights.shape}")
    found = []
    for left, right in itertools.pairwise(corners):
        width = float(rate[right] - rate[left])
        slope = float(distortion[left] - distortion[right]) / width
        steep, flat = weights[left] - slope, slope - weights[right]
        if steep <= 0 or flat <= 0:
            continue
        area = 0.5 * width**2 * float(steep * flat / (steep + flat))
        if is_new(slope, [*tried, weights[left], weights[right]]):
            found.append(Proposal(slope, area, int(left), int(right)))
    return sorted(found, key=lambda proposal: -proposal.area)


def is_new(beta: float, tried: Sequence[float]) -> bool:
    """Whether a beta is more than 1 % away from all that were tried."""
    return bool((np.abs(np.asarray(tried, float) - beta) > _CLOSEST * beta).all())


class Refinement(NamedTuple):
    """A proposal for the members of a table.

    Attributes:
      scope: "all" where the hull is that of all members, "group" where it is that of members that
        differ in beta and seed alone.
      owner: Row of the member to train again at another beta.
      beta: Weight of the rate, to four digits.
      area: Area that it can gain, nats^2.
      left: Row of the corner of lower rate.
      right: Row of the corner of higher rate.
    """

    scope: str
    owner: Row
    beta: float
    area: float
    left: Row
    right: Row

    @property
    def member(self) -> Member:
        """The member to train."""
        own = {field: self.owner[field] for field in FIELDS}
        return Member(**{**own, "beta": self.beta})


def refinements(points: Sequence[Row], split: str) -> list[Refinement]:
    """Propose members on the hull of all members, and on that of each group.

    Between corners of different groups, the member whose beta is nearer to the proposed one owns
    the proposal. That a line of one group bounds another group's models is an assumption there.

    Args:
      points: Rows of points.csv.
      split: Split whose hull is refined.

    Returns:
      Proposals, those of all members first, each scope by falling area.

    Raises:
      BadInput: If no finite point of that split was trained with the objective "beta".
    """
    rows = [p for p in tables.usable(points, split) if p["objective"] == "beta"]
    if not rows:
        others = ", ".join(sorted({repr(p["objective"]) for p in points}))
        raise BadInput(f"objective: expected 'beta', the only one that is refined, got {others}")
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(_group(row), []).append(row)
    tried: dict[Any, list[float]] = {}
    for point in points:
        if point["objective"] == "beta":
            tried.setdefault(_group(point), []).append(point["beta"])
    found = _of_rows("all", rows, tried)
    within = [r for alike in groups.values() for r in _of_rows("group", alike, tried)]
    return found + sorted(within, key=lambda refinement: -refinement.area)


def default_split(points: Sequence[Row]) -> str:
    """The split to refine on: "valid" where there is one, else "train"; test data choose nothing.

    Raises:
      BadInput: If the table has points of neither.
    """
    there = {str(point["split"]) for point in points}
    for split in ("valid", "train"):
        if split in there:
            return split
    raise BadInput(
        f"split: expected points of 'valid' or 'train', got {', '.join(map(repr, sorted(there)))}. "
        "Name a split to refine on it all the same."
    )


def _of_rows(scope: str, rows: Sequence[Row], tried: Mapping[Any, list[float]]) -> list[Refinement]:
    columns = ([row[name] for row in rows] for name in ("rate", "distortion", "beta"))
    rate, distortion, beta = (np.asarray(column, float) for column in columns)
    found = []
    for proposal in propose(rate, distortion, beta):
        left, right = rows[proposal.left], rows[proposal.right]
        # At beta = 0 a corner is infinitely far.
        far = [abs(np.log(proposal.beta / max(row["beta"], 1e-300))) for row in (left, right)]
        owner = left if far[0] < far[1] else right
        if is_new(proposal.beta, tried[_group(owner)]):
            rounded = float(f"{proposal.beta:.4g}")
            found.append(Refinement(scope, owner, rounded, proposal.area, left, right))
    return found


def _group(row: Row) -> tuple[Any, ...]:
    """The fields that members of a group have in common, those without effect left out."""
    left_out = {"beta", "seed", *idle_fields(row)}
    return tuple((field, row[field]) for field in FIELDS if field not in left_out)
