"""Measures side by side, in one run, and reports ratios of medians.

    python scripts/benchmark.py population
    python scripts/benchmark.py toy
    python scripts/benchmark.py members
    python scripts/benchmark.py vmap_size --config=configs/quickstart.py

`population` trains members of the quickstart, and small ones of the paper's family `---`, three ways, taking turns: our population;
the same members with flax's own `nn.Conv` under plain `jax.vmap` on one device; and one member after another. `toy` does so with
members of the toy model, in float64: ours computes with members on the trailing axis, a few at a time on every device; the plain
model is written as one would for one member.
Before measuring it checks that all ways compute the same.

`members` trains more and more small MLPs (encoder and decoder of width 16) on all 50,000 images and tells the time per member-step
and the lengths of the calls.

`vmap_size` trains each group of a sweep with several numbers of members side by side, taking turns, and recommends one for
`population.vmap_size`.
"""

import argparse
import contextlib
import dataclasses
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from rd_elbo import host

host.configure(x64="toy" in sys.argv)

import console as terminal  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from plain import PlainConvEncoder, PlainDeconvDecoder, PlainModel, PlainPixelCNN, plain_conv_params, plain_params  # noqa: E402
from rich import box  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from rd_elbo import data, provenance  # noqa: E402
from rd_elbo.errors import BadInput, whole  # noqa: E402
from rd_elbo.exact import toy  # noqa: E402
from rd_elbo.models.base import VAE, Terms  # noqa: E402
from rd_elbo.models.family import paper_family  # noqa: E402
from rd_elbo.models.pixelcnn import PixelCNNDecoder  # noqa: E402
from rd_elbo.sweep import grid  # noqa: E402
from rd_elbo.sweep.config import load  # noqa: E402
from rd_elbo.sweep.run import described  # noqa: E402
from rd_elbo.training import fit, sharding, state, step  # noqa: E402

MEMBERS = {
    "mlp": grid.Member(encoder_width=128, decoder="mlp", decoder_width=512, decoder_depth=1, batch_size=64, learning_rate=4e-3),
    "pixelcnn": grid.Member(
        encoder_width=128, decoder="pixelcnn", decoder_width=8, decoder_depth=3, batch_size=8, learning_rate=1e-2
    ),
    "conv": grid.Member(
        **paper_family("---"), encoder_width=8, decoder_width=8, latent=32, decoder_depth=2, encoder_depth=2, batch_size=32
    ),
}


def benchmark_population(kinds: list[str], members: int, steps: int, rounds: int) -> list[dict[str, Any]]:
    """Milliseconds per member-step of each way, and the ratios to ours."""
    images = data.load("mnist_static").splits["train"]
    results = []
    for kind in kinds:
        group = grid.product(MEMBERS[kind], beta=tuple(np.geomspace(0.1, 4, members).round(3).tolist()))
        model = group[0].build((28, 28))
        params = state.initialise([model] * members, [m.seed for m in group], model, (28, 28))
        lead = group[0]
        spec = state.TrainSpec(model, batch_size=lead.batch_size, call_steps=steps)
        hparams = state.HParams.of(group, spec)

        one, every = sharding.make_mesh(1), sharding.make_mesh(None, members)
        plain_spec, plain_start = spec, params
        if kind == "pixelcnn":
            decoder = model.decoder
            assert isinstance(decoder, PixelCNNDecoder)
            plain = PlainModel(
                model.encoder, PlainPixelCNN(decoder.width, decoder.depth, decoder.image_shape, decoder.planes), model.marginal
            )
            plain_spec, plain_start = dataclasses.replace(spec, model=plain), plain_params(params, decoder.depth)
        elif kind == "conv":
            plain = VAE(PlainConvEncoder(lead.encoder_width, lead.latent), PlainDeconvDecoder(lead.decoder_width), model.marginal)
            plain_spec, plain_start = dataclasses.replace(spec, model=plain), plain_conv_params(params)
        singles = [trainer(spec, pick(params, i), pick(hparams, i), one, images) for i in range(members)]
        ways = {
            "ours": trainer(spec, params, hparams, every, images),
            "plain vmap": trainer(plain_spec, plain_start, hparams, one, images),
            "one after another": lambda singles=singles: np.concatenate([single() for single in singles]),
        }
        results += race(kind, ways, members * steps, rounds)
    return results


def trainer(spec: state.TrainSpec, params: Any, hparams: Any, mesh: Any, data_: np.ndarray) -> Callable[[], np.ndarray]:
    """A function that trains on and on, a segment a call, waits for the result and returns the losses."""
    orders = step.Orders(spec, mesh, sharding.fill_rows(hparams.seed, mesh.size), len(data_))
    with state.settings(spec.dtype):
        held = {"state": state.fresh(sharding.put_members(params, mesh), spec), "at": 0}
        placed, resident = sharding.put_members(hparams, mesh), sharding.put_everywhere(data_, mesh)
    steps, members = spec.call_steps, len(hparams.seed)

    def train_on() -> np.ndarray:
        # The orders of an epoch are drawn once, outside of what is timed.
        left = step.longest_call(spec, len(data_), held["at"])
        first = held["at"] if steps <= left else held["at"] + left
        trained, seen = step.call(spec, mesh, held["state"], placed, orders, resident, first, steps, 10**6)
        held.update(state=trained, at=first + steps)
        return np.asarray(seen.loss)[:members]

    return train_on


def pick(tree: Any, index: int) -> Any:
    """One member of a population, as a population."""
    return jax.tree.map(lambda leaf: leaf[index : index + 1], tree)


def race(
    kind: str, ways: dict[str, Callable[[], np.ndarray]], member_steps: int, rounds: int, reference: str = "ours"
) -> list[dict[str, Any]]:
    """Milliseconds per member-step of each way, all taking turns, and the ratios of the medians to the reference's."""
    first = {name: go() for name, go in ways.items()}  # compiles, and shows that they agree
    for name, losses in first.items():
        compared = first[reference][: len(losses), :5]
        difference = np.abs(losses[:, :5] / compared - 1).max()
        if not difference < 1e-3:
            raise SystemExit(f"{kind}: {name} does not compute what {reference} computes: {difference:.1e} apart after five steps")
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, go in ways.items():
            began = time.perf_counter()
            made = go().shape[0] / first[reference].shape[0]
            times[name].append(1e3 * (time.perf_counter() - began) / (member_steps * made))
    median = {name: statistics.median(values) for name, values in times.items()}
    return [
        {"members": kind, "way": name, "ms": median[name], "low": min(v), "high": max(v), "ratio": median[name] / median[reference]}
        for name, v in times.items()
    ]


@dataclasses.dataclass(frozen=True)
class PlainToy(toy.Toy):
    """The toy model as one would write it for one member."""

    def terms(self, params: Any, x: jax.Array, key: jax.Array) -> Terms:
        """Exact rate and distortion."""
        e, d, at = params["encoder"], params["decoder"], [(np.arange(n) - (n - 1) / 2) / (n / 2) for n in (toy.SYMBOLS, self.codes)]
        log_e = jax.nn.log_softmax(-((at[0][:, None] * e["w"] - e["b"]) ** 2), axis=1)
        log_d = jax.nn.log_softmax(-((at[1][:, None] * d["v"] - d["c"]) ** 2), axis=1)
        log_m = jax.nn.log_softmax(params["marginal"]["l"])
        joint = x[0][:, None] * jnp.exp(log_e)
        rate, distortion = (joint * (log_e - log_m)).sum(), -(joint * log_d.T).sum()
        return Terms(rate[None], distortion[None], joint.sum(0)[None])


def benchmark_toy(members: int, steps: int, rounds: int) -> list[dict[str, Any]]:
    """Milliseconds per member-step of each way, and the ratios to ours."""
    group = [grid.Member(seed=seed, learning_rate=1e-2, batch_size=1) for seed in range(members)]
    source, model, plain = toy.source()[None], toy.Toy(), PlainToy()

    def way(model: Any, chosen: list[grid.Member], mesh: Any, vmap_size: int | None) -> Callable[[], np.ndarray]:
        params = state.initialise([model] * len(chosen), [m.seed for m in chosen], model, (toy.SYMBOLS,), "float64")
        spec = state.TrainSpec(model, batch_size=1, dtype="float64", call_steps=steps, vmap_size=vmap_size)
        return trainer(spec, params, state.HParams.of(chosen, spec), mesh, source)

    one, every = sharding.make_mesh(1), sharding.make_mesh(None, members)
    ways = {
        "ours": way(model, group, every, 16),
        "ours, one device": way(model, group, one, 16),
        "ours, all members at once": way(model, group, every, None),
        "plain vmap": way(plain, group, one, None),
        "plain vmap, every device": way(plain, group, every, None),
        "plain vmap, our size": way(plain, group, every, 16),
        "one member": way(plain, group[:1], one, None),
    }
    return race("toy", ways, members * steps, rounds)


def benchmark_members(counts: list[int], seconds: float, vmap_size: int | None) -> None:
    """Prints milliseconds per member-step of populations of several sizes, after the fifth call, and the lengths of the calls."""
    images = data.load("mnist_static").splits["train"]
    base = grid.Member(encoder_width=16, decoder_width=16, epochs=1000.0)
    for count in counts:
        group = grid.product(base, beta=tuple(np.geomspace(0.1, 4, count).tolist()))
        model = base.build(images.shape[1:])
        spec = state.TrainSpec(model, batch_size=base.batch_size, vmap_size=vmap_size)
        calls, began = [(0, time.perf_counter())], time.perf_counter()

        def note(progress: fit.Progress, _: state.Metrics, calls: list[tuple[int, float]] = calls) -> None:
            calls.append((progress.steps, time.perf_counter()))

        def late(began: float = began, calls: list[tuple[int, float]] = calls) -> bool:
            return len(calls) > 9 and time.perf_counter() - began > seconds

        steps = fit.total_steps(base.epochs, base.batch_size, len(images))
        with contextlib.suppress(fit.Stopped):
            hparams = state.HParams.of(group, spec)
            fit.fit(spec, [model] * count, hparams, images, steps, metrics_every=1000, callback=note, stop=late)
        lengths = [after - before for (before, _), (after, _) in itertools.pairwise(calls)]
        (made, start), (all_made, end) = calls[5], calls[-1]
        ms = 1e3 * (end - start) / (all_made - made) / count
        print(f"{count} members: {ms:.3f} ms per member-step; steps of the calls {lengths}", flush=True)


def benchmark_vmap_size(file: str, sizes: list[int], steps: int, rounds: int) -> list[dict[str, Any]]:
    """Milliseconds per member-step of each group of a sweep at several sizes, and the ratios to the default's."""
    config = terminal.load_config(file)
    plan, rows = load(config.to_dict()), []
    images = plan.dataset.splits["train"]
    # One chunk a group: the largest.
    chunks = {chunk.padded: chunk for chunk in sorted(plan.chunks(), key=lambda chunk: len(chunk.members))}
    for chunk in chunks.values():
        members, mesh = list(chunk.members), sharding.make_mesh(plan.population.devices, len(chunk.members))
        spec = dataclasses.replace(plan.spec(chunk), call_steps=steps, vmap_size=None)
        models, seeds = [m.build(plan.dataset.image_shape) for m in members], [m.seed for m in members]
        params = state.initialise(models, seeds, spec.model, plan.dataset.image_shape, spec.dtype)
        own = -(-len(members) // mesh.size)
        ways = {
            f"vmap_size={size or 'None'}": trainer(
                dataclasses.replace(spec, vmap_size=size), params, state.HParams.of(members, spec), mesh, images
            )
            for size in (None, *[size for size in sizes if size < own], own)
        }
        found = race(described(chunk), ways, len(members) * steps, rounds, reference="vmap_size=None")
        best = min(found, key=lambda row: row["ms"])
        # A gain within the noise is none.
        sound = best if best["high"] < found[0]["low"] else found[0]
        print(f"{described(chunk)}: population.{sound['way']} ({sound['ratio']:.2f} of the default's time)", flush=True)
        rows += found
    return rows


@terminal.guarded
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["population", "toy", "members", "vmap_size"])
    parser.add_argument("--kinds", nargs="+", choices=list(MEMBERS), help="of population; by default all")
    parser.add_argument("--members", type=int, help="by default 8 of a population, 1024 toys; 10, 40, 160 and 640 in turn")
    parser.add_argument("--config", help="of vmap_size: the sweep, such as configs/quickstart.py")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 4, 16, 64], help="of vmap_size: the sizes to try")
    parser.add_argument("--vmap_size", type=int, help="of members: how many are advanced side by side")
    parser.add_argument("--seconds", type=float, default=60.0, help="of members: time of each number of them")
    parser.add_argument("--steps", type=int, help="training steps a turn; by default 32, or 128 of the toys")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each way")
    args = parser.parse_args()
    for name in ("members", "steps", "rounds"):
        if getattr(args, name) is not None:
            whole(f"--{name}", getattr(args, name))
    if args.what == "members":
        benchmark_members([args.members] if args.members else [10, 40, 160, 640], args.seconds, args.vmap_size)
        return
    if (args.what == "vmap_size") != (args.config is not None):
        raise BadInput(f"--config={args.config!r} goes with vmap_size, which needs it")
    if args.what == "vmap_size":
        rows = benchmark_vmap_size(args.config, args.sizes, args.steps or 32, args.rounds)
    elif args.what == "population":
        args.members, args.steps = args.members or 8, args.steps or 32
        rows = benchmark_population(args.kinds or list(MEMBERS), args.members, args.steps, args.rounds)
    else:
        if args.kinds is not None:
            raise BadInput(f"--kinds={' '.join(args.kinds)} has no effect on toy: it is for population")
        args.members, args.steps = args.members or 1024, args.steps or 128
        rows = benchmark_toy(args.members, args.steps, args.rounds)
    unit, per_ms = ("microseconds", 1e3) if args.what == "toy" else ("milliseconds", 1)
    table = Table(
        box=box.SIMPLE_HEAD,
        title_justify="left",
        title=f"{args.members or 'All'} members, {unit} per member-step",
        padding=(0, 1, 0, 0),
    )
    for name in ("kind", "way", "median", "range", "per second", "ratio"):
        table.add_column(name, justify="left" if name in ("kind", "way") else "right", no_wrap=True)
    for row in rows:
        median, low, high = (f"{per_ms * row[name]:.2f}" for name in ("ms", "low", "high"))
        table.add_row(row["members"], row["way"], median, f"{low} - {high}", f"{1e3 / row['ms']:,.0f}", f"{row['ratio']:.2f}")
    Console().print(table)
    devices = jax.local_devices()
    about = provenance.provenance({}, (), {})
    print(f"{len(devices)} {devices[0].device_kind} devices, jax {jax.__version__}")
    print(f"{about['processor']}, {about['cores']} cores, Python {about['python']}")


if __name__ == "__main__":
    main()
