"""Members that `scripts/refine.py` has added to a run directory, in refined.json.

They are not in the configuration. Every run of the sweep adds them to its grid, so its own command
trains them, resumes them and keeps their rows.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

from rd_elbo import disk
from rd_elbo.errors import BadInput
from rd_elbo.sweep.config import Plan
from rd_elbo.sweep.grid import Member, unique

FILE = "refined.json"


def recorded(workdir: pathlib.Path) -> list[Member]:
    """The members that were added, in order.

    Raises:
      BadInput: If the file is damaged.
    """
    path = workdir / FILE
    if not path.exists():
        return []
    try:
        return [Member(**fields) for fields in disk.read_json(path)["members"]]
    except (KeyError, TypeError) as error:
        raise BadInput(f"{str(path)!r} is damaged ({error})") from error


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
