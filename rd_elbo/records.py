"""The run directory: what is written where, and read back. Files appear whole or not at all.

    config.json       the configuration as given
    members.csv       one row per member
    metrics.csv       one row per member and step, as training saw it
    points.csv        one row per member and split
    params/           <member>.msgpack, the trained parameters of each member at its own widths
    provenance.json   versions, device, revision, data checksum, times
    gallery.csv       one row per model and place in a gallery, where one was made
    gallery.npz       its pictures
    figures/          drawn from the tables
    comparison.csv    the points beside the paper's, once they have been compared

While a run is under way, what is done of points and metrics is in points.partial.csv and metrics.partial.csv; points.csv and
metrics.csv appear, or are replaced, when it is complete.
"""

import dataclasses
import json
import os
import pathlib
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from typing import Any

import flax.serialization
import jax
import numpy as np

from rd_elbo import disk
from rd_elbo.errors import BadInput
from rd_elbo.grid import FIELDS, Member
from rd_elbo.models.base import Params

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
      BadInput: If there is no such table, it has a torn row or no row, or it is no sweep's.
    """
    path = pathlib.Path(workdir) / "points.csv"
    rows = disk.read_table(path)
    if not rows:
        raise BadInput(f"table {str(path)!r} has no points")
    for column in _SWEEP_COLUMNS:
        if column not in rows[0]:
            raise BadInput(f"table {str(path)!r} has no column {column!r}; only sweeps are read here")
    defaults = {field.name: field.default for field in dataclasses.fields(Member)}
    return [{**defaults, **row} for row in rows]


def usable(points: Iterable[Row], split: str) -> list[Row]:
    """The points of one split, leaving out members that diverged.

    Raises:
      BadInput: If no finite point of that split is there.
    """
    found = [p for p in points if p["split"] == split and p["status"] == "ok" and np.isfinite([p["rate"], p["distortion"]]).all()]
    if not found:
        raise BadInput(f"there are no finite points of the split {split!r}")
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


def open_run(workdir: pathlib.Path, config: Mapping[str, Any], overwrite: bool = False) -> None:
    """Makes sure that `workdir` may hold the run of `config`, and records the configuration there.

    The same configuration may be run again: its tables are replaced when the new ones are complete. With `overwrite`, the files of
    a different run are removed first, so that no two runs ever share a folder.

    Raises:
      BadInput: If the folder holds another run or something else, or cannot be written to.
    """
    given = json.loads(json.dumps(config))
    recorded = workdir / "config.json"
    before: Any = None
    if workdir.exists() and not workdir.is_dir():
        raise BadInput(f"workdir={str(workdir)!r} is a file; it must be a folder, new or of the same run")
    if recorded.exists():
        try:
            before = json.loads(recorded.read_text())
        except (OSError, ValueError) as error:
            if not overwrite:
                raise BadInput(f"workdir={str(workdir)!r} holds a config.json that cannot be read ({error})") from error
        if before != given and not overwrite:
            raise BadInput(
                f"workdir={str(workdir)!r} already holds a different run ({_difference(before, given)}); "
                "choose another folder, or give --overwrite to replace it"
            )
    elif workdir.is_dir() and any(workdir.iterdir()) and not overwrite:
        raise BadInput(f"workdir={str(workdir)!r} holds files but no run; choose another folder, or give --overwrite")
    try:
        if recorded.exists() and before != given:
            _remove_run(workdir)
        disk.write_json(recorded, given)
    except OSError as error:
        raise BadInput(f"workdir={str(workdir)!r} cannot be written to ({error.strerror})") from error


def _remove_run(workdir: pathlib.Path) -> None:
    """Removes what a run has written, and nothing else."""
    for folder in ("params", "figures"):
        for path in (workdir / folder).glob("*"):
            if path.suffix in (".msgpack", ".png", ".pdf"):
                path.unlink()
    tables = ("points*.csv", "metrics*.csv", "members.csv", "comparison.csv", *_EXPERIMENT_FILES, *GALLERY_FILES)
    for name in (*tables, "summary.json", "provenance.json"):
        for path in workdir.glob(name):
            path.unlink()


def _difference(before: Any, now: Any, where: str = "") -> str:
    """The first field in which two configurations differ, in words."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            if before.get(key) != now.get(key):
                return _difference(before.get(key), now.get(key), f"{where}.{key}" if where else key)
    return f"{where} was {before!r} and is {now!r}"


def save_params(workdir: pathlib.Path, member: Member, params: Params) -> None:
    """Saves one trained member."""
    content = flax.serialization.msgpack_serialize(
        {"member": dataclasses.asdict(member), "params": jax.tree.map(np.asarray, params)}
    )
    disk.write_whole(workdir / "params" / f"{member.name}.msgpack", lambda file: file.write(content))


def load_params(workdir: pathlib.Path | str, name: str) -> tuple[Member, Params]:
    """Loads a trained member by its name in the tables.

    >>> member, params = load_params("runs/quickstart", "0123456789")    # doctest: +SKIP
    >>> model = member.build((28, 28))                                   # doctest: +SKIP
    >>> images = model.decode(params, z).sample(seed=key)                # doctest: +SKIP

    Raises:
      BadInput: If there is no such member or its file is damaged.
    """
    path = pathlib.Path(workdir) / "params" / f"{name}.msgpack"
    try:
        content = flax.serialization.msgpack_restore(path.read_bytes())
        return Member(**content["member"]), content["params"]
    except OSError as error:
        raise BadInput(f"member {name!r} has no saved parameters in {str(workdir)!r} ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{str(path)!r} is damaged ({error})") from error


def member_rows(members: Iterable[Member], group_of: Mapping[Member, int]) -> list[dict[str, Any]]:
    """Rows of members.csv."""
    return [{"member": m.name, "family": m.family, "group": group_of[m], **dataclasses.asdict(m)} for m in members]


MEMBER_COLUMNS = ("member", "family", "group", *FIELDS)
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
