"""Members that a table of points proposes, and those that were added to a run directory.

`scripts/refine.py` adds members in refined.json, beside the configuration. Every run of the sweep
joins them to its grid, so its own command trains them, resumes them and keeps their rows.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rd_elbo import aliases, disk
from rd_elbo.errors import BadInput
from rd_elbo.models.family import Architecture
from rd_elbo.refinement import is_new, missed, propose
from rd_elbo.sweep import tables
from rd_elbo.sweep.config import Plan
from rd_elbo.sweep.grid import FIELDS, Member, unique, unused_fields

Row = Mapping[str, Any]

FILE = "refined.json"
# Seeds of one member may differ by more, nats; what is smaller says nothing.
_SMALLEST_MISS = 0.1
_ARCHITECTURE = tuple(field.name for field in dataclasses.fields(Architecture))


def recorded(workdir: pathlib.Path) -> list[Member]:
    """The members that were added, in order.

    Raises:
      BadInput: If the file is damaged.
    """
    path = workdir / FILE
    # Unlike `Path.exists`, false for a name that is too long, which is refused elsewhere.
    if not os.path.exists(path):
        return []
    try:
        return [Member(**aliases.renamed(own)) for own in disk.read_json(path)["members"]]
    except (AttributeError, KeyError, TypeError) as error:
        raise BadInput(
            f"{str(path)!r}: expected a file as it was written, got a damaged one ({error})."
        ) from error


def record(workdir: pathlib.Path, members: Sequence[Member]) -> None:
    """Add members to those of the run directory."""
    default = {field.name: field.default for field in dataclasses.fields(Member)}
    listed = [
        {k: v for k, v in dataclasses.asdict(member).items() if v != default[k]}
        for member in unique([*recorded(workdir), *members])
    ]
    disk.write_json(workdir / FILE, {"members": listed})


def extended(plan: Plan, workdir: pathlib.Path) -> Plan:
    """The plan with the members that were added to its run directory."""
    if not (added := recorded(workdir)):
        return plan
    return dataclasses.replace(plan, members=unique([*plan.members, *added]))


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
        raise BadInput(f"objective: expected 'beta', the only one that is refined, got {others}.")
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


class Miss(NamedTuple):
    """A member that another one of its architecture beats at its own beta.

    Attributes:
      row: Row of the member; the better one of the last parameters and their average.
      better: Row of the best model of that architecture at that beta.
      nats: Difference in D + beta R.
    """

    row: Row
    better: Row
    nats: float

    @property
    def differs(self) -> tuple[str, ...]:
        """The fields in which the better member differs, beside beta."""
        return tuple(f for f in FIELDS if f != "beta" and self.row[f] != self.better[f])


def misses(points: Sequence[Row], split: str) -> list[Miss]:
    """Find members that have not reached their optimum, the largest difference first.

    Members of one architecture may differ in objective and training. Only those of the objective
    "beta" can be found; any model can be the better one. Differences up to 0.1 nats are left out.

    Args:
      points: Rows of points.csv.
      split: Split to compare on.
    """
    alike: dict[Any, list[Row]] = {}
    for row in tables.usable(points, split):
        alike.setdefault(_key(row, _ARCHITECTURE), []).append(row)
    found: dict[str, Miss] = {}
    for rows in alike.values():
        for row, nats, best in zip(rows, *missed(*_columns(rows)), strict=True):
            name = row["member"]
            if row["objective"] == "beta" and (name not in found or nats < found[name].nats):
                found[name] = Miss(row, rows[best], float(nats))
    large = [miss for miss in found.values() if miss.nats > _SMALLEST_MISS]
    return sorted(large, key=lambda miss: -miss.nats)


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
    found = []
    for proposal in propose(*_columns(rows)):
        left, right = rows[proposal.left], rows[proposal.right]
        # At beta = 0 a corner is infinitely far.
        far = [abs(np.log(proposal.beta / max(row["beta"], 1e-300))) for row in (left, right)]
        owner = left if far[0] < far[1] else right
        if is_new(proposal.beta, tried[_group(owner)]):
            rounded = float(f"{proposal.beta:.4g}")
            found.append(Refinement(scope, owner, rounded, proposal.area, left, right))
    return found


def _columns(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rates, distortions and betas."""
    rate, distortion, beta = (
        np.asarray([row[name] for row in rows], float) for name in ("rate", "distortion", "beta")
    )
    return rate, distortion, beta


def _group(row: Row) -> tuple[Any, ...]:
    """The fields that members of a group have in common."""
    return _key(row, [field for field in FIELDS if field not in ("beta", "seed")])


def _key(row: Row, fields: Sequence[str]) -> tuple[Any, ...]:
    """Some fields of a row, those without effect left out."""
    left_out = unused_fields(row)
    return tuple((field, row[field]) for field in fields if field not in left_out)
