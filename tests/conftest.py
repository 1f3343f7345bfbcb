"""Settings that must be made before JAX starts: two CPU devices, and little optimisation.

XLA compiles quickly what runs for milliseconds; the arithmetic is the same. Processes that tests
start inherit it, but for a few that run as users do. JAX_DISABLE_MOST_OPTIMIZATIONS=0 optimises
all.
"""

import functools
import gc
import os
import pathlib
from importlib import metadata

import pytest

_QUICKLY = os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1") != "0"
if _QUICKLY:
    # Workers of pytest fill the cores; threads of the compiler only add work.
    chosen = ["--xla_cpu_parallel_codegen_split_count=1"]
    if tuple(map(int, metadata.version("jax").split(".")[:2])) < (0, 11):
        # A third of the compiler's time. Later versions have no other way, and lack the flag.
        chosen.append("--xla_cpu_use_fusion_emitters=false")
    os.environ["XLA_FLAGS"] = " ".join([*chosen, os.environ.get("XLA_FLAGS", "")])

import jax  # noqa: E402

jax.config.update("jax_num_cpu_devices", 2)
# A plugin may have imported JAX before.
jax.config.update("jax_disable_most_optimizations", _QUICKLY)


@pytest.fixture
def x64():
    """Run a test with 64-bit types: rounding is far below any real difference."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def optimised():
    """Has XLA optimise as it does for users."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", _QUICKLY)


@pytest.fixture(scope="session", autouse=True)
def _digits_are_unpacked_once():
    """The embedded data take a third of a second to unpack; tests read them, and change nothing."""
    from rd_elbo.data import mnist_static

    unpacked = functools.cache(mnist_static.read)

    def read():
        return dict(unpacked()) if file == mnist_static.FILE else read_anew()

    file, read_anew = mnist_static.FILE, mnist_static.read
    mnist_static.read = read
    yield
    mnist_static.read = read_anew


# A process may map 65,530 pieces of memory on Linux; one compiled program takes up to a dozen.
_MAX_MAPS = 20_000


@pytest.fixture(scope="module", autouse=True)
def _compiled_programs_are_shared_until_they_are_too_many():
    """Free compiled programs now and then; tests of one module use those of another."""
    yield
    maps = pathlib.Path("/proc/self/maps")
    if not maps.exists() or maps.read_bytes().count(b"\n") > _MAX_MAPS:
        jax.clear_caches()


def pytest_collection_finish():
    """Collect garbage rarely: tracing makes many small objects, which are looked at each time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)
