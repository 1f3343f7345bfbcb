"""A folder of PNGs as arrays."""

import pathlib

import numpy as np

from rd_elbo.data.interpret import SPLITS
from rd_elbo.errors import BadInput

# Pillow's modes: one bit, which becomes 0 and 255; 8-bit grey; 8-bit colour.
_CHANNELS = {"1": "L", "L": "L", "RGB": "RGB"}


def read(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Read the PNGs of a folder, by name.

    Args:
      folder: A folder with sub-folders "train", "test" and perhaps "valid"; or with images, at any
        depth, that are to be split. Names that begin with a dot are left out.

    Returns:
      Splits, or "images": (examples, height, width) or (examples, height, width, 3) uint8, in the
      order of the files' paths.

    Raises:
      BadInput: If there is no image, one cannot be read, or they differ in size or colour.
    """
    where = f"path={str(folder)!r}"
    present = [split for split in SPLITS if (folder / split).is_dir()]
    if not present:
        return {"images": _stack(folder, _paths(folder))}
    if missing := [split for split in ("train", "test") if split not in present]:
        raise BadInput(
            f"{where}: expected sub-folders 'train' and 'test', got {', '.join(present)} without "
            f"{missing[0]!r}. Add it."
        )
    splits = {split: _paths(folder / split) for split in present}
    beside = set(_paths(folder)) - {path for paths in splits.values() for path in paths}
    if beside:
        first = min(beside).relative_to(folder)
        raise BadInput(
            f"{where}: expected images in 'train' and 'test' alone, got {str(first)!r} beside "
            "them. Move it into one of them."
        )
    return {split: _stack(folder / split, paths) for split, paths in splits.items()}


def _paths(folder: pathlib.Path) -> list[pathlib.Path]:
    found = [path for path in folder.rglob("*") if path.suffix.lower() == ".png" and path.is_file()]
    hidden = [
        any(part.startswith(".") for part in path.relative_to(folder).parts) for path in found
    ]
    return sorted(path for path, is_hidden in zip(found, hidden, strict=True) if not is_hidden)


def _stack(folder: pathlib.Path, paths: list[pathlib.Path]) -> np.ndarray:
    if not paths:
        raise BadInput(f"path={str(folder)!r}: expected PNGs, got a folder without one.")
    first, mode = _open(paths[0])
    stack = np.empty((len(paths), *first.shape), np.uint8)
    for i, path in enumerate(paths):
        image, own = _open(path)
        if image.shape != first.shape:
            raise BadInput(
                f"{str(path)!r}: expected {_described(first, mode)}, as {paths[0].name!r} is, got "
                f"{_described(image, own)}. All images must be of one size, all grey or all colour."
            )
        stack[i] = image
    return stack


def _described(image: np.ndarray, mode: str) -> str:
    return f"{image.shape[0]}x{image.shape[1]} {'grey' if mode == 'L' else 'colour'}"


def _open(path: pathlib.Path) -> tuple[np.ndarray, str]:
    # Here, because it takes a moment that other datasets need not wait for.
    import PIL.Image

    try:
        with PIL.Image.open(path, formats=("PNG",)) as opened:
            mode = opened.mode
            if mode in _CHANNELS and "transparency" not in opened.info:
                return np.asarray(opened.convert(_CHANNELS[mode])), _CHANNELS[mode]
    # Pillow raises many kinds for what is no image, or a damaged one.
    except Exception as error:
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise BadInput(
            f"path={str(path)!r}: expected a readable PNG, got none ({reason[0][:200]})."
        ) from error
    raise BadInput(
        f"{str(path)!r}: expected 8-bit grey (mode L) or colour (mode RGB) without transparency, "
        f"got mode {mode}. Convert it."
    )
