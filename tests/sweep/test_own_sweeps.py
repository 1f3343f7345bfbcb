"""Sweeps on data of a user's own: colour pictures in a folder, and vectors."""

import io
import json
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from matplotlib import pyplot as plt
from rich.console import Console

import rd_elbo as rd
from rd_elbo import disk, frontier, plots
from rd_elbo.models.likelihoods import DiscretisedLogistic
from rd_elbo.report import families, gallery, gallery_figures, selection
from rd_elbo.sweep import config, tables
from tests.report.rows import row

TINY = {"latent": 2, "encoder_width": 2, "encoder_depth": 1, "decoder_width": 2, "decoder_depth": 1}
TINY |= {"batch_size": 4, "epochs": 2.0}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of colour PNGs of 6x5."""
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.RandomState(0)
    for i in range(14):
        (folder / f"{i % 2}").mkdir(exist_ok=True)
        image = random.randint(0, 256, (6, 5, 3)).astype(np.uint8)
        PIL.Image.fromarray(image).save(folder / f"{i % 2}" / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def trained(pictures, tmp_path_factory):
    """A run on them, and its points."""
    workdir = tmp_path_factory.mktemp("colours") / "run"
    dataset = rd.load_data("path", path=pictures, binarise=False)
    member = rd.Member(encoder="conv", decoder="deconv", likelihood="discretised_logistic", **TINY)
    return dataset, workdir, rd.sweep([member], dataset, workdir, splits=("test",))


@pytest.mark.slow
def test_a_sweep_of_colour_pictures(trained):
    dataset, workdir, (point,) = trained
    assert point["likelihood"] == "discretised_logistic" and point["status"] == "ok"
    member, params = rd.load_params(workdir, point["member"])
    model = member.build(dataset.image_shape)
    x = jnp.asarray(dataset.splits["test"], jnp.float32)

    # Nearly the table's distortion, with other draws of z: those of an untrained encoder say
    # little.
    def decoded(key):
        return model.decode(params, model.encode(params, x).sample(seed=key)).distribution

    values = jax.jit(decoded)(jax.random.key(0))
    d = -DiscretisedLogistic(values.loc, values.log_scale).log_prob(x).sum((1, 2, 3)).mean()
    np.testing.assert_allclose(point["distortion"], d, rtol=0.02)
    rates = model.encode(params, x).kl_divergence(model.prior_distribution(params, x))
    np.testing.assert_allclose(rates.mean(), point["rate"], rtol=1e-5)
    about = json.loads((workdir / "provenance.json").read_text())["data"]
    assert "6x5x3, colour 0 to 255, mean" in about["origin"]
    assert "8-bit levels kept" in about["origin"]
    assert tables.read_points(workdir)[0] == point and tuple(point) == tables.POINT_COLUMNS
    assert (workdir / "figures").exists() or plots.draw_all(workdir)


@pytest.mark.slow
def test_bits_per_dimension_in_the_table_of_the_terminal(trained, monkeypatch):
    monkeypatch.syspath_prepend("scripts")
    import points_table

    *_, (point,) = trained
    screen = Console(width=80, record=True, file=io.StringIO())
    screen.print(points_table.points_table([point], "test", 90))
    said = screen.export_text()
    assert f"{-point['elbo'] / 90 / math.log(2):.3f}" in said
    assert "bits/dim" in said and " ok" in said
    sys.modules.pop("points_table", None)


@pytest.mark.slow
def test_a_gallery_of_colour_pictures(trained):
    dataset, workdir, points = trained
    chosen = [selection.Selected(5, "a", "reconstruction", "by_family", 0, points[0])]
    gallery.make(workdir, dataset, chosen, examples=2)
    arrays = disk.read_arrays(workdir / "gallery.npz")
    assert arrays["reconstruction"].shape == (1, 5, 2, 6, 5, 3)
    assert arrays["sample"].dtype == np.uint8
    shown = gallery_figures.panel(disk.read_table(workdir / "gallery.csv"), arrays)
    np.testing.assert_allclose(shown.image[:6, :5], arrays["data"][0] / 255)
    middle = round(shown.columns[2])
    row = middle - round(shown.columns[2] - 2.5)
    average = arrays["reconstruction"][0, :, 0, 0, row].mean(0) / 255
    np.testing.assert_allclose(shown.image[0, middle], average)
    assert len(gallery_figures.draw_all(workdir)) == 2


def test_the_default_binarises_and_says_so(pictures, tmp_path):
    """As a configuration has it, which is checked before anything is trained."""
    section = {"name": "path", "path": str(pictures)}
    given = {"name": "own", "data": section, "blocks": {"one": {"decoder": "deconv", **TINY}}}
    plan = config.load(given)
    assert plan.dataset.kind == "binary" and "binarised" in plan.dataset.origin
    kept = {**given, "data": {**section, "binarise": False}}
    with pytest.raises(
        rd.BadInput,
        match="likelihood='bernoulli': expected data of zeros and ones, got 8-bit levels",
    ):
        config.load(kept)
    kept["grid"] = {"likelihood": "discretised_logistic"}
    assert config.load(kept).spec(config.load(kept).chunks()[0]).model.scale == 255
    with pytest.raises(
        rd.BadInput, match=r"decoder='pixelcnn': expected images \(height, width\), got"
    ):
        config.load({**kept, "grid": {**kept["grid"], "decoder": "pixelcnn"}})


def test_a_sweep_of_vectors(tmp_path):
    random = np.random.RandomState(0)
    x = 0.01 * random.standard_normal((64, 1)) * np.ones(3) + 0.5
    dataset = rd.Dataset.from_arrays(train=x, test=x[:9])
    member = rd.Member(likelihood="gaussian", **{**TINY, "epochs": 20.0}, learning_rate=0.05)
    (point,) = rd.sweep([member], dataset, tmp_path / "run", splits=("test",))
    # Values that hardly vary have a density above 1.
    assert point["status"] == "ok" and point["distortion"] < 0
    assert point["elbo"] == -(point["rate"] + point["distortion"])
    assert tables.read_points(tmp_path / "run") == [point]
    assert len(plots.draw_all(tmp_path / "run")) == 4
    chosen = [selection.Selected(5, "a", "sample", "by_family", 0, point)]
    with pytest.raises(rd.BadInput, match=r"for a gallery, got examples of shape \(3,\)"):
        gallery.make(tmp_path / "run", dataset, chosen)


def test_figures_and_frontiers_of_negative_distortions():
    terms = [("---", 0.0, -1.0), ("---", 3.0, -20.0), ("--v", 9.0, -30.0)]
    terms += [("-+-", 5.0, 2.0), ("-++", 4.0, -24.0)]
    points = [
        row(family, rate, distortion, likelihood="gaussian", beta=0.5 + i)
        for i, (family, rate, distortion) in enumerate(terms)
    ]
    axes = plots.rd_plane(points).axes[0]
    low, high = axes.get_ylim()
    assert low < -30 and high > 2
    for figure in families.FIGURES.values():
        drawn = figure(points).axes[0]
        assert drawn.get_ylim()[0] < -21 and drawn.get_ylim()[0] < drawn.get_ylim()[1]
    assert families.figure3a(points).axes[0].get_ylim()[1] > 2
    rate, distortion = np.array([(p["rate"], p["distortion"]) for p in points]).T
    assert frontier.pareto(rate, distortion).tolist() == [0, 1, 4, 2]
    plt.close("all")


def test_data_that_were_moved_or_were_arrays_are_found(tmp_path):
    """The recorded options stay; a place replaces the option that named the old one."""
    levels = np.random.RandomState(0).randint(0, 256, (9, 4, 4)).astype(np.uint8)
    arrays = rd.Dataset.from_arrays(levels, levels[:3], name="squares", binarise=False)
    np.savez(tmp_path / "moved.npz", train=levels, test=levels[:3])
    for name, own in (("squares", {}), ("path", {"path": "gone.npz"})):
        section = {"name": name, "binarise": False, **own}
        dataset, _ = config.load_data(section, tmp_path / "moved.npz")
        assert dataset.name == name and dataset.checksum() == arrays.checksum()
    (tmp_path / "cifar10").mkdir()
    folders = {"cifar10": "data_dir", "binarized_mnist": "manual_dir", "omniglot_burda": "path"}
    for name, option in folders.items():
        assert config._source(name, {}, tmp_path) == (name, option)
    assert config._source("omniglot_tfds", {"data_dir": "x"}, tmp_path)[1] == "data_dir"
