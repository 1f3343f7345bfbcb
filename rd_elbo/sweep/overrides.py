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


def check_effect(given: Iterable[str], config: Mapping[str, Any]) -> None:
    """Raise for a field that a flag sets and that no member has its value from.

    Args:
      given: Fields that flags set, such as "base.latent" and "blocks.mlp.beta".
      config: The configuration with these flags.

    Raises:
      BadInput: If there is such a field.
    """

    def section_of(name: str) -> Mapping[str, Any]:
        # A section that is no section is refused later.
        return value if isinstance(value := config.get(name), Mapping) else {}

    replaced = {
        field: section
        for section in ("grid", "train")
        for field, value in section_of(section).items()
        if value is not None
    }
    blocks, only = section_of("blocks"), config.get("only")
    trained = only if only and isinstance(only, list | tuple) else blocks
    own = [blocks[name] for name in trained if isinstance(name, str) and name in blocks]
    splits = section_of("data").get("splits") or ()
    for path in given:
        section, *inner = path.split(".")
        field = inner.pop() if inner else ""
        flag = f"--config.{path}"
        if section in ("base", "blocks") and field in replaced:
            also = f"--config.{replaced[field]}.{field}"
            raise BadInput(f"{flag}: expected this or {also}, which replaces it, got both.")
        if section == "blocks" and inner and inner[0] not in trained:
            names = ", ".join(map(str, trained))
            raise BadInput(f"{flag}: expected a block that is trained ({names}), got {inner[0]}.")
        if section == "base" and own and all(field in block for block in own):
            raise BadInput(
                f"{flag}: expected a field that some block has from base, got {field}, which every "
                f"block sets. Give --config.grid.{field}."
            )
        if path == "data.eval_examples" and "train" not in splits:
            raise BadInput(
                f"{flag}: expected to report on the split train, got data.splits={splits!r}."
            )


def in_words(config: Mapping[str, Any]) -> str:
    """Say which values replace those of every block; "" if none do."""
    sections = (config.get(section) or {} for section in ("grid", "train"))
    values = [item for section in sections for item in section.items() if item[1] is not None]
    return _listed(values)


def of_blocks(given: Mapping[str, Any]) -> str:
    """Say which values of base and of single blocks flags set; "" if none."""
    return _listed((k, v) for k, v in given.items() if k.startswith(("base.", "blocks.")))


def _listed(values: Iterable[tuple[str, Any]]) -> str:
    return "; ".join(f"{field} {_shown(value)}" for field, value in values)


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
