"""The process and its machine: settings before JAX starts, other processes, signals, limits.

Scripts make these settings; the library never does.
"""

import contextlib
import ctypes
import dataclasses
import gc
import math
import os
import pathlib
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

import jax

from rd_elbo.errors import BadInput, whole

# Far more than there is a use for; a mistyped million would take all memory.
MOST_DEVICES = 1024
# Exit code after a termination signal: 128 and its number, as shells count.
STOPPED = 128 + signal.SIGTERM
# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
# Seconds after which waiting for other processes is announced, and jax's own limit.
_PATIENCE, _LIMIT = 20.0, 300
# Objects made between two collections of garbage; Python's own number is 700.
_OBJECTS = 100_000


def configure(
    devices: int | None = None, cache_dir: pathlib.Path | None = None, *, x64: bool = False
) -> None:
    """Prepare this process for populations on CPU; harmless elsewhere.

    >>> import rd_elbo as rd
    >>> rd.configure(devices=2)  # before JAX starts

    Args:
      devices: CPU devices to split the machine into; by default one per core this process may use.
        Members are spread over devices, which keeps all cores busy where one small model could not.
      cache_dir: Folder in which XLA keeps compiled programs between runs; None keeps none.
      x64: Whether to allow 64-bit types, for populations in float64.

    Raises:
      BadInput: If there are more than `MOST_DEVICES`.
    """
    if devices is not None and devices > MOST_DEVICES:
        raise BadInput(f"devices={devices!r}: expected at most {MOST_DEVICES}.")
    if x64:
        jax.config.update("jax_enable_x64", True)
    # A member that diverges is frozen and reported; a trace would end its neighbours too.
    jax.config.update("jax_debug_nans", False)
    jax.config.update("jax_debug_infs", False)
    jax.config.update("jax_num_cpu_devices", devices or cores())
    retain_freed_memory()
    # Tracing makes objects by the hundred thousand and little garbage: searching for it takes a
    # sixth of the time.
    gc.set_threshold(_OBJECTS)
    if cache_dir is not None:
        jax.config.update("jax_compilation_cache_dir", str(cache_dir))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def check_platform() -> None:
    """Start JAX's backend.

    Raises:
      BadInput: If the platform that was asked for is not there.
    """
    try:
        jax.devices()
    except (RuntimeError, AssertionError, ValueError) as error:
        asked = os.environ.get("JAX_PLATFORMS")
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BadInput(
            f"JAX_PLATFORMS={asked!r}: expected a platform of this machine, got none ({reason}). "
            "Unset it, or set it to 'cpu'."
        ) from error


def join(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> None:
    """Join the other processes of the job, before anything else that JAX does.

    Args:
      coordinator: Address and port of process 0, "host:port"; None where JAX finds all three.
      processes: Number of processes.
      process: Index of this process.
      report: Callback with a sentence, where the others have not come yet.

    Raises:
      BadInput: If some are given and others are not, the port is in use, or no other process comes.
    """
    given = {"coordinator": coordinator, "processes": processes, "process": process}
    missing = [name for name, value in given.items() if value is None]
    if missing and len(missing) < len(given):
        raise BadInput(
            f"--{missing[0]}: expected a value, got none. Give --coordinator, --processes and "
            "--process together."
        )
    if not missing:
        count, own = whole("processes", processes), whole("process", process, 0)
        if own >= count:
            raise BadInput(f"process={own}: expected less than processes={count}, got {own}.")
        host, _, port = str(coordinator).rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise BadInput(
                f"coordinator={coordinator!r}: expected an address and a port, such as "
                "10.0.0.1:9000."
            )
        if own == 0:
            # JAX would end in a segmentation fault.
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("", int(port)))
                except OSError as error:
                    raise BadInput(
                        f"coordinator={coordinator!r}: expected a free port, got one in use "
                        f"({error.strerror}). Choose another port."
                    ) from error
    waiting = threading.Timer(
        _PATIENCE,
        report,
        [f"waiting for the other processes at {coordinator or 'the coordinator'}; after {_LIMIT} s "
         "jax ends this process, and the same command resumes"],
    )  # fmt: skip
    waiting.daemon = True
    waiting.start()
    try:
        jax.distributed.initialize(coordinator, processes, process)
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadInput(
            f"coordinator={coordinator!r}: expected {processes or 'the other'} processes, got "
            f"{reason}. Outside Slurm, OpenMPI, Kubernetes and TPU pods give --coordinator, "
            "--processes and --process."
        ) from error
    finally:
        waiting.cancel()


@dataclasses.dataclass
class Stop:
    """A request to save and stop: a signal, or the end of a time budget.

    Attributes:
      saves: Whether there is something to save; without, a signal ends the process at once.
      deadline: Time of `time.monotonic` at which to stop; None means never.
      signalled: Whether a signal has come.
      last_words: Function that another thread calls before a signal ends the process at once.
    """

    saves: bool = False
    deadline: float | None = None
    signalled: bool = False
    last_words: Callable[[], None] | None = None

    def __call__(self) -> bool:
        """Whether to save and stop."""
        return self.signalled or self.out_of_time

    @property
    def out_of_time(self) -> bool:
        """Whether the budget is spent."""
        return self.deadline is not None and time.monotonic() >= self.deadline


@contextlib.contextmanager
def stop_on_signals(stop: Stop) -> Iterator[None]:
    """Turn termination signals into requests to stop, as schedulers and terminals send them.

    SIGTERM and SIGUSR1 are handled, and SIGHUP unless it is ignored, as under nohup. While there is
    nothing new to save, and at the second signal, the process ends at once.
    """
    handled = [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP]
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        handled.remove(signal.SIGHUP)
    # Python runs handlers between byte codes, and a compilation may take minutes: a thread listens.
    reader, writer = socket.socketpair()
    writer.setblocking(False)

    def poll() -> None:
        while data := reader.recv(1):
            if data[0] not in handled:
                continue
            if not stop.saves or stop.signalled:
                print(
                    "stopped where nothing new was to be saved; the same command resumes",
                    file=sys.stderr,
                    flush=True,
                )
                try:
                    if stop.last_words is not None:
                        stop.last_words()
                finally:
                    os._exit(STOPPED)
            stop.signalled = True

    before = {number: signal.signal(number, lambda *_: None) for number in handled}
    before_wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before_wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        writer.close()
        thread.join(1.0)
        reader.close()


def cores() -> int:
    """Cores that this process may use: of its affinity, and of the quota of its control groups."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [
        math.ceil(quota / period)
        for folder in control_groups("cpu")
        for quota, period in [_quota(folder)]
        if quota > 0
    ]
    return max(1, min([own, *quotas]))


def _quota(folder: pathlib.Path) -> tuple[int, int]:
    """Microseconds of all cores that a control group may use in a period; (-1, 1) without limit."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
            return (-1, 1) if quota == "max" else (int(quota), int(period))
        quota, period = (
            (folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")
        )
        return int(quota), int(period)
    except (OSError, ValueError):
        return -1, 1


def control_groups(
    controller: str,
    membership: pathlib.Path = pathlib.Path("/proc/self/cgroup"),
    root: pathlib.Path = pathlib.Path("/sys/fs/cgroup"),
) -> list[pathlib.Path]:
    """Folders of this process's control groups, innermost first, of version 2 or of `controller`.

    Slurm, Kubernetes and containers set their limits there.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = root / controllers if controllers else root
        base = base if base.is_dir() else root / controller
        group = base / path.lstrip("/")
        # A container sees its own group as the root, whatever its path outside.
        found += [folder for folder in (group, *group.parents) if folder.is_relative_to(base)]
    return found


def peak_memory() -> int:
    """The most bytes of memory that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def retain_freed_memory() -> bool:
    """Have glibc keep what is freed instead of handing it back; returns whether it could.

    XLA's convolutions on CPU allocate their scratch space anew at each call. By default every large
    block comes from the system page by page and goes back at once, so every call pays for its page
    faults again; `tests/test_host.py` counts them.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all(
        [mallopt(_M_MMAP_MAX, 0), mallopt(_M_TRIM_THRESHOLD, 2**31 - 1), mallopt(_M_ARENA_MAX, 1)]
    )


class _MallocInfo(ctypes.Structure):
    # From glibc's malloc.h, struct mallinfo2.
    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def held_memory() -> int:
    """Bytes that the C library has from the system and does not use, see `retain_freed_memory`."""
    if not sys.platform.startswith("linux"):
        return 0
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError):
        return 0
    mallinfo.restype = _MallocInfo
    return int(mallinfo().fordblks)
