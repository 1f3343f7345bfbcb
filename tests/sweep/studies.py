"""A study of four tiny members in two chunks, and what it writes."""

import pytest

from rd_elbo.sweep import config

TINY = {"encoder_width": 6, "latent": 3, "decoder_width": 6, "decoder_depth": 1}
TINY |= {"batch_size": 16, "epochs": 2.0}
FILES = ("points.csv", "metrics.csv", "members.csv")


def plan(beta=(0.5, 1.0), **changes):
    wide = {"beta": 1.0, "decoder_width": 30, "seed": (0, 1)}
    given = {
        "name": "tiny",
        "data": {"name": "mnist_static", "examples": 64},
        "base": TINY,
        "blocks": {"mlp": {"beta": beta}, "wide": wide},
        **changes,
    }
    return config.load(given, pytest.fail)


def read(workdir):
    return {name: (workdir / name).read_bytes() for name in FILES}
