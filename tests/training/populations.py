"""Small populations: members of image models, and models of one weight that echo their input."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from rd_elbo.models.family import Architecture
from rd_elbo.models.vae import Terms
from rd_elbo.training import fit, regularisation, sharding, state

SHAPE = (4, 4)
STEPS = 50


@dataclasses.dataclass(frozen=True)
class Member(Architecture):
    """A model to train, in plain values."""

    latent: int = 3
    encoder_width: int = 6
    decoder_width: int = 6
    decoder_depth: int = 1
    pseudo_inputs: int = 3
    objective: str = "beta"
    beta: float = 1.0
    target_rate: float = 0.0
    target_weight: float = 2.0
    target_distortion: float = 0.0
    multiplier_rate: float = 0.003
    kl_warmup_fraction: float = 0.0
    optimizer: str = "adam"
    schedule: str = "cosine"
    batch_size: int = 4
    learning_rate: float = 1e-2
    seed: int = 0
    divergence_threshold: float = math.inf
    ema_decay: float = 0.0
    dropout: float = 0.0
    shift: int = 0


def several(base, **changes):
    """Members that differ in one field or, where values are tuples, in several that go together."""
    (names, values) = zip(*changes.items(), strict=True)
    return [
        dataclasses.replace(base, **dict(zip(names, row, strict=True)))
        for row in zip(*values, strict=True)
    ]


def images_of(examples=40, shape=SHAPE):
    """Random binary images."""
    random = np.random.RandomState(0)
    return (random.random_sample((examples, *shape)) < 0.4).astype(np.uint8)


def models_of(members, shape=SHAPE):
    """Each member's model, and the widest of them."""
    own = [
        Architecture(**{f: getattr(m, f) for f in Architecture.__dataclass_fields__})
        for m in members
    ]
    widest = {f: max(getattr(a, f) for a in own) for f in ("encoder_width", "decoder_width")}
    padded = dataclasses.replace(own[0], **widest)
    return [architecture.build(shape) for architecture in own], padded.build(shape)


def spec_of(members, shape=SHAPE, **changes):
    """The program of members."""
    lead, (_, padded) = members[0], models_of(members, shape)
    own = {f: getattr(lead, f) for f in ("objective", "batch_size", "schedule", "optimizer")}
    own |= regularisation.switches(members)
    return state.TrainSpec(padded, **{**own, "dtype": "float64", **changes})


def train(members, images=None, steps=STEPS, devices=None, spec=(), **rest):
    """Trains members together, in float64 where nothing else is said."""
    images = images_of() if images is None else images
    spec = spec_of(members, images.shape[1:], **dict(spec))
    models, _ = models_of(members, images.shape[1:])
    mesh = sharding.make_mesh(devices, len(members))
    return fit.fit(spec, models, state.HParams.of(members, spec), images, steps, mesh=mesh, **rest)


def trained(members, **rest):
    """`train`, and all of them get to the end."""
    result = train(members, **rest)
    assert (result.steps == STEPS).all() and result.alive.all()
    return result


def of(result, index):
    """The parameters of one member."""
    return jax.tree.map(lambda leaf: leaf[index], result.params)


def assert_same(a, b, rtol=1e-5):
    """Equal to float tolerance."""
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-9), a, b)


def assert_identical(a, b):
    """Equal to the last bit."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


@dataclasses.dataclass(frozen=True)
class Echo:
    """A model of one weight: its rate is `seen` of the batch and the key, its distortion is w."""

    seen: str = "example"

    def init(self, key, x):
        drawn = self.seen in ("weight", "all")
        return {"w": jax.random.normal(key) if drawn else jnp.zeros(())}

    def terms(self, params, x, key):
        rate = {
            "example": x[:, 0],
            "key": jnp.full(len(x), jax.random.uniform(key)),
            "all": x[:, 0] + jax.random.uniform(key) + params["w"],
            "one": jnp.ones(len(x)),
            "weight": jnp.full(len(x), params["w"]),
            "poison": jnp.where(x[:, 0] == 7, jnp.nan, 1.0) * params["w"],
        }[self.seen]
        return Terms(rate + 0 * params["w"], jnp.full(len(x), params["w"]), x)

    def rate_estimator(self, params, x):
        return "closed_form"


class Wide(Echo):
    """One that does not fit."""

    def init(self, key, x):
        return {"w": jnp.zeros(2)}


def echo(model, members, images, steps, **rest):
    """Trains models of one kind, each of the same widths, in float32."""
    fields = ("batch_size", "schedule", "dtype", "adam_b2", "call_steps", "optimizer", "objective")
    own = regularisation.switches(members) | {f: rest.pop(f) for f in fields if f in rest}
    spec = state.TrainSpec(model, **{"batch_size": 4, **own})
    hparams = state.HParams.of(members, spec)
    return fit.fit(spec, [model] * len(members), hparams, images, steps, **rest)
