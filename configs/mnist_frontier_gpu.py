"""Below the paper's frontier at its size, on one GPU.

Priors are strong, and decoders have local autoregression.

    python scripts/sweep.py --config=configs/mnist_frontier_gpu.py --workdir=runs/mnist_frontier_gpu
    python scripts/compare.py --workdir=runs/mnist_frontier_gpu

Encoder and deconvolutional trunk are those of Alemi et al. 2018, App. A. The prior is an affine
autoregressive flow, where the paper's moves points and does not stretch space; a few causal layers
behind the trunk see the neighbouring pixels.

Claim: after 30 epochs, below the paper's hull at rates above 50 nats (results/mnist_frontier_gpu).
A chunk of four members took three minutes of an H100, and its two programs two minutes more to
compile.

The blocks `muon` and `muon_warmed` have the networks and the optimizer of `causal` in
configs/mnist_frontier.py, four times as wide, with the prior of this file, and a KL warm-up at
beta = 0.5. They have not been trained.
"""

from ml_collections import ConfigDict

from rd_elbo.sweep.config import blank
from rd_elbo.sweep.presets import tiny

PARTS = {"encoder": "conv", "encoder_width": 32, "encoder_depth": 2, "latent": 64}
PARTS |= {"prior": "maf_affine", "flow_steps": 6, "flow_width": 512, "flow_depth": 2}
PARTS |= {"decoder": "pixelvae", "decoder_width": 32, "decoder_depth": 2, "causal_depth": 4}
TRAINING = {
    "optimizer": "normalised_adam",
    "schedule": "half_linear",
    "batch_size": 100,
    "epochs": 30.0,
}
MUON = {"encoder": "resnet", "decoder": "pixelvae_resnet", "decoder_depth": 1, "causal_depth": 3}
MUON |= {"optimizer": "muon", "batch_size": 32, "learning_rate": 2e-3}


def get_config(form: str = "full") -> ConfigDict:
    """The configuration; `form` is "full" or "quick"."""
    if form not in ("full", "quick"):
        raise ValueError(f"form={form!r}: expected 'full' or 'quick'.")
    config = blank("mnist_frontier_gpu")
    config.data.name = "binarized_mnist"
    config.data.splits = ("test", "valid")
    config.base = ConfigDict({**PARTS, **TRAINING, "seed": 0})
    config.blocks = ConfigDict(
        {
            "first": {"beta": (0.1, 0.3, 0.9), "learning_rate": 1e-3},
            "faster": {"beta": 0.3, "learning_rate": 2e-3},
            "between": {"beta": (0.05, 0.2, 0.5, 0.7), "learning_rate": 1e-3},
            "more": {"beta": (0.4, 0.6, 1.0), "learning_rate": 1e-3},
            "muon": {**MUON, "beta": (0.1, 0.9, 0.03)},
            "muon_warmed": {**MUON, "beta": 0.5, "kl_warmup_fraction": 0.5},
        },
        # Trained in this order.
        sort_keys=False,
    )
    # Four at a time, and one after another: large convolutions fill a GPU alone.
    config.population.chunk_size = 4
    config.population.vmap_size = 1
    config.population.compute_dtype = "bfloat16"
    return tiny(config, all_blocks=True) if form == "quick" else config
