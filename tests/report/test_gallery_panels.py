"""What stands where in a panel of a gallery, and that all of it can be read."""

import numpy as np
import pytest
from matplotlib import pyplot as plt

from rd_elbo.report import gallery, gallery_figures
from tests.report.galleries import MEMBERS, SHAPE, assert_apart, choice


def test_panels_hold_data_then_sample_and_average():
    random = np.random.default_rng(0)
    arrays = {
        "data": random.integers(0, 2, (2, *SHAPE)),
        "member": np.array([MEMBERS[1].name, MEMBERS[0].name]),
        "reconstruction": random.integers(0, 2, (2, 5, 2, *SHAPE)),
        "sample": random.integers(0, 2, (2, 5, 2, *SHAPE)),
    }
    chosen = [choice(i, 4, "a", position=1 - i, by="by_beta") for i in (0, 1)]
    rows = [gallery.table_row(each, "made_up") for each in chosen]
    shown = gallery_figures.panel(rows, arrays)
    height, width = SHAPE
    draws = arrays["reconstruction"]
    # Position 0 is the second row of the table, MEMBERS[1], whose pictures come first.
    expected = [arrays["data"], draws[0, 0], draws[0].mean(0), draws[1, 0], draws[1].mean(0)]
    assert shown.labels == ["data", "sample", "average", "sample", "average"]
    for middle, images in zip(shown.columns, expected, strict=True):
        left = round(middle - width / 2)
        np.testing.assert_allclose(shown.image[:height, left : left + width], images[0])
        np.testing.assert_allclose(shown.image[-height:, left : left + width], images[1])
    assert np.isfinite(shown.image).sum() == 5 * 2 * height * width
    assert [head[1:] for head in shown.heads] == [
        [r"$\beta$ = 1", "$R$ 3.0", "$D$ 80.2"],
        [r"$\beta$ = 0.5", "$R$ 2.0", "$D$ 80.2"],
    ]
    assert shown.tile == SHAPE
    assert shown.models == [(a + b) / 2 for a, b in (shown.columns[1:3], shown.columns[3:5])]
    # Samples have no data; aligned, their columns are where those of the reconstructions are.
    samples = [{**row, "part": "sample"} for row in rows]
    below = gallery_figures.panel(samples, arrays, aligned=True)
    assert below.labels == shown.labels[1:] and below.columns == shown.columns[1:]
    tile = below.image[:height, round(below.columns[0] - width / 2) :][:, :width]
    np.testing.assert_allclose(tile, arrays["sample"][0, 0, 0])
    assert gallery_figures.panel(samples, arrays).columns[0] == width / 2


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({}, ["−+v", r"$\beta$ = 0.5", "$R$ 2.0"]),
        ({"kl_warmup_fraction": 0.5}, ["−+v, ann.", r"$\beta$ = 0.5", "$R$ 2.0"]),
        ({"objective": "target_rate", "target_rate": 12.0}, ["−+v", r"$\sigma$ = 12", "$R$ 2.0"]),
        ({"objective": "target_gap", "target_gap": 3}, ["−+v", "target gap = 3", "$R$ 2.0"]),
        ({"objective": "something_else"}, ["−+v", "something else", "$R$ 2.0"]),
        ({"rate": -0.004}, ["−+v", r"$\beta$ = 0.5", "$R$ 0.0"]),
        ({"rate": -0.4}, ["−+v", r"$\beta$ = 0.5", "$R$ -0.4"]),
    ],
)
def test_heads_say_what_a_model_is(changes, lines):
    row = {**gallery.table_row(choice(0), "made_up"), "family": "-+v", **changes}
    arrays = {name: np.zeros((1, 5, 2, *SHAPE)) for name in ("reconstruction", "sample")}
    arrays |= {"data": np.zeros((2, *SHAPE)), "member": np.array([row["member"]])}
    shown = gallery_figures.panel([row], arrays)
    (head,) = shown.heads
    assert [head[0].replace("\N{HAIR SPACE}", ""), *head[1:]] == [*lines, "$D$ 80.2"]


@pytest.mark.parametrize("objective", ["beta", "target_rate", "target_distortion", "free_bits"])
def test_twelve_models_beside_each_other_can_be_read(objective):
    worst = {"objective": objective, objective: 0.251, "kl_warmup_fraction": 0.5}
    worst |= {"rate": 123.4, "distortion": 123.4}
    rows = [
        {**gallery.table_row(choice(0, 5, panel, part, i), "made_up"), **worst, "member": str(i)}
        for panel, part in (("a", "reconstruction"), ("b", "sample"))
        for i in range(12)
    ]
    arrays = {part: np.zeros((12, 5, 2, 28, 28)) for part in ("reconstruction", "sample")}
    arrays |= {"data": np.zeros((2, 28, 28)), "member": np.arange(12).astype(str)}
    figure = gallery_figures.figure(5, rows, arrays)
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    texts = [text for axes in figure.axes for text in axes.texts]
    assert len(texts) == 2 * 12 * (4 + 2) + 1
    boxes = [text.get_window_extent(renderer) for text in texts]
    assert_apart(figure, boxes + [axes.bbox for axes in figure.axes])
    assert figure.get_size_inches()[0] < 8.5
    # A pixel of an image is a whole number of dots of the PNG, and panels align.
    for axes in figure.axes:
        dots = axes.bbox.width / figure.dpi * 200 / axes.images[0].get_array().shape[1]
        np.testing.assert_allclose(dots, 2, rtol=1e-6)
    assert figure.axes[0].bbox.x0 == figure.axes[1].bbox.x0
    plt.close(figure)
