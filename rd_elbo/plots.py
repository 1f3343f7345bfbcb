"""Figures, drawn from tables alone.

>>> import rd_elbo as rd
>>> row = {"objective": "beta", "seed": 0, "status": "ok"}
>>> points = [
...     {**row, "beta": 0.5, "rate": 20.0, "distortion": 70.0},
...     {**row, "beta": 1.0, "rate": 12.0, "distortion": 75.0},
... ]
>>> rd.plots.rd_plane(points).axes[0].get_xlabel()
'rate $R$ (nats)'
"""

from rd_elbo.report.curves import Curve, curves
from rd_elbo.report.plane import FIGURES, draw_all, elbo_against_rate, rd_plane
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
