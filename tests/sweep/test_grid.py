"""Members and their names, and grids of them."""

import dataclasses
import hashlib
import math

import numpy as np
import pytest

from rd_elbo.errors import BadInput
from rd_elbo.sweep.grid import FIELDS, Member, product


def test_product():
    got = product(Member(), beta=(0.5, 1.0), seed=(0, 1))
    assert [(m.beta, m.seed) for m in got] == [(0.5, 0), (0.5, 1), (1.0, 0), (1.0, 1)]
    assert product(Member()) == [Member()]
    assert len(product(product(Member(), seed=(0, 1)), beta=(1.0, 2.0))) == 4


def test_numpys_numbers_and_negative_zero():
    member = Member(seed=np.int64(3), beta=np.float32(0.5), kl_warmup_fraction=-0.0)
    assert member == Member(seed=3, beta=0.5) and member.name == Member(seed=3, beta=0.5).name
    assert type(member.seed) is int and type(member.beta) is float


def test_duplicates_are_dropped():
    assert product(Member(), beta=(1, 1.0, 2)) == [Member(beta=1.0), Member(beta=2.0)]


def test_a_name_is_what_a_member_is():
    assert Member(beta=1).name == Member(beta=1.0).name

    def others(base, fields):
        return {dataclasses.replace(base, **{field: OTHER_VALUES[field]}).name for field in fields}

    names = others(Member(), set(OTHER_VALUES) - {*Member().unused_fields})
    bases = {
        Member(objective="target_rate"): {"target_rate", "target_weight"},
        Member(prior="vampprior"): {"pseudo_inputs"},
        Member(objective="target_distortion"): {"target_distortion", "multiplier_rate"},
        Member(decoder="pixelvae"): {"causal_depth"},
        Member(decoder="pixelcnnpp"): {"z_in_every_layer"},
        Member(objective="free_bits"): {"free_bits"},
        Member(prior="maf"): {"flow_steps", "flow_width", "flow_depth"},
    }
    for base, fields in bases.items():
        names |= others(base, fields)
        assert not fields & {*base.unused_fields}
    assert set.union(*bases.values()) == {*Member().unused_fields}
    assert len(names | {Member().name, *(base.name for base in bases)}) == len(FIELDS) + 6


def test_names_of_members_from_before_fields_were_added():
    """Saved parameters stay found: a field at its default or without effect adds nothing."""
    paper = Member(decoder="pixelcnnpp", beta=0.5)
    assert paper.name == PAPERS_NAME
    assert dataclasses.replace(paper, z_in_every_layer=False, causal_depth=5).name == PAPERS_NAME
    assert dataclasses.replace(paper, z_in_every_layer=True).name != PAPERS_NAME
    assert Member(beta=0.5).name == hashlib.sha256(b'{"beta": 0.5}').hexdigest()[:10]
    assert Member(z_in_every_layer=True) == Member()


def test_members_that_train_alike_are_equal():
    assert Member(target_rate=3.0, target_weight=7.0, pseudo_inputs=5) == Member()
    assert Member(flow_width=7, free_bits=2.0) == Member()
    warm = Member(objective="target_distortion", target_distortion=3.0, kl_warmup_fraction=0.5)
    assert warm.kl_warmup_fraction == 0.0
    assert Member(encoder="conv_iaf", flow_width=7).flow_width == 7
    assert Member(prior="maf", flow_width=7).flow_width == 7
    target = Member(objective="target_rate", target_rate=3.0)
    assert dataclasses.replace(target, beta=0.1) == target
    assert len(product(target, beta=(0.1, 1.0), target_rate=(3.0, 4.0))) == 2


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, "44136fa355"),
        ({"prior": "maf"}, "575aefdf51"),
        ({"kl_warmup_fraction": 0.5, "divergence_threshold": 1e3}, "980b228950"),
        ({"prior": "vampprior", "pseudo_inputs": 50, "beta": 0.3}, "48a247391d"),
    ],
)
def test_names_of_members_from_before_fields_were_renamed(fields, name):
    """Taken from the code that called them marginal, annealing and loss_bound."""
    assert Member(**fields).name == name


def test_old_names_of_fields_are_refused_with_the_new():
    with pytest.raises(BadInput, match="expected prior, its present name"):
        product(Member(), marginal=("maf",))


PAPERS_NAME = "f0d0a0420d"

OTHER_VALUES = {
    "likelihood": "gaussian",
    "encoder": "conv",
    "decoder": "pixelcnn",
    "prior": "vampprior",
    "objective": "target_rate",
    "optimizer": "normalised_adam",
    "schedule": "constant",
    "kl_warmup_fraction": 0.5,
    **dict.fromkeys(("latent", "encoder_width", "encoder_depth", "decoder_width"), 7),
    **dict.fromkeys(("decoder_depth", "causal_depth", "pseudo_inputs", "free_bits"), 7),
    **dict.fromkeys(("flow_steps", "flow_width", "flow_depth"), 7),
    **dict.fromkeys(("target_distortion", "multiplier_rate"), 7),
    **dict.fromkeys(("batch_size", "seed"), 9),
    **dict.fromkeys(("beta", "target_rate", "target_weight", "learning_rate", "epochs"), 0.123),
    "divergence_threshold": 1e4,
    "ema_decay": 0.9,
    "dropout": 0.1,
    "shift": 2,
    "z_in_every_layer": True,
}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("beta", -0.1),
        ("beta", math.nan),
        ("beta", math.inf),
        ("beta", "1"),
        ("target_rate", -1.0),
        ("target_weight", 0.0),
        ("kl_warmup_fraction", 1.5),
        ("learning_rate", 0),
        ("learning_rate", 1e39),
        ("epochs", 0.0),
        ("batch_size", 0),
        ("batch_size", 2.0),
        ("seed", -1),
        ("seed", 2**31),
        ("objective", "elbo"),
        ("schedule", "step"),
        ("decoder_width", -3),
        ("ema_decay", 1.0),
        ("dropout", 1.0),
        ("shift", 0.5),
    ],
)
def test_bad_values_are_refused_in_one_sentence(field, value):
    with pytest.raises(BadInput) as refusal:
        product(Member(), **{field: (value,)})
    text = str(refusal.value)
    assert field in text and repr(value) in text and "\n" not in text


def test_bad_axes():
    with pytest.raises(BadInput, match="axis 'bta': expected one of encoder, "):
        product(Member(), bta=(1.0,))
    with pytest.raises(BadInput, match=r"beta=\(\): expected at least one value"):
        product(Member(), beta=())
    with pytest.raises(BadInput, match="expected a sequence"):
        product(Member(), beta=1.0)
