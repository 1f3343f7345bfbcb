"""Files that appear whole or not at all.

Reading a damaged one raises one sentence.
"""

import csv
import errno
import functools
import hashlib
import json
import os
import pathlib
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import IO, Any

import numpy as np

from rd_elbo import aliases
from rd_elbo.errors import BadInput

Row = Mapping[str, Any]
# What reading a damaged file may raise; the archive's reader takes some flipped bits for passwords
# and other methods.
DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    EOFError,
    RuntimeError,
    zlib.error,
    zipfile.BadZipFile,
)

_PASSING = {
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.EACCES,
}


def write_whole(path: pathlib.Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Writes a file beside `path` and gives it its name once it is complete and on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = tempfile.NamedTemporaryFile(  # noqa: SIM115  (it outlives its closing, to be renamed)
        dir=path.parent, prefix=f".{path.name}.", delete=False
    )
    try:
        with file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(file.name, 0o666 & ~_umask())
        os.replace(file.name, path)
    except BaseException:
        pathlib.Path(file.name).unlink(missing_ok=True)
        raise


@functools.cache
def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def passing(error: BaseException) -> bool:
    """Whether a file could not be read for a passing reason, whatever its content."""
    return isinstance(error, OSError) and error.errno in _PASSING


def gist(error: Exception) -> str:
    """What went wrong with a file, in a few words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def difference(before: Any, now: Any, where: str = "") -> str | None:
    """The first field in which two JSON values differ, in words; None if there is none."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            if before.get(key) != now.get(key):
                return difference(before.get(key), now.get(key), f"{where}.{key}" if where else key)
        return None
    return None if before == now else f"{where} was {before!r} and is {now!r}".lstrip()


def sha256(path: pathlib.Path) -> str:
    """The SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(content: Any) -> str:
    """The SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_json(path: pathlib.Path, content: Any) -> None:
    """Writes `content` as indented JSON."""
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_whole(path, lambda file: file.write(text.encode()))


def write_table(path: pathlib.Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write a CSV with a header, floats with all their digits.

    Every row must have just these columns.
    """

    def write(file: IO[bytes]) -> None:
        lines = _Lines(file)
        writer = csv.DictWriter(lines, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)

    write_whole(path, write)


def write_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes named arrays as .npz."""
    given: dict[str, Any] = dict(arrays)  # NumPy types its own options into the same namespace
    write_whole(path, lambda file: np.savez_compressed(file, **given))


def read_arrays(path: pathlib.Path | str) -> dict[str, np.ndarray]:
    """Reads what `write_arrays` wrote.

    Raises:
      BadInput: If there is no such file or it is damaged.
    """
    try:
        if not zipfile.is_zipfile(path):
            # NumPy takes what it does not know for pickled objects, and advises to load them.
            pathlib.Path(path).open("rb").close()
            raise ValueError("the file is no archive")
        with np.load(path) as arrays:
            found = dict(arrays)
        if not all(isinstance(array, np.ndarray) for array in found.values()):
            raise ValueError("something in the file is no array")
        return found
    except OSError as error:
        raise _unreadable(f"arrays {str(path)!r}", error) from error
    except DAMAGE as error:
        raise _damaged(f"arrays {str(path)!r}", error) from error


def read_json(path: pathlib.Path | str) -> Any:
    """Reads what `write_json` wrote.

    Raises:
      BadInput: If there is no such file or it is damaged.
    """
    try:
        return json.loads(pathlib.Path(path).read_text())
    except OSError as error:
        raise _unreadable(repr(str(path)), error) from error
    except ValueError as error:
        raise _damaged(repr(str(path)), error) from error


def _unreadable(what: str, error: OSError) -> BadInput:
    return BadInput(f"{what}: expected a readable file, got none ({error.strerror or error}).")


def _damaged(what: str, error: Exception) -> BadInput:
    return BadInput(f"{what}: expected a file as it was written, got a damaged one ({error}).")


class _Lines:
    """What the csv module needs of a text file, over a binary one."""

    def __init__(self, file: IO[bytes]):
        self._file = file

    def write(self, text: str) -> int:
        return self._file.write(text.encode())


def read_table(path: pathlib.Path | str) -> list[dict[str, Any]]:
    """Rows of a CSV as dictionaries; what reads as a number, or as True or False, becomes one.

    Columns of earlier releases have their present names.

    Raises:
      BadInput: If there is no such table, it has a torn row, or it is no text.
    """
    path = pathlib.Path(path)
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise _unreadable(f"table {str(path)!r}", error) from error
    except (ValueError, csv.Error) as error:
        raise _damaged(f"table {str(path)!r}", error) from error
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise BadInput(
                f"table {str(path)!r}, line {number}: expected as many fields as its header has, "
                "got more or fewer."
            )
    parsed = ({name: _parse(name, value) for name, value in row.items()} for row in rows)
    return [aliases.renamed(row, aliases.COLUMNS) for row in parsed]


def _parse(name: str, value: str) -> Any:
    # A hash may look like a number (1234567890, 12e4567890).
    if name == "member":
        return value
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return {"True": True, "False": False}.get(value, value)
