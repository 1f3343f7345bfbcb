"""The library in a few calls: a sweep of named parts, or a population of a model of your own."""

import csv
import dataclasses
import itertools
import math
import pathlib
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from rd_elbo import aliases, data
from rd_elbo.errors import BadInput, Failed, check_names, number
from rd_elbo.models.vae import Params, Trainable
from rd_elbo.sweep import config, grid
from rd_elbo.sweep import run as sweeping
from rd_elbo.sweep.grid import Member
from rd_elbo.training import evaluate as evaluation
from rd_elbo.training import fit as training
from rd_elbo.training import regularisation
from rd_elbo.training.checkpoint import Checkpoints
from rd_elbo.training.hyperparameters import Hyperparameters, check_effect
from rd_elbo.training.optim import Optax
from rd_elbo.training.state import HParams, TrainSpec


class Points(list[dict[str, Any]]):
    """Points of the rate-distortion plane: rows of a table, each a dict with the same keys.

    >>> import rd_elbo as rd
    >>> points = rd.Points([{"beta": 0.5, "rate": 2.0, "distortion": 3.0}])
    >>> points.column("rate")
    array([2.])
    """

    def column(self, name: str) -> np.ndarray:
        """Values of one column, in the order of the rows.

        Raises:
          BadInput: If there is no such column.
        """
        if self and name not in self[0]:
            raise BadInput(f"column={name!r}: expected one of {', '.join(self[0])}, got another.")
        return np.asarray([row[name] for row in self])

    def to_csv(self, path: str | pathlib.Path) -> None:
        """Write the rows to a CSV file."""
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, list(self[0]) if self else [])
            writer.writeheader()
            writer.writerows(self)

    def to_pandas(self) -> Any:
        """Convert the rows to a pandas DataFrame; pandas must be installed."""
        import pandas

        return pandas.DataFrame(list(self))


def product(base: Member | Sequence[Member] | None = None, **axes: Iterable[Any]) -> list[Any]:
    """Combine the values of all axes.

    >>> import rd_elbo as rd
    >>> [(m.decoder, m.beta) for m in rd.product(rd.Member(decoder="pixelcnn"), beta=(0.5, 1.0))]
    [('pixelcnn', 0.5), ('pixelcnn', 1.0)]
    >>> len(rd.product(beta=(0.1, 1.0), seed=range(3)))
    6

    Args:
      base: A `Member`, or several, to start from; None gives `Hyperparameters` alone, for `fit`.
      **axes: Values to take, for some fields.

    Returns:
      Members, or hyperparameters, the last axis varying fastest.

    Raises:
      BadInput: If a field does not exist, a value is not allowed, or a field has no effect on any
        member.
    """
    if base is not None:
        listed = {name: tuple(values) for name, values in grid.checked_axes(axes).items()}
        members = grid.product(base, **listed)
        grid.check_effect(members, listed)
        return list(members)
    aliases.refuse(axes)
    known = tuple(field.name for field in dataclasses.fields(Hyperparameters))
    for name in axes:
        if name not in known:
            raise BadInput(f"axis {name!r}: expected one of {', '.join(known)}, got another.")
    values = grid.checked_axes(axes)
    combinations = itertools.product(*values.values())
    return [Hyperparameters(**dict(zip(values, one, strict=True))) for one in combinations]


def sweep(
    members: Sequence[Member],
    dataset: data.Dataset | str = "mnist_static",
    workdir: str | pathlib.Path | None = None,
    *,
    splits: Sequence[str] | str = ("test", "train"),
    eval_examples: int | None = None,
    report: Callable[[str], None] = warnings.warn,
    progress: Callable[[float, str], None] = lambda *_: None,
    **population: Any,
) -> Points:
    """Train and evaluate a grid of members, as `scripts/sweep.py` does.

    Members that one program can train are grouped, groups are trained one after another on all
    devices, and every member is evaluated on whole splits.

    >>> import numpy as np, rd_elbo as rd
    >>> x = np.random.RandomState(0).randint(0, 2, (64, 4, 4), np.uint8)
    >>> tiny = rd.Member(encoder_width=4, decoder_width=4, latent=2, batch_size=16)
    >>> grid, dataset = rd.product(tiny, beta=(0.5, 2.0)), rd.Dataset.from_arrays(x, x)
    >>> points = rd.sweep(grid, dataset, splits=("test",))
    >>> points.column("beta").tolist(), points[0]["rate"] > 0
    ([0.5, 2.0], True)

    Args:
      members: Members to train, such as `product` gives.
      dataset: The data, or the name of a dataset.
      workdir: Run directory, in which the same call resumes; None uses a temporary one.
      splits: Splits that points are reported on, or the name of one.
      eval_examples: Examples of the training split to report on, chosen at random once; None means
        all.
      report: Callback with a sentence on each fault and its way round.
      progress: Callback with the part of the work done, 0 to 1, and the current activity.
      **population: Fields of `sweep.config.Population`, such as `chunk_size`.

    Returns:
      A row per member and split, with the columns of points.csv.

    Raises:
      BadInput: If anything asked for is not possible; nothing has been trained then.
      Failed: If members could not be trained; the rest is in `workdir`.
    """
    check_names(sweep, population, _names(config.Population))
    dataset = data.load(dataset) if isinstance(dataset, str) else dataset
    if not isinstance(dataset, data.Dataset):
        raise BadInput(
            f"dataset: expected a dataset or the name of one, got {type(dataset).__name__}. Give "
            "arrays to rd.Dataset.from_arrays."
        )
    members, how = grid.unique(grid.checked_members(members)), config.Population(**population)
    splits = grid.names("splits", splits)
    about: dict[str, Any] = {"name": dataset.name, "splits": list(splits)}
    about |= {"binarise": False} if dataset.kind == "grey" else {}
    about |= {} if eval_examples is None else {"eval_examples": eval_examples}
    # Files of JSON are sorted by name.
    blocks = {f"{i:06}": _finite(dataclasses.asdict(m)) for i, m in enumerate(members)}
    recorded = {
        "name": config.RD_SWEEP,
        "data": about,
        "blocks": blocks,
        "population": {name: value for name, value in population.items() if value is not None},
    }
    evaluated = config.evaluated_splits(dataset, splits, eval_examples)
    plan = config.Plan(recorded, dataset, evaluated, members, how)
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(workdir or temporary).expanduser()
        outcome = sweeping.run(plan, folder, report=report, progress=progress)
    if outcome.failed:
        name, reason = next(iter(outcome.failed.items()))
        raise Failed(f"{len(outcome.failed)} of {len(members)} members failed; {name}: {reason}")
    return Points(outcome.points)


def _names(fields: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(fields)]


def _finite(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that JSON can hold; an infinite one is at its default."""
    return {k: v for k, v in fields.items() if not isinstance(v, float) or math.isfinite(v)}


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """A trained population.

    >>> import numpy as np, rd_elbo as rd
    >>> x = np.random.RandomState(0).randint(0, 2, (64, 4, 4), np.uint8)
    >>> model = rd.Member(encoder_width=4, decoder_width=4, latent=2).build((4, 4))
    >>> result = rd.fit(model, x, rd.product(beta=(0.5, 2.0)), steps=3, batch_size=16)
    >>> result.hyperparameters[1].beta, sorted(result.params(1))
    (2.0, ['decoder', 'encoder', 'prior'])

    Attributes:
      fitted: Parameters, metrics and times.
      hyperparameters: Each member's own numbers.
    """

    fitted: training.Fitted
    hyperparameters: Sequence[Any]

    def params(self, index: int, averaging: str = "none") -> Params:
        """Parameters of one member, NumPy arrays.

        Args:
          index: Index of the member.
          averaging: The last parameters ("none") or their moving average ("ema").
        """
        regularisation.check_averaging(averaging, self.fitted.spec.averages)
        own = self.fitted.averaged if averaging == "ema" else self.fitted.params
        return jax.tree.map(lambda leaf: leaf[index], own)


def fit(
    model: Trainable,
    examples: np.ndarray | jax.Array,
    hyperparameters: Sequence[Any],
    *,
    steps: int,
    batch_size: int = 128,
    objective: str = "beta",
    optimizer: str | Optax = "adam",
    learning_rate: float | Callable[[Any], Any] | None = None,
    schedule: str | None = None,
    workdir: str | pathlib.Path | None = None,
    mesh: Mesh | None = None,
    callback: training.Callback | None = None,
    report: Callable[[str], None] = warnings.warn,
    **spec: Any,
) -> Result:
    """Train one model of any kind with many hyperparameters at once.

    >>> import numpy as np, rd_elbo as rd
    >>> x = np.random.RandomState(0).randint(0, 2, (64, 4, 4), np.uint8)
    >>> model = rd.Member(encoder_width=4, decoder_width=4, latent=2).build((4, 4))
    >>> result = rd.fit(model, x, rd.product(beta=(0.5, 2.0)), steps=3, batch_size=16)
    >>> [point["beta"] for point in rd.evaluate(result, x)]
    [0.5, 2.0]

    Any optimizer and schedule of optax will do:

    >>> import optax
    >>> rate = optax.warmup_cosine_decay_schedule(0.0, 1e-2, 2, 6)
    >>> result = rd.fit(
    ...     model, x, rd.product(seed=range(2)), steps=6, batch_size=16, optimizer=optax.adamw,
    ...     learning_rate=rate,
    ... )
    >>> result.fitted.steps.tolist()
    [6, 6]

    Args:
      model: Anything hashable with `init`, `terms` and `rate_estimator`, such as a `VAE`.
      examples: (examples, ...) training data, in the form that the model takes.
      hyperparameters: Objects such as `product` gives without a `Member`.
      steps: Updates of each member.
      batch_size: Examples per step.
      objective: A key of `objectives.OBJECTIVES`.
      optimizer: A key of `training.optim.OPTIMIZERS`; a function from a learning rate to a
        transformation of optax, such as `optax.adamw`; or a transformation with a learning rate of
        its own. Each member has a state of its own, and global norms are its own.
      learning_rate: Peak of all members, in place of their own; or a schedule of optax.
      schedule: Course of the learning rate, a key of `training.optim.SCHEDULES`; None means
        "cosine", unless the learning rate or the optimizer says it.
      workdir: Folder for checkpoints, in which the same call resumes; None keeps none.
      mesh: Devices to spread members over; None means all.
      callback: Callback with the progress, after every call of the program.
      report: Callback with a sentence on each checkpoint that is left out, such as one of another
        model, of other arguments or of other code; training starts anew then.
      **spec: Further fields of `training.state.TrainSpec`, such as `dtype` or `vmap_size`.

    Returns:
      The trained population.

    Raises:
      BadInput: If an argument is not allowed.
    """
    examples = _array(examples)
    check_names(fit, spec, _names(TrainSpec))
    if isinstance(hyperparameters, Hyperparameters):
        raise BadInput(
            f"hyperparameters: expected a sequence, got a single {type(hyperparameters).__name__}. "
            "Give those of rd.product."
        )
    for given in hyperparameters:
        if isinstance(given, Member):
            raise BadInput(
                f"hyperparameters={given.name!r}: expected those of rd.product without a Member, "
                "got a member, whose model would be ignored. Leave it out, or use rd.sweep."
            )
    complete = isinstance(optimizer, optax.GradientTransformation)
    if schedule is not None and (complete or callable(learning_rate)):
        what = "optimizer" if complete else "learning_rate"
        raise BadInput(f"schedule={schedule!r}: expected None, since {what} has one of its own.")
    if complete and learning_rate is not None:
        raise BadInput(
            f"learning_rate={learning_rate!r}: expected None, since optimizer has one of its own. "
            "Give a function such as optax.adamw to have it used."
        )
    course = learning_rate if callable(learning_rate) else schedule or "cosine"
    spec = regularisation.switches(hyperparameters) | spec
    program = TrainSpec(model, objective, batch_size, course, optimizer, **spec)
    check_effect(hyperparameters, objective, complete or learning_rate is not None)
    folder = pathlib.Path(workdir).expanduser() if workdir else None
    checkpoints = Checkpoints(folder, report=report) if folder else None
    hparams = HParams.of(hyperparameters, program)
    if callable(learning_rate):
        hparams = hparams._replace(learning_rate=1.0)
    elif learning_rate is not None:
        peak = number("learning_rate", learning_rate, above=True)
        hparams = hparams._replace(learning_rate=peak)
    fitted = training.fit(
        program,
        [model] * len(hyperparameters),
        hparams,
        examples,
        steps,
        mesh=mesh,
        checkpoints=checkpoints,
        callback=callback,
    )
    return Result(fitted, tuple(hyperparameters))


def _array(examples: Any) -> np.ndarray | jax.Array:
    """Examples as an array; `BadInput` if they are none, or not finite."""
    if isinstance(examples, data.Dataset):
        raise BadInput(
            f"examples={examples.name!r}: expected an array, got a dataset. Give a split, such as "
            "dataset.splits['train']."
        )
    on_device = isinstance(examples, jax.Array)
    array = examples if on_device else np.asarray(examples)
    # NumPy has no letter for bfloat16.
    if not array.ndim or (array.dtype.kind not in "biuf" and array.dtype != jnp.bfloat16):
        raise BadInput(
            f"examples: expected an array of numbers, examples first, got {array.dtype} of shape "
            f"{array.shape}."
        )
    if not (jnp if on_device else np).isfinite(array).all():
        raise BadInput("examples: expected finite numbers, got NaN or infinite ones.")
    return array


def evaluate(
    result: Result,
    examples: np.ndarray | jax.Array,
    *,
    split: int = 0,
    averaging: str = "none",
) -> Points:
    """Compute rate and distortion of every member over all examples, one draw of z each.

    >>> import numpy as np, rd_elbo as rd
    >>> x = np.random.RandomState(0).randint(0, 2, (64, 4, 4), np.uint8)
    >>> model = rd.Member(encoder_width=4, decoder_width=4, latent=2).build((4, 4))
    >>> result = rd.fit(model, x, rd.product(beta=(0.5, 2.0)), steps=3, batch_size=16)
    >>> points = rd.evaluate(result, x)
    >>> totals = points.column("rate") + points.column("distortion")
    >>> bool(np.allclose(totals, -points.column("elbo")))
    True

    Args:
      result: A trained population.
      examples: (examples, ...) data.
      split: Number of the data, so that other data have other noise.
      averaging: Parameters to use: the last ones ("none"), or their moving average ("ema"), which
        for a member with `ema_decay` 0 is the same.

    Returns:
      A row per member: `objective`; its hyperparameters; `averaging`; `rate`, `distortion`, `elbo`
      and their standard errors over examples, nats; `active_units`, `rate_estimator`, `examples`,
      `steps`, `status`.

    Raises:
      BadInput: If `averaging` is "ema" and no member has an average.
    """
    fitted, members, examples = result.fitted, result.hyperparameters, _array(examples)
    seeds = [member.seed for member in members]
    found = evaluation.evaluate(fitted, seeds, examples, split, averaging=averaging)
    active = evaluation.active_units(found)
    estimator = evaluation.rate_estimator(fitted.spec, tuple(examples.shape[1:]))
    rows = Points()
    for i, member in enumerate(members):
        estimates = evaluation.means(found.rate[i], found.distortion[i])
        sound = bool(fitted.alive[i]) and math.isfinite(estimates["elbo"])
        rest = {"active_units": int(active[i]), "rate_estimator": estimator}
        rest |= {"examples": len(examples), "steps": int(fitted.steps[i])}
        own = {"objective": fitted.spec.objective, **vars(member), "averaging": averaging}
        rows.append({**own, **estimates, **rest, "status": "ok" if sound else "diverged"})
    return rows
