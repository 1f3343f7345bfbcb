"""The page of the benchmark, written from its tables and nothing else."""

import pathlib
from typing import Any

from benchmarks.measure import ABSENT, MEASURED, PROCESSES, Row
from rd_elbo import disk

_HEAD = """# Benchmarks

Time per step of populations, beside the tools that people would use in their place.

    pip install -e ".[benchmark]"
    python scripts/benchmark.py all
    python scripts/benchmark.py scaling
    python scripts/benchmark.py page

The last command writes this page from the tables in `results/benchmarks`.

| contender | trains the members |
|---|---|
| `ours` | as a population, on all devices |
| `sequential` | one after another, by our step |
| `vmap_flax` | by plain `jax.vmap` of a plain flax model, with optax |
| `torch` | one after another, in PyTorch: default threads, channels_last for convolutions |
| `torch_func` | in PyTorch with stacked parameters, under `torch.func.vmap` |
| `pythae` | one of them, by pythae's trainer |

- Every contender has the same architecture, batch size, data, optimizer (Adam) and float32
  arithmetic. Each gathers its batches by index and draws its noise inside the measured step.
- Losses and gradients on the same parameters, batch and noise agree to 1e-4 before anything is
  measured; otherwise the benchmark stops. pythae is the exception: its encoder gives
  log-variances, its loss takes probabilities, and its loader collates single examples.
- PyTorch takes whichever of fused and foreach Adam is faster on the case.
- Contenders take turns. Times are medians with quartiles. A ratio is the median of the ratios of a
  contender's time to ours within a round: above 1, ours is faster.
- Peak is the best rate of a float32 matrix product on all cores in the same run. Operations are
  products of matrices and convolutions, gates and both gradients included
  ([flops.py](../benchmarks/flops.py)).
- Memory is the growth of the process while the contender is built and trains.
- [Profiles](../results/benchmarks/README.md) say where the time goes, what was changed, and what
  limits the rest.
"""
# Suites in the order of `all`, with their headings on the page.
SUITES = {
    "dense": "Dense members",
    "conv": "Convolutional members",
    "pixelcnn": "Autoregressive members",
    "flow": "Members with a flow as prior",
    "toy": "Toy members",
    "evaluate": "Evaluation",
    "quickstart": "The quickstart as a process",
    "compile": "Compilation",
}
_NOTES = {
    "evaluate": "Rate and distortion of batches of 250, no gradients.",
    "quickstart": "`before` is another checkout, given by `--before`. The cache of compiled "
    "programs is warm.",
    "compile": "Fresh processes; `ours` finds the programs of `cold` in the cache.",
}


def page(folder: pathlib.Path, path: pathlib.Path) -> None:
    """Write the page.

    Args:
      folder: Folder of the tables; a suite without a table is left out.
      path: File of the page.
    """
    parts = [_HEAD]
    for suite, title in SUITES.items():
        if (folder / f"{suite}.csv").exists():
            rows = disk.read_table(folder / f"{suite}.csv")
            about = _about(rows, disk.read_json(folder / f"{suite}.json"))
            note = f"{_NOTES[suite]}\n\n" if suite in _NOTES else ""
            table = (_processes if suite in PROCESSES else _steps)(rows)
            parts.append(f"## {title}\n\n{note}{table}\n{about}\n")
    if (folder / "scaling.png").exists():
        rows = disk.read_table(folder / "scaling.csv")
        about = _about(rows, disk.read_json(folder / "scaling.json"))
        image = f"![Member-steps per second]({_relative(folder, path)}/scaling.png)"
        parts.append(f"## Size of the population\n\nThe quickstart's MLP.\n\n{image}\n\n{about}\n")
    text = "\n".join(parts)
    disk.write_whole(path, lambda file: file.write(text.encode()))


def _relative(folder: pathlib.Path, path: pathlib.Path) -> str:
    own, base = folder.resolve(), path.resolve().parent
    up = 0
    while not own.is_relative_to(base):
        base, up = base.parent, up + 1
    return "../" * up + own.relative_to(base).as_posix()


def _about(rows: list[Row], record: Any) -> str:
    """Hardware, versions and commit, a line each."""
    versions = record["versions"]
    names = ("jax", "flax", "torch", "pythae")
    of = ", ".join(f"{name} {versions[name]}" for name in names if versions.get(name))
    peak = next((row["peak_gflops"] for row in rows if row["peak_gflops"] != ""), None)
    at = f"; peak {peak:.0f} GFLOP/s" if peak is not None else ""
    revision = (record.get("revision") or "unknown")[:7]
    return f"{record['cores']} cores of {record['processor']}{at}.\nCommit {revision}; {of}."


def _steps(rows: list[Row]) -> str:
    lines = [
        "| case | contender | members | batch | ms per member-step | times ours | of peak | MiB |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        own = [row["case"], f"`{row['contender']}`", str(row["members"]), str(row["batch"])]
        if row["status"] == MEASURED:
            times = (1e3 * row[name] for name in ("seconds_per_member_step", "low", "high"))
            ms = [f"{t:.3g}" if t < 999.5 else f"{t:.0f}" for t in times]
            own.append(f"{ms[0]} ({ms[1]} - {ms[2]})")
            own.append(f"{row['ratio_to_ours']:.2f}")
            peak, held = row["fraction_of_peak"], row["memory_mib"]
            own.append("" if peak == "" else f"{100 * peak:.0f} %")
            own.append("" if held == "" else f"{held:.0f}")
        else:
            own += [row["status"], "", "", ""]
        lines.append(f"| {' | '.join(own)} |")
    return "\n".join(lines) + "\n"


def _processes(rows: list[Row]) -> str:
    lines = ["| case | contender | seconds | times ours |", "|---|---|---:|---:|"]
    for row in rows:
        if row["status"] == MEASURED:
            numbers = f"{row['seconds']:.1f} | {row['ratio_to_ours']:.2f}"
        else:
            numbers = f"{ABSENT} |"
        lines.append(f"| {row['case']} | `{row['contender']}` | {numbers} |")
    return "\n".join(lines) + "\n"
