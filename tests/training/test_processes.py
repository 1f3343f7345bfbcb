"""Two processes on one mesh are as good as one process with two devices."""

import pathlib
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = """
import sys
import jax

process, processes, port, folder, stop_after = sys.argv[1:]
process, processes, stop_after = int(process), int(processes), int(stop_after)
jax.config.update("jax_num_cpu_devices", 2 // processes)
if processes > 1:
    jax.distributed.initialize(f"127.0.0.1:{port}", processes, process)
import itertools
import pathlib
import numpy as np
from rd_elbo.training import evaluate, fit, loop, sharding
from rd_elbo.training.checkpoint import Checkpoints
from tests.training.populations import Member, images_of, several, train

loop.Pace.measure = lambda pace, *_: pace.adopt(3, True)
folder, images = pathlib.Path(folder), images_of()
members = several(Member(), beta=(0.3, 1.0, 2.0), seed=(0, 5, 0))
calls = itertools.count(1)
# Only the last process is asked to stop, and all do.
stop = lambda: bool(stop_after) and process == processes - 1 and next(calls) >= stop_after
checkpoints = Checkpoints(folder / "checkpoints", report=lambda line: print("REPORT", line))
try:
    fitted = train(
        members, images, 40, spec={"dtype": "float32"}, checkpoints=checkpoints, stop=stop
    )
except fit.Stopped as stopped:
    print("STOPPED", stopped.saved)
    sys.exit(7)
result = evaluate.evaluate(fitted, [0, 5, 0], images)
own = [i for i, _ in fitted.local()]
said = sharding.agree("own", ",".join(map(str, own)).encode())
params = fitted.params
if process == 0:
    leaves = {f"p{i}": leaf for i, leaf in enumerate(jax.tree.leaves(params))}
    owned = ";".join(word.decode() for word in said)
    np.savez(folder / "result.npz", *result, loss=fitted.metrics.loss, owned=owned, **leaves)
"""


def start(folder, processes, stop_after=0):
    """Runs the script in so many processes; returns their exit codes and what they printed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-c", SCRIPT]
    started = [
        subprocess.Popen(
            [*command, *map(str, (i, processes, port, folder, stop_after))],
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for i in range(processes)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in started]
    return [process.returncode for process in started], "\n".join(outputs)


def numbers(folder):
    with np.load(folder / "result.npz") as arrays:
        return {name: array for name, array in arrays.items() if name != "owned"}


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The numbers of one process with two devices."""
    folder = tmp_path_factory.mktemp("one")
    codes, output = start(folder, 1)
    assert codes == [0], output
    return numbers(folder)


@pytest.mark.slow
def test_two_processes_equal_one_with_two_devices_byte_for_byte(one, tmp_path):
    codes, output = start(tmp_path / "two", 2)
    assert codes == [0, 0], output
    two = numbers(tmp_path / "two")
    assert one.keys() == two.keys() and len(one) > 10
    for name, array in one.items():
        np.testing.assert_array_equal(array, two[name])
    with np.load(tmp_path / "two" / "result.npz") as arrays:
        assert str(arrays["owned"]) == "0,1;2"


@pytest.mark.slow
def test_a_stopped_pair_resumes_as_a_pair_and_as_one(one, tmp_path):
    codes, output = start(tmp_path / "pair", 2, stop_after=4)
    assert codes == [7, 7] and output.count("STOPPED True") == 2, output
    shutil.copytree(tmp_path / "pair", tmp_path / "one")
    for name, processes in (("pair", 2), ("one", 1)):
        codes, output = start(tmp_path / name, processes)
        assert codes == [0] * processes and "REPORT" not in output, output
        # The same number of devices, so the same bits.
        for key, array in numbers(tmp_path / name).items():
            np.testing.assert_array_equal(array, one[key])


WAIT = """
import sys
import jax

process, port = int(sys.argv[1]), sys.argv[2]
jax.distributed.initialize(f"127.0.0.1:{port}", 2, process)
from rd_elbo.errors import Failed
from rd_elbo.training import sharding

said = sharding.agree("words", str(process).encode())
assert said == [b"0", b"1"], said
sharding._ANNOUNCED = 0.5
if process == 0:
    heard = []
    try:
        sharding.agree("alone", timeout=2.0, report=heard.append)
    except Failed as error:
        print("FAILED", error, heard, flush=True)
sharding.agree("end")
"""


@pytest.mark.slow
def test_who_is_missing_is_named(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WAIT, str(i), str(port)],
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for i in range(2)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], outputs
    assert "FAILED processes 1 of 2 did not come within 2 s (alone)" in outputs[0]
    assert "waiting for processes 1 of 2 (alone)" in outputs[0]
