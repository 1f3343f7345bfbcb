"""Rate and distortion of every example under every member of a population."""

import collections
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jax.stages import Compiled, Wrapped
from jaxtyping import Array, Float

from rd_elbo import information
from rd_elbo.models.lowering import lowering
from rd_elbo.models.vae import Params
from rd_elbo.training import sharding
from rd_elbo.training.fit import Fitted
from rd_elbo.training.state import Stream, TrainSpec, key_of, parameter_shapes, settings

# A latent dimension is active if its mean varies more than this over the data (Burda et al. 2016,
# section 5.2).
ACTIVE_VARIANCE = 1e-2
# Examples at a time; the noise of an evaluation depends on it.
BATCH = 250
# Calls are long enough to be worth their start and short enough to show progress.
_BATCHES_PER_CALL = 20
_IN_FLIGHT = 2
# A batch of an evaluation is larger than one of training, and its memory with it.
_VMAP_SIZE_ELSEWHERE = 128


class Evaluation(NamedTuple):
    """Terms of each example, and the moments of the codes.

    Attributes:
      rate: (members, examples) nats.
      distortion: (members, examples) nats.
      code_mean: (members, batches, latent) mean of the code over each batch.
      code_variance: (members, batches, latent) variance of the code within each batch.
    """

    rate: Float[Any, "members examples"]
    distortion: Float[Any, "members examples"]
    code_mean: Float[Any, "members batches latent"]
    code_variance: Float[Any, "members batches latent"]


@functools.lru_cache(maxsize=16)
def _evaluate(spec: TrainSpec, mesh: Mesh, batch_size: int, batches: int) -> Wrapped:
    def member(
        own: tuple[Params, Array], _: Any, images: Array, split: Array, first: Array
    ) -> Evaluation:
        params, seed = own
        key = jax.random.fold_in(key_of(seed, Stream.EVALUATION), split)

        def batch(index: Array) -> Evaluation:
            at = index * batch_size + jnp.arange(batch_size)
            # Batches are of one shape: what is missing is made up here and dropped by the caller.
            x = images[jnp.minimum(at, len(images) - 1)].astype(spec.dtype)
            terms = spec.model.terms(params, x, jax.random.fold_in(key, index))
            counted = at < len(images)
            share = (counted / jnp.maximum(counted.sum(), 1)).astype(spec.dtype)[:, None]
            code_mean = (share * terms.code).sum(0)
            code_variance = (share * (terms.code - code_mean) ** 2).sum(0)
            return Evaluation(terms.rate, terms.distortion, code_mean, code_variance)

        result = lax.map(batch, first + jnp.arange(batches, dtype=jnp.int32))
        rate, distortion = result.rate.reshape(-1), result.distortion.reshape(-1)
        return result._replace(rate=rate, distortion=distortion)

    population = sharding.spread(sharding.side_by_side(member), mesh, spec.vmap_size)

    def evaluate_all(*args: Any) -> Evaluation:
        with lowering(spec.lowering, mesh.devices.flat[0].platform):
            return population(*args)

    return jax.jit(evaluate_all)


@functools.lru_cache(maxsize=16)
def _compiled(
    spec: TrainSpec, mesh: Mesh, members: int, shape: tuple[int, ...], dtype: str, batch_size: int
) -> Compiled:
    own = sharding.by_member(mesh)
    params = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((members, *x.shape), x.dtype, sharding=own),
        parameter_shapes(spec.model, shape[1:], spec.dtype),
    )
    seeds = jax.ShapeDtypeStruct((members,), "uint32", sharding=own)
    images = jax.ShapeDtypeStruct(shape, dtype, sharding=sharding.everywhere(mesh))
    run = _evaluate(spec, mesh, batch_size, _per_call(shape[0], batch_size))
    with settings(spec.dtype):
        return run.lower((params, seeds), (), images, np.int32(0), np.int32(0)).compile()


def compile_for(
    spec: TrainSpec,
    mesh: Mesh,
    members: int,
    shape: tuple[int, ...],
    dtype: str,
    vmap_size: int | None = None,
) -> Compiled:
    """The program that `evaluate` runs for so many members; nothing is computed or placed."""
    filled, batch_size = members + -members % mesh.size, min(BATCH, shape[0])
    with settings(spec.dtype):
        dtype = jax.dtypes.canonicalize_dtype(dtype).name
    return _compiled(neutral(spec, vmap_size), mesh, filled, shape, dtype, batch_size)


def neutral(spec: TrainSpec, vmap_size: int | None) -> TrainSpec:
    """The part of a spec that an evaluation depends on, so that others share its program."""
    on_cpu = jax.default_backend() == "cpu"
    if vmap_size is None and (spec.vmap_size or not on_cpu):
        most = sharding.VMAP_SIZE_ON_CPU if on_cpu else _VMAP_SIZE_ELSEWHERE
        vmap_size = min(spec.vmap_size or most, most)
    return TrainSpec(spec.model, dtype=spec.dtype, lowering=spec.lowering, vmap_size=vmap_size)


def _per_call(examples: int, batch_size: int) -> int:
    return min(_BATCHES_PER_CALL, -(-examples // batch_size))


def evaluate(
    fitted: Fitted,
    seeds: Sequence[int],
    data: np.ndarray | jax.Array,
    split: int = 0,
    *,
    averaging: str = "none",
    mesh: Mesh | None = None,
    vmap_size: int | None = None,
    callback: Callable[[int], None] | None = None,
) -> Evaluation:
    """Compute rate and distortion of every example for every member.

    Each example gets one draw of z. Matrix products have the highest precision, and everything the
    dtype of the parameters.

    Args:
      fitted: Models trained together.
      seeds: (members,) seeds; the noise depends on them, on `split` and on `BATCH`.
      data: (examples, ...) the whole split; none is dropped.
      split: Number that names the split, so that splits have noise of their own.
      averaging: Parameters to use, the last ones ("none") or their moving average ("ema"). Both
        meet the same noise.
      mesh: Devices to use; by default those that trained.
      vmap_size: The most members that a device evaluates side by side; None means as many as it
        trained side by side, and no more than 16 on CPU and 128 elsewhere.
      callback: Callback, called now and then with the number of examples done since.

    Returns:
      NumPy arrays, on every process.
    """
    mesh, count, spec = mesh or fitted.mesh, len(seeds), fitted.spec
    data = data if isinstance(data, jax.Array) else np.asarray(data)
    batch_size, examples = min(BATCH, len(data)), len(data)
    per_call = _per_call(examples, batch_size)
    with settings(spec.dtype):
        params: Any = fitted.on_mesh(averaging)
        if mesh != fitted.mesh or not isinstance(jax.tree.leaves(params)[0], jax.Array):
            own = fitted.averaged if averaging == "ema" else fitted.params
            params = sharding.put_members(own, mesh)
        rows = sharding.put_members(np.asarray(seeds, np.uint32), mesh)
        images = sharding.put_everywhere(data, mesh)
    run = compile_for(spec, mesh, count, data.shape, data.dtype.name, vmap_size)
    sharding.agree("evaluation")
    flying, parts = collections.deque[tuple[int, Evaluation]](), []

    def receive() -> None:
        number, result = flying.popleft()
        here = jax.tree.map(lambda x: np.asarray(x)[:count], result)
        batches = -(-number // batch_size)
        rate, distortion = here.rate[:, :number], here.distortion[:, :number]
        moments = here.code_mean[:, :batches], here.code_variance[:, :batches]
        parts.append(Evaluation(rate, distortion, *moments))
        if callback:
            callback(number)

    for first in range(0, -(-examples // batch_size), per_call):
        number = min(per_call * batch_size, examples - first * batch_size)
        with settings(spec.dtype):
            result = run((params, rows), (), images, np.int32(split), np.int32(first))
            flying.append((number, sharding.gather(result, mesh)))
        if len(flying) == _IN_FLIGHT:
            receive()
    while flying:
        receive()
    return jax.tree.map(lambda *columns: np.concatenate(columns, axis=1), *parts)


def means(rate: np.ndarray, distortion: np.ndarray) -> dict[str, float]:
    """Means over examples in nats, and their standard errors, named as the columns of tables.

    Args:
      rate: (examples,) nats.
      distortion: (examples,) nats.
    """
    rate, distortion = rate.astype(np.float64), distortion.astype(np.float64)
    mean_rate, mean_distortion = float(rate.mean()), float(distortion.mean())
    return {
        "rate": mean_rate,
        "distortion": mean_distortion,
        "elbo": float(information.elbo(mean_rate, mean_distortion)),
        "rate_se": _standard_error(rate),
        "distortion_se": _standard_error(distortion),
        "elbo_se": _standard_error(rate + distortion),
    }


def active_units(result: Evaluation) -> np.ndarray:
    """Count the latent dimensions of each member that vary by more than `ACTIVE_VARIANCE`."""
    batches, examples = result.code_mean.shape[1], result.rate.shape[1]
    counts = np.full(batches, min(BATCH, examples), np.float64)
    counts[-1] = examples - counts[:-1].sum()
    share = (counts / examples)[None, :, None]
    mean = (share * result.code_mean.astype(np.float64)).sum(1)
    within = (share * result.code_variance.astype(np.float64)).sum(1)
    between = (share * (result.code_mean.astype(np.float64) - mean[:, None]) ** 2).sum(1)
    return ((within + between) > ACTIVE_VARIANCE).sum(-1)


@functools.lru_cache(maxsize=64)
def rate_estimator(spec: TrainSpec, shape: tuple[int, ...]) -> str:
    """How the rate is found: "closed_form" or "monte_carlo"; nothing is computed."""
    one = jax.ShapeDtypeStruct((1, *shape), np.float32)
    return spec.model.rate_estimator(parameter_shapes(spec.model, shape), one)


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan
