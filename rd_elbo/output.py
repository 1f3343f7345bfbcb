"""Standard output and error that cannot end a run."""

import os
import sys
from typing import Any


class Tolerant:
    """A text stream that drops what it cannot write: its reader is gone, or its disk is full."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        if hasattr(stream, "reconfigure"):
            # A character that the encoding lacks becomes a question mark.
            stream.reconfigure(errors="replace")

    def write(self, text: str) -> int:
        """Write, or drop, a text."""
        try:
            return int(self._stream.write(text))
        except (OSError, ValueError):
            self._give_up()
            return len(text)

    def flush(self) -> None:
        """Flush, or drop, what is buffered."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._give_up()

    def _give_up(self) -> None:
        # What is still in the buffer goes nowhere, so that the end of the process fails at nothing.
        try:
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())
        except (OSError, ValueError):
            pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def tolerate() -> None:
    """Make this process's standard output and error tolerant; harmless where they are."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, Tolerant):
            setattr(sys, name, Tolerant(stream))


def expanded(argument: str) -> str:
    """A flag whose value begins with "~", or such a value, with the home folder in its place."""
    if argument.startswith("~"):
        return os.path.expanduser(argument)
    name, equals, value = argument.partition("=")
    if argument.startswith("-") and equals and value.startswith("~"):
        return f"{name}={os.path.expanduser(value)}"
    return argument
