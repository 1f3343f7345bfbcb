r"""What longer training and a wider decoder bring to two models of the two-core frontier.

    python scripts/sweep.py --config=configs/frontier_epochs.py --workdir=runs/frontier_epochs

`causal` and `factorised` are models of configs/mnist_frontier.py, trained for 3 to 24 epochs, each
with a learning rate that falls to zero at its own end. `causal_wider` has 12 channels in place of 8
in the decoder. Each member is a program of its own, so two shards, one after another or side by
side, use two cores:

    python scripts/sweep.py --shard=0/2 --config=configs/frontier_epochs.py \
        --workdir=runs/frontier_epochs --config.population.devices=1

Claim: 24 epochs in place of 12 lower D + beta R of `causal` by half a nat and of `factorised` by
nearly one.
"""

from ml_collections import ConfigDict

from rd_elbo.sweep.config import blank
from rd_elbo.sweep.presets import tiny

RECIPE = {"encoder": "resnet", "encoder_width": 8, "encoder_depth": 2, "latent": 64}
RECIPE |= {"prior": "maf_affine", "flow_steps": 4, "flow_width": 256, "flow_depth": 2}
RECIPE |= {"optimizer": "muon", "schedule": "half_linear", "learning_rate": 2e-3}
RECIPE |= {"batch_size": 16, "ema_decay": 0.999, "seed": 0}
CAUSAL = {"decoder": "pixelvae_resnet", "decoder_width": 8, "decoder_depth": 1}
CAUSAL |= {"causal_depth": 3, "beta": 0.9}
FACTORISED = {"decoder": "resnet", "decoder_width": 8, "decoder_depth": 2, "beta": 1.0}
EPOCHS = (3.0, 6.0, 12.0, 24.0)


def get_config(form: str = "full") -> ConfigDict:
    """The configuration; `form` is "full" or "quick"."""
    if form not in ("full", "quick"):
        raise ValueError(f"form={form!r}: expected 'full' or 'quick'.")
    config = blank("frontier_epochs")
    config.data.name = "binarized_mnist"
    config.data.splits = ("test", "valid")
    config.base = ConfigDict(RECIPE)
    config.blocks = ConfigDict(
        {
            "causal": {**CAUSAL, "epochs": EPOCHS},
            "factorised": {**FACTORISED, "epochs": EPOCHS},
            "causal_wider": {**CAUSAL, "decoder_width": 12, "epochs": 12.0},
        },
        # Trained in this order.
        sort_keys=False,
    )
    return tiny(config, all_blocks=True) if form == "quick" else config
