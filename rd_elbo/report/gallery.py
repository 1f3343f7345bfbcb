"""Reconstructions and samples of models, as in Alemi et al. 2018, Figures 4, 5 and 6.

A reconstruction is z ~ e(z|x) of a test image and then d(x|z), a sample is z ~ m(z) and then
d(x|z). Of every z several images are drawn: the first is shown as it is, and all of them as their
mean, which shows what z determines from what d makes up.
"""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rd_elbo import disk
from rd_elbo.data.dataset import Dataset
from rd_elbo.errors import BadInput, whole
from rd_elbo.models.vae import Params
from rd_elbo.report.selection import Row, Selected
from rd_elbo.sweep import tables
from rd_elbo.sweep.grid import FIELDS, architecture_of

# Alemi et al. 2018, Figures 4 and 5: averages are over so many draws of d at one z.
DRAWS = 5
_IDENTITY = ("dataset", "split", "member", "averaging", "family", *FIELDS)
_TERMS = ("rate", "distortion", "total")
GALLERY_COLUMNS = ("figure", "panel", "part", "choice", "position", *_IDENTITY, *_TERMS)


class Pictures(NamedTuple):
    """Images of one model.

    Attributes:
      reconstruction: (draws, examples, height, width) or (..., 3) draws of d(x|z) at one z ~ e(z|x)
        of each example.
      sample: (draws, examples, height, width) or (..., 3) draws of d(x|z) at one z ~ m(z) each.
    """

    reconstruction: Any
    sample: Any


@functools.partial(jax.jit, static_argnums=(0, 4))
def draw(
    model: Any, params: Params, x: Float[Array, "examples ..."], key: Array, draws: int = DRAWS
) -> Pictures:
    """Draw reconstructions of `x` and as many samples.

    `model` is static: models of one architecture are equal, and share one compiled program.

    Args:
      model: Model with `encode`, `decode` and `prior`, as `models.vae.VAE` has them.
      params: Parameters of the model.
      x: Images to reconstruct.
      key: Source of all randomness.
      draws: Images at every z.

    Returns:
      The pictures.
    """
    of_e, of_m, of_d = jax.random.split(key, 3)
    from_e = model.encode(params, x).sample(seed=of_e)
    from_m = model.prior_distribution(params, x).sample(seed=of_m, sample_shape=len(x))
    # Together, since an autoregressive decoder takes nearly as long for a few images as for many.
    decoded = model.decode(params, jnp.concatenate([from_e, from_m]))
    images = decoded.sample(seed=of_d, sample_shape=draws)
    return Pictures(images[:, : len(x)], images[:, len(x) :])


def member_key(seed: int, name: str) -> Array:
    """Make the key of a member's pictures from its name.

    Its pictures do not depend on the other members that are drawn.
    """
    # One named generator, as in `population`: the default may be another, or change.
    key = jax.random.key(seed, impl="threefry2x32")
    return jax.random.fold_in(key, np.uint32(int(name[:8], 16)))


def examples_shown(available: int, examples: int, seed: int) -> np.ndarray:
    """Which images of a split are shown: one at random of each of `examples` equal stretches.

    Files may be sorted by class, or by pixels, so neighbours may be alike, and stretches are as
    different as can be.

    Raises:
      BadInput: If fewer are available.
    """
    if whole("examples", examples) > available:
        raise BadInput(
            f"examples={examples!r}: expected at most {available}, the images of the split."
        )
    edges = np.arange(examples + 1) * available // examples
    return np.random.RandomState(whole("seed", seed, 0)).randint(edges[:-1], edges[1:])


@dataclasses.dataclass(frozen=True)
class Report:
    """Counts and time of making a gallery.

    Attributes:
      members: Models drawn from.
      architectures: Different architectures, each of which was compiled once.
      seconds: Wall time of sampling, compilation included.
    """

    members: int
    architectures: int
    seconds: float


def make(
    workdir: pathlib.Path | str,
    dataset: Dataset,
    selected: Sequence[Selected],
    *,
    examples: int = 8,
    seed: int = 0,
    callback: Callable[[int, int], None] | None = None,
) -> Report:
    """Draw from the chosen models; write gallery.npz and gallery.csv.

    The arrays are `data` (examples, height, width) and `index`, its place in the split; `member`,
    names (of parameters, such as "<member>.ema" of an average, see `tables.params_name`);
    `reconstruction` and `sample`, (members, draws, examples, height, width) as in `Pictures`; and
    `seed`.

    Args:
      workdir: The run directory, with trained parameters.
      dataset: The data of the run.
      selected: Models to show, all of one split, whose images are reconstructed.
      examples: Rows of the gallery.
      seed: Source of all randomness.
      callback: Callback with the numbers of members done and in all.

    Returns:
      Counts and time of the gallery.

    Raises:
      BadInput: If a member has no saved parameters, there are not so many examples, or they are no
        images; nothing is written then.
    """
    shape = dataset.image_shape
    if len(shape) != 2 and not (len(shape) == 3 and shape[-1] == 3):
        raise BadInput(
            f"dataset {dataset.name!r}: expected images (height, width) or (height, width, 3) for "
            f"a gallery, got examples of shape {shape}."
        )
    workdir = pathlib.Path(workdir)
    if not (workdir / "params").is_dir():
        raise BadInput(
            f"workdir={str(workdir)!r}: expected a folder 'params' of saved parameters, got tables "
            "alone. Run the sweep's command there."
        )
    if not selected:
        raise BadInput("selected=(): expected at least one model to show, got none.")
    split = selected[0].row["split"]
    if split not in dataset.splits:
        known = ", ".join(map(repr, dataset.splits))
        raise BadInput(f"split={split!r}: expected a split of {dataset.name!r}, one of {known}.")
    index = examples_shown(len(dataset.splits[split]), examples, seed)
    images = dataset.splits[split][index]
    named = ((str(one.row["member"]), tables.averaging_of(one.row)) for one in selected)
    wanted = list(dict.fromkeys(named))
    pictures, architectures, seconds = [], set(), 0.0
    for done, (name, averaging) in enumerate(wanted):
        member, params = tables.load_params(workdir, name, averaging)
        x = jnp.asarray(images, jax.tree.leaves(params)[0].dtype)
        began = time.perf_counter()
        model = member.build(dataset.image_shape, dataset.scale)
        drawn = draw(model, params, x, member_key(seed, name))
        pictures.append(Pictures(*map(np.asarray, drawn)))
        seconds += time.perf_counter() - began
        architectures.add(architecture_of(member))
        if callback is not None:
            callback(done + 1, len(wanted))
    arrays = {
        "data": images,
        # The values that are drawn black and white.
        "range": np.asarray(dataset.range if dataset.kind == "real" else (0.0, dataset.scale)),
        "index": index,
        "member": np.asarray([tables.params_name(*which) for which in wanted]),
        "reconstruction": _compact(np.stack([picture.reconstruction for picture in pictures])),
        "sample": _compact(np.stack([picture.sample for picture in pictures])),
        "seed": np.asarray(seed),
    }
    disk.write_arrays(workdir / "gallery.npz", arrays)
    rows = [table_row(one, dataset.name) for one in selected]
    disk.write_table(workdir / "gallery.csv", GALLERY_COLUMNS, rows)
    return Report(len(wanted), len(architectures), seconds)


def with_parameters(workdir: pathlib.Path | str, rows: Sequence[Row]) -> list[Row]:
    """Leave out rows without saved parameters where the member's other row has them.

    A published table of last parameters and averages may come with the averages alone. Members
    without any stay, so that `make` names them.

    Args:
      workdir: The run directory.
      rows: Rows of points.csv.
    """

    def saved(row: Row) -> bool:
        name = tables.params_name(str(row["member"]), tables.averaging_of(row))
        return tables.params_path(workdir, name).exists()

    have = {str(row["member"]) for row in rows if saved(row)}
    return [row for row in rows if str(row["member"]) not in have or saved(row)]


def _compact(images: np.ndarray) -> np.ndarray:
    """Images of 8-bit levels, such as 0 and 1, as bytes; others as they are."""
    whole = images.min() >= 0 and images.max() <= 255 and (images == np.rint(images)).all()
    return images.astype(np.uint8) if whole else images


def table_row(choice: Selected, dataset: str) -> dict[str, Any]:
    """A choice as a row of gallery.csv."""
    row = choice.row
    return {
        **{field: row.get(field, "") for field in FIELDS},
        "figure": choice.figure,
        "panel": choice.panel,
        "part": choice.part,
        "choice": choice.choice,
        "position": choice.position,
        "dataset": dataset,
        "split": row["split"],
        "member": row["member"],
        "averaging": tables.averaging_of(row),
        "family": row["family"],
        "rate": row["rate"],
        "distortion": row["distortion"],
        "total": float(row["rate"]) + float(row["distortion"]),
    }
