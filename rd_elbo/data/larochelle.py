"""The statically binarised MNIST of Larochelle & Murray (2011), which most published likelihoods are measured on.

It comes through tensorflow-datasets (without TensorFlow) or from the three original text files in a folder the user points at.
Either way its pixels are checked against a recorded checksum and cached, bit-packed. tensorflow-datasets shuffles what it prepares,
so images are put into one canonical order (by their pixels): the same data have the same checksum wherever they came from.
"""

import hashlib
import lzma
import os
import pathlib
import socket
import tempfile
import threading
import urllib.parse
import urllib.request
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

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
_PROBE_SECONDS = 3.0
_ADVICE = (
    "put binarized_mnist_{train,valid,test}.amat into a folder and give it as manual_dir, or use the embedded 'mnist_static', "
    "which needs no download"
)


def cache_folder() -> pathlib.Path:
    """Where decoded data are kept: $RD_ELBO_CACHE, else rd_elbo in the user's cache folder."""
    root = os.environ.get("RD_ELBO_CACHE")
    if root:
        return pathlib.Path(root)
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "rd_elbo"


def read(
    manual_dir: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> dict[str, np.ndarray]:
    """Splits of 50,000, 10,000 and 10,000 images (examples, 28, 28), uint8 in {0, 1}, in canonical order.

    Args:
      manual_dir: A folder with the three original text files; without it tensorflow-datasets is asked.
      data_dir: Where tensorflow-datasets keeps prepared data, if not in its own default.
      cache_dir: Where the decoded arrays are kept, if not in `cache_folder()`.

    Raises:
      BadInput: If the data are neither cached, nor in `manual_dir`, nor to be had through tensorflow-datasets, or are damaged.
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
            _write_cached(cache / f"{NAME}_{split}.xz", images)
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
    found = hashlib.sha256(np.packbits(images.reshape(len(images), -1), axis=1).tobytes()).hexdigest()
    if found != CANONICAL_SHA256[split]:
        raise BadInput(f"{NAME}, split {split!r}, from {source} is not Larochelle & Murray's: its pixels have SHA-256 {found}")
    return images


def _read_cached(path: pathlib.Path, split: str) -> np.ndarray | None:
    """What an earlier call left, or None if that is missing or damaged, in which case it is made anew."""
    try:
        bits = lzma.decompress(path.read_bytes())
    except (OSError, lzma.LZMAError):
        return None
    if hashlib.sha256(bits).hexdigest() != CANONICAL_SHA256[split]:
        return None
    return unpack_bits(bits, _SHAPE)


def _write_cached(path: pathlib.Path, images: np.ndarray) -> None:
    """Keeps what was read for the next time; where that is impossible it says so, and the data are used all the same."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            temporary = pathlib.Path(file.name)
            file.write(pack(images, preset=0))
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        warnings.warn(f"{path} could not be written ({error.strerror}); the next load decodes the data again", stacklevel=4)


def _read_files(folder: pathlib.Path) -> dict[str, np.ndarray]:
    splits = {}
    for split, sha256 in FILES_SHA256.items():
        path = folder / f"{NAME}_{split}.amat"
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BadInput(f"manual_dir={str(folder)!r} has no readable {path.name} ({error.strerror})") from error
        found = hashlib.sha256(content).hexdigest()
        if found != sha256:
            raise BadInput(f"{path.name} in manual_dir is not Larochelle & Murray's file: its SHA-256 is {found}, not {sha256}")
        splits[split] = _verified(parse(content), split, path.name)
    return splits


def parse(content: bytes) -> np.ndarray:
    """The images of one text file: a line an image, "0" and "1" separated by one space."""
    rows = np.frombuffer(content, np.uint8).reshape(-1, 2 * _SHAPE[0] * _SHAPE[1])
    return (rows[:, ::2] - ord("0")).reshape(-1, *_SHAPE)


def _read_tfds(data_dir: str | os.PathLike[str] | None) -> dict[str, np.ndarray]:
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise BadInput(f"dataset {NAME!r} needs tensorflow-datasets: pip install 'rd_elbo[tfds]', or {_ADVICE}") from error
    # download=False: left to itself, it would try for minutes to download without network.
    options = {"download": False, **({"data_dir": os.fspath(data_dir)} if data_dir else {})}
    try:
        sources = {split: tfds.data_source(NAME, split=name, **options) for split, name in _TFDS_SPLITS.items()}
    except Exception:  # tfds raises many kinds for data that are not prepared, or not as array_record
        prepare(tfds.download.DownloadConfig(try_download_gcs=False), data_dir)
        sources = {split: tfds.data_source(NAME, split=name, **options) for split, name in _TFDS_SPLITS.items()}
    return {split: _verified(_decode(source), split, "tensorflow-datasets") for split, source in sources.items()}


def _decode(source: Any) -> np.ndarray:
    return np.stack([np.asarray(example["image"])[..., 0] for example in source])


def prepare(download_config: Any, data_dir: str | os.PathLike[str] | None = None) -> None:
    """Has tensorflow-datasets download and prepare the data in array_record form, which is read without TensorFlow.

    Args:
      download_config: A `tfds.download.DownloadConfig`; with its `manual_dir` set, files there are used instead of a download.
      data_dir: Where tensorflow-datasets keeps prepared data.

    Raises:
      BadInput: If the files must be downloaded and their host cannot be reached, or the download fails.
    """
    import tensorflow_datasets as tfds
    from PIL import Image

    catalogue = tfds.builder_cls(NAME)

    # The catalogue's builder reads its files with TensorFlow; this one does with NumPy, and is the same otherwise.
    class Builder(catalogue, skip_registration=True):  # type: ignore
        name = NAME
        url_infos = catalogue.url_infos
        pkg_dir_path = catalogue.pkg_dir_path

        def _generate_examples(self, data_path: Any) -> Iterator[tuple[int, dict[str, Any]]]:
            for index, image in enumerate(parse(pathlib.Path(data_path).read_bytes())):
                yield index, {"image": Image.fromarray(image)}

    if download_config.manual_dir is None:
        host = urllib.parse.urlsplit(next(iter(catalogue.url_infos))).hostname
        if not _reachable(host):
            raise BadInput(f"dataset {NAME!r} is not on this machine and its host {host} cannot be reached; {_ADVICE}")
    where = {"data_dir": os.fspath(data_dir)} if data_dir else {}
    tfds.disable_progress_bar()
    builder = Builder(file_format="array_record", **where)
    try:
        builder.download_and_prepare(download_config=download_config)
    except Exception as error:  # tfds and requests raise many kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BadInput(f"tensorflow-datasets could not prepare {NAME!r} ({reason[:300]}); {_ADVICE}") from error


def _reachable(host: str) -> bool:
    """Whether a connection to `host`, or to the proxy set for it, opens within `_PROBE_SECONDS`, its name looked up included."""
    answers: list[bool] = []
    proxy = urllib.parse.urlsplit(urllib.request.getproxies().get("http", ""))
    through_proxy = proxy.hostname and not urllib.request.proxy_bypass(host)
    address = (proxy.hostname, proxy.port or 80) if through_proxy else (host, 80)

    def connect() -> None:
        try:
            socket.create_connection(address, timeout=_PROBE_SECONDS).close()
            answers.append(True)
        except OSError:
            answers.append(False)

    # A name lookup has no timeout of its own, so it is left behind in a daemon thread if it takes too long.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS)
    return bool(answers and answers[0])
