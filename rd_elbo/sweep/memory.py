"""Memory of a chunk: the compiled program's need beside the free memory."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import psutil
from jax.sharding import Mesh
from jax.stages import Compiled

from rd_elbo import host

# The rest is for what the compiler does not count: its own work, scratch space of library calls.
SHARE = 0.8


def needed(program: Compiled) -> int:
    """Bytes on each device that a program takes, arguments and results included."""
    found: Any = program.memory_analysis()
    if found is None:  # a backend may not say
        return 0
    # What is donated is an argument and a result in one.
    size = {
        name: getattr(found, f"{name}_size_in_bytes") for name in ("argument", "output", "alias")
    }
    rest = found.temp_size_in_bytes + found.generated_code_size_in_bytes
    return int(size["argument"] + size["output"] - size["alias"] + rest)


def free(mesh: Mesh, tasks: int = 1) -> int:
    """Bytes that a program may take on each device of this process.

    Args:
      mesh: Devices to run on.
      tasks: Processes of the global mesh on this host, which share its memory.
    """
    devices = [d for d in mesh.devices.flat if d.process_index == jax.process_index()]
    stats = [device.memory_stats() for device in devices]
    own = [s["bytes_limit"] - s["bytes_in_use"] for s in stats if s and "bytes_limit" in s]
    if len(own) == len(devices):
        return int(SHARE * min(own))
    return int(SHARE * free_host() / max(tasks, tasks_on_host(os.environ)) / len(devices))


def ran_out(error: Exception) -> bool:
    """Whether memory was too small, and fewer members at once may fit."""
    texts = ("RESOURCE_EXHAUSTED", "out of memory")
    ours = isinstance(error, MemoryError)
    theirs = isinstance(error, jax.errors.JaxRuntimeError)
    return ours or (theirs and any(text.lower() in str(error).lower() for text in texts))


def free_host() -> int:
    """Bytes of the host's memory that this process may still take, control groups observed."""
    rooms = [psutil.virtual_memory().available, *map(_room, host.control_groups("memory"))]
    return max(0, min(rooms)) + host.held_memory()


def _room(group: pathlib.Path) -> int:
    """Bytes that a control group leaves of its limit."""
    names = ("memory.max", "memory.current", "total_inactive_file")
    if not (group / names[0]).exists():
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    try:
        limit, used = (int((group / name).read_text()) for name in names[:2])
        lines = (line.split() for line in (group / "memory.stat").read_text().splitlines())
        # Pages of files are given back when they are wanted.
        stat = {name: int(value) for name, value in lines}
    except (OSError, ValueError):  # no limit is "max", or no file
        return 2**62
    return limit - used + stat.get(names[2], stat.get("inactive_file", 0))


def tasks_on_host(environ: Mapping[str, str]) -> int:
    """Tasks of a Slurm step on this host; 1 elsewhere."""
    counts = environ.get("SLURM_STEP_TASKS_PER_NODE", "1").split(",")
    return max(1, *(int(count.partition("(")[0]) for count in counts), 1)
