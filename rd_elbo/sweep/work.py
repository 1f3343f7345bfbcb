"""Arithmetic of a model, counted before anything is compiled."""

import functools
import os
from typing import Any

import jax
import jax.numpy as jnp

from rd_elbo.errors import BadInput
from rd_elbo.models.family import Architecture, ImageShape
from rd_elbo.training.state import settings


@functools.cache
def work(architecture: Architecture, image_shape: ImageShape, batch_size: int) -> float:
    """Operations of rate and distortion of one batch, as XLA counts them; nothing is compiled."""
    model = architecture.build(image_shape)
    # XLA counts for few platforms; the host's is one.
    with settings("float32"), jax.default_device(_host_device()):
        key, x = jax.eval_shape(lambda: (jax.random.key(0), jnp.zeros((batch_size, *image_shape))))
        lowered = jax.jit(model.terms).lower(jax.eval_shape(model.init, key, x), x, key)
        analysis: Any = lowered.cost_analysis()
    return float(analysis["flops"])


def _host_device() -> jax.Device:
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError as error:
        own = os.environ.get("JAX_PLATFORMS")
        raise BadInput(
            f"JAX_PLATFORMS={own!r}: expected the host's CPU among them. "
            "Append ',cpu'; the first one stays the default."
        ) from error
