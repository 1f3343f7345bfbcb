"""The frontier of statically binarised MNIST with models that two cores can train.

    python scripts/sweep.py --config=configs/mnist_frontier.py --workdir=runs/mnist_frontier
    python scripts/compare.py --workdir=runs/mnist_frontier

- `residual`: small residual networks on both sides, one causal layer behind the decoder.
- `causal`: three causal layers, for low rates.
- `factorised`: no causal layer.
- `residual_warmed`, `causal_warmed`: the same with a KL warm-up, for rates at which training
  without one misses its optimum.
- `seeds`, `causal_seed`: two more seeds of a member of `residual`, and one more of one of `causal`.
- `causal_longer`, `factorised_longer`: one member of each, trained twice as long.

All have an affine autoregressive flow as the prior, are trained by Muon, and have an average of
the parameters that is evaluated beside the last ones. A chunk is two members, one on each core, or
one that is left.

Claim: the hull lies 1.7 nats below the paper's on average over R from 6 to 156, and above it by
one at R = 8. A chunk takes half an hour, and those of the last two blocks an hour or more.
"""

from ml_collections import ConfigDict

from rd_elbo.sweep.config import blank
from rd_elbo.sweep.presets import tiny

PRIOR = {"prior": "maf_affine", "flow_steps": 4, "flow_width": 256, "flow_depth": 2}
TRAINING = {"optimizer": "muon", "schedule": "half_linear", "learning_rate": 2e-3}
TRAINING |= {"batch_size": 16, "epochs": 12.0, "ema_decay": 0.999}
ENCODER = {"encoder": "resnet", "encoder_width": 8, "encoder_depth": 2, "latent": 64}
RESIDUAL = {"decoder": "pixelvae_resnet", "decoder_width": 8, "decoder_depth": 1}
RESIDUAL |= {"causal_depth": 1}
CAUSAL = {**RESIDUAL, "causal_depth": 3}
WARM_UP = {"kl_warmup_fraction": 0.5}
FACTORISED = {"decoder": "resnet", "decoder_width": 8, "decoder_depth": 2}


def get_config(form: str = "full") -> ConfigDict:
    """The configuration; `form` is "full" or "quick"."""
    if form not in ("full", "quick"):
        raise ValueError(f"form={form!r}: expected 'full' or 'quick'.")
    config = blank("mnist_frontier")
    config.data.name = "binarized_mnist"
    config.data.splits = ("test", "valid")
    config.base = ConfigDict({**ENCODER, **PRIOR, **TRAINING, "seed": 0})
    config.blocks = ConfigDict(
        {
            "residual": {**RESIDUAL, "beta": (0.1, 0.03, 0.2, 0.05, 0.35, 0.5)},
            "causal": {**CAUSAL, "beta": (0.8, 0.65, 0.9, 1.1)},
            "factorised": {**FACTORISED, "beta": (1.0,)},
            "residual_warmed": {**RESIDUAL, **WARM_UP, "beta": (0.5,)},
            "causal_warmed": {**CAUSAL, **WARM_UP, "beta": (0.65, 0.8, 0.9)},
            "seeds": {**RESIDUAL, "beta": 0.1, "seed": (1, 2)},
            "causal_seed": {**CAUSAL, "beta": 0.9, "seed": 1},
            "causal_longer": {**CAUSAL, "beta": 0.9, "epochs": 24.0},
            "factorised_longer": {**FACTORISED, "beta": 1.0, "epochs": 24.0},
        },
        # Trained in this order.
        sort_keys=False,
    )
    config.population.chunk_size = 2
    return tiny(config, all_blocks=True) if form == "quick" else config
