"""Kills, damages, starves and locks out a small sweep, and holds what it ends with against one that nothing happened to.

    python scripts/torture.py --workdir=runs/torture
    python scripts/torture.py --workdir=runs/torture --kills=5 --kinds kills damage

kills: the sweep is killed (SIGKILL) and started again with the same command, over and over; every other time at a random moment,
else as soon after one as a checkpoint is half written or removed. terminations: the same with SIGTERM. jobs: two processes share
the sweep; one of them is killed, then the other. damage: every kind of file of a run directory, of a finished run and of one
stopped on its way, is truncated, flipped in one bit, deleted, swapped with another, or emptied. disk: a full disk and a read-only
one (small mounts of memory, which only root may make). Right is: the tables and parameters of the reference, byte for byte; or,
where files were damaged or the disk was full, one sentence and an exit code that is not zero. Writes torture.csv, a row per
trial, and ends with exit code 1 if anything was wrong.
"""

import argparse
import collections
import contextlib
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import console as terminal
from rich.console import Console

from rd_elbo import disk, records
from rd_elbo.errors import BadInput, whole

_ROOT = pathlib.Path(__file__).parents[1]
_COLUMNS = ("kind", "trial", "what", "outcome", "exit_code", "seconds", "said")
_KINDS = ("kills", "terminations", "jobs", "damage", "disk")
# Long enough to be hit while it trains; saved as often as it may.
_SWEEP = (
    "--config=configs/quickstart.py:quick",
    "--config.train.epochs=20",
    "--config.population.checkpoint_seconds=0",
    # Which is fastest is measured, and may be another in another run.
    "--config.population.strategy=vmap",
    # Parts of members of two widths.
    "--config.population.members=3",
    "--config.population.max_waste=2.0",
)
_SECONDS = 300.0
_TABLES = ("points.csv", "metrics.csv", "members.csv")
# What only a sweep of several processes leaves behind.
_OF_JOBS = {"status_1.json", "claims"}


def commands(workdir: pathlib.Path, count: int = 1) -> list[list[str]]:
    """The sweep, as one process or several."""
    command = [sys.executable, str(_ROOT / "scripts" / "sweep.py"), *_SWEEP, f"--workdir={workdir}"]
    if count == 1:
        return [command]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        together = (f"--coordinator=127.0.0.1:{free.getsockname()[1]}", f"--processes={count}")
    return [[*command, *together, f"--process={i}"] for i in range(count)]


@contextlib.contextmanager
def started(workdir: pathlib.Path, count: int = 1) -> Iterator[list[subprocess.Popen[str]]]:
    """The processes of the sweep; none outlives the block."""
    with contextlib.ExitStack() as held:
        processes = []
        for command in commands(workdir, count):
            pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
            processes.append(held.enter_context(subprocess.Popen(command, cwd=_ROOT, **pipes)))
            held.callback(processes[-1].kill)
        yield processes


def finish(workdir: pathlib.Path, count: int = 1) -> subprocess.CompletedProcess[str]:
    """Runs the sweep to its end; one that hangs ends with exit code -9. What it says is what all of its processes say."""
    with started(workdir, count) as processes:
        said, until = [], time.monotonic() + _SECONDS
        for process in processes:
            try:
                said.append(process.communicate(timeout=max(1.0, until - time.monotonic()))[1])
            except subprocess.TimeoutExpired:
                process.kill()
                said.append(process.communicate()[1])
    worst = next((process.returncode for process in processes if process.returncode), 0)
    return subprocess.CompletedProcess(processes[0].args, worst, "", "".join(said))


def outcome_of(
    workdir: pathlib.Path, reference: pathlib.Path, result: subprocess.CompletedProcess[str], may_refuse: bool = False
) -> str:
    """What a sweep ended with: the same as the reference, a refusal where it may refuse, or something wrong."""
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    if "Traceback" in result.stderr:
        return "WRONG: a traceback"
    if result.returncode != 0:
        honest = sum(line.startswith("error: ") for line in lines) == 1
        return "refused" if honest and may_refuse else f"WRONG: exit code {result.returncode}"
    strange = [line for line in lines if not line.startswith("warning: ")]
    if strange:
        return f"WRONG: {strange[0]}"
    parameters = sorted({str(path.relative_to(folder)) for folder in (workdir, reference) for path in folder.glob("params/*")})
    for name in [*_TABLES, *parameters]:
        if (
            not ((workdir / name).exists() and (reference / name).exists())
            or (workdir / name).read_bytes() != (reference / name).read_bytes()
        ):
            return f"WRONG: {name} differs"
    try:
        records.read_points(workdir)
    except BadInput as error:
        return f"WRONG: {error}"
    extra = {path.name for path in workdir.iterdir()} - {path.name for path in reference.iterdir()} - _OF_JOBS
    return f"WRONG: {', '.join(sorted(extra))} left behind" if extra else "same"


def half_written(workdir: pathlib.Path) -> set[pathlib.Path]:
    """Checkpoints without their records, which are written last and removed first."""
    with contextlib.suppress(FileNotFoundError):  # what is looked through may vanish
        states = [path for path in workdir.glob("checkpoints/*/*") if path.suffix != ".json"]
        return {path for path in states if not path.with_name(f"{path.name}.json").exists()}
    return set()


def strike(
    processes: Sequence[subprocess.Popen[str]],
    workdir: pathlib.Path,
    seconds: float,
    how: signal.Signals,
    dice: random.Random,
    aimed: bool,
) -> bool:
    """Sends a signal to one of the processes, at a random moment; whether it met the process at work.

    An aimed one waits on until a checkpoint is half written or removed, other than those that an earlier one left so.
    """
    left = half_written(workdir)
    # Not while they import: from when the folder is in use, and status.json anew.
    status, victim = workdir / "status.json", dice.choice(processes)
    seen = status.stat().st_mtime_ns if status.exists() else 0
    while victim.poll() is None and not (status.exists() and status.stat().st_mtime_ns > seen):
        time.sleep(0.02)
    with contextlib.suppress(subprocess.TimeoutExpired):
        victim.wait(dice.uniform(0.0, seconds))
    while aimed and victim.poll() is None and not half_written(workdir) - left:
        time.sleep(0.0005)
    alive = victim.poll() is None
    victim.send_signal(how)
    return alive


def killed(codes: Sequence[int], how: signal.Signals, where: str, said: str) -> bool:
    """Whether processes ended as they should."""
    if len(codes) > 1:
        # One may have come to its end by itself; one that has lost process 0 is ended by JAX.
        return {-how, -signal.SIGABRT, 0}.issuperset(codes) and "Traceback" not in said
    if how == signal.SIGTERM and where == "on its way":
        return codes[0] == 128 + how and "what is done is saved" in said
    return codes[0] in (-how, 128 + how) and "Traceback" not in said


def interrupted(
    folder: pathlib.Path,
    reference: pathlib.Path,
    wanted: int,
    seconds: float,
    how: signal.Signals,
    dice: random.Random,
    kind: str,
    count: int = 1,
) -> Iterator[dict[str, Any]]:
    """Kills sweeps until `wanted` kills have met one at work; a row per kill, and one per sweep that was let finish."""
    kills = trial = 0
    while kills < wanted:
        workdir, before, alive = folder / str(trial), kills, True
        while alive and kills - before < 12 and kills < wanted:
            began, left = time.perf_counter(), half_written(workdir)
            with started(workdir, count) as processes:
                alive = strike(processes, workdir, seconds, how, dice, aimed=kills % 2 == 1)
                if alive and count > 1:
                    # The others go on for a while, then the cluster ends them.
                    time.sleep(dice.uniform(0.0, 2.0))
                    for process in processes:
                        process.kill()
                said = "".join(process.communicate()[1] or "" for process in processes).strip()
            codes = [process.returncode for process in processes]
            if not any(codes):
                # It was faster than the reference: most moments would be past its end.
                alive, seconds = False, min(seconds, time.perf_counter() - began)
                continue
            kills += alive
            where = "tables written" if (workdir / "provenance.json").exists() else "on its way"
            what = "a checkpoint half written or removed" if half_written(workdir) - left else where
            right = "killed" if killed(codes, how, where, said) else "WRONG"
            yield _row(kind, kills, what, right, codes[0], began, said)
        began = time.perf_counter()
        result = finish(workdir, count)
        outcome = outcome_of(workdir, reference, result)
        yield _row(kind, kills, f"finished after {kills - before} kills", outcome, result.returncode, began, result.stderr)
        trial += 1
        if outcome == "same":
            shutil.rmtree(workdir)


def half_done(workdir: pathlib.Path) -> pathlib.Path:
    """Kills a sweep that has finished a part, has states of the next, and has written what points there are."""
    wanted = ("checkpoints/*/*.json", "parts/*", "points.partial.csv")
    for _ in range(20):
        shutil.rmtree(workdir, ignore_errors=True)
        with started(workdir) as (process,):
            while process.poll() is None and not all(list(workdir.glob(pattern)) for pattern in wanted):
                time.sleep(0.01)
        # It may have gone on between two looks.
        if all(list(workdir.glob(pattern)) for pattern in wanted):
            return workdir
    sys.exit("error: in 20 attempts the sweep could not be stopped on its way")


def flip(path: pathlib.Path, dice: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    path.write_bytes(content)


def truncate(path: pathlib.Path, dice: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: dice.randrange(len(content))])


def delete(path: pathlib.Path, _: random.Random) -> None:
    path.unlink()


def swap(path: pathlib.Path, dice: random.Random) -> None:
    others = [other for other in path.parent.iterdir() if other.is_file() and other != path]
    other = dice.choice(others) if others else None
    if other:
        mine, theirs = path.read_bytes(), other.read_bytes()
        path.write_bytes(theirs)
        other.write_bytes(mine)


_HARMS: dict[str, Callable[[pathlib.Path, random.Random], None]] = {
    "truncate": truncate,
    "flip": flip,
    "delete": delete,
    "swap": swap,
    "empty": lambda path, _: path.write_bytes(b""),
}
_VICTIMS = (
    *("config.json", "points.csv", "metrics.csv", "members.csv", "provenance.json", "status.json", "points.partial.csv"),
    *("plan.json", "programs/*.json", "parts/*.npz", "params/*.msgpack"),
    *("checkpoints/*/*.json", "checkpoints/**/leaves.npz", "checkpoints/**/_CHECKPOINT_METADATA"),
)


def damage(
    folder: pathlib.Path, reference: pathlib.Path, stopped: pathlib.Path, dice: random.Random, each: int
) -> Iterator[dict[str, Any]]:
    """Harms, `each` of them, to every kind of file, of a finished run and of one stopped on its way."""
    trial, never = 0, set(_VICTIMS)
    for source, name in ((reference, "finished"), (stopped, "stopped")):
        for pattern in _VICTIMS:
            for harm, apply in dice.sample(sorted(_HARMS.items(), key=lambda item: item[0]), each):
                workdir = folder / str(trial)
                shutil.copytree(source, workdir)
                before = contents(workdir)
                paths = sorted(path for path in workdir.glob(pattern) if path.is_file() and path.stat().st_size)
                if paths:
                    path, began = dice.choice(paths), time.perf_counter()
                    apply(path, dice)
                    changed = {key for key in before if contents(workdir).get(key) != before[key]}
                    if changed:
                        never.discard(pattern)
                        result = finish(workdir)
                        # What the folder is bound to may be past telling.
                        outcome = outcome_of(workdir, reference, result, may_refuse="config.json" in changed)
                        what = f"{name} run: {harm} {path.relative_to(workdir)}"
                        yield _row("damage", trial, what, outcome, result.returncode, began, result.stderr)
                        trial += 1
                shutil.rmtree(workdir)
    for pattern in sorted(never):
        yield _row("damage", trial, f"no file {pattern} to harm", "WRONG: nothing tried", 0, time.perf_counter(), "")


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def starved(folder: pathlib.Path, reference: pathlib.Path) -> Iterator[dict[str, Any]]:
    """Disks of every size up to one that suffices, then grown; and one that may not be written to."""
    needed = sum(path.stat().st_size for path in reference.rglob("*") if path.is_file())
    for trial, share in enumerate((0.05, 0.2, 0.4, 0.6, 0.8, 0.95)):
        mount, began = folder / str(trial), time.perf_counter()
        mount.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={int(needed * share)}", "tmpfs", str(mount)], check=True)
        try:
            result = finish(mount / "run")
            outcome = outcome_of(mount / "run", reference, result, may_refuse=True)
            yield _row("disk", trial, f"{share:.0%} of what is needed", outcome, result.returncode, began, result.stderr)
            subprocess.run(["mount", "-o", f"remount,size={20 * needed}", str(mount)], check=True)
            began, result = time.perf_counter(), finish(mount / "run")
            outcome = outcome_of(mount / "run", reference, result)
            yield _row("disk", trial, "the same, once there is room", outcome, result.returncode, began, result.stderr)
            subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
            for name in ("run", "new"):
                began, result = time.perf_counter(), finish(mount / name)
                outcome = outcome_of(mount / name, reference, result, may_refuse=True)
                yield _row("disk", trial, f"read-only, {name}", outcome, result.returncode, began, result.stderr)
        finally:
            subprocess.run(["umount", str(mount)], check=True)


def _row(kind: str, trial: int, what: str, outcome: str, code: int, began: float, said: str) -> dict[str, Any]:
    heard = " / ".join(line for line in said.strip().splitlines())[:300].replace(str(pathlib.Path.cwd()), ".")
    row = (kind, trial, what, outcome, code, round(time.perf_counter() - began, 1), heard)
    return dict(zip(_COLUMNS, row, strict=True))


@terminal.guarded
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="a folder for the trials and the table")
    parser.add_argument("--kills", type=int, default=50, help="how many, with each signal")
    parser.add_argument("--harms", type=int, default=len(_HARMS), choices=range(1, 6), help="how many for each kind of file")
    parser.add_argument("--kinds", nargs="+", default=list(_KINDS), choices=_KINDS, help="what to do; by default everything")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the places")
    args = parser.parse_args()
    whole("--kills", args.kills)
    with terminal.writing(args.workdir):
        args.workdir.mkdir(parents=True, exist_ok=True)
    folder, console, dice = args.workdir.absolute(), Console(highlight=False), random.Random(args.seed)
    shutil.rmtree(folder / "trials", ignore_errors=True)
    reference, stopped = folder / "trials" / "reference", folder / "trials" / "stopped"
    finish(folder / "trials" / "warm")  # so that programs are in the cache
    began = time.perf_counter()
    result = finish(reference)
    seconds = time.perf_counter() - began
    if result.returncode != 0:
        sys.exit(f"error: the reference itself failed: {result.stderr.strip()}")
    console.print(f"a sweep takes {seconds:.1f} s")
    inputs = (reference, args.kills, seconds)
    trials = {
        "kills": lambda: interrupted(folder / "trials" / "kills", *inputs, signal.SIGKILL, dice, "kills"),
        "terminations": lambda: interrupted(folder / "trials" / "terms", *inputs, signal.SIGTERM, dice, "terminations"),
        "jobs": lambda: interrupted(folder / "trials" / "jobs", *inputs, signal.SIGKILL, dice, "jobs", 2),
        "damage": lambda: damage(folder / "trials" / "damage", reference, half_done(stopped), dice, min(args.harms, len(_HARMS))),
        "disk": lambda: starved(folder / "trials" / "disk", reference),
    }
    rows: list[dict[str, Any]] = []
    for kind in args.kinds:
        for row in trials[kind]():
            rows.append(row)
            disk.write_table(folder / "torture.csv", _COLUMNS, rows)
            console.print(f"{row['kind']} {row['trial']}: {row['what']}: {row['outcome']}", soft_wrap=True)
    about = {"name": "mnist_static", "origin": "embedded", "sha256": None}
    disk.write_json(folder / "provenance.json", records.provenance(about, sys.argv, {"sweep": seconds}))
    shutil.rmtree(folder / "trials", ignore_errors=True)
    count = collections.Counter((row["kind"], row["outcome"].partition(":")[0]) for row in rows)
    for (kind, outcome), number in sorted(count.items()):
        console.print(f"{kind}: {outcome} {number}")
    sys.exit(1 if any(row["outcome"].startswith("WRONG") for row in rows) else 0)


if __name__ == "__main__":
    main()
