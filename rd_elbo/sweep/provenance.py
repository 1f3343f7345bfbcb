"""Where numbers come from: versions, devices, revision of the source."""

import functools
import hashlib
import os
import pathlib
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import jax

from rd_elbo import host

_PACKAGES = ("rd_elbo", "jax", "jaxlib", "flax", "distrax", "optax", "tfp-nightly", "numpy")


def provenance(
    data: Mapping[str, Any], command: Sequence[str], times: Mapping[str, float]
) -> dict[str, Any]:
    """What is needed to know where numbers come from."""
    devices = jax.local_devices()
    return {
        "command": list(command),
        "data": dict(data),
        "devices": [device.device_kind for device in devices],
        "platform": devices[0].platform,
        "processor": processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "versions": {name: package_version(name) for name in _PACKAGES},
        "revision": revision(),
        "seconds": dict(times),
        "peak_memory_bytes": host.peak_memory(),
    }


def of_chunk(devices: int, began: float, seconds: Mapping[str, float]) -> dict[str, Any]:
    """Where the numbers of a chunk come from.

    Args:
      devices: Number of devices.
      began: Seconds since the epoch.
      seconds: Wall times by what they were spent on.
    """
    return {
        "release": package_version("rd_elbo"),
        "revision": revision(),
        **{name: package_version(name) for name in ("jax", "jaxlib")},
        "device": jax.devices()[0].device_kind,
        "processor": processor(),
        "devices": devices,
        "processes": jax.process_count(),
        "began": began,
        "seconds": dict(seconds),
    }


@functools.cache
def version() -> str:
    """Release and revision of rd_elbo, and the version of jax: numbers may differ with either.

    >>> version()    # doctest: +SKIP
    '0.1.0+ca1c550/jax0.10.2'

    The revision is the last one that changed the library, with a hash of changes made since.
    """
    own = package_version("rd_elbo") or "unknown"
    folder = pathlib.Path(__file__).parent
    last = _git("log", "-1", "--format=%h", "--abbrev=8", "--", str(folder))
    if last:
        changes = _git("diff", "HEAD", "--", str(folder)) or ""
        digest = hashlib.sha256(changes.encode()).hexdigest()[:8]
        own += f"+{last}{f'.{digest}' if changes else ''}"
    return f"{own}/jax{jax.__version__}"


@functools.cache
def revision() -> str | None:
    """The git revision of the source, with "+" if it was changed since; None outside a checkout."""
    head = _git("rev-parse", "HEAD")
    if head is None:
        return None
    return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*arguments: str) -> str | None:
    """What git says of the checkout that this file belongs to; None if it belongs to none."""
    folder, run = pathlib.Path(__file__).parent, functools.partial(subprocess.run, check=True)
    try:
        # An installed copy may lie in a checkout of something else.
        run(["git", "ls-files", "--error-unmatch", __file__], cwd=folder, capture_output=True)
        result = run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return str(result.stdout).strip()


def package_version(package: str) -> str | None:
    """Version of an installed package; None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def processor() -> str:
    """Name of the processor."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
