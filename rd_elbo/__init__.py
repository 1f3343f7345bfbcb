"""rd_elbo: where a latent-variable model sits in the rate-distortion plane.

-ELBO = R + D says nothing about what a code carries. This package trains families of models, many
at a time, and reports the rate R and the distortion D of each, after Alemi et al., "Fixing a Broken
ELBO" (ICML 2018). All numbers are in nats.

    import rd_elbo as rd

    rd.configure()  # one CPU device per core; before JAX starts
    grid = rd.product(rd.Member(decoder="mlp"), beta=(0.1, 0.5, 1.0), seed=range(2))
    points = rd.sweep(grid, "mnist_static", workdir="runs/mine")
    rd.plots.rd_plane(points).savefig("plane.png")

Layers, each usable without the one above: science (information, objectives, models, exact),
training (a population of any models on a mesh of devices), sweep (a grid, a run directory, resume,
shards). Reports (plots, galleries, comparisons) read tables.
"""

import importlib
from typing import Any

from rd_elbo import frontier, information, models, objectives
from rd_elbo.api import (
    Hyperparameters,
    Points,
    Result,
    evaluate,
    fit,
    product,
    sweep,  # the function; the package of this name is imported by `from rd_elbo.sweep import ...`
)
from rd_elbo.data import Dataset
from rd_elbo.data import load as load_data
from rd_elbo.errors import BadInput, Failed
from rd_elbo.host import configure
from rd_elbo.models.registry import register_decoder, register_encoder, register_prior
from rd_elbo.models.vae import VAE
from rd_elbo.sweep.grid import Member
from rd_elbo.sweep.tables import load_params

__all__ = [
    "VAE",
    "BadInput",
    "Dataset",
    "Failed",
    "Hyperparameters",
    "Member",
    "Points",
    "Result",
    "configure",
    "evaluate",
    "fit",
    "frontier",
    "information",
    "load_data",
    "load_params",
    "models",
    "objectives",
    "plots",
    "product",
    "register_decoder",
    "register_encoder",
    "register_prior",
    "sweep",
]


def __getattr__(name: str) -> Any:
    # matplotlib takes as long to import as most of the rest.
    if name == "plots":
        return importlib.import_module("rd_elbo.plots")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
