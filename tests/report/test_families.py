"""The paper's Figure 3 shows what the table says."""

import numpy as np
import pytest
from matplotlib import colors
from matplotlib import pyplot as plt

from rd_elbo import disk, frontier, plots
from rd_elbo.report import families, paper, plane
from rd_elbo.sweep.tables import POINT_COLUMNS
from tests.report.rows import row

BETAS = (0.25, 0.5, 1.0, 2.0)


def twelve(offset=0.0):
    """All families, a little above the paper's hull, strong decoders at lower rates."""
    rates, distortions = paper.reference("binarized_mnist").hull
    made = []
    for i, family in enumerate(paper.FAMILIES):
        for beta in BETAS:
            rate = (4.0 if family[1] == "+" else 26.0) / beta + 0.1 * i
            distortion = float(np.interp(rate, rates, distortions)) + 0.3 + 0.05 * i + offset
            made.append(row(family, rate, distortion, beta=beta))
    return made


@pytest.fixture
def drawn():
    figures = []

    def draw(function, *args):
        figures.append(function(*args))
        return figures[-1]

    yield draw
    for figure in figures:
        plt.close(figure)


def markers(axes):
    """Lines of points alone."""
    return [line for line in axes.lines if line.get_linestyle() == "None" and len(line.get_xdata())]


def curve(axes, word):
    (line,) = [line for line in axes.lines if word in str(line.get_label())]
    return line.get_xydata().T


def test_each_family_has_the_papers_marker(drawn):
    points = twelve()
    axes = drawn(families.figure3a, points).axes[0]
    lines = markers(axes)
    assert len(lines) == 12
    # ColorBrewer's Paired as matplotlib has it, in the paper's order.
    paired = plt.colormaps["Paired"].colors
    for line, family, colour in zip(lines, paper.FAMILIES, paired, strict=True):
        own = np.array([(p["rate"], p["distortion"]) for p in points if p["family"] == family])
        np.testing.assert_array_equal(line.get_xydata(), own)
        assert line.get_marker() == {"-": "o", "+": "s", "v": "D"}[family[2]]
        face = line.get_markerfacecolor()
        assert (face != "white") == (family[0] == "+")
        shown = face if family[0] == "+" else line.get_markeredgecolor()
        np.testing.assert_allclose(colors.to_rgb(shown), colour, atol=1e-3)
        _, saturation, value = colors.rgb_to_hsv(colors.to_rgb(shown))
        light = value - saturation
        assert (light > 0.35) == (family[1] == "-"), family  # pale against full colours


def test_figure3a_has_frontier_hull_diagonal_and_the_papers_frontier_behind(drawn):
    points, reference = twelve(), paper.reference("mnist_static")
    figure = drawn(families.figure3a, points, "test", reference)
    axes = figure.axes[0]
    rates, distortions = (np.array([p[name] for p in points]) for name in ("rate", "distortion"))
    np.testing.assert_array_equal(curve(axes, "our Pareto"), frontier.stepwise(rates, distortions))
    np.testing.assert_array_equal(curve(axes, "our convex hull"), frontier.hull(rates, distortions))
    np.testing.assert_allclose(curve(axes, "our smallest").sum(0), (rates + distortions).min())
    theirs = curve(axes, "paper's frontier")
    np.testing.assert_array_equal(theirs[:, 0], [0.0, 80.5])
    np.testing.assert_array_equal(theirs[:, -1], [156.0, 4.8])
    papers = [line for line in axes.lines if "paper" in str(line.get_label())]
    assert all(line.get_zorder() < markers(axes)[0].get_zorder() for line in papers)
    # Everything is in view, the paper's too, in all four panels alike.
    for panel in figure.axes:
        assert panel.get_xlim()[1] > 156 and panel.get_ylim()[1] > distortions.max()
    labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert labels[:12] != [] and set(paper.FAMILIES) <= set(labels)
    assert any("another draw" in label and "± 0.2" in label for label in labels)
    without = drawn(families.figure3a, points)
    assert not any("paper" in str(line.get_label()) for line in without.axes[0].lines)


def test_figure3a_groups_by_each_part(drawn):
    points = [p for p in twelve() if p["family"][0] == "-"]
    panels = drawn(families.figure3a, points).axes[1:]
    for position, (axes, signs) in enumerate(zip(panels, ("-", "-+", "-+v"), strict=True)):
        dots = markers(axes)
        steps = [line for line in axes.lines if line.get_linestyle() == "-"]
        assert len(dots) == len(steps) == len(signs)
        for sign, cloud, line in zip(signs, dots, steps, strict=True):
            own = [p for p in points if p["family"][position] == sign]
            own = np.array([(p["rate"], p["distortion"]) for p in own]).T
            np.testing.assert_array_equal(cloud.get_xydata().T, own)
            np.testing.assert_array_equal(line.get_xydata().T, frontier.stepwise(*own))
        part = ("encoder", "decoder", "prior")[position]
        shown = [text.get_text() for text in axes.get_legend().get_texts()]
        assert shown == [f"{part} {sign}".replace("-", "\N{MINUS SIGN}") for sign in signs]


def test_a_point_far_out_does_not_squeeze_the_others(drawn):
    points = [*twelve(), row("---", 5000.0, 60.0)]
    figure = drawn(families.figure3a, points)
    assert figure.axes[0].get_xlim()[1] < 200
    assert "1 of them outside the frame" in figure.legends[0].get_title().get_text()


@pytest.mark.parametrize("figure", families.FIGURES.values())
def test_a_member_and_its_average_are_one_model(drawn, figure):
    points = [point | {"member": str(i)} for i, point in enumerate(twelve())]
    both = [*points, *(point | {"averaging": "ema"} for point in points)]
    assert "48 models" in drawn(figure, both).legends[0].get_title().get_text()


def test_figure3b_is_framed_as_in_the_paper_if_the_families_bests_are_in_it(drawn):
    points, reference = twelve(), paper.reference("binarized_mnist")
    figure = drawn(families.figure3b, points, "test", reference)
    (axes,) = figure.axes
    assert axes.get_xlim() == (-1, 40) and axes.get_ylim() == (79, 90)
    heights = np.concatenate([line.get_ydata() for line in markers(axes)])
    np.testing.assert_allclose(heights, [p["rate"] + p["distortion"] for p in points])
    title = figure.legends[0].get_title().get_text()
    outside = sum(p["rate"] > 40 or not 79 <= p["rate"] + p["distortion"] <= 90 for p in points)
    assert outside > 0 and f"48 models, {outside} of them outside" in title
    assert "79 to 90 nats as in the paper" in title
    theirs = curve(axes, "paper's frontier")
    np.testing.assert_allclose(theirs[:, 0], [0, 80.5])
    np.testing.assert_allclose(theirs[1].min(), 80.3)


def test_figure3b_shows_worse_data_and_says_so(drawn):
    for reference, lowest in ((None, 100), (paper.reference("binarized_mnist"), 80.2)):
        points = twelve(offset=20.0)
        figure = drawn(families.figure3b, points, "test", reference)
        (axes,) = figure.axes
        assert axes.get_ylim()[0] < lowest
        low, high = axes.get_ylim()
        for family in paper.FAMILIES:
            best = min(p["rate"] + p["distortion"] for p in points if p["family"] == family)
            assert low < best < high
        assert "as in the paper" not in figure.legends[0].get_title().get_text()
        assert "79 to 90" in figure.legends[0].get_title().get_text()


def test_other_families_than_the_papers_are_drawn_too(drawn):
    points = [*twelve(), row("--e", 3.0, 80.0)]
    axes = drawn(families.figure3a, points).axes
    assert [len(markers(panel)) for panel in axes] == [13, 2, 2, 4]


def test_which_tables_are_worth_it():
    points = twelve()

    def of(*families):
        return [p for p in points if p["family"] in families]

    assert families.worth_drawing(points)
    assert families.worth_drawing(of("---", "-+-", "--v", "--+"))
    assert not families.worth_drawing(of("---", "-+-", "--v"))  # as in the quickstart
    assert not families.worth_drawing(of("---", "--+", "--v", "+--"))  # one kind of decoder
    gone = [
        {**p, "status": "diverged"} if p["family"] == "-+-" else p
        for p in of("---", "-+-", "--v", "--+")
    ]
    assert not families.worth_drawing(gone)


def test_the_papers_frontier_is_drawn_on_the_test_split_of_its_data_alone(tmp_path, monkeypatch):
    points = twelve()
    points += [{**p, "split": "train"} for p in points]
    disk.write_table(tmp_path / "points.csv", POINT_COLUMNS, points)
    behind = {}

    def look(figure, folder, name):
        labels = [str(line.get_label()) for line in figure.axes[0].lines]
        theirs = [label for label in labels if "paper's" in label]
        behind[name] = [label.partition("(")[2].split(";")[0] for label in theirs]
        plt.close(figure)
        return [folder / name]

    monkeypatch.setattr(plane, "save", look)
    for dataset, said in (
        (None, []),
        ("path", []),
        ("omniglot_burda", ["Omniglot"]),
        ("mnist_static", ["MNIST, another draw"]),
        ("binarized_mnist", ["MNIST"]),
    ):
        if dataset:
            disk.write_json(tmp_path / "provenance.json", {"data": {"name": dataset}})
        written = plots.draw_all(tmp_path)
        kinds = ("rd_plane", "elbo_against_rate", "figure3a", "figure3b")
        assert [path.name for path in written] == [
            name + split for split in ("", "_train") for name in kinds
        ]
        assert behind["figure3a"] == behind["figure3b"] == said, dataset
        assert (
            len(behind["rd_plane"])
            == len(behind["elbo_against_rate"])
            == (said in (["MNIST"], ["Omniglot"]))
        )
        assert not any(behind[f"{name}_train"] for name in kinds)


def test_an_old_table_of_families_is_drawn(tmp_path):
    """Without columns of fields that came later."""
    added = ("kl_warmup_fraction", "target_weight")
    columns = [name for name in POINT_COLUMNS if name not in added]
    points = [p for p in twelve() if p["family"] in ("---", "-+-", "--v", "--+")]
    old = [{name: p[name] for name in columns} for p in points]
    disk.write_table(tmp_path / "points.csv", columns, old)
    written = plots.draw_all(tmp_path)
    figures = [f"{name}.{kind}" for name in ("figure3a", "figure3b") for kind in ("png", "pdf")]
    assert [path.name for path in written][4:] == figures
    assert all(path.stat().st_size > 1000 for path in written)
