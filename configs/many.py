"""Ten thousand of the smallest members: do they fit, and does the plan of the memory hold?

    python scripts/sweep.py --config=configs/many.py --workdir=runs/many
    python scripts/sweep.py --config=configs/many.py:quick --workdir=runs/quick     # eight of them

Claim: they are trained and evaluated in less memory than the plan allows, 0.8 of what is free
(results/many). They are too small, and trained too shortly, for anything else to be learned from
them.
"""

import numpy as np
from ml_collections import ConfigDict

from rd_elbo.sweep.config import blank


def get_config(form: str = "full") -> ConfigDict:
    """The grid, or with form "quick" a corner of it."""
    if form not in ("full", "quick"):
        raise ValueError(f"form={form!r}: expected 'full' or 'quick'.")
    config = blank("many")
    config.data.examples = 256
    config.base = ConfigDict(
        {"encoder_width": 8, "encoder_depth": 1, "latent": 2, "batch_size": 16, "epochs": 0.5}
    )
    betas, seeds = (100, 100) if form == "full" else (4, 2)
    axes = {
        "beta": tuple(np.geomspace(0.1, 10, betas).round(4).tolist()),
        "seed": tuple(range(seeds)),
    }
    config.blocks = ConfigDict(
        {"mlp": {"decoder": "mlp", "decoder_width": 8, "decoder_depth": 1, **axes}}
    )
    return config
