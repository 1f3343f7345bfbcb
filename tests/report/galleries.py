"""Members of tiny architectures, and choices of them for a gallery."""

import dataclasses

from rd_elbo.report import selection
from rd_elbo.sweep.grid import Member

SHAPE = (4, 3)
TINY = {"latent": 2, "encoder_width": 4, "encoder_depth": 1, "decoder_width": 4, "decoder_depth": 1}
MEMBERS = [
    Member(**TINY, beta=0.5),
    Member(**TINY, beta=1.0),
    Member(**TINY, beta=1.0, prior="vampprior", pseudo_inputs=3),
    Member(**TINY, decoder="pixelcnn", beta=1.0),
]


def choice(i, figure=5, panel="a", part="reconstruction", position=0, by="by_family", **changes):
    member = MEMBERS[i]
    row = {**dataclasses.asdict(member), "member": member.name, "family": member.family}
    row |= {"split": "test", "status": "ok", "rate": 2.0 + i, "distortion": 80.25, **changes}
    return selection.Selected(figure, panel, part, by, position, row)


CHOICES = [
    choice(i, 5, panel, part, i)
    for panel, part in (("a", "reconstruction"), ("b", "sample"))
    for i in range(4)
]


def assert_apart(figure, boxes):
    """All are on the page, and none is on another."""
    page = figure.bbox
    for box in boxes:
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            assert min(a.x1, b.x1) <= max(a.x0, b.x0) or min(a.y1, b.y1) <= max(a.y0, b.y0)
