"""From axes to members, and groups of members that one program trains."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rd_elbo import aliases
from rd_elbo.errors import BadInput, choice, number, whole
from rd_elbo.models import family, registry
from rd_elbo.models.family import Architecture, ImageShape, users, widths_that_pad
from rd_elbo.objectives import OBJECTIVES, SETTINGS
from rd_elbo.training import regularisation
from rd_elbo.training.fit import total_steps
from rd_elbo.training.hyperparameters import Hyperparameters
from rd_elbo.training.optim import OPTIMIZERS, SCHEDULES, choose_optimizer, source_of
from rd_elbo.training.state import TrainSpec

_WITH_FIELDS = ("data", "base", "blocks", "grid", "train", "population")
# Every number that some objective depends on.
SETTINGS_OF_OBJECTIVES = tuple(
    dict.fromkeys(field for fields in SETTINGS.values() for field in fields)
)


@dataclasses.dataclass(frozen=True)
class Member(Hyperparameters, Architecture):
    """One model to train: an architecture, and all else that its result needs.

    Fields that have no effect on this member (`unused_fields`) are put at their defaults, so that
    members that train alike are equal.

    >>> import rd_elbo as rd
    >>> member = rd.Member(decoder="pixelcnn", decoder_width=16, beta=0.5, seed=1)
    >>> member.family, member.prior, rd.Member(objective="target_rate", beta=0.5).beta
    ('-+-', 'normal', 1.0)

    Attributes:
      objective: A key of `objectives.OBJECTIVES`.
      optimizer: A key of `training.optim.OPTIMIZERS`; or "package.module:name" of a function from
        a learning rate to a transformation of optax, such as "optax:adamw".
      schedule: Course of the learning rate, a key of `training.optim.SCHEDULES`.
      batch_size: Examples per step.
      epochs: Passes over the training split; may be a fraction.
    """

    objective: str = "beta"
    optimizer: str = "adam"
    schedule: str = "cosine"
    batch_size: int = 128
    epochs: float = 1.0

    def __post_init__(self) -> None:
        Architecture.__post_init__(self)
        Hyperparameters.__post_init__(self)
        choice("objective", self.objective, OBJECTIVES)
        if isinstance(self.optimizer, str):
            choose_optimizer(self.optimizer)
        else:
            choice("optimizer", self.optimizer, OPTIMIZERS)
        choice("schedule", self.schedule, SCHEDULES)
        if not self.continuous:
            number("target_distortion", self.target_distortion)
        object.__setattr__(self, "batch_size", whole("batch_size", self.batch_size))
        object.__setattr__(self, "epochs", number("epochs", self.epochs, above=True))
        for field in self.unused_fields:
            object.__setattr__(self, field, type(self).__dataclass_fields__[field].default)

    @property
    def unused_fields(self) -> tuple[str, ...]:
        """The fields that have no effect on this member, because of its objective or its parts."""
        return unused_fields(vars(self))

    @property
    def name(self) -> str:
        """A short name: a hash of the fields that are not at their defaults, as first spelled."""
        # Not cached: a cell of a notebook may make another part of the same name.
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        known = {aliases.spelled(name): v for name, v in own.items() if v != defaults[name]}
        # What is the user's own is known by its text too.
        known |= {f"source of {aliases.spelled(k)}": text for k, text in self.sources.items()}
        identity = json.dumps(known, sort_keys=True)
        return hashlib.sha256(identity.encode()).hexdigest()[:10]

    @property
    def sources(self) -> dict[str, str]:
        """Field that names something of the user's own -> SHA-256 of its text."""
        own = source_of(self.optimizer)
        return super().sources | ({"optimizer": own} if own else {})


FIELDS = tuple(field.name for field in dataclasses.fields(Member))


def unused_fields(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The fields of a member, or of its row in a table, that have no effect on it."""
    own = SETTINGS[row["objective"]]
    unused = (field for field in SETTINGS_OF_OBJECTIVES if field not in own)
    drops = any(registry.drops(kind, row[kind]) for kind in ("encoder", "decoder"))
    return (*unused, *family.unused_fields(row), *(() if drops else ("dropout",)))


def product(base: Member | Sequence[Member], **axes: Iterable[Any]) -> list[Member]:
    """Combine the values of `axes`, each combination put into `base`.

    >>> [m.beta for m in product(Member(), beta=(0.5, 1.0), seed=(0, 1))]
    [0.5, 0.5, 1.0, 1.0]

    Args:
      base: A member, or several, to start from.
      **axes: Values to take, for some fields of `Member`.

    Returns:
      Members, the last axis varying fastest; duplicates dropped.

    Raises:
      BadInput: If an axis is no field of `Member`, is empty, or holds a value that is not allowed.
    """
    values = checked_axes(axes)
    combinations = itertools.product(*values.values())
    changes = [dict(zip(values, combination, strict=True)) for combination in combinations]
    several = [base] if isinstance(base, Member) else base
    return unique(dataclasses.replace(member, **change) for member in several for change in changes)


def unique(members: Iterable[Member]) -> list[Member]:
    """The members in order, each once."""
    return list(dict.fromkeys(members))


def checked_members(given: Any) -> list[Member]:
    """The members of a sweep, as a list.

    Raises:
      BadInput: If there is none, or something else.
    """
    if not isinstance(given, Hyperparameters) and isinstance(given, Iterable):
        given = list(given)
        other = next((one for one in given if not isinstance(one, Member)), None)
        if given and other is None:
            return given
        words = f"one of {type(other).__name__}" if given else "none"
    else:
        words = f"a single {type(given).__name__}"
    raise BadInput(
        f"members: expected a sequence of members, got {words}. Give rd.product(rd.Member(...), "
        "...), with axes of values."
    )


def checked_axes(axes: Mapping[str, Iterable[Any]]) -> dict[str, list[Any]]:
    """The values of each axis, as lists.

    Raises:
      BadInput: If an axis is no field of `Member`, or is not a sequence of at least one value.
    """
    aliases.refuse(axes)
    for name, values in axes.items():
        if name not in FIELDS:
            raise BadInput(f"axis {name!r}: expected one of {', '.join(FIELDS)}, got another.")
        if isinstance(values, str) or not isinstance(values, Iterable):
            raise BadInput(
                f"{name}={values!r}: expected a sequence of values, such as ({values!r},)."
            )
    listed = {name: list(values) for name, values in axes.items()}
    for name, values in listed.items():
        if not values:
            raise BadInput(f"{name}=(): expected at least one value, got none.")
    return listed


def members_of(config: Mapping[str, Any]) -> list[Member]:
    """The members that a configuration describes, in order, each once.

    Raises:
      BadInput: If a block, an axis or a value is not allowed, or nothing is left to train.
    """
    for section in _WITH_FIELDS:
        _check_fields(section, config.get(section) or {})
    blocks, only = config.get("blocks") or {}, names("only", config.get("only") or ())
    for name, block in blocks.items():
        _check_fields(f"blocks.{name}", block)
    for name in only:
        if name not in blocks:
            raise BadInput(f"only={name!r}: expected one of {', '.join(blocks)}.")
    base = _axes(config.get("base") or {})
    given = {section: _axes(config.get(section) or {}) for section in ("grid", "train")}
    for field in given["grid"]:
        if field in given["train"]:
            raise BadInput(
                f"{field}: expected grid.{field} or train.{field}, got both. Give one of them."
            )
    overrides = {**given["grid"], **given["train"]}
    members: list[Member] = []
    for name, block in blocks.items():
        if not only or name in only:
            # One product: a field that matters only together with another is seen with it.
            axes = _axes(block)
            rest = {field: values for field, values in base.items() if field not in axes}
            members += product(Member(), **{**rest, **axes, **overrides})
    if not members:
        raise BadInput("blocks={}: expected at least one block, got none.")
    check_effect(members, overrides)
    return unique(members)


def check_effect(members: Sequence[Member], axes: Mapping[str, Any]) -> None:
    """Raise `BadInput` for an axis that has no effect on any of its members."""
    for field, values in axes.items():
        if members and all(field in member.unused_fields for member in members):
            of_objective = field in SETTINGS_OF_OBJECTIVES
            needed = ("objective",) if of_objective else users(field) or ("encoder", "decoder")
            now = " and ".join(f"{name} is {_listed(members, name)}" for name in needed)
            raise BadInput(
                f"{field}={values!r}: expected no value, got one without effect, since {now} "
                "everywhere. Leave it out."
            )


def _check_fields(section: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise BadInput(f"{section}={value!r}: expected fields, such as those in configs/.")


def names(field: str, value: Any) -> tuple[str, ...]:
    """One name or several."""
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise BadInput(f"{field}={value!r}: expected a name or a tuple of names.")
    return tuple(names)


def _listed(members: Sequence[Member], field: str) -> str:
    return ", ".join(sorted({repr(getattr(member, field)) for member in members}))


def _is_line(value: Any) -> bool:
    """Whether it is an array of values, such as `np.linspace` gives."""
    return isinstance(value, np.ndarray) and value.ndim == 1


def _axes(values: Mapping[str, Any]) -> dict[str, Any]:
    """Axes from values: None is left out, a single value is an axis of one."""
    return {
        name: tuple(value) if isinstance(value, list | tuple) or _is_line(value) else (value,)
        for name, value in values.items()
        if value is not None
    }


@dataclasses.dataclass(frozen=True)
class Group:
    """Members that one compiled program trains together.

    Attributes:
      members: Members, in the order of the grid. They are trained at the largest of their widths,
        narrower ones embedded in zeros.

    Raises:
      BadInput: If there is no member, or one program cannot train all of them.
    """

    members: tuple[Member, ...]

    def __post_init__(self) -> None:
        if not self.members:
            raise BadInput("members=(): expected at least one member, got none. Give some.")
        lead, mixed = self.members[0], mixable(self.members[0])
        for member in self.members[1:]:
            for field in FIELDS:
                own, other = getattr(lead, field), getattr(member, field)
                if field not in mixed and own != other:
                    raise BadInput(
                        f"{field}={other!r}: expected {own!r}, that of the group's first member, "
                        f"got {other!r}. Put members of another {field} into another group."
                    )

    def split(self, size: int | None) -> list["Group"]:
        """The members in groups of at most `size`; None means in one."""
        size = size or len(self.members)
        return [Group(self.members[i : i + size]) for i in range(0, len(self.members), size)]

    def spec(self, image_shape: ImageShape, scale: float | None = None, **how: Any) -> TrainSpec:
        """The program that trains them; `how` are further fields of it."""
        fields = ("objective", "batch_size", "schedule", "optimizer")
        own = {field: getattr(self.members[0], field) for field in fields}
        own |= regularisation.switches(self.members)
        return TrainSpec(model=self.padded.build(image_shape, scale), **own, **how)

    def steps(self, examples: int) -> int:
        """Steps that they are trained for, on so many examples."""
        return total_steps(self.members[0].epochs, self.members[0].batch_size, examples)

    @property
    def padded(self) -> Architecture:
        """The members' architecture at the largest of their widths."""
        widest = {
            field: max(getattr(m, field) for m in self.members)
            for field in widths_that_pad(self.members[0])
        }
        return architecture_of(dataclasses.replace(self.members[0], **widest))


def architecture_of(member: Member) -> Architecture:
    """The part of a member that shapes its model."""
    return Architecture(
        **{f.name: getattr(member, f.name) for f in dataclasses.fields(Architecture)}
    )


_TRACED = (*SETTINGS_OF_OBJECTIVES, "learning_rate", "seed", "divergence_threshold")
_TRACED += tuple(regularisation.SWITCHES.values())


def mixable(member: Member) -> set[str]:
    """The fields in which members of one program may differ."""
    return set(_TRACED) | set(widths_that_pad(member))
