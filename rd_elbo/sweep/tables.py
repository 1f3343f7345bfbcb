"""The table of points and the files of parameters: made from trained members, and read back."""

import contextlib
import dataclasses
import hashlib
import itertools
import math
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import flax.serialization
import jax
import numpy as np

from rd_elbo import aliases, data, disk, references
from rd_elbo.data.dataset import SPLITS
from rd_elbo.errors import BadInput, choice
from rd_elbo.models.family import PAPER_FAMILIES
from rd_elbo.models.vae import Params
from rd_elbo.sweep.config import load_data
from rd_elbo.sweep.grid import FIELDS, Member
from rd_elbo.training.evaluate import active_units, evaluate, means, rate_estimator
from rd_elbo.training.fit import Fitted
from rd_elbo.training.regularisation import AVERAGINGS
from rd_elbo.training.state import parameter_shapes

Row = Mapping[str, Any]
Point = dict[str, Any]

POINT_COLUMNS = (
    *("member", "split", "averaging", "family", *FIELDS, "steps", "rate", "distortion", "elbo"),
    *("rate_se", "distortion_se", "elbo_se", "rate_estimator", "active_units", "examples"),
    *("parameters", "status", "version"),
)
# What makes a table one of a sweep's points; other columns may be younger than the table.
_SWEEP_COLUMNS = (
    *("split", "member", "family", "encoder", "decoder", "prior", "objective", "beta", "seed"),
    *("rate", "distortion", "examples", "status"),
)


def points(
    members: Sequence[Member],
    fitted: Fitted,
    evaluated: Mapping[str, np.ndarray],
    vmap_size: int | None = None,
    callback: Callable[[int], None] | None = None,
) -> list[Point]:
    """Compute rate, distortion and ELBO of trained members on whole splits.

    A member with `ema_decay` above 0 has two rows per split, which the column `averaging` tells
    apart: its last parameters ("none") and their moving average ("ema").

    Each example gets one draw of z; the standard errors are over examples and contain that noise.
    The rate is KL(e(z|x) || m(z)) where it has a closed form and log e(z|x) - log m(z) at the draw
    elsewhere; `rate_estimator` says which. The mean of the latter may be negative, by its standard
    error, where the rate is near zero.

    Args:
      members: Members, in the order of the population.
      fitted: The population.
      evaluated: Split -> (examples, ...) examples.
      vmap_size: The most members that a device evaluates side by side, see
        `training.evaluate.evaluate`.
      callback: Callback, called now and then with the number of examples done since.

    Returns:
      Rows per member and split, `POINT_COLUMNS` but the version; nats, means over examples.
    """
    seeds, spec = [member.seed for member in members], fitted.spec
    rows: list[Point] = []
    how: dict[str, Any] = {"vmap_size": vmap_size, "callback": callback}
    for split, averaging in itertools.product(evaluated, AVERAGINGS[: 1 + spec.averages]):
        images, number = evaluated[split], SPLITS.index(split)
        shape = images.shape[1:]
        result = evaluate(fitted, seeds, images, number, averaging=averaging, **how)
        active, estimator = active_units(result), rate_estimator(spec, shape)
        for i, member in enumerate(members):
            if averaging not in averagings(member):
                continue
            estimates = means(result.rate[i], result.distortion[i])
            own = jax.tree.leaves(parameter_shapes(member.build(shape), shape, spec.dtype))
            # A last step may explode without a further one to notice it.
            sound = bool(fitted.alive[i]) and math.isfinite(estimates["elbo"])
            row: Point = {"member": member.name, "split": split, "averaging": averaging}
            row |= {"family": member.family}
            row |= {**dataclasses.asdict(member), "steps": int(fitted.steps[i]), **estimates}
            row |= {"rate_estimator": estimator, "active_units": int(active[i])}
            row |= {"examples": len(images), "parameters": sum(math.prod(x.shape) for x in own)}
            rows.append(row | {"status": "ok" if sound else "diverged"})
    return rows


def averagings(member: Member) -> tuple[str, ...]:
    """The kinds of parameters that a trained member has, see `training.regularisation`."""
    return AVERAGINGS if member.ema_decay else AVERAGINGS[:1]


def averaging_of(row: Row) -> str:
    """The parameters that a row of a table is of; tables from before there were others have one."""
    return str(row.get("averaging", AVERAGINGS[0]))


def read_points(workdir: pathlib.Path | str) -> list[dict[str, Any]]:
    """Rows of a sweep's points.csv, whenever it was written.

    Fields of `Member` that did not exist then are at their defaults, which is what the members were
    trained with; a version that was not recorded is "", and `averaging` "none".

    Raises:
      BadInput: If there is no such table, it has a torn row or no row, it is no sweep's, it is not
        what the sweep has written, or a row cannot be one.
    """
    path = pathlib.Path(workdir) / "points.csv"
    recorded = path.with_name("provenance.json")
    about = disk.read_json(recorded) if path.exists() and recorded.exists() else None
    tables = about.get("tables") if isinstance(about, dict) else None
    digest = tables.get(path.name) if isinstance(tables, dict) else None
    # Tables from before this was recorded are taken as they are.
    if digest is not None and digest != disk.sha256(path):
        raise BadInput(
            f"table {str(path)!r}: expected the table as it was written, got another. Run the "
            "sweep's command again to restore it."
        )
    rows = disk.read_table(path)
    if not rows:
        raise BadInput(f"table {str(path)!r}: expected points, got none.")
    for column in _SWEEP_COLUMNS:
        if column not in rows[0]:
            raise BadInput(
                f"table {str(path)!r}: expected a column {column!r}, as sweeps have, got none."
            )
    defaults = {field.name: field.default for field in dataclasses.fields(Member)}
    defaults |= {"version": "", "averaging": AVERAGINGS[0]}
    points = [{**defaults, **row} for row in rows]
    for line, point in enumerate(points, start=2):
        try:
            _check_point(point)
        except BadInput as error:
            raise BadInput(f"table {str(path)!r}, line {line}: {error}") from error
    return points


def _check_point(point: Row) -> None:
    """Raise `BadInput` unless a row can be one of a sweep's; a diverged one may have any rate."""
    # Own parts need not be there for a table to be read.
    own = {field: point[field] for field in FIELDS}
    Member(**{field: value for field, value in own.items() if not references.is_reference(value)})
    choice("split", point["split"], SPLITS)
    choice("status", point["status"], ("ok", "diverged"))
    choice("averaging", point["averaging"], AVERAGINGS)
    if len(str(point["family"])) != len(PAPER_FAMILIES[0]):
        raise BadInput(
            f"family={point['family']!r}: expected three characters, such as {PAPER_FAMILIES[0]!r}."
        )
    for field in ("rate", "distortion"):
        if not isinstance(point[field], int | float):
            raise BadInput(f"{field}={point[field]!r}: expected a number.")


def sound(point: Row) -> bool:
    """Whether a row is of a member that did not diverge."""
    return point["status"] == "ok" and bool(np.isfinite([point["rate"], point["distortion"]]).all())


def usable(points: Iterable[Row], split: str) -> list[Row]:
    """The points of one split, leaving out members that diverged.

    Raises:
      BadInput: If no finite point of that split is there.
    """
    points = list(points)
    found = [p for p in points if p["split"] == split and sound(p)]
    if not found:
        have = ", ".join(repr(name) for name in dict.fromkeys(p["split"] for p in points))
        raise BadInput(
            f"split={split!r}: expected finite points, got none. The table has points of {have}."
        )
    return found


def data_name(workdir: pathlib.Path | str) -> str | None:
    """The name of the dataset of a run directory's points; None where it is not recorded.

    Raises:
      BadInput: If what records it is damaged.
    """
    for file in ("provenance.json", "config.json"):
        path = pathlib.Path(workdir) / file
        if path.exists():
            recorded = disk.read_json(path)
            about = recorded.get("data") if isinstance(recorded, dict) else None
            name = about.get("name") if isinstance(about, dict) else None
            if isinstance(name, str):
                return name
    return None


def params_name(member: str, averaging: str = "none") -> str:
    """The name of a member's parameters: its own, or with ".ema" those of their average."""
    return member if averaging == AVERAGINGS[0] else f"{member}.{averaging}"


def params_path(workdir: pathlib.Path | str, name: str) -> pathlib.Path:
    """Where the parameters of a name, see `params_name`, are saved."""
    return pathlib.Path(workdir) / "params" / f"{name}.msgpack"


def save_all_params(
    workdir: pathlib.Path, members: Sequence[Member], fitted: Fitted, shape: tuple[int, ...]
) -> dict[str, str]:
    """Save all parameters on this process's devices.

    Returns:
      Name of the parameters, see `params_name` -> SHA-256 of their file.
    """
    saved = {}
    for averaging in AVERAGINGS[: 1 + fitted.spec.averages]:
        for i, own in fitted.local(averaging):
            if averaging in averagings(members[i]):
                name = params_name(members[i].name, averaging)
                saved[name] = save_params(workdir, members[i], own, shape, averaging)
    return saved


def save_params(
    workdir: pathlib.Path,
    member: Member,
    padded: Params,
    shape: tuple[int, ...],
    averaging: str = "none",
) -> str:
    """Save one trained member at its own widths; returns the SHA-256 of the file."""
    own = parameter_shapes(member.build(shape), shape)
    params = jax.tree.map(lambda leaf, like: leaf[tuple(map(slice, like.shape))], padded, own)
    tree = {"member": dataclasses.asdict(member), "params": jax.tree.map(np.asarray, params)}
    content = flax.serialization.msgpack_serialize(tree)
    path = params_path(workdir, params_name(member.name, averaging))
    disk.write_whole(path, lambda file: file.write(content))
    return hashlib.sha256(content).hexdigest()


def load_params(
    workdir: pathlib.Path | str, name: str, averaging: str = "none"
) -> tuple[Member, Params]:
    """Load a trained member by its name in the tables.

    >>> import tempfile, jax, jax.numpy as jnp, numpy as np, rd_elbo as rd
    >>> x = np.random.RandomState(0).randint(0, 2, (64, 4, 4), np.uint8)
    >>> tiny = rd.Member(encoder_width=4, decoder_width=4, latent=2, batch_size=16)
    >>> grid, dataset = rd.product(tiny, beta=(0.5, 2.0)), rd.Dataset.from_arrays(x, x)
    >>> with tempfile.TemporaryDirectory() as workdir:
    ...     points = rd.sweep(grid, dataset, workdir, splits=("test",))
    ...     member, params = rd.load_params(workdir, points[0]["member"])
    >>> model = member.build((4, 4))
    >>> model.decode(params, jnp.zeros((5, 2))).sample(seed=jax.random.key(0)).shape
    (5, 4, 4)

    Args:
      workdir: The run directory.
      name: Name of the member, column `member`.
      averaging: The last parameters ("none") or their moving average ("ema"), column `averaging`.

    Raises:
      BadInput: If there are no such parameters or their file is damaged.
    """
    choice("averaging", averaging, AVERAGINGS)
    workdir = pathlib.Path(workdir).expanduser()
    path = params_path(workdir, params_name(name, averaging))
    try:
        content = flax.serialization.msgpack_restore(path.read_bytes())
        member, params = aliases.renamed(content["member"]), content["params"]
        # Files of half the size, such as published ones.
        half, single = np.dtype("float16"), np.dtype("float32")
        params = jax.tree.map(lambda p: p.astype(single) if p.dtype == half else p, params)
        return Member(**member), aliases.renamed(params, aliases.PARTS)
    except OSError as error:
        raise BadInput(
            f"member {params_name(name, averaging)!r}: expected saved parameters in "
            f"{str(workdir)!r}, got none ({error.strerror})."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{str(path)!r}: expected a file as it was written, got a damaged one ({error})."
        ) from error


def recorded_config(workdir: str | pathlib.Path) -> dict[str, Any]:
    """The configuration of the sweep in `workdir`.

    Raises:
      BadInput: If there is none, or the run is of something else.
    """
    config = disk.read_json(pathlib.Path(workdir) / "config.json")
    # Experiments on exact models keep a config.json too, without blocks.
    if not isinstance(config, dict) or not isinstance(config.get("blocks"), dict):
        raise BadInput(
            f"workdir={str(workdir)!r}: expected a sweep, got a config.json without blocks."
        )
    for section in ("data", "population"):
        if not isinstance(config.get(section) or {}, dict):
            raise BadInput(
                f"workdir={str(workdir)!r}: expected a whole config.json, got {section}="
                f"{config[section]!r} in it."
            )
    return aliases.current(config)


def recorded_data(workdir: str | pathlib.Path, path: str | None = None) -> data.Dataset:
    """Load the data of the sweep in `workdir` again.

    Args:
      workdir: The run directory.
      path: Present place of data that were moved, or that were arrays; None means the place that
        the run has recorded.

    Raises:
      BadInput: If there is no sweep, or its data cannot be loaded or have changed.
    """
    section = recorded_config(workdir).get("data") or {}
    with advice_on_moved_data(path):
        dataset, _ = load_data(section, path)
    about = disk.read_json(pathlib.Path(workdir) / "provenance.json")
    about = about.get("data") if isinstance(about, dict) else None
    recorded = about.get("sha256") if isinstance(about, dict) else None
    if dataset.checksum() != recorded:
        raise BadInput(
            f"workdir={str(workdir)!r}: expected its data, {dataset.name!r} of SHA-256 {recorded}, "
            f"got data of {dataset.checksum()}. Name the data it was trained on."
        )
    return dataset


@contextlib.contextmanager
def advice_on_moved_data(path: str | None) -> Iterator[None]:
    """Add advice to an error of loading data, unless their present place is given."""
    try:
        yield
    except BadInput as error:
        if path is not None:
            raise
        raise BadInput(f"{error} Or give --data_path, if the data are elsewhere now.") from error
