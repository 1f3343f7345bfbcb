"""Figures show what the table says."""

import dataclasses
import shutil

import numpy as np
import pytest
from matplotlib import pyplot as plt

from rd_elbo import disk, plots
from rd_elbo.errors import BadInput
from rd_elbo.report import paper
from rd_elbo.report.curves import averaged
from rd_elbo.sweep.grid import Member, product
from rd_elbo.sweep.tables import POINT_COLUMNS


def rows(members, rate_of):
    for member in members:
        rate, distortion = rate_of(member)
        yield {
            **dict.fromkeys(POINT_COLUMNS, 0),
            **dataclasses.asdict(member),
            "member": member.name,
            "family": member.family,
            "split": "test",
            "averaging": "none",
            "status": "ok",
            "rate": rate,
            "distortion": distortion,
        }


@pytest.fixture
def points():
    mlp = Member(learning_rate=0.1)
    mlp = product(mlp, decoder_width=(8, 16), beta=(2.0, 0.5, 1.0), seed=(0, 1))
    pixelcnn = Member(decoder="pixelcnn", learning_rate=0.2)
    pixelcnn = product(pixelcnn, beta=(0.5, 1.0), prior=("normal", "vampprior"))

    def terms(m):
        return 10 / m.beta + m.seed + m.decoder_width, 60 + 10 * m.beta + 3 * m.seed

    return list(rows(mlp + pixelcnn, terms))


def test_curves_average_seeds_along_beta(points):
    curves = plots.curves(points)
    assert [c.label for c in curves] == [
        "MLP, width 8, N(0, I)",
        "MLP, width 16, N(0, I)",
        "PixelCNN, N(0, I)",
        "PixelCNN, VampPrior",
    ]
    first = curves[0]
    assert first.control.tolist() == [0.5, 1.0, 2.0] and first.seeds.tolist() == [2, 2, 2]
    np.testing.assert_allclose(first.rate, [28.5, 18.5, 13.5])
    np.testing.assert_allclose(first.distortion, [66.5, 71.5, 81.5])
    np.testing.assert_allclose(first.rate_spread, np.full((2, 3), 0.5))
    np.testing.assert_allclose(first.total_spread, np.full((2, 3), 2.0))
    assert curves[2].seeds.tolist() == [1, 1]


def test_averages_are_curves_of_their_own(points):
    """Not averaged with the last parameters, as seeds are."""
    averages = [{**point, "averaging": "ema", "rate": point["rate"] + 1} for point in points]
    labels = [curve.label for curve in plots.curves(points + averages)]
    assert [label.endswith("averaging ema") for label in labels] == [True, False] * 4


def test_a_member_is_drawn_once_by_its_average(points):
    """Where there is one that is sound; what is not drawn takes no space in the frame."""
    averages = [{**point, "averaging": "ema", "rate": point["rate"] + 1} for point in points[:3]]
    averages[1]["status"], averages[2]["rate"] = "diverged", float("nan")
    assert averaged(points + averages) == points[1:] + averages
    # Another split's average says nothing of this one.
    assert averaged([*points, averages[0] | {"split": "valid"}])[:-1] == points
    points[0]["distortion"] = 1e6
    (axes,) = plots.rd_plane(points + averages).axes
    drawn = [place for line in axes.lines for place in line.get_xydata().tolist()]
    assert [14.0, 80.0] in drawn and [13.0, 1e6] not in drawn and axes.get_ylim()[1] < 100
    assert "averaged" not in axes.get_legend().get_title().get_text()
    averages = [{**point, "averaging": "ema"} for point in points]
    (axes,) = plots.rd_plane(points + averages).axes
    assert "averaged parameters" in axes.get_legend().get_title().get_text()


def test_points_of_a_model_of_ones_own_are_one_curve():
    """Of `rd.evaluate`: no names of parts and no split, averaged over seeds."""
    numbers = {"objective": "beta", "distortion": 3.0, "status": "ok"}
    points = [{**numbers, "beta": b, "seed": s, "rate": b + s} for b in (2.0, 0.5) for s in (0, 1)]
    (curve,) = plots.curves(points)
    assert curve.label == "model" and curve.control.tolist() == [0.5, 2.0]
    assert curve.rate.tolist() == [1.0, 2.5] and curve.seeds.tolist() == [2, 2]
    swept, _ = plots.curves([*rows([Member()], lambda m: (1.0, 2.0)), *points])
    assert swept.label == "MLP, N(0, I)"


def test_what_tells_groups_apart_is_in_the_label():
    members = product(Member(), learning_rate=(0.1, 0.2), beta=(1.0, 2.0))
    labels = [c.label for c in plots.curves(list(rows(members, lambda m: (m.beta, 3 - m.beta))))]
    assert labels == ["MLP, N(0, I), learning rate 0.1", "MLP, N(0, I), learning rate 0.2"]
    members = [
        Member(decoder_width=8, decoder_depth=3),
        Member(decoder_width=4, decoder_depth=1),
        Member(decoder="pixelcnn"),
    ]
    labels = [c.label for c in plots.curves(list(rows(members, lambda m: (1.0, 2.0))))]
    assert labels == [
        "MLP, width 4, depth 1, N(0, I)",
        "MLP, width 8, depth 3, N(0, I)",
        "PixelCNN, N(0, I)",
    ]


def test_members_that_diverged_are_not_drawn(points):
    points[0] = {**points[0], "status": "diverged", "rate": float("nan")}
    first = plots.curves(points)[0]
    assert first.members.shape == (2, 5) and np.isfinite(first.members).all()
    with pytest.raises(BadInput, match="split='train': expected finite points"):
        plots.curves(points, "train")


def test_the_plane_draws_the_points_the_hull_and_the_diagonal(points):
    figure = plots.rd_plane(points)
    (axes,) = figure.axes
    lines = {line.get_label(): line.get_xydata() for line in axes.lines}
    rates = np.array([p["rate"] for p in points])
    distortions = np.array([p["distortion"] for p in points])
    best = (rates + distortions).min()
    diagonal = next(data for label, data in lines.items() if "ELBO" in label)
    np.testing.assert_allclose(diagonal.sum(axis=1), best)
    for beta in (0.01, 0.3, 1.0, 5.0):
        corner = (lines["convex hull"] @ [beta, 1.0]).min()
        np.testing.assert_allclose(corner, (beta * rates + distortions).min())
    assert "nats" in axes.get_xlabel() and "nats" in axes.get_ylabel()
    shown = [text.get_text() for text in axes.get_legend().get_texts()]
    shown = [label for label in shown if label.startswith(("MLP", "Pixel"))]
    assert [c.label for c in plots.curves(points)] == shown
    plt.close(figure)


@pytest.mark.parametrize("draw", [plots.rd_plane, plots.elbo_against_rate])
def test_the_papers_hull_is_behind_and_inside_the_frame(points, draw):
    """Between our rates, 13 to 37 nats; its ends do not widen the frame."""
    points = [point for point in points if point["decoder"] == "mlp"]
    reference = paper.reference("binarized_mnist")
    figure = draw(points, reference=reference)
    (axes,) = figure.axes
    (line,) = (line for line in axes.lines if "paper's" in str(line.get_label()))
    rate, height = line.get_xydata().T
    np.testing.assert_array_equal(rate, reference.hull[0])
    tilt = rate if draw is plots.elbo_against_rate else 0
    np.testing.assert_allclose(height - tilt, reference.hull[1])
    assert all(line.get_zorder() <= other.get_zorder() for other in axes.lines)
    rates = [point["rate"] for point in points]
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    assert left < 0 and max(rates) < right < reference.hull[0][-1]
    inside = np.interp([min(rates), 27.6, max(rates)], rate, height)
    assert low < inside.min() and inside.max() < high
    distortions = np.array([point["distortion"] for point in points])
    ours = distortions + (rates if draw is plots.elbo_against_rate else 0)
    assert low < ours.min() and ours.max() < high
    plt.close(figure)


def test_all_figures_come_from_the_table_alone(points, tmp_path):
    points += [{**point, "split": "train"} for point in points]
    workdir = tmp_path / "run"
    disk.write_table(workdir / "points.csv", POINT_COLUMNS, points)
    written = plots.draw_all(workdir)
    assert sorted(path.name for path in written) == sorted(
        f"{name}{split}.{kind}"
        for name in plots.FIGURES
        for split in ("", "_train")
        for kind in ("png", "pdf")
    )
    before = {path.name: path.read_bytes() for path in written}
    assert before["rd_plane.png"][:4] == b"\x89PNG" and before["rd_plane.pdf"][:4] == b"%PDF"
    shutil.rmtree(workdir / "figures")
    assert {path.name: path.read_bytes() for path in plots.draw_all(workdir)} == before
    with pytest.raises(BadInput, match="expected a readable file"):
        plots.draw_all(tmp_path / "absent")
    point = {"rate": 1.0, "distortion": 2.0}
    disk.write_table(workdir / "points.csv", tuple(point), [point])
    with pytest.raises(BadInput, match="expected a column 'split', as sweeps"):
        plots.draw_all(workdir)


def test_a_split_on_which_all_diverged_is_left_out(points, tmp_path):
    lost = [{**point, "split": "train", "status": "diverged"} for point in points]
    disk.write_table(tmp_path / "points.csv", POINT_COLUMNS, lost + points)
    names = {path.name for path in plots.draw_all(tmp_path)}
    assert names == {f"{name}.{kind}" for name in plots.FIGURES for kind in ("png", "pdf")}
