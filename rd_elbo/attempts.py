"""Marks of work under way: a process that the system ends for lack of memory cannot say why, nor try less.

A mark tells how many processes the system had ended so when the work began. Whoever finds it later, and the count higher, had
better try less at once; any other kill leaves the count as it was, and changes nothing. (The count is the whole machine's: a kill
beside which another process is ended for lack of memory is taken for one.)
"""

import contextlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

from rd_elbo import disk


def ended_processes() -> dict[str, Any] | None:
    """How many processes this system has ended for lack of memory since it was started; None where it does not tell."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        counts = dict(line.split() for line in pathlib.Path("/proc/vmstat").read_text().splitlines())
        return {"boot": boot, "ended": int(counts["oom_kill"])}
    except (OSError, KeyError, ValueError):
        return None


@contextlib.contextmanager
def marked(path: pathlib.Path) -> Iterator[None]:
    """Leaves a mark at `path` until the block comes to any end of its own."""
    ended = ended_processes()
    with contextlib.suppress(OSError):  # on a full disk there is none
        if ended:
            disk.write_json(path, ended)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def took_too_much(path: pathlib.Path) -> bool:
    """Whether there is a mark, and the system has ended a process since it was made; the mark is gone then."""
    ended = ended_processes()
    try:
        mark = json.loads(path.read_text())
        found = ended is not None and mark["boot"] == ended["boot"] and mark["ended"] < ended["ended"]
    except disk.DAMAGE:
        found = False
    path.unlink(missing_ok=True)
    return found
