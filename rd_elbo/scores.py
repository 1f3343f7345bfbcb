"""Rate and distortion of every example under every member of a population."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.stages import Compiled, Wrapped
from jaxtyping import Array

from rd_elbo.models import layers
from rd_elbo.models.base import Params
from rd_elbo.population import MEMBER_AXIS, Program, Stream, key_of, replicate, spread, state_shapes

# Calls are long enough to be worth their start and short enough to show progress.
_BATCHES_PER_CALL = 20


class Evaluation(NamedTuple):
    """Per-example terms of a split, and the moments of the codes.

    Attributes:
      rate: (members, examples) nats.
      distortion: (members, examples) nats.
      code_mean: (members, batches, latent), mean of the code over each batch.
      code_variance: (members, batches, latent), variance of the code within each batch.
    """

    rate: Any
    distortion: Any
    code_mean: Any
    code_variance: Any


@functools.cache
def _evaluate(program: Program, mesh: Mesh) -> Wrapped:
    def member(params: Params, seed: Array, batches: Array, counted: Array, split: Array, first: Array) -> Evaluation:
        key = jax.random.fold_in(key_of(seed, Stream.EVALUATION), split)

        def batch(index_x_mask: tuple[Array, Array, Array]) -> Evaluation:
            index, x, mask = index_x_mask
            terms = program.model.terms(params, x.astype(program.dtype), jax.random.fold_in(key, first + index))
            share = (mask / jnp.maximum(mask.sum(), 1)).astype(program.dtype)[:, None]
            code_mean = (share * terms.code).sum(0)
            code_variance = (share * (terms.code - code_mean) ** 2).sum(0)
            return Evaluation(terms.rate, terms.distortion, code_mean, code_variance)

        result = lax.map(batch, (jnp.arange(len(batches)), batches, counted))
        return result._replace(rate=result.rate.reshape(-1), distortion=result.distortion.reshape(-1))

    def score(params: Params, seeds: Array, *shared: Array) -> Evaluation:
        # What is reported does not depend on what a platform takes a float32 product to be.
        with layers.lowering(program.lowering), jax.default_matmul_precision("highest"):
            return spread(lambda own, *rest: member(*own, *rest), mesh, program.lanes)((params, seeds), *shared)

    return jax.jit(score)


@functools.cache
def compiled(program: Program, mesh: Mesh, members: int, shape: tuple[int, ...], dtype: str, batch_size: int) -> Compiled:
    """What `evaluate` runs, compiled for so many members and for a split of one shape and type; nothing is computed or placed."""
    one = state_shapes(program.model, shape[1:], program.dtype).params
    own, whole = NamedSharding(mesh, P(MEMBER_AXIS)), NamedSharding(mesh, P())
    params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((members, *leaf.shape[1:]), leaf.dtype, sharding=own), one)
    seeds = jax.ShapeDtypeStruct((members,), "uint32", sharding=own)
    calls = _per_call(shape[0], batch_size)
    batches = jax.ShapeDtypeStruct((calls, batch_size, *shape[1:]), dtype, sharding=whole)
    counted = jax.ShapeDtypeStruct((calls, batch_size), bool, sharding=whole)
    return _evaluate(program, mesh).lower(params, seeds, batches, counted, np.int32(0), np.int32(0)).compile()


def _per_call(examples: int, batch_size: int) -> int:
    """Batches in one call."""
    return min(_BATCHES_PER_CALL, -(-examples // batch_size))


def evaluate(
    program: Program,
    mesh: Mesh,
    params: Params,
    seeds: Array,
    images: np.ndarray,
    split: int,
    batch_size: int,
    listener: Callable[[int], None] | None = None,
) -> Evaluation:
    """Rate and distortion of every example for every member, one draw of z each.

    Args:
      program: What is compiled in; its objective and batch size play no part.
      mesh: Where the members are.
      params: Parameters, members first.
      seeds: (members,) seeds; the noise depends on them, on `split` and on `batch_size`.
      images: (examples, ...), the whole split; none is dropped.
      split: A number that names the split, so that splits have noise of their own.
      batch_size: Examples at a time.
      listener: Called now and then with the number of examples done since.

    Returns:
      Rate and distortion of shape (members, examples), and the codes' moments by batch.
    """
    batches, per_call = -(-len(images) // batch_size), _per_call(len(images), batch_size)
    dtype = jax.dtypes.canonicalize_dtype(images.dtype).name
    evaluate_some = compiled(program, mesh, len(seeds), images.shape, dtype, batch_size)
    parts = []
    for first in range(0, batches, per_call):
        part = images[first * batch_size : (first + per_call) * batch_size]
        # Calls are of one shape, so that one compilation serves all of them: what is missing is made up and dropped.
        missing = per_call * batch_size - len(part)
        whole = np.concatenate([part, np.repeat(part[:1], missing, axis=0)])
        counted = np.arange(len(whole)) < len(part)
        shaped = (whole.reshape(per_call, batch_size, *images.shape[1:]), counted.reshape(per_call, batch_size))
        result = evaluate_some(params, seeds, *replicate(shaped, mesh), np.int32(split), np.int32(first))
        used = -(-len(part) // batch_size)
        rate, distortion, code_mean, code_variance = map(np.asarray, result)
        parts.append((rate[:, : len(part)], distortion[:, : len(part)], code_mean[:, :used], code_variance[:, :used]))
        if listener:
            listener(len(part))
    return Evaluation(*(np.concatenate(columns, axis=1) for columns in zip(*parts, strict=True)))
