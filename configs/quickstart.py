"""The paper's point on a laptop: models of nearly one ELBO sit at very different rates.

    python scripts/sweep.py --config=configs/quickstart.py --workdir=runs/quickstart

Decoders that predict each pixel from z alone and decoders that also see the pixels before it, each
in two widths, along beta.

Claim: at beta = 1 the former keep a rate of about 20 nats and the latter 1.4 to 3.0 of 92 to 98; at
beta = 0.1 all use their codes. It takes minutes on two cores.
"""

from ml_collections import ConfigDict

from rd_elbo.sweep.config import blank

# Log-spaced from 0.1 to 4 with 1 among them: five steps of 10^(1/5) up to 1, three of 4^(1/3)
# beyond.
BETAS = (0.1, 0.158, 0.251, 0.398, 0.631, 1.0, 1.59, 2.52, 4.0)
AUTOREGRESSIVE_BETAS = (0.1, 0.251, 0.631, 1.0, 4.0)
VAMPPRIOR_BETAS = (0.1, 0.251, 1.0, 4.0)


def get_config(form: str = "full") -> ConfigDict:
    """The configuration; `form` is "full" or "quick", which takes seconds and shows nothing."""
    if form not in ("full", "quick"):
        raise ValueError(f"form={form!r}: expected 'full' or 'quick'.")
    config = blank("quickstart")
    # Of the training split; the test split is reported on in full.
    config.data.eval_examples = 10_000
    config.base = ConfigDict(
        {
            "encoder": "dense",
            "encoder_width": 128,
            "encoder_depth": 2,
            "latent": 32,
            "prior": "normal",
        }
    )
    mlp = {"decoder": "mlp", "decoder_width": (128, 512), "decoder_depth": 1}
    mlp |= {"batch_size": 64, "epochs": 2.0, "learning_rate": 4e-3}
    # Small batches: a PixelCNN sees its local statistics 784 times an image, so it wants many
    # updates more than many images.
    pixelcnn = {"decoder": "pixelcnn", "batch_size": 8, "epochs": 0.24, "learning_rate": 1e-2}
    small, large = (
        {"decoder_width": 4, "decoder_depth": 1},
        {"decoder_width": 8, "decoder_depth": 3},
    )
    blocks = {
        "mlp": {**mlp, "beta": BETAS, "seed": 0},
        "mlp_seeds": {**mlp, "beta": 1.0, "seed": 1},
        "mlp_vampprior": {
            **mlp,
            "decoder_width": 512,
            "beta": VAMPPRIOR_BETAS,
            "prior": "vampprior",
            "seed": 0,
        },
        "pixelcnn_small": {**pixelcnn, **small, "beta": AUTOREGRESSIVE_BETAS, "seed": 0},
        "pixelcnn_small_seeds": {**pixelcnn, **small, "beta": 1.0, "seed": 1},
        "pixelcnn_large": {**pixelcnn, **large, "beta": AUTOREGRESSIVE_BETAS, "seed": 0},
        "pixelcnn_large_seeds": {**pixelcnn, **large, "beta": 1.0, "seed": 1},
    }
    if form == "quick":
        config.data.examples = 512
        config.base.update({"encoder_width": 16, "latent": 8})
        blocks = {
            "mlp": {
                **mlp,
                "decoder_width": (28, 32),
                "beta": (0.251, 1.0),
                "seed": 0,
                "epochs": 1.0,
            },
            "pixelcnn": {
                **pixelcnn,
                "decoder_width": 3,
                "decoder_depth": 1,
                "beta": (0.251, 1.0),
                "seed": 0,
                "epochs": 0.2,
            },
        }
    config.blocks = ConfigDict(blocks)
    return config
