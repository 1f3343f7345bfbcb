"""Points of families, of which the paper need not know, as a sweep's table has them."""

import dataclasses

from rd_elbo.models.family import PAPER_FAMILIES, paper_family
from rd_elbo.sweep.grid import Member
from rd_elbo.sweep.tables import POINT_COLUMNS


def row(family, rate, distortion, *, split="test", status="ok", **fields):
    """A row of points.csv: a member of the given fields, called of another family."""
    member = Member(**fields)
    made = {
        **dict.fromkeys(POINT_COLUMNS, 0),
        **dataclasses.asdict(member),
        "member": member.name,
        "family": family,
    }
    made |= paper_family(family) if family in PAPER_FAMILIES else {}
    made |= {"split": split, "averaging": "none", "status": status}
    return made | {"rate": rate, "distortion": distortion, "elbo": -(rate + distortion)}
