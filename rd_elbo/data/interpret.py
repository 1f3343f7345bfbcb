"""From arrays of a user's to examples of one kind, and a sentence on what was done."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from rd_elbo.data.static import BINARISATION_SEED, binarise_into
from rd_elbo.errors import BadInput, truth

# "binary": uint8 in {0, 1}; "grey": uint8 levels 0 to 255, also of colour; "real": float32.
KINDS = ("binary", "grey", "real")
LEVELS = 256
SPLITS = ("train", "valid", "test")
# A photograph or a drawing has lighter pixels than this; levels 0 to 100 are of another scale.
_LEAST_LARGEST = 128
# Images are never so much wider than high, while examples on the last axis often are so many.
_WIDEST = 8
_CHUNK = 2**20
# A split in [0, 1] beside one of this mean size is of another scale, unless it has few numbers.
_MEAN_FAR_OUTSIDE = 4.0
_FEW = 30

Arrays = dict[str, np.ndarray]


def interpret(
    arrays: Mapping[str, Any],
    binarise: bool | None = None,
    where: str = "",
    seeds: Mapping[str, int] | None = None,
) -> tuple[Arrays, str, str]:
    """Make examples of one kind of arrays.

    Zeros and ones are "binary", other floats "real". Other uint8 are 8-bit levels, which are
    binarised unless `binarise` is False.

    Args:
      arrays: Name -> (examples, ...) array; all have examples of one shape.
      binarise: Whether pixels are drawn once, as 1 with probability level / 255 or with their own
        value as the probability. None draws 8-bit levels if their largest is plausible.
      where: Source of the arrays, for errors, such as " of 'images.npz'".
      seeds: Name -> seed of the binarisation; None gives each of `SPLITS` one of its own.

    Returns:
      The arrays, their kind, and a sentence such as "28x28, grey 0 to 255, mean 0.31, binarised".

    Raises:
      BadInput: If that cannot be what is meant.
    """
    if binarise is not None:
        binarise = truth("binarise", binarise)
    named = {name: f"array {name!r}{where}" for name in arrays}
    plain = {
        name: _plain(_array(array, named[name]), named[name]) for name, array in arrays.items()
    }
    _one_shape({named[name]: array.shape[1:] for name, array in plain.items()})
    every = list(plain.values())
    if all(map(_is_binary, every)):
        kind, words = "binary", f"binary, mean {_mean(every):.2g}"
    elif all(array.dtype == np.uint8 for array in every):
        _one_scale_of_levels(plain, named, binarise)
        kind, words = "grey", _levels(every, binarise, where)
    elif all(array.dtype.kind == "f" for array in every):
        _one_scale_of_floats(plain, named)
        low, high = min(float(a.min()) for a in every), max(float(a.max()) for a in every)
        kind, words = "real", f"real {low:.3g} to {high:.3g}, mean {_mean(every):.2g}"
        if binarise and not (low >= 0 and high <= 1):
            raise BadInput(
                f"binarise=True: expected values in [0, 1], got {low:g} to {high:g}{where}. "
                "Scale them, or leave binarise out."
            )
    else:
        _refuse_numbers(plain, named)
    for name, array in plain.items():
        check_shape(array, kind, named[name])
    if kind == "grey" and every[0].ndim == 4:
        words = words.replace("grey", "colour", 1)
    if binarise is not False and (kind == "grey" or (binarise and kind == "real")):
        own = {s: BINARISATION_SEED + i for i, s in enumerate(SPLITS)} if seeds is None else seeds
        scale = 255.0 if kind == "grey" else 1.0
        made = {name: binarise_into(array, own[name], scale) for name, array in plain.items()}
        kind, words = "binary", f"{words}, binarised with seed {BINARISATION_SEED}"
    else:
        dtype = np.float32 if kind == "real" else np.uint8
        made = {name: array.astype(dtype, copy=False) for name, array in plain.items()}
        words += ", 8-bit levels kept" if kind == "grey" else ""
    return made, kind, f"{shape_in_words(every[0].shape[1:])}, {words}"


def shape_in_words(shape: tuple[int, ...]) -> str:
    """An example's shape, such as "28x28" or "vectors of 20"."""
    return f"vectors of {shape[0]}" if len(shape) == 1 else "x".join(map(str, shape))


def _array(given: Any, what: str) -> np.ndarray:
    try:
        return np.asarray(given)
    except ValueError as error:
        raise BadInput(f"{what}: expected an array of numbers, got none ({error}).") from error


def _plain(array: np.ndarray, what: str) -> np.ndarray:
    """An array of finite numbers, at least one example; a channel axis of one is dropped."""
    if array.ndim < 2 or 0 in array.shape:
        raise BadInput(
            f"{what}: expected shape (examples, height, width), (examples, height, width, 3) of "
            f"colours or (examples, dimensions), none of them 0, got {array.shape}."
        )
    if array.dtype.kind not in "biuf":
        raise BadInput(f"{what}: expected real numbers, got {array.dtype}.")
    if array.dtype.kind == "f" and not all(np.isfinite(part).all() for part in _parts(array)):
        raise BadInput(f"{what}: expected finite values, got NaN or infinite ones.")
    if array.dtype.kind == "f" and np.abs((array.min(), array.max())).max() > np.finfo("f4").max:
        raise BadInput(f"{what}: expected values that float32 can hold, got larger. Scale them.")
    return array[..., 0] if array.ndim == 4 and array.shape[-1] == 1 else array


def _parts(array: np.ndarray) -> Iterator[np.ndarray]:
    """Stretches of examples, so that what is made of them stays small."""
    rows = max(1, _CHUNK * len(array) // array.size)
    return (array[i : i + rows] for i in range(0, len(array), rows))


def _one_shape(shapes: Mapping[str, tuple[int, ...]]) -> None:
    if len(set(shapes.values())) > 1:
        (name, _), *_ = shapes.items()
        listed = ", ".join(map(str, sorted(set(shapes.values()))))
        raise BadInput(
            f"{name} and the others: expected examples of one shape, got {listed}. Examples are "
            "on the first axis."
        )


def _is_binary(array: np.ndarray) -> bool:
    if array.min() < 0 or array.max() > 1:
        return False
    return array.dtype.kind != "f" or all(((p == 0) | (p == 1)).all() for p in _parts(array))


def _mean(arrays: list[np.ndarray], scale: float = 1.0) -> float:
    total = sum(float(array.sum(dtype=np.float64)) for array in arrays)
    return total / scale / sum(array.size for array in arrays)


def _one_scale_of_levels(
    arrays: Mapping[str, np.ndarray], named: Mapping[str, str], binarise: bool | None
) -> None:
    """Refuse a split of zeros and ones, or a nearly black one, beside one of levels up to 255."""
    largest = {name: int(array.max()) for name, array in arrays.items()}
    dark, light = min(largest, key=largest.__getitem__), max(largest, key=largest.__getitem__)
    if not largest[dark] < _LEAST_LARGEST <= largest[light]:
        return
    if largest[dark] <= 1:
        raise _of_two_scales(arrays, named, dark, light)
    if binarise is None:
        how = ", or give binarise=True or binarise=False to have them as they are"
        raise _of_two_scales(arrays, named, dark, light, how)


def _one_scale_of_floats(arrays: Mapping[str, np.ndarray], named: Mapping[str, str]) -> None:
    """Refuse a split in [0, 1] beside one whose values are mostly far outside."""
    unit = [n for n, a in arrays.items() if a.size >= _FEW and a.min() >= 0 and a.max() <= 1]
    for name in arrays if unit else ():
        # A mean, since a few large values are no scale: counts may be 0, 1 and rarely 100.
        size = sum(float(np.abs(part).sum(dtype=np.float64)) for part in _parts(arrays[name]))
        if size / arrays[name].size > _MEAN_FAR_OUTSIDE:
            raise _of_two_scales(arrays, named, unit[0], name)


def _of_two_scales(
    arrays: Mapping[str, np.ndarray], named: Mapping[str, str], one: str, other: str, how: str = ""
) -> BadInput:
    low, high = (f"{arrays[name].min():g} to {arrays[name].max():g}" for name in (one, other))
    return BadInput(
        f"{named[one]}: expected values on the scale of {named[other]}, {high}, got {low}. "
        f"Scale them alike{how}."
    )


def _levels(arrays: list[np.ndarray], binarise: bool | None, where: str) -> str:
    low, high = min(int(a.min()) for a in arrays), max(int(a.max()) for a in arrays)
    if high < _LEAST_LARGEST and binarise is None:
        raise BadInput(
            f"binarise=None: expected 8-bit levels up to 255, got levels{where} up to {high}, "
            "which is nearly black. Scale them to 255, or give binarise=True or binarise=False to "
            "have them as they are."
        )
    return f"grey {low} to {high}, mean {_mean(arrays, 255.0):.2g}"


def _refuse_numbers(arrays: Mapping[str, np.ndarray], named: Mapping[str, str]) -> None:
    """Names the first array that is of no kind, or of another than the one before it."""
    for name, array in arrays.items():
        if not _is_binary(array) and array.dtype != np.uint8 and array.dtype.kind != "f":
            raise BadInput(
                f"{named[name]}: expected zeros and ones, uint8 grey levels, or floats, got "
                f"{array.dtype} from {array.min()} to {array.max()}."
            )
    kinds = {array.dtype.name: named[name] for name, array in arrays.items()}
    (first, other), (second, another) = itertools.islice(kinds.items(), 2)
    raise BadInput(
        f"{other} and {another}: expected uint8 levels in both, or floats in both, got {first} and "
        f"{second}."
    )


def check_shape(array: np.ndarray, kind: str, what: str) -> None:
    """Raise `BadInput` unless axes can be examples first, then those of an example of the kind."""
    shape = array.shape
    advice: Callable[[str], str] = lambda order: f"Transpose it with np.transpose(a, {order})."  # noqa: E731
    if array.ndim == 3 and _is_turned(shape, kind):
        raise BadInput(
            f"{what}: expected shape (examples, height, width), got {shape}, in which examples "
            f"seem to be on the last axis. {advice('(2, 0, 1)')}"
        )
    if kind == "real":
        return
    if array.ndim == 4 and shape[-1] != 3:
        turned = {1: "(0, 2, 3, 1)", 2: "(3, 0, 1, 2)"}
        axis = next((i for i in turned if shape[i] == 3), None)
        hint = advice(turned[axis]) if axis else "Leave out what is not red, green or blue."
        raise BadInput(f"{what}: expected shape (examples, height, width, 3), got {shape}. {hint}")
    if array.ndim > 4 or (array.ndim == 2 and kind == "grey"):
        raise BadInput(
            f"{what}: expected shape (examples, height, width) or (examples, height, width, 3), "
            f"got {shape}. Reshape it."
        )


def _is_turned(shape: tuple[int, ...], kind: str) -> bool:
    """Whether a shape looks like (height, width, examples)."""
    first, second, last = shape
    if second == 1 or last <= first:
        return False
    return last >= _WIDEST * max(first, second) or (first == second != last and kind != "real")
