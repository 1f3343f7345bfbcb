"""How much memory a population needs, as the compiled programs themselves tell, and how much of it there is.

Nothing is run to find out: a program is compiled for so many members, and the compiler knows what it will allocate.
"""

import ctypes
import dataclasses
import math
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import psutil
from jax.stages import Compiled

# Of the memory that is free. The rest is for what the compiler does not count: its own work, scratch space of library calls.
SHARE = 0.8


@dataclasses.dataclass(frozen=True)
class Need:
    """Bytes that a population takes.

    Attributes:
      device: On each of its devices.
      host: Of NumPy arrays in this process.
    """

    device: int
    host: int


@dataclasses.dataclass(frozen=True)
class Room:
    """Bytes that a population may take.

    Attributes:
      device: On each device; None where devices have no memory of their own.
      host: In this process.
      devices: Number of devices.
    """

    device: int | None
    host: int
    devices: int

    def taken(self, need: Need) -> float:
        """What part of the room is needed, of the scarcer memory; above 1 it does not fit."""
        if self.device is None:
            return (need.host + self.devices * need.device) / max(self.host, 1)
        return max(need.device / max(self.device, 1), need.host / max(self.host, 1))

    def fitting(self, members: int, need: Need, fixed: int) -> int:
        """How many members fit, where so many have this need; `fixed` bytes of it on each device do not depend on their number."""

        def share(room: int, all_of_it: int, fixed: int) -> float:
            return (room - fixed) / (all_of_it - fixed) if all_of_it > fixed else math.inf

        if self.device is None:
            shares = [share(self.host, need.host + self.devices * need.device, self.devices * fixed)]
        else:
            shares = [share(self.device, need.device, fixed), share(self.host, need.host, 0)]
        return int(members * min(*shares, 1.0))

    def compare(self, need: Need) -> str:
        """The need beside the room, in words."""
        if self.device is None:
            return f"{_gibibytes(need.host + self.devices * need.device)} of {_gibibytes(self.host)} GiB of memory"
        own = f"{_gibibytes(need.device)} of {_gibibytes(self.device)} GiB of each device's memory"
        return f"{own}, {_gibibytes(need.host)} of {_gibibytes(self.host)} GiB of the host's"


def _gibibytes(count: int) -> str:
    return f"{count / 2**30:.2g}" if count < 10 * 2**30 else f"{count / 2**30:.0f}"


class TooLarge(MemoryError):
    """What does not fit, however it is divided; `need` says how much it takes."""

    def __init__(self, need: Need, available: Room):
        super().__init__(f"it needs {available.compare(need)}; --config.population.members=1 tries it all the same")
        self.need = need


def of(compiled: Compiled) -> int:
    """Bytes on each device that a compiled program needs while it runs, its arguments and results among them."""
    found: Any = compiled.memory_analysis()
    if found is None:  # a backend may not tell
        return 0
    # What is donated is an argument and a result in one.
    arrays = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    return int(arrays + found.temp_size_in_bytes + found.generated_code_size_in_bytes)


def room(devices: Sequence[jax.Device], most: int | None = None) -> Room:
    """What populations on these devices may take.

    Args:
      devices: Local devices.
      most: Bytes of this host's memory that it may not exceed; None means all that are free.
    """
    stats = [device.memory_stats() for device in devices]
    free = [s["bytes_limit"] - s["bytes_in_use"] for s in stats if s and "bytes_limit" in s]
    host = int(SHARE * free_host_memory())
    own = int(SHARE * min(free)) if len(free) == len(devices) else None
    return Room(own, host if most is None else min(host, most), len(devices))


def largest(count: int, multiple: int, need: Callable[[int], Need], fixed: int, available: Room) -> tuple[int, Need]:
    """The most members, `count` or fewer, that fit; where they do not, they are to go in parts of about one size.

    Args:
      count: Members there are.
      multiple: Number of devices that they are spread over: the size of a part is a multiple of it, or less.
      need: What so many members need; it may be expensive.
      fixed: Bytes on each device that do not depend on their number.
      available: What there is.

    Returns:
      The size of a part, and its need. Of members of which not even `multiple` fit, that many.
    """
    size = count
    while True:
        needed = need(size)
        taken = available.taken(needed)
        if taken <= 1 or size <= multiple:
            return size, needed
        fitting = min(max(available.fitting(size, needed, fixed), multiple), size - 1)
        parts = math.ceil(count / fitting)
        even = -(-math.ceil(count / parts) // multiple) * multiple
        size = even if even < size else max(multiple, (size - 1) // multiple * multiple)


def free_host_memory() -> int:
    """Bytes that this process may still take: of the machine's, of its control group's, and of what it holds and does not use."""
    available = psutil.virtual_memory().available
    return min([available, *_group_rooms(pathlib.Path("/proc/self/cgroup"), pathlib.Path("/sys/fs/cgroup"))]) + _held()


def _group_rooms(membership: pathlib.Path, root: pathlib.Path) -> list[int]:
    """What the control groups of this process leave of their limits; Slurm, Kubernetes and containers set such limits."""
    rooms = []
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, limit, used = root, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            base, limit, used = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        group = base / path.lstrip("/")
        # A container sees its own group as the root, whatever its path outside.
        for folder in (group, *group.parents):
            if not folder.is_relative_to(base):
                break
            try:
                # Pages of files are given back when they are wanted.
                stat = dict(entry.split() for entry in (folder / "memory.stat").read_text().splitlines())
                files = int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
                rooms.append(int((folder / limit).read_text()) - int((folder / used).read_text()) + files)
            except (OSError, ValueError):  # no limit is "max", or no file
                continue
    return [max(0, left) for left in rooms]


class _MallocInfo(ctypes.Structure):
    # From glibc's malloc.h, struct mallinfo2.
    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    )


def _held() -> int:
    """Bytes that the C library has from the system and does not use, see `host.keep_freed_memory`."""
    if not sys.platform.startswith("linux"):
        return 0
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError):
        return 0
    mallinfo.restype = _MallocInfo
    return int(mallinfo().fordblks)
