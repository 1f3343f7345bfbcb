"""Objects of the user's own by name: "package.module:name", as entry points write it."""

import importlib
import os
import sys
from typing import Any

from rd_elbo.errors import BadInput


def is_reference(value: Any) -> bool:
    """Whether a value is written like a reference."""
    return isinstance(value, str) and ":" in value


def load(field: str, reference: str) -> Any:
    """Import the object that a field names; modules in the current folder are found too.

    Args:
      field: Name of the field, for the error.
      reference: "package.module:name".

    Raises:
      BadInput: If there is no such module or object, or the module fails.
    """
    expected = f"{field}={reference!r}: expected package.module:name"
    module_name, _, name = reference.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module raises
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadInput(
            f"{expected}, and {module_name!r} cannot be imported ({why}). Correct it, or start in "
            "its folder."
        ) from error
    if not name or not hasattr(module, name):
        raise BadInput(f"{expected}, and {module_name!r} has no {name!r}.")
    return getattr(module, name)
