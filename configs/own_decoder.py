"""A sweep of a decoder that is not the library's, beside one that is.

    python scripts/sweep.py --config=configs/own_decoder.py --workdir=runs/own_decoder

The decoder is a flax module in experiments/own_decoder.py; nothing in the library knows it. Give
the name of yours in its place: a module that Python finds from the current folder, a colon, a
class.

Claim: both decoders use their codes at beta = 0.1 and 0.3, and no member diverges.
"""

from ml_collections import ConfigDict

from rd_elbo.sweep.config import blank


def get_config(form: str = "full") -> ConfigDict:
    """The configuration; `form` is "full" or "quick", which takes seconds and shows nothing."""
    if form not in ("full", "quick"):
        raise ValueError(f"form={form!r}: expected 'full' or 'quick'.")
    config = blank("own_decoder")
    config.data.eval_examples = 10_000
    config.base = ConfigDict(
        {
            "encoder": "dense",
            "encoder_width": 64,
            "latent": 16,
            "batch_size": 64,
            "epochs": 0.5,
            "learning_rate": 3e-3,
            "beta": (0.1, 0.3, 1.0, 3.0),
        }
    )
    blocks = {
        "own": {"decoder": "experiments.own_decoder:BroadcastDecoder", "decoder_width": (4, 8)},
        "mlp": {"decoder": "mlp", "decoder_width": 128, "decoder_depth": 1},
    }
    if form == "quick":
        config.data.examples = 512
        config.base.update({"encoder_width": 8, "latent": 4, "beta": (0.3, 1.0)})
        blocks["own"]["decoder_width"] = (2, 3)
    config.blocks = ConfigDict(blocks)
    return config
