"""What every loader returns: named, checked splits of binary images."""

import dataclasses
import hashlib

import numpy as np

from rd_elbo.errors import BadInput

SPLITS = ("train", "valid", "test")


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Binary images in splits.

    Attributes:
      name: Name of the dataset, as given to `load`.
      splits: "train", "test" and perhaps "valid": (examples, height, width) uint8 in {0, 1}.
      origin: Source of the pixels, in words, for the record.
    """

    name: str
    splits: dict[str, np.ndarray]
    origin: str

    def __post_init__(self) -> None:
        for split in ("train", "test"):
            if split not in self.splits:
                raise BadInput(f"dataset {self.name!r} has no split {split!r}; it has {', '.join(self.splits) or 'none'}")
        shapes = {images.shape[1:] for images in self.splits.values()}
        if len(shapes) > 1:
            raise BadInput(f"dataset {self.name!r}: all splits must have images of one shape, not {sorted(shapes)}")
        for split, images in self.splits.items():
            check_images(images, f"dataset {self.name!r}, split {split!r}")
            if images.dtype != np.uint8 or images.max() > 1:
                raise BadInput(f"dataset {self.name!r}, split {split!r} must be uint8 in {{0, 1}}; binarise it first")

    @property
    def image_shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.splits["train"].shape[1], self.splits["train"].shape[2]

    def checksum(self) -> str:
        """SHA-256 over the splits' names, shapes and pixels."""
        digest = hashlib.sha256()
        for name in sorted(self.splits):
            images = np.ascontiguousarray(self.splits[name])
            digest.update(f"{name}{images.shape}".encode() + images.tobytes())
        return digest.hexdigest()

    def head(self, examples: int) -> "Dataset":
        """The first `examples` of every split, shuffled first (with a fixed seed): files may be sorted by class."""
        splits = {}
        for name, images in self.splits.items():
            chosen = np.random.RandomState(0).permutation(len(images))[:examples]
            splits[name] = images[np.sort(chosen)]
        return dataclasses.replace(self, splits=splits, origin=f"{self.origin}; {examples} examples of each split")


def check_images(images: np.ndarray, what: str) -> None:
    """Raises `BadInput` unless `images` is a non-empty (examples, height, width) array of finite numbers."""
    if images.ndim != 3 or 0 in images.shape:
        raise BadInput(f"{what} has shape {images.shape} but must be (examples, height, width), none of them 0")
    if images.dtype.kind not in "biuf":
        raise BadInput(f"{what} holds {images.dtype} but must hold real numbers")
    if np.issubdtype(images.dtype, np.floating) and not np.isfinite(images).all():
        raise BadInput(f"{what} holds NaN or infinite values, which are not pixels")
