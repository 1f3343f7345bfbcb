"""The static description of a convolution of images."""

from typing import NamedTuple

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]

UNPADDED: Padding = ((0, 0), (0, 0))


class Geometry(NamedTuple):
    """All that is static of a convolution; each field has one entry per axis of the image.

    Attributes:
      size: (height, width) of the images, pixels.
      kernel: (rows, columns) of the filter.
      strides: Steps of the filter.
      padding: Zeros added (before, after) along each axis.
    """

    size: Pair
    kernel: Pair
    strides: Pair = (1, 1)
    padding: Padding = UNPADDED

    @property
    def has_one_place(self) -> bool:
        """Whether the filter covers the whole image, so that it has one place only."""
        return self.kernel == self.size and not any(map(any, self.padding))

    @property
    def result(self) -> Pair:
        """(height, width) of the result, pixels."""
        rows, columns = ((n + sum(p) - k) // s + 1 for n, k, s, p in zip(*self, strict=True))
        return rows, columns


def same_padding(size: Pair, kernel: Pair, strides: Pair) -> Padding:
    """Padding that gives ceil(size / stride) pixels; an odd zero is at the end."""
    rows, columns = (
        max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(size, kernel, strides, strict=True)
    )
    return (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)
