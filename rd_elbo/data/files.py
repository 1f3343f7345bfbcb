"""A user's own examples, from an .npz, an .npy or a folder of PNGs."""

import os
import pathlib
import zipfile
import zlib
from typing import Any

import numpy as np

from rd_elbo.data import pictures
from rd_elbo.data.interpret import SPLITS, Arrays, interpret
from rd_elbo.data.static import BINARISATION_SEED
from rd_elbo.errors import BadInput

_VALID_SHARE = _TEST_SHARE = 1 / 7
_NPY = b"\x93NUMPY"


def read(
    path: str | os.PathLike[str], binarise: bool | None = None, seed: int = BINARISATION_SEED
) -> tuple[Arrays, str, str]:
    """Read examples and split them where they are not.

    An .npz has arrays "train" and "test" (and perhaps "valid"), or one array "images"; a folder of
    PNGs has sub-folders of these names, or images; an .npy is one array. One array is split
    5 : 1 : 1 after a fixed shuffle.

    Args:
      path: The file or folder.
      binarise: Whether 8-bit levels are binarised statically, see `interpret`.
      seed: Seed of the binarisation and of the split.

    Returns:
      The splits, their kind, and a sentence on what was done.

    Raises:
      BadInput: If it cannot be read, or its arrays cannot be what is meant.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        arrays, what = pictures.read(path), "folder"
    else:
        arrays, what = _read_file(path)
    where = f" of {str(path)!r}"
    if "images" in arrays:
        splits, kind, words = split_up(arrays.pop("images"), binarise, where, seed)
    else:
        # A seed of its own for each split, so that none depends on which others there are.
        seeds = {split: seed + i for i, split in enumerate(SPLITS)}
        splits, kind, words = interpret(arrays, binarise, where, seeds)
    return splits, kind, f"{what} {path.name}, {words}"


def split_up(
    array: Any, binarise: bool | None, where: str, seed: int = BINARISATION_SEED
) -> tuple[Arrays, str, str]:
    """Interpret one array of examples and split it 5 : 1 : 1 after a fixed shuffle.

    Args:
      array: (examples, ...) array.
      binarise: Whether 8-bit levels are binarised statically, see `interpret`.
      where: Source of the array, for errors, such as " of 'images.npz'".
      seed: Seed of the binarisation and of the split.

    Returns:
      The splits, their kind, and a sentence on what was done.

    Raises:
      BadInput: If it cannot be what is meant, or has fewer than 7 examples.
    """
    # First, so that an image is binarised alike however the images are split.
    made, kind, words = interpret({"images": array}, binarise, where, {"images": seed})
    del array  # which may be as large as what is made of it
    images = np.asarray(made["images"])
    if len(images) < 7:
        raise BadInput(
            f"array 'images'{where}: expected at least 7 examples, got {len(images)}. Give the "
            "splits apart."
        )
    order = np.random.RandomState(seed).permutation(len(images))
    valid, test = round(len(images) * _VALID_SHARE), round(len(images) * _TEST_SHARE)
    first = len(images) - valid - test
    ends = {"train": (0, first), "valid": (first, first + valid), "test": (first + valid, None)}
    splits = {split: images[order[slice(*end)]] for split, end in ends.items()}
    return splits, kind, f"{words}, split 5 : 1 : 1 after a fixed shuffle"


def _read_file(path: pathlib.Path) -> tuple[Arrays, str]:
    """The arrays that count of a file, in the order of `SPLITS`, and its format."""
    try:
        with path.open("rb") as file:
            single = file.read(len(_NPY)) == _NPY
    except OSError as error:
        raise BadInput(
            f"path={str(path)!r}: expected a readable .npz, .npy or folder of PNGs, got none "
            f"({error})."
        ) from error
    if single:
        return {"images": _read_single(path)}, "file"
    arrays = read_arrays(path)
    splits = [split for split in SPLITS if split in arrays]
    if "images" in arrays and splits:
        raise BadInput(
            f"path={str(path)!r}: expected 'train' and 'test', or 'images', got 'images' and "
            f"{splits[0]!r}. Keep one."
        )
    if "images" not in arrays and not {"train", "test"} <= set(arrays):
        raise BadInput(
            f"path={str(path)!r}: expected arrays 'train' and 'test', or 'images', got "
            f"{sorted(arrays)}. Rename them."
        )
    used = {name: arrays[name] for name in (splits or ["images"])}
    shapes = {array.shape[1:] for array in used.values()}
    for name, array in arrays.items():
        # Labels, one number an example, are no candidates.
        if name not in used and array.ndim > 1 and array.shape[1:] in shapes:
            raise BadInput(
                f"path={str(path)!r}: expected one array of examples for each split, got {name!r} "
                f"of shape {array.shape} too. Leave out what is not meant."
            )
    return used, "file"


def _read_single(path: pathlib.Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        if "Python objects" in str(error):
            raise BadInput(_pickled(path, "one array")) from error
        raise BadInput(
            f"path={str(path)!r}: expected a readable .npy, got none ({error})."
        ) from error


def _pickled(path: str | os.PathLike[str], which: str) -> str:
    problem = f"path={os.fspath(path)!r}: expected plain numbers, got {which} of pickled objects"
    return f"{problem}. Save it as plain numbers, or leave it out."


def read_arrays(path: str | os.PathLike[str]) -> Arrays:
    """The arrays of an .npz by name; raises `BadInput` if it cannot be read."""
    name = ""
    try:
        # Opened here, because np.load leaves a file open that it cannot make sense of.
        with open(path, "rb") as file:
            # NumPy takes what it does not know for pickled objects, and advises to load them.
            if not file.read(6).startswith((b"PK", _NPY)):
                raise ValueError("it does not begin as one")
            file.seek(0)
            arrays = {}
            with np.load(file, allow_pickle=False) as archive:
                for name in archive.files:
                    arrays[name] = archive[name]
        for name, array in arrays.items():
            if not isinstance(array, np.ndarray):  # NumPy gives bytes
                raise ValueError(f"{name!r} in it is no array")
        return arrays
    except TypeError as error:  # np.load understood another format, and gave an array
        raise BadInput(
            f"path={os.fspath(path)!r}: expected an .npz of images, got a single array. Save it "
            "with np.savez."
        ) from error
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        if name and "Object arrays cannot be loaded" in str(error):
            raise BadInput(_pickled(path, f"array {name!r}")) from error
        raise BadInput(
            f"path={os.fspath(path)!r}: expected a readable .npz of images, got none ({error})."
        ) from error
