"""From members to groups that compile together."""

from collections.abc import Sequence
from typing import Any

from rd_elbo.errors import BadInput
from rd_elbo.models.family import Architecture, ImageShape
from rd_elbo.sweep.grid import FIELDS, Group, Member, architecture_of, mixable
from rd_elbo.sweep.work import work


def groups(
    members: Sequence[Member], image_shape: ImageShape, max_padding_overhead: float = 1.25
) -> list[Group]:
    """Split members into groups that compile together.

    Members that differ only in numbers that a program takes as arguments always share one. Members
    that also differ in width share one by zero padding while the arithmetic of the padded members
    is at most `max_padding_overhead` times that of the same members alone; otherwise each further
    width begins a program of its own, widest first.

    Args:
      members: Members to train.
      image_shape: Shape of an example.
      max_padding_overhead: Largest ratio of padded to own work, at least 1; at 1 widths are never
        mixed.

    Returns:
      The groups, in order of their first member; each keeps the order of `members`.

    Raises:
      BadInput: If there are no members or `max_padding_overhead` is below 1.
    """
    if not members:
        raise BadInput("members=(): expected at least one member, got none.")
    if max_padding_overhead < 1:
        raise BadInput(
            f"max_padding_overhead={max_padding_overhead!r}: expected at least 1, got less. "
            "Give 1 to pad nothing."
        )
    programs: dict[Any, list[Member]] = {}
    for member in members:
        programs.setdefault(_program_key(member), []).append(member)
    split = [
        Group(tuple(part))
        for alike in programs.values()
        for part in _by_width(alike, image_shape, max_padding_overhead)
    ]
    position = {member: i for i, member in enumerate(members)}
    return sorted(split, key=lambda group: position[group.members[0]])


def _program_key(member: Member) -> tuple[Any, ...]:
    traced = mixable(member)
    return tuple(getattr(member, field) for field in FIELDS if field not in traced)


def _by_width(
    members: list[Member], image_shape: ImageShape, max_padding_overhead: float
) -> list[list[Member]]:
    by_width: dict[Architecture, list[Member]] = {}
    for member in members:
        by_width.setdefault(architecture_of(member), []).append(member)
    if len(by_width) == 1:
        return [members]
    parts: list[list[Member]] = []
    batch = members[0].batch_size
    for architecture in sorted(by_width, key=lambda a: work(a, image_shape, batch), reverse=True):
        alike = by_width[architecture]
        if parts:
            together = parts[-1] + alike
            alone = sum(work(architecture_of(m), image_shape, batch) for m in together)
            if (
                len(together) * work(Group(tuple(together)).padded, image_shape, batch)
                <= max_padding_overhead * alone
            ):
                parts[-1] = together
                continue
        parts.append(list(alike))
    position = {member: i for i, member in enumerate(members)}
    return [sorted(part, key=position.__getitem__) for part in parts]
