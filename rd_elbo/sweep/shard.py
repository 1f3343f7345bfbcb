"""Shards: processes that train fixed shares of a sweep's chunks and do not communicate."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

from rd_elbo.errors import BadInput


@dataclasses.dataclass(frozen=True)
class Shard:
    """One of several processes that share the chunks of a sweep.

    Attributes:
      index: Index of the shard, from 0.
      count: Number of shards; 1 means that this process trains everything.
      origin: Source of the two numbers, in words.
    """

    index: int = 0
    count: int = 1
    origin: str = ""

    @property
    def name(self) -> str:
        """Name of its lock; "" if it is all there is."""
        return f"{self.index}of{self.count}" if self.count > 1 else ""

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def parse(text: str, environ: Mapping[str, str]) -> Shard:
    """The shard that a flag names.

    Args:
      text: "i/n", from 0/n to (n-1)/n; "auto" in a Slurm array, in a step of several tasks or in
        both; "auto/n" in a Kubernetes indexed job.
      environ: The process's environment.

    Raises:
      BadInput: If it is none of these, or the scheduler does not say.
    """
    if match := re.fullmatch(r"(\d+)/(\d+)", text):
        return _checked(text, int(match[1]), int(match[2]), "")
    if text == "auto":
        shard = Shard()
        if "SLURM_ARRAY_TASK_ID" in environ:
            first, last, step, task_id = (
                int(environ[f"SLURM_ARRAY_TASK_{name}"]) for name in ("MIN", "MAX", "STEP", "ID")
            )
            count, index = (last - first) // step + 1, (task_id - first) // step
            if count != int(environ["SLURM_ARRAY_TASK_COUNT"]):
                raise BadInput("shard='auto': expected an array such as 0-7, got one with gaps.")
            shard = Shard(index, count, f"task {task_id} of a Slurm array of {count}")
        # Set by srun alone; a batch script without it is one process.
        if int(environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
            tasks, task = int(environ["SLURM_STEP_NUM_TASKS"]), int(environ["SLURM_PROCID"])
            origin = f"task {task} of {tasks} of a Slurm step"
            origin = f"{shard.origin}, {origin}" if shard.origin else origin
            shard = Shard(shard.index * tasks + task, shard.count * tasks, origin)
        if not shard.origin:
            raise BadInput(
                "shard='auto': expected a Slurm array or a step of several tasks, got neither. "
                "Give --shard=i/n, or --shard=auto/n in a Kubernetes indexed job."
            )
        return shard
    if match := re.fullmatch(r"auto/(\d+)", text):
        own = environ.get("JOB_COMPLETION_INDEX", "")
        if not own.isdecimal():
            raise BadInput(
                f"shard={text!r}: expected JOB_COMPLETION_INDEX of a Kubernetes indexed job, got "
                f"{own!r}. Give --shard=i/n."
            )
        return _checked(text, int(own), int(match[1]), f"index {own} of a Kubernetes job")
    raise BadInput(f"shard={text!r}: expected i/n, auto or auto/n, got something else.")


def _checked(text: str, index: int, count: int, origin: str) -> Shard:
    if not index < count:
        raise BadInput(f"shard={text!r}: expected an index below {count}, got {index}.")
    return Shard(index, count, origin)


def owners(work: Sequence[float], count: int) -> list[int]:
    """The shard of each chunk: largest first, each to the shard with the least work so far."""
    loads, owner = [0.0] * count, [0] * len(work)
    for i in sorted(range(len(work)), key=lambda i: (-work[i], i)):
        owner[i] = min(range(count), key=lambda shard: (loads[shard], shard))
        loads[owner[i]] += work[i]
    return owner


def imbalance(work: Sequence[float], count: int) -> float:
    """Work of the busiest shard over the mean; 1 is perfect."""
    owner = owners(work, count)
    loads = [sum(w for w, o in zip(work, owner, strict=True) if o == i) for i in range(count)]
    return max(loads) * count / sum(loads)
