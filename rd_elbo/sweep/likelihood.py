"""The table of likelihoods of a run directory, likelihood.csv, filled member by member.

A likelihood is no point of the rate-distortion plane: with K draws, the terms of a model no longer
add up to R + D. It is the number to compare with published negative log-likelihoods.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from rd_elbo import disk
from rd_elbo.data.dataset import SPLITS
from rd_elbo.errors import BadInput, whole
from rd_elbo.sweep import provenance, tables
from rd_elbo.sweep.folder import locked
from rd_elbo.sweep.restore import Run
from rd_elbo.training.likelihood import columns, importance_weighted
from rd_elbo.training.regularisation import AVERAGINGS

COLUMNS = (
    *("member", "split", "averaging", "family", "nll", "nll_se"),
    *("posterior_gap", "posterior_gap_se"),
    *("nll_samples", "nll_examples", "params", "data", "version"),
)
FILE = "likelihood.csv"
Row = Mapping[str, Any]


def fill(
    run: Run,
    samples: int,
    examples: int | None,
    split: str,
    *,
    chunk: int = 1,
    vmap_size: int | None = None,
    progress: Callable[[float, str], None] = lambda *_: None,
) -> tuple[list[dict[str, Any]], int]:
    """Bound log p(x) of every saved member, and write likelihood.csv after each chunk of them.

    `nll` is -log p(x), bounded from above by K draws, mean over examples; `posterior_gap` is
    -ELBO - NLL. The ELBO is that of the same examples and the same draws, K of them per example,
    with log e(z|x) - log m(z) as the rate: so no example has a negative gap, and the noise that
    both share cancels. Standard errors are over examples.

    A row stays where its member has the same parameters, data, split, draws and examples. It also
    has `params` and `data`, abbreviated SHA-256 of both.

    Args:
      run: The run.
      samples: Draws of z for each example, K.
      examples: Examples of the split, a fixed random choice; None means all.
      split: Split to evaluate.
      chunk: Draws at a time, which changes memory and time alone.
      vmap_size: The most members that a device evaluates side by side; None means as many as in
        training, and no more than 16 on CPU and 128 elsewhere.
      progress: Callback with the part of the work done, 0 to 1, and the current activity.

    Returns:
      The rows of the saved members, in the order of points.csv, and how many of them are new.

    Raises:
      BadInput: If an argument is not allowed, or the folder is in use.
    """
    if split not in run.dataset.splits:
        raise BadInput(
            f"split={split!r}: expected one of {', '.join(run.dataset.splits)}, those of "
            f"{run.dataset.name!r}."
        )
    whole("nll", samples)
    available = len(run.dataset.splits[split])
    count = available if examples is None else min(whole("examples", examples), available)
    dataset = run.dataset.head(count) if count < available else run.dataset
    images = dataset.splits[split]
    asked = {"split": split, "nll_samples": samples, "nll_examples": count}
    asked["data"] = run.dataset.checksum()[:12]
    family = {str(point["member"]): point["family"] for point in run.points}
    path = run.path / FILE
    with locked(run.path):
        before = disk.read_table(path) if path.exists() else []
        identity = {
            (name, averaging): asked | {"member": name, "averaging": averaging}
            for name, averaging in itertools.product(run.saved(), AVERAGINGS)
            if run.has(name, averaging)
        }
        for which, own in identity.items():
            own["params"] = run.params_digest(tables.params_name(*which))
        rows = {_key(row): row for row in before}
        todo = [which for which, own in identity.items() if not _same(rows.get(_key(own)), own)]
        populations = (
            (averaging, *population)
            for averaging in AVERAGINGS
            for population in run.populations([name for name, kind in todo if kind == averaging])
        )
        done = 0
        for averaging, chosen, group, fitted in populations:

            def on_progress(part: float, size: int = len(chosen), done: int = done) -> None:
                progress(
                    (done + part * size) / len(todo),
                    f"{samples} draws, members side by side: {size}",
                )

            seeds = [member.seed for member in group.members]
            number = SPLITS.index(split)
            found = importance_weighted(
                fitted, seeds, images, samples, number, averaging=averaging, chunk=chunk,
                vmap_size=vmap_size, callback=on_progress,
            )  # fmt: skip
            for name, log_evidence, elbo in zip(chosen, *found, strict=True):
                own = {"family": family[name], "version": provenance.version()}
                row = identity[name, averaging] | columns(log_evidence, elbo) | own
                rows[_key(row)] = row
            done += len(chosen)
            order = {name: i for i, name in enumerate(dict.fromkeys(family))}
            listed = sorted(rows.values(), key=lambda row: order.get(row["member"], len(order)))
            disk.write_table(path, COLUMNS, listed)
    return [dict(rows[_key(own)]) for own in identity.values()], len(todo)


def _key(row: Row) -> tuple[Any, ...]:
    """A row replaces that of the same member, averaging, split and size, of older parameters."""
    own = (str(row[name]) for name in ("member", "split", "nll_samples", "nll_examples"))
    return *own, tables.averaging_of(row)


def _same(row: Row | None, identity: Row) -> bool:
    return row is not None and all(str(row.get(k)) == str(v) for k, v in identity.items())
