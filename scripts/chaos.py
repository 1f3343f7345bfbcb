"""Kills, stops and damages a small sweep, and compares its tables with those of an undisturbed one.

    python scripts/chaos.py --workdir=runs/chaos
    python scripts/chaos.py --workdir=runs/chaos --kills=2 --terminations=1 --damages=3

kills and terminations: SIGKILL and SIGTERM at random moments. damages: a file of a finished or a
stopped run is truncated, flipped in one bit, emptied or deleted. shards: four processes share the
sweep, two of them are killed. mesh: two processes are one mesh, one of them is killed. Right is:
the tables of the reference byte for byte (where a chunk that was killed twice was halved: but for
rounding), or after damage one sentence and an exit code that is not 0. Exit code 1 if not.
"""

import argparse
import contextlib
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import time

import console as terminal
import numpy as np

from rd_elbo import disk, tables
from rd_elbo.errors import BadInput

ROOT = pathlib.Path(__file__).parents[1]
SWEEP = [
    *("--config=configs/quickstart.py:quick", "--config.train.epochs=8"),
    *("--config.population.checkpoint_seconds=0", "--config.population.chunk_size=2"),
]
FILES = ("points.csv", "metrics.csv", "members.csv")


def start(workdir, devices, *more):
    """A process of the sweep."""
    command = [sys.executable, ROOT / "scripts" / "sweep.py", *SWEEP, f"--workdir={workdir}"]
    command += [f"--config.population.devices={devices}", *more]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(list(map(str, command)), cwd=ROOT, **pipes)


def ended(processes):
    """The worst exit code, and what all have said."""
    said = "".join(process.communicate(timeout=400)[1] for process in processes)
    return max(abs(process.returncode) for process in processes), said


def verdict(workdir, reference, code, said, may_refuse=False):
    """How a sweep ended, in words; "WRONG" begins those that should not be."""
    if "Traceback" in said:
        return f"WRONG: a trace: {said.splitlines()[-1]}"
    if code:
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        return "refused" if may_refuse and len(errors) == 1 else f"WRONG: exit code {code}: {said}"
    if all((workdir / n).read_bytes() == (reference / n).read_bytes() for n in FILES[:2]):
        return "same"
    try:
        ours, theirs = (tables.read_points(folder) for folder in (workdir, reference))
    except BadInput as error:
        return f"WRONG: {error}"
    close = [r["member"] for r in ours] == [r["member"] for r in theirs] and np.allclose(
        *([row["elbo"] for row in rows] for rows in (ours, theirs)), rtol=1e-3
    )
    halved = len(list((workdir / "chunks").iterdir())) > len(list((reference / "chunks").iterdir()))
    return "same but for rounding" if close and halved else "WRONG: other tables"


def interrupt(workdir, reference, how, seconds, dice):
    """Disturbs a sweep once, then lets it come to its end in the same folder."""
    process = start(workdir, 1)
    time.sleep(dice.uniform(0.0, seconds))
    process.send_signal(how)
    code, said = ended([process])
    if how == signal.SIGTERM and code not in (0, signal.SIGTERM, 128 + signal.SIGTERM):
        return f"WRONG: exit code {code} after a termination: {said}"
    if "Traceback" in said:
        return f"WRONG: {said}"
    done = (workdir / "points.csv").exists()
    return verdict(workdir, reference, 0, "") if done else "interrupted"


def damage(workdir, dice):
    """Harms one file; returns what was done."""
    kinds = ("checkpoints/*/*", "checkpoints/*/*/**/*", "chunks/*", "params/*", "config.json")
    found = [sorted(p for p in workdir.glob(kind) if p.is_file()) for kind in kinds]
    path = dice.choice(dice.choice([paths for paths in found if paths]))
    content, how = path.read_bytes(), dice.choice(("truncated", "flipped", "emptied", "deleted"))
    at = dice.randrange(max(1, len(content)))
    if how == "deleted":
        path.unlink()
    elif how == "flipped" and content:
        path.write_bytes(
            content[:at] + bytes([content[at] ^ 1 << dice.randrange(8)]) + content[at + 1 :]
        )
    else:
        path.write_bytes(content[:at] if how == "truncated" else b"")
    return f"{path.relative_to(workdir)} {how}"


def together(workdir, count, mesh, killed, seconds, dice):
    """Starts several processes and kills some; returns the worst exit code and what they said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = f"--coordinator=127.0.0.1:{free.getsockname()[1]}"
    flags = [
        [where, f"--processes={count}", f"--process={i}"] if mesh else [f"--shard={i}/{count}"]
        for i in range(count)
    ]
    processes = [start(workdir, 1, *own) for own in flags]
    if killed:
        time.sleep(dice.uniform(seconds / 2, seconds))
    for process in dice.sample(processes, killed):
        process.kill()
    return ended(processes)


@terminal.guarded
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="a folder for the runs")
    counts = {"kills": 25, "terminations": 10, "damages": 20, "shards": 1, "mesh": 1}
    for name, count in counts.items():
        parser.add_argument(f"--{name}", type=int, default=count)
    args, dice, wrong = parser.parse_args(), random.Random(0), 0
    base = args.workdir
    shutil.rmtree(base, ignore_errors=True)
    began = time.monotonic()
    for devices in (1, 2) if args.mesh else (1,):
        code, said = ended([start(base / f"reference{devices}", devices)])
        if code:
            raise BadInput(f"the reference did not end well: {said}")
    reference, seconds = base / "reference1", (time.monotonic() - began) / (2 if args.mesh else 1)

    def tell(what, outcome):
        nonlocal wrong
        wrong += outcome.startswith("WRONG")
        print(f"{what}: {outcome}", flush=True)

    for name, how, count in (
        ("kill", signal.SIGKILL, args.kills),
        ("termination", signal.SIGTERM, args.terminations),
    ):
        for i in range(count):
            tell(f"{name} {i}", interrupt(base / name, reference, how, seconds, dice))
            if (base / name / "points.csv").exists():
                shutil.rmtree(base / name)
        tell(
            f"after the last {name}",
            verdict(base / name, reference, *ended([start(base / name, 1)])),
        )
    for i in range(args.damages):
        copy = base / f"damage{i}"
        if i % 2:
            process = start(copy, 1)
            until = time.monotonic() + 100
            while time.monotonic() < until and not list(copy.glob("checkpoints/*/*.json")):
                time.sleep(0.05)
            process.terminate()
            ended([process])
        else:
            shutil.copytree(reference, copy)
        what = damage(copy, dice)
        tell(f"damage {i}, {what}", verdict(copy, reference, *ended([start(copy, 1)]), True))
        shutil.rmtree(copy)
    for name, count, killed in (("shards", 4, 2), ("mesh", 2, 1)):
        for i in range(getattr(args, name)):
            copy, mesh = base / f"{name}{i}", name == "mesh"
            with contextlib.suppress(subprocess.TimeoutExpired):
                together(copy, count, mesh, killed, seconds, dice)
            code, said = together(copy, count, mesh, 0, seconds, dice)
            tell(
                f"{name} {i}", verdict(copy, base / "reference2" if mesh else reference, code, said)
            )
    disk.write_json(base / "chaos.json", {"wrong": wrong, "seconds": time.monotonic() - began})
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
