r"""The twelve families of Alemi et al. 2018 on Omniglot, full size (its Appendix B).

    python scripts/sweep.py --config=configs/omniglot_paper.py --workdir=runs/omniglot_paper
    python scripts/sweep.py --config=configs/omniglot_paper.py --workdir=runs/omniglot_paper \
        --config.data.path=chardata.mat
    python scripts/sweep.py --config=configs/omniglot_paper.py:quick \
        --workdir=runs/quick  # a minute

Claim: the paper's Figures 7 to 9. Not run yet, as `mnist_paper`, of which it is the twin in
everything but data and betas: autoregressive decoders from 0.1 to 1.1, deconvolutional ones at 0.9,
1.0 and 1.1 only, as there. The data are Burda et al.'s, downloaded or from `--config.data.path`;
tensorflow-datasets' own Omniglot (`--config.data.name=omniglot_tfds`) is another set of images in
another split, and numbers on it are not comparable with the paper's. The quick form runs on the
embedded digits, which need no download.
"""

from ml_collections import ConfigDict

from rd_elbo.sweep.config import blank
from rd_elbo.sweep.presets import (
    PAPER_PARTS,
    PAPER_STRONG,
    PAPER_TRAINING,
    PAPER_WEAK,
    families,
    tiny,
)

WEAK_BETAS = (0.9, 1.0, 1.1)
STRONG_BETAS = (0.1, 0.2, 0.3, 0.4, 0.6, 0.8, *WEAK_BETAS)


def get_config(form: str = "full") -> ConfigDict:
    """The configuration; `form` is "full" or "quick"."""
    if form not in ("full", "quick"):
        raise ValueError(f"form={form!r}: expected 'full' or 'quick'.")
    config = blank("omniglot_paper")
    config.data.name = "omniglot_burda"
    config.base = ConfigDict(
        {**PAPER_PARTS, **PAPER_TRAINING, "kl_warmup_fraction": (0.0, 0.5), "seed": 0}
    )
    config.blocks = ConfigDict(
        families({**PAPER_WEAK, "beta": WEAK_BETAS}, {**PAPER_STRONG, "beta": STRONG_BETAS})
    )
    return tiny(config) if form == "quick" else config
