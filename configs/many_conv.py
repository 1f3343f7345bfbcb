"""Five hundred small convolutional members: do they fit, and does the plan of the memory hold?

    python scripts/sweep.py --config=configs/many_conv.py --workdir=runs/many_conv
    python scripts/sweep.py --config=configs/many_conv.py:quick --workdir=runs/quick  # four of them

Claim: the same as that of configs/many.py, for members whose activations take most of the memory.
"""

import numpy as np
from ml_collections import ConfigDict

from rd_elbo.models.family import paper_family
from rd_elbo.sweep.config import blank


def get_config(form: str = "full") -> ConfigDict:
    """The grid, or with form "quick" a corner of it."""
    if form not in ("full", "quick"):
        raise ValueError(f"form={form!r}: expected 'full' or 'quick'.")
    config = blank("many_conv")
    config.data.examples = 256
    config.base = ConfigDict(
        {"encoder_width": 4, "encoder_depth": 1, "latent": 8, "batch_size": 16, "epochs": 1.0}
    )
    betas, seeds = (50, 10) if form == "full" else (2, 2)
    axes = {
        "beta": tuple(np.geomspace(0.1, 10, betas).round(4).tolist()),
        "seed": tuple(range(seeds)),
    }
    config.blocks = ConfigDict(
        {"conv": {**paper_family("---"), "decoder_width": 4, "decoder_depth": 1, **axes}}
    )
    return config
