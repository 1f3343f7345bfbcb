"""Points of families whose parts need not exist, as a sweep's table has them."""

import dataclasses

from rd_elbo.evaluate import POINT_COLUMNS
from rd_elbo.grid import Member


def row(family, rate, distortion, *, split="test", status="ok", **fields):
    """A row of points.csv: a member of the given fields, called of another family."""
    member = Member(**fields)
    made = {**dict.fromkeys(POINT_COLUMNS, 0), **dataclasses.asdict(member), "member": member.name, "family": family}
    made |= dict(zip(("encoder", "decoder", "marginal"), (f"encoder {family[0]}", f"decoder {family[1]}", family[2]), strict=True))
    return made | {"split": split, "status": status, "rate": rate, "distortion": distortion, "elbo": -(rate + distortion)}
