"""The folder of a run, of a sweep or an experiment: whether it may be used, and by whom."""

import contextlib
import fcntl
import json
import pathlib
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from rd_elbo import aliases, disk
from rd_elbo.errors import BadInput

Config = Mapping[str, Any]
_FOLDERS = ("chunks", "params", "metrics", "checkpoints", "figures")
# What is made of what was trained, and that; patterns of all that runs write, and of nothing else.
_TABLES = (
    *(
        "points.csv",
        "metrics.csv",
        "members.csv",
        "comparison.csv",
        "frontier.csv",
        "gallery.csv",
        "gallery.npz",
    ),
    *("optimum.csv", "phase_diagram.csv", "curves.csv", "models.npz", "summary.json"),
    *("provenance.json", "figures/*.png", "figures/*.pdf"),
)
_TRAINED = (
    *("chunks/*.json", "params/*.msgpack", "metrics/*.csv", "checkpoints/*", "tensorboard/*"),
    *("likelihood.csv", "refined.json"),
)
# Advice for scripts and for Python, which has no such flag.
OTHERWISE = "Give another workdir, or --overwrite to the script."
# Run directories of 0.1.0 hold one of these.
_OF_OLD = ("plan.json", "parts")
# What a kill leaves of a file that was being written, see `disk.write_whole`.
_LEFT_OVER = re.compile(r"\..+\.(csv|json|npz|msgpack|png|pdf)\.[a-z0-9_]{8}")


def open_run(
    workdir: pathlib.Path,
    config: Config,
    overwrite: bool = False,
    bound: Callable[[Config], Any] = lambda config: config,
    exclusive: bool = True,
) -> None:
    """Record the configuration in `workdir`, if it may hold that run.

    Args:
      workdir: The run directory.
      config: The configuration.
      overwrite: Whether to remove what a run has left, and begin anew.
      bound: The part of a configuration that a run directory is bound to; by default all of it. A
        configuration that differs elsewhere replaces tables and pictures, not what was trained.
      exclusive: Whether this process alone may write there; otherwise nothing is removed.

    Raises:
      BadInput: If the folder holds another run or something else, or cannot be written to.
    """
    given = json.loads(json.dumps(config))
    with _writing(workdir):
        before = check_run(workdir, given, overwrite, bound)
        workdir.mkdir(parents=True, exist_ok=True)
        if exclusive:
            for folder in (workdir, *(workdir / name for name in _FOLDERS)):
                _remove(path for path in folder.glob(".*") if _LEFT_OVER.fullmatch(path.name))
            stale = (*_TABLES, *_TRAINED) if overwrite else _TABLES if before != given else ()
            _remove(path for pattern in stale for path in workdir.glob(pattern))
        if before != given:
            disk.write_json(workdir / "config.json", given)


def check_run(
    workdir: pathlib.Path,
    config: Config,
    overwrite: bool = False,
    bound: Callable[[Config], Any] = lambda config: config,
) -> Any:
    """Make sure that `workdir` may hold a run, see `open_run`; nothing is written.

    Returns:
      The configuration that it holds; None if there is none, or `overwrite`.
    """
    where = f"workdir={str(workdir)!r}"
    with _writing(workdir):
        if workdir.exists() and not workdir.is_dir():
            raise BadInput(f"{where}: expected a folder, new or of the same run, got a file.")
        for name in _OF_OLD:
            if (workdir / name).exists():
                raise BadInput(
                    f"{where}: expected a new folder or a run of this release, got a run of 0.1.0 "
                    f"({name}). Choose another folder; its tables stay readable."
                )
        # They are written to when the first members are trained, which is late to find out.
        for folder in _FOLDERS:
            if (workdir / folder).exists() and not (workdir / folder).is_dir():
                raise BadInput(
                    f"{where}: expected a folder {folder!r}, got a file of this name. Remove it."
                )
        if overwrite:
            return None
        if not (workdir / "config.json").exists():
            names = [path.name for path in workdir.iterdir()] if workdir.is_dir() else []
            if not all(name.startswith(".lock") or _LEFT_OVER.fullmatch(name) for name in names):
                raise BadInput(
                    f"{where}: expected a new folder or a run, got other files. {OTHERWISE}"
                )
            return None
    try:
        before = json.loads((workdir / "config.json").read_text())
        held = bound(aliases.current(before))
        difference = disk.difference(held, bound(json.loads(json.dumps(config))))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        known = isinstance(error, OSError | ValueError)
        why = disk.gist(error) if known else "it is no configuration"
        raise BadInput(
            f"{where}: expected a readable config.json, got none ({why}). {OTHERWISE}"
        ) from error
    if difference:
        raise BadInput(
            f"{where}: expected the same run, got a different one ({difference}). {OTHERWISE}"
        )
    return before


@contextlib.contextmanager
def locked(workdir: pathlib.Path, share: str = "") -> Iterator[None]:
    """Keep other processes of this machine out of a run directory, as long as this one lives.

    Args:
      workdir: The run directory, which is made.
      share: Name of the share that this process works on. Others work on theirs; without a share,
        no other process may enter.

    Raises:
      BadInput: If another process is at work there, or the folder cannot be written to.
    """
    locks = [(".lock", fcntl.LOCK_SH if share else fcntl.LOCK_EX)]
    locks += [(f".lock.{share}", fcntl.LOCK_EX)] if share else []
    with contextlib.ExitStack() as held:
        for name, kind in locks:
            with _writing(workdir):
                workdir.mkdir(parents=True, exist_ok=True)
                file = held.enter_context((workdir / name).open("w"))
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BadInput(
                    f"workdir={str(workdir)!r}: expected a folder that no process uses, got one in "
                    "use. Wait for the other process, or end it."
                ) from error
            except OSError:
                pass  # some network file systems have no locks
        yield


@contextlib.contextmanager
def _writing(workdir: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadInput(
            f"workdir={str(workdir)!r}: expected a folder to write to, got none ({error.strerror})."
        ) from error


def _remove(paths: Iterable[pathlib.Path]) -> None:
    for path in list(paths):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
