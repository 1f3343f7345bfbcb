"""What a contender promises, and the check that all compute the same."""

import importlib
from importlib import util
from typing import Any, Protocol

import jax
import numpy as np

from benchmarks.cases import Probe
from rd_elbo.errors import Failed

# Relative distance, of losses and of the norm of gradients.
TOLERANCE = 1e-4
# Contender -> module that it needs.
_NEEDS = {"torch": "torch", "torch_func": "torch", "pythae": "pythae.models"}


class Contender(Protocol):
    """A way to train, or to evaluate, the members of a problem.

    Attributes:
      members: Members trained; a sample of the problem's may do.
      unit: Steps come in multiples of this.
      note: A remark for the table.
    """

    members: int
    unit: int
    note: str

    def run(self, steps: int) -> Any:
        """Make so many steps of every member and wait for them.

        Returns:
          (members, steps) losses, or None where batches and noise are the contender's own.
        """

    def probed(self, probe: Probe) -> tuple[np.ndarray, Any]:
        """Compute losses and gradients of the probe; None if nothing is compared."""

    def arranged(self, tree: Any) -> Any:
        """Our parameters, or gradients, members first, in the layout of `probed`."""


def missing(name: str) -> str | None:
    """The reason why a contender is absent; None if it is there."""
    if name not in _NEEDS:
        return None
    package = _NEEDS[name].partition(".")[0]
    if util.find_spec(package) is None:
        return f"{package} is not installed"
    try:
        importlib.import_module(_NEEDS[name])
    except ImportError as error:
        return f"{package} cannot be imported: {str(error).splitlines()[0]}"
    return None


def check(what: str, contender: Contender, probe: Probe) -> float | str:
    """Compare a contender's losses and gradients with ours.

    Returns:
      The largest relative distance found; "" where there is nothing to compare.

    Raises:
      Failed: If it is above `TOLERANCE`.
    """
    loss, gradient = contender.probed(probe)
    if gradient is None:
        return ""
    expected = contender.arranged(probe.gradient)
    if jax.tree.structure(gradient) != jax.tree.structure(expected):
        raise Failed(f"{what}: its gradient has other parameters than ours. Mend the transplant.")
    distances = same(what, loss, probe.loss), _distance(gradient, expected)
    return max(distances[0], _within(what, "gradient", distances[1]))


def same(what: str, loss: np.ndarray, ours: np.ndarray) -> float:
    """The largest relative distance of losses from ours.

    Raises:
      Failed: If it is above `TOLERANCE`.
    """
    return _within(what, "loss", float(np.max(np.abs(loss / ours - 1))))


def _within(what: str, of: str, distance: float) -> float:
    if not distance <= TOLERANCE:
        raise Failed(
            f"{what}: relative distance of the {of} from ours is {distance:.1e}, expected at most "
            f"{TOLERANCE:.0e}. The contenders do not train the same model."
        )
    return distance


def _distance(gradient: Any, expected: Any) -> float:
    """Find the largest relative distance, in norm, of a member's gradient."""
    pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True)
    apart, size = 0.0, 0.0
    for a, b in pairs:
        rows = tuple(np.asarray(leaf, np.float64).reshape(len(a), -1) for leaf in (a, b[: len(a)]))
        apart, size = apart + ((rows[0] - rows[1]) ** 2).sum(1), size + (rows[1] ** 2).sum(1)
    return float(np.sqrt(np.max(apart / size)))
