"""A user's own images, from an .npz file."""

import os
import zipfile
import zlib

import numpy as np

from rd_elbo.data.dataset import SPLITS, check_images
from rd_elbo.data.static import BINARISATION_SEED, binarise
from rd_elbo.errors import BadInput

_VALID_SHARE = _TEST_SHARE = 1 / 7


def read(path: str | os.PathLike[str], seed: int = BINARISATION_SEED) -> dict[str, np.ndarray]:
    """Read the splits of an .npz.

    Its arrays are "train" and "test" (and perhaps "valid"), or one array "images" that is split 5 : 1 : 1.

    Args:
      path: The file. Its arrays are (examples, height, width): bool or numbers in {0, 1}, or uint8 grey levels, which are
        binarised statically.
      seed: Seed of the binarisation and of the split.

    Raises:
      BadInput: If the file cannot be read or its arrays are not such images.
    """
    arrays = read_arrays(path)
    if "images" in arrays:
        images = _binary(arrays["images"], f"array 'images' of {os.fspath(path)!r}", seed)
        if len(images) < 7:
            raise BadInput(f"array 'images' of {os.fspath(path)!r} has {len(images)} examples; a split needs at least 7")
        images = images[np.random.RandomState(seed).permutation(len(images))]
        valid, test = round(len(images) * _VALID_SHARE), round(len(images) * _TEST_SHARE)
        first = len(images) - valid - test
        return {"train": images[:first], "valid": images[first : first + valid], "test": images[first + valid :]}
    if not {"train", "test"} <= set(arrays):
        raise BadInput(f"{os.fspath(path)!r} has arrays {sorted(arrays)} but needs 'train' and 'test', or 'images'")
    # A seed of its own for each split, so that none depends on which others there are.
    return {
        name: _binary(arrays[name], f"array {name!r} of {os.fspath(path)!r}", seed + i)
        for i, name in enumerate(SPLITS)
        if name in arrays
    }


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of an .npz by name; raises `BadInput` if it cannot be read."""
    try:
        # Opened here, because np.load leaves a file open that it cannot make sense of.
        with open(path, "rb") as file:
            # NumPy takes what it does not know for pickled objects, and advises to load them.
            if not file.read(6).startswith((b"PK", b"\x93NUMPY")):
                raise ValueError("it does not begin as one")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        for name, array in arrays.items():
            if not isinstance(array, np.ndarray):  # NumPy gives bytes
                raise ValueError(f"{name!r} in it is no array")
        return arrays
    except TypeError as error:  # np.load understood another format, and gave an array
        raise BadInput(
            f"path={os.fspath(path)!r} is not a readable .npz of images, but a single array; save it with np.savez"
        ) from error
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise BadInput(f"path={os.fspath(path)!r} is not a readable .npz of images ({error})") from error


def _binary(images: np.ndarray, what: str, seed: int) -> np.ndarray:
    check_images(images, what)
    if np.isin(images, (0, 1)).all():
        return images.astype(np.uint8)
    if images.dtype != np.uint8:
        raise BadInput(
            f"{what} holds {images.dtype} from {images.min()} to {images.max()} but must be in {{0, 1}}, or uint8 grey levels"
        )
    return binarise(images, seed)
