r"""Bounds the log-likelihood of trained models by importance weighting, beside their ELBO.

    python scripts/evaluate.py --workdir=runs/mine --nll=1000 --examples=1000

Every member with saved parameters gets a row in likelihood.csv of the run directory: `nll`, its
standard error over examples, and `posterior_gap`, which is -ELBO - NLL of the same examples and
draws. The same command resumes; members that have such a row are left out. Published negative
log-likelihoods compare with `nll`. It is no point of the rate-distortion plane.

Exit codes: 0 when all members are evaluated; 2 after one sentence on bad input; 130 after an
interrupt, with finished members saved.
"""

import console as terminal
from absl import app, flags, logging
from rich import box
from rich.table import Table

from rd_elbo import host
from rd_elbo.data.cache import cache_folder
from rd_elbo.sweep import likelihood, restore
from rd_elbo.sweep.tables import params_name

_WORKDIR = flags.DEFINE_string("workdir", None, "The run directory, with its trained parameters.")
_NLL = flags.DEFINE_integer("nll", 1000, "Draws of z for each example.")
_EXAMPLES = flags.DEFINE_integer("examples", None, "Examples, chosen at random once; all if unset.")
_SPLIT = flags.DEFINE_string("split", "test", "The split to evaluate.")
_CHUNK = flags.DEFINE_integer("chunk", 1, "Draws at a time; more need more memory.")
_VMAP_SIZE = flags.DEFINE_integer("vmap_size", None, "Members side by side; 1 for large models.")

_DATA_PATH = flags.DEFINE_string("data_path", None, "Present place of data that were moved.")


@terminal.guarded
def main(_: list[str]) -> None:
    logging.set_verbosity(logging.ERROR)
    workdir, console = terminal.required_workdir(_WORKDIR.value), terminal.make_console()
    population = restore.settings_of(workdir)
    host.configure(population.devices, cache_folder() / "xla", x64=population.dtype == "float64")
    host.check_platform()
    run = restore.open_run(workdir, _DATA_PATH.value)
    sound = dict.fromkeys(p["member"] for p in run.points if p["status"] == "ok")
    if missing := len(sound) - len(run.saved()):
        sentence = f"{terminal.counted(missing, 'member')} without saved parameters left out"
        console.print(sentence)
    with terminal.writing(workdir), terminal.progress_bar(console) as progress:
        rows, new = likelihood.fill(
            run,
            _NLL.value,
            _EXAMPLES.value,
            _SPLIT.value,
            chunk=_CHUNK.value,
            vmap_size=_VMAP_SIZE.value,
            progress=progress,
        )
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("member", "family", "NLL", "±", "posterior gap", "±"):
        table.add_column(name, justify="left" if name in ("member", "family") else "right")
    for row in rows:
        values = (row[n] for n in ("nll", "nll_se", "posterior_gap", "posterior_gap_se"))
        name = params_name(row["member"], row["averaging"])
        table.add_row(name, row["family"], *(f"{value:.2f}" for value in values))
    console.print(table)
    console.print(
        f"{terminal.counted(len(rows), 'member')}, {new} of them new; {_NLL.value} draws for each "
        f"of {rows[0]['nll_examples']} examples, {_SPLIT.value} split, nats; table in "
        f"{workdir / likelihood.FILE}",
        soft_wrap=True,
    )


if __name__ == "__main__":
    app.run(main, flags_parser=terminal.parse)
