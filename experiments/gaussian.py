"""A linear-Gaussian source: the learned frontier, its exact curve and probabilistic PCA.

    python -m experiments.gaussian --workdir=runs/gaussian

Writes points.csv (a row per trained model), curves.csv (exact curves), summary.json and figures/.

Models are trained on minibatches with one draw of z per example, like any other. What they became
is measured twice on the training data: in closed form, which has no sampling error and is compared
with the curve; and by drawing z, like any other model, which is compared with the closed form. The
standard errors are those of the draws, since both are over the same data.
"""

import itertools
import math
import pathlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.axes import Axes
from rich import box
from rich.console import Console
from rich.table import Table

from experiments import common
from rd_elbo import disk, information, objectives, plots
from rd_elbo.errors import BadInput, choice, number, whole
from rd_elbo.exact import gaussian
from rd_elbo.models.linear import linear_vae
from rd_elbo.models.vae import VAE
from rd_elbo.report import style
from rd_elbo.training import evaluate, fit, optim, sharding, state

Config = dict[str, Any]
# What the points are to be within of the exact curve, in nats.
_CLAIM = 0.02


class _Study(NamedTuple):
    """Models that are trained together; they differ in beta and seed."""

    name: str
    latent: int
    # Standard deviation of the decoder; None if it is learned.
    noise: float | None
    betas: tuple[float, ...]


def check(config: Config) -> None:
    """Raises `BadInput` for a configuration that cannot be done."""
    variances = config["variances"]
    for field in ("variances", "betas", "latents"):
        if isinstance(config[field], str) or not config[field]:
            raise BadInput(f"{field}={config[field]!r}: expected at least one number.")
    for field in ("variances", "betas"):
        for value in config[field]:
            number(field, value, above=True)
    for field in ("noise", "learning_rate"):
        number(field, config[field], above=True)
    for field in ("examples", "seeds", "steps", "batch_size"):
        whole(field, config[field])
    whole("draws", config["draws"], 2)
    whole("data_seed", config["data_seed"], 0)
    for latent in config["latents"]:
        whole("latents", latent)
    examples, batch_size = config["examples"], config["batch_size"]
    if examples <= len(variances):
        raise BadInput(f"examples={examples}: expected more than the {len(variances)} dimensions.")
    if batch_size > examples:
        raise BadInput(f"batch_size={batch_size}: expected at most the {examples} examples.")
    choice("schedule", config["schedule"], optim.SCHEDULES)
    choice("population.dtype", config["population"]["dtype"], ("float32", "float64"))
    for field in ("devices", "vmap_size"):
        if config["population"][field] is not None:
            whole(f"population.{field}", config["population"][field])


def data(config: Config) -> np.ndarray:
    """(examples, n) draws of the source."""
    rng = np.random.default_rng(config["data_seed"])
    n = len(config["variances"])
    directions, _ = np.linalg.qr(rng.standard_normal((n, n)))
    scaled = rng.standard_normal((config["examples"], n)) * np.sqrt(config["variances"])
    return (rng.standard_normal(n) + scaled @ directions.T).astype(config["population"]["dtype"])


def work(config: Config, workdir: pathlib.Path, progress: common.Progress) -> dict[str, float]:
    """Trains everything and writes the tables."""
    x = data(config)
    mean = x.mean(0, dtype=np.float64)
    matrix = np.atleast_2d(np.cov(x.T.astype(np.float64), bias=True))
    studies = _studies(config)
    seconds = {"training": 0.0, "compiling": 0.0}
    points: list[dict[str, Any]] = []
    for index, study in enumerate(studies):

        def callback(p: fit.Progress, _: state.Metrics, index: int = index) -> None:
            own = studies[index]
            doing = f"{p.members} linear VAEs with {own.latent} latents ({own.name})"
            done = (index + p.steps / p.total_steps) / len(studies)
            progress(done, f"{doing}: step {p.steps}/{p.total_steps}")

        members = list(itertools.product(study.betas, range(config["seeds"])))
        model = linear_vae(len(mean), study.latent, study.noise)
        fitted = train(members, model, x, config, callback)
        seconds["training"] += fitted.seconds
        seconds["compiling"] += fitted.compile_seconds
        points += _points(study, members, fitted, x, mean, matrix, config)
    exact = curves(config, np.linalg.eigvalsh(matrix), points)
    disk.write_table(workdir / "curves.csv", ("curve", "rate", "distortion"), exact)
    disk.write_json(workdir / "summary.json", summary(points, config))
    disk.write_table(workdir / "points.csv", tuple(points[0]), points)
    return seconds


def _studies(config: Config) -> list[_Study]:
    betas, latents = tuple(config["betas"]), dict.fromkeys(config["latents"])
    studies = [_Study("frontier", latent, config["noise"], betas) for latent in latents]
    # Probabilistic PCA, with as many latents as the smallest model, learns its noise at beta = 1.
    few = min(*latents, len(config["variances"]) - 1)
    return [*studies, _Study("ppca", few, None, (1.0,))] if few else studies


def _points(
    study: _Study,
    members: list[tuple[float, int]],
    fitted: fit.Fitted,
    x: np.ndarray,
    mean: np.ndarray,
    matrix: np.ndarray,
    config: Config,
) -> list[dict[str, Any]]:
    """Rows of points.csv, one for each model of a study."""
    seeds, draws = [seed for _, seed in members], range(config["draws"])
    evaluations = (evaluate.evaluate(fitted, seeds, x, draw) for draw in draws)
    # (draws, members)
    distortions = [found.distortion.mean(1, dtype=np.float64) for found in evaluations]
    variances = np.linalg.eigvalsh(matrix)
    points = []
    for i, (beta, seed) in enumerate(members):
        params = jax.tree.map(lambda leaf, i=i: leaf[i], fitted.params)
        exact = gaussian.moments_to_terms(params, mean, matrix, study.noise)
        sampled = np.asarray([distortion[i] for distortion in distortions])
        finite = bool(fitted.alive[i]) and math.isfinite(exact.rate + exact.distortion)
        finite = finite and bool(np.isfinite(sampled).all())
        gap = math.nan
        if not finite:
            # A model that diverged has no moments.
            sampled = np.full_like(sampled, math.nan)
        elif study.name == "ppca":
            likelihood = gaussian.PPCA.fit(mean, matrix, study.latent).log_likelihood(mean, matrix)
            gap = exact.rate + exact.distortion + likelihood
        else:
            rate = max(exact.rate, 0.0)
            least = gaussian.boundary(variances, rate, config["noise"], study.latent)
            gap = exact.distortion - float(least[0])
        points.append(
            {
                "study": study.name,
                "latent": study.latent,
                "noise": "learned" if study.noise is None else study.noise,
                "beta": beta,
                "seed": seed,
                "steps": int(fitted.steps[i]),
                "rate": exact.rate,
                "distortion": exact.distortion,
                "elbo": float(information.elbo(exact.rate, exact.distortion)),
                "gap": gap,
                "sampled_distortion": float(sampled.mean()),
                "sampled_distortion_se": float(sampled.std(ddof=1) / math.sqrt(len(sampled))),
                "status": "ok" if finite else "diverged",
            }
        )
    return points


def train(
    members: list[tuple[float, int]],
    model: VAE,
    x: np.ndarray,
    config: Config,
    callback: fit.Callback,
) -> fit.Fitted:
    """Trains linear VAEs, each of a beta and a seed, by the trainer of the image models."""
    execution, steps = config["population"], config["steps"]
    beta, seed = map(np.asarray, zip(*members, strict=True))
    nothing = np.zeros(len(members), execution["dtype"])
    hparams = state.HParams(
        seed=seed.astype(np.uint32),
        weights=objectives.LossWeights(
            beta=beta.astype(execution["dtype"]), target_rate=nothing, target_weight=nothing
        ),
        kl_warmup_fraction=nothing,
        learning_rate=nothing + np.asarray(config["learning_rate"], execution["dtype"]),
    )
    spec = state.TrainSpec(
        model,
        batch_size=config["batch_size"],
        schedule=config["schedule"],
        dtype=execution["dtype"],
        vmap_size=execution["vmap_size"],
    )
    models = [model] * len(members)
    mesh = sharding.make_mesh(execution["devices"], len(members))
    return fit.fit(
        spec, models, hparams, x, steps, mesh=mesh, metrics_every=steps, callback=callback
    )


def curves(
    config: Config, variances: np.ndarray, points: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Exact curves of a Gaussian source: of any encoder, and of linear VAEs by their latents."""
    frontier = [row for row in points if row["study"] == "frontier" and row["status"] == "ok"]
    highest = max((row["rate"] for row in frontier), default=1.0)
    rate = np.linspace(0, 1.05 * highest, 400)
    few = [latent for latent in config["latents"] if latent < len(variances)]
    kinds = {"exact": None, **{f"{latent} latents": latent for latent in few}}
    return [
        {"curve": name, "rate": float(r), "distortion": float(d)}
        for name, latent in kinds.items()
        for r, d in zip(
            rate, gaussian.boundary(variances, rate, config["noise"], latent), strict=True
        )
    ]


def summary(points: list[dict[str, Any]], config: Config) -> dict[str, Any]:
    """The numbers of the claim, in nats; a model that diverged makes its maximum None."""

    def most(rows: list[dict[str, Any]], value: Any) -> float | None:
        return (
            max(map(value, rows)) if rows and all(row["status"] == "ok" for row in rows) else None
        )

    def gap(row: dict[str, Any]) -> float:
        return abs(row["gap"])

    def sampling_error(row: dict[str, Any]) -> float:
        return abs(row["sampled_distortion"] - row["distortion"])

    n = len(config["variances"])
    frontier = [row for row in points if row["study"] == "frontier"]
    ppca = [row for row in points if row["study"] == "ppca"]
    return {
        "max_gap_to_exact_curve": most([row for row in frontier if row["latent"] >= n], gap),
        "max_gap_with_few_latents": most([row for row in frontier if row["latent"] < n], gap),
        "max_gap_to_ppca_likelihood": most(ppca, gap),
        "max_sampling_error": most(points, sampling_error),
        "max_sampling_standard_error": most(points, lambda row: row["sampled_distortion_se"]),
        "diverged": sum(row["status"] != "ok" for row in points),
        "models": len(points),
    }


def report(console: Console, workdir: pathlib.Path) -> None:
    """Prints the numbers of a run directory."""
    points = disk.read_table(workdir / "points.csv")
    totals = disk.read_json(workdir / "summary.json")
    title = (
        "linear VAEs, nats, worst seed; gap: D above the exact\n"
        "curve at this R; for ppca, -ELBO above its -log likelihood"
    )
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("", "latents", "beta", "R", "D", "gap"):
        table.add_column(name, justify="left" if not name else "right")
    worst: dict[Any, dict[str, Any]] = {}
    for row in points:
        key = row["study"], row["latent"], row["beta"]
        if key not in worst or abs(row["gap"]) > abs(worst[key]["gap"]):
            worst[key] = row
    for (study, latent, beta), row in worst.items():
        terms = f"{row['rate']:.4f}", f"{row['distortion']:.4f}", f"{row['gap']:.5f}"
        table.add_row(study, str(latent), f"{beta:g}", *terms)
    console.print(table)
    lines = {
        "max_gap_to_exact_curve": f"largest gap to the exact curve (to be within {_CLAIM})",
        "max_gap_with_few_latents": "largest gap to the exact curve of as few latents",
        "max_gap_to_ppca_likelihood": "largest gap of -ELBO to probabilistic PCA's -log likelihood",
        "max_sampling_error": "largest difference between D by drawing z and its closed form",
        "max_sampling_standard_error": "largest standard error of D by drawing z",
    }
    for name, line in lines.items():
        none = "none, since a model diverged or there is none"
        value = none if totals[name] is None else f"{totals[name]:.5f}"
        console.print(f"{line}: {value}")


def draw_all(workdir: pathlib.Path) -> list[pathlib.Path]:
    """Draws the learned points on the exact curves; returns the files written."""
    points = disk.read_table(workdir / "points.csv")
    exact = disk.read_table(workdir / "curves.csv")
    points = [row for row in points if row["study"] == "frontier" and row["status"] == "ok"]
    with style.drawing():
        figure, (plane, gaps) = style.subplots(1, 2, figsize=(9.0, 3.9), width_ratios=(1.4, 1))
        names = dict.fromkeys(row["curve"] for row in exact)
        lines = zip(("0.2", "0.5", "0.7"), ("-", "--", "-."), names, strict=False)
        for colour, dash, name in lines:
            rate, distortion = _coordinates(row for row in exact if row["curve"] == name)
            label = "exact, Gaussian source" if name == "exact" else f"exact, {name}"
            plane.plot(rate, distortion, dash, color=colour, lw=1.3, label=label)
        latents = dict.fromkeys(row["latent"] for row in points)
        for colour, marker, latent in zip(plots.COLOURS, "oDs^v", latents, strict=False):
            rows = [row for row in points if row["latent"] == latent]
            rate, distortion = _coordinates(rows)
            marked = {"color": colour, "mfc": "none", "ms": 5, "ls": "none", "marker": marker}
            plane.plot(rate, distortion, label=f"linear VAE, {latent} latents", **marked)
            gaps.plot(rate, [max(abs(row["gap"]), 1e-7) for row in rows], **marked)
            if latent == points[0]["latent"]:
                _write_betas(plane, rows)
        gaps.axhline(_CLAIM, color="0.3", lw=0.8, ls="--", label=f"{_CLAIM:g} nats")
        gaps.set(xlabel="rate $R$ (nats)", ylabel="$D$ above its exact curve (nats)", yscale="log")
        gaps.legend(fontsize=7.5)
        plane.set(xlabel="rate $R$ (nats)", ylabel="distortion $D$ (nats)")
        plane.legend(fontsize=7.5, title=r"numbers: $\beta$ of the circles", title_fontsize=7.5)
    return plots.save(figure, workdir / "figures", "gaussian")


def _coordinates(rows: Iterable[dict[str, Any]]) -> tuple[list[float], list[float]]:
    pairs = [(row["rate"], row["distortion"]) for row in rows]
    return [rate for rate, _ in pairs], [distortion for _, distortion in pairs]


def _write_betas(plane: Axes, rows: list[dict[str, Any]]) -> None:
    """Writes each beta beside the first of its points."""
    beside: dict[str, Any] = {"textcoords": "offset points", "ha": "right", "fontsize": 6.5}
    for beta in sorted({row["beta"] for row in rows}):
        row = next(row for row in rows if row["beta"] == beta)
        plane.annotate(f"{beta:g}", (row["rate"], row["distortion"]), (-3, -8), **beside)


if __name__ == "__main__":
    common.main("gaussian", check, work, report, draw_all)
