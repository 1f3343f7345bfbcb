"""Measures side by side, in one run, and reports ratios of medians.

    python scripts/benchmark.py population

`population` trains members of the quickstart three ways, taking turns: our population; the same members with flax's own `nn.Conv`
under plain `jax.vmap` on one device; and one member after another. Before measuring it checks that the first two compute the same.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

from rd_elbo import host

host.configure()

import distrax  # noqa: E402
import flax.linen as nn  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from rich import box  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from rd_elbo import data, grid, population  # noqa: E402
from rd_elbo.models.base import Model  # noqa: E402
from rd_elbo.models.pixelcnn import PixelCNNDecoder, causal_mask  # noqa: E402

MEMBERS = {
    "mlp": grid.Member(encoder_width=128, decoder="mlp", decoder_width=512, decoder_depth=1, batch_size=64, learning_rate=4e-3),
    "pixelcnn": grid.Member(
        encoder_width=128, decoder="pixelcnn", decoder_width=8, decoder_depth=3, batch_size=8, learning_rate=1e-2
    ),
}


class PlainPixelCNN(nn.Module):
    """The small PixelCNN as one would write it with flax: masked `nn.Conv`s over causally padded images."""

    width: int
    depth: int
    image_shape: tuple[int, int]
    planes: int = 4

    @nn.compact
    def __call__(self, z: jax.Array) -> Any:
        """d(x|z), good for scoring alone."""
        planes = nn.Dense(self.image_shape[0] * self.image_shape[1] * self.planes)(z)
        planes = planes.reshape(len(z), *self.image_shape, self.planes)
        convs, conditions = [], []
        for i in range(self.depth + 1):
            inputs = 1 if i == 0 else self.width
            mask = np.broadcast_to(causal_mask(includes_centre=i > 0)[:, :, None, None], (3, 5, inputs, 2 * self.width))
            convs.append(nn.Conv(2 * self.width, (3, 5), padding=((2, 0), (2, 2)), mask=jnp.asarray(mask)))
            conditions.append(nn.Dense(2 * self.width, use_bias=False))
        readout, readout_plane = nn.Dense(1), nn.Dense(1, use_bias=False)

        def log_prob(x: jax.Array) -> jax.Array:
            h = x[..., None].astype(planes.dtype)
            for i, (conv, condition) in enumerate(zip(convs, conditions, strict=True)):
                linear, gate = jnp.split(conv(h) + condition(planes), 2, axis=-1)
                h = linear * nn.sigmoid(gate) + (h if i else 0)
            logits = (readout(h) + readout_plane(planes))[..., 0]
            return distrax.Independent(distrax.Bernoulli(logits), 2).log_prob(x)

        if self.is_initializing():
            log_prob(jnp.zeros(planes.shape[:3]))
        return _Scored(log_prob)


@dataclasses.dataclass(frozen=True)
class _Scored:
    """Just enough of a distribution to train with."""

    log_prob: Callable[[jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class PlainModel(Model):
    """A model whose decoder's distribution holds modules, so that it must be scored inside the call that makes it."""

    def decode(self, params: Any, z: jax.Array) -> Any:
        """d(x|z)."""

        def log_prob(x: jax.Array) -> jax.Array:
            return nn.apply(lambda module, z: module(z).log_prob(x), self.decoder)({"params": params["decoder"]}, z)

        return _Scored(log_prob)


def plain_params(params: Any, depth: int) -> Any:
    """The parameters of a population of our PixelCNNs, arranged for `PlainPixelCNN`."""
    ours = params["decoder"]
    flat = lambda a: a.reshape(*a.shape[:-2], -1)  # noqa: E731
    plain = {"Dense_0": ours["planes"]}
    for i in range(depth + 1):
        plain[f"Conv_{i}"] = {"kernel": flat(ours[f"layer_{i}_kernel"]), "bias": flat(ours[f"layer_{i}_bias"])}
        plain[f"Dense_{i + 1}"] = {"kernel": flat(ours[f"layer_{i}_plane"])}
    plain[f"Dense_{depth + 2}"] = {"kernel": ours["readout_kernel"][..., None], "bias": ours["readout_bias"][:, None]}
    plain[f"Dense_{depth + 3}"] = {"kernel": ours["readout_plane"][..., None]}
    return {**params, "decoder": plain}


def benchmark_population(kinds: list[str], members: int, steps: int, rounds: int) -> list[dict[str, Any]]:
    """Milliseconds per member-step of each way, and the ratios to ours."""
    images = data.load("mnist_static").splits["train"]
    results = []
    for kind in kinds:
        group = grid.product(MEMBERS[kind], beta=tuple(np.geomspace(0.1, 4, members).round(3).tolist()))
        model = group[0].build((28, 28))
        params = population.initialise([model] * members, [m.seed for m in group], model, (28, 28))
        hypers = population.Hypers.of(group)
        lead = group[0]
        program = population.Program(model, batch_size=lead.batch_size, segment_steps=steps)

        def way(program: Any, params: Any, hypers: Any, mesh: Any) -> Callable[[], Any]:
            """A function that trains on and on, and waits for the result."""
            held = {"state": population.start(params, mesh), "at": 0}
            placed, resident = population.place(hypers, mesh), population.replicate(images, mesh)

            def train_on() -> Any:
                first = held["at"] % (len(images) // program.batch_size - steps)
                state, metrics = population.train(program, mesh, held["state"], placed, resident, first, steps, 10**6)
                held.update(state=state, at=held["at"] + steps)
                return np.asarray(metrics.loss)

            return train_on

        one, every = population.make_mesh(1), population.make_mesh(None, members)
        plain_program, plain_start = program, params
        if kind == "pixelcnn":
            decoder = model.decoder
            assert isinstance(decoder, PixelCNNDecoder)
            plain = PlainModel(
                model.encoder, PlainPixelCNN(decoder.width, decoder.depth, decoder.image_shape, decoder.planes), model.marginal
            )
            plain_program, plain_start = dataclasses.replace(program, model=plain), plain_params(params, decoder.depth)
        pick = lambda tree, i: jax.tree.map(lambda a, i=i: a[i : i + 1], tree)  # noqa: E731
        singles = [way(program, pick(params, i), pick(hypers, i), one) for i in range(members)]
        ways = {
            "ours": way(program, params, hypers, every),
            "plain vmap": way(plain_program, plain_start, hypers, one),
            "one after another": lambda singles=singles: np.concatenate([single() for single in singles]),
        }
        first = {name: go() for name, go in ways.items()}  # compiles, and shows that they agree
        for name in ("plain vmap", "one after another"):
            difference = np.abs(first[name][:, :5] / first["ours"][:, :5] - 1).max()
            if not difference < 1e-3:
                raise SystemExit(f"{kind}: {name} does not compute what ours computes: {difference:.1e} apart after five steps")
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, go in ways.items():
                began = time.perf_counter()
                go()
                times[name].append(1e3 * (time.perf_counter() - began) / steps / members)
        median = {name: statistics.median(values) for name, values in times.items()}
        for name, values in times.items():
            row = {"members": kind, "way": name, "ms": median[name], "low": min(values), "high": max(values)}
            results.append({**row, "ratio": median[name] / median["ours"]})
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["population"])
    parser.add_argument("--kinds", nargs="+", choices=list(MEMBERS), default=list(MEMBERS))
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--steps", type=int, default=32, help="training steps a turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each way")
    args = parser.parse_args()
    rows = benchmark_population(args.kinds, args.members, args.steps, args.rounds)
    table = Table(box=box.SIMPLE_HEAD, title_justify="left", title=f"{args.members} members, milliseconds per member-step")
    for name in ("members", "way", "median", "range", "times ours"):
        table.add_column(name, justify="left" if name in ("members", "way") else "right", no_wrap=True)
    for row in rows:
        spread = f"{row['low']:.2f} - {row['high']:.2f}"
        table.add_row(row["members"], row["way"], f"{row['ms']:.2f}", spread, f"{row['ratio']:.2f}")
    Console().print(table)
    devices = jax.local_devices()
    print(f"{len(devices)} {devices[0].device_kind} devices, jax {jax.__version__}")


if __name__ == "__main__":
    main()
