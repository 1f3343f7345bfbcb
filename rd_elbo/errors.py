"""The one error users meet, and checks of the values they give."""

import inspect
import math
import numbers
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

# Far beyond any use, and far enough from the largest float32 that no product of such numbers in a
# step overflows.
_LARGEST = 1e30


class BadInput(ValueError):
    """An impossible request.

    The message names the field, its value and what is allowed.

    >>> import rd_elbo as rd
    >>> try:
    ...     rd.product(beta=(-1.0,))
    ... except rd.BadInput as error:
    ...     print(error)
    beta=-1.0: expected at least 0 and at most 1e+30.
    """


class Failed(Exception):
    """An interrupted run that cannot continue; finished work is saved.

    >>> import rd_elbo as rd
    >>> def points_of(grid, dataset):
    ...     try:
    ...         return rd.sweep(grid, dataset, "runs/mine")
    ...     except rd.Failed as error:
    ...         print(error, "Finished members are in runs/mine; the same call tries again.")
    """


def whole(field: str, value: Any, lowest: int = 1) -> int:
    """`value` as an int, of at least `lowest` and below 2**31; NumPy's integers will do."""
    if (
        isinstance(value, bool)
        or not isinstance(value, numbers.Integral)
        or not lowest <= int(value) < 2**31
    ):
        raise BadInput(
            f"{field}={value!r}: expected a whole number of at least {lowest} and below 2**31."
        )
    return int(value)


def truth(field: str, value: Any) -> bool:
    """`value` as a bool; NumPy's will do."""
    if not isinstance(value, bool | np.bool_):
        raise BadInput(f"{field}={value!r}: expected True or False.")
    return bool(value)


def number(field: str, value: Any, lowest: float = 0.0, *, above: bool = False) -> float:
    """`value` as a finite float of at least `lowest`, or `above` it."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise BadInput(f"{field}={value!r}: expected a finite number.")
    real = float(value) + 0.0  # there is no negative zero, so that equal members have equal names
    if real < lowest or (above and real == lowest) or real > _LARGEST:
        raise BadInput(
            f"{field}={value!r}: expected {'above' if above else 'at least'} {lowest:g} and at "
            f"most {_LARGEST:g}."
        )
    return real


def reals(field: str, value: Any, dimensions: int) -> np.ndarray:
    """`value` as an array of finite floats with so many axes, of at least one element."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise BadInput(f"{field}: expected an array of numbers, got none ({error}).") from error
    if array.dtype.kind not in "iuf" or array.ndim != dimensions or array.size == 0:
        raise BadInput(
            f"{field}: expected an array of real numbers with {dimensions} axes, got {array.dtype} "
            f"of shape {array.shape}."
        )
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise BadInput(f"{field}: expected finite numbers, got {array[~np.isfinite(array)][0]}.")
    return array


def choice(field: str, value: Any, allowed: Any) -> None:
    """Raises unless `value` is one of the names `allowed`."""
    if value not in tuple(allowed):
        raise BadInput(f"{field}={value!r}: expected one of {', '.join(map(repr, allowed))}.")


def check_names(function: Callable[..., Any], given: Iterable[str], further: Iterable[str]) -> None:
    """Raises unless the `given` keywords are `further` ones, which `function` passes on."""
    own = inspect.signature(function).parameters.values()
    allowed = [p.name for p in own if p.kind is not p.VAR_KEYWORD]
    # A field that the function sets itself is no further one.
    allowed += [name for name in further if name not in allowed]
    for name in given:
        if name not in allowed:
            raise BadInput(f"argument {name!r}: expected one of {', '.join(allowed)}, got another.")
