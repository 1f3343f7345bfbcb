"""Encoders, decoders and priors of the user's own, in members, groups, sweeps and figures."""

import dataclasses
import doctest
import importlib
import sys

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rd_elbo as rd
from experiments.own_decoder import BroadcastDecoder
from rd_elbo import plots
from rd_elbo.errors import BadInput
from rd_elbo.models import registry
from rd_elbo.models.bernoulli import Bernoulli
from rd_elbo.sweep import grid, grouping, tables
from rd_elbo.training import fit, state
from tests.training.populations import images_of

REFERENCE = "experiments.own_decoder:BroadcastDecoder"
OWN = rd.Member(
    decoder=REFERENCE, decoder_width=2, encoder_width=4, latent=2, batch_size=32, epochs=0.1
)


@pytest.fixture
def parts(monkeypatch):
    """Names that a test registers are gone after it."""
    for kind in registry.KINDS:
        monkeypatch.setitem(registry._parts, kind, dict(registry._parts[kind]))


class Flat(nn.Module):
    """A decoder of one layer, with a field that no member has."""

    image_shape: tuple[int, int]
    steepness: float = 2.0

    @nn.compact
    def __call__(self, z):
        height, width = self.image_shape
        logits = self.steepness * nn.Dense(height * width)(z).reshape(-1, height, width)
        return distrax.Independent(Bernoulli(logits), 2)


class Needy(nn.Module):
    hidden: int


def test_a_class_is_filled_with_what_a_member_has():
    model = dataclasses.replace(OWN, decoder_width=5).build((6, 7))
    assert model.decoder == BroadcastDecoder(5, (6, 7)) and hash(model.decoder)
    assert OWN.family == "---" and "pseudo_inputs" in OWN.unused_fields


@pytest.mark.slow
def test_a_sweep_of_an_own_decoder(tmp_path, monkeypatch):
    digits = rd.load_data("mnist_static").head(320)
    points = rd.sweep(rd.product(OWN, beta=(0.5, 1.0)), digits, tmp_path, splits=("test",))
    assert {row["decoder"] for row in points} == {REFERENCE}
    assert all(row["rate"] > 0 for row in points)
    member, params = rd.load_params(tmp_path, points[0]["member"])
    model, x = member.build((28, 28)), jnp.asarray(digits.splits["test"], jnp.float32)
    rate = model.encode(params, x).kl_divergence(model.prior_distribution(params, x)).mean()
    np.testing.assert_allclose(rate, points[0]["rate"], rtol=1e-5)
    # Tables and figures need no module.
    monkeypatch.setitem(sys.modules, "experiments.own_decoder", None)
    assert tables.read_points(tmp_path) == points
    (curve,) = plots.curves(points)
    assert "BroadcastDecoder" in curve.label and ":" not in curve.label


def test_widths_share_a_program_where_a_part_says_so():
    assert len(grouping.groups(rd.product(OWN, decoder_width=(2, 3)), (8, 8), 2.0)) == 1
    flat = dataclasses.replace(OWN, decoder=f"{__name__}:Flat")
    assert len(grouping.groups(rd.product(flat, decoder_width=(2, 3)), (8, 8), 2.0)) == 2


@pytest.mark.slow
def test_a_padded_own_part_trains_as_alone():
    """What `pads` of the example declares."""
    group = grid.Group(tuple(rd.product(OWN, decoder_width=(2, 3))))
    images = images_of(shape=(6, 5))
    members = [dataclasses.replace(member, batch_size=8) for member in group.members]

    def train(chosen):
        spec = grid.Group(tuple(chosen)).spec((6, 5), dtype="float64")
        models = [member.build((6, 5)) for member in chosen]
        return fit.fit(spec, models, state.HParams.of(chosen, spec), images, 20)

    together, alone = train(members), train(members[:1])
    np.testing.assert_allclose(together.metrics.loss[0], alone.metrics.loss[0], rtol=1e-9)
    assert np.abs(together.metrics.loss[0] - together.metrics.loss[1]).max() > 1e-3


def test_registered_parts_are_members_like_others(parts):
    rd.register_decoder("flat", Flat, sign="f")
    rd.register_prior("wide", lambda a, shape: rd.Member(latent=a.latent).build(shape).prior)
    member = rd.Member(decoder="flat", prior="wide", latent=3)
    assert member.family == "-fo" and member.build((4, 5)).decoder == Flat((4, 5))
    assert member.name != rd.Member(decoder="mlp", latent=3).name
    rd.register_decoder("flat", Flat, sign="f")  # again, as a reloaded notebook does
    for _ in range(2):  # and a cell of a notebook, which is in no file
        rd.register_decoder("cell", eval("lambda member, shape: Flat(shape)", {"Flat": Flat}))
    taken = (("mlp", Flat), ("no name", Flat), ("mlp", print))
    for name, given in (*taken, ("flat", 3), ("flat", print)):
        with pytest.raises(BadInput):
            rd.register_decoder(name, given)
    with pytest.raises(BadInput, match=r"'dense': expected a class .* got an instance of Dense"):
        rd.register_decoder("dense", nn.Dense(3))
    with pytest.raises(BadInput, match="sign='ff'"):
        rd.register_encoder("other", Flat, sign="ff")


def test_a_registered_class_declares_what_a_referenced_one_does(parts):
    rd.register_decoder("broadcast", BroadcastDecoder)
    rd.register_decoder("unlike", BroadcastDecoder, sign="u", pads=False)
    declared = [registry.find("decoder", name) for name in (REFERENCE, "broadcast", "unlike")]
    assert [(part.sign, part.pads) for part in declared] == [("-", True), ("-", True), ("u", False)]


def test_examples_of_registering(parts):
    done = doctest.testmod(registry)
    assert done.attempted and not done.failed


def test_a_member_is_known_by_the_text_of_its_parts(tmp_path, monkeypatch):
    """Another text is another member, trained anew; the same text is the same member."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    text = "from tests.models.test_own_parts import Flat\n\nclass Mine(Flat):\n    pass\n"
    names = []
    for i, content in enumerate((text, text, text + "# changed\n")):
        (tmp_path / "mine_of_a_test.py").write_text(content)
        if i:
            importlib.reload(sys.modules["mine_of_a_test"])
        names.append(rd.Member(decoder="mine_of_a_test:Mine").name)
    assert names[0] == names[1] != names[2]
    assert rd.Member(optimizer="optax:adamw").name != rd.Member().name


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("decoder", "nowhere:Mine", "'nowhere' cannot be imported"),
        ("encoder", "rd_elbo:Nothing", "'rd_elbo' has no 'Nothing'"),
        ("prior", "rd_elbo:", "has no ''"),
        ("decoder", "math:pi", "a class of flax modules or a function, got 3.14"),
        ("optimizer", "optax:nothing", "'optax' has no 'nothing'"),
        ("optimizer", "math:pi", "optimizer=3.14"),
    ],
)
def test_references_that_lead_nowhere(field, value, words):
    with pytest.raises(BadInput) as refusal:
        rd.Member(**{field: value})
    assert words in str(refusal.value) and field in str(refusal.value)


def test_a_field_that_nothing_fills_is_named():
    with pytest.raises(BadInput, match="or with a default, got 'hidden'"):
        rd.Member(decoder=f"{__name__}:Needy").build((4, 4))


def test_an_optimizer_by_reference_in_a_sweep():
    digits = rd.load_data("mnist_static").head(64)
    tiny = rd.Member(encoder_width=4, decoder_width=4, latent=2, batch_size=32)
    points = rd.sweep(rd.product(tiny, optimizer=("optax:adamw",)), digits, splits=("test",))
    assert [(row["optimizer"], row["status"]) for row in points] == [("optax:adamw", "ok")]


class Pixels(nn.Module):
    """What a decoder may return by mistake."""

    kind: str

    @nn.compact
    def __call__(self, z):
        logits = nn.Dense(20)(z)
        made = {"array": logits, "flat": distrax.Independent(distrax.Bernoulli(logits), 1)}
        return made.get(self.kind, distrax.Bernoulli(logits.reshape(-1, 4, 5)))


@pytest.mark.parametrize(
    ("decoder", "latent", "words"),
    [
        # Its distortion would be a mean over pixels.
        (Pixels("single"), 2, r"decoder: .* over arrays of shape \(4, 5\), .* single numbers"),
        (Pixels("flat"), 2, r"decoder: .*, got one over arrays of shape \(20,\)"),
        (Pixels("array"), 2, "decoder: .* returns a distribution, .* got an array"),
        (Flat((4, 5)), 3, r"prior: .* \(2,\), that of the encoder, .* \(3,\)"),
    ],
)
def test_parts_that_do_not_fit_are_named(decoder, latent, words):
    encoder = rd.models.DenseEncoder(width=3, depth=1, latent=2)

    def init(key, x):
        return rd.VAE(encoder, decoder, rd.models.StandardNormal(latent)).init(key, x)

    with pytest.raises(BadInput, match=words):
        jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 4, 5)))


class Batched(nn.Module):
    """A part that gets its batch axis wrong."""

    kind: str

    @nn.compact
    def __call__(self, inputs):
        rows = inputs.reshape(len(inputs), -1)
        if self.kind in ("lost", "single"):
            rows = rows.mean(0, keepdims=self.kind == "single")
        made = nn.Dense(40 if self.kind == "twice" else 20)(rows)
        if self.kind == "encoder":
            return distrax.MultivariateNormalDiag(made.mean(0), jnp.ones(20))
        shape = (4, 5) if self.kind == "lost" else (-1, 4, 5)
        return distrax.Independent(Bernoulli(made.reshape(shape)), 2)


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("twice", ("decoder: ", "(2,)", "(4,)")),
        ("lost", ("decoder: ", "(2,)", "()")),
        ("single", ("decoder: ", "(2,)", "(1,)")),
        ("encoder", ("encoder: ", "(2,)", "()")),
    ],
)
def test_a_part_that_loses_the_batch_is_named(kind, named):
    """Its terms would broadcast without a word, or fail with a message of jax."""
    encoder, decoder = rd.models.DenseEncoder(3, 1, 2), Batched(kind)
    if kind == "encoder":
        encoder, decoder = Batched(kind), Flat((4, 5))
    model = rd.VAE(encoder, decoder, rd.models.StandardNormal(20 if kind == "encoder" else 2))
    with pytest.raises(BadInput) as refusal:
        rd.fit(model, images_of(shape=(4, 5)), rd.product(seed=(0,)), steps=1, batch_size=4)
    assert all(words in str(refusal.value) for words in named)


class Single(Flat):
    """A decoder whose distribution is over single pixels."""

    @nn.compact
    def __call__(self, z):
        return Bernoulli(nn.Dense(4)(z).reshape(-1, 2, 2))


class Broken(Flat):
    """A decoder with a mistake."""

    @nn.compact
    def __call__(self, z):
        return z.nothing


@pytest.mark.parametrize(
    ("decoder", "words"), [("Single", "wrap it in distrax.Independent"), ("Broken", "nothing")]
)
def test_a_sweep_refuses_a_part_that_does_not_fit_before_it_writes(decoder, words, tmp_path):
    images = images_of(shape=(2, 2))
    own = dataclasses.replace(OWN, decoder=f"{__name__}:{decoder}")
    data = rd.Dataset.from_arrays(train=images, test=images)
    with pytest.raises(BadInput, match=f"decoder='{__name__}:{decoder}'.*{words}"):
        rd.sweep(rd.product(own, beta=(1.0,)), data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_function_may_read_every_field_of_a_member(parts):
    """A field that it read was put at its default without a word."""
    rd.register_decoder("read", lambda a, shape: rd.models.MLPDecoder(a.causal_depth, 1, shape))
    assert rd.Member(decoder="read", causal_depth=7).build((4, 4)).decoder.width == 7
    assert rd.Member(decoder="read", likelihood="gaussian").likelihood == "bernoulli"


def test_sizes_are_those_that_a_decoder_has(parts):
    rd.register_decoder("function", lambda a, shape: Flat(shape))
    both = ("decoder_width", "decoder_depth")
    expected = {"mlp": both, "function": both, REFERENCE: both[:1], f"{__name__}:Flat": ()}
    assert {name: registry.sizes(name) for name in expected} == expected
