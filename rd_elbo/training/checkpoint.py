"""States of a training under way, saved so that a killed one resumes where it was.

    <step>/        an orbax checkpoint of the sharded state
    <step>.json    its identity and the SHA-256 of each of its files; written last, by process 0

orbax writes a checkpoint whole or not at all, but does not notice bytes that flip later: a state is
used only if its files match their record. A damaged one, or one of something else, is reported and
discarded for the one before it.
"""

import contextlib
import dataclasses
import json
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from rd_elbo import disk
from rd_elbo.training.sharding import agree

Report = Callable[[str], None]


@dataclasses.dataclass(eq=False)
class Checkpoints:
    """The last few states of one training, in one folder for all its processes.

    Attributes:
      folder: Folder that all processes see; made by the first save. None keeps nothing.
      identity: Description of the training, as JSON; states of any other are discarded.
      seconds: The least time between two saves, see `due`.
      max_to_keep: Number of states kept.
      report: Callback with a sentence on each state that is discarded or cannot be written.
    """

    folder: pathlib.Path | None = None
    identity: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seconds: float = 60.0
    max_to_keep: int = 2
    report: Report = lambda _: None
    _last: float = dataclasses.field(default_factory=time.monotonic, init=False)
    _cost: float = dataclasses.field(default=0.0, init=False)

    def due(self) -> bool:
        """Whether the last save is long enough ago; saving takes at most a tenth of the time."""
        elapsed = time.monotonic() - self._last
        return self.folder is not None and elapsed >= max(self.seconds, 10 * self._cost)

    def latest(self) -> int | None:
        """Steps of the newest state on disk, sound or not."""
        return max((int(path.name) for path in _paths(self.folder)), default=None)

    def save(self, step: int, tree: PyTree) -> bool:
        """Save the state after `step` steps, whole or not at all, and discard the oldest.

        All processes call it. A state that cannot be written is reported; the ones before it stay,
        and training can continue.

        Returns:
          Whether the state is saved.
        """
        if self.folder is None:
            return False
        saved, began = False, time.monotonic()
        path = self.folder / str(step)
        try:
            if jax.process_index() == 0:
                _discard(path)
            agree("before a checkpoint", report=self.report)
            with self._manager() as manager:
                manager.save(step, args=ocp.args.StandardSave(tree), force=True)
            if jax.process_index() == 0:
                about = {"identity": self.identity, "step": step, "files": _digests(path)}
                disk.write_json(_record(path), about)
                for old in _paths(self.folder)[: -self.max_to_keep]:
                    _discard(old)
            saved = True
        except Exception as error:  # orbax raises what its parts raise: OSError, ValueError, ...
            if jax.process_count() > 1:
                raise
            with contextlib.suppress(OSError):
                _discard(path)
            self.report(
                f"checkpoint {str(path)!r} cannot be written ({disk.gist(error)}); "
                "training continues"
            )
        self._last = time.monotonic()
        self._cost = self._last - began
        return saved

    def restore(self, like: PyTree) -> tuple[int, PyTree] | None:
        """Restore the newest sound state.

        Args:
          like: The state's tree: NumPy arrays, or shapes with the shardings wanted now. The leading
            axes of sharded arrays may be longer or shorter than those saved: missing rows are
            zeros.

        Returns:
          Steps made and the state; None if there is none.
        """
        while self.folder is not None:
            own = self._newest_sound() if jax.process_index() == 0 else None
            chosen = agree("checkpoint", str(own or 0).encode(), report=self.report)[0]
            step = int(chosen)
            if not step:
                return None
            try:
                # orbax cares about the number of rows, the caller knows why it differs.
                args = ocp.args.StandardRestore(like, strict=False)
                with self._manager() as manager:
                    return step, manager.restore(step, args=args)
            except Exception as error:  # as in `save`
                if disk.passing(error) or isinstance(error, MemoryError) or jax.process_count() > 1:
                    raise
                self._drop(self.folder / str(step), f"it cannot be loaded ({disk.gist(error)})")
        return None

    def clear(self) -> None:
        """Remove all states; the training is done."""
        if self.folder is not None and jax.process_index() == 0:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _manager(self) -> ocp.CheckpointManager:
        # Rotation is ours: what has no record must not push out what has one.
        options = ocp.CheckpointManagerOptions(max_to_keep=None, enable_async_checkpointing=False)
        return ocp.CheckpointManager(pathlib.Path(self.folder or ".").absolute(), options=options)

    def _newest_sound(self) -> int | None:
        for path in reversed(_paths(self.folder)):
            reason = self._damage(path)
            if reason is None:
                return int(path.name)
            self._drop(path, reason)
        return None

    def _drop(self, path: pathlib.Path, reason: str) -> None:
        self.report(f"checkpoint {str(path)!r} is left out: {reason}")
        _discard(path)

    def _damage(self, path: pathlib.Path) -> str | None:
        """What is wrong with a state, if anything."""
        try:
            about = json.loads(_record(path).read_text())
        except FileNotFoundError:
            return "it was not written to its end"
        except (OSError, ValueError) as error:
            if disk.passing(error):
                raise
            return f"its record cannot be read ({error})"
        held = about.get("identity") if isinstance(about, dict) else None
        wanted = json.loads(json.dumps(self.identity))
        if held != wanted:
            versions = [one.get("version") for one in (held, wanted) if isinstance(one, dict)]
            if len(set(versions)) > 1:
                return f"it is of version {versions[0]}, this is {versions[1]}"
            return "it is of another training"
        if str(about.get("step")) != path.name:
            return f"it is of step {about.get('step')}"
        recorded, found = about.get("files"), _digests(path)
        sound = isinstance(recorded, dict) and recorded
        for name, digest in recorded.items() if sound else (("?", ""),):
            if found.get(name) != digest:
                return f"its file {name} {'has changed' if name in found else 'is missing'}"
        return None


def _record(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f"{path.name}.json")


def _paths(folder: pathlib.Path | None) -> list[pathlib.Path]:
    """Paths of all states of which there is anything, in order of their steps."""
    names = [path.name for path in folder.glob("*")] if folder else []
    steps = {name.partition(".")[0] for name in names}
    return (
        [folder / step for step in sorted(filter(str.isdecimal, steps), key=int)] if folder else []
    )


def _discard(path: pathlib.Path) -> None:
    # The record first: what has none is no checkpoint.
    _record(path).unlink(missing_ok=True)
    for part in path.parent.glob(f"{path.name}*"):
        if part.name.partition(".")[0] == path.name:
            if part.is_dir():
                shutil.rmtree(part, ignore_errors=True)
            else:
                part.unlink(missing_ok=True)


def _digests(folder: pathlib.Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): disk.sha256(path) for path in files}
