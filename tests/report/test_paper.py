"""The paper's facts hold together, and are offered for the right data only."""

import numpy as np
import pytest

from rd_elbo import data
from rd_elbo.report import paper


def test_frontiers_fall_and_their_hulls_have_the_corners_that_were_noted_by_hand():
    mnist = [(0, 80.5), (8.4, 71.9), (27.6, 56), (35.8, 49.4), (54.1, 36.6)]
    mnist += [(69.4, 26.9), (93.7, 15.2), (120.3, 8.1), (156, 4.8)]
    omniglot = [(0, 90.4), (0.8, 89.6), (8.6, 82), (30.1, 63.1), (47.1, 49.2)]
    omniglot += [(50.4, 46.6), (70.8, 30.7), (86.4, 19.5)]
    omniglot += [(97.5, 13.1), (107.4, 8.2), (115.8, 6), (130.6, 4.2), (138.6, 3.8)]
    for name, corners, points in (("binarized_mnist", mnist, 60), ("omniglot_burda", omniglot, 44)):
        reference = paper.reference(name)
        assert len(reference.rate) == points
        assert (np.diff(reference.rate) > 0).all() and (np.diff(reference.distortion) < 0).all()
        assert [tuple(corner) for corner in np.stack(reference.hull, axis=1)] == corners


def test_printed_elbos_are_the_sums_of_printed_terms():
    """A slip of the pen would show, but for Figure 4a's ELBOs, off in the paper."""
    names = ("binarized_mnist", "omniglot_burda")
    points = [p for name in names for p in paper.reference(name).points]
    off = [p for p in points if abs(p.total + p.elbo) > 0.101]
    assert {(p.family, p.beta) for p in off} == {("-+v", 0.1), ("-+v", 0.15)}
    assert {p.source for p in off} == {"Figure 4a"}
    assert all(p.note for p in off)
    assert {p.family for p in points} <= set(paper.FAMILIES)
    assert {p.how for p in points} <= {"text", "figure", "digitised"}


def test_nothing_printed_lies_below_the_digitised_hull():
    """Two readings of one figure agree to about 0.2 nats: labels, and frontier points."""
    for name in ("binarized_mnist", "omniglot_burda"):
        reference = paper.reference(name)
        for point in reference.points:
            hull = np.interp(point.rate, *reference.hull)
            assert point.distortion > hull - 0.3, point


def test_mnist_as_the_paper_has_it():
    mnist = paper.reference("binarized_mnist")
    assert (mnist.best.family, mnist.best.rate, mnist.best.distortion) == ("++v", 8.3, 71.9)
    assert len(mnist.points) == 25 and {p.family for p in mnist.points} == set(paper.FAMILIES)
    twice = mnist.printed("-+v", 1.0)
    found = {(p.annealed, p.rate, p.distortion) for p in twice}
    assert found == {(False, 0.0, 81.0), (True, 6.2, 74.1)}
    assert [p.rate for p in mnist.printed("-+v", 1.1)] == [0.0004]
    assert mnist.printed("---", 0.5) == ()
    assert mnist.printed("+--", 1.0 + 1e-9) == mnist.printed("+--", 1.0) != ()
    # Read off Figure 3 for weak decoders; the best of what is printed for strong ones.
    assert mnist.best_of("---") == paper.Best(86.9, "digitised", None)
    families = [family for family in paper.FAMILIES if family[1] == "+"]
    strong = {family: round(mnist.best_of(family).total, 6) for family in families}
    assert strong == {"-+-": 80.7, "-++": 80.4, "++-": 80.6, "+++": 80.5, "-+v": 80.3, "++v": 80.2}
    assert mnist.best_of("-+v").point.annealed is True


def test_omniglot_as_the_paper_has_it():
    omniglot = paper.reference("omniglot_burda")
    best = omniglot.best
    assert (best.family, best.beta, best.annealed) == ("++-", 1.0, True)
    assert (best.rate, best.distortion, best.how) == (0.77, 89.6, "text")
    assert omniglot.best_of("---") is None and omniglot.printed("-+v", 0.4)[0].distortion == 13.7


def test_only_data_like_the_papers_have_a_reference():
    own, embedded = paper.reference("binarized_mnist"), paper.reference("mnist_static")
    assert own.same_data and not embedded.same_data and "another draw" in embedded.remark
    assert embedded.points == own.points
    for name in ("omniglot_tfds", "path", "fashion", None):
        assert paper.reference(name) is None
        assert paper.why_none(name).endswith(("compare it with", "compare them with"))
    assert "split" in paper.why_none("omniglot_tfds") and "not recorded" in paper.why_none(None)


@pytest.mark.parametrize("name", data.NAMES)
def test_every_dataset_there_is_has_been_decided_on(name):
    assert (paper.reference(name) is not None) != (name in paper._INCOMPARABLE)
