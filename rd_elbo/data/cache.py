"""Where downloaded and decoded data are kept for the next time."""

import os
import pathlib
import tempfile
import warnings

from rd_elbo.errors import BadInput


def cache_folder() -> pathlib.Path:
    """$RD_ELBO_CACHE, else rd_elbo in the user's cache folder."""
    root = os.environ.get("RD_ELBO_CACHE")
    if root:
        return pathlib.Path(root)
    try:
        return (
            pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
            / "rd_elbo"
        )
    except RuntimeError as error:
        raise BadInput(
            "HOME=None: expected a home folder for this user, got none. Set RD_ELBO_CACHE or HOME."
        ) from error


def store(path: pathlib.Path, content: bytes) -> None:
    """Write a file whole or not at all.

    A failure is a warning: the data can be used without the file.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            temporary = pathlib.Path(file.name)
            file.write(content)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        # Of a loader that `load` calls for the user.
        warnings.warn(
            f"{path} could not be written ({error.strerror}); the next load makes it anew",
            stacklevel=4,
        )
