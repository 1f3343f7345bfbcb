"""tensorflow-datasets without TensorFlow.

Reads datasets in array_record form, and prepares those that are not there yet.
"""

import io
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rd_elbo.data import network
from rd_elbo.errors import BadInput


def sources(
    name: str,
    splits: Mapping[str, str],
    data_dir: str | os.PathLike[str] | None,
    prepare: Callable[[Any, str | os.PathLike[str] | None], None],
    advice: str,
) -> dict[str, Any]:
    """Open random-access examples of each split, images as bytes of their files.

    Args:
      name: Name in the catalogue.
      splits: The catalogue's name of each split of ours.
      data_dir: Folder of tensorflow-datasets' prepared data; None means its own default.
      prepare: Prepares the data; takes a `tfds.download.DownloadConfig` and `data_dir`.
      advice: Way out for the user, a sentence.

    Raises:
      BadInput: If tensorflow-datasets is not installed, or the data are not prepared and cannot be.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise BadInput(
            f"data.name={name!r}: expected the package tensorflow-datasets, got none. Install it "
            f"by pip install -e '.[tfds]'. Or: {advice}"
        ) from error

    def prepared() -> dict[str, Any]:
        # download=False: left to itself, it would try for minutes to download without network.
        # Images are decoded by us: what it makes of them depends on whether OpenCV is installed.
        options = {"download": False, "decoders": {"image": tfds.decode.SkipDecoding()}}
        if data_dir:
            options["data_dir"] = os.fspath(data_dir)
        return {
            split: tfds.data_source(name, split=theirs, **options)
            for split, theirs in splits.items()
        }

    try:
        return prepared()
    except (
        Exception
    ):  # tfds raises many kinds for data that are not prepared, or not as array_record
        prepare(tfds.download.DownloadConfig(try_download_gcs=False), data_dir)
        return prepared()


def prepare(
    builder: Any,
    download_config: Any,
    data_dir: str | os.PathLike[str] | None,
    dataset: str,
    advice: str,
) -> None:
    """Have a builder download and prepare its data in array_record form.

    That form is read without TensorFlow.

    Args:
      builder: A builder class that needs no TensorFlow.
      download_config: A `tfds.download.DownloadConfig`; with its `manual_dir` set, files there are
        used instead of a download.
      data_dir: Folder of tensorflow-datasets' prepared data; None means its own default.
      dataset: Our name for the data.
      advice: Way out for the user, a sentence.

    Raises:
      BadInput: If the files must be downloaded and their host cannot be reached, or the download
        fails.
    """
    import tensorflow_datasets as tfds

    if download_config.manual_dir is None:
        network.require(next(iter(builder.url_infos)), dataset, advice)
    where = {"data_dir": os.fspath(data_dir)} if data_dir else {}
    tfds.disable_progress_bar()
    try:
        builder(file_format="array_record", **where).download_and_prepare(
            download_config=download_config
        )
    except Exception as error:  # tfds and requests raise many kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BadInput(
            f"data.name={dataset!r}: expected files that tensorflow-datasets can prepare, got an "
            f"error ({reason[:300]}). {advice}"
        ) from error


def decode(content: bytes, mode: str = "L") -> np.ndarray:
    """The image of a file, (height, width) uint8, or (height, width, 3) in mode "RGB".

    Images of one bit a pixel become 0 and 255.
    """
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert(mode))
