"""Importance-weighted log-likelihood of every example under every member of a population."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jax.stages import Wrapped
from jaxtyping import Array, Float

from rd_elbo.errors import BadInput, whole
from rd_elbo.models.lowering import lowering
from rd_elbo.models.vae import Params
from rd_elbo.training import sharding
from rd_elbo.training.evaluate import BATCH, neutral
from rd_elbo.training.fit import Fitted
from rd_elbo.training.state import Stream, TrainSpec, key_of, settings

# Calls are long enough to be worth their start and short enough to show progress.
_CHUNKS_PER_CALL = 20


class Likelihood(NamedTuple):
    """Two bounds on log p(x) from the same draws of z.

    Attributes:
      log_evidence: (members, examples) importance-weighted bounds, nats.
      elbo: (members, examples) means of the same log-weights, nats: the ELBO with as many draws,
        never above `log_evidence`.
    """

    log_evidence: Float[Any, "members examples"]
    elbo: Float[Any, "members examples"]


@functools.lru_cache(maxsize=16)
def _program(spec: TrainSpec, mesh: Mesh, batch_size: int, chunk: int) -> Wrapped:
    """Add some chunks of draws to the running sums of one batch."""
    # Only own latent-variable models have densities of z; the protocol asks for none.
    model: Any = spec.model

    def member(
        own: tuple[Params, Array, Array, Array],
        _: Any,
        images: Array,
        split: Array,
        batch: Array,
        first: Array,
        last: Array,
        samples: Array,
    ) -> tuple[Array, Array]:
        params, seed, log_sum, total = own
        key = jax.random.fold_in(key_of(seed, Stream.LIKELIHOOD), split)
        key = jax.random.fold_in(key, batch)
        # Batches are of one shape: what is missing is made up here and dropped by the caller.
        at = jnp.minimum(batch * batch_size + jnp.arange(batch_size), len(images) - 1)
        draw = model.log_weights(params, images[at].astype(spec.dtype))

        def add(index: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:
            drawn = index * chunk + jnp.arange(chunk)
            # A draw's key is its own number's, whatever chunk it is in.
            log_w = draw(jax.vmap(lambda k: jax.random.fold_in(key, k))(drawn))
            counted = (drawn < samples)[:, None]
            chunk_sum = jax.nn.logsumexp(jnp.where(counted, log_w, -jnp.inf), axis=0)
            log_sum, total = sums
            chunk_total = jnp.where(counted, log_w, 0).sum(0)
            return jnp.logaddexp(log_sum, chunk_sum), total + chunk_total

        result: tuple[Array, Array] = lax.fori_loop(first, last, add, (log_sum, total))
        return result

    population = sharding.spread(sharding.side_by_side(member), mesh, spec.vmap_size)

    def all_members(*args: Any) -> tuple[Array, Array]:
        with lowering(spec.lowering, mesh.devices.flat[0].platform):
            result: tuple[Array, Array] = population(*args)
        return result

    return jax.jit(all_members)


def importance_weighted(
    fitted: Fitted,
    seeds: Sequence[int],
    data: np.ndarray | jax.Array,
    samples: int,
    split: int = 0,
    *,
    averaging: str = "none",
    chunk: int = 1,
    vmap_size: int | None = None,
    callback: Callable[[float], None] | None = None,
) -> Likelihood:
    """Bound log p(x) of every example by K draws of z (Burda et al. 2016, section 3).

    Memory does not grow with the number of draws: sums run over chunks of them. Matrix products
    have the highest precision.

    Args:
      fitted: Models trained together, each with a method `log_weights` as `models.vae.VAE` has.
      seeds: (members,) seeds; the noise depends on them, on `split`, on a draw's number and on
        `training.evaluate.BATCH`, not on `chunk`.
      data: (examples, ...) examples.
      samples: Draws of z for each example.
      split: Number that names the split, so that splits have noise of their own.
      averaging: Parameters to use, see `training.evaluate.evaluate`.
      chunk: Draws at a time. More take more memory and, on accelerators, less time.
      vmap_size: The most members that a device evaluates side by side, see
        `training.evaluate.evaluate`.
      callback: Callback, called now and then with the part done, 0 to 1.

    Returns:
      NumPy arrays in float64, on every process.

    Raises:
      BadInput: If the models have no `log_weights`, or a number is not at least 1.
    """
    samples, chunk = whole("samples", samples), min(whole("chunk", chunk), samples)
    if not hasattr(fitted.spec.model, "log_weights"):
        kind = type(fitted.spec.model).__name__
        raise BadInput(f"model={kind}: expected a model with log_weights, such as a VAE, got none.")
    mesh, count, spec = fitted.mesh, len(seeds), neutral(fitted.spec, vmap_size)
    batch_size, chunks = min(BATCH, len(data)), -(-samples // chunk)
    batches, per_call = -(-len(data) // batch_size), min(_CHUNKS_PER_CALL, chunks)
    run, parts = _program(spec, mesh, batch_size, chunk), []
    with settings(spec.dtype):
        params: Any = fitted.on_mesh(averaging)
        if not isinstance(jax.tree.leaves(params)[0], jax.Array):
            own = fitted.averaged if averaging == "ema" else fitted.params
            params = sharding.put_members(own, mesh)
        rows = sharding.put_members(np.asarray(seeds, np.uint32), mesh)
        images = sharding.put_everywhere(np.asarray(data), mesh)
        start = np.full((count, batch_size), -np.inf, spec.dtype), np.zeros((count, batch_size))
        start = sharding.put_members((start[0], start[1].astype(spec.dtype)), mesh)
        for batch in range(batches):
            sums = start
            for first in range(0, chunks, per_call):
                last = min(first + per_call, chunks)
                numbers = map(np.int32, (split, batch, first, last, samples))
                sums = run((params, rows, *sums), (), images, *numbers)
                if callback:
                    jax.block_until_ready(sums)
                    callback((batch + last / chunks) / batches)
            parts.append(jax.tree.map(np.asarray, sharding.gather(sums, mesh)))
    log_sum, total = (
        np.concatenate(column, axis=1)[:count, : len(data)].astype(np.float64)
        for column in zip(*parts, strict=True)
    )
    return Likelihood(log_sum - np.log(samples), total / samples)


def columns(log_evidence: np.ndarray, elbo: np.ndarray) -> dict[str, float]:
    """Means over examples in nats, and their standard errors, named as the columns of tables.

    Args:
      log_evidence: (examples,) bounds on log p(x), nats.
      elbo: (examples,) ELBOs of the same draws, nats.
    """

    def error(values: np.ndarray) -> float:
        several = len(values) > 1
        return float(values.std(ddof=1) / np.sqrt(len(values))) if several else float("nan")

    gap = log_evidence - elbo
    return {
        "nll": float(-log_evidence.mean()),
        "nll_se": error(log_evidence),
        "posterior_gap": float(gap.mean()),
        "posterior_gap_se": error(gap),
    }
