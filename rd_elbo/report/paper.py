"""Numbers of Alemi et al. 2018, "Fixing a Broken ELBO", arXiv:1711.00464v3.

The paper gives no table. What is known of its models is of three kinds, kept apart by
`PaperPoint.how`:

    text        stated in the text
    figure      printed beside a picture in one of Figures 4 to 8, mostly to 0.1 nat
    digitised   read off Figures 3 and 7 by us, to about 0.2 nat

The facts are in paper.json beside this file. Whether they are of the training or the test images is
not said there; they look like the test images.
"""

import dataclasses
import functools
import json
import math
import pathlib
import types
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from rd_elbo import frontier

FILE = pathlib.Path(__file__).with_name("paper.json")
# The twelve families (encoder, decoder, prior) in the order of Figure 3's colours.
FAMILIES = ("---", "-+-", "--+", "-++", "+--", "++-", "+-+", "+++", "--v", "-+v", "+-v", "++v")
DIGITISED_ERROR = 0.2  # nats

# Which of our datasets may be held against which of the paper's, whether they are the same images,
# and what to bear in mind.
_COMPARABLE = {
    "binarized_mnist": ("mnist", True, "the paper's own data"),
    "mnist_static": (
        "mnist",
        False,
        "of the distribution of the paper's MNIST, but another draw of its binarisation",
    ),
    "omniglot_burda": ("omniglot", True, "the paper's own data"),
}
_INCOMPARABLE = {
    "omniglot_tfds": "its images and its split are not those of the paper's Omniglot, which is "
    "Burda et al.'s",
    "path": "what a file of your own holds is not known here",
}


@dataclasses.dataclass(frozen=True)
class PaperPoint:
    """A model of the paper whose rate and distortion are known.

    Attributes:
      family: Name in three characters (encoder, decoder, prior).
      beta: Weight of the rate.
      annealed: Whether the KL was annealed; None where the paper does not say.
      rate: Rate R, nats.
      distortion: Distortion D, nats.
      elbo: -(R + D) as the paper prints it, rounded by itself; nats.
      how: "text", "figure" or "digitised", see the module.
      source: Place in the paper.
      note: Remark; may be empty.
    """

    family: str
    beta: float
    annealed: bool | None
    rate: float
    distortion: float
    elbo: float
    how: str
    source: str
    note: str = ""

    @property
    def total(self) -> float:
        """R + D, nats."""
        return self.rate + self.distortion


@dataclasses.dataclass(frozen=True)
class Best:
    """The smallest R + D that is known of a family.

    Attributes:
      total: R + D, nats.
      how: "text", "figure" or "digitised", as in `PaperPoint`.
      point: The model, where its rate and distortion are known.
    """

    total: float
    how: str
    point: PaperPoint | None


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """Numbers that the paper reports on one dataset.

    Attributes:
      name: "MNIST" or "Omniglot".
      data: Description of the dataset.
      remark: Comparison of our dataset with it, to be read after the dataset's name and a colon.
      same_data: Whether our images are the paper's.
      rate: (points,) rates of its Pareto frontier over all models, digitised, rising; nats.
      distortion: (points,) distortions of that frontier, falling; nats.
      points: The models whose numbers are printed.
      family_totals: Smallest R + D by family as Figure 3 shows it, digitised, where that is known;
        nats.
    """

    name: str
    data: str
    remark: str
    same_data: bool
    rate: Float[np.ndarray, " points"]
    distortion: Float[np.ndarray, " points"]
    points: tuple[PaperPoint, ...]
    family_totals: Mapping[str, float]

    @property
    def hull(self) -> tuple[Float[np.ndarray, " corners"], Float[np.ndarray, " corners"]]:
        """Rates and distortions of the corners of the frontier's hull, digitised, nats.

        A model below it is better than the paper's.
        """
        return frontier.hull(self.rate, self.distortion)

    @property
    def best(self) -> PaperPoint:
        """The model of the smallest R + D, the paper's estimate of the entropy H."""
        return min(self.points, key=lambda point: point.total)

    def printed(self, family: str, beta: float) -> tuple[PaperPoint, ...]:
        """The printed models of a family at this beta, of which there may be none or several."""
        return tuple(
            p
            for p in self.points
            if p.family == family and math.isclose(p.beta, beta, rel_tol=1e-6)
        )

    def best_of(self, family: str) -> Best | None:
        """The smallest R + D known of a family; None if nothing is."""
        if family in self.family_totals:
            return Best(self.family_totals[family], "digitised", None)
        known = [point for point in self.points if point.family == family]
        if not known:
            return None
        best = min(known, key=lambda point: point.total)
        return Best(best.total, best.how, best)


def reference(dataset: str | None) -> Reference | None:
    """What the paper reports on data like ours.

    >>> reference("binarized_mnist").best.family
    '++v'

    Args:
      dataset: The name of a dataset, as given to `data.load`; None if it is not known.

    Returns:
      The reference; None where a comparison would mean nothing, for which `why_none` has the
      reason.
    """
    if dataset not in _COMPARABLE:
        return None
    key, same_data, remark = _COMPARABLE[dataset]
    facts = _facts()[key]
    rate, distortion = np.asarray(facts["frontier"], float).T
    kept = frontier.pareto(rate, distortion)  # two points read off at one rate
    return Reference(
        name=facts["name"],
        data=facts["data"],
        remark=remark,
        same_data=same_data,
        rate=rate[kept],
        distortion=distortion[kept],
        points=tuple(PaperPoint(**point) for point in facts["points"]),
        family_totals=types.MappingProxyType(facts["family_totals"]),
    )


def why_none(dataset: str | None) -> str:
    """Why there is no reference for a dataset, to be read after its name and a colon."""
    if dataset is None:
        return (
            "which data these points are of is not recorded, "
            "so there is nothing of the paper's to compare them with"
        )
    reason = _INCOMPARABLE.get(dataset, "the paper has nothing on it")
    return f"{reason}, so there is nothing of the paper's to compare it with"


@functools.cache
def _facts() -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(FILE.read_text())
    return facts
