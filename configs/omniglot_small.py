r"""The twelve families of Alemi et al. 2018 on Omniglot, at a size for two cores.

They show the lessons of its Figures 7 to 9.

    python scripts/sweep.py --config=configs/omniglot_small.py --workdir=runs/omniglot_small
    python scripts/sweep.py --config=configs/omniglot_small.py --workdir=runs/omniglot_small \
        --config.data.path=chardata.mat
    python scripts/sweep.py --config=configs/omniglot_small.py:quick \
        --workdir=runs/quick  # a minute

Claim: at beta = 1 families with an autoregressive decoder end at R < 0.2 and those with a
deconvolutional one at 5 to 13 nats; beta = 0.1 gives back up to 14. Sizes and epochs are those of
configs/mnist_small.py, of fewer images: 0.4 of its steps. So models are far from trained
(results/omniglot_small: on tensorflow-datasets' Omniglot, in 31 minutes on two cores with other
work to do).

Betas are those of configs/omniglot_paper.py, fewer of the small ones. Data are Burda et al.'s,
downloaded or from `--config.data.path`. On tensorflow-datasets' own Omniglot, which
`--config.data.name=omniglot_tfds` chooses, numbers are not comparable with the paper's.
"""

from ml_collections import ConfigDict

from rd_elbo.sweep.config import blank
from rd_elbo.sweep.presets import (
    SMALL_PARTS,
    SMALL_STRONG,
    SMALL_TRAINING,
    SMALL_WEAK,
    families,
    tiny,
)

WEAK_BETAS = (0.9, 1.0, 1.1)
STRONG_BETAS = (0.1, 0.3, 0.6, 0.8, 1.0)


def get_config(form: str = "full") -> ConfigDict:
    """The configuration; `form` is "full" or "quick"."""
    if form not in ("full", "quick"):
        raise ValueError(f"form={form!r}: expected 'full' or 'quick'.")
    config = blank("omniglot_small")
    config.data.name = "omniglot_burda"
    config.data.splits = ("test",)
    config.base = ConfigDict({**SMALL_PARTS, **SMALL_TRAINING, "seed": 0})
    config.blocks = ConfigDict(
        families({**SMALL_WEAK, "beta": WEAK_BETAS}, {**SMALL_STRONG, "beta": STRONG_BETAS})
    )
    return tiny(config) if form == "quick" else config
