r"""The twelve families of Alemi et al. 2018 on statically binarised MNIST, full size.

Models and training are as in the paper.

    python scripts/sweep.py --config=configs/mnist_paper.py --workdir=runs/mnist_paper
    python scripts/sweep.py --config=configs/mnist_paper.py --workdir=runs/deconvolutional \
        --config.only="('---', '--+', '--v')"
    python scripts/sweep.py --config=configs/mnist_paper.py:quick --workdir=runs/quick  # a minute

Claim: the paper's Figures 3 to 6; `scripts/compare.py` puts the points beside the paper's. Not run
yet: 264 models for 100,000 steps each, of which a family, or a few betas of one, may be all that
one has time for. On two cores a step takes 0.7 to 12 s (results/full_size): it is for a GPU.

Widths, layers, optimizer and learning rate are the paper's. It does not state the batch size, the
number of pseudo-inputs, the betas or the KL warm-up; 100, 500 and a warm-up over half of the
training are those of the nearest public code (that of the VampPrior's authors), and the betas are
all that its figures print, and 0.25, 2 and 10.
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

BETAS = (0.1, 0.15, 0.25, 0.4, 0.7, 0.8, 0.9, 1.0, 1.1, 2.0, 10.0)


def get_config(form: str = "full") -> ConfigDict:
    """The configuration; `form` is "full" or "quick"."""
    if form not in ("full", "quick"):
        raise ValueError(f"form={form!r}: expected 'full' or 'quick'.")
    config = blank("mnist_paper")
    config.data.name = "binarized_mnist"
    config.base = ConfigDict(
        {
            **PAPER_PARTS,
            **PAPER_TRAINING,
            "beta": BETAS,
            "kl_warmup_fraction": (0.0, 0.5),
            "seed": 0,
        }
    )
    config.blocks = ConfigDict(families(PAPER_WEAK, PAPER_STRONG))
    return tiny(config) if form == "quick" else config
