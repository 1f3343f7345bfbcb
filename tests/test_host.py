"""Settings of the process, each tried in a process of its own."""

import subprocess
import sys

import pytest

PAGE_FAULTS = """
import resource, sys
import numpy as np
from rd_elbo import host
if sys.argv[1] == "keep" and not host.keep_freed_memory():
    print("unsupported")
    sys.exit()
np.ones(2**23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(2**23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(code, *arguments):
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120, check=True)
    return result.stdout.strip()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc")
def test_freed_memory_is_kept():
    """Ten times the same 64 MiB: page faults each time by default, next to none when what is freed is kept."""
    kept, default = run(PAGE_FAULTS, "keep"), run(PAGE_FAULTS, "default")
    if kept == "unsupported":
        pytest.skip("the C library has no mallopt")
    assert int(kept) < int(default) / 10


def test_one_device_per_core_unless_told_otherwise():
    count = "import jax; from rd_elbo import host; host.configure({}); print(jax.local_device_count(), host.cores())"
    devices, cores = run(count.format("")).split()
    assert devices == cores
    assert run(count.format(3)).split()[0] == "3"
