"""How far a sweep is: for the terminal it runs in, and in status.json for any other."""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import platform
import time
from collections.abc import Callable
from typing import Any

from rd_elbo import disk
from rd_elbo.errors import BadInput

# How often the file is written; and how long without a word until a run is thought dead: programs may compile for minutes.
_SECONDS = 2.0
SILENCE = 300.0


@dataclasses.dataclass(frozen=True)
class Status:
    """How far a sweep is.

    Attributes:
      part: The part at work, counted from 0 over those that this run trains.
      parts: Number of parts that this run trains.
      members_done: Members that are trained and evaluated.
      members: Members in all.
      diverged: Members that diverged so far.
      done: Arithmetic done, as a part of all that this run has to do.
      doing: "training" or "evaluating".
      at_work: Members of the part at work.
      step: Steps that each of them has made; 0 while evaluating.
      steps: Steps that each of them will make.
      rate: Their mean rate over the last steps, in nats; NaN while evaluating.
      distortion: Likewise, distortion.
    """

    part: int
    parts: int
    members_done: int
    members: int
    diverged: int
    done: float
    doing: str
    at_work: int
    step: int
    steps: int
    rate: float
    distortion: float


Listener = Callable[[Status], None]


class Recorder:
    """Keeps status.json while a sweep runs; a listener."""

    def __init__(self, workdir: pathlib.Path, index: int = 0):
        self._path = workdir / (f"status_{index}.json" if index else "status.json")
        self._began = time.time()
        self._written = 0.0
        self._status: Status | None = None
        self._heard = self._began
        self._member_steps, self._training = 0, 0.0

    def __call__(self, status: Status) -> None:
        """Hears how far the sweep is, and writes it down now and then."""
        now, before = time.time(), self._status
        if before and before.part == status.part and before.doing == status.doing == "training":
            self._member_steps += status.at_work * (status.step - before.step)
            self._training += now - self._heard
        self._status, self._heard = status, now
        if now - self._written >= _SECONDS:
            self.write("running")

    def write(self, state: str, **more: Any) -> None:
        """Writes the file, if it can: `state` is "running", "finished", "stopped" or "failed"."""
        self._written = now = time.time()
        spent, status = now - self._began, self._status
        content: dict[str, Any] = {"state": state, "time": now, "seconds": spent, "process": os.getpid(), "host": platform.node()}
        if status:
            told = dataclasses.asdict(status)
            content |= {name: value for name, value in told.items() if not isinstance(value, float) or math.isfinite(value)}
            content["seconds_left"] = spent * (1 - status.done) / status.done if status.done else None
        content["member_steps_per_second"] = self._member_steps / self._training if self._training else None
        # A full disk must not end a training that goes on without this.
        with contextlib.suppress(OSError):
            disk.write_json(self._path, content | more)


def read(workdir: pathlib.Path | str) -> dict[str, Any]:
    """What status.json says, and as `silent` for how many seconds it has not been written.

    Raises:
      BadInput: If there is none, or it is damaged.
    """
    path = pathlib.Path(workdir) / "status.json"
    content = disk.read_json(path)
    told = content if isinstance(content, dict) else {}
    time_told = told.get("time")
    if not isinstance(time_told, int | float) or not math.isfinite(time_told) or not isinstance(told.get("state"), str):
        raise BadInput(f"{str(path)!r} is damaged: it does not say what the sweep is doing")
    others = []
    for own in sorted(path.parent.glob("status_*.json")):
        with contextlib.suppress(OSError, ValueError):
            other = json.loads(own.read_text())
            # Left by an earlier start with more processes, unless it is younger than that of process 0.
            if isinstance(other, dict) and other.get("time", 0.0) >= time_told - told.get("seconds", 0.0):
                others.append(other | {"process_index": own.stem.partition("_")[2]})
    return told | {"silent": max(0.0, time.time() - time_told), "others": others}


def describe(content: dict[str, Any]) -> str:
    """One line on what `read` found."""

    def number(name: str, form: str = "{:.0f}") -> str:
        value = content.get(name)
        return form.format(value) if isinstance(value, int | float) and math.isfinite(value) else "?"

    line = f"{content['state']}: {number('members_done')}/{number('members')} members done, {number('diverged')} diverged"
    line += f", {number('failed')} failed" if content.get("failed") else ""
    if content["state"] == "running":
        line += f", {number('at_work')} {content.get('doing', '?')}"
        line += f" (step {number('step')}/{number('steps')})" if content.get("doing") == "training" else ""
        line += f", {number('member_steps_per_second')} member-steps/s, {number('done', '{:.0%}')} of the work, "
        line += f"{number('seconds_left')} s left"
        if content["silent"] > SILENCE:
            line += f"; not heard of for {content['silent']:.0f} s: if it was killed, the same command goes on from there"
        for other in content.get("others", ()):
            line += f"; process {other['process_index']}: {other.get('at_work', '?')} {other.get('doing', '?')}"
    return line
