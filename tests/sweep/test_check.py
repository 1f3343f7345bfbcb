"""Saved parameters, read back as a population and evaluated again."""

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np

from rd_elbo.data.dataset import Dataset
from rd_elbo.sweep import tables
from rd_elbo.sweep.check import differences, worst
from rd_elbo.sweep.config import Population
from rd_elbo.sweep.grid import Member
from rd_elbo.sweep.restore import Run
from tests.drawn import random_params

SHAPE = (4, 4)
TINY = {"latent": 2, "encoder_width": 6, "decoder_depth": 1}
MEMBERS = (
    Member(**TINY, decoder_width=5, seed=1),
    Member(**TINY, decoder_width=6, seed=2, ema_decay=0.9),
)


def test_a_table_holds_until_parameters_change(tmp_path):
    """Padding to a wrong corner, or a neighbour's seed, would move R and D by far more."""
    images = (np.random.RandomState(0).random_sample((9, *SHAPE)) < 0.4).astype(np.uint8)
    dataset = Dataset("d", {"test": images, "train": images}, "test")
    models = [member.build(SHAPE) for member in MEMBERS]
    own = [random_params(model, jnp.float32(images), seed=i) for i, model in enumerate(models)]
    points, evaluated, how = [], {"test": images}, Population(devices=1)
    for member, params in zip(MEMBERS, own, strict=True):
        tables.save_params(tmp_path, member, params, SHAPE)
        if member.ema_decay:
            average = jax.tree.map(lambda leaf: 0.9 * leaf, params)
            tables.save_params(tmp_path, member, average, SHAPE, "ema")
        run = Run(tmp_path, [{"member": member.name, "status": "ok"}], dataset, evaluated, how)
        ((_, chunk, fitted),) = run.populations([member.name])
        points += tables.points(chunk.members, fitted, evaluated)
    how = Population(max_padding_overhead=9.0)
    together = Run(tmp_path, points, dataset, evaluated, how)
    found = differences(together)
    names = [member.name for member in MEMBERS]
    expected = [(names[0], "none"), (names[1], "none"), (names[1], "ema")]
    assert [(d.member, d.averaging) for d in found] == expected
    assert abs(points[1]["elbo"] - points[2]["elbo"]) > 0.01
    assert worst(found).largest < 1e-4
    # Averages alone may be kept, in half the size.
    path = tables.params_path(tmp_path, tables.params_name(names[1], "ema"))
    content = flax.serialization.msgpack_restore(path.read_bytes())
    content["params"] = jax.tree.map(lambda leaf: leaf.astype("float16"), content["params"])
    path.write_bytes(flax.serialization.msgpack_serialize(content))
    last = tables.params_path(tmp_path, names[1])
    last.unlink()
    rounded = differences(together)
    assert [(d.member, d.averaging) for d in rounded] == [expected[0], expected[2]]
    assert 0 < worst(rounded[1:]).largest < 0.01
    changed = jax.tree.map(lambda leaf: leaf + 0.05, own[1])
    tables.save_params(tmp_path, MEMBERS[1], changed, SHAPE)
    again = worst(differences(together))
    assert again.member == MEMBERS[1].name and again.largest > 0.05
    table = [point | {"rate": float("nan")} for point in points]
    assert worst(differences(Run(tmp_path, table, dataset, evaluated, how))).largest == np.inf


def test_members_without_parameters_or_diverged_are_left_out(tmp_path):
    tables.params_path(tmp_path, "a").parent.mkdir()
    for name in ("a", "b"):
        tables.params_path(tmp_path, name).touch()
    status = {"a": "ok", "b": "diverged", "c": "ok"}
    points = [{"member": name, "status": said} for name, said in status.items()]
    assert Run(tmp_path, points, None, {}, Population()).saved() == ["a"]
