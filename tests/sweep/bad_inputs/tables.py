"""Run directories that scripts read."""

import csv
import json
import shutil

import numpy as np
from forked import ROOT

from bad_inputs.data import IMAGES
from bad_inputs.row import Row, every, file, script

TRAINED, PICTURED = ROOT / "results" / "quickstart", ROOT / "results" / "mnist_small"


def finished(folder):
    """A run directory with its tables and without its parameters; its figures are left out."""
    shutil.copytree(TRAINED, folder / "run", ignore=shutil.ignore_patterns("figures"))


def untrained(folder):
    """The same with a folder of parameters, which is empty."""
    finished(folder)
    (folder / "run" / "params").mkdir()


def gallery(folder):
    finished(folder)
    # Of another run, which has pictures.
    for name in ("gallery.csv", "gallery.npz"):
        shutil.copy(PICTURED / name, folder / "run")


def filled(name, content, made=finished):
    """A file of the run directory with other content."""
    return every(made, file(f"run/{name}", content))


def cell(column, value, table="points.csv", made=finished):
    """Changes a cell of the second row of a table."""

    def change(folder):
        made(folder)
        path = folder / "run" / table
        with path.open(newline="") as opened:
            header, *rows = csv.reader(opened)
        rows[1][header.index(column)] = value
        with path.open("w", newline="") as opened:
            csv.writer(opened, lineterminator="\n").writerows([header, *rows])

    return change


def text(change, name="points.csv", made=finished):
    """Changes the text of a file."""

    def changed(folder):
        made(folder)
        path = folder / "run" / name
        path.write_text(change(path.read_text()))

    return changed


def entry(*place, name="config.json", value=3):
    """Changes an entry of a JSON file."""

    def changed(folder):
        finished(folder)
        path = folder / "run" / name
        content = inner = json.loads(path.read_text())
        for key in place[:-1]:
            inner = inner.setdefault(key, {})
        inner[place[-1]] = value
        path.write_text(json.dumps(content))

    return changed


def without(name, made=finished):
    return lambda folder: (made(folder), (folder / "run" / name).unlink())


def of_gallery(**changed):
    """Other arrays in gallery.npz."""
    return lambda folder: (gallery(folder), np.savez(folder / "run" / "gallery.npz", **changed))


def half(content):
    return content[: len(content) // 2]


TABLE, LINE = "table '@/run/points.csv'", "table '@/run/points.csv', line 3: "
FIGURES, COMPARE = script("figures"), script("compare")
PLACED, ABSENT = "workdir='@/run'", ": expected a readable file, got none (No such file"
# Of what the scripts read in common, each has a part.
TABLES = [
    Row(FIGURES, f"{TABLE}: expected a readable file, got none (No such file or directory)"),
    Row(
        FIGURES, f"{TABLE}: expected a readable file, got none (Not a directory)", file("run", "x")
    ),
    Row(
        COMPARE,
        f"{TABLE}: expected a readable file, got none (No such file or directory)",
        without("points.csv"),
    ),
    Row(
        FIGURES,
        f"{TABLE}: expected a file as it was written, got a damaged one ('utf-8' c",
        filled("points.csv", bytes(range(256))),
    ),
    Row(COMPARE, f"{TABLE}: expected points, got none.", filled("points.csv", "")),
    Row(
        FIGURES,
        f"{TABLE}: expected points, got none.",
        text(lambda told: told.splitlines()[0] + "\n"),
    ),
    Row(
        COMPARE,
        f"{TABLE}, line 37: expected as many fields as its header has, got more or",
        text(half),
    ),
    Row(
        FIGURES,
        f"{TABLE}: expected a column 'rate', as sweeps have, got none.",
        text(lambda told: told.replace(",rate,", ",speed,", 1)),
    ),
    Row(FIGURES, f"{LINE}rate='low': expected a number.", cell("rate", "low")),
    Row(COMPARE, f"{LINE}rate='': expected a number.", cell("rate", "")),
    Row(FIGURES, f"{LINE}family='': expected three characters", cell("family", "")),
    Row(COMPARE, f"{LINE}beta='': expected a finite number", cell("beta", "")),
    Row(COMPARE, f"{LINE}objective='elbo': expected one of", cell("objective", "elbo")),
    # A column of an earlier release.
    Row(COMPARE, f"{LINE}kl_warmup_fraction='yes': expected a finite", cell("annealing", "yes")),
    Row(FIGURES, f"{LINE}split='': expected one of 'train'", cell("split", "")),
    Row(FIGURES, f"{LINE}status='good': expected one of 'ok'", cell("status", "good")),
    Row(
        FIGURES,
        "split='test': expected finite points, got none. The table has points of 'test', 'tr",
        text(lambda told: told.replace(",ok\n", ",diverged\n")),
    ),
    # The first of them could be drawn.
    Row((*FIGURES, "--splits", "test", "valid"), "split='valid': expected finite points", finished),
    Row((*COMPARE, "--data_path=x"), "--data_path='x': expected no value without --ch", finished),
    Row((*COMPARE, "--split=valid"), "split='valid': expected a split of the table", finished),
    Row(
        FIGURES,
        f"{PLACED}: expected a folder to write to, got none (File exists, '@/run/figures')",
        filled("figures", "x"),
    ),
    Row(
        COMPARE,
        "'@/run/comparison.csv': expected a file to write, got none (Is a directory)",
        lambda folder: (finished(folder), (folder / "run" / "comparison.csv").mkdir()),
    ),
    Row(
        COMPARE,
        "'@/run/provenance.json': expected a file as it was written, got a damaged one (Exp",
        filled("provenance.json", "{"),
    ),
]

GALLERY, OLD = script("gallery"), "of SHA-256 " + "0" * 64
TABLES += [
    Row(
        GALLERY,
        f"{TABLE}: expected the table as it was written, got another.",
        entry("tables", "points.csv", name="provenance.json", value="0" * 64),
    ),
    Row((*GALLERY, "--split=valid"), "split='valid': expected finite points", finished),
    Row(GALLERY, f"'@/run/provenance.json'{ABSENT}", without("provenance.json")),
    Row(GALLERY, OLD, entry("data", "sha256", name="provenance.json", value="0" * 64)),
    Row(GALLERY, f"'@/run/config.json'{ABSENT}", without("config.json")),
    Row(
        GALLERY,
        "'@/run/config.json': expected a file as it was written, got a damaged one (Expec",
        filled("config.json", "{"),
    ),
    Row(GALLERY, f"{PLACED}: expected a sweep, got a config.json without blocks.", entry("blocks")),
    Row(GALLERY, f"{PLACED}: expected a whole config.json, got data=3", entry("data")),
    Row(GALLERY, "a whole config.json, got population=3", entry("population")),
    Row(GALLERY, "data.name='gone': expected one of", entry("data", "name", value="gone")),
    Row(GALLERY, f"{PLACED}: expected a folder 'params' of saved parameters, got tables", finished),
    Row(
        GALLERY,
        "expected saved parameters in '@/run', got none (No such file or directory)",
        untrained,
    ),
    Row((*GALLERY, "--examples=10001"), "examples=10001: expected at most 10000, the", untrained),
    Row((*GALLERY, "--examples=some"), "--examples=some: expected a whole number", finished),
]

REDRAW = script("gallery", "--redraw")
NPZ, CSV = "arrays '@/run/gallery.npz'", f"gallery.csv of {PLACED}, line 3: "
TABLES += [
    Row(REDRAW, f"table '@/run/gallery.csv'{ABSENT}", finished),
    Row((*REDRAW, "--seed=1"), "--seed=1: expected no value with --redraw", gallery),
    Row(REDRAW, f"{NPZ}{ABSENT}", without("gallery.npz", gallery)),
    Row(
        REDRAW,
        f"{NPZ}: expected a file as it was written, got a damaged one (the file is no",
        filled("gallery.npz", "x", gallery),
    ),
    Row(
        REDRAW,
        f"{PLACED}: expected a gallery with 'data', got one without. Make",
        of_gallery(x=IMAGES),
    ),
    # The last check: the table is read, though it is older than some fields of a member.
    Row(
        REDRAW,
        f"gallery.npz of {PLACED}: expected arrays that belong together, got others.",
        of_gallery(**{**np.load(PICTURED / "gallery.npz"), "sample": IMAGES}),
    ),
    Row(
        REDRAW,
        "table '@/run/gallery.csv', line 33: expected as many fields as its header has",
        text(half, "gallery.csv", gallery),
    ),
    Row(REDRAW, f"{CSV}part='all': expected", cell("part", "all", "gallery.csv", gallery)),
    Row(REDRAW, f"{CSV}total='x': expected a", cell("total", "x", "gallery.csv", gallery)),
]
