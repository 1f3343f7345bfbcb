r"""The twelve families of Alemi et al. 2018 on MNIST, at a size for two cores.

They show the lessons of the paper's Figures 3 to 6 in about an hour.

    python scripts/sweep.py --config=configs/mnist_small.py --workdir=runs/mnist_small
    python scripts/sweep.py --config=configs/mnist_small.py --workdir=runs/larochelle \
        --config.data.name=binarized_mnist
    python scripts/sweep.py --config=configs/mnist_small.py --workdir=runs/one \
        --config.only="('-+-',)"
    python scripts/sweep.py --config=configs/mnist_small.py:quick --workdir=runs/quick  # a minute

Claim: at beta = 1 families with an autoregressive decoder end near R = 0 and those with a
deconvolutional one above 10 nats; with beta < 1, or a target rate of 10 nats, an autoregressive
decoder uses its code. Numbers are not the paper's: a quarter of its channels, one layer in place of
two in each block of the PixelCNN++ form, and less than one pass over the data in place of 200.
"""

from ml_collections import ConfigDict

from rd_elbo.models.family import PAPER_FAMILIES
from rd_elbo.sweep.config import blank
from rd_elbo.sweep.presets import (
    SMALL_PARTS,
    SMALL_STRONG,
    SMALL_TRAINING,
    SMALL_WEAK,
    families,
    tiny,
)

WEAK_BETAS = (0.1, 0.3, 0.6, 1.0, 2.0)
STRONG_BETAS = (0.1, 0.3, 0.6, 0.8, 1.0)
# One of each prior, to be held at a rate.
AIMED = ("-+-", "+++", "-+v")


def get_config(form: str = "full") -> ConfigDict:
    """The configuration; `form` is "full" or "quick"."""
    if form not in ("full", "quick"):
        raise ValueError(f"form={form!r}: expected 'full' or 'quick'.")
    config = blank("mnist_small")
    config.data.splits = ("test",)
    config.base = ConfigDict({**SMALL_PARTS, **SMALL_TRAINING, "seed": 0})
    annealed, target = (
        {"beta": 1.0, "kl_warmup_fraction": 0.5},
        {"objective": "target_rate", "target_rate": 10.0},
    )
    config.blocks = ConfigDict(
        {
            **families({**SMALL_WEAK, "beta": WEAK_BETAS}, {**SMALL_STRONG, "beta": STRONG_BETAS}),
            **families(
                {},
                SMALL_STRONG | annealed,
                [name for name in PAPER_FAMILIES if name[1] == "+"],
                "_annealed",
            ),
            **families({}, SMALL_STRONG | target, AIMED, "_target"),
        }
    )
    return tiny(config) if form == "quick" else config
