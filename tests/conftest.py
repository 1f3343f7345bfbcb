"""Settings that must be made before JAX starts: two CPU devices, and little optimisation."""

import os

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 2)
# XLA compiles quickly what runs for milliseconds; the arithmetic is the same. Processes that tests
# start are optimised; with JAX_DISABLE_MOST_OPTIMIZATIONS=0 everything is.
_QUICKLY = os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS", "1") != "0"
jax.config.update("jax_disable_most_optimizations", _QUICKLY)
if _QUICKLY and jax.__version_info__ < (0, 11):
    # A third of the compiler's time. Later versions have no other way, and do not know the flag.
    with pytest.MonkeyPatch.context() as patch:
        flags = os.environ.get("XLA_FLAGS", "")
        patch.setenv("XLA_FLAGS", f"{flags} --xla_cpu_use_fusion_emitters=false")
        jax.devices()  # reads them; processes that tests start do not


@pytest.fixture
def x64():
    """Runs a test with 64-bit types, so that equalities hold to far below the size of any real difference."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def optimised():
    """Has XLA optimise as it does for users."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", _QUICKLY)


@pytest.fixture(scope="module", autouse=True)
def _compiled_programs_end_with_their_module():
    """A process may map only so many pieces of memory, and each compiled program is some of them."""
    yield
    jax.clear_caches()
