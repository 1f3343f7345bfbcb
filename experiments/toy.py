"""The toy model (Alemi et al. 2018, section 4): optimum, ELBO and target rate side by side, over many initialisations.

    python -m experiments.toy --workdir=runs/toy

Writes points.csv (a row per trained model), optimum.csv (the hand-built model), models.npz (the tables that Figure 2 shows),
phase_diagram.csv (the curves of Figure 1), summary.json and figures/.
"""

import dataclasses
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from experiments import common, toy_figures
from rd_elbo import disk
from rd_elbo.errors import BadInput, choice, number, whole
from rd_elbo.exact import discrete, toy
from rd_elbo.exact.blahut_arimoto import blahut_arimoto
from rd_elbo.training import fit, optim, sharding, state

# What the worse decoder and the worse prior of Figure 1 waste.
_WASTED = 0.4

Config = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Run:
    """One model to train.

    Attributes:
      study: Name of the study that the model is part of.
      objective: "beta" or "target_rate"; its numbers follow.
      initial_scale: Standard deviation of the initial parameters, see `toy.Toy`.
      steps: Updates of the training.
    """

    study: str
    objective: str
    beta: float
    target_rate: float
    target_weight: float
    kl_warmup_fraction: float
    initial_scale: float
    learning_rate: float
    steps: int
    seed: int


def runs(config: Config) -> list[Run]:
    """Every model of the experiment; those of one objective and length are trained as one population."""
    n, few = config["initialisations"], config["curve_initialisations"]

    def make(study: str, seeds: int, beta: float | None = None, **changes: Any) -> Iterator[Run]:
        common_to_all = {
            "objective": "target_rate" if beta is None else "beta",
            "beta": 1.0 if beta is None else beta,
            "target_rate": config["target_rate"] if beta is None else 0.0,
            "target_weight": config["target_weight"],
            "kl_warmup_fraction": 0.0,
            "initial_scale": config["initial_scale"],
            "learning_rate": config["learning_rate"],
            "steps": config["steps"],
        }
        for seed in range(seeds):
            yield Run(study, seed=seed, **{**common_to_all, **changes})

    slow = {"learning_rate": config["elbo_learning_rate"]}
    wide = {"initial_scale": config["wide_scale"], "steps": config["wide_steps"]}
    rows = [*make("elbo", n, 1.0, **slow), *make("elbo_wide", config["wide"], 1.0, **slow, **wide)]
    for beta in config["betas"]:
        rows += make("beta_curve", few, beta)
    rows += [*make("target", n), *make("target_wide", config["wide"], **wide)]
    rows += make("target_printed", config["printed_weight"], target_weight=1.0)
    for rates, warmup in ((config["target_rates"], 0.0), (config["high_target_rates"], config["kl_warmup_fraction"])):
        for rate in rates:
            rows += make("target_curve", few, target_rate=rate, kl_warmup_fraction=warmup)
    return rows


def check(config: Config) -> None:
    """Raises `BadInput` for a configuration that cannot be done."""
    codes = whole("codes", config["codes"], 2)
    for field in ("initialisations", "printed_weight", "wide", "curve_initialisations", "steps", "wide_steps"):
        whole(field, config[field])
    for field in ("initial_scale", "wide_scale"):
        number(field, config[field])
    for field in ("target_weight", "elbo_learning_rate", "learning_rate", "adam_b2"):
        number(field, config[field], above=True)
    if config["adam_b2"] >= 1:
        raise BadInput(f"adam_b2={config['adam_b2']!r} must be below 1")
    choice("schedule", config["schedule"], optim.SCHEDULES)
    choice("population.dtype", config["population"]["dtype"], ("float64",))
    for field in ("devices", "vmap_size"):
        if config["population"][field] is not None:
            whole(f"population.{field}", config["population"][field])
    for field in ("betas", "target_rates", "high_target_rates"):
        if isinstance(config[field], str) or not config[field]:
            raise BadInput(f"{field}={config[field]!r} must hold at least one number")
    for beta in config["betas"]:
        number("betas", beta)
    if number("kl_warmup_fraction", config["kl_warmup_fraction"]) > 1:
        raise BadInput(f"kl_warmup_fraction={config['kl_warmup_fraction']!r} is a part of the training and must be at most 1")
    for rate in (config["target_rate"], *config["target_rates"], *config["high_target_rates"]):
        toy.check_target(rate, codes)


def work(config: Config, workdir: pathlib.Path, progress: common.Progress) -> dict[str, float]:
    """Trains everything and writes the tables."""
    everything = runs(config)
    populations: dict[tuple[str, int], list[Run]] = {}
    for run in everything:
        populations.setdefault((run.objective, run.steps), []).append(run)
    total = sum(run.steps for run in everything)
    seconds = {"training": 0.0, "compiling": 0.0}
    points: list[dict[str, Any]] = []
    models: dict[str, discrete.Tables] = {"optimum": toy.optimum()}
    done = 0
    for (name, _), population_runs in populations.items():

        def callback(p: fit.Progress, _: state.Metrics, done: int = done, name: str = name) -> None:
            share = (done + p.members * p.steps) / total
            progress(0.97 * share, f"{p.members} models by {name.replace('_', ' ')}: step {p.steps}/{p.total_steps}")

        fitted = train_population(population_runs, config, callback)
        seconds["training"] += fitted.seconds
        seconds["compiling"] += fitted.compile_seconds
        model = toy.Toy(config["codes"])
        tables = jax.vmap(lambda params, model=model: model.tables(params, toy.source()))(fitted.params)
        points += rows_of(population_runs, fitted, tables)
        for i, run in enumerate(population_runs):
            if run.study in ("elbo", "target") and run.study not in models:
                models[run.study] = jax.tree.map(lambda table, i=i: table[i], tables)
        done += sum(run.steps for run in population_runs)
    began = time.perf_counter()
    progress(0.97, "phase diagram by Blahut-Arimoto")
    disk.write_table(workdir / "phase_diagram.csv", ("curve", "beta", "rate", "distortion", "gap"), phase_diagram())
    seconds["phase_diagram"] = time.perf_counter() - began
    hand_built = [{"study": "optimum", **functionals(models["optimum"])}]
    disk.write_table(workdir / "optimum.csv", tuple(hand_built[0]), hand_built)
    disk.write_arrays(
        workdir / "models.npz", {f"{name}/{key}": np.asarray(v) for name, t in models.items() for key, v in t._asdict().items()}
    )
    disk.write_json(workdir / "summary.json", summary(points, config))
    disk.write_table(workdir / "points.csv", tuple(points[0]), points)
    return seconds


def train_population(members: list[Run], config: Config, callback: fit.Callback | None = None) -> fit.Fitted:
    """Trains models of one objective and length together, on the single example p*: see `toy.Toy`."""
    spec = state.TrainSpec(
        toy.Toy(config["codes"]),
        members[0].objective,
        batch_size=1,
        schedule=config["schedule"],
        adam_b2=config["adam_b2"],
        dtype=config["population"]["dtype"],
        vmap_size=config["population"]["vmap_size"],
    )
    models = [toy.Toy(config["codes"], run.initial_scale) for run in members]
    hparams, steps = state.HParams.of(members, spec), members[0].steps
    mesh = sharding.make_mesh(config["population"]["devices"], len(members))
    return fit.fit(spec, models, hparams, toy.source()[None], steps, mesh=mesh, metrics_every=steps, callback=callback)


@jax.jit
def _functionals(t: discrete.Tables) -> dict[str, jax.Array]:
    rate, distortion = discrete.rate(t), discrete.distortion(t)
    codes = toy.codes_and_bit(jnp.log(toy.labelled_source()), t.encoder)
    return {
        "rate": rate,
        "distortion": distortion,
        "elbo": -(rate + distortion),
        "excess": rate + distortion - discrete.entropy(t.source),
        "encoder_information": discrete.encoder_information(t),
        "prior_gap": discrete.prior_gap(t),
        "decoder_gap": discrete.decoder_gap(t),
        "generative_lower": discrete.generative_lower(t),
        "generative_information": discrete.generative_information(t),
        "generative_upper": discrete.generative_upper(t, t.source),
        "code_information": codes.information,
        "larger_cluster": codes.larger_mass,
        "codes_used": codes.used,
    }


def functionals(t: discrete.Tables) -> dict[str, float]:
    """Everything points.csv says of one model; nats, but for `larger_cluster`, a probability, and `codes_used`, a number."""
    return {name: float(value) for name, value in _functionals(t).items()}


def rows_of(members: list[Run], fitted: fit.Fitted, tables: discrete.Tables) -> list[dict[str, Any]]:
    """Rows of points.csv."""
    values = {name: np.asarray(column) for name, column in jax.jit(jax.vmap(_functionals))(tables).items()}
    return [
        {
            **dataclasses.asdict(run),
            "steps": int(fitted.steps[i]),
            **{name: float(column[i]) for name, column in values.items()},
            "status": "ok" if fitted.alive[i] else "diverged",
        }
        for i, run in enumerate(members)
    ]


def phase_diagram() -> list[dict[str, Any]]:
    """The curves of the paper's Figure 1, computed for the toy's source and a fixed decoder: bumps, and p* itself, to a tenth.

    The frontier is the least D + beta R of that decoder over all encoders and priors. A worse decoder gives a part of its
    probability to symbols that never occur, a worse prior to codes that are never used. The best encoder does not change by
    that, and every point moves by -log(1 - part), up or to the right.
    """
    k = np.arange(toy.SYMBOLS)
    bumps = np.exp(-0.5 * (k[None] - k[:, None]) ** 2)
    decoder = 0.9 * bumps / bumps.sum(1, keepdims=True) + 0.1 * toy.source()
    c = blahut_arimoto(toy.source(), -np.log(decoder.T), np.geomspace(1 / 30, 30, 61))
    shift = float(-np.log(1 - _WASTED))
    return [
        {"curve": name, "beta": float(b), "rate": float(r) + right, "distortion": float(d) + up, "gap": float(gap)}
        for name, right, up in (("frontier", 0.0, 0.0), ("worse decoder", 0.0, shift), ("worse prior", shift, 0.0))
        for b, r, d, gap in zip(c.beta, c.rate, c.distortion, c.gap, strict=True)
    ]


def summary(points: list[dict[str, Any]], config: Config) -> dict[str, Any]:
    """The numbers of the claim; fractions are of all initialisations, and one that diverged counts as failed."""

    def column(study: str, name: str) -> np.ndarray:
        return np.asarray([row[name] if row["status"] == "ok" else np.nan for row in points if row["study"] == study])

    def part(holds: np.ndarray) -> float:
        return float(np.mean(holds))

    p = toy.source()
    wanted = config["target_rate"]
    result: dict[str, Any] = {
        "entropy": float(-(p * np.log(p)).sum()),
        "initialisations": config["initialisations"],
        "elbo_collapsed_fraction": part(column("elbo", "rate") <= 0.005),
        "elbo_gap_fraction": part(column("elbo", "excess") <= 0.001),
        "target_rate_fraction": part(np.abs(column("target", "rate") - wanted) <= 0.001),
        "target_gap_fraction": part(column("target", "excess") <= 0.005),
        "elbo_wide_collapsed_fraction": part(column("elbo_wide", "rate") <= 0.005),
        "elbo_wide_gap_fraction": part(column("elbo_wide", "excess") <= 0.001),
        "target_wide_rate_fraction": part(np.abs(column("target_wide", "rate") - wanted) <= 0.001),
        "target_wide_gap_fraction": part(column("target_wide", "excess") <= 0.005),
        "target_printed_rate_fraction": part(np.abs(column("target_printed", "rate") - wanted) <= 0.001),
        "diverged": sum(row["status"] != "ok" for row in points),
    }
    quantiles = {"min": 0.0, "q01": 0.01, "median": 0.5, "q99": 0.99, "max": 1.0}
    for study in dict.fromkeys(row["study"] for row in points):
        if not study.endswith("curve"):
            names = ("rate", "excess", "code_information", "larger_cluster", "codes_used")
            result[study] = {name: {q: _quantile(column(study, name), at) for q, at in quantiles.items()} for name in names}
    result["beta_curve"] = []
    for beta in config["betas"]:
        rows = [row for row in points if row["study"] == "beta_curve" and row["beta"] == beta and row["status"] == "ok"]
        rates = np.asarray([row["rate"] for row in rows])
        result["beta_curve"].append({"beta": beta, **{name: _quantile(rates, at) for name, at in quantiles.items()}})
    result["target_curve"] = [best_at(points, rate) for rate in (*config["target_rates"], *config["high_target_rates"])]
    return result


def best_at(points: list[dict[str, Any]], target: float) -> dict[str, Any]:
    """Of the runs to one target rate: how many there are, how many hit it, and the least R + D - H of these."""
    rows = [row for row in points if row["study"] == "target_curve" and row["target_rate"] == target]
    hits = toy_figures.hits(points, target)
    return {
        "target_rate": target,
        "runs": len(rows),
        "hits": len(hits),
        "least_excess": min((r["excess"] for r in hits), default=None),
    }


# What the paper reports, where it gives a number (section 4 and Figure 2).
_PAPER = {"optimum": {"rate": "0.5"}, "elbo": {"rate": "0.0002"}, "target": {"rate": "0.4999"}}


def report(console: Console, workdir: pathlib.Path) -> None:
    """Prints the numbers of a run directory beside the paper's."""
    totals, points = disk.read_json(workdir / "summary.json"), disk.read_table(workdir / "points.csv")
    firsts = {study: next(row for row in points if row["study"] == study) for study in ("elbo", "target")}
    shown = {"optimum": disk.read_table(workdir / "optimum.csv")[0], **firsts}
    titles = {"optimum": "built by hand", "elbo": "ELBO", "target": "target rate"}
    title = f"the toy model, seed 0, nats; H = {totals['entropy']:.4f}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("", "R", "paper's R", "D", "R + D - H", "I(z; z*)", "larger cluster"):
        table.add_column(name, justify="left" if not name else "right")
    for study, row in shown.items():
        numbers = (row["distortion"], row["excess"], row["code_information"], row["larger_cluster"])
        paper = _PAPER[study]["rate"] if study != "target" or row["target_rate"] == 0.5 else ""
        table.add_row(titles[study], f"{row['rate']:.4f}", paper, *(f"{number:.4f}" for number in numbers))
    console.print(table)
    n, config = totals["initialisations"], disk.read_json(workdir / "config.json")
    wide = f"from scale {config['wide_scale']:g}"
    lines = [
        ("ELBO, R <= 0.005", "elbo_collapsed_fraction", n),
        ("ELBO, R + D <= H + 0.001", "elbo_gap_fraction", n),
        (f"target, |R - {config['target_rate']:g}| <= 0.001", "target_rate_fraction", n),
        ("target, R + D <= H + 0.005", "target_gap_fraction", n),
        (f"ELBO {wide}, R <= 0.005", "elbo_wide_collapsed_fraction", config["wide"]),
        (f"target {wide}, R + D <= H + 0.005", "target_wide_gap_fraction", config["wide"]),
        (
            f"target with weight 1, as printed, |R - {config['target_rate']:g}| <= 0.001",
            "target_printed_rate_fraction",
            config["printed_weight"],
        ),
    ]
    title = f"parts of the initialisations, of scale {config['initial_scale']:g} where nothing is said (the paper: dozens, alike)"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("", "part", "of"):
        table.add_column(name, justify="right" if name else "left")
    for title, name, count in lines:
        table.add_row(title, f"{100 * totals[name]:.1f} %", str(count))
    console.print(table)
    printed = totals["target_printed"]["rate"]
    if printed["min"] is not None:
        sigma = f"{config['target_rate']:g}"
        line = f"With weight 1 the loss above the target is R + D - {sigma}, constant along the diagonal"
        console.print(f"{line}; the runs end at R from {printed['min']:.3f} to {printed['max']:.3f}.", highlight=False)
    ends = [row["max"] for row in totals["beta_curve"] if row["beta"] > 1 and row["max"] is not None]
    starts = [row["min"] for row in totals["beta_curve"] if row["beta"] < 1 and row["min"] is not None]
    if ends and starts:
        console.print(f"By beta: R <= {max(ends):.4f} above 1, R >= {min(starts):.4f} below 1.", highlight=False)
    hit = [f"{row['target_rate']:g}: {row['least_excess']:.4f}" for row in totals["target_curve"] if row["hits"]]
    console.print(f"By target rate, best R + D - H: {', '.join(hit) or 'no run hit its target'}.", highlight=False)


def _quantile(values: np.ndarray, at: float) -> float | None:
    finite = values[np.isfinite(values)]
    return float(np.quantile(finite, at)) if len(finite) else None


if __name__ == "__main__":
    common.main("toy", check, work, report, toy_figures.draw_all)
