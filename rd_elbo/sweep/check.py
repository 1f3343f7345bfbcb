"""Whether a table of points holds: the saved parameters of a run, evaluated again."""

import dataclasses
import math
from collections.abc import Callable, Sequence

from rd_elbo.sweep import tables
from rd_elbo.sweep.restore import Run


@dataclasses.dataclass(frozen=True)
class Difference:
    """A point as the table has it, and as its member's parameters give it now.

    Attributes:
      member: Name of the member.
      split: Split of the data.
      averaging: Parameters, the last ones ("none") or their average ("ema").
      rate: Rate now less rate in the table, nats.
      distortion: Distortion now less distortion in the table, nats.
    """

    member: str
    split: str
    averaging: str
    rate: float
    distortion: float

    @property
    def largest(self) -> float:
        """The larger of both in size, nats; infinite where one is not finite."""
        both = abs(self.rate), abs(self.distortion)
        return max(both) if all(map(math.isfinite, both)) else math.inf


def differences(
    run: Run, progress: Callable[[float, str], None] = lambda *_: None
) -> list[Difference]:
    """Evaluate all saved members on the splits of the table.

    The draws of z are those of the first evaluation: a member's seed, the split and the number of
    the batch make them. Differences are rounding, unless code, data or parameters have changed.

    Args:
      run: The run.
      progress: Callback with the part of the work done, 0 to 1, and the current activity.

    Returns:
      A difference per row of the table whose parameters are there.

    Raises:
      BadInput: If parameters are damaged.
    """
    table = {_key(point, str(point["member"])): point for point in run.points}
    names, done, found = run.saved(), 0, list[Difference]()
    for chosen, chunk, fitted in run.populations(names):
        progress(done / len(names), f"members evaluated: {done} of {len(names)}")
        rows = tables.points(chunk.members, fitted, run.evaluated, run.population.vmap_size)
        name_of = {member.name: name for member, name in zip(chunk.members, chosen, strict=True)}
        for row in rows:
            key = _key(row, name_of[row["member"]])
            if run.has(key[0], key[2]) and (before := table.get(key)):
                rate, distortion = (row[n] - before[n] for n in ("rate", "distortion"))
                found.append(Difference(*key, float(rate), float(distortion)))
        done += len(chosen)
        progress(done / len(names), f"members evaluated: {done} of {len(names)}")
    return found


def _key(row: tables.Row, name: str) -> tuple[str, str, str]:
    return name, row["split"], tables.averaging_of(row)


def worst(found: Sequence[Difference]) -> Difference:
    """The largest difference of all."""
    return max(found, key=lambda difference: difference.largest)
