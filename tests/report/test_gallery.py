"""Galleries show the models they name, and nothing of a picture depends on its neighbours."""

import dataclasses
import functools
import shutil

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from forked import forked
from matplotlib import pyplot as plt

from rd_elbo import data, disk
from rd_elbo.errors import BadInput
from rd_elbo.report import gallery, gallery_figures
from rd_elbo.sweep import config, tables
from rd_elbo.sweep.folder import open_run
from rd_elbo.sweep.run import run as sweep
from tests.drawn import random_params
from tests.report.galleries import CHOICES, MEMBERS, SHAPE, TINY, assert_apart, choice


@dataclasses.dataclass(frozen=True)
class Known:
    """e(z|x) = N(100 x_00, 1), m(z) = N(-100, 1), d(x|z) = N(z + offset, 0.01^2) in every pixel."""

    traces: tuple  # of one list, which is not compared

    __hash__ = object.__hash__

    def __eq__(self, other):
        return isinstance(other, Known)

    def encode(self, params, x):
        self.traces[0].append(x.shape)
        return distrax.MultivariateNormalDiag(100 * x[:, :1, 0], jnp.ones((len(x), 1)))

    def prior_distribution(self, params, x):
        return distrax.MultivariateNormalDiag(jnp.full(1, -100.0), jnp.ones(1))

    def decode(self, params, z):
        pixels = jnp.broadcast_to(z[..., None] + params["offset"], (*z.shape[:-1], *SHAPE))
        return distrax.Independent(distrax.Normal(pixels, 0.01), 2)


# Hashed by identity and equal to each other, so one object stands for one architecture.
KNOWN = Known(([],))


def known(offset=0.0, seed=0, examples=40, draws=gallery.DRAWS):
    x = jnp.arange(examples, dtype=jnp.float32)[:, None, None] % 2
    x, params = jnp.broadcast_to(x, (examples, *SHAPE)), {"offset": jnp.asarray(offset)}
    return gallery.draw(KNOWN, params, x, gallery.member_key(seed, "0123456789"), draws)


def test_reconstructions_come_from_e_and_samples_from_m():
    pictures = known()
    assert pictures.reconstruction.shape == pictures.sample.shape == (5, 40, *SHAPE)
    of_zero, of_one = pictures.reconstruction[:, ::2], pictures.reconstruction[:, 1::2]
    assert abs(of_zero).max() < 6 and abs(of_one - 100).max() < 6
    assert abs(pictures.sample + 100).max() < 6
    # z is drawn, anew for every example: both e and m have a standard deviation of 1.
    for images in (of_zero, of_one, pictures.sample):
        assert 0.5 < images.mean((0, 2, 3)).std() < 1.6
    # Not the same draw for both.
    assert abs(of_zero.mean((0, 2, 3)) - (pictures.sample.mean((0, 2, 3))[::2] + 100)).max() > 0.1


def test_all_draws_of_d_are_at_one_z():
    for images in known(offset=3.0):
        z = images.mean((0, 2, 3), keepdims=True)
        # Off z by the decoder's noise alone, which is independent from draw to draw and from pixel
        # to pixel.
        assert abs(images - z).max() < 0.06
        assert 0.008 < (images - z).std() < 0.012
        correlations = np.corrcoef(np.asarray(images - z).reshape(5, -1))
        assert abs(correlations - np.eye(5)).max() < 0.35
        # The average of the figures is their mean, so nearer to z than any of them.
        average = gallery_figures.average(np.asarray(images))
        np.testing.assert_allclose(average, images.mean(0), rtol=1e-5)
        assert abs(average - z[0]).std() < 0.006


def test_models_of_one_architecture_share_one_program():
    known(examples=6)
    traced = len(KNOWN.traces[0])
    moved, kept = known(examples=6, offset=7.0), known(examples=6)
    assert len(KNOWN.traces[0]) == traced
    np.testing.assert_allclose(moved.sample, kept.sample + 7, rtol=1e-5)


def test_members_of_one_architecture_share_one_program():
    x = jnp.zeros((2, *SHAPE))
    before = gallery.draw._cache_size()
    warm = dataclasses.replace(MEMBERS[0], seed=3, kl_warmup_fraction=0.5)
    for seed, member in enumerate([*MEMBERS[:2], warm]):
        model = member.build(SHAPE)
        params, key = model.init(jax.random.key(seed), x), gallery.member_key(seed, member.name)
        gallery.draw(model, params, x, key)
    assert gallery.draw._cache_size() == before + 1


def test_examples_are_spread_over_a_split_sorted_by_class():
    labels = np.repeat(np.arange(10), 37)
    index = gallery.examples_shown(len(labels), 10, seed=0)
    assert labels[index].tolist() == list(range(10))
    assert gallery.examples_shown(len(labels), 10, 0).tolist() == index.tolist()
    assert gallery.examples_shown(len(labels), 10, 1).tolist() != index.tolist()
    assert gallery.examples_shown(7, 7, 0).tolist() == list(range(7))
    many = np.stack([gallery.examples_shown(9, 4, seed) for seed in range(200)])
    # The stretches of 9 in 4 parts: every image is in one of them, and may be chosen.
    assert [sorted(set(column.tolist())) for column in many.T] == [
        [0, 1],
        [2, 3],
        [4, 5],
        [6, 7, 8],
    ]
    with pytest.raises(BadInput, match="examples=8: expected at most 7"):
        gallery.examples_shown(7, 8, 0)
    with pytest.raises(BadInput, match="examples=0"):
        gallery.examples_shown(7, 0, 0)
    with pytest.raises(BadInput, match="seed=-1"):
        gallery.examples_shown(7, 2, -1)


@pytest.fixture
def dataset():
    random = np.random.default_rng(0)
    sizes = {"train": 9, "test": 12}
    splits = {k: random.integers(0, 2, (n, *SHAPE)).astype(np.uint8) for k, n in sizes.items()}
    return data.Dataset("made_up", splits, "a test's")


def pattern(i):
    return np.random.default_rng(100 + i).integers(0, 2, SHAPE)


@pytest.fixture
def run(tmp_path):
    """A run of untrained members; the i-th MLP cannot but draw `pattern(i)`."""
    workdir = tmp_path / "run"
    for i, member in enumerate(MEMBERS):
        params = random_params(member.build(SHAPE), jnp.zeros((1, *SHAPE)), seed=i)
        if member.decoder == "mlp":
            bias = jnp.asarray(100.0 * (2 * pattern(i) - 1)).reshape(-1)
            params["decoder"]["logits"]["bias"] = bias
            params["decoder"]["logits"]["kernel"] *= 0
        tables.save_params(workdir, member, params, SHAPE)
    return workdir


def test_pictures_are_of_the_members_they_name(run, dataset):
    heard = []
    report = gallery.make(
        run, dataset, CHOICES, examples=3, callback=lambda *done: heard.append(done)
    )
    assert (report.members, report.architectures) == (4, 3) and report.seconds > 0
    assert heard == [(1, 4), (2, 4), (3, 4), (4, 4)]
    arrays = disk.read_arrays(run / "gallery.npz")
    assert arrays["member"].tolist() == [m.name for m in MEMBERS]
    np.testing.assert_array_equal(arrays["data"], dataset.splits["test"][arrays["index"]])
    for part in ("reconstruction", "sample"):
        assert arrays[part].shape == (4, 5, 3, *SHAPE) and arrays[part].dtype == np.uint8
        for i in range(3):
            expected = np.broadcast_to(pattern(i), (5, 3, *SHAPE))
            np.testing.assert_array_equal(arrays[part][i], expected)
        # The PixelCNN, which nothing holds, draws five different images.
        assert len(np.unique(arrays[part][3], axis=0)) == 5
    table = disk.read_table(run / "gallery.csv")
    assert tuple(table[0]) == gallery.GALLERY_COLUMNS and len(table) == 8
    shown = [(r["panel"], r["part"], r["position"]) for r in table[3:5]]
    assert shown == [("a", "reconstruction", 3), ("b", "sample", 0)]
    last = table[7]
    assert last["member"] == MEMBERS[3].name and last["family"] == "-+-"
    assert last["beta"] == 1.0 and last["decoder"] == "pixelcnn"
    assert (last["rate"], last["distortion"], last["total"]) == (5.0, 80.25, 85.25)
    assert (last["dataset"], last["split"]) == ("made_up", "test")


def test_pictures_do_not_depend_on_their_neighbours(run, dataset):
    gallery.make(run, dataset, CHOICES, examples=3)
    together, file = disk.read_arrays(run / "gallery.npz"), (run / "gallery.npz").read_bytes()
    gallery.make(run, dataset, CHOICES, examples=3)
    assert (run / "gallery.npz").read_bytes() == file
    for only in ([CHOICES[3]], [CHOICES[3], CHOICES[1], CHOICES[0]]):
        gallery.make(run, dataset, only, examples=3)
        alone = disk.read_arrays(run / "gallery.npz")
        for part in ("reconstruction", "sample"):
            np.testing.assert_array_equal(alone[part][0], together[part][3])
    gallery.make(run, dataset, [CHOICES[3]], examples=3, seed=1)
    assert (disk.read_arrays(run / "gallery.npz")["sample"][0] != together["sample"][3]).any()


def test_members_have_randomness_of_their_own(run, dataset):
    """Two members of the same parameters, but not of the same name, do not draw the same."""
    _, params = tables.load_params(run, MEMBERS[3].name)
    twin = dataclasses.replace(MEMBERS[3], seed=1)
    tables.save_params(run, twin, params, SHAPE)
    other = dataclasses.replace(CHOICES[3], row={**CHOICES[3].row, "member": twin.name})
    gallery.make(run, dataset, [CHOICES[3], other], examples=3)
    arrays = disk.read_arrays(run / "gallery.npz")
    assert (arrays["sample"][0] != arrays["sample"][1]).any()


def test_what_cannot_be_shown_is_refused_and_nothing_written(run, dataset, tmp_path):
    def refused(sentence, workdir=run, chosen=CHOICES, **options):
        with pytest.raises(BadInput, match=sentence):
            gallery.make(workdir, dataset, chosen, **options)

    refused("expected a folder 'params'", workdir=tmp_path)
    refused("at least one model", chosen=[])
    refused("examples=13: expected at most 12", examples=13)
    refused(
        "split='valid': expected a split of 'made_up', one of 'train', 'test'",
        chosen=[choice(0, split="valid")],
    )
    refused(
        "member '0000000000': expected saved parameters",
        chosen=[*CHOICES, choice(0, member="0000000000")],
    )
    assert not list(run.glob("gallery.*"))


def test_averages_stand_in_for_last_parameters_that_are_not_published(run):
    averaged = dataclasses.replace(MEMBERS[0], ema_decay=0.9)
    _, params = tables.load_params(run, MEMBERS[0].name)
    tables.save_params(run, averaged, params, SHAPE, "ema")
    both = [{"member": averaged.name, "averaging": averaging} for averaging in ("none", "ema")]
    neither = [{**row, "member": "0000000000"} for row in both]
    old = {"member": MEMBERS[1].name}
    assert gallery.with_parameters(run, [*both, *neither, old]) == [both[1], *neither, old]
    tables.save_params(run, averaged, params, SHAPE)
    assert gallery.with_parameters(run, [*both, *neither, old]) == [*both, *neither, old]


def test_titles_tell_where_beta_one_is_missing_and_how_equal_the_elbos_are(run, dataset):
    def title(*chosen):
        gallery.make(run, dataset, chosen, examples=2)
        table, arrays = disk.read_table(run / "gallery.csv"), disk.read_arrays(run / "gallery.npz")
        return gallery_figures.panel(table, arrays).title

    families, second = r"(a) reconstructions: families at $\beta = 1$", choice(2, position=1)
    assert title(choice(1), second) == families
    assert title(choice(0), second) == f"{families}, or the nearest there is"
    pair = choice(0, 4, "d", by="equal_elbo"), choice(3, 4, "d", position=1, by="equal_elbo")
    assert title(*pair) == "(d) reconstructions: $R + D$ from 82.2 to 85.2 nats"
    assert title(pair[0]) == "(d) reconstructions: $R + D = 82.2$ nats"


def test_a_figure_places_every_panel_inside_and_none_on_another(run, dataset):
    parts = {"a": "reconstruction", "b": "sample"}.items()
    fours = [choice(i, 4, panel, part, i, "by_beta") for panel, part in parts for i in (0, 1)]
    fours += [choice(i, 4, "c", position=i) for i in range(4)]
    fours += [choice(3, 4, "d", by="equal_elbo")]
    gallery.make(run, dataset, fours, examples=3)
    table, arrays = disk.read_table(run / "gallery.csv"), disk.read_arrays(run / "gallery.npz")
    figure = gallery_figures.figure(4, table, arrays)
    assert len(figure.axes) == 4
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    boxes = [axes.get_tightbbox(renderer) for axes in figure.axes]
    assert_apart(figure, boxes + [text.get_window_extent(renderer) for text in figure.texts])
    plt.close(figure)
    assert gallery_figures.figure(6, table, arrays) is None


def test_redrawing_needs_nothing_but_the_two_files(run, dataset, tmp_path):
    gallery.make(run, dataset, CHOICES, examples=3)
    before = {path.name: path.read_bytes() for path in gallery_figures.draw_all(run)}
    assert sorted(before) == ["figure5.pdf", "figure5.png"]
    assert before["figure5.png"][:4] == b"\x89PNG"
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("gallery.csv", "gallery.npz"):
        shutil.copy(run / name, bare / name)
    assert {path.name: path.read_bytes() for path in gallery_figures.draw_all(bare)} == before
    arrays = disk.read_arrays(bare / "gallery.npz")
    disk.write_arrays(bare / "gallery.npz", {**arrays, "member": np.array(["0000000000"] * 4)})
    named = f"expected pictures of '{MEMBERS[0].name}', which gallery.csv names"
    with pytest.raises(BadInput, match=named):
        gallery_figures.draw_all(bare)
    disk.write_arrays(bare / "gallery.npz", {"data": arrays["data"]})
    with pytest.raises(BadInput, match="expected a gallery with 'member', got one"):
        gallery_figures.draw_all(bare)
    (bare / "gallery.npz").unlink()
    with pytest.raises(BadInput, match="expected a readable file"):
        gallery_figures.draw_all(bare)


def test_another_run_removes_the_gallery(run, dataset):
    disk.write_json(run / "config.json", {"blocks": {}})
    gallery.make(run, dataset, CHOICES[:1], examples=2)
    gallery_figures.draw_all(run)
    open_run(run, {"blocks": {"other": {}}}, overwrite=True)
    assert [path.name for path in run.rglob("*") if path.is_file()] == ["config.json"]


CONFIG = {
    "name": "tiny",
    "data": {"name": "mnist_static", "examples": 64},
    "base": {**TINY, "batch_size": 32, "epochs": 1.0},
    "blocks": {
        "mlp": {"beta": (0.5, 2.0)},
        "pixelcnn": {"decoder": "pixelcnn", "decoder_width": 2, "beta": (0.5, 1.0)},
    },
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("gallery") / "run"
    sweep(config.load(CONFIG), workdir)
    return workdir


@pytest.mark.slow
def test_command_line(trained):
    with forked(COLUMNS="80") as process:
        run = functools.partial(process.run, seconds=600)
        _check_the_script(trained, lambda *flags: run(["scripts/gallery.py", *flags]))


def _check_the_script(trained, script):
    result = script(f"--workdir={trained}", "--examples=3", "--split=train")
    assert result.returncode == 0 and result.stderr == "", result.stderr
    assert "family --- has no member at beta = 1; the nearest, 0.5, is shown" in result.stdout
    assert "of 2 architectures drawn from in " in result.stdout
    names = [f"figure{n}.{kind}" for n in (4, 5, 6) for kind in ("png", "pdf")]
    figures = [trained / "figures" / name for name in names]
    assert result.stdout.splitlines()[-6:] == [str(path) for path in figures]
    assert {row["split"] for row in disk.read_table(trained / "gallery.csv")} == {"train"}
    arrays = disk.read_arrays(trained / "gallery.npz")
    dataset = tables.recorded_data(trained)
    np.testing.assert_array_equal(arrays["data"], dataset.splits["train"][arrays["index"]])
    before = figures[0].read_bytes()
    figures[0].unlink()
    result = script(f"--workdir={trained}", "--redraw")
    assert result.returncode == 0 and figures[0].read_bytes() == before


def test_changed_data_are_refused(tmp_path):
    section = {"name": "mnist_static", "examples": 64}
    digest = config.load_data(section)[0].checksum()
    disk.write_json(tmp_path / "provenance.json", {"data": {"sha256": digest}})
    disk.write_json(tmp_path / "config.json", {"blocks": {}, "data": section})
    assert tables.recorded_data(tmp_path).splits["test"].shape == (64, 28, 28)
    changed = {"blocks": {}, "data": {**section, "examples": 65}}
    disk.write_json(tmp_path / "config.json", changed)
    with pytest.raises(BadInput, match=r"'mnist_static' of SHA-256 \w{64}, got data of \w{64}"):
        tables.recorded_data(tmp_path)
