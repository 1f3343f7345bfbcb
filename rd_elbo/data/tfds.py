"""Any dataset of tensorflow-datasets that is prepared on this machine, without TensorFlow."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rd_elbo.data import catalogue
from rd_elbo.data.files import split_up
from rd_elbo.data.interpret import Arrays, interpret
from rd_elbo.errors import BadInput

# The catalogue's name of a split -> ours.
_SPLITS = {"train": "train", "validation": "valid", "test": "test"}
# Channels -> Pillow's mode.
_MODES = {1: "L", 3: "RGB"}


def read(
    name: str,
    others: Sequence[str],
    data_dir: str | os.PathLike[str] | None = None,
    binarise: bool | None = None,
) -> tuple[Arrays, str, str]:
    """Read the images of a dataset, or else its one array of numbers an example.

    A dataset without "test" has its "validation" in that place. One with "train" alone is split
    5 : 1 : 1 after a fixed shuffle.

    Args:
      name: Name in the catalogue, such as "cifar10" or "mnist_corrupted/shot_noise"; or that of a
        user's own dataset in `data_dir`.
      others: Names that are not tensorflow-datasets', for errors.
      data_dir: Folder of tensorflow-datasets' prepared data; None means its own default.
      binarise: Whether 8-bit levels are binarised statically, see `interpret`.

    Returns:
      The splits, their origin in words, and their kind.

    Raises:
      BadInput: If there is no such dataset, it is not prepared in array_record form, or it has
        neither 8-bit images of one size nor one array of numbers.
    """
    said = f"data.name={name!r}"
    builder = _prepared(name, said, ", ".join(map(repr, others)), data_dir)
    named = {ours: theirs for theirs, ours in _SPLITS.items() if theirs in builder.info.splits}
    if "test" not in named and "valid" in named:
        named["test"] = named.pop("valid")
    if "train" not in named:
        there = ", ".join(map(repr, builder.info.splits))
        raise BadInput(f"{said}: expected a split 'train', got {there}. Give another dataset.")
    feature = _feature(builder.info.features, said)
    where = f" of {said}"
    arrays = {ours: _stack(builder, theirs, feature, said) for ours, theirs in named.items()}
    if "test" in arrays:
        made, kind, words = interpret(arrays, binarise, where)
        taken = ", split 'validation' as test" if named["test"] != "test" else ""
    else:
        made, kind, words = split_up(arrays["train"], binarise, where)
        taken = ""
    return made, f"tensorflow-datasets' {builder.info.full_name}, {feature!r}, {words}{taken}", kind


def _prepared(name: str, said: str, others: str, data_dir: str | os.PathLike[str] | None) -> Any:
    """The builder of a dataset whose files are there."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise BadInput(
            f"{said}: expected one of {others}, got a name for tensorflow-datasets, which is not "
            "installed. Give one of them, or pip install -e '.[tfds]'."
        ) from error
    try:
        builder = tfds.builder(name, **({"data_dir": os.fspath(data_dir)} if data_dir else {}))
    except Exception as error:  # tfds raises many kinds for a name that it does not know
        raise BadInput(
            f"{said}: expected one of {others}, or a dataset of tensorflow-datasets, got neither. "
            "Correct the name."
        ) from error
    there = builder.is_prepared()
    form = builder.info.file_format.value if there else "none"
    if form != "array_record":
        # Building it needs TensorFlow, and may download more than the disk holds.
        raise BadInput(
            f"{said}: expected files of array_record in {str(builder.data_path)!r}, got {form}. "
            f"Run `tfds build {name} --file_format=array_record` where TensorFlow is installed, "
            "and give the folder as data_dir."
        )
    return builder


def _feature(features: Mapping[str, Any], said: str) -> str:
    """The feature that is the example: 8-bit images, or the only array of numbers."""
    import tensorflow_datasets as tfds

    arrays = {
        name: feature
        for name, feature in features.items()
        if isinstance(feature, tfds.features.Image)
        or (type(feature) is tfds.features.Tensor and len(feature.shape) > 0)
    }
    name = "image" if "image" in arrays else next(iter(arrays), None)
    if name is None or (name != "image" and len(arrays) > 1):
        # A prepared dataset gives its features in no fixed order.
        found = ", ".join(map(repr, sorted(arrays))) or "none"
        raise BadInput(
            f"{said}: expected a feature 'image', or one array of numbers, got {found}. Save "
            "the examples as an .npz and load it by name='path'."
        )
    own = arrays[name]
    if isinstance(own, tfds.features.Image) and not (
        np.dtype(own.np_dtype) == np.uint8 and own.shape[-1] in _MODES
    ):
        raise BadInput(
            f"{said}: expected 8-bit images of 1 or 3 channels, got {np.dtype(own.np_dtype)} of "
            f"{own.shape[-1]}. Save the examples as an .npz and load it by name='path'."
        )
    return name


def _stack(builder: Any, split: str, name: str, said: str) -> np.ndarray:
    """The examples of one split."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    images = [n for n, feature in features.items() if isinstance(feature, tfds.features.Image)]
    # Images are decoded by us: what it makes of them depends on whether OpenCV is installed.
    decoders = {image: tfds.decode.SkipDecoding() for image in images}
    source = builder.as_data_source(split=split, decoders=decoders)
    mode = _MODES[features[name].shape[-1]] if name in images else ""
    stack: np.ndarray | None = None
    for i, example in enumerate(source):
        one = catalogue.decode(example[name], mode) if mode else np.asarray(example[name])
        if stack is None:
            stack = np.empty((len(source), *one.shape), one.dtype)
        if one.shape != stack.shape[1:]:
            raise BadInput(
                f"{said}: expected examples of one shape, got {stack.shape[1:]} and {one.shape}. "
                "Make them of one size, and load them by name='path'."
            )
        stack[i] = one
    if stack is None:
        raise BadInput(f"{said}: expected examples in split {split!r}, got none.")
    return stack
