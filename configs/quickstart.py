"""The paper's point on a laptop: models of nearly one ELBO sit at very different rates.

    python scripts/sweep.py --config=configs/quickstart.py --workdir=runs/quickstart
"""

from ml_collections import ConfigDict, config_dict

# Log-spaced from 0.1 to 4 with 1 among them: five steps of 10^(1/5) up to 1, three of 4^(1/3) beyond.
BETAS = (0.1, 0.158, 0.251, 0.398, 0.631, 1.0, 1.59, 2.52, 4.0)
AUTOREGRESSIVE_BETAS = (0.1, 0.251, 0.398, 0.631, 1.0, 4.0)


def get_config(form: str = "full") -> ConfigDict:
    """The configuration; `form` is "full" or "quick", the latter seconds long and too short to show anything."""
    if form not in ("full", "quick"):
        raise ValueError(f"configs/quickstart.py has the forms full and quick, not {form!r}")
    quick = form == "quick"
    config = ConfigDict()
    config.name = "quickstart"
    config.data = ConfigDict(
        {
            "name": "mnist_static",
            "path": config_dict.placeholder(str),
            "manual_dir": config_dict.placeholder(str),
            "data_dir": config_dict.placeholder(str),
            "examples": 512 if quick else config_dict.placeholder(int),
            "splits": ("test", "train"),
        }
    )
    config.base = ConfigDict({"encoder": "dense", "encoder_width": 128, "encoder_depth": 2, "latent": 32, "marginal": "normal"})

    mlp = {"decoder": "mlp", "decoder_depth": 1, "batch_size": 64, "epochs": 2.0, "learning_rate": 4e-3}
    # Small batches: a PixelCNN learns local statistics from every pixel of every image, so it needs updates, not examples.
    pixelcnn = {"decoder": "pixelcnn", "decoder_depth": 2, "batch_size": 8, "epochs": 0.24, "learning_rate": 1e-2}
    widths = {"mlp": (128, 512), "pixelcnn": (4, 12)}
    config.blocks = ConfigDict(
        {
            "mlp": {**mlp, "decoder_width": widths["mlp"], "beta": BETAS, "seed": (0,)},
            "mlp_seeds": {**mlp, "decoder_width": widths["mlp"], "beta": (0.251, 1.0), "seed": (1,)},
            "mlp_vampprior": {**mlp, "decoder_width": widths["mlp"][1:], "beta": BETAS[::2], "marginal": "vampprior", "seed": (0,)},
            "pixelcnn": {**pixelcnn, "decoder_width": widths["pixelcnn"], "beta": AUTOREGRESSIVE_BETAS, "seed": (0,)},
            "pixelcnn_seeds": {**pixelcnn, "decoder_width": widths["pixelcnn"], "beta": (0.251, 1.0), "seed": (1,)},
        }
    )
    if quick:
        for name, block in config.blocks.items():
            block.update({"epochs": 4 * block.batch_size / 512, "beta": (0.251, 1.0)})
            if "mlp" in name:
                block.decoder_width = (16, 32)
        config.base.update({"encoder_width": 16, "latent": 8})
    # Names of blocks; empty means all of them.
    config.only = ()

    # Axes given here replace those of every block; so do the values of `train`.
    axes = ("beta", "target_rate", "target_weight", "annealing", "decoder_width", "decoder_depth", "encoder_width", "latent")
    axes += ("pseudo_inputs", "objective", "decoder", "marginal", "seed")
    config.grid = ConfigDict({axis: config_dict.placeholder(tuple) for axis in axes})
    config.train = ConfigDict(
        {
            "epochs": config_dict.placeholder(float),
            "batch_size": config_dict.placeholder(int),
            "learning_rate": config_dict.placeholder(float),
            "schedule": config_dict.placeholder(str),
        }
    )
    config.population = ConfigDict(
        {
            "devices": config_dict.placeholder(int),
            "chunk": config_dict.placeholder(int),
            "max_waste": 1.25,
            "dtype": "float32",
        }
    )
    return config
