"""Draw reconstructions and samples from a finished sweep, after the paper's Figures 4, 5 and 6.

    python scripts/gallery.py --workdir=runs/mine
    python scripts/gallery.py --workdir=runs/mine --examples=6 --seed=1

The models are chosen from points.csv and drawn from with their saved parameters. --redraw only
draws the figures again, from gallery.csv and gallery.npz. Bad input ends with one sentence and exit
code 2.
"""

import pathlib

import console as terminal
from absl import app, flags, logging
from rich.console import Console

from rd_elbo import host
from rd_elbo.data.cache import cache_folder
from rd_elbo.errors import BadInput
from rd_elbo.report import gallery, gallery_figures, selection
from rd_elbo.sweep import tables

_WORKDIR = flags.DEFINE_string("workdir", None, "A run directory with its parameters.")
_EXAMPLES = flags.DEFINE_integer("examples", 8, "Images of the split to show.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the choice of images and of all draws.")
_SPLIT = flags.DEFINE_string("split", "test", "Split of images, rates and distortions.")
_REDRAW = flags.DEFINE_bool("redraw", False, "Only draw the figures again, from tables.")
_DATA_PATH = flags.DEFINE_string("data_path", None, "Present place of data that were moved.")


@terminal.guarded
def main(_: list[str]) -> None:
    logging.set_verbosity(logging.ERROR)
    workdir, console = terminal.required_workdir(_WORKDIR.value), terminal.make_console()
    if _REDRAW.value:
        for flag in (_EXAMPLES, _SEED, _SPLIT, _DATA_PATH):
            if flag.present:
                raise BadInput(
                    f"--{flag.name}={flag.value}: expected no value with --redraw, which draws the "
                    "gallery in --workdir. Leave it out."
                )
    with terminal.writing(workdir):
        if not _REDRAW.value:
            _make(workdir, console)
        paths = gallery_figures.draw_all(workdir)
    for path in paths:
        print(path)


def _make(workdir: pathlib.Path, console: Console) -> None:
    population = tables.recorded_config(workdir).get("population") or {}
    # Models are drawn from one after another, so all cores belong to one device.
    host.configure(1, cache_folder() / "xla", x64=population.get("dtype") == "float64")
    rows = gallery.with_parameters(workdir, tables.read_points(workdir))
    chosen = selection.select(rows, _SPLIT.value)
    with terminal.progress_bar(console) as progress:
        report = gallery.make(
            workdir,
            tables.recorded_data(workdir, _DATA_PATH.value),
            chosen,
            examples=_EXAMPLES.value,
            seed=_SEED.value,
            callback=lambda done, all_: progress(
                done / all_, f"drawn from {done} of {all_} members"
            ),
        )
    for choice in chosen:
        if (choice.figure, choice.part) == (5, "sample") and choice.row["beta"] != 1:
            family, beta = choice.row["family"], choice.row["beta"]
            lack = f"family {family} has no member at beta = 1; the nearest, {beta:g}, is shown"
            console.print(lack, soft_wrap=True)
    members = terminal.counted(report.members, "member")
    architectures = terminal.counted(report.architectures, "architecture")
    console.print(
        f"{members} of {architectures} drawn from in {report.seconds:.1f} s; pictures in "
        f"{workdir / 'gallery.npz'}, what they are of in {workdir / 'gallery.csv'}",
        soft_wrap=True,
    )


if __name__ == "__main__":
    app.run(main, flags_parser=terminal.parse)
