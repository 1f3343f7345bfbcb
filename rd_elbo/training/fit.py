"""The training loop: a population of any models, in calls of many steps, two of them in flight."""

import dataclasses
import functools
import hashlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jax.stages import Compiled

from rd_elbo.errors import BadInput, whole
from rd_elbo.models.vae import Params, Trainable
from rd_elbo.training import regularisation, sharding, step
from rd_elbo.training.checkpoint import Checkpoints
from rd_elbo.training.loop import Callback, History, Loop, Progress, Stopped
from rd_elbo.training.state import (
    HParams,
    Metrics,
    State,
    TrainSpec,
    fresh,
    initialise,
    parameter_shapes,
    settings,
    state_shapes,
)

__all__ = [
    "Callback",
    "Fitted",
    "Progress",
    "Stopped",
    "compile_for",
    "fit",
    "steps_per_epoch",
    "total_steps",
]


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """Models trained together.

    Attributes:
      spec: The program.
      mesh: Devices that the members were spread over.
      sharded: Parameters of `spec.model` on the mesh, members first, filled to a multiple of the
        devices.
      steps: (members,) updates made.
      alive: (members,) whether the member never diverged.
      metrics: Batch means of the steps kept.
      seconds: Wall time of the training, compilation included.
      compile_seconds: Wall time until the first call had returned.
      average: Averages of the parameters, like `sharded`; () where the program keeps none.
    """

    spec: TrainSpec
    mesh: Mesh
    sharded: Params
    steps: np.ndarray
    alive: np.ndarray
    metrics: Metrics
    seconds: float
    compile_seconds: float
    average: Any = ()

    @property
    def devices(self) -> int:
        """Number of devices."""
        return self.mesh.size

    @functools.cached_property
    def params(self) -> Params:
        """Parameters of all members as NumPy arrays; all processes must ask for them together."""
        return sharding.fetch(self.sharded, len(self.steps))

    @functools.cached_property
    def averaged(self) -> Params:
        """Averages of the parameters of all members, as `params` has the last ones.

        Raises:
          BadInput: If no member has an average.
        """
        return sharding.fetch(self.on_mesh("ema"), len(self.steps))

    def on_mesh(self, averaging: str) -> Params:
        """Parameters on the mesh, `sharded` ("none") or their averages ("ema").

        Raises:
          BadInput: If there are no such parameters.
        """
        regularisation.check_averaging(averaging, self.spec.averages)
        return self.average if averaging == "ema" else self.sharded

    def local(self, averaging: str = "none") -> Iterator[tuple[int, Params]]:
        """Index and parameters of each member on this process's devices; see `on_mesh`."""
        params = self.on_mesh(averaging)
        members = len(jax.tree.leaves(params)[0])
        for device, rows in sharding.local_rows(self.mesh, members).items():

            def on_device(x: jax.Array, device: Any = device) -> np.ndarray:
                return next(np.asarray(s.data) for s in x.addressable_shards if s.device == device)

            own = jax.tree.map(on_device, params)
            for i in range(rows.start, min(rows.stop, len(self.steps))):
                yield i, jax.tree.map(lambda x, i=i, rows=rows: x[i - rows.start], own)


def steps_per_epoch(batch_size: int, examples: int) -> int:
    """Whole batches in one pass over `examples`; the rest is seen in another epoch's order."""
    if batch_size > examples:
        raise BadInput(
            f"batch_size={batch_size}: expected at most {examples}, the examples of the training "
            "data."
        )
    return examples // batch_size


def total_steps(epochs: float, batch_size: int, examples: int) -> int:
    """Steps of a training over `epochs`: at least one."""
    return max(1, round(epochs * steps_per_epoch(batch_size, examples)))


def compile_for(
    spec: TrainSpec, mesh: Mesh, seeds: Sequence[int], shape: tuple[int, ...], dtype: str
) -> Compiled:
    """The program that `fit` runs for members of these seeds; nothing is computed or placed.

    Args:
      spec: The program.
      mesh: Devices to spread the members over.
      seeds: Each member's seed.
      shape: Shape of the data, examples first.
      dtype: Type of the data.
    """
    filled = np.asarray(sharding.fill(list(seeds), mesh.size), np.uint32)
    with settings(spec.dtype):
        dtype = jax.dtypes.canonicalize_dtype(dtype).name
    _, _, rows = step.seed_tables(spec, mesh, filled, shape[0])
    return step.compiled(spec, mesh, len(filled), shape, dtype, rows)


def fit(
    spec: TrainSpec,
    models: Sequence[Trainable],
    hparams: HParams,
    data: np.ndarray | jax.Array,
    steps: int,
    *,
    mesh: Mesh | None = None,
    metrics_every: int = 1,
    checkpoints: Checkpoints | None = None,
    callback: Callback | None = None,
    stop: Callable[[], bool] | None = None,
) -> Fitted:
    """Train a population of models of any kind.

    All processes call it with the same arguments.

    Args:
      spec: The program: the model that all train as, the objective, the batch size, ...
      models: Each member's own model, whose parameters are drawn and embedded in zeros up to the
        size of `spec.model`.
      hparams: (members,) arrays, or numbers for all of them; see `HParams.of`.
      data: (examples, ...) training data, in the form that the models take.
      steps: Steps to make; the schedule of the learning rate spans them.
      mesh: Devices to spread members over; by default all, see `sharding.make_mesh`.
      metrics_every: Steps between two rows of metrics; the last step has a row too.
      checkpoints: States to resume from and to save. The result is the same to the last bit, on
        the same devices, as if training had never been interrupted.
      callback: Callback after every call, see `Callback`.
      stop: Function that says after every call whether to save and stop; one process stops all.

    Returns:
      The trained models. One that diverged is in its last finite state, with `alive` False.

    Raises:
      BadInput: If there is nothing to train, the batch is larger than the data, or the numbers of
        models and hyperparameters differ.
      Stopped: If `stop` said so before the last step.
    """
    began = time.perf_counter()
    count, steps, every = len(models), whole("steps", steps), whole("metrics_every", metrics_every)
    hparams = hparams.checked(count, spec.dtype)
    data = data if isinstance(data, jax.Array) else np.asarray(data)
    steps_per_epoch(spec.batch_size, len(data))
    regularisation.check_switches(spec, hparams)
    regularisation.check_shift(hparams.shift.max(), data.shape[1:])
    if spec.drops:
        with settings(spec.dtype):
            x = jax.ShapeDtypeStruct((1, *data.shape[1:]), spec.dtype)
            own = parameter_shapes(spec.model, data.shape[1:], spec.dtype)
            regularisation.check_dropout(spec.model, own, x)
    mesh = mesh or sharding.make_mesh(None, count)
    # A mesh takes a multiple of its size; the last member stands in for those that are missing.
    filled = jax.tree.map(lambda leaf: sharding.fill_rows(leaf, mesh.size), hparams)
    checkpoints = _identified(checkpoints, spec, hparams, data, steps, every)
    history, seconds = History.blank(count, steps, every, spec.dtype), np.zeros((), np.float64)
    with settings(spec.dtype):
        like = state_shapes(spec, data.shape[1:], len(filled.seed))
        saved = checkpoints.restore((jax.tree.map(_on(mesh), like), history.columns, seconds))
        if saved:
            done, (state, columns, seconds) = saved
            history = dataclasses.replace(history, columns=tuple(map(np.array, columns)))
        else:
            seeds = filled.seed.tolist()
            done, state = 0, _start(spec, models, seeds, data.shape[1:], mesh)
        placed, images = sharding.put_members(filled, mesh), sharding.put_everywhere(data, mesh)
    orders = step.Orders(spec, mesh, filled.seed, len(data))
    if done < steps:
        compile_for(spec, mesh, hparams.seed.tolist(), data.shape, data.dtype.name)
        sharding.agree("compiled", report=checkpoints.report)
    where = spec, mesh, count, state, placed, images, orders, history, checkpoints
    loop = Loop(*where, done, float(seconds), began, callback, stop)
    del saved, state
    loop.run()
    made, alive = (sharding.fetch(x, count) for x in (loop.state.steps, loop.state.alive))
    metrics, times = history.since(0, steps), (loop.seconds, loop.compile_seconds)
    average = loop.state.average
    return Fitted(spec, mesh, loop.state.params, made, alive, metrics, *times, average)


def _start(
    spec: TrainSpec,
    models: Sequence[Trainable],
    seeds: Sequence[int],
    shape: tuple[int, ...],
    mesh: Mesh,
) -> State:
    """The state before the first step; each process draws the parameters of its own members."""
    models = sharding.fill(models, mesh.size)

    def draw(rows: slice) -> Params:
        return initialise(models[rows], seeds[rows], spec.model, shape, spec.dtype)

    return _begin(spec, mesh)(sharding.put_rows(draw, len(models), mesh))


@functools.lru_cache(maxsize=16)
def _begin(spec: TrainSpec, mesh: Mesh) -> Callable[[Params], State]:
    where, begin = sharding.by_member(mesh).spec, functools.partial(fresh, spec=spec)
    spread = jax.shard_map(begin, mesh=mesh, in_specs=where, out_specs=where)
    return jax.jit(spread, donate_argnums=0)


def _on(mesh: Mesh) -> Callable[[Any], jax.ShapeDtypeStruct]:
    where = sharding.by_member(mesh)
    return lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)


def _identified(
    checkpoints: Checkpoints | None,
    spec: TrainSpec,
    hparams: HParams,
    data: np.ndarray | jax.Array,
    steps: int,
    every: int,
) -> Checkpoints:
    """The checkpoints, with everything that decides a state in their identity."""
    if checkpoints is None or checkpoints.folder is None:
        return checkpoints or Checkpoints()
    digest = hashlib.sha256(np.asarray(data).tobytes())
    for leaf in jax.tree.leaves(hparams):
        digest.update(leaf.tobytes())
    like = state_shapes(spec, data.shape[1:])
    fields = {field.name for field in dataclasses.fields(spec)}
    fields -= {"model", "call_steps", "vmap_size"}
    # A sweep knows its parts by name; an optimizer or a model of the caller's has none.
    values = {field: getattr(spec, field) for field in sorted(fields)}
    named = bool(checkpoints.identity) and all(map(_is_plain, values.values()))
    own = {
        **{field: value if _is_plain(value) else "own" for field, value in values.items()},
        "program": "" if named else _digest(spec, data.shape[1:]),
        "state": [f"{leaf.shape[1:]} {leaf.dtype}" for leaf in jax.tree.leaves(like)],
        "members": len(hparams.seed),
        "steps": steps,
        "metrics_every": every,
        "inputs": digest.hexdigest(),
    }
    return dataclasses.replace(checkpoints, identity={**checkpoints.identity, "training": own})


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | None)


def _digest(spec: TrainSpec, shape: tuple[int, ...]) -> str:
    """SHA-256 of the arithmetic of a model and its optimizer, as JAX writes it."""
    with settings(spec.dtype):
        like = jax.eval_shape(
            lambda tree: jax.tree.map(lambda x: x[0], tree), state_shapes(spec, shape)
        )
        x = jax.ShapeDtypeStruct((spec.batch_size, *shape), spec.dtype)

        def step(state: State, x: Any, key: Any, progress: Any) -> Any:
            rate, _ = spec.learning_rate(progress, state.steps)
            moved = spec.update.step(state.params, state.optimizer, state.params, rate, state.alive)
            return spec.model.terms(state.params, x, key), moved

        key, progress = jax.eval_shape(lambda: jax.random.key(0)), jax.ShapeDtypeStruct((), x.dtype)
        text = str(jax.make_jaxpr(step)(like, x, key, progress))
    return hashlib.sha256(re.sub("0x[0-9a-f]+", "", text).encode()).hexdigest()
