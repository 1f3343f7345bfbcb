"""States of a training under way, kept so that a killed one goes on where it was.

    <step>/        an orbax checkpoint: the leaves of the state, numbered
    <step>.json    what it is a state of, and the SHA-256 of each of its files; written last

orbax writes a checkpoint whole or not at all, but what it is given back later may have flipped bytes: a state is used only if its
files are what they were. One that is damaged, or of something else, is reported and left out for the one before it.
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
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from rd_elbo import disk

Report = Callable[[str], None]
_FILE = "leaves.npz"


@dataclasses.dataclass(eq=False)
class Checkpoints:
    """The last few states of one training, in a folder of their own.

    Attributes:
      folder: Where they are; made when the first is saved. None keeps nothing.
      identity: What is trained, as JSON; states of anything else are left out.
      seconds: The least time from one save to the next, see `due`.
      keep: How many are kept.
      report: Told, in a sentence, of each that is left out.
    """

    folder: pathlib.Path | None = None
    identity: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seconds: float = 60.0
    keep: int = 2
    report: Report = lambda _: None
    _last: float = dataclasses.field(default_factory=time.monotonic, init=False)
    _cost: float = dataclasses.field(default=0.0, init=False)

    def due(self) -> bool:
        """Whether the last save, or the beginning, is long enough ago; saving takes no more than a tenth of the time."""
        return self.folder is not None and time.monotonic() - self._last >= max(self.seconds, 10 * self._cost)

    def save(self, step: int, state: PyTree) -> bool:
        """Saves the state after `step` steps, whole or not at all, and lets go of the oldest.

        Where it cannot be written, which is reported, the states before it stay: training can go on without.

        Returns:
          Whether it is saved.
        """
        if self.folder is None:
            return False
        saved, began = False, time.monotonic()
        path = self.folder / str(step)
        try:
            _discard(path)
            self.folder.mkdir(parents=True, exist_ok=True)
            leaves = {f"{i:05d}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
            with _checkpointer() as checkpointer:
                checkpointer.save(path.absolute(), args=_Leaves(leaves))
            about = {"identity": self.identity, "step": step, "files": _digests(path)}
            disk.write_json(_record(path), about)
            saved = True
        except Exception as error:  # orbax raises what its parts raise: OSError, ValueError, ...
            with contextlib.suppress(OSError):
                _discard(path)
            self.report(f"checkpoint {str(path)!r} cannot be written ({disk.gist(error)}); training goes on")
        else:
            with contextlib.suppress(OSError):
                for old in _paths(self.folder)[: -self.keep]:
                    _discard(old)
        self._last = time.monotonic()
        self._cost = self._last - began
        return saved

    def restore(self, like: PyTree) -> tuple[int, PyTree] | None:
        """The last state that is sound, with NumPy leaves, and the steps it had made; None if there is none.

        Args:
          like: Anything of the structure of the state.
        """
        for path in reversed(_paths(self.folder)) if self.folder else ():
            reason = self._damage(path)
            if reason is None:
                try:
                    with _checkpointer() as checkpointer:
                        loaded = checkpointer.restore(path.absolute(), args=_Leaves())
                    leaves = [loaded[key] for key in sorted(loaded)]
                    return int(path.name), jax.tree.unflatten(jax.tree.structure(like), leaves)
                except Exception as error:  # as in `save`
                    if disk.passing(error) or isinstance(error, MemoryError):
                        raise
                    reason = f"it cannot be loaded ({disk.gist(error)})"
            self.report(f"checkpoint {str(path)!r} is left out: {reason}")
            _discard(path)
        return None

    def clear(self) -> None:
        """Removes all states; the training is done."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

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
        if not isinstance(about, dict) or about.get("identity") != json.loads(json.dumps(self.identity)):
            return "it is of another training"
        if str(about.get("step")) != path.name:
            return f"it is of step {about.get('step')}"
        recorded, found = about.get("files"), _digests(path)
        for name, digest in recorded.items() if isinstance(recorded, dict) and recorded else (("?", ""),):
            if found.get(name) != digest:
                return f"its file {name} {'has changed' if name in found else 'is missing'}"
        return None


class _LeavesHandler(ocp.CheckpointHandler):
    """Writes NumPy arrays.

    Those of orbax write arrays that all processes of a job have in common; a population is its own process's alone.
    """

    def save(self, directory: Any, args: "_Leaves") -> None:
        with (pathlib.Path(directory) / _FILE).open("wb") as file:
            np.savez(file, **args.leaves)

    def restore(self, directory: Any, args: "_Leaves | None" = None) -> dict[str, np.ndarray]:
        with np.load(pathlib.Path(directory) / _FILE) as arrays:
            return dict(arrays)


@ocp.args.register_with_handler(_LeavesHandler, for_save=True, for_restore=True)
@dataclasses.dataclass
class _Leaves(ocp.args.CheckpointArgs):
    leaves: dict[str, Any] = dataclasses.field(default_factory=dict)


def _checkpointer() -> ocp.Checkpointer:
    """One that waits for no other process."""
    own = jax.process_index()
    options = ocp.options.MultiprocessingOptions(primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process_{own}")
    return ocp.Checkpointer(_LeavesHandler(), multiprocessing_options=options)


def _record(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f"{path.name}.json")


def _paths(folder: pathlib.Path) -> list[pathlib.Path]:
    """Paths of all states of which there is anything, in order of their steps."""
    steps = {path.name.partition(".")[0] for path in folder.glob("*")}
    return [folder / step for step in sorted((step for step in steps if step.isdecimal()), key=int)]


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
    return {str(path.relative_to(folder)): disk.sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}
