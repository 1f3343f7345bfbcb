"""Names of earlier releases and their present ones: the only place that holds the old ones.

Tables, configurations, flags, parameters and run directories that carry old names stay readable. A
member's name is a hash of the old spellings, so that finished members are still found.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Self

from rd_elbo.errors import BadInput

Names = Mapping[str, str]
# Fields of members.
FIELDS: Names = MappingProxyType(
    {
        "marginal": "prior",
        "annealing": "kl_warmup_fraction",
        "loss_bound": "divergence_threshold",
    }
)
# Fields of the section `population`.
POPULATION: Names = MappingProxyType(
    {"members": "chunk_size", "lanes": "vmap_size", "max_waste": "max_padding_overhead"}
)
# Columns of tables.
COLUMNS: Names = MappingProxyType({**FIELDS, "marginal_gap": "prior_gap"})
# Keys of parameter trees and of tables of probabilities.
PARTS: Names = MappingProxyType({"marginal": "prior"})
# Curves of the toy's phase diagram.
CURVES: Names = MappingProxyType({"worse marginal": "worse prior"})
_SPELLED = {new: old for old, new in FIELDS.items()}


def spelled(field: str) -> str:
    """The spelling of a member's field that its name is computed from."""
    return _SPELLED.get(field, field)


def renamed(values: Mapping[str, Any], names: Names = FIELDS) -> dict[str, Any]:
    """`values` under present names, in the same order; nothing is reported."""
    return {names.get(name, name): value for name, value in values.items()}


def refuse(fields: Mapping[str, Any]) -> None:
    """Raise `BadInput` for a field that has another name now."""
    for old in FIELDS.keys() & fields.keys():
        raise BadInput(
            f"{old}={fields[old]!r}: expected {FIELDS[old]}, its present name, got {old}."
        )


class Renamed:
    """Base of dataclasses whose fields had other names, which are refused."""

    def __new__(cls, *_: Any, **fields: Any) -> Self:
        """Raise `BadInput` for an old name, where `__init__` would raise a TypeError."""
        refuse(fields)
        return super().__new__(cls)


def current(
    config: Mapping[str, Any],
    report: Callable[[str], None] = lambda _: None,
    defaults: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """A configuration under present names, of a sweep or an experiment.

    Args:
      config: The configuration.
      report: Callback with a sentence on each old name.
      defaults: Defaults of the section `population`, which an old name may replace.

    Raises:
      BadInput: If a field is given under both names.
    """
    reported = set[str]()

    def section(where: str, values: Any, names: Names) -> Any:
        if not isinstance(values, Mapping):
            return values
        # The order of axes is the order of members.
        found: dict[str, Any] = {}
        for name, value in values.items():
            if name not in names:
                found.setdefault(name, value)
            elif value is not None:
                new = names[name]
                if values.get(new) is not None and values[new] != defaults.get(new):
                    raise BadInput(
                        f"{where}{name}={value!r}: expected one name, got {where}{new} too. Give "
                        f"{where}{new} alone."
                    )
                if name not in reported:
                    report(f"{where}{name} is deprecated; give {where}{new}")
                reported.add(name)
                found[new] = value
        return found

    present = section("", config, FIELDS)
    for name in ("base", "grid", "train"):
        if name in present:
            present[name] = section(f"{name}.", present[name], FIELDS)
    if isinstance(present.get("blocks"), Mapping):
        present["blocks"] = {
            name: section(f"blocks.{name}.", block, FIELDS)
            for name, block in present["blocks"].items()
        }
    if "population" in present:
        present["population"] = section("population.", present["population"], POPULATION)
    return present


def current_field(path: str) -> str:
    """The present name of a configuration's field, such as "grid.prior" for "grid.marginal"."""
    above, dot, name = path.rpartition(".")
    names = POPULATION if above == "population" else FIELDS
    return f"{above}{dot}{names.get(name, name)}"
