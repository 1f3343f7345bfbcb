"""Sizes and training of the paper's twelve families, for configurations."""

from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from rd_elbo.models.family import PAPER_FAMILIES, paper_family

# Alemi et al. 2018, section 4 and App. A; what it does not state is in configs/mnist_paper.py.
PAPER_PARTS: dict[str, Any] = {
    "encoder_width": 32,
    "encoder_depth": 2,
    "latent": 64,
    "flow_steps": 4,
    "flow_width": 640,
    "flow_depth": 3,
}
PAPER_PARTS |= {"pseudo_inputs": 500}
PAPER_WEAK = {"decoder_width": 32, "decoder_depth": 2}
PAPER_STRONG = {"decoder_width": 64, "decoder_depth": 2}
PAPER_TRAINING: dict[str, Any] = {
    "optimizer": "normalised_adam",
    "learning_rate": 3e-4,
    "schedule": "half_linear",
    "batch_size": 100,
    "epochs": 200.0,
}
# The same families for two cores and an hour.
SMALL_PARTS: dict[str, Any] = {
    "encoder_width": 8,
    "encoder_depth": 2,
    "latent": 32,
    "flow_steps": 4,
    "flow_width": 128,
    "flow_depth": 2,
}
SMALL_PARTS |= {"pseudo_inputs": 50}
SMALL_TRAINING = {"optimizer": "normalised_adam", "schedule": "cosine"}
SMALL_WEAK: dict[str, Any] = {
    "decoder_width": 8,
    "decoder_depth": 2,
    "batch_size": 16,
    "epochs": 0.7,
    "learning_rate": 4e-3,
}
# Small batches: an autoregressive decoder sees its local statistics 784 times an image, and wants
# many steps more than many images.
SMALL_STRONG: dict[str, Any] = {
    "decoder_width": 16,
    "decoder_depth": 1,
    "batch_size": 8,
    "epochs": 0.15,
    "learning_rate": 6e-3,
}
# Three families that have every part between them, at sizes at which nothing means anything.
_QUICK = ("---", "+-+", "++v")
_TINY: dict[str, Any] = {
    "encoder_width": 2,
    "encoder_depth": 1,
    "latent": 4,
    "flow_steps": 2,
    "flow_width": 8,
    "flow_depth": 1,
    "pseudo_inputs": 4,
}
_TINY |= {
    "decoder_width": 2,
    "decoder_depth": 1,
    "batch_size": 8,
    "epochs": 0.5,
    "beta": 1.0,
    "kl_warmup_fraction": 0.0,
}


def families(
    weak: Mapping[str, Any],
    strong: Mapping[str, Any],
    names: Iterable[str] = PAPER_FAMILIES,
    suffix: str = "",
) -> dict[str, dict[str, Any]]:
    """Blocks of the paper's families, by their names.

    Args:
      weak: Axes of the families with a deconvolutional decoder.
      strong: Axes of those with an autoregressive one.
      names: The families.
      suffix: Added to the blocks' names, for further blocks of the same families.
    """
    return {
        name + suffix: {**paper_family(name), **(strong if name[1] == "+" else weak)}
        for name in names
    }


def tiny(config: ConfigDict, all_blocks: bool = False) -> ConfigDict:
    """Shrink a configuration of the paper's families to take a minute.

    It uses the embedded digits.

    Args:
      config: The configuration.
      all_blocks: Whether all blocks stay, at smaller sizes and lengths; else there are three
        blocks, of three families at beta = 1.
    """
    config.data.update({"name": "mnist_static", "examples": 64})
    config.base = ConfigDict({**config.base, **_TINY})
    shrunk = _TINY.keys() - {"beta", "kl_warmup_fraction"}
    kept = {
        name: {field: axis for field, axis in block.items() if field not in shrunk}
        for name, block in config.blocks.items()
    }
    config.blocks = ConfigDict(kept if all_blocks else families({}, {}, _QUICK))
    return config
