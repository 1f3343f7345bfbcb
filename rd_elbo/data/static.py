"""Static binarisation, and bit-packed storage of binary images."""

import lzma

import numpy as np
from jaxtyping import Shaped

BINARISATION_SEED = 20080706


def binarise(images: Shaped[np.ndarray, "examples height width"], seed: int = BINARISATION_SEED) -> np.ndarray:
    """Draws each pixel once: 1 with probability grey level / 255.

    Args:
      images: uint8 grey levels.
      seed: Of the draw; the recorded default makes the embedded digits.

    Returns:
      Images of the same shape, uint8 in {0, 1}.
    """
    # Legacy RandomState on purpose: NumPy guarantees that its stream never changes.
    flat = images.reshape(len(images), -1)
    draws = np.random.RandomState(seed).random_sample(flat.shape)
    return (draws < flat / 255.0).astype(np.uint8).reshape(images.shape)


def pack(images: np.ndarray, preset: int = 9 | lzma.PRESET_EXTREME) -> bytes:
    """Binary images (examples, height, width) as compressed bits, row after row; `preset` is LZMA's."""
    bits = np.packbits(images.reshape(len(images), -1), axis=1)
    return lzma.compress(bits.tobytes(), format=lzma.FORMAT_XZ, check=lzma.CHECK_SHA256, preset=preset)


def unpack_bits(bits: bytes, image_shape: tuple[int, int]) -> np.ndarray:
    """The images of (height, width) that `bits`, already decompressed, hold."""
    pixels = image_shape[0] * image_shape[1]
    rows = np.frombuffer(bits, np.uint8).reshape(-1, (pixels + 7) // 8)
    return np.unpackbits(rows, axis=1, count=pixels).reshape(-1, *image_shape)
