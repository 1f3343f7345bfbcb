"""Shrink images by area.

A new pixel is the mean of the area that it covers, fractions of old pixels included.
"""

import numpy as np
from jaxtyping import Float, Shaped


def overlaps(source: int, target: int) -> Float[np.ndarray, "{target} {source}"]:
    """Lengths that `target` and `source` equal pixels of one side share, pair by pair.

    In units of which the side has source · target, so that all are whole numbers, rows sum to
    `source` and columns to `target`.
    """
    old = np.arange(source) * target
    new = np.arange(target)[:, None] * source
    shared = np.minimum(old + target, new + source) - np.maximum(old, new)
    return np.maximum(shared, 0).astype(float)


def average(
    images: Shaped[np.ndarray, "*batch height width"], size: tuple[int, int]
) -> Float[np.ndarray, "*batch {size[0]} {size[1]}"]:
    """The means of `images` over the pixels of a grid of `size`, (height, width).

    Both products are of whole numbers, hence exact (up to 2**53) for images of whole numbers; one
    division is left.
    """
    height, width = images.shape[-2:]
    sums = overlaps(height, size[0]) @ images.astype(float) @ overlaps(width, size[1]).T
    return sums / (height * width)
