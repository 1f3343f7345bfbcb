"""What is in a run directory, and what is not one."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rd_elbo import disk, records
from rd_elbo.errors import BadInput
from rd_elbo.evaluate import POINT_COLUMNS
from rd_elbo.grid import FIELDS, Member

RESULTS = pathlib.Path(__file__).parents[1] / "results"


def test_points_of_old_tables_have_the_fields_of_today_at_their_defaults(tmp_path):
    member = Member(beta=0.5, annealing=0.25)
    row = {
        **dict.fromkeys(POINT_COLUMNS, 0),
        **dataclasses.asdict(member),
        "member": member.name,
        "family": member.family,
    }
    row |= {"split": "test", "status": "ok", "rate": 1.5, "distortion": 2.0}
    disk.write_table(tmp_path / "points.csv", POINT_COLUMNS, [row])
    assert records.read_points(tmp_path) == [row]
    younger = ("annealing", "schedule", "latent")
    columns = [name for name in POINT_COLUMNS if name not in younger]
    disk.write_table(tmp_path / "points.csv", columns, [{name: row[name] for name in columns}])
    assert records.read_points(tmp_path) == [
        {**row, **{name: getattr(Member(), name) for name in younger}}
    ]


def test_tables_that_are_no_sweeps_are_refused_as_points(tmp_path):
    for missing in ("family", "beta", "rate"):
        columns = [name for name in POINT_COLUMNS if name != missing]
        disk.write_table(tmp_path / "points.csv", columns, [dict.fromkeys(columns, 0)])
        with pytest.raises(BadInput, match=f"has no column '{missing}'; only sweeps"):
            records.read_points(tmp_path)
    disk.write_table(tmp_path / "points.csv", POINT_COLUMNS, [])
    with pytest.raises(BadInput, match="has no points"):
        records.read_points(tmp_path)
    with pytest.raises(BadInput, match="has no column 'split'; only sweeps"):
        records.read_points(RESULTS / "toy")


def test_committed_sweeps_are_read(tmp_path):
    for name in ("quickstart", "longer_training", "longer_training_small_steps", "target_rate"):
        points = records.read_points(RESULTS / name)
        assert (
            set(FIELDS) <= points[0].keys() and records.data_name(RESULTS / name) == "mnist_static"
        )
        assert len(records.usable(points, "test")) > 0


def test_the_datas_name_is_found_where_it_is_recorded(tmp_path):
    assert records.data_name(tmp_path) is None
    disk.write_json(tmp_path / "config.json", {"data": {"name": "path"}})
    assert records.data_name(tmp_path) == "path"  # a run under way
    disk.write_json(tmp_path / "provenance.json", {"data": {"name": "mnist_static"}})
    assert records.data_name(tmp_path) == "mnist_static"
    disk.write_json(tmp_path / "provenance.json", {"data": None})
    assert records.data_name(tmp_path) == "path"
    (tmp_path / "provenance.json").write_text("{")
    with pytest.raises(BadInput, match="damaged"):
        records.data_name(tmp_path)


def test_a_run_directory_takes_one_run(tmp_path):
    config = {"data": 1, "grid": {"beta": (0.5, 1.0)}, "train": {"epochs": None}}
    workdir = tmp_path / "run"
    records.open_run(workdir, config)
    records.open_run(workdir, config)  # the same again
    other = {"data": 1, "grid": {"beta": (0.5, 2.0)}, "train": {"epochs": None}}
    kept = (workdir / "config.json").read_bytes()
    with pytest.raises(
        BadInput, match=r"different run \(grid.beta was \[0.5, 1.0\] and is \[0.5, 2.0\]\)"
    ):
        records.open_run(workdir, other)
    assert (workdir / "config.json").read_bytes() == kept
    tables = ("points.csv", "comparison.csv", "points.partial.csv", "figures/rd_plane.png")
    trained = ("params/0.msgpack", "parts/0.npz", "checkpoints/0/5.json", "plan.json")
    own = ("figures/mine.svg", "notes.txt")
    for name in (*tables, *trained, *own):
        disk.write_whole(workdir / name, lambda file: file.write(b"x"))

    def left():
        return sorted(
            str(path.relative_to(workdir)) for path in workdir.rglob("*") if path.is_file()
        )

    records.open_run(workdir, config)
    assert left() == sorted([*tables, *trained, *own, "config.json"])
    # Bound to the data alone: the tables are of another grid, but what was trained stays.
    records.open_run(workdir, other, bound=lambda config: config["data"])
    assert left() == sorted([*trained, *own, "config.json"])
    assert json.loads((workdir / "config.json").read_text()) == json.loads(json.dumps(other))
    with pytest.raises(BadInput, match="was 1 and is 2"):
        records.open_run(workdir, other | {"data": 2}, bound=lambda config: config["data"])
    records.open_run(workdir, other | {"data": 2}, overwrite=True)
    assert left() == sorted([*own, "config.json"])


def test_folders_that_are_no_runs(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(BadInput, match="holds files but no run"):
        records.open_run(tmp_path, {})
    with pytest.raises(BadInput, match="is a file"):
        records.open_run(tmp_path / "thesis.tex", {})
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "config.json").write_text("{")
    with pytest.raises(BadInput, match=r"config.json that cannot be read"):
        records.open_run(damaged, {})


def test_members_read_back(tmp_path):
    member = Member(latent=2, encoder_width=3, decoder_width=3, beta=0.3)
    params = member.build((2, 2)).init(jax.random.key(0), jnp.zeros((1, 2, 2)))
    records.save_params(tmp_path, member, params)
    back, read = records.load_params(tmp_path, member.name)
    assert back == member
    # An empty part (the standard normal has no parameters) is kept.
    assert jax.tree.structure(read) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, read, params)
    with pytest.raises(BadInput, match="no saved parameters"):
        records.load_params(tmp_path, "absent")
    path = tmp_path / "params" / f"{member.name}.msgpack"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BadInput, match="damaged"):
        records.load_params(tmp_path, member.name)


def test_provenance_says_what_is_needed():
    record = records.provenance({"sha256": "x"}, ["sweep.py"], {"training": 1.0})
    assert record["versions"]["jax"] == jax.__version__
    assert record["platform"] == "cpu" and len(record["devices"]) == jax.local_device_count()
    json.dumps(record, allow_nan=False)
