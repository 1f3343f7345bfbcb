"""Kills, damages, starves and locks out a small sweep, and holds what it ends with against one that nothing happened to.

    python scripts/torture.py --workdir=runs/torture
    python scripts/torture.py --workdir=runs/torture --kills=5 --kinds kills damage

kills: the sweep is killed (SIGKILL) at random moments and started again with the same command, over and over. damage: every kind of
file of a run directory, of a finished run and of one stopped on its way, is truncated, flipped in one bit, deleted, swapped with
another, or emptied. terminations: SIGTERM in place of SIGKILL. disk: a full disk and a read-only one (small mounts of memory, which
only root may make). Right is: the tables and parameters of the reference, byte for byte, or one sentence and an exit code that is
not zero. Writes torture.csv, a row per trial, and ends with exit code 1 if anything was wrong.
"""

import argparse
import collections
import contextlib
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import console as terminal
from rich.console import Console

from rd_elbo import disk, records

_ROOT = pathlib.Path(__file__).parents[1]
_COLUMNS = ("kind", "trial", "what", "outcome", "exit_code", "seconds", "said")
_KINDS = ("kills", "terminations", "damage", "disk")
# Long enough to be hit while it trains; saved as often as it may.
_SWEEP = (
    "--config=configs/quickstart.py:quick",
    "--config.train.epochs=40",
    "--config.population.checkpoint_seconds=0",
    "--config.population.chunk=2",
)
_TABLES = ("points.csv", "metrics.csv", "members.csv")


def command(workdir: pathlib.Path) -> list[str]:
    """The sweep, without its figures' worth of time."""
    return [sys.executable, str(_ROOT / "scripts" / "sweep.py"), *_SWEEP, f"--workdir={workdir}"]


def finish(workdir: pathlib.Path) -> subprocess.CompletedProcess[str]:
    """Runs the sweep to its end."""
    return subprocess.run(command(workdir), cwd=_ROOT, capture_output=True, text=True)


def outcome_of(workdir: pathlib.Path, reference: pathlib.Path, result: subprocess.CompletedProcess[str]) -> str:
    """What a sweep ended with: the same as the reference, a refusal, or something wrong."""
    if result.returncode != 0:
        sentence = [line for line in result.stderr.splitlines() if not line.startswith("warning: ")]
        honest = len(sentence) == 1 and sentence[0].startswith("error: ")
        return "refused" if honest else f"WRONG: exit code {result.returncode} and {len(sentence)} lines"
    compared = [*_TABLES, *sorted(str(path.relative_to(reference)) for path in reference.glob("params/*"))]
    for name in compared:
        if not (workdir / name).exists() or (workdir / name).read_bytes() != (reference / name).read_bytes():
            return f"WRONG: {name} differs"
    return "same"


def interrupted(
    folder: pathlib.Path, reference: pathlib.Path, wanted: int, seconds: float, how: signal.Signals, dice: random.Random
) -> Iterator[dict[str, Any]]:
    """Kills sweeps until there were `wanted` kills that came in time; a row per kill, and one per sweep that was let finish."""
    kills = trial = 0
    while kills < wanted:
        workdir, before = folder / str(trial), kills
        while kills - before < 12 and kills < wanted:
            began = time.perf_counter()
            with subprocess.Popen(
                command(workdir), cwd=_ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            ) as process:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(dice.uniform(0.0, seconds))
                alive = process.poll() is None
                process.send_signal(how)
                said = (process.communicate()[1] or "").strip()
            if not alive or process.returncode == 0:
                break
            kills += 1
            torn = [
                path
                for path in workdir.glob("checkpoints/*/*")
                if path.is_dir() and not path.with_name(f"{path.name}.json").exists()
            ]
            where = (
                "nothing written"
                if not workdir.exists()
                else "points.csv written"
                if (workdir / "points.csv").exists()
                else "on its way"
            )
            what = "a checkpoint half written" if torn else where
            ended = process.returncode in (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM)
            yield _row(how.name, kills, what, "killed" if ended else "WRONG", process.returncode, began, said)
        began = time.perf_counter()
        result = finish(workdir)
        outcome = outcome_of(workdir, reference, result)
        yield _row(how.name, kills, f"finished after {kills - before} kills", outcome, result.returncode, began, result.stderr)
        trial += 1
        shutil.rmtree(workdir) if outcome == "same" else None


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
    "config.json",
    "points.csv",
    "metrics.csv",
    "members.csv",
    "provenance.json",
    "parts/*.npz",
    "params/*.msgpack",
    "plan.json",
)
_VICTIMS += ("checkpoints/*/*.json", "checkpoints/**/d/*", "checkpoints/**/_METADATA", "points.partial.csv", "status.json")


def damage(folder: pathlib.Path, reference: pathlib.Path, stopped: pathlib.Path, dice: random.Random) -> Iterator[dict[str, Any]]:
    """Every harm to every kind of file, of a finished run and of one stopped on its way."""
    trial = 0
    for source, name in ((reference, "finished"), (stopped, "stopped")):
        for pattern in _VICTIMS:
            for harm, apply in _HARMS.items():
                workdir = folder / str(trial)
                shutil.copytree(source, workdir)
                paths = sorted(path for path in workdir.glob(pattern) if path.is_file() and path.stat().st_size)
                if paths:
                    path, began = dice.choice(paths), time.perf_counter()
                    apply(path, dice)
                    result = finish(workdir)
                    what = f"{name} run: {harm} {path.relative_to(workdir)}"
                    yield _row(
                        "damage", trial, what, outcome_of(workdir, reference, result), result.returncode, began, result.stderr
                    )
                    trial += 1
                shutil.rmtree(workdir)


def starved(folder: pathlib.Path, reference: pathlib.Path) -> Iterator[dict[str, Any]]:
    """Disks of every size up to one that suffices, then grown; and one that may not be written to."""
    needed = sum(path.stat().st_size for path in reference.rglob("*") if path.is_file())
    for trial, share in enumerate((0.05, 0.2, 0.4, 0.6, 0.8, 0.95)):
        mount, began = folder / str(trial), time.perf_counter()
        mount.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={int(needed * share)}", "tmpfs", str(mount)], check=True)
        try:
            result = finish(mount / "run")
            outcome = outcome_of(mount / "run", reference, result)
            yield _row("disk", trial, f"{share:.0%} of what is needed", outcome, result.returncode, began, result.stderr)
            subprocess.run(["mount", "-o", f"remount,size={20 * needed}", str(mount)], check=True)
            began, result = time.perf_counter(), finish(mount / "run")
            outcome = outcome_of(mount / "run", reference, result)
            yield _row("disk", trial, "the same, once there is room", outcome, result.returncode, began, result.stderr)
            subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
            for name in ("run", "new"):
                began, result = time.perf_counter(), finish(mount / name)
                outcome = outcome_of(mount / name, reference, result)
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
    parser.add_argument("--kinds", nargs="*", default=list(_KINDS), choices=_KINDS, help="what to do; by default everything")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the places")
    args = parser.parse_args()
    folder, console, dice = args.workdir.absolute(), Console(highlight=False), random.Random(args.seed)
    shutil.rmtree(folder / "trials", ignore_errors=True)
    reference, stopped = folder / "trials" / "reference", folder / "trials" / "stopped"
    finish(folder / "trials" / "warm")  # so that programs are in the cache
    began = time.perf_counter()
    result = finish(reference)
    seconds = time.perf_counter() - began
    if result.returncode != 0:
        sys.exit(f"error: the reference itself failed: {result.stderr.strip()}")
    while not list(stopped.glob("checkpoints/*/*.json")) or not list(stopped.glob("parts/*")):
        shutil.rmtree(stopped, ignore_errors=True)
        with subprocess.Popen(command(stopped), cwd=_ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds * dice.uniform(0.5, 1.0))
            process.kill()
    console.print(f"a sweep takes {seconds:.1f} s")
    trials = {
        "kills": lambda: interrupted(folder / "trials" / "kills", reference, args.kills, seconds, signal.SIGKILL, dice),
        "terminations": lambda: interrupted(folder / "trials" / "terms", reference, args.kills, seconds, signal.SIGTERM, dice),
        "damage": lambda: damage(folder / "trials" / "damage", reference, stopped, dice),
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
