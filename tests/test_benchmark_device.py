"""The benchmark of a device, on tiny models: every row is there and its numbers belong together."""

import csv
import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.optimised import OPTIMISED

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).parents[1]


def run(*args):
    command = [sys.executable, str(ROOT / "scripts" / "benchmark_device.py"), *args]
    env = os.environ | OPTIMISED | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env)


def test_rows_hold_what_was_measured(tmp_path):
    table = tmp_path / "device.csv"
    done = run("--tiny", "--minutes=30", f"--output={table}")
    assert done.returncode == 0, done.stderr
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["model"], row["lowering"]) for row in rows] == [
        ("dense", "auto"),
        ("dense", "one by one"),
    ]
    ceilings = json.loads(table.with_suffix(".json").read_text())["ceilings"]
    for row in rows:
        assert row["error"] == ""
        seconds = float(row["seconds_per_member_step"])
        assert float(row["member_steps_per_second"]) == pytest.approx(1 / seconds)
        share = float(row["flops_per_second"]) / ceilings[row["arithmetic"]]
        assert 0 < float(row["fraction_of_peak"]) == pytest.approx(share)
    # The same arithmetic, however members advance: operations per step are one number.
    operations = {
        float(row["flops_per_second"]) * float(row["seconds_per_member_step"])
        for row in rows
        if row["model"] == "dense"
    }
    assert max(operations) == pytest.approx(min(operations))


def test_no_time_is_refused(tmp_path):
    done = run("--minutes=0", f"--output={tmp_path / 'device.csv'}")
    assert done.returncode == 2 and "--minutes=0" in done.stderr and not list(tmp_path.iterdir())
