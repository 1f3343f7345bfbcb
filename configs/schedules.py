"""How the paper trained, and a modern way, on the same budget: which ends lower?

    python scripts/sweep.py --config=configs/schedules.py --workdir=runs/schedules
    python scripts/sweep.py --config=configs/schedules.py:quick --workdir=runs/quick  # a minute

Two families at the sizes and with the steps of configs/mnist_small.py, at two betas, each trained
three ways with four learning rates, so that every way has its best: the paper's (Adam on normalised
gradients; the rate flat, then linear to zero), a modern one (Adam; a rate that warms up and falls
as a cosine), and normalised gradients with the modern schedule, which tells the two apart.

Claim: the paper's way is the best everywhere, at the best learning rate of each by 1.7 to 3.4 nats
of D + beta R over the modern one; normalised gradients and the longer time at the full rate both
have a part in it (results/schedules). 35 minutes on two cores that had other work too.
"""

from ml_collections import ConfigDict

from rd_elbo.sweep.config import blank
from rd_elbo.sweep.presets import SMALL_PARTS, SMALL_STRONG, SMALL_WEAK, families, tiny

WAYS = {
    "paper": {"optimizer": "normalised_adam", "schedule": "half_linear"},
    "modern": {"optimizer": "adam", "schedule": "warmup_cosine"},
    "normalised_modern": {"optimizer": "normalised_adam", "schedule": "warmup_cosine"},
}
LEARNING_RATES = (1e-3, 2e-3, 4e-3, 8e-3)


def get_config(form: str = "full") -> ConfigDict:
    """The configuration; `form` is "full" or "quick"."""
    if form not in ("full", "quick"):
        raise ValueError(f"form={form!r}: expected 'full' or 'quick'.")
    config = blank("schedules")
    config.data.splits = ("test",)
    config.base = ConfigDict({**SMALL_PARTS, "beta": (0.3, 1.0), "seed": 0})
    blocks = {}
    for name, way in WAYS.items():
        varied = {**way, "learning_rate": LEARNING_RATES}
        blocks |= families(
            {**SMALL_WEAK, **varied}, {**SMALL_STRONG, **varied}, ("---", "-+-"), f"_{name}"
        )
    config.blocks = ConfigDict(blocks)
    return tiny(config, all_blocks=True) if form == "quick" else config
