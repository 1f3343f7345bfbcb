"""The end of a sweep: its tables, and what it says of its members."""

import dataclasses
import sys
from collections.abc import Mapping

from rd_elbo import disk
from rd_elbo.sweep import provenance
from rd_elbo.sweep.config import Plan
from rd_elbo.sweep.tables import Point
from rd_elbo.sweep.workdir import Finished, Workdir


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a sweep ended.

    Attributes:
      points: The rows of points.csv.
      failed: Members that could not be trained -> why.
      missing: Shard -> number of its members that are neither trained nor failed.
      written: Whether this process has written the tables.
      seconds: Family -> seconds that its chunks took, compilation and evaluation included.
    """

    points: list[Point]
    failed: dict[str, str]
    missing: dict[int, int]
    written: bool
    seconds: dict[str, float]


def concluded(
    plan: Plan,
    folder: Workdir,
    done: Mapping[str, Finished],
    failed: dict[str, str],
    missing: dict[int, int],
) -> Outcome:
    """Write the tables of a run directory.

    Args:
      plan: The sweep.
      folder: Run directory of the sweep.
      done: Member -> the finished chunk that it is in.
      failed: Members that could not be trained -> why.
      missing: Shard -> number of its members that are neither trained nor failed.
    """
    points = folder.write_points(plan.members, done, list(plan.evaluated))
    folder.write_metrics(plan.members, done)
    folder.write_members(plan.members, done, failed)
    finished = [(done[m.name], m.family) for m in plan.members if m.name in done]
    chunks = {chunk.name: chunk for chunk, _ in finished}
    # All members of a chunk are of one program, and so of one family.
    family_of = {chunk.name: family for chunk, family in finished}
    seconds = dict.fromkeys(("training", "compiling", "evaluating"), 0.0)
    of_families = dict.fromkeys(family_of.values(), 0.0)
    for name, chunk in chunks.items():
        for kind in seconds:
            seconds[kind] += chunk.provenance["seconds"][kind]
            of_families[family_of[name]] += chunk.provenance["seconds"][kind]
    data = {**plan.identity["data"], "origin": plan.dataset.origin}
    about = provenance.provenance(data, sys.argv, seconds)
    about["tables"] = {n: disk.sha256(folder.path / n) for n in ("points.csv", "metrics.csv")}
    about["chunks"] = {n: {"version": c.version, **c.provenance} for n, c in chunks.items()}
    disk.write_json(folder.path / "provenance.json", about)
    return Outcome(points, failed, missing, True, of_families)
