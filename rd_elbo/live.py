"""What training sees, step by step, written down while it runs: for eyes and for programs that cannot wait for metrics.csv.

    live/<part>.csv          the columns of metrics.csv for the part in training, every so many steps where there are many members
    tensorboard/<member>/    event files, where they are asked for

A training that is taken up again writes them anew, from its saved state: nothing is there twice.
"""

import contextlib
import csv
import io
import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rd_elbo.checkpoint import Report
from rd_elbo.errors import BadInput
from rd_elbo.population import Metrics

# Rows that one segment of steps may add: a file for watching should not outgrow what is watched.
_ROWS = 20_000
COLUMNS = ("member", "step", *Metrics._fields)


class Live:
    """Hears of every segment of a part's steps, and writes; where it cannot, it says so once and training goes on."""

    def __init__(self, workdir: pathlib.Path, part: str, members: Sequence[str], report: Report, writer: Callable[..., Any] | None):
        self._path = workdir / "live" / f"{part}.csv"
        self._events = workdir / "tensorboard"
        self._members, self._report, self._writer = tuple(members), report, writer
        self._writers: list[Any] = []
        self._works = True

    def __call__(self, first_step: int, metrics: Metrics) -> None:
        """Adds the steps from `first_step` on; step 0 begins anew."""
        if not self._works:
            return
        try:
            if first_step == 0:
                self._begin()
            steps = np.asarray(metrics.rate).shape[1]
            stride = max(1, -(-len(self._members) * steps // _ROWS))
            # The last step of every segment is among them.
            shown = range((steps - 1) % stride, steps, stride)
            self._write(first_step, shown, metrics)
        except OSError as error:
            self._works = False
            self.close(done=False)
            self._report(f"{str(self._path)!r} cannot be written ({error.strerror}); training goes on")

    def close(self, done: bool) -> None:
        """Ends the writing; what is in metrics.csv soon need not be here."""
        for writer in self._writers:
            with contextlib.suppress(OSError):
                writer.close()
        self._writers = []
        if done:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    def _begin(self) -> None:
        self.close(done=False)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(",".join(COLUMNS) + "\n")
        if self._writer:
            for member in self._members:
                shutil.rmtree(self._events / member, ignore_errors=True)
                self._writers.append(self._writer(str(self._events / member)))

    def _write(self, first_step: int, shown: range, metrics: Metrics) -> None:
        columns = [np.asarray(column) for column in metrics]
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        for i, member in enumerate(self._members):
            for step in shown:
                values = [float(column[i, step]) for column in columns]
                if np.isfinite(values).all():
                    writer.writerow([member, first_step + step, *values])
                    if self._writers:
                        for name, value in zip(Metrics._fields, values, strict=True):
                            self._writers[i].add_scalar(name, value, first_step + step)
        # In one piece, so that a reader sees whole lines.
        with self._path.open("ab", buffering=0) as file:
            file.write(lines.getvalue().encode())
        for events in self._writers:
            events.flush()


def event_writer() -> Callable[..., Any]:
    """What writes event files for TensorBoard.

    Raises:
      BadInput: If tensorboardX is not installed.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise BadInput('--tensorboard needs tensorboardX: pip install -e ".[tensorboard]"') from error
    return SummaryWriter
