"""Several processes, on one host or many, at one sweep.

`jax.distributed` brings them together, and finds out by itself where under Slurm, OpenMPI, Kubernetes and on TPU pods. From then on
each works on parts of its own, on its own devices, and nothing is sent from one to another: a part is taken by making a file in the
run directory, which all of them must see, and what became of it is found there.

    claims/<start>/<part>             taken by a process of this start of the job
    claims/<start>/<part>.failed      why members of it could not be trained, by name
    claims/<start>/stopped_<i>        process i had to stop, and the others are to
    claims/<start>/ended              the tables are written

Claims of an earlier start, whose processes are gone, mean nothing.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import platform
import secrets
import shutil
import time
from collections.abc import Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils

from rd_elbo import disk
from rd_elbo.errors import BadInput, whole

_DIGEST = 32
# How long a shared file system may take to show what another host has written.
_PATIENCE = 300.0
_POLL = 0.2


@dataclasses.dataclass(frozen=True)
class Hosts:
    """The processes of a job.

    Attributes:
      index: Of this process; process 0 plans, and writes the tables.
      count: Number of processes.
      start: Names this start of the job; the same in all processes.
      neighbours: How many of them are on this host.
    """

    index: int = 0
    count: int = 1
    start: str = ""
    neighbours: int = 1

    def agree(self, fine: bool, said: bytes = b"") -> tuple[bool, bytes]:
        """Waits for all processes; whether all are fine, and what process 0 said (32 bytes)."""
        if self.count == 1:
            return fine, said
        mine = np.frombuffer(bytes([fine]) + said.ljust(_DIGEST, b"\0"), np.uint8)
        all_of_them = np.asarray(multihost_utils.process_allgather(mine))
        return bool(all_of_them[:, 0].all()), all_of_them[0, 1:].tobytes()


def join(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> Hosts:
    """Joins the other processes of the job; must come before anything else that JAX does.

    Args:
      coordinator: Address and port of process 0, "host:port"; None where JAX finds all three by itself.
      processes: How many there are.
      process: Which of them this is.

    Raises:
      BadInput: If some are given and others are not, or are no such thing, or JAX does not find them.
    """
    given = {"coordinator": coordinator, "processes": processes, "process": process}
    missing = [name for name, value in given.items() if value is None]
    if missing and len(missing) < len(given):
        raise BadInput(f"--{missing[0]} is missing; give --coordinator, --processes and --process together, or none of them")
    if not missing:
        count, own = whole("processes", processes), whole("process", process, 0)
        if own >= count:
            raise BadInput(f"process={own} must be below processes={count}; they are counted from 0")
        host, _, port = str(coordinator).rpartition(":")
        if not host or not port.isdecimal():
            raise BadInput(f"coordinator={coordinator!r} must be an address and a port, such as 10.0.0.1:9000")
    try:
        jax.distributed.initialize(coordinator, processes, process)
    except (ValueError, RuntimeError) as error:
        raise BadInput(
            f"the processes cannot be brought together ({disk.gist(error)}); outside Slurm, OpenMPI, Kubernetes and TPU pods "
            "give --coordinator, --processes and --process"
        ) from error
    own_name = hashlib.sha256(platform.node().encode()).digest()[:_DIGEST]
    mine = np.frombuffer(own_name + secrets.token_bytes(8), np.uint8)
    try:
        gathered = np.asarray(multihost_utils.process_allgather(mine)).reshape(jax.process_count(), -1)
    except ValueError as error:
        raise BadInput(
            f"the processes must have one number of devices each ({disk.gist(error)}); give --config.population.devices"
        ) from error
    neighbours = int((gathered[:, :_DIGEST] == mine[:_DIGEST]).all(axis=1).sum())
    return Hosts(jax.process_index(), jax.process_count(), gathered[0, _DIGEST:].tobytes().hex(), neighbours)


@dataclasses.dataclass(eq=False)
class Claims:
    """Who works on what; with one process, that one on everything.

    Attributes:
      workdir: The run directory.
      hosts: The processes.
    """

    workdir: pathlib.Path
    hosts: Hosts
    _asked: float = dataclasses.field(default=0.0, init=False)
    _stopped: bool = dataclasses.field(default=False, init=False)

    @property
    def folder(self) -> pathlib.Path:
        """Where the claims of this start are."""
        return self.workdir / "claims" / self.hosts.start

    def open(self) -> None:
        """Forgets other starts; process 0 does so before the others look."""
        shutil.rmtree(self.workdir / "claims", ignore_errors=True)
        if self.hosts.count > 1:
            self.folder.mkdir(parents=True)

    def take(self, part: str) -> bool:
        """Whether the part is this process's now; it is nobody else's then."""
        if self.hosts.count == 1:
            return True
        try:
            os.close(os.open(self.folder / part, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        return True

    def fail(self, part: str, why: Mapping[str, str]) -> None:
        """Tells the others why members of a part could not be trained."""
        if self.hosts.count > 1:
            disk.write_json(self.folder / f"{part}.failed", dict(why))

    def failures(self) -> dict[str, dict[str, str]]:
        """Parts of which members failed, by name, and why."""
        return {path.stem: json.loads(path.read_text()) for path in self.folder.glob("*.failed")} if self.hosts.count > 1 else {}

    def stop(self) -> None:
        """Asks the others to stop; who dies takes all of them along, and they should save before."""
        if self.hosts.count > 1:
            with contextlib.suppress(OSError):
                (self.folder / f"stopped_{self.hosts.index}").touch()

    def stopping(self) -> bool:
        """Whether a process was asked to stop; once it was, so it stays."""
        now = time.monotonic()
        if self.hosts.count > 1 and not self._stopped and now - self._asked >= _POLL:
            self._asked = now
            self._stopped = any(self.folder.glob("stopped_*"))
        return self._stopped

    def await_stops(self, seconds: float) -> None:
        """Waits until all have stopped, or so long."""
        until = time.monotonic() + seconds
        while self.hosts.count > 1 and time.monotonic() < until and len(list(self.folder.glob("stopped_*"))) < self.hosts.count:
            time.sleep(_POLL)

    def end(self) -> None:
        """Process 0 lets the others go."""
        if self.hosts.count > 1:
            (self.folder / "ended").touch()

    def await_end(self) -> bool:
        """Waits for process 0; False if it, or another, had to stop instead."""
        while not (self.folder / "ended").exists():
            if self.stopping():
                return False
            time.sleep(_POLL)
        return True


def await_content(path: pathlib.Path, digest: bytes) -> None:
    """Waits until a file that another process has written is seen here.

    Raises:
      BadInput: If it is not seen in time.
    """
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            if bytes.fromhex(disk.sha256(path)) == digest:
                return
        time.sleep(_POLL)
    raise BadInput(f"{str(path)!r} is not what process 0 has written; workdir must be a folder that all hosts share")
