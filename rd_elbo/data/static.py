"""Static binarisation, and bit-packed storage of binary images."""

import lzma

import numpy as np
from jaxtyping import Shaped

BINARISATION_SEED = 20080706
_PIXELS_AT_ONCE = 2**20


def binarise(
    images: Shaped[np.ndarray, "examples height width"], seed: int = BINARISATION_SEED
) -> np.ndarray:
    """Draw each pixel once: 1 with probability grey level / 255.

    Args:
      images: uint8 grey levels.
      seed: Seed of the draw; the recorded default makes the embedded digits.

    Returns:
      Images of the same shape, uint8 in {0, 1}.
    """
    return binarise_into(images, seed, 255.0)


def binarise_splits(
    splits: dict[str, np.ndarray], seed: int = BINARISATION_SEED, scale: float = 1.0
) -> dict[str, np.ndarray]:
    """Draw each pixel once: 1 with its own value as probability.

    Args:
      splits: Probabilities times `scale`, (examples, height, width).
      seed: Seed of the draw, which is one for all splits, in their order.
      scale: Largest value, which means the probability 1.

    Returns:
      Splits of the same shapes, uint8 in {0, 1}.
    """
    # Legacy RandomState on purpose: NumPy guarantees that its stream never changes.
    random = np.random.RandomState(seed)
    return {split: _drawn(random, images, scale) for split, images in splits.items()}


def binarise_into(images: np.ndarray, seed: int, scale: float) -> np.ndarray:
    """Draw each pixel of an array of any shape once: 1 with probability value / `scale`; uint8."""
    return _drawn(np.random.RandomState(seed), images, scale)


def _drawn(random: np.random.RandomState, images: np.ndarray, scale: float) -> np.ndarray:
    drawn = np.empty(images.shape, np.uint8)
    # Stretch by stretch, for the draws are eight times as large as the pixels; their stream is the
    # same.
    rows = max(1, _PIXELS_AT_ONCE * len(images) // max(images.size, 1))
    for i in range(0, len(images), rows):
        part = images[i : i + rows]
        np.less(
            random.random_sample(part.shape),
            part / scale,
            out=drawn[i : i + rows],
            casting="unsafe",
        )
    return drawn


def pack(images: np.ndarray, preset: int = 9 | lzma.PRESET_EXTREME) -> bytes:
    """Binary images (examples, height, width) as compressed bits, row by row.

    `preset` is LZMA's.
    """
    bits = np.packbits(images.reshape(len(images), -1), axis=1)
    return lzma.compress(
        bits.tobytes(), format=lzma.FORMAT_XZ, check=lzma.CHECK_SHA256, preset=preset
    )


def unpack_bits(bits: bytes, image_shape: tuple[int, int]) -> np.ndarray:
    """The images of (height, width) that `bits`, already decompressed, hold."""
    pixels = image_shape[0] * image_shape[1]
    rows = np.frombuffer(bits, np.uint8).reshape(-1, (pixels + 7) // 8)
    return np.unpackbits(rows, axis=1, count=pixels).reshape(-1, *image_shape)
