"""Named datasets, and users' own."""

import os
from typing import Any

from rd_elbo.data import files, larochelle, mnist_static, omniglot, tfds
from rd_elbo.data.dataset import SPLITS, Dataset
from rd_elbo.errors import BadInput, truth

__all__ = ["NAMES", "SPLITS", "Dataset", "load"]

NAMES = ("mnist_static", "binarized_mnist", "omniglot_burda", "omniglot_tfds", "path")
# The datasets that each option is for.
_USERS = {
    "path": ("path", "omniglot_burda", "omniglot_tfds"),
    "manual_dir": ("binarized_mnist",),
    "data_dir": ("binarized_mnist", "omniglot_tfds", "any of tensorflow-datasets"),
    # Those that are not binary before they are binarised.
    "binarise": ("path", "omniglot_burda", "omniglot_tfds", "any of tensorflow-datasets"),
}


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

    >>> import rd_elbo as rd
    >>> digits = rd.load_data("mnist_static")
    >>> {split: images.shape for split, images in digits.splits.items()}
    {'train': (50000, 28, 28), 'valid': (10000, 28, 28), 'test': (10000, 28, 28)}

    Args:
      name: One of these, or any other name of tensorflow-datasets, such as "cifar10", whose data
        are prepared in array_record form:
        "mnist_static", the embedded 70,000 digits; "binarized_mnist", those of Larochelle &
        Murray (2011), through tensorflow-datasets or from `manual_dir`; "omniglot_burda", the
        Omniglot of Burda et al. (2016), which the paper used, by download or from `path`;
        "omniglot_tfds", another split and scaling of it, through tensorflow-datasets or from
        `path`; "path", a user's own examples.
      path: The .npz, .npy or folder of PNGs, for "path"; the .npz, for "omniglot_tfds";
        chardata.mat, for "omniglot_burda".
      manual_dir: Folder with the original text files, for "binarized_mnist".
      data_dir: Folder of tensorflow-datasets' prepared data, for its datasets; None means its own
        default.
      cache_dir: Folder of downloaded and decoded data.
      binarise: Whether pixels of grey images are drawn once as 0 or 1; False keeps their levels.
        None binarises 8-bit images whose largest level is plausible, and leaves floats.

    Returns:
      Splits "train", "test" and, where there is one, "valid".

    Raises:
      BadInput: If there is no such dataset, or it cannot be loaded; the message says how to get it.
    """
    if not isinstance(name, str):
        raise BadInput(f"data.name={name!r}: expected a name, got {type(name).__name__}.")
    if binarise is not None:
        binarise = truth("binarise", binarise)
    path, manual_dir, data_dir = (
        None if place is None else os.path.expanduser(place)
        for place in (path, manual_dir, data_dir)
    )
    options: dict[str, Any] = {"path": path, "manual_dir": manual_dir, "data_dir": data_dir}
    # What is binary already is also binarised.
    options["binarise"] = False if binarise is False else None
    kind = name if name in NAMES else "any of tensorflow-datasets"
    for option, value in options.items():
        if value is not None and kind not in _USERS[option]:
            given = value if isinstance(value, bool) else os.fspath(value)
            raise BadInput(
                f"{option}={given!r}: expected data.name to be {' or '.join(_USERS[option])}, "
                f"got {name!r}. Give data.name, or leave {option} out."
            )
    if name == "path":
        if path is None:
            raise BadInput(
                "path=None: expected an .npz, an .npy or a folder of PNGs for "
                "data.name='path', got none. Name it."
            )
        splits, kind, origin = files.read(path, binarise)
        return Dataset(name, splits, origin, kind)
    if name == "omniglot_burda":
        return Dataset(name, *omniglot.read_burda(path, cache_dir, binarise))
    if name == "omniglot_tfds":
        return Dataset(name, *omniglot.read_tfds(path, data_dir, cache_dir, binarise))
    if name == "binarized_mnist":
        splits = larochelle.read(manual_dir, data_dir, cache_dir)
        return Dataset(name, splits, "Larochelle & Murray 2011, images in canonical order")
    if name not in NAMES:
        return Dataset(name, *tfds.read(name, NAMES, data_dir, binarise))
    return Dataset(
        name, mnist_static.read(), "embedded: MNIST binarised statically with seed 20080706"
    )
