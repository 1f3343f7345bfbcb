"""Sweeps of several processes, killed, damaged and misled, from the command line."""

import os
import pathlib
import socket
import subprocess
import sys

import pytest

from tests.optimised import OPTIMISED

ROOT = pathlib.Path(__file__).resolve().parents[2]
QUICK = "--config=configs/quickstart.py:quick"


@pytest.mark.slow
def test_kills_change_no_table(tmp_path):
    """A kill and a global mesh of two processes; the script's own numbers are larger."""
    few = ["--kills=1", "--terminations=0", "--damages=0", "--shards=0", "--mesh=1"]
    # This seed kills the coordinator: the other process ends at once, and not after JAX's timeout.
    few.append("--seed=1")
    command = [
        sys.executable,
        str(ROOT / "scripts" / "chaos.py"),
        f"--workdir={tmp_path / 'runs'}",
        *few,
    ]
    # The first of seven sweeps compiles for the others.
    env = os.environ | OPTIMISED | {"RD_ELBO_CACHE": str(tmp_path / "cache")}
    result = subprocess.run(command, capture_output=True, text=True, env=env)
    assert result.returncode == 0 and "WRONG" not in result.stdout, result.stdout + result.stderr
    assert result.stdout.count(": same") >= 3, result.stdout


@pytest.mark.slow
def test_bad_input_of_one_process_ends_all_of_a_mesh(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = f"--coordinator=127.0.0.1:{free.getsockname()[1]}"
    processes = []
    for i, epochs in enumerate((1, 0)):
        command = [
            sys.executable,
            str(ROOT / "scripts" / "sweep.py"),
            QUICK,
            where,
            "--processes=2",
        ]
        command += [f"--process={i}", f"--config.train.epochs={epochs}"]
        command += [f"--workdir={tmp_path / 'run'}"]
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(command, cwd=ROOT, **pipes))
    said = [process.communicate(timeout=100)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2], said
    assert "expected all to begin" in said[0] and "epochs=0" in said[1]
