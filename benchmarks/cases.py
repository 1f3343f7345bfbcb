"""Cases of the benchmark, and what the contenders of a case share."""

import dataclasses
import functools
from typing import Any

import distrax
import jax
import numpy as np

from rd_elbo import data
from rd_elbo.exact import toy
from rd_elbo.models.family import paper_family
from rd_elbo.sweep import grid
from rd_elbo.sweep.presets import PAPER_PARTS, PAPER_WEAK
from rd_elbo.training import evaluate, state

_WEAK = paper_family("---")
_PAPER = {field: PAPER_PARTS[field] for field in ("encoder_width", "encoder_depth", "latent")}
# Sizes of the quickstart: scripts/benchmark.py members, and the cases below.
MEMBERS = {
    "mlp": grid.Member(
        encoder_width=128,
        decoder="mlp",
        decoder_width=512,
        decoder_depth=1,
        batch_size=64,
        learning_rate=4e-3,
    ),
    "pixelcnn": grid.Member(
        encoder_width=128,
        decoder="pixelcnn",
        decoder_width=8,
        decoder_depth=3,
        batch_size=8,
        learning_rate=1e-2,
    ),
    "conv": grid.Member(**_WEAK, encoder_width=8, decoder_width=8, latent=32, batch_size=32),
}
LARGE = {
    "mlp": grid.Member(
        encoder_width=512, decoder="mlp", decoder_width=512, latent=64, batch_size=128
    ),
    "pixelcnn": grid.Member(
        encoder_width=128, decoder="pixelcnn", decoder_width=32, decoder_depth=4, batch_size=16
    ),
    "conv": grid.Member(**_WEAK, **_PAPER, **PAPER_WEAK, batch_size=100),
    "flow": grid.Member(prior="maf", flow_width=128, flow_depth=2, batch_size=128),
}
TOY = grid.Member(learning_rate=1e-2, batch_size=1)

EVERY = ("ours", "sequential", "vmap_flax", "torch", "torch_func")
# Members and examples that contenders are compared on before they are measured.
_PROBED_MEMBERS, _PROBED_EXAMPLES = 2, 8


@dataclasses.dataclass(frozen=True)
class Case:
    """One population, and the contenders that train it.

    Attributes:
      suite: Name of the suite, which is the table that the case is a row of.
      name: Name of the case within its suite.
      member: The members' architecture and training; they differ in beta alone (toys in the seed).
      members: Number of members.
      contenders: Names of the contenders, "ours" first.
      forward: Whether rate and distortion are computed, and no gradient.
    """

    suite: str
    name: str
    member: grid.Member
    members: int
    contenders: tuple[str, ...] = EVERY
    forward: bool = False

    @property
    def exact(self) -> bool:
        """Whether the members are toys: tables in float64 in place of networks."""
        return self.suite == "toy"

    @property
    def batch(self) -> int:
        """Examples of a step."""
        return evaluate.BATCH if self.forward else self.member.batch_size

    @property
    def batches(self) -> int:
        """Batches of the data of an evaluation; fewer where they take seconds."""
        return 20 if self.member.decoder == "mlp" else 4


FORWARD = ("ours", "vmap_flax", "torch", "torch_func")
CASES = {
    "toy": (Case("toy", "float64", TOY, 4096, ("ours", "vmap_flax", "torch", "torch_func")),),
    "dense": tuple(
        Case("dense", f"{name}, {members} members", member, members, (*EVERY, "pythae"))
        for name, member, sizes in (
            ("784-512-512-64", LARGE["mlp"], (8, 16)),
            ("quickstart", MEMBERS["mlp"], (8, 64)),
        )
        for members in sizes
    ),
    "conv": (
        Case("conv", "8 channels", MEMBERS["conv"], 8),
        Case("conv", "paper", LARGE["conv"], 4),
    ),
    "pixelcnn": (
        Case("pixelcnn", "quickstart", MEMBERS["pixelcnn"], 8),
        Case("pixelcnn", "32 channels", LARGE["pixelcnn"], 8),
    ),
    "flow": (Case("flow", "maf", LARGE["flow"], 8, ("ours", "sequential", "torch")),),
    "evaluate": (
        Case("evaluate", "dense", LARGE["mlp"], 8, FORWARD, True),
        Case("evaluate", "conv", LARGE["conv"], 2, FORWARD, True),
        Case("evaluate", "pixelcnn", LARGE["pixelcnn"], 2, FORWARD, True),
    ),
}
SCALING = tuple(
    Case("scaling", f"{members} members", MEMBERS["mlp"], members, ("ours", "torch"))
    for members in (1, 2, 4, 8, 16, 32, 64)
)


@dataclasses.dataclass(frozen=True, eq=False)
class Probe:
    """A few members and examples, and what ours computes of them.

    Attributes:
      x: (examples, ...) examples.
      noise: (members, examples, latent) standard normal, of the draws of z.
      loss: (members,) beta R + D, nats.
      gradient: Gradients of the loss, in the tree of our parameters, members first.
    """

    x: np.ndarray
    noise: np.ndarray
    loss: np.ndarray
    gradient: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """What the contenders of a case share.

    Attributes:
      case: The case.
      spec: Our program.
      params: Our parameters before the first step, NumPy arrays, members first.
      hparams: (members,) our hyperparameters.
      data: (examples, ...) training data, a NumPy array or one of JAX.
      rows: (batches, batch) indices of examples: one batch after another, in one epoch's order.
    """

    case: Case
    spec: state.TrainSpec
    params: Any
    hparams: state.HParams
    data: Any
    rows: np.ndarray

    @property
    def members(self) -> int:
        """Number of members."""
        return self.case.members

    @property
    def betas(self) -> np.ndarray:
        """(members,) weights of the rate."""
        return self.hparams.weights.beta

    @property
    def latent(self) -> int:
        """Dimensions of z."""
        return self.case.member.latent

    @property
    def learning_rate(self) -> float:
        """Step size of Adam, which all members share."""
        return self.case.member.learning_rate

    def pick(self, *members: int) -> "Problem":
        """The problem of some members alone."""
        rows = np.asarray(members)
        own = [jax.tree.map(lambda leaf: leaf[rows], tree) for tree in (self.params, self.hparams)]
        case = dataclasses.replace(self.case, members=len(members))
        return dataclasses.replace(self, case=case, params=own[0], hparams=own[1])

    @functools.cached_property
    def probe(self) -> Probe:
        """Losses and gradients of the first members on the first examples."""
        few = self.pick(*range(min(_PROBED_MEMBERS, self.members)))
        x = self.data[self.rows[0][:_PROBED_EXAMPLES]].astype(self.spec.dtype)

        def loss(params: Any, x: jax.Array, key: jax.Array, beta: jax.Array) -> jax.Array:
            terms = self.spec.model.terms(params, x, key)
            return beta * terms.rate.mean() + terms.distortion.mean()

        def one(params: Any, x: jax.Array, key: jax.Array, beta: jax.Array) -> Any:
            shape = np.zeros((len(x), self.latent), x.dtype)
            normal = distrax.MultivariateNormalDiag(shape, shape + 1)
            return jax.value_and_grad(loss)(params, x, key, beta), normal.sample(seed=key)

        with state.settings(self.spec.dtype):
            keys = jax.random.split(jax.random.key(0), few.members)
            over = jax.jit(jax.vmap(one, (0, None, 0, 0)), compiler_options=QUICKLY)
            (value, gradient), noise = over(few.params, x, keys, few.betas)
        return Probe(x, np.asarray(noise), np.asarray(value), jax.tree.map(np.asarray, gradient))


# For programs that run once.
QUICKLY = {"xla_backend_optimization_level": 0}


def problem(case: Case) -> Problem:
    """Draw the parameters of a case's members, and the order of the examples."""
    if case.exact:
        model: Any = toy.Toy()
        members = [dataclasses.replace(case.member, seed=seed) for seed in range(case.members)]
        examples, dtype = toy.source()[None], "float64"
    else:
        betas = np.geomspace(0.1, 4, case.members).round(6).tolist()
        members = grid.product(case.member, beta=betas)
        examples, dtype = data.load("mnist_static").splits["train"], "float32"
        model = case.member.build(examples.shape[1:])
    spec = state.TrainSpec(
        model, batch_size=case.member.batch_size, schedule="constant", dtype=dtype
    )
    hparams = state.HParams.of([dataclasses.replace(m, schedule="constant") for m in members], spec)
    seeds = [member.seed for member in members]
    params = state.initialise([model] * len(members), seeds, model, examples.shape[1:], dtype)
    order = np.random.RandomState(0).permutation(len(examples))
    rows = order[: len(order) // case.batch * case.batch].reshape(-1, case.batch)
    return Problem(case, spec, params, hparams, examples, rows)
