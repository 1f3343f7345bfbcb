"""The statically binarised MNIST of Larochelle & Murray (2011).

Most published likelihoods are measured on it. It comes through tensorflow-datasets (without
TensorFlow) or from the three original text files in a folder the user points at. Either way its
pixels are checked against a recorded checksum and cached, bit-packed. tensorflow-datasets shuffles
what it prepares, so images are put into one canonical order (by their pixels): the same data have
the same checksum wherever they came from.
"""

import hashlib
import lzma
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from rd_elbo.data import catalogue
from rd_elbo.data.cache import cache_folder, store
from rd_elbo.data.static import pack, unpack_bits
from rd_elbo.errors import BadInput

NAME = "binarized_mnist"
_SHAPE = (28, 28)
# Of the text files, as tensorflow-datasets declares them too.
FILES_SHA256 = {
    "train": "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d",
    "valid": "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2",
    "test": "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c",
}
EXAMPLES = {"train": 50_000, "valid": 10_000, "test": 10_000}
_TFDS_SPLITS = {"train": "train", "valid": "validation", "test": "test"}
_ADVICE = (
    "Put binarized_mnist_{train,valid,test}.amat into a folder and give it as manual_dir, or use "
    "the embedded 'mnist_static', which needs no download."
)


def read(
    manual_dir: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> dict[str, np.ndarray]:
    """Read the splits of 50,000, 10,000 and 10,000 images.

    They are (examples, 28, 28) uint8 in {0, 1}, in canonical order.

    Args:
      manual_dir: A folder with the three original text files; without it tensorflow-datasets is
        asked.
      data_dir: Folder of tensorflow-datasets' prepared data; None means its own default.
      cache_dir: Folder of the decoded arrays; None means `cache_folder()`.

    Raises:
      BadInput: If the data are neither cached, nor in `manual_dir`, nor to be had through
        tensorflow-datasets, or are damaged.
    """
    cache = pathlib.Path(cache_dir) if cache_dir else cache_folder()
    splits = {}
    missing = []
    for split in EXAMPLES:
        images = _read_cached(cache / f"{NAME}_{split}.xz", split)
        if images is None:
            missing.append(split)
        else:
            splits[split] = images
    if missing:
        splits = _read_files(pathlib.Path(manual_dir)) if manual_dir else _read_tfds(data_dir)
        for split, images in splits.items():
            store(cache / f"{NAME}_{split}.xz", pack(images, preset=0))
    return {split: splits[split] for split in EXAMPLES}


# SHA-256 of the bit-packed images of each split in canonical order.
CANONICAL_SHA256 = {
    "train": "aae6de292e6b68d898acf52062a1ac62907fc7ab417c59582d6523a1da0f9a61",
    "valid": "d10b4edf2e0765693846b51a5895f81f69fa37b6459b7f665bfa9c8cc9723622",
    "test": "87ff96664646cc41575aeb3ae4fbbabc1475ca3d42be4659d7a829d9f22c845a",
}


def canonical(images: np.ndarray) -> np.ndarray:
    """Images in the lexicographic order of their pixels."""
    bits = np.packbits(images.reshape(len(images), -1), axis=1)
    order = np.lexsort(bits.T[::-1])
    return images[order]


def _verified(images: np.ndarray, split: str, source: str) -> np.ndarray:
    images = canonical(images)
    found = hashlib.sha256(
        np.packbits(images.reshape(len(images), -1), axis=1).tobytes()
    ).hexdigest()
    if found != CANONICAL_SHA256[split]:
        raise BadInput(
            f"{NAME}, split {split!r}, from {source}: expected Larochelle & Murray's pixels, got "
            f"others (SHA-256 {found}). Replace it."
        )
    return images


def _read_cached(path: pathlib.Path, split: str) -> np.ndarray | None:
    """The files that an earlier call has written; None if they are missing or damaged."""
    try:
        bits = lzma.decompress(path.read_bytes())
    except (OSError, lzma.LZMAError):
        return None
    if hashlib.sha256(bits).hexdigest() != CANONICAL_SHA256[split]:
        return None
    return unpack_bits(bits, _SHAPE)


def _read_files(folder: pathlib.Path) -> dict[str, np.ndarray]:
    splits = {}
    for split, sha256 in FILES_SHA256.items():
        path = folder / f"{NAME}_{split}.amat"
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BadInput(
                f"manual_dir={str(folder)!r}: expected a readable {path.name}, got none "
                f"({error.strerror})."
            ) from error
        found = hashlib.sha256(content).hexdigest()
        if found != sha256:
            raise BadInput(
                f"manual_dir={str(folder)!r}: expected {path.name} of SHA-256 {sha256}, Larochelle "
                f"& Murray's, got {found}. Replace it."
            )
        splits[split] = _verified(parse(content), split, path.name)
    return splits


def parse(content: bytes) -> np.ndarray:
    """The images of one text file: a line an image, "0" and "1" separated by one space."""
    rows = np.frombuffer(content, np.uint8).reshape(-1, 2 * _SHAPE[0] * _SHAPE[1])
    return (rows[:, ::2] - ord("0")).reshape(-1, *_SHAPE)


def _read_tfds(data_dir: str | os.PathLike[str] | None) -> dict[str, np.ndarray]:
    sources = catalogue.sources(NAME, _TFDS_SPLITS, data_dir, prepare, _ADVICE)
    return {
        split: _verified(
            np.stack([catalogue.decode(example["image"]) for example in source]),
            split,
            "tensorflow-datasets",
        )
        for split, source in sources.items()
    }


def prepare(download_config: Any, data_dir: str | os.PathLike[str] | None = None) -> None:
    """Download and prepare the data by tensorflow-datasets, see `catalogue.prepare`."""
    import tensorflow_datasets as tfds
    from PIL import Image

    original = tfds.builder_cls(NAME)

    # The catalogue's builder reads its files with TensorFlow; this one does with NumPy, and is the
    # same otherwise.
    class Builder(original, skip_registration=True):  # type: ignore
        name = NAME
        url_infos = original.url_infos
        pkg_dir_path = original.pkg_dir_path

        def _generate_examples(self, data_path: Any) -> Iterator[tuple[int, dict[str, Any]]]:
            for index, image in enumerate(parse(pathlib.Path(data_path).read_bytes())):
                yield index, {"image": Image.fromarray(image)}

    catalogue.prepare(Builder, download_config, data_dir, NAME, _ADVICE)
