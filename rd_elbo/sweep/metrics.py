"""Metrics of training: CSV while it runs, event files for TensorBoard, and how far a sweep is."""

import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from rd_elbo.errors import BadInput
from rd_elbo.training.state import Metrics

COLUMNS = ("member", "step", "rate", "distortion", "loss")


def lines(
    members: Sequence[str], metrics: Metrics, steps: Sequence[int] | None = None
) -> Iterator[str]:
    """Yield lines of metrics.csv, without its header.

    Args:
      members: Names of the members.
      metrics: Metrics of the same members, see `training.state.Metrics`.
      steps: Updates that each of them made; lines of later steps are left out.
    """
    kept = np.asarray(metrics.step)
    columns = [np.asarray(column) for column in metrics[1:]]
    for i, member in enumerate(members):
        for k, step in enumerate(kept):
            if steps is None or step <= steps[i]:
                values = ",".join(f"{column[i, k]:.7g}" for column in columns)
                yield f"{member},{step},{values}\n"


class MetricWriter:
    """Appends metrics of a chunk in training to a CSV file and to event files.

    Where it cannot write, it says so once and training continues.
    """

    def __init__(
        self,
        path: pathlib.Path,
        members: Sequence[str],
        report: Callable[[str], None],
        events: pathlib.Path | None = None,
    ):
        self._path, self._members, self._report = path, members, report
        self._events = [event_writer()(str(events / m)) for m in members] if events else []
        self._begun = False

    def __call__(self, metrics: Metrics) -> None:
        """Append; the first call of a training holds everything since step 0."""
        try:
            if not self._begun:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._path.write_text(",".join(COLUMNS) + "\n")
            with self._path.open("a") as file:
                file.writelines(lines(self._members, metrics))
            for i, writer in enumerate(self._events):
                for k, step in enumerate(metrics.step):
                    for name in COLUMNS[2:]:
                        writer.add_scalar(name, float(getattr(metrics, name)[i, k]), int(step))
        except OSError as error:
            if not self._begun:
                self._report(f"{str(self._path)!r} cannot be written ({error.strerror})")
        self._begun = True

    def close(self) -> None:
        """Write what is left."""
        for writer in self._events:
            writer.close()


def event_writer() -> Callable[..., Any]:
    """The class that writes event files for TensorBoard.

    Raises:
      BadInput: If tensorboardX is not installed.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise BadInput(
            "--tensorboard: expected the package tensorboardX, got none. Install it by "
            "pip install -e '.[tensorboard]'."
        ) from error
    return SummaryWriter
