"""The toy model (Alemi et al. 2018, section 4): optimum, ELBO and target rate side by side.

    python -m experiments.toy --workdir=runs/toy

Writes points.csv (a row per trained model), optimum.csv (the hand-built model), models.npz (the
tables that Figure 2 shows), phase_diagram.csv (the curves of Figure 1), summary.json and figures/.
"""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import common, toy_figures, toy_numbers
from rd_elbo import disk
from rd_elbo.errors import BadInput, choice, number, whole
from rd_elbo.exact import discrete, toy
from rd_elbo.exact.blahut_arimoto import blahut_arimoto
from rd_elbo.training import fit, optim, sharding, state

# What the worse decoder and the worse prior of Figure 1 waste.
_WASTED = 0.4

Config = dict[str, Any]
Row = dict[str, Any]


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
    """List every model; those of one objective and length are trained as one population."""
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
    for rates, warmup in (
        (config["target_rates"], 0.0),
        (config["high_target_rates"], config["kl_warmup_fraction"]),
    ):
        for rate in rates:
            rows += make("target_curve", few, target_rate=rate, kl_warmup_fraction=warmup)
    return rows


def check(config: Config) -> None:
    """Raises `BadInput` for a configuration that cannot be done."""
    codes = whole("codes", config["codes"], 2)
    for field in (
        *("initialisations", "printed_weight", "wide", "curve_initialisations"),
        *("steps", "wide_steps"),
    ):
        whole(field, config[field])
    for field in ("initial_scale", "wide_scale"):
        number(field, config[field])
    for field in ("target_weight", "elbo_learning_rate", "learning_rate", "adam_b2"):
        number(field, config[field], above=True)
    if config["adam_b2"] >= 1:
        raise BadInput(f"adam_b2={config['adam_b2']!r}: expected below 1.")
    choice("schedule", config["schedule"], optim.SCHEDULES)
    choice("population.dtype", config["population"]["dtype"], ("float64",))
    for field in ("devices", "vmap_size"):
        if config["population"][field] is not None:
            whole(f"population.{field}", config["population"][field])
    for field in ("betas", "target_rates", "high_target_rates"):
        if isinstance(config[field], str) or not config[field]:
            raise BadInput(f"{field}={config[field]!r}: expected at least one number.")
    for beta in config["betas"]:
        number("betas", beta)
    warmup = config["kl_warmup_fraction"]
    if number("kl_warmup_fraction", warmup) > 1:
        raise BadInput(f"kl_warmup_fraction={warmup!r}: expected at most 1, the whole training.")
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
    points: list[Row] = []
    models: dict[str, discrete.Tables] = {"optimum": toy.optimum()}
    done = 0
    for (name, _), population_runs in populations.items():

        def callback(p: fit.Progress, _: state.Metrics, done: int = done, name: str = name) -> None:
            share = (done + p.members * p.steps) / total
            models = f"{p.members} models by {name.replace('_', ' ')}"
            progress(0.97 * share, f"{models}: step {p.steps}/{p.total_steps}")

        fitted = train_population(population_runs, config, callback)
        seconds["training"] += fitted.seconds
        seconds["compiling"] += fitted.compile_seconds
        model = toy.Toy(config["codes"])
        tables = jax.vmap(functools.partial(model.tables, p=toy.source()))(fitted.params)
        points += rows_of(population_runs, fitted, tables)
        for i, run in enumerate(population_runs):
            if run.study in ("elbo", "target") and run.study not in models:
                models[run.study] = jax.tree.map(lambda table, i=i: table[i], tables)
        done += sum(run.steps for run in population_runs)
    began = time.perf_counter()
    progress(0.97, "phase diagram by Blahut-Arimoto")
    phases = phase_diagram()
    disk.write_table(workdir / "phase_diagram.csv", tuple(phases[0]), phases)
    seconds["phase_diagram"] = time.perf_counter() - began
    hand_built = [{"study": "optimum", **functionals(models["optimum"])}]
    disk.write_table(workdir / "optimum.csv", tuple(hand_built[0]), hand_built)
    arrays = {
        f"{name}/{key}": np.asarray(array)
        for name, tables in models.items()
        for key, array in tables._asdict().items()
    }
    disk.write_arrays(workdir / "models.npz", arrays)
    disk.write_json(workdir / "summary.json", toy_numbers.summary(points, config))
    disk.write_table(workdir / "points.csv", tuple(points[0]), points)
    return seconds


def train_population(
    members: list[Run], config: Config, callback: fit.Callback | None = None
) -> fit.Fitted:
    """Train models of one objective and length together, on the one example p*: see `toy.Toy`."""
    execution = config["population"]
    spec = state.TrainSpec(
        toy.Toy(config["codes"]),
        members[0].objective,
        batch_size=1,
        schedule=config["schedule"],
        adam_b2=config["adam_b2"],
        dtype=execution["dtype"],
        vmap_size=execution["vmap_size"],
    )
    models = [toy.Toy(config["codes"], run.initial_scale) for run in members]
    hparams, steps = state.HParams.of(members, spec), members[0].steps
    mesh = sharding.make_mesh(execution["devices"], len(members))
    how: dict[str, Any] = {"mesh": mesh, "metrics_every": steps, "callback": callback}
    return fit.fit(spec, models, hparams, toy.source()[None], steps, **how)


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
    """Measure one model: the columns of points.csv.

    All are in nats but `larger_cluster`, a probability, and `codes_used`, a number.
    """
    return {name: float(value) for name, value in _functionals(t).items()}


def rows_of(members: list[Run], fitted: fit.Fitted, tables: discrete.Tables) -> list[Row]:
    """Rows of points.csv."""
    values = jax.tree.map(np.asarray, jax.jit(jax.vmap(_functionals))(tables))
    return [
        {
            **dataclasses.asdict(run),
            "steps": int(fitted.steps[i]),
            **{name: float(column[i]) for name, column in values.items()},
            "status": "ok" if fitted.alive[i] else "diverged",
        }
        for i, run in enumerate(members)
    ]


def phase_diagram() -> list[Row]:
    """Compute the curves of the paper's Figure 1 for the toy's source and a fixed decoder.

    The decoder is nine tenths of bumps and one tenth of p*. Its frontier is the least D + beta R
    over all encoders and priors. A worse decoder gives a part of its probability to symbols that
    never occur, a worse prior to codes that are never used. The best encoder stays the same, and
    every point moves by -log(1 - part), up or to the right.

    Returns:
      Rows of phase_diagram.csv, nats.
    """
    k = np.arange(toy.SYMBOLS)
    bumps = np.exp(-0.5 * (k[None] - k[:, None]) ** 2)
    decoder = 0.9 * bumps / bumps.sum(1, keepdims=True) + 0.1 * toy.source()
    found = blahut_arimoto(toy.source(), -np.log(decoder.T), np.geomspace(1 / 30, 30, 61))
    points = np.stack([found.beta, found.rate, found.distortion, found.gap], axis=1).tolist()
    shift = float(-np.log(1 - _WASTED))
    curves = {"frontier": (0.0, 0.0), "worse decoder": (0.0, shift), "worse prior": (shift, 0.0)}
    return [
        {"curve": name, "beta": beta, "rate": r + right, "distortion": d + up, "gap": gap}
        for name, (right, up) in curves.items()
        for beta, r, d, gap in points
    ]


if __name__ == "__main__":
    common.main("toy", check, work, toy_numbers.report, toy_figures.draw_all)
