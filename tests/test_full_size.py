"""What can be tested of steps at full size without making them."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--families=---,-x-",), "--families='-x-' does not exist; there are ---, --+, --v"),
        (("--steps=7",), "--steps=7 must be at least 8: the first 4 are not timed"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, arguments, sentence):
    command = [sys.executable, "scripts/full_size.py", f"--workdir={tmp_path / 'run'}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), "PATH": ""})
    assert done.returncode == 2 and done.stderr.startswith(f"error: {sentence}") and done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
