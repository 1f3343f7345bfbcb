"""What all figures share: fonts, colours, markers, and how a figure becomes files."""

import functools
import logging
import pathlib
from contextlib import AbstractContextManager
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rd_elbo import disk

# Okabe & Ito's palette, safe for the colour-blind, in an order that keeps neighbours apart in
# lightness too.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
# As in Alemi et al. 2018, Figure 3: the shape stands for the prior.
MARKERS = {"-": "o", "+": "s", "v": "D"}
STYLE: dict[Any, Any] = {
    "font.family": "serif",
    "font.size": 9,
    "mathtext.fontset": "cm",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    # A user's own matplotlibrc may ask for a LaTeX that is not there.
    "text.usetex": False,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
}


def drawing() -> AbstractContextManager[None]:
    """A context in which figures have this style, whatever the user's own is."""
    return matplotlib.rc_context(STYLE)


def new_figure(**options: Any) -> Figure:
    """A figure as pyplot makes it, but without the user's backend, which may fail."""
    figure = Figure(**options)
    FigureCanvasAgg(figure)
    return figure


def subplots(*shape: int, figsize: tuple[float, float], **grid: Any) -> tuple[Figure, Any]:
    """A new figure and its axes."""
    figure = new_figure(figsize=figsize)
    return figure, figure.subplots(*shape, **grid)


def save(figure: Figure, folder: pathlib.Path, name: str) -> list[pathlib.Path]:
    """Writes a figure as PNG and PDF into `folder`, and returns the files."""
    written = []
    for kind in ("png", "pdf"):
        path = folder / f"{name}.{kind}"
        with drawing():
            disk.write_whole(path, functools.partial(_write, figure, kind))
        written.append(path)
    return written


def _write(figure: Figure, kind: str, file: Any) -> None:
    # No creation date: the same table gives the same file.
    metadata = {"CreationDate": None} if kind == "pdf" else {"Software": None}
    # Embedding matplotlib's own fonts makes fontTools warn of their dates.
    chatter = logging.getLogger("fontTools")
    level = chatter.level
    chatter.setLevel(logging.ERROR)
    try:
        figure.savefig(file, format=kind, metadata=metadata)
    finally:
        chatter.setLevel(level)
