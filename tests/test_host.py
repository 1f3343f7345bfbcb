"""Settings of the process, each tried in a process of its own."""

import os
import pathlib
import socket
import subprocess
import sys

import pytest

from rd_elbo import host
from rd_elbo.data import cache
from rd_elbo.errors import BadInput

PAGE_FAULTS = """
import resource, sys
import numpy as np
from rd_elbo import host
if sys.argv[1] == "keep" and not host.retain_freed_memory():
    print("unsupported")
    sys.exit()
np.ones(2**23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(2**23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(code, *arguments):
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return result.stdout.strip()


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc")
def test_freed_memory_is_kept():
    """Ten times the same 64 MiB: page faults each time by default, next to none when kept."""
    kept, default = run(PAGE_FAULTS, "keep"), run(PAGE_FAULTS, "default")
    if kept == "unsupported":
        pytest.skip("the C library has no mallopt")
    assert int(kept) < int(default) / 10


@pytest.mark.slow
def test_one_device_per_core_unless_told_otherwise():
    count = "import jax; from rd_elbo import host; host.configure({}); "
    count += "print(jax.local_device_count(), host.cores())"
    devices, cores = run(count.format("")).split()
    assert devices == cores
    assert run(count.format(3)).split()[0] == "3"


def test_cores_follow_the_quota_of_the_control_group(tmp_path, monkeypatch):
    monkeypatch.setattr(host.os, "sched_getaffinity", lambda _: set(range(64)))
    inner = tmp_path / "job" / "step"
    inner.mkdir(parents=True)
    monkeypatch.setattr(host, "control_groups", lambda _: [inner, tmp_path / "job"])
    assert host.cores() == 64
    (inner / "cpu.max").write_text("max 100000\n")
    assert host.cores() == 64
    (tmp_path / "job" / "cpu.max").write_text("150000 100000\n")
    assert host.cores() == 2
    (inner / "cpu.max").unlink()
    (inner / "cpu.cfs_quota_us").write_text("100000\n")
    (inner / "cpu.cfs_period_us").write_text("100000\n")
    assert host.cores() == 1


def test_control_groups_of_both_versions(tmp_path):
    membership, root = tmp_path / "cgroup", tmp_path / "fs"
    (root / "cpu,cpuacct").mkdir(parents=True)
    membership.write_text("4:cpu,cpuacct:/job\n3:memory:/job\n1:name=systemd:/x\n0::/job\n")
    assert host.control_groups("cpu", membership, root) == [
        *(root / "cpu,cpuacct" / "job", root / "cpu,cpuacct"),
        *(root / "job", root),
    ]
    assert host.control_groups("cpu", tmp_path / "none", root) == []


STOPPING = """
import signal, sys, time
from rd_elbo import host
# The tests themselves may run under nohup.
signal.signal(signal.SIGHUP, signal.SIG_IGN if sys.argv[2] == "ignored" else signal.SIG_DFL)
stop = host.Stop(saves=sys.argv[3] == "saves")
stop.last_words = lambda: print("last words", flush=True)
with host.stop_on_signals(stop):
    signal.raise_signal(getattr(signal, sys.argv[1]))
    for _ in range(100):
        time.sleep(0.02)
        if stop():
            print("asked")
            break
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "hangup", "saves", "code", "said"),
    [
        ("SIGTERM", "heard", "saves", 0, "asked"),
        ("SIGUSR1", "heard", "saves", 0, "asked"),
        ("SIGHUP", "heard", "saves", 0, "asked"),
        ("SIGHUP", "ignored", "saves", 0, ""),
        ("SIGTERM", "heard", "nothing", host.STOPPED, "last words"),
    ],
)
def test_signals_ask_to_save_or_end_the_process_at_once(name, hangup, saves, code, said):
    command = [sys.executable, "-c", STOPPING, name, hangup, saves]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout.strip()) == (code, said), result.stderr
    assert ("nothing new was to be saved" in result.stderr) == (code != 0)


def test_a_budget_asks_to_stop():
    assert not host.Stop()() and host.Stop(deadline=0.0)() and host.Stop(deadline=0.0).out_of_time


def test_a_port_in_use_is_refused():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(BadInput, match=f"coordinator='{where}': expected a free port"):
            host.join(where, 2, 0)


def test_a_user_without_a_home_is_told_so(monkeypatch):
    def home():
        raise RuntimeError("Could not determine home directory.")

    for name in ("RD_ELBO_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pathlib.Path, "home", home)
    with pytest.raises(BadInput, match="HOME=None"):
        cache.cache_folder()


@pytest.mark.slow
def test_a_platform_that_is_not_there_is_one_sentence():
    code = "from rd_elbo import host; host.configure(); host.check_platform()"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "JAX_PLATFORMS": "nonsense"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    last = result.stderr.strip().splitlines()[-1]
    assert "BadInput: JAX_PLATFORMS='nonsense': expected a platform of this machine" in last
