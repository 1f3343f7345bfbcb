"""How far a sweep is can be read at any time."""

import dataclasses
import json
import math
import subprocess
import sys
import time

import pytest
from test_sweep import ROOT

from rd_elbo import watch
from rd_elbo.errors import BadInput

STATUS = watch.Status(
    part=0,
    parts=2,
    members_done=3,
    members=9,
    diverged=1,
    done=0.25,
    doing="training",
    at_work=4,
    step=10,
    steps=40,
    rate=1.0,
    distortion=2.0,
)


def test_status_is_written_now_and_then_and_read_back(tmp_path, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(time, "time", lambda: now)
    recorder = watch.Recorder(tmp_path)
    recorder(STATUS)
    now += 1.0
    recorder(dataclasses.replace(STATUS, step=20))  # too soon to be written
    assert watch.read(tmp_path)["step"] == 10
    now += 3.0
    recorder(dataclasses.replace(STATUS, step=30, done=0.5))
    content = watch.read(tmp_path)
    assert content["step"] == 30 and content["member_steps_per_second"] == pytest.approx(4 * 20 / 4.0)
    assert content["seconds"] == 4.0 and content["seconds_left"] == pytest.approx(4.0) and content["silent"] == 0.0
    assert watch.describe(content) == (
        "running: 3/9 members done, 1 diverged, 4 training (step 30/40), 20 member-steps/s, 50% of the work, 4 s left"
    )
    now += 400
    assert "not heard of for 400 s" in watch.describe(watch.read(tmp_path))
    recorder(dataclasses.replace(STATUS, doing="evaluating", step=0, steps=0, rate=math.nan, distortion=math.nan))
    assert "rate" not in json.loads((tmp_path / "status.json").read_text())
    # Steps that are counted down, or waited for while evaluating, are none.
    assert watch.read(tmp_path)["member_steps_per_second"] == pytest.approx(20.0)
    recorder.write("finished", members=9, members_done=9, diverged=1)
    assert watch.describe(watch.read(tmp_path)) == "finished: 9/9 members done, 1 diverged"


def test_nothing_that_is_told_or_fails_to_be_written_ends_a_training(tmp_path, monkeypatch):
    recorder = watch.Recorder(tmp_path)
    recorder(dataclasses.replace(STATUS, rate=math.inf, distortion=math.nan))
    assert "rate" not in watch.read(tmp_path) and watch.read(tmp_path)["step"] == 10

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rd_elbo.disk.write_json", full)
    recorder.write("running")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"time": "now", "state": "running"}'])
def test_damage_is_one_sentence(tmp_path, text):
    (tmp_path / "status.json").write_text(text)
    with pytest.raises(BadInput, match="damaged"):
        watch.read(tmp_path)


def test_script(tmp_path):
    def script(*arguments):
        command = [sys.executable, str(ROOT / "scripts" / "status.py"), f"--workdir={tmp_path}", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)

    missing = script()
    assert missing.returncode == 2 and missing.stderr.count("\n") == 1 and "cannot be read" in missing.stderr
    watch.Recorder(tmp_path)(STATUS)
    assert script().stdout.startswith("running: 3/9 members done")
    assert json.loads(script("--json").stdout)["members"] == 9
