"""What keeps the code of an autoregressive decoder, and what four times the training changes.

    python scripts/sweep.py --config=configs/objectives.py --workdir=runs/objectives
    python scripts/sweep.py --config=configs/objectives.py:quick --workdir=runs/quick  # a minute

The family -+- at the size and with the training of configs/mnist_small.py, where the ELBO drops the
code, under every objective: beta at 0.3 and 1; a KL warm-up; a target rate of 10 nats, with a
warm-up and without; a target distortion, by a multiplier (GECO); ten free bits, which are nats.
Then four times as long: beta, and the target rate; and --- by beta, to measure the share of
training time in its distance to the paper.

Claim: at R = 10, ten free bits end 5.8 nats below the distortion of the model without a code, a
target rate 3.9 with a warm-up and 1.0 without; the target distortion is met within 1.2. With four
times the steps R + D at beta = 1 falls from 105.7 to 95.2 (---, of the paper's 87.1) and from 86.5
to 82.7 (-+-, of its 80.7), see results/objectives. 20 minutes on two cores with other work to do.
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

LONGER = 4.0


def get_config(form: str = "full") -> ConfigDict:
    """The configuration; `form` is "full" or "quick"."""
    if form not in ("full", "quick"):
        raise ValueError(f"form={form!r}: expected 'full' or 'quick'.")
    config = blank("objectives")
    config.data.splits = ("test",)
    config.base = ConfigDict({**SMALL_PARTS, **SMALL_TRAINING, "seed": 0})
    beta = {"beta": (0.3, 1.0)}
    target = {"objective": "target_rate", "target_rate": 10.0}
    strong = {
        "": beta,
        "_annealed": {"beta": 1.0, "kl_warmup_fraction": 0.5},
        "_target": {**target, "kl_warmup_fraction": (0.0, 0.3)},
        "_distortion": {"objective": "target_distortion", "target_distortion": (80.0, 83.0)},
        "_free": {"objective": "free_bits", "free_bits": 10.0, "kl_warmup_fraction": (0.0, 0.5)},
        "_longer": {**beta, "epochs": LONGER * SMALL_STRONG["epochs"]},
        "_target_longer": {
            **target,
            "kl_warmup_fraction": (0.3, 0.6),
            "epochs": LONGER * SMALL_STRONG["epochs"],
        },
    }
    blocks = {}
    for suffix, axes in strong.items():
        blocks |= families({}, {**SMALL_STRONG, **axes}, ("-+-",), suffix)
    blocks |= families(
        {**SMALL_WEAK, **beta, "epochs": LONGER * SMALL_WEAK["epochs"]}, {}, ("---",), "_longer"
    )
    config.blocks = ConfigDict(blocks)
    return tiny(config, all_blocks=True) if form == "quick" else config
