"""Named datasets, and users' own."""

import os

from rd_elbo.data import files, larochelle, mnist_static, omniglot
from rd_elbo.data.dataset import SPLITS, Dataset
from rd_elbo.errors import BadInput, truth

__all__ = ["NAMES", "SPLITS", "Dataset", "load"]

NAMES = ("mnist_static", "binarized_mnist", "omniglot_burda", "omniglot_tfds", "path")
# The datasets that each option is for.
_USERS = {
    "path": ("path", "omniglot_burda", "omniglot_tfds"),
    "manual_dir": ("binarized_mnist",),
    "data_dir": ("binarized_mnist", "omniglot_tfds"),
}
# Those that are not binary before they are binarised.
_GREY = ("path", "omniglot_burda", "omniglot_tfds")


def load(
    name: str = "mnist_static",
    *,
    path: str | os.PathLike[str] | None = None,
    manual_dir: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    binarise: bool | None = None,
) -> Dataset:
    """Load a dataset by name.

    Args:
      name: "mnist_static", the embedded 70,000 digits; "binarized_mnist", those of Larochelle &
        Murray (2011), through tensorflow-datasets or from `manual_dir`; "omniglot_burda", the
        Omniglot of Burda et al. (2016), which the paper used, by download or from `path`;
        "omniglot_tfds", another split and scaling of it, through tensorflow-datasets or from
        `path`; "path", a user's own examples.
      path: The .npz, .npy or folder of PNGs, for "path"; the .npz, for "omniglot_tfds";
        chardata.mat, for "omniglot_burda".
      manual_dir: Folder with the original text files, for "binarized_mnist".
      data_dir: Folder of tensorflow-datasets' prepared data, for "binarized_mnist" and
        "omniglot_tfds".
      cache_dir: Folder of downloaded and decoded data.
      binarise: Whether pixels of grey images are drawn once as 0 or 1; False keeps their levels.
        None binarises 8-bit images whose largest level is plausible, and leaves floats.

    Returns:
      Splits "train", "test" and, where there is one, "valid".

    Raises:
      BadInput: If there is no such dataset, or it cannot be loaded; the message says how to get it.
    """
    if name not in NAMES:
        raise BadInput(f"dataset {name!r} does not exist; there are {', '.join(map(repr, NAMES))}")
    for option, value in (("path", path), ("manual_dir", manual_dir), ("data_dir", data_dir)):
        if value is not None and name not in _USERS[option]:
            users = " or ".join(map(repr, _USERS[option]))
            raise BadInput(
                f"{option}={os.fspath(value)!r} is for the dataset {users}, not for {name!r}"
            )
    if binarise is not None and not truth("binarise", binarise) and name not in _GREY:
        raise BadInput(
            f"binarise=False is for the dataset {' or '.join(map(repr, _GREY))}, not for {name!r}"
        )
    if name == "path":
        if path is None:
            raise BadInput("dataset 'path' needs path=, the .npz, .npy or folder of PNGs to read")
        splits, kind, origin = files.read(path, binarise)
        return Dataset(name, splits, origin, kind)
    if name == "omniglot_burda":
        return Dataset(name, *omniglot.read_burda(path, cache_dir, binarise))
    if name == "omniglot_tfds":
        return Dataset(name, *omniglot.read_tfds(path, data_dir, cache_dir, binarise))
    if name == "binarized_mnist":
        splits = larochelle.read(manual_dir, data_dir, cache_dir)
        return Dataset(name, splits, "Larochelle & Murray 2011, images in canonical order")
    return Dataset(
        name, mnist_static.read(), "embedded: MNIST binarised statically with seed 20080706"
    )
