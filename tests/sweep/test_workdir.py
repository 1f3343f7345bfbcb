"""What is in a run directory, what is read back, and what is no run directory."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rd_elbo import disk
from rd_elbo.errors import BadInput
from rd_elbo.sweep import folder, provenance, tables
from rd_elbo.sweep.grid import FIELDS, Member
from rd_elbo.sweep.metrics import MetricWriter, lines
from rd_elbo.sweep.tables import POINT_COLUMNS
from rd_elbo.training.state import Metrics

RESULTS = pathlib.Path(__file__).parents[2] / "results"


def test_points_of_old_tables_have_the_fields_of_today_at_their_defaults(tmp_path):
    member = Member(beta=0.5, kl_warmup_fraction=0.25)
    row = {**dict.fromkeys(POINT_COLUMNS, 0), **dataclasses.asdict(member)}
    row |= {"member": member.name, "family": member.family, "version": "0.1.0+abc"}
    row |= {"split": "test", "averaging": "ema", "status": "ok", "rate": 1.5, "distortion": 2.0}
    disk.write_table(tmp_path / "points.csv", POINT_COLUMNS, [row])
    assert tables.read_points(tmp_path) == [row]
    younger = ("kl_warmup_fraction", "schedule", "latent")
    columns = [name for name in POINT_COLUMNS if name not in (*younger, "version", "averaging")]
    disk.write_table(tmp_path / "points.csv", columns, [{name: row[name] for name in columns}])
    defaults = {name: getattr(Member(), name) for name in younger} | {
        "version": "",
        "averaging": "none",
    }
    assert tables.read_points(tmp_path) == [{**row, **defaults}]


def test_tables_that_are_no_sweeps_are_refused_as_points(tmp_path):
    for missing in ("family", "beta", "rate"):
        columns = [name for name in POINT_COLUMNS if name != missing]
        disk.write_table(tmp_path / "points.csv", columns, [dict.fromkeys(columns, 0)])
        with pytest.raises(BadInput, match=f"expected a column '{missing}', as sweeps"):
            tables.read_points(tmp_path)
    disk.write_table(tmp_path / "points.csv", POINT_COLUMNS, [])
    with pytest.raises(BadInput, match="expected points, got none"):
        tables.read_points(tmp_path)
    with pytest.raises(BadInput, match="expected a column 'split', as sweeps"):
        tables.read_points(RESULTS / "toy")


def test_committed_sweeps_are_read(tmp_path):
    for name in ("quickstart", "longer_training", "longer_training_small_steps", "target_rate"):
        points = tables.read_points(RESULTS / name)
        assert set(FIELDS) <= points[0].keys()
        assert tables.data_name(RESULTS / name) == "mnist_static"
        assert len(tables.usable(points, "test")) > 0


def test_the_datas_name_is_found_where_it_is_recorded(tmp_path):
    assert tables.data_name(tmp_path) is None
    disk.write_json(tmp_path / "config.json", {"data": {"name": "path"}})
    assert tables.data_name(tmp_path) == "path"  # a run under way
    disk.write_json(tmp_path / "provenance.json", {"data": {"name": "mnist_static"}})
    assert tables.data_name(tmp_path) == "mnist_static"
    disk.write_json(tmp_path / "provenance.json", {"data": None})
    assert tables.data_name(tmp_path) == "path"
    (tmp_path / "provenance.json").write_text("{")
    with pytest.raises(BadInput, match="damaged"):
        tables.data_name(tmp_path)


def test_a_run_directory_takes_one_run(tmp_path):
    config = {"data": 1, "grid": {"beta": (0.5, 1.0)}, "train": {"epochs": None}}
    workdir = tmp_path / "run"
    folder.open_run(workdir, config)
    folder.open_run(workdir, config)  # the same again
    other = {"data": 1, "grid": {"beta": (0.5, 2.0)}, "train": {"epochs": None}}
    kept = (workdir / "config.json").read_bytes()
    with pytest.raises(BadInput, match=r"grid.beta was \[0.5, 1.0\] and is \[0.5, 2.0\]"):
        folder.open_run(workdir, other)
    assert (workdir / "config.json").read_bytes() == kept
    made = ("points.csv", "comparison.csv", "figures/rd_plane.png")
    trained = ("params/0.msgpack", "chunks/0.json", "checkpoints/0/5.json", "metrics/0.csv")
    own = ("figures/mine.svg", "notes.txt")
    for name in (*made, *trained, *own):
        disk.write_whole(workdir / name, lambda file: file.write(b"x"))

    def left():
        return sorted(str(p.relative_to(workdir)) for p in workdir.rglob("*") if p.is_file())

    folder.open_run(workdir, config)
    assert left() == sorted([*made, *trained, *own, "config.json"])

    def data(config):
        return config["data"]

    # Another process may be writing there: nothing is removed.
    folder.open_run(workdir, other, bound=data, exclusive=False)
    assert left() == sorted([*made, *trained, *own, "config.json"])
    # Bound to the data alone: the tables are of another grid, but what was trained stays.
    folder.open_run(workdir, config, bound=data)
    assert left() == sorted([*trained, *own, "config.json"])
    with pytest.raises(BadInput, match="was 1 and is 2"):
        folder.open_run(workdir, other | {"data": 2}, bound=data)
    folder.open_run(workdir, other | {"data": 2}, overwrite=True)
    assert left() == sorted([*own, "config.json"])


def test_folders_that_are_no_runs(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(BadInput, match="expected a new folder or a run, got other files"):
        folder.open_run(tmp_path, {})
    with pytest.raises(BadInput, match="got a file"):
        folder.open_run(tmp_path / "thesis.tex", {})
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "config.json").write_text("{")
    with pytest.raises(BadInput, match=r"expected a readable config\.json"):
        folder.open_run(damaged, {})
    # Of an older release: nothing of it is deleted.
    (damaged / "plan.json").write_text("{}")
    with pytest.raises(BadInput, match=r"a run of 0\.1\.0"):
        folder.open_run(damaged, {}, overwrite=True)
    assert (damaged / "plan.json").exists()


def test_members_read_back_at_their_own_widths(tmp_path):
    member = Member(latent=2, encoder_width=3, decoder_width=3, beta=0.3)
    key, x = jax.random.key(0), jnp.zeros((1, 2, 2))
    params = member.build((2, 2)).init(key, x)
    wide = dataclasses.replace(member, encoder_width=5, decoder_width=4).build((2, 2)).init(key, x)

    def embed(whole, part):
        return jnp.zeros_like(whole).at[tuple(map(slice, part.shape))].set(part)

    digest = tables.save_params(tmp_path, member, jax.tree.map(embed, wide, params), (2, 2))
    path = tables.params_path(tmp_path, member.name)
    assert digest == disk.sha256(path)
    back, read = tables.load_params(tmp_path, member.name)
    assert back == member
    # An empty part (the standard normal has no parameters) is kept.
    assert jax.tree.structure(read) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, read, params)
    with pytest.raises(BadInput, match="expected saved parameters"):
        tables.load_params(tmp_path, "absent")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BadInput, match="damaged"):
        tables.load_params(tmp_path, member.name)


def seen(members, kept, every):
    steps = every * np.arange(1, kept + 1)
    column = np.random.default_rng(0).normal(100, 10, (members, kept)).astype(np.float32)
    return Metrics(steps, column, column + 1, column + 2)


def test_metrics_of_a_paper_sized_sweep_are_small():
    """264 members of 100,000 steps, every 100th of them kept, in two files: under 50 MB."""
    names, metrics = [f"{i:010x}" for i in range(22)], seen(22, 1000, 100)
    size = sum(map(len, lines(names, metrics)))
    assert 2 * 12 * size < 50e6


def test_metrics_are_written_while_training(tmp_path):
    said, metrics = [], seen(2, 3, 5)
    writer = MetricWriter(tmp_path / "metrics" / "x.csv", ("a", "b"), said.append)
    writer(metrics)
    writer(Metrics(*(np.asarray(column)[..., :1] for column in metrics)))
    rows = disk.read_table(tmp_path / "metrics" / "x.csv")
    assert [row["step"] for row in rows] == [5, 10, 15, 5, 10, 15, 5, 5] and not said
    assert rows[4]["loss"] == pytest.approx(metrics.loss[1, 1], rel=1e-6)
    # A restart is told everything since step 0 and begins anew.
    MetricWriter(tmp_path / "metrics" / "x.csv", ("a", "b"), said.append)(metrics)
    assert len(disk.read_table(tmp_path / "metrics" / "x.csv")) == 6
    # Where nothing can be written, training goes on.
    (tmp_path / "file").write_text("x")
    writer = MetricWriter(tmp_path / "file" / "x.csv", ("a", "b"), said.append)
    writer(metrics)
    writer(metrics)
    assert len(said) == 1 and "cannot be written" in said[0]


def test_a_member_that_diverged_has_nothing_to_say_afterwards():
    said = [line.split(",")[:2] for line in lines(("a", "b"), seen(2, 3, 5), (12, 15))]
    assert said == [["a", "5"], ["a", "10"], ["b", "5"], ["b", "10"], ["b", "15"]]


def test_event_files_are_read_back(tmp_path):
    events = pytest.importorskip("tensorboardX")
    assert events
    writer = MetricWriter(tmp_path / "x.csv", ("a", "b"), pytest.fail, tmp_path / "events")
    writer(seen(2, 3, 5))
    writer.close()
    for member in ("a", "b"):
        (file,) = (tmp_path / "events" / member).iterdir()
        assert file.read_bytes().count(b"distortion") == 3


def test_provenance_says_what_is_needed():
    record = provenance.provenance({"sha256": "x"}, ["sweep.py"], {"training": 1.0})
    assert record["versions"]["jax"] == jax.__version__
    assert record["platform"] == "cpu" and len(record["devices"]) == jax.local_device_count()
    json.dumps(record, allow_nan=False)
    assert provenance.version().endswith(f"/jax{jax.__version__}")
