"""What a row is, and the command lines and files that rows are made of."""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

CONFIG = "configs/quickstart.py:quick"
WHOLE = ": expected a whole number of at least 1 and below 2**31."


class Row(NamedTuple):
    """A command line, the sentence that refuses it, and what puts files there first."""

    command: tuple[str, ...]
    sentence: str
    harm: Callable[[pathlib.Path], object] = lambda folder: None


def sweep(*arguments, config="configs/quickstart.py:quick"):
    own = any(argument.startswith("--workdir") for argument in arguments)
    where = () if own else ("--workdir=@/run",)
    return ("scripts/sweep.py", f"--config={config}", *where, *arguments)


def script(name, *arguments):
    return (f"scripts/{name}.py", "--workdir=@/run", *arguments)


def experiment(name, *arguments):
    return ("-m", f"experiments.{name}", "--workdir=@/run", *arguments)


def file(name, content):
    """Puts a file into the folder."""

    def put(folder):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content) if isinstance(content, bytes) else path.write_text(content)

    return put


def every(*harms):
    return lambda folder: [harm(folder) for harm in harms]
