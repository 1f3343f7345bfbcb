"""Figures, galleries and comparisons, made from tables."""

import contextlib
import os
import sys


def _import_matplotlib() -> None:
    """Import matplotlib whatever backend the user's environment names: figures here need none.

    By itself it raises for one that is not installed, such as a notebook's.
    """
    backend = os.environ.pop("MPLBACKEND", None)
    import matplotlib

    if backend is not None:
        os.environ["MPLBACKEND"] = backend
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = backend


if "matplotlib" not in sys.modules:
    _import_matplotlib()
