"""What every loader returns: named, checked splits of examples of one kind."""

import dataclasses
import functools
import hashlib
from typing import Any

import numpy as np

from rd_elbo.data.interpret import KINDS, SPLITS, check_shape, interpret
from rd_elbo.errors import BadInput, choice

__all__ = ["KINDS", "SPLITS", "Dataset"]


def title(name: str) -> str:
    """Name a dataset as figures and messages do."""
    return "own data" if name == "path" else name


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Examples in splits.

    Attributes:
      name: Name of the dataset, as given to `load`.
      splits: "train", "test" and perhaps "valid": (examples, ...) arrays, of a type by `kind`.
      origin: Source of the examples, in words, for the record.
      kind: "binary", uint8 in {0, 1}; "grey", 8-bit levels (examples, height, width), or (examples,
        height, width, 3) of colours; or "real", float32.
    """

    name: str
    splits: dict[str, np.ndarray]
    origin: str
    kind: str = "binary"

    def __post_init__(self) -> None:
        choice("kind", self.kind, KINDS)
        for split in ("train", "test"):
            if split not in self.splits:
                raise BadInput(
                    f"dataset {self.name!r}: expected a split {split!r}, got "
                    f"{', '.join(self.splits) or 'none'}."
                )
        for split in self.splits:
            choice("split", split, SPLITS)
        shapes = {images.shape[1:] for images in self.splits.values()}
        if len(shapes) > 1:
            raise BadInput(
                f"dataset {self.name!r}: expected examples of one shape in all splits, got "
                f"{sorted(shapes)}."
            )
        for split, examples in self.splits.items():
            self._check(examples, f"dataset {self.name!r}, split {split!r}")

    def _check(self, examples: np.ndarray, what: str) -> None:
        if examples.ndim < 2 or 0 in examples.shape:
            raise BadInput(
                f"{what}: expected shape (examples, height, width), none of them 0, got "
                f"{examples.shape}."
            )
        if self.kind == "binary" and (examples.dtype != np.uint8 or examples.max() > 1):
            raise BadInput(
                f"{what}: expected uint8 in {{0, 1}}, got {examples.dtype} up to {examples.max()}. "
                "Give it to Dataset.from_arrays."
            )
        if self.kind == "grey" and examples.dtype != np.uint8:
            raise BadInput(f"{what}: expected uint8 levels, got {examples.dtype}.")
        if self.kind == "real" and (
            examples.dtype != np.float32 or not np.isfinite([examples.min(), examples.max()]).all()
        ):
            raise BadInput(
                f"{what}: expected finite float32, got {examples.dtype} from {examples.min()} to "
                f"{examples.max()}. Give it to Dataset.from_arrays."
            )
        check_shape(examples, self.kind, what)

    @classmethod
    def from_arrays(
        cls,
        train: Any,
        test: Any,
        valid: Any = None,
        *,
        name: str = "arrays",
        binarise: bool | None = None,
    ) -> "Dataset":
        """Make a dataset of arrays in memory.

        >>> import numpy as np, rd_elbo as rd
        >>> levels = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
        >>> rd.Dataset.from_arrays(train=levels, test=levels, binarise=False).origin
        'arrays in memory, 8x8, grey 0 to 255, mean 0.5, 8-bit levels kept'

        Args:
          train: (examples, height, width) images of zeros and ones or of 8-bit levels, (examples,
            height, width, 3) of colours; or (examples, ...) floats of any shape.
          test: Examples of the same shape and type.
          valid: Examples of the split "valid", or None.
          name: Name of the dataset.
          binarise: Whether pixels of 8-bit levels, or of floats in [0, 1], are drawn once as 0 or
            1; None does so with 8-bit levels alone.

        Raises:
          BadInput: If that cannot be what is meant.
        """
        given = {"train": train, "valid": valid, "test": test}
        arrays = {split: array for split, array in given.items() if array is not None}
        splits, kind, words = interpret(arrays, binarise)
        return cls(name, splits, f"arrays in memory, {words}", kind)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one example, such as (height, width)."""
        return self.splits["train"].shape[1:]

    @property
    def scale(self) -> float:
        """Divisor of values that brings 8-bit levels to [0, 1]: 255 for "grey", else 1."""
        return 255.0 if self.kind == "grey" else 1.0

    @functools.cached_property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest value of all splits."""
        low = min(float(examples.min()) for examples in self.splits.values())
        return low, max(float(examples.max()) for examples in self.splits.values())

    def checksum(self) -> str:
        """SHA-256 of the splits' names, shapes and values.

        The kind is part of it where it is not binary.
        """
        digest = hashlib.sha256(b"" if self.kind == "binary" else self.kind.encode())
        for name in sorted(self.splits):
            examples = np.ascontiguousarray(self.splits[name])
            digest.update(f"{name}{examples.shape}".encode())
            digest.update(examples.data)
        return digest.hexdigest()

    def head(self, examples: int) -> "Dataset":
        """The first `examples` of every split, shuffled first with a fixed seed.

        Files may be sorted by class.
        """
        splits = {}
        for name, images in self.splits.items():
            chosen = np.random.RandomState(0).permutation(len(images))[:examples]
            splits[name] = images[np.sort(chosen)]
        sizes = {len(images) for images in self.splits.values()}
        most = "at most " if min(sizes) < examples else ""
        origin = f"{self.origin}; {most}{examples} examples of each split"
        return dataclasses.replace(self, splits=splits, origin=origin)
