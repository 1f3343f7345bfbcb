"""The run directory: what is written where, and read back. Files appear whole or not at all.

    config.json       the configuration as given
    members.csv       one row per member
    metrics.csv       one row per member and step, as training saw it
    points.csv        one row per member and split
    params/           <member>.msgpack, the trained parameters of each member at its own widths
    status.json       how far the run is, or how it ended, see `watch`
    provenance.json   versions, device, revision, data checksum, times
    gallery.csv       one row per model and place in a gallery, where one was made
    gallery.npz       its pictures
    figures/          drawn from the tables
    comparison.csv    the points beside the paper's, once they have been compared

plan.json, parts/ and checkpoints/ are what a run that was interrupted goes on from, see `parts`. While a run is under way, what is
done of the points is in points.partial.csv; points.csv and metrics.csv appear, or are replaced, when it is complete.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any

import flax.serialization
import jax
import numpy as np

from rd_elbo import disk, host
from rd_elbo.data.dataset import SPLITS
from rd_elbo.errors import BadInput, choice
from rd_elbo.grid import FIELDS, Member
from rd_elbo.models.base import Params
from rd_elbo.models.family import PAPER_FAMILIES

Row = Mapping[str, Any]

# What makes a table one of a sweep's points; other fields of a member may be younger than the table.
_SWEEP_COLUMNS = (
    "split",
    "member",
    "family",
    "encoder",
    "decoder",
    "marginal",
    "objective",
    "beta",
    "seed",
    "rate",
    "distortion",
    "examples",
    "status",
)
# What the experiments write beside points.csv.
_EXPERIMENT_FILES = ("optimum.csv", "phase_diagram.csv", "curves.csv", "models.npz")
# What is made of a sweep afterwards.
GALLERY_FILES = ("gallery.csv", "gallery.npz")
_PACKAGES = ("rd_elbo", "jax", "jaxlib", "flax", "distrax", "optax", "tfp-nightly", "numpy")


def read_points(workdir: pathlib.Path | str) -> list[dict[str, Any]]:
    """Rows of a sweep's points.csv, whenever it was written.

    Fields of `Member` that did not exist then are at their defaults, which is what the members were trained with.

    Raises:
      BadInput: If there is no such table, it has a torn row or no row, it is no sweep's, it is not what the sweep has written, or
        a row cannot be one.
    """
    path = pathlib.Path(workdir) / "points.csv"
    recorded = path.with_name("provenance.json")
    about = disk.read_json(recorded) if path.exists() and recorded.exists() else None
    tables = about.get("tables") if isinstance(about, dict) else None
    digest = tables.get(path.name) if isinstance(tables, dict) else None
    # Tables from before this was recorded are taken as they are.
    if digest is not None and digest != disk.sha256(path):
        raise BadInput(f"table {str(path)!r} is not the table that was written; the sweep's command, run again, restores it")
    rows = disk.read_table(path)
    if not rows:
        raise BadInput(f"table {str(path)!r} has no points")
    for column in _SWEEP_COLUMNS:
        if column not in rows[0]:
            raise BadInput(f"table {str(path)!r} has no column {column!r}; only sweeps are read here")
    defaults = {field.name: field.default for field in dataclasses.fields(Member)}
    points = [{**defaults, **row} for row in rows]
    for line, point in enumerate(points, start=2):
        try:
            _check_point(point)
        except BadInput as error:
            raise BadInput(f"table {str(path)!r}, line {line}: {error}") from error
    return points


def _check_point(point: Row) -> None:
    """Raises `BadInput` unless a row can be one of a sweep's; members that diverged may have any rate and distortion."""
    Member(**{field: point[field] for field in FIELDS})
    choice("split", point["split"], SPLITS)
    choice("status", point["status"], ("ok", "diverged"))
    if len(str(point["family"])) != len(PAPER_FAMILIES[0]):
        raise BadInput(f"family={point['family']!r} must be three characters, such as {PAPER_FAMILIES[0]!r}")
    for field in ("rate", "distortion"):
        if not isinstance(point[field], int | float):
            raise BadInput(f"{field}={point[field]!r} must be a number")


def usable(points: Iterable[Row], split: str) -> list[Row]:
    """The points of one split, leaving out members that diverged.

    Raises:
      BadInput: If no finite point of that split is there.
    """
    points = list(points)
    found = [p for p in points if p["split"] == split and p["status"] == "ok" and np.isfinite([p["rate"], p["distortion"]]).all()]
    if not found:
        have = ", ".join(repr(name) for name in dict.fromkeys(p["split"] for p in points))
        raise BadInput(f"there are no finite points of the split {split!r}; the table has points of {have}")
    return found


def data_name(workdir: pathlib.Path | str) -> str | None:
    """The name of the dataset that a run directory's points are of; None where that is not recorded.

    Raises:
      BadInput: If what records it is damaged.
    """
    for file in ("provenance.json", "config.json"):
        path = pathlib.Path(workdir) / file
        if path.exists():
            recorded = disk.read_json(path)
            about = recorded.get("data") if isinstance(recorded, dict) else None
            name = about.get("name") if isinstance(about, dict) else None
            if isinstance(name, str):
                return name
    return None


def check_run(
    workdir: pathlib.Path,
    config: Mapping[str, Any],
    overwrite: bool = False,
    bound: Callable[[Mapping[str, Any]], Any] = lambda config: config,
) -> Any:
    """Makes sure that `workdir` may hold the run of `config`; nothing is written.

    Args:
      workdir: The run directory.
      config: The configuration.
      overwrite: Whether to begin anew.
      bound: The part of a configuration that a run directory is bound to; by default all of it.

    Returns:
      The configuration that is recorded there; None if there is none, or `overwrite`.

    Raises:
      BadInput: If the folder holds another run or something else.
    """
    recorded = workdir / "config.json"
    try:
        if workdir.exists() and not workdir.is_dir():
            raise BadInput(f"workdir={str(workdir)!r} is a file; it must be a folder, new or of the same run")
        # They are written to when the first members have been trained, which is late to find out.
        for folder in ("parts", "params", "splits", "programs", "checkpoints", "figures"):
            if (workdir / folder).exists() and not (workdir / folder).is_dir():
                raise BadInput(f"workdir={str(workdir)!r} holds a file {folder!r} where a run has a folder; choose another folder")
    except OSError as error:
        raise BadInput(f"workdir={str(workdir)!r} cannot be used ({error.strerror})") from error
    if overwrite:
        return None
    if not recorded.exists():
        if workdir.is_dir() and any(path.name != _LOCK and not _LEFT_OVER.fullmatch(path.name) for path in workdir.iterdir()):
            raise BadInput(f"workdir={str(workdir)!r} holds files but no run; choose another folder, or give --overwrite")
        return None
    try:
        before = json.loads(recorded.read_text())
        difference = disk.difference(bound(before), bound(json.loads(json.dumps(config))))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        why = disk.gist(error) if isinstance(error, OSError | ValueError) else "it is no configuration"
        raise BadInput(
            f"workdir={str(workdir)!r} holds a config.json that cannot be read ({why}); give --overwrite to begin anew"
        ) from error
    if difference:
        raise BadInput(
            f"workdir={str(workdir)!r} already holds a different run ({difference}); "
            "choose another folder, or give --overwrite to replace it"
        )
    return before


def open_run(
    workdir: pathlib.Path,
    config: Mapping[str, Any],
    overwrite: bool = False,
    bound: Callable[[Mapping[str, Any]], Any] = lambda config: config,
) -> None:
    """Records the configuration in `workdir`, which may hold it, see `check_run`.

    A configuration that differs only in what is not `bound` goes on where the other one was: tables and pictures of that one are
    removed, what it trained is not. With `overwrite`, all files of a run are removed first.

    Raises:
      BadInput: If the folder holds another run or something else, or cannot be written to.
    """
    before, given = check_run(workdir, config, overwrite, bound), json.loads(json.dumps(config))
    try:
        for folder in (workdir, *(workdir / name for name in ("parts", "params", "splits", "programs", "figures"))):
            for path in folder.glob(".*"):
                if _LEFT_OVER.fullmatch(path.name):
                    path.unlink()
        if overwrite:
            _remove(workdir, (*_TABLES, *_TRAINED))
        elif before != given:
            _remove(workdir, _TABLES)
        disk.write_json(workdir / "config.json", given)
    except OSError as error:
        raise BadInput(f"workdir={str(workdir)!r} cannot be written to ({error.strerror})") from error


_LOCK = ".lock"
# What a kill leaves of a file that was being written, see `disk.write_whole`.
_LEFT_OVER = re.compile(r"\..+\.(csv|json|npz|msgpack|png|pdf)\.[a-z0-9_]{8}")


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[None]:
    """Keeps other processes of this machine out of a run directory, which is made; a process that dies lets go.

    Raises:
      BadInput: If another process is at work there, or the folder cannot be written to.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = (workdir / _LOCK).open("w")
    except OSError as error:
        raise BadInput(f"workdir={str(workdir)!r} cannot be written to ({error.strerror})") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BadInput(f"workdir={str(workdir)!r} is in use: another process is at work there") from error
        except OSError:
            pass  # some network file systems have no locks
        yield


# What is made of what was trained, and that; patterns of everything that a run writes, and of nothing else.
_TABLES = (
    *("points*.csv", "metrics*.csv", "members.csv", "comparison.csv", *_EXPERIMENT_FILES, *GALLERY_FILES),
    *("summary.json", "provenance.json", "status*.json", "figures/*.png", "figures/*.pdf"),
)
_TRAINED = (
    *("plan.json", "splits/*.json", "programs/*.json", "parts/*.npz", "params/*.msgpack"),
    *("checkpoints/*", "attempts/*", "live/*", "tensorboard/*", "claims/*"),
)


def _remove(workdir: pathlib.Path, patterns: Iterable[str]) -> None:
    for pattern in patterns:
        for path in workdir.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def params_path(workdir: pathlib.Path | str, name: str) -> pathlib.Path:
    """Where the parameters of a member are saved."""
    return pathlib.Path(workdir) / "params" / f"{name}.msgpack"


def save_params(workdir: pathlib.Path, member: Member, params: Params) -> pathlib.Path:
    """Saves one trained member; returns where."""
    content = flax.serialization.msgpack_serialize(
        {"member": dataclasses.asdict(member), "params": jax.tree.map(np.asarray, params)}
    )
    path = params_path(workdir, member.name)
    disk.write_whole(path, lambda file: file.write(content))
    return path


def load_params(workdir: pathlib.Path | str, name: str) -> tuple[Member, Params]:
    """Loads a trained member by its name in the tables.

    >>> member, params = load_params("runs/quickstart", "0123456789")    # doctest: +SKIP
    >>> model = member.build((28, 28))                                   # doctest: +SKIP
    >>> images = model.decode(params, z).sample(seed=key)                # doctest: +SKIP

    Raises:
      BadInput: If there is no such member or its file is damaged.
    """
    path = params_path(workdir, name)
    try:
        content = flax.serialization.msgpack_restore(path.read_bytes())
        return Member(**content["member"]), content["params"]
    except OSError as error:
        raise BadInput(f"member {name!r} has no saved parameters in {str(workdir)!r} ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{str(path)!r} is damaged ({error})") from error


def member_rows(members: Iterable[Member], state_of: Callable[[Member], tuple[str, str]]) -> list[dict[str, Any]]:
    """Rows of members.csv; `state_of` gives the part that a member was trained in, and how it ended."""
    rows = []
    for member in members:
        part, status = state_of(member)
        rows.append({"member": member.name, "family": member.family, "part": part, "status": status, **dataclasses.asdict(member)})
    return rows


MEMBER_COLUMNS = ("member", "family", "part", "status", *FIELDS)
METRIC_COLUMNS = ("member", "step", "rate", "distortion", "loss")


def provenance(data: Mapping[str, Any], command: Sequence[str], times: Mapping[str, float]) -> dict[str, Any]:
    """What is needed to know where numbers came from."""
    devices = jax.local_devices()
    return {
        "command": list(command),
        "data": dict(data),
        "devices": [device.device_kind for device in devices],
        "platform": devices[0].platform,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "versions": {name: _version(name) for name in _PACKAGES},
        "revision": _revision(),
        "seconds": dict(times),
        "peak_memory_bytes": host.peak_memory(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def _revision() -> str | None:
    """The git revision of the source, with "+" if it was changed since; None outside a checkout."""
    folder = pathlib.Path(__file__).parent
    try:
        # An installed copy may lie in a checkout of something else.
        subprocess.run(["git", "ls-files", "--error-unmatch", __file__], cwd=folder, capture_output=True, check=True)
        revision = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
        changes = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"], cwd=folder, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return revision.stdout.strip() + ("+" if changes.stdout.strip() else "")
