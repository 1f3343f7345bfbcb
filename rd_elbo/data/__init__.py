"""Named datasets of binary images."""

import os
import pathlib

from rd_elbo.data import files, larochelle, mnist_static
from rd_elbo.data.dataset import SPLITS, Dataset
from rd_elbo.errors import BadInput

__all__ = ["NAMES", "SPLITS", "Dataset", "load"]

NAMES = ("mnist_static", "binarized_mnist", "path")


def load(
    name: str = "mnist_static",
    *,
    path: str | os.PathLike[str] | None = None,
    manual_dir: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Loads a dataset by name.

    Args:
      name: "mnist_static", the embedded 70,000 digits; "binarized_mnist", those of Larochelle & Murray (2011), through
        tensorflow-datasets or from `manual_dir`; "path", a user's own .npz.
      path: The .npz, for name "path".
      manual_dir: Folder with the original text files, for "binarized_mnist".
      data_dir: Where tensorflow-datasets keeps prepared data, for "binarized_mnist".
      cache_dir: Where decoded data are kept, for "binarized_mnist".

    Returns:
      Splits "train", "test" and, where there is one, "valid", uint8 in {0, 1}.

    Raises:
      BadInput: If there is no such dataset, or it cannot be had; the message says what to do.
    """
    if name == "path":
        if path is None:
            raise BadInput("dataset 'path' needs path=, the .npz file to read")
        return Dataset(name, files.read(path), f"file {pathlib.Path(path).name}")
    if path is not None:
        raise BadInput(f"path={os.fspath(path)!r} is for the dataset 'path', not for {name!r}")
    if name == "mnist_static":
        return Dataset(name, mnist_static.read(), "embedded: MNIST binarised statically with seed 20080706")
    if name == "binarized_mnist":
        return Dataset(
            name, larochelle.read(manual_dir, data_dir, cache_dir), "Larochelle & Murray 2011, images in canonical order"
        )
    raise BadInput(f"dataset {name!r} does not exist; there are {', '.join(map(repr, NAMES))}")
