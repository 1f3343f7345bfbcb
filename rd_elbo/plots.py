"""Figures, drawn from tables alone."""

from rd_elbo.report.plane import FIGURES, Curve, curves, draw_all, elbo_against_rate, rd_plane
from rd_elbo.report.style import COLOURS, MARKERS, STYLE, save

__all__ = [
    "COLOURS",
    "FIGURES",
    "MARKERS",
    "STYLE",
    "Curve",
    "curves",
    "draw_all",
    "elbo_against_rate",
    "rd_plane",
    "save",
]
