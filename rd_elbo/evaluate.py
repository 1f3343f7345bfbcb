"""From trained members and data to points of the rate-distortion plane."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from rd_elbo import information, population, scores
from rd_elbo.data.dataset import SPLITS, Dataset
from rd_elbo.grid import FIELDS
from rd_elbo.train import Fitted, Trained, fill_rows, parameter_shapes

Point = dict[str, Any]

# A latent dimension is active if its mean varies more than this over the data (Burda et al. 2016, section 5.2).
ACTIVE_VARIANCE = 1e-2
# Examples at a time; the noise of an evaluation depends on it.
BATCH = 250

POINT_COLUMNS = (
    "member",
    "split",
    "family",
    *FIELDS,
    "steps",
    "rate",
    "distortion",
    "elbo",
    "rate_se",
    "distortion_se",
    "elbo_se",
    "rate_estimator",
    "active_units",
    "examples",
    "parameters",
    "status",
)


def evaluate(
    trained: Trained,
    dataset: Dataset,
    splits: Sequence[str] = ("test", "train"),
    listener: Callable[[int], None] | None = None,
    *,
    lanes: int | None = None,
) -> list[Point]:
    """Rate, distortion and ELBO of every member on whole splits, no example dropped.

    Each example gets one draw of z; the standard errors are over examples and contain that noise. The rate is the closed form
    KL(e(z|x) || m(z)) where there is one and log e(z|x) - log m(z) at the draw elsewhere; `rate_estimator` says which. The former
    is never negative; the mean of the latter may be, by its standard error, when the rate is near zero.

    Args:
      trained: Members trained together.
      dataset: Where the splits are.
      splits: Which of them to use.
      listener: Called now and then with the number of member-examples done since.
      lanes: The most members that a device evaluates side by side; None means as many as it trained side by side.

    Returns:
      One row per member and split with the columns `POINT_COLUMNS`; nats, means over examples.
    """
    members, seeds = trained.members, [member.seed for member in trained.members]
    own = parameter_shapes(trained.program.model, dataset.image_shape)
    estimator = trained.program.model.rate_estimator(own, jax.ShapeDtypeStruct((1, *dataset.image_shape), np.float32))

    points: list[Point] = []
    for split in splits:
        images = dataset.splits[split]
        tell = (lambda examples: listener(len(members) * examples)) if listener else None
        result = measure(trained, seeds, images, SPLITS.index(split), tell, lanes=lanes)
        active = active_units(result, len(images))
        for i, member in enumerate(members):
            estimates = means(result.rate[i], result.distortion[i])
            shapes = parameter_shapes(member.build(dataset.image_shape), dataset.image_shape)
            points.append(
                {
                    "member": member.name,
                    "split": split,
                    "family": member.family,
                    **dataclasses.asdict(member),
                    "steps": int(trained.steps[i]),
                    **estimates,
                    "rate_estimator": estimator,
                    "active_units": int(active[i]),
                    "examples": len(images),
                    "parameters": sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)),
                    # A last step may explode without a further one to notice it.
                    "status": "ok" if trained.finite[i] and math.isfinite(estimates["elbo"]) else "diverged",
                }
            )
    return points


def measure(
    fitted: Fitted,
    seeds: Sequence[int],
    data: np.ndarray,
    split: int = 0,
    listener: Callable[[int], None] | None = None,
    *,
    lanes: int | None = None,
) -> scores.Evaluation:
    """Rate and distortion of every example under every model of a population, one draw of z each.

    Args:
      fitted: Models trained together.
      seeds: Each one's seed.
      data: (examples, ...), all of which are used.
      split: A number that names the split: each has noise of its own.
      listener: Called now and then with the number of examples done since.
      lanes: See `evaluate`.

    Returns:
      (members, examples) rates and distortions, and the codes' moments.
    """
    mesh = population.make_mesh(fitted.devices, len(seeds))
    params = population.place(jax.tree.map(lambda leaf: fill_rows(leaf, mesh.size), fitted.params), mesh)
    rows = population.place(fill_rows(np.asarray(seeds, np.uint32), mesh.size), mesh)
    program = dataclasses.replace(fitted.program, lanes=lanes or fitted.program.lanes)
    result = scores.evaluate(program, mesh, params, rows, data, split, min(BATCH, len(data)), listener)
    return scores.Evaluation(*(column[: len(seeds)] for column in result))


def means(rate: np.ndarray, distortion: np.ndarray) -> dict[str, float]:
    """Means over examples in nats, and their standard errors, under the names of the points' columns."""
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


def active_units(result: scores.Evaluation, examples: int) -> np.ndarray:
    """How many latent dimensions of each member vary by more than `ACTIVE_VARIANCE` over the examples."""
    batches = result.code_mean.shape[1]
    counts = np.full(batches, min(BATCH, examples), np.float64)
    counts[-1] = examples - counts[:-1].sum()
    share = (counts / examples)[None, :, None]
    mean = (share * result.code_mean.astype(np.float64)).sum(1)
    within = (share * result.code_variance.astype(np.float64)).sum(1)
    between = (share * (result.code_mean.astype(np.float64) - mean[:, None]) ** 2).sum(1)
    return ((within + between) > ACTIVE_VARIANCE).sum(-1)


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan
