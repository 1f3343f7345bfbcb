"""Grey levels of Omniglot: 8-bit pixels as a discretised logistic, by two kinds of decoder.

    python scripts/sweep.py --config=configs/omniglot_grey.py --workdir=runs/omniglot_grey \
        --config.data.path=runs/omniglot_area28_uint8.npz
    python scripts/sweep.py --config=configs/omniglot_grey.py:quick --workdir=runs/quick \
        --config.data.path=runs/omniglot_area28_uint8.npz  # a minute

Claim: at every beta the PixelCNN's R + D is lower than the MLP's, 1.29 to 1.40 bits per dimension
beside 1.40 to 1.47. It takes 15 minutes on two cores (results/omniglot_grey).

Images are tensorflow-datasets' drawings, averaged by area from 105x105 to 28x28 and not binarised.
Without `--config.data.path` they come from tensorflow-datasets itself.
"""

from ml_collections import ConfigDict

from rd_elbo.sweep.config import blank

BETAS = (0.1, 0.3, 1.0, 3.0)


def get_config(form: str = "full") -> ConfigDict:
    """The configuration; `form` is "full" or "quick", which takes a minute and shows nothing."""
    if form not in ("full", "quick"):
        raise ValueError(f"form={form!r}: expected 'full' or 'quick'.")
    config = blank("omniglot_grey")
    config.data.update({"name": "omniglot_tfds", "binarise": False, "splits": ("test",)})
    config.base = ConfigDict(
        {
            "likelihood": "discretised_logistic",
            "encoder": "dense",
            "encoder_width": 256,
            "encoder_depth": 2,
            "latent": 32,
            "prior": "normal",
            "beta": BETAS,
            "seed": 0,
        }
    )
    mlp = {"decoder": "mlp", "decoder_width": 512, "decoder_depth": 1}
    mlp |= {"batch_size": 64, "epochs": 5.0, "learning_rate": 2e-3}
    # Small batches: a PixelCNN sees its local statistics 784 times an image.
    pixelcnn = {"decoder": "pixelcnn", "decoder_width": 16, "decoder_depth": 3}
    pixelcnn |= {"batch_size": 16, "epochs": 1.25, "learning_rate": 4e-3}
    if form == "quick":
        config.data.examples = 64
        config.base.update({"encoder_width": 8, "latent": 4, "beta": (0.3, 1.0)})
        tiny = {"decoder_width": 4, "decoder_depth": 1, "batch_size": 16, "epochs": 1.0}
        mlp, pixelcnn = {**mlp, **tiny}, {**pixelcnn, **tiny}
    config.blocks = ConfigDict({"mlp": mlp, "pixelcnn": pixelcnn})
    return config
