"""Every configuration makes the members that it says."""

import collections
import pathlib

import numpy as np
import pytest

from rd_elbo.data.dataset import Dataset
from rd_elbo.models.family import PAPER_FAMILIES
from rd_elbo.report import paper
from rd_elbo.sweep import grid, grouping
from rd_elbo.sweep.config import Plan, Population

FOLDER = pathlib.Path(__file__).parents[2] / "configs"
EXPERIMENTS = ("toy", "gaussian")
SWEEPS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in EXPERIMENTS)


def loaded(name, form):
    names = {}
    exec((FOLDER / f"{name}.py").read_text(), names)
    return names["get_config"](form).to_dict(), names["__doc__"]


@pytest.mark.parametrize("name", SWEEPS)
def test_both_forms_make_members_and_the_docstring_has_the_command(name):
    for form in ("full", "quick"):
        config, about = loaded(name, form)
        assert grid.members_of(config)
        assert f"--config=configs/{name}.py" in about and "Claim:" in about
    with pytest.raises(ValueError, match="form='large': expected 'full' or 'quick'"):
        loaded(name, "large")


@pytest.mark.parametrize("name", ["mnist_paper", "mnist_small", "omniglot_paper", "omniglot_small"])
def test_the_twelve_families_along_beta(name):
    config, _ = loaded(name, "full")
    members = grid.members_of(config)
    betas = collections.defaultdict(set)
    for member in members:
        if member.objective == "beta" and not member.kl_warmup_fraction:
            betas[member.family].add(member.beta)
    assert set(betas) == set(PAPER_FAMILIES) == set(config["blocks"]) & set(PAPER_FAMILIES)
    fewest = 3 if name.startswith("omniglot") else 5
    assert all(1.0 in values and len(values) >= fewest for values in betas.values())
    # Members of one family share everything but what a program takes as arguments.
    for family in PAPER_FAMILIES:
        alike = [m for m in members if m.family == family and m.objective == "beta"]
        assert len(grouping.groups(alike, (28, 28))) == 1


def test_the_papers_configuration_covers_the_betas_it_prints():
    members = grid.members_of(loaded("mnist_paper", "full")[0])
    trained = {(member.family, member.beta) for member in members}
    assert {
        (point.family, point.beta) for point in paper.reference("binarized_mnist").points
    } <= trained


def test_the_frontiers_are_trained_in_the_order_that_they_are_written_in():
    """A ConfigDict sorts its keys unless told otherwise, and blocks may share a program."""
    expected = {
        "mnist_frontier": ("pixelvae_resnet", "resnet"),
        "mnist_frontier_gpu": (0.1, 0.3, 0.9),
    }
    for name, first in expected.items():
        field = "decoder" if isinstance(first[0], str) else "beta"
        values = [getattr(member, field) for member in grid.members_of(loaded(name, "full")[0])]
        assert tuple(dict.fromkeys(values))[: len(first)] == first
    images = np.zeros((4, 28, 28), np.uint8)
    data = Dataset("d", {"test": images, "train": images}, "test")
    members = grid.members_of(loaded("mnist_frontier", "full")[0])
    for size in (1, 2):
        plan = Plan({}, data, {"test": images}, members, Population(chunk_size=size))
        places = [[members.index(member) for member in chunk.members] for chunk in plan.chunks()]
        assert [place[0] for place in places] == sorted(place[0] for place in places)
        assert sorted(i for place in places for i in place) == list(range(len(members)))
