"""Settings of the process that must be made before JAX starts; scripts make them, the library never does."""

import ctypes
import os
import pathlib
import resource
import sys

import jax

from rd_elbo.errors import BadInput

# Far more than there is a use for; a mistyped million would take all memory.
MOST_DEVICES = 1024
# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def configure(devices: int | None = None, cache_dir: pathlib.Path | None = None, *, x64: bool = False) -> None:
    """Prepares this process for populations on CPU; harmless elsewhere.

    Args:
      devices: CPU devices to split the machine into; by default one per core this process may use. Members are spread over
        devices, which keeps all cores busy where one small model could not.
      cache_dir: Where XLA keeps compiled programs between runs; None means it does not.
      x64: Whether to allow 64-bit types, for populations in float64.

    Raises:
      BadInput: If there are more than `MOST_DEVICES`.
    """
    if devices is not None and devices > MOST_DEVICES:
        raise BadInput(f"devices={devices!r} must be at most {MOST_DEVICES}")
    if x64:
        jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_num_cpu_devices", devices or cores())
    keep_freed_memory()
    if cache_dir is not None:
        jax.config.update("jax_compilation_cache_dir", str(cache_dir))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_memory() -> int:
    """The most bytes of memory this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def keep_freed_memory() -> bool:
    """Has glibc keep what is freed instead of handing it back to the system; returns whether it could.

    XLA's convolutions on CPU allocate their scratch space anew at each call. By default every large block comes from the system
    page by page and goes back at once, so every call pays for its page faults again; `tests/test_host.py` counts them.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all([mallopt(_M_MMAP_MAX, 0), mallopt(_M_TRIM_THRESHOLD, 2**31 - 1), mallopt(_M_ARENA_MAX, 1)])
