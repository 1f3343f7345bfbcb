"""Measure populations beside the tools that people would use in their place.

    pip install -e ".[benchmark]"
    python scripts/benchmark.py all
    python scripts/benchmark.py dense --rounds=9
    python scripts/benchmark.py scaling
    python scripts/benchmark.py page
    python scripts/benchmark.py members
    python scripts/benchmark.py vmap_size --config=configs/quickstart.py

The suites dense, conv, pixelcnn, flow, toy, evaluate, quickstart and compile each write
`<suite>.csv`, with its provenance beside it; `all` runs them one after another, each in a process
of its own. Contenders:

    ours         the population, on all devices
    sequential   its members one after another, by the same step
    vmap_flax    plain jax.vmap of a plain flax model, with optax
    torch        PyTorch models one after another
    torch_func   PyTorch models with stacked parameters, under torch.func.vmap
    pythae       pythae's trainer on its nearest model; its speed alone

A contender that is not installed is reported as absent. Before a case is measured, losses and
gradients of all contenders are compared on the same parameters, batch and noise. Then they take
turns. Times are medians with quartiles, ratios are medians of ratios within a round. The peak is
the rate of a float32 matrix product on all cores, measured in the same run.

`scaling` measures the quickstart's MLP at 1 to 64 members and draws member-steps per second.
`page` writes docs/benchmarks.md from the tables.
`members` trains more and more small MLPs and reports times per member-step and lengths of calls.
`vmap_size` trains each group of a sweep with several numbers of members side by side, and
recommends one for `population.vmap_size`.
"""

import argparse
import pathlib
import subprocess
import sys
import time

from rd_elbo import host

host.configure(x64="toy" in sys.argv)
ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(1, str(ROOT))

import console as terminal  # noqa: E402
from rich import box  # noqa: E402
from rich.table import Table  # noqa: E402

from benchmarks import measure, page, populations, processes, report  # noqa: E402
from rd_elbo.errors import BadInput, Failed, number, whole  # noqa: E402
from rd_elbo.sweep.config import load  # noqa: E402

# Processes of each contender in a suite of whole processes.
_PROCESS_ROUNDS = 3


def say(sentence: str) -> None:
    print(sentence, flush=True)


def measured(suite: str, args: argparse.Namespace) -> list[measure.Row]:
    if suite == "quickstart":
        rounds = args.rounds or (1 if args.full else _PROCESS_ROUNDS)
        return processes.quickstart(args.full, rounds, args.before, say)
    if suite == "compile":
        return processes.compilation(args.rounds or _PROCESS_ROUNDS, say)
    rounds = args.rounds or measure.ROUNDS
    return measure.run_suite(suite, rounds, args.seconds, say, args.minutes, args.only)


def run_suite(suite: str, args: argparse.Namespace) -> None:
    began = time.perf_counter()
    rows = measured(suite, args)
    if args.only:
        report.show(rows)
        return
    record = report.record(sys.argv, time.perf_counter() - began)
    report.write(args.output, suite, rows, record)
    report.show(rows)
    say(f"{args.output / suite}.csv written after {time.perf_counter() - began:.0f} s")


def run_all() -> None:
    """Each suite in a process of its own: memory is its own, and so are 64-bit types."""
    failed = []
    for suite in page.SUITES:
        own = [suite if argument == "all" else argument for argument in sys.argv[1:]]
        if subprocess.run([sys.executable, sys.argv[0], *own]).returncode:
            failed.append(suite)
    if failed:
        raise BadInput(f"suites={', '.join(failed)}: expected to end well. See above.")


def show_sizes(rows: list[dict[str, object]]) -> None:
    title = "milliseconds per member-step; ratios to the default's"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", padding=(0, 1, 0, 0))
    for name in ("group", "way", "median", "range", "ratio"):
        left = name in ("group", "way")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for row in rows:
        ms, low, high, ratio = (f"{row[name]:.2f}" for name in ("ms", "low", "high", "ratio"))
        table.add_row(str(row["group"]), str(row["way"]), ms, f"{low} - {high}", ratio)
    terminal.make_console().print(table)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "what",
        choices=[*page.SUITES, "all", "scaling", "page", "members", "vmap_size"],
    )
    results = ROOT / "results" / "benchmarks"
    parser.add_argument("--output", type=pathlib.Path, default=results, help="folder of tables")
    parser.add_argument("--rounds", type=int, help="turns of each contender")
    parser.add_argument("--seconds", type=float, help="aim of a turn, or of a number of members")
    parser.add_argument("--minutes", type=float, default=10.0, help="of a suite: no new case after")
    parser.add_argument("--only", default="", help="of a suite: name in cases; printed alone")
    parser.add_argument("--full", action="store_true", help="of quickstart: the whole sweep")
    parser.add_argument("--before", type=pathlib.Path, help="of quickstart: another checkout")
    parser.add_argument("--members", type=int, help="of members: 10, 40, 160, 640 if not given")
    parser.add_argument("--vmap_size", type=int, help="of members: advanced side by side")
    parser.add_argument("--config", help="of vmap_size: the sweep, such as configs/quickstart.py")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 4, 16, 64], help="of vmap_size")
    parser.add_argument("--steps", type=int, default=32, help="of vmap_size: training steps a turn")
    args = parser.parse_args()
    for name in ("members", "steps", "rounds", "vmap_size"):
        if getattr(args, name) is not None:
            whole(f"--{name}", getattr(args, name))
    for name in ("seconds", "minutes"):
        if getattr(args, name) is not None:
            number(f"--{name}", getattr(args, name), above=True)
    if (args.what == "vmap_size") != (args.config is not None):
        raise BadInput(f"--config={args.config!r}: expected a configuration with vmap_size alone.")
    return args


@terminal.guarded
def main() -> None:
    args = arguments()
    if args.what == "members":
        counts = [args.members] if args.members else [10, 40, 160, 640]
        populations.of_sizes(counts, args.seconds or 60.0, args.vmap_size, say)
        return
    if args.what == "vmap_size":
        plan = load(terminal.load_config(args.config).to_dict())
        how = args.sizes, args.steps, args.rounds or 5
        show_sizes(populations.of_vmap_sizes(plan, *how, say))
        return
    if args.what == "page":
        page.page(args.output, ROOT / "docs" / "benchmarks.md")
        return
    args.seconds = args.seconds or measure.SECONDS
    if args.what == "all":
        run_all()
        return
    try:
        run_suite(args.what, args)
    except Failed as error:
        raise BadInput(str(error)) from error
    if args.what == "scaling":
        for file in report.plot(args.output):
            say(f"{file} written")


if __name__ == "__main__":
    main()
