"""The experiments at their quick size, the numbers they sum up, and what they refuse."""

import copy
import math
import pathlib

import matplotlib.image
import numpy as np
import pytest
from rich.console import Console

from configs import gaussian as gaussian_config
from configs import toy as toy_config
from experiments import gaussian, toy, toy_figures, toy_numbers
from rd_elbo import disk
from rd_elbo.errors import BadInput
from rd_elbo.sweep.folder import open_run

ROOT = pathlib.Path(__file__).parents[1]


def config_of(module, **changes):
    return module.get_config("quick").to_dict() | changes


@pytest.fixture(scope="module")
def toy_run(tmp_path_factory):
    import jax

    workdir = tmp_path_factory.mktemp("toy")
    config = config_of(toy_config)
    toy.check(config)
    seen = []
    with jax.enable_x64(True):
        open_run(workdir, config)
        toy.work(config, workdir, lambda done, doing: seen.append(done))
    assert seen == sorted(seen) and seen[0] > 0 and seen[-1] <= 1
    return workdir


@pytest.mark.slow
def test_toy_tables(toy_run):
    points = disk.read_table(toy_run / "points.csv")
    totals = disk.read_json(toy_run / "summary.json")
    config = config_of(toy_config)
    assert len(points) == 2 * 16 + 2 * 8 + 8 + 2 * 14 + 2 * 12 == len(toy.runs(config))
    for row in points:
        assert row["elbo"] == -(row["rate"] + row["distortion"])
        assert row["steps"] == 20 and row["status"] == "ok"
        assert math.isclose(row["excess"], row["prior_gap"] + row["decoder_gap"], abs_tol=1e-12)
        information, least = row["encoder_information"], totals["entropy"] - row["distortion"]
        assert least <= information + 1e-12 <= row["rate"] + 2e-12
        generative = row["generative_information"]
        assert row["generative_lower"] <= generative + 1e-12 <= row["generative_upper"] + 2e-12
        assert row["code_information"] <= information + 1e-12
    assert abs(totals["entropy"] - 2.8620) < 5e-5 and totals["initialisations"] == 16
    for name in ("elbo_collapsed", "elbo_gap", "target_rate", "target_gap"):
        assert 0 <= totals[f"{name}_fraction"] <= 1
    (optimum,) = disk.read_table(toy_run / "optimum.csv")
    assert abs(optimum["rate"] - 0.5) < 5e-5 and abs(optimum["excess"]) < 1e-12


@pytest.mark.slow
def test_toy_phase_diagram(toy_run):
    rows = disk.read_table(toy_run / "phase_diagram.csv")
    entropy = disk.read_json(toy_run / "summary.json")["entropy"]
    curves = {
        name: [row for row in rows if row["curve"] == name]
        for name in ("frontier", "worse decoder", "worse prior")
    }
    assert all(row["rate"] + row["distortion"] > entropy and row["gap"] < 1e-8 for row in rows)
    for best, up, right in zip(*curves.values(), strict=True):
        assert math.isclose(up["distortion"] - best["distortion"], -math.log(0.6))
        assert math.isclose(right["rate"] - best["rate"], -math.log(0.6))
        assert up["rate"] == best["rate"] and right["distortion"] == best["distortion"]


@pytest.mark.slow
def test_toy_figures(toy_run):
    paths = toy_figures.draw_all(toy_run)
    names = {"figure1", "figure2", "curve", "initialisations"}
    assert {path.name for path in paths} == {
        f"{n}.{kind}" for n in names for kind in ("png", "pdf")
    }
    for path in paths:
        if path.suffix == ".png":
            assert matplotlib.image.imread(path)[..., :3].std() > 0.05
    (toy_run / "models.npz").write_bytes(b"nothing")
    with pytest.raises(BadInput, match="got a damaged one"):
        toy_figures.draw_all(toy_run)


def test_fractions_count_what_they_say():
    config = config_of(toy_config, initialisations=4)

    def row(study, rate, excess, status="ok", **more):
        values = {"beta": 1.0, "target_rate": 0.5, "code_information": 0.3}
        values |= {"larger_cluster": 0.7, "codes_used": 9}
        return {"study": study, "rate": rate, "excess": excess, "status": status, **values, **more}

    points = [
        *(row("elbo", *terms) for terms in ((0.004, 0.0), (0.006, 0.0005), (0.0, 0.002))),
        row("elbo", 0.0, 0.0, "diverged"),
        *(row("target", *terms) for terms in ((0.5, 0.004), (0.4991, 0.006), (0.5011, 0.0))),
        *(row(study, 0.0, 0.0) for study in ("elbo_wide", "target_wide", "target_printed")),
        *(
            row("target_curve", *terms, target_rate=0.25)
            for terms in ((0.2501, 0.3), (0.2499, 0.1), (0.3, 0.0))
        ),
        *(row("beta_curve", rate, 0.0, beta=0.9) for rate in (1.0, 2.0, 1.5)),
    ]
    totals = toy_numbers.summary(points, config)
    assert totals["elbo_collapsed_fraction"] == 0.5 and totals["elbo_gap_fraction"] == 0.5
    fractions = [totals["target_rate_fraction"], totals["target_gap_fraction"]]
    np.testing.assert_allclose(fractions, 2 / 3)
    assert totals["diverged"] == 1
    (quarter,) = (row for row in totals["target_curve"] if row["target_rate"] == 0.25)
    assert quarter == {"target_rate": 0.25, "runs": 3, "hits": 2, "least_excess": 0.1}
    (at,) = (row for row in totals["beta_curve"] if row["beta"] == 0.9)
    assert (at["min"], at["median"], at["max"]) == (1.0, 1.5, 2.0)


@pytest.mark.slow
def test_gaussian(tmp_path):
    config = config_of(gaussian_config, steps=400, betas=(0.5, 2.0), seeds=1)
    gaussian.check(config)
    open_run(tmp_path, config)
    gaussian.work(config, tmp_path, lambda done, doing: None)
    points = disk.read_table(tmp_path / "points.csv")
    totals = disk.read_json(tmp_path / "summary.json")
    studies = [("frontier", 8)] * 2 + [("frontier", 3)] * 2 + [("ppca", 3)]
    assert [(row["study"], row["latent"]) for row in points] == studies
    for row in points:
        # The curve of the very data they were trained on: nothing is below it, and four hundred
        # steps come near.
        assert -1e-5 < row["gap"] < 2.0
        # With four draws the standard error is rough itself.
        error, se = row["sampled_distortion"] - row["distortion"], row["sampled_distortion_se"]
        assert abs(error) < 10 * se + 1e-4 and 0 < se < 0.5
    assert totals["max_gap_to_exact_curve"] == max(row["gap"] for row in points[:2])
    assert totals["max_gap_with_few_latents"] == max(row["gap"] for row in points[2:4])
    assert [path.name for path in gaussian.draw_all(tmp_path)] == ["gaussian.png", "gaussian.pdf"]


def test_a_gaussian_run_in_which_all_diverges_still_tells(tmp_path, capsys):
    small = {"steps": 40, "betas": (1.0,), "latents": (1,), "variances": (1.0,), "seeds": 1}
    config = config_of(gaussian_config, learning_rate=1e12, **small)
    gaussian.check(config)
    open_run(tmp_path, config)
    gaussian.work(config, tmp_path, lambda done, doing: None)
    assert [row["status"] for row in disk.read_table(tmp_path / "points.csv")] == ["diverged"]
    assert disk.read_json(tmp_path / "summary.json")["max_gap_to_exact_curve"] is None
    gaussian.report(Console(width=200), tmp_path)
    assert "none, since a model diverged" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("module", "changes", "sentence"),
    [
        (toy, {"target_rate": 3.5}, "target_rate=3.5: expected at most log 30 = 3.401 nats"),
        (toy, {"target_rates": (0.5, 3.5)}, "target_rate=3.5: expected at most"),
        (toy, {"high_target_rates": (-1.0,)}, "target_rate=-1.0: expected at least 0"),
        (toy, {"codes": 1}, "codes=1: expected"),
        (toy, {"codes": 2}, "target_rate=0.75: expected at most log 2"),
        (toy, {"initialisations": 0}, "initialisations=0: expected"),
        (toy, {"initial_scale": -0.1}, "initial_scale=-0.1: expected"),
        (toy, {"target_weight": 0.0}, "target_weight=0.0: expected above 0"),
        (toy, {"adam_b2": 1.0}, "adam_b2=1.0: expected below 1"),
        (toy, {"schedule": "warm"}, "schedule='warm': expected one of"),
        (toy, {"kl_warmup_fraction": 1.5}, "kl_warmup_fraction=1.5: expected at most 1"),
        (toy, {"betas": ()}, r"betas=\(\): expected at least one"),
        (toy, {"betas": ("a",)}, "betas='a': expected a finite number"),
        (toy, {"betas": (0.5, -1.0)}, "betas=-1.0: expected at least 0"),
        (toy, {"betas": "0.5"}, "betas='0.5': expected at least one"),
        (toy, {"population": {"devices": 0}}, "population.devices=0: expected"),
        (toy, {"population": {"dtype": "float32"}}, "population.dtype='float32': expected one of"),
        (gaussian, {"variances": (1.0, 0.0)}, "variances=0.0: expected above 0"),
        (gaussian, {"variances": ()}, r"variances=\(\): expected at least one"),
        (gaussian, {"betas": (0.0,)}, "betas=0.0: expected above 0"),
        (gaussian, {"latents": (0,)}, "latents=0: expected"),
        (gaussian, {"noise": 0.0}, "noise=0.0: expected above 0"),
        (gaussian, {"noise": math.nan}, "noise=nan: expected a finite number"),
        (gaussian, {"draws": 1}, "draws=1: expected a whole number of at least 2"),
        (gaussian, {"data_seed": -1}, "data_seed=-1: expected a whole number of at least 0"),
        (gaussian, {"examples": 8}, "examples=8: expected more than the 8 dimensions"),
        (gaussian, {"batch_size": 513}, "batch_size=513: expected at most the 512 examples"),
        (gaussian, {"population": {"vmap_size": 0}}, "population.vmap_size=0: expected"),
    ],
)
def test_bad_configurations(module, changes, sentence):
    config = copy.deepcopy(config_of({toy: toy_config, gaussian: gaussian_config}[module]))
    if "population" in changes:
        changes = {"population": config["population"] | changes["population"]}
    with pytest.raises(BadInput, match=sentence):
        module.check(config | changes)
