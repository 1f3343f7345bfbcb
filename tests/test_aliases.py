"""Names of earlier releases, in tables, parameters, configurations and flags."""

import pathlib

import flax.serialization
import numpy as np
import pytest

from rd_elbo import aliases, disk
from rd_elbo.errors import BadInput
from rd_elbo.sweep import grid, tables
from rd_elbo.sweep.grid import FIELDS, Member
from rd_elbo.training.hyperparameters import Hyperparameters
from scripts import console

ROOT = pathlib.Path(__file__).parents[1]


def test_committed_tables_of_earlier_releases_are_read_under_present_names():
    path = ROOT / "results" / "mnist_small" / "points.csv"
    assert b",marginal," in path.read_bytes().splitlines()[0]
    points = tables.read_points(path.parent)
    assert set(FIELDS) <= points[0].keys() and not aliases.FIELDS.keys() & points[0].keys()
    assert {point["prior"] for point in points} == {"maf", "normal", "vampprior"}
    assert {point["kl_warmup_fraction"] for point in points} == {0.0, 0.5}
    assert disk.read_table(ROOT / "results" / "toy" / "points.csv")[0]["prior_gap"] >= 0


def test_parameters_of_earlier_releases_are_read(tmp_path):
    old = {"latent": 2, "marginal": "vampprior", "annealing": 0.5, "loss_bound": 7.0}
    params = {"encoder": {"w": np.ones(2)}, "decoder": {}, "marginal": {"weights": np.ones(3)}}
    content = flax.serialization.msgpack_serialize({"member": old, "params": params})
    disk.write_whole(tables.params_path(tmp_path, "old"), lambda file: file.write(content))
    member, read = tables.load_params(tmp_path, "old")
    fields = {"prior": "vampprior", "kl_warmup_fraction": 0.5, "divergence_threshold": 7.0}
    assert member == Member(latent=2, **fields)
    assert read.keys() == {"encoder", "decoder", "prior"} and read["prior"]["weights"].sum() == 3


def test_configurations_of_earlier_releases_give_the_same_members_in_the_same_order():
    said = []
    axes = {"marginal": ("normal", "maf"), "annealing": (0.0, 0.5)}
    config = aliases.current(
        {"blocks": {"a": axes, "b": axes}, "grid": {"loss_bound": 7.0}}, said.append
    )
    members = grid.members_of(config)
    first = [("normal", 0.0), ("normal", 0.5), ("maf", 0.0), ("maf", 0.5)]
    assert [(m.prior, m.kl_warmup_fraction) for m in members] == first
    assert all(member.divergence_threshold == 7.0 for member in members)
    assert len(said) == 3 and "blocks.a.marginal is deprecated; give blocks.a.prior" in said
    with pytest.raises(BadInput, match=r"got grid\.prior too"):
        aliases.current({"grid": {"marginal": "maf", "prior": "normal"}})


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_flags_of_earlier_releases_set_present_fields(capsys):
    old = [
        "--config.base.marginal=maf",
        "--config.grid.annealing=0.5",
        "--config.population.lanes=3",
    ]
    file = f"--config={ROOT / 'configs' / 'quickstart.py'}"
    new = [
        "--config.base.prior=maf",
        "--config.grid.kl_warmup_fraction=0.5",
        "--config.population.vmap_size=3",
    ]
    assert console._check_config([file, *old]) == [file, *new]
    assert capsys.readouterr().err.count("is deprecated; give") == 3


@pytest.mark.parametrize("kind", [Member, Hyperparameters])
def test_an_old_name_of_a_field_is_refused_in_python(kind):
    with pytest.raises(BadInput, match=r"annealing=0\.5: expected kl_warmup_fraction, its present"):
        kind(annealing=0.5)
