"""Settings that must be made before JAX starts: two CPU devices, and float64 where a test asks for it."""

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 2)


@pytest.fixture
def x64():
    """Runs a test with 64-bit types, so that equalities hold to far below the size of any real difference."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def unoptimised():
    """Has XLA compile quickly what runs for milliseconds; the arithmetic is the same."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
