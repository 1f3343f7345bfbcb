"""Below the paper's frontier: strong priors and local autoregression at the paper's size, on one GPU.

    python scripts/sweep.py --config=configs/mnist_frontier_gpu.py --workdir=runs/mnist_frontier_gpu
    python scripts/compare.py --workdir=runs/mnist_frontier_gpu
"""

from ml_collections import ConfigDict

from rd_elbo.config import blank, tiny

# What the paper's best families lack is a prior that knows what codes look like: affine, where its flows only move points.
PARTS = {"encoder": "conv", "encoder_width": 32, "encoder_depth": 2, "latent": 64, "marginal": "maf_affine"}
PARTS |= {"flow_steps": 6, "flow_width": 512, "flow_depth": 2}
TRAINING = {"optimizer": "normalised_adam", "schedule": "half_linear", "learning_rate": 1e-3, "batch_size": 100}


def get_config(form: str = "full") -> ConfigDict:
    """The configuration; `form` is "full" or "quick"."""
    if form not in ("full", "quick"):
        raise ValueError(f"configs/mnist_frontier_gpu.py has the forms full and quick, not {form!r}")
    config = blank("mnist_frontier_gpu")
    config.data.name = "binarized_mnist"
    config.data.splits = ("test", "valid")
    config.base = ConfigDict({**PARTS, **TRAINING, "seed": 0})
    local = {"decoder": "pixelvae", "decoder_width": 32, "decoder_depth": 2, "causal_depth": 4, "epochs": 30.0}
    config.blocks = ConfigDict(
        {
            "local": {**local, "beta": (0.05, 0.1, 0.2, 0.35, 0.6, 0.9)},
            "factorised": {"decoder": "deconv", "decoder_width": 32, "decoder_depth": 2, "epochs": 30.0, "beta": (0.05, 0.2, 0.5, 1.0)},
        }
    )
    config.population.strategy = "looped"
    return tiny(config, keep=True) if form == "quick" else config
