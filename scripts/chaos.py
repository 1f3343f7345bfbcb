"""Kills, stops and damages a small sweep, and compares its tables with those of an undisturbed one.

    python scripts/chaos.py --workdir=runs/chaos

kills and terminations: SIGKILL and SIGTERM at random moments. damages: a file of a finished or a
stopped run is truncated, flipped in one bit, emptied or deleted. shards: four processes share the
sweep, two are killed. mesh: two processes are one mesh, one is killed; a copy is resumed by one
process with two devices, the run by two. Right: the same tables, or after damage one sentence.
"""

import argparse
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np

from rd_elbo.sweep import tables

ROOT = pathlib.Path(__file__).parents[1]
SWEEP = "--config=configs/quickstart.py:quick --config.train.epochs=8"
SWEEP += " --config.population.checkpoint_seconds=0 --config.population.chunk_size=2"


def start(workdir, devices, *more):
    command = [sys.executable, f"{ROOT}/scripts/sweep.py", *SWEEP.split(), f"--workdir={workdir}"]
    command += [f"--config.population.devices={devices}", *more]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, **pipes)


def ended(*processes):
    killer = threading.Timer(400, lambda: [process.kill() for process in processes])
    killer.start()
    said = "".join(process.communicate()[1] for process in processes)
    killer.cancel()
    return max(abs(process.returncode) for process in processes), said


def verdict(workdir, reference, code, said, may_refuse=False):
    """How a sweep ended, in words; "WRONG" begins those that should not be."""
    if code or "Traceback" in said:
        refused = may_refuse and sum(line.startswith("error: ") for line in said.splitlines()) == 1
        return "refused" if refused and "Traceback" not in said else f"WRONG: exit {code}: {said}"
    pairs = [(workdir / n, reference / n) for n in ("points.csv", "metrics.csv")]
    if all(ours.read_bytes() == theirs.read_bytes() for ours, theirs in pairs):
        return "same"
    ours, theirs = (tables.read_points(folder) for folder in (workdir, reference))
    elbos = [[row["elbo"] for row in rows] for rows in (ours, theirs)]
    close = [r["member"] for r in ours] == [r["member"] for r in theirs] and np.allclose(*elbos)
    halved = len(list(workdir.glob("chunks/*"))) > len(list(reference.glob("chunks/*")))
    return "same but for rounding" if close and halved else "WRONG: other tables"


def interrupt(workdir, reference, how, seconds, dice):
    """Disturbs a sweep once; what it has finished before is compared."""
    process = start(workdir, 1)
    time.sleep(dice.uniform(0.0, seconds))
    process.send_signal(how)
    code, said = ended(process)
    if code not in (0, how, 128 + how) or "Traceback" in said:
        return f"WRONG: exit {code}: {said}"
    return verdict(workdir, reference, 0, "") if (workdir / "points.csv").exists() else "stopped"


def damage(workdir, dice):
    """Harm one file; say which and how."""
    kinds = ("checkpoints/*/*", "checkpoints/*/*/**/*", "chunks/*", "params/*", "config.json")
    found = [sorted(p for p in workdir.glob(kind) if p.is_file()) for kind in kinds]
    path = dice.choice(dice.choice([paths for paths in found if paths]))
    content, how = path.read_bytes(), dice.choice(("truncated", "flipped", "emptied", "deleted"))
    at = dice.randrange(max(1, len(content)))
    flipped = bytes(byte ^ 1 << dice.randrange(8) for byte in content[at : at + 1])
    changed = {"truncated": content[:at], "flipped": content[:at] + flipped + content[at + 1 :]}
    path.unlink() if how == "deleted" else path.write_bytes(changed.get(how, b""))
    return f"{path.relative_to(workdir)} {how}"


def together(workdir, count, mesh, killed, seconds, dice):
    """Starts several processes and kills some; the worst exit code and what they said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = (f"--coordinator=127.0.0.1:{free.getsockname()[1]}", f"--processes={count}")
    own = [(*where, f"--process={i}") if mesh else (f"--shard={i}/{count}",) for i in range(count)]
    processes = [start(workdir, 1, *flags) for flags in own]
    time.sleep(dice.uniform(seconds / 2, seconds) if killed else 0)
    for process in dice.sample(processes, killed):
        process.kill()
    return ended(*processes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="a folder for the runs")
    numbers = {"kills": 25, "terminations": 10, "damages": 20, "shards": 1, "mesh": 1, "seed": 0}
    for name, number in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=number)
    args, wrong, began = parser.parse_args(), 0, time.monotonic()
    base, dice = args.workdir, random.Random(args.seed)
    reference = [base / f"reference{devices}" for devices in (1, 2)]
    for devices, folder in enumerate(reference, start=1):
        if (result := ended(start(folder, devices)))[0]:
            sys.exit(f"error: the reference did not end well: {result[1]}")
    seconds = (time.monotonic() - began) / 2

    def report(what, outcome):
        nonlocal wrong
        wrong += outcome.startswith("WRONG")
        print(f"{what}: {outcome}", flush=True)

    for name, how in (("kills", signal.SIGKILL), ("terminations", signal.SIGTERM)):
        for i in range(count := getattr(args, name)):
            report(f"{name} {i}", interrupt(base / name, reference[0], how, seconds, dice))
            if (base / name / "points.csv").exists():
                shutil.rmtree(base / name)
        if count:
            outcome = verdict(base / name, reference[0], *ended(start(base / name, 1)))
            report(f"after {count} {name}", outcome)
    for i in range(args.damages):
        copy = base / f"damage{i}"
        if i % 2:
            process = start(copy, 1)
            while process.poll() is None and not list(copy.glob("checkpoints/*/*.json")):
                time.sleep(0.05)
            process.terminate()
            ended(process)
        else:
            shutil.copytree(reference[0], copy)
        what, result = damage(copy, dice), ended(start(copy, 1))
        report(f"damage {i}, {what}", verdict(copy, reference[0], *result, may_refuse=True))
    for name, count, killed in (("shards", 4, 2), ("mesh", 2, 1)):
        for i in range(getattr(args, name)):
            copy, mesh = base / f"{name}{i}", name == "mesh"
            together(copy, count, mesh, killed, seconds, dice)
            if mesh:
                alone = shutil.copytree(copy, base / f"{name}{i}_alone")
                report(f"{name} {i}, alone", verdict(alone, reference[1], *ended(start(alone, 2))))
            result = together(copy, count, mesh, 0, seconds, dice)
            report(f"{name} {i}", verdict(copy, reference[mesh], *result))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
