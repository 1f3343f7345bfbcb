r"""What each part of the two-core frontier's recipe buys: one factor at a time, the same budget.

    python scripts/sweep.py --config=configs/frontier_factors.py --workdir=runs/frontier_factors

The block `recipe` is a small convolutional model with three causal layers at beta = 0.3, trained
for 2 epochs. Every other block differs from it in one field, `resnet_encoder_and_trunk` in two.
Each member is a program of its own, so two shards, one after another or side by side, use two
cores:

    python scripts/sweep.py --shard=0/2 --config=configs/frontier_factors.py \
        --workdir=runs/frontier_factors --config.population.devices=1

Claim: Muon is worth thirteen nats, the flow of the prior and the schedule more than two each.
"""

from ml_collections import ConfigDict

from rd_elbo.sweep.config import blank
from rd_elbo.sweep.presets import tiny

RECIPE = {"encoder": "conv", "encoder_width": 8, "encoder_depth": 2, "latent": 64}
RECIPE |= {"prior": "maf_affine", "flow_steps": 4, "flow_width": 256, "flow_depth": 2}
RECIPE |= {"decoder": "pixelvae", "decoder_width": 8, "decoder_depth": 1, "causal_depth": 3}
RECIPE |= {"optimizer": "normalised_adam", "schedule": "half_linear", "learning_rate": 2e-3}
RECIPE |= {"batch_size": 32, "epochs": 2.0, "ema_decay": 0.999, "beta": 0.3, "seed": 0}
FACTORS = {
    "recipe": {},
    "no_causal_layers": {"decoder": "deconv"},
    "normal_prior": {"prior": "normal"},
    "mean_only_prior": {"prior": "maf"},
    "coupling_prior": {"prior": "realnvp"},
    "adam": {"optimizer": "adam"},
    "muon": {"optimizer": "muon"},
    "half_the_rate": {"learning_rate": 1e-3},
    "half_the_batch": {"batch_size": 16},
    "cosine": {"schedule": "cosine"},
    "half_the_latents": {"latent": 32},
    "one_causal_layer": {"causal_depth": 1},
    "resnet_encoder": {"encoder": "resnet"},
    "resnet_trunk": {"decoder": "pixelvae_resnet"},
    "resnet_encoder_and_trunk": {"encoder": "resnet", "decoder": "pixelvae_resnet"},
    "other_seed": {"seed": 1},
}


def get_config(form: str = "full") -> ConfigDict:
    """The configuration; `form` is "full" or "quick"."""
    if form not in ("full", "quick"):
        raise ValueError(f"form={form!r}: expected 'full' or 'quick'.")
    config = blank("frontier_factors")
    config.data.name = "binarized_mnist"
    config.data.splits = ("test", "valid")
    config.base = ConfigDict(RECIPE)
    config.blocks = ConfigDict(FACTORS, sort_keys=False)
    return tiny(config, all_blocks=True) if form == "quick" else config
