"""Static binarisation, and bit-packed storage of binary images."""

import lzma

import numpy as np
from jaxtyping import Shaped

BINARISATION_SEED = 20080706


def binarise(images: Shaped[np.ndarray, "examples height width"], seed: int = BINARISATION_SEED) -> np.ndarray:
    """Draw each pixel once: 1 with probability grey level / 255.

    Args:
      images: uint8 grey levels.
      seed: Seed of the draw; the recorded default makes the embedded digits.

    Returns:
      Images of the same shape, uint8 in {0, 1}.
    """
    return binarise_splits({"all": images / 255.0}, seed)["all"]


def binarise_splits(splits: dict[str, np.ndarray], seed: int = BINARISATION_SEED) -> dict[str, np.ndarray]:
    """Draw each pixel once: 1 with its own value as probability.

    Args:
      splits: Probabilities (examples, height, width).
      seed: Seed of the draw, which is one for all splits, in their order.

    Returns:
      Splits of the same shapes, uint8 in {0, 1}.
    """
    # Legacy RandomState on purpose: NumPy guarantees that its stream never changes.
    random = np.random.RandomState(seed)
    return {split: (random.random_sample(images.shape) < images).astype(np.uint8) for split, images in splits.items()}


def pack(images: np.ndarray, preset: int = 9 | lzma.PRESET_EXTREME) -> bytes:
    """Binary images (examples, height, width) as compressed bits, row after row; `preset` is LZMA's."""
    bits = np.packbits(images.reshape(len(images), -1), axis=1)
    return lzma.compress(bits.tobytes(), format=lzma.FORMAT_XZ, check=lzma.CHECK_SHA256, preset=preset)


def unpack_bits(bits: bytes, image_shape: tuple[int, int]) -> np.ndarray:
    """The images of (height, width) that `bits`, already decompressed, hold."""
    pixels = image_shape[0] * image_shape[1]
    rows = np.frombuffer(bits, np.uint8).reshape(-1, (pixels + 7) // 8)
    return np.unpackbits(rows, axis=1, count=pixels).reshape(-1, *image_shape)
