"""What flags make of a configuration: nothing that they do not clearly say, and all of it shown."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from rd_elbo.errors import BadInput

# Numbers between commas without brackets: "0,5" may be half, or nought and five.
_BARE = re.compile(r"\s*[-+\d.e]+(\s*,\s*[-+\d.e]+)+\s*,?\s*", re.IGNORECASE)


def check(fields: Iterable[tuple[str, str]]) -> None:
    """Raise for a field that is given twice, and for numbers that only a comma separates.

    ml_collections would join the values of a tuple, and take the last of others.

    Args:
      fields: Field, such as "grid.beta", and value of each flag, in order.

    Raises:
      BadInput: If there is such a field or value.
    """
    given = dict[str, str]()
    for field, value in fields:
        if field in given:
            raise BadInput(
                f"--config.{field}={value}: expected each field once, got "
                f"--config.{field}={given[field]} too. Give several values in brackets."
            )
        given[field] = value
        if _BARE.fullmatch(value):
            raise BadInput(
                f"--config.{field}={value}: expected a decimal point or brackets, such as 0.5 or "
                "(0, 5), got numbers with a comma alone."
            )


def in_words(config: Mapping[str, Any]) -> str:
    """Say which values replace those of every block; "" if none do."""
    sections = (config.get(section) or {} for section in ("grid", "train"))
    values = [item for section in sections for item in section.items() if item[1] is not None]
    return "; ".join(f"{field} {_shown(value)}" for field, value in values)


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
