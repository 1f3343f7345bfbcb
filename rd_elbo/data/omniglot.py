"""Omniglot (Lake et al. 2015) at 28x28: handwritten characters of fifty alphabets.

It comes from two sources, which are not comparable. `read_burda` has the images and the split of
Burda et al. (2016), which the paper and most published likelihoods use; `read_tfds` makes its own
from tensorflow-datasets' drawings of 105x105. Both are grey and are binarised once, statically.
Neither has a "valid" split: the paper's split has none, and those who hold some drawings out do not
agree on which (Burda et al.'s code the last 1,345 of a shuffle, others 2,000).
"""

import io
import os
import pathlib
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from rd_elbo.data import area, catalogue, files, network
from rd_elbo.data.cache import cache_folder, store
from rd_elbo.data.static import BINARISATION_SEED, binarise_splits
from rd_elbo.errors import BadInput

Splits = dict[str, np.ndarray]

_SHAPE = (28, 28)
_BINARISED = f"binarised statically with seed {BINARISATION_SEED}"

BURDA = "omniglot_burda"
BURDA_URL = "https://raw.githubusercontent.com/yburda/iwae/master/datasets/OMNIGLOT/chardata.mat"
BURDA_EXAMPLES = {"train": 24_345, "test": 8_070}
_BURDA_KEYS = {"train": "data", "test": "testdata"}
_BURDA_FILE = "omniglot_chardata.mat"
_BURDA_ADVICE = f"Download {BURDA_URL} elsewhere and give the file as path."

TFDS = "omniglot_tfds"
TFDS_EXAMPLES = {"train": 19_280, "test": 13_180}
_TFDS_SPLITS = {"train": "train", "test": "test"}
# All that the catalogue's version has, so that what is prepared is whole for others too.
_ARCHIVES = {
    "train": "images_background.zip",
    "test": "images_evaluation.zip",
    "small1": "images_background_small1.zip",
    "small2": "images_background_small2.zip",
}
_TFDS_CACHE = "omniglot_tfds_28x28.npz"
_TFDS_ADVICE = (
    "Have tensorflow-datasets prepare 'omniglot' on another machine and give its folder as "
    "data_dir, or give an .npz with the drawings at 28x28 as path."
)
_NOT_BURDA = (
    "not the images and the split of Burda et al. that the paper used: "
    "results are not comparable to the paper's"
)


def read_burda(
    path: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    binarise: bool | None = None,
) -> tuple[Splits, str, str]:
    """Read Burda et al.'s 24,345 and 8,070 images.

    They are (examples, 28, 28), in the order of their file.

    Args:
      path: Burda et al.'s chardata.mat; without it, it is downloaded, or taken from the cache.
      cache_dir: Folder of the downloaded file; None means `cache_folder()`.
      binarise: Whether they are binarised; False keeps their values in [0, 1].

    Returns:
      The splits, their origin in words, and their kind.

    Raises:
      BadInput: If the file cannot be downloaded or read, or is not of that form.
    """
    if path is not None:
        try:
            content = pathlib.Path(path).read_bytes()
        except OSError as error:
            raise BadInput(
                f"path={os.fspath(path)!r}: expected a readable chardata.mat, got none "
                f"({error.strerror})."
            ) from error
        grey = parse_burda(content, f"path={os.fspath(path)!r}")
    else:
        cached = pathlib.Path(cache_dir or cache_folder()) / _BURDA_FILE
        kept = _read_kept(cached)
        if kept is None:
            content = network.download(BURDA_URL, BURDA, _BURDA_ADVICE)
            kept = parse_burda(content, f"what came from {BURDA_URL}")
            store(cached, content)
        grey = kept
    done = _BINARISED if binarise is not False else "real values in [0, 1] kept"
    origin = f"Omniglot, images and split of Burda et al. 2016 (chardata.mat), {done}"
    found = {split: len(images) for split, images in grey.items()}
    if found != BURDA_EXAMPLES:
        origin = (
            f"images in the form of Burda et al.'s chardata.mat, but {found['train']:,} and "
            f"{found['test']:,} in place of its "
            f"{BURDA_EXAMPLES['train']:,} and {BURDA_EXAMPLES['test']:,}, {done}"
        )
    if binarise is False:
        return {split: images.astype(np.float32) for split, images in grey.items()}, origin, "real"
    return binarise_splits(grey), origin, "binary"


def _read_kept(path: pathlib.Path) -> Splits | None:
    """The file that an earlier call has downloaded; None if it is missing or damaged."""
    try:
        return parse_burda(path.read_bytes(), str(path))
    except (OSError, BadInput):
        return None


def parse_burda(content: bytes, what: str) -> Splits:
    """Grey levels (examples, 28, 28) in [0, 1], ink = 1, from a chardata.mat.

    Errors name the file as `what`.
    """
    # Here, because it takes a moment that other datasets need not wait for.
    import scipy.io

    try:
        arrays = scipy.io.loadmat(io.BytesIO(content), spmatrix=False)
    except Exception as error:  # scipy raises many kinds for what is not a .mat file
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BadInput(
            f"{what}: expected a readable .mat file, got none ({reason[:300]})."
        ) from error
    present = sorted(name for name in arrays if not name.startswith("__"))
    if not set(_BURDA_KEYS.values()) <= set(present):
        raise BadInput(f"{what}: expected arrays 'data' and 'testdata', got {present}.")
    return {
        split: _upright(arrays[key], f"array {key!r} of {what}")
        for split, key in _BURDA_KEYS.items()
    }


def _upright(columns: Any, what: str) -> np.ndarray:
    """A column an image, as MATLAB stores it: column after column of the image itself too."""
    height, width = _SHAPE
    if not isinstance(columns, np.ndarray) or columns.dtype.kind not in "fui":
        raise BadInput(f"{what}: expected numbers in [0, 1], got {columns.dtype}.")
    if columns.ndim != 2 or len(columns) != height * width or not columns.size:
        raise BadInput(
            f"{what}: expected shape ({height * width}, examples), a column for each image, got "
            f"{columns.shape}."
        )
    low, high = columns.min(), columns.max()
    if not (low >= 0 and high <= 1):  # of NaN too
        raise BadInput(f"{what}: expected values in [0, 1], with ink = 1, got {low} to {high}.")
    return columns.T.reshape(-1, width, height).transpose(0, 2, 1)


def read_tfds(
    path: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    binarise: bool | None = None,
) -> tuple[Splits, str, str]:
    """Read the drawings of the background and of the evaluation alphabets.

    They are 19,280 and 13,180 images, in canonical order. tensorflow-datasets shuffles what it
    prepares, so images are sorted by their grey levels before they are binarised: the same drawings
    give the same data wherever they came from.

    Args:
      path: An .npz with "images" (32460, 28, 28), uint8 with ink = 255, background alphabets first;
        without it tensorflow-datasets is asked for the drawings, which are averaged by area from
        105x105 to 28x28.
      data_dir: Folder of tensorflow-datasets' prepared data; None means its own default.
      cache_dir: Folder of the averaged images; None means `cache_folder()`.
      binarise: Whether they are binarised; False keeps their 8-bit levels.

    Returns:
      The splits (examples, 28, 28), their origin in words, and their kind.

    Raises:
      BadInput: If the images can neither be read, nor are cached, nor to be had through
        tensorflow-datasets.
    """
    if path is not None:
        grey, source = _read_images(path), f"from {pathlib.Path(path).name}"
    else:
        cached = pathlib.Path(cache_dir or cache_folder()) / _TFDS_CACHE
        found = _read_cached(cached)
        if found is None:
            found = _from_catalogue(data_dir)
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **found)  # type: ignore[arg-type]  # its stubs take allow_pickle for one of the arrays
            store(cached, buffer.getvalue())
        grey, source = found, "through tensorflow-datasets, averaged by area from 105x105 to 28x28"
    levels, kept = {split: _sorted(images) for split, images in grey.items()}, binarise is False
    done = "8-bit levels kept" if kept else _BINARISED
    origin = f"Omniglot {source}, {done}, images in canonical order; {_NOT_BURDA}"
    return (
        (levels, origin, "grey")
        if kept
        else (binarise_splits(levels, scale=255.0), origin, "binary")
    )


def _sorted(images: np.ndarray) -> np.ndarray:
    """Images in the lexicographic order of their pixels, read row after row."""
    keys = [image.tobytes() for image in images]
    return images[sorted(range(len(keys)), key=keys.__getitem__)]


def _read_images(path: str | os.PathLike[str]) -> Splits:
    arrays = files.read_arrays(path)
    if "images" not in arrays:
        raise BadInput(
            f"path={os.fspath(path)!r}: expected an array 'images', got {sorted(arrays)}. "
            "Rename it."
        )
    images = arrays["images"]
    expected = (sum(TFDS_EXAMPLES.values()), *_SHAPE)
    if images.shape != expected or images.dtype != np.uint8:
        raise BadInput(
            f"array 'images' of path={os.fspath(path)!r}: expected uint8 of shape {expected}, the "
            f"{TFDS_EXAMPLES['train']:,} drawings of the background alphabets first, got "
            f"{images.dtype} of shape {images.shape}."
        )
    return {"train": images[: TFDS_EXAMPLES["train"]], "test": images[TFDS_EXAMPLES["train"] :]}


def _read_cached(path: pathlib.Path) -> Splits | None:
    """The file that an earlier call has written; None if it is missing or damaged.

    An .npz has checksums.
    """
    try:
        arrays = files.read_arrays(path)
    except BadInput:
        return None
    whole = {split: (count, *_SHAPE) for split, count in TFDS_EXAMPLES.items()}
    if {name: array.shape for name, array in arrays.items()} != whole or any(
        a.dtype != np.uint8 for a in arrays.values()
    ):
        return None
    return {split: arrays[split] for split in TFDS_EXAMPLES}


def _from_catalogue(data_dir: str | os.PathLike[str] | None) -> Splits:
    splits = {}
    for split, source in catalogue.sources(
        "omniglot", _TFDS_SPLITS, data_dir, prepare, _TFDS_ADVICE
    ).items():
        if len(source) != TFDS_EXAMPLES[split]:
            raise BadInput(
                f"tensorflow-datasets' 'omniglot', split {split!r}: expected "
                f"{TFDS_EXAMPLES[split]:,} drawings, got {len(source):,}. Remove it, to have it "
                "prepared again."
            )
        # One after another: all of them at 105x105 in floating point would fill the memory.
        splits[split] = np.stack([shrink(catalogue.decode(example["image"])) for example in source])
    return splits


def shrink(drawing: np.ndarray) -> np.ndarray:
    """A drawing, black (0) on white (255), as 28x28 uint8 with ink = 255.

    Pixels are averages by area.
    """
    return np.rint(area.average(255 - drawing, _SHAPE)).astype(np.uint8)


def prepare(download_config: Any, data_dir: str | os.PathLike[str] | None = None) -> None:
    """Download and prepare the drawings by tensorflow-datasets, see `catalogue.prepare`."""
    import tensorflow_datasets as tfds

    original = tfds.builder_cls("omniglot")

    # The catalogue's builder walks its folders with TensorFlow; this one reads the archives, and is
    # the same otherwise.
    class Builder(original, skip_registration=True):  # type: ignore
        name = "omniglot"
        url_infos = original.url_infos
        pkg_dir_path = original.pkg_dir_path

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            urls = {info.filename: url for url, info in self.url_infos.items()}
            archives = dl_manager.download({split: urls[file] for split, file in _ARCHIVES.items()})
            drawings = [drawing for archive in archives.values() for drawing in _drawings(archive)]
            # The drawings of a character are numbered, across all archives, by its label.
            characters = {
                drawing["label"]: f"{drawing['alphabet']}_{drawing['alphabet_char_id']}"
                for _, drawing in drawings
            }
            self.info.features["alphabet"].names = sorted(
                {drawing["alphabet"] for _, drawing in drawings}
            )
            self.info.features["label"].names = [characters[label] for label in sorted(characters)]
            return {split: self._generate_examples(archive) for split, archive in archives.items()}

        def _generate_examples(self, archive: Any) -> Iterator[tuple[str, dict[str, Any]]]:
            yield from _drawings(archive)

    catalogue.prepare(Builder, download_config, data_dir, TFDS, _TFDS_ADVICE)


def _drawings(archive: str | os.PathLike[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Key and example of each <folder>/<alphabet>/character<number>/<label>_<drawer>.png."""
    with zipfile.ZipFile(archive) as opened:
        for member in sorted(opened.namelist()):
            match = re.fullmatch(r"[^/]+/([^/]+)/character(\d+)/((\d+)_\d+\.png)", member)
            if match:
                alphabet, character, file, label = match.groups()
                number = int(character) - 1
                yield (
                    f"{alphabet}_{number}_{file}",
                    {
                        "image": opened.read(member),
                        "alphabet": alphabet,
                        "alphabet_char_id": number,
                        "label": int(label) - 1,
                    },
                )
