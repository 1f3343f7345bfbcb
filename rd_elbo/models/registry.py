"""Encoders, decoders and priors by name.

Names are those of the library's parts, of registered ones, and references "package.module:Class",
see `references`.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn

from rd_elbo import references, sources
from rd_elbo.errors import BadInput
from rd_elbo.models.parts import KINDS, OPTIONAL, PARTS, SIZES, Build, ImageShape, Part

_parts: dict[str, dict[str, Part]] = {kind: dict(PARTS[kind]) for kind in KINDS}

# What the class of a user's own part may declare, and the defaults.
_DECLARED: dict[str, Any] = {"sign": "o", "pads": False, "drops": False}
# A function may read any field but this one: its decoder has a likelihood of its own.
_READABLE = tuple(field for field in (*OPTIONAL, *SIZES) if field != "likelihood")


def names(kind: str) -> tuple[str, ...]:
    """List the known names of a kind: "encoder", "decoder" or "prior"."""
    return tuple(_parts[kind])


def find(kind: str, name: Any) -> Part:
    """Find the part of a name or a reference.

    Raises:
      BadInput: If there is none.
    """
    if references.is_reference(name):
        return _own(kind, name)
    if name not in _parts[kind]:
        known = ", ".join(map(repr, _parts[kind]))
        own = "package.module:Class of your own"
        raise BadInput(f"{kind}={name!r}: expected one of {known}, or {own}.")
    return _parts[kind][name]


def uses(kind: str, name: Any) -> tuple[str, ...]:
    """List the optional fields that a part uses; none of a part that no longer exists."""
    try:
        return find(kind, name).uses
    except BadInput:
        return ()


def sizes(decoder: Any) -> tuple[str, ...]:
    """List the fields of a decoder's size that it uses; all if it no longer exists."""
    try:
        part = find("decoder", decoder)
    except BadInput:
        return SIZES
    return tuple(field for field in SIZES if not part.made_by or field in part.uses)


def drops(kind: str, name: Any) -> bool:
    """Whether a part has dropout layers; True if it no longer exists or has no name."""
    try:
        return find(kind, name).drops
    except BadInput:
        return True


def register_encoder(
    name: str, build: Build, *, sign: str | None = None, pads: bool | None = None
) -> None:
    """Name an encoder of your own, as a value of the axis `encoder`.

    >>> import rd_elbo as rd
    >>> rd.register_encoder("shallow", lambda a, shape: rd.models.DenseEncoder(8, 1, a.latent))
    >>> rd.Member(encoder="shallow", latent=3).build((28, 28)).encoder.latent
    3

    Args:
      name: Name that is not taken; the same part may take its name again.
      build: Class of flax modules, see `of_class`; or function from (member, shape of an example)
        to a module, which may read all fields of the member but `likelihood`.
      sign: One character, for names of families. None means the attribute `sign` of the class, or
        "o" where it has none.
      pads: Whether members of several widths may share a program, see `Part`. None means the
        attribute `pads` of the class, or False where it has none.

    Raises:
      BadInput: If the name is taken, or an argument is not allowed.
    """
    register("encoder", name, build, sign=sign, pads=pads)


def register_decoder(
    name: str, build: Build, *, sign: str | None = None, pads: bool | None = None
) -> None:
    """Name a decoder of your own, as a value of the axis `decoder`; see `register_encoder`.

    >>> import rd_elbo as rd
    >>> def build(member, image_shape):
    ...     return rd.models.MLPDecoder(member.decoder_width, 1, image_shape)
    >>> rd.register_decoder("shallow", build)
    >>> rd.Member(decoder="shallow", decoder_width=16).build((28, 28)).decoder.width
    16
    """
    register("decoder", name, build, sign=sign, pads=pads)


def register_prior(
    name: str, build: Build, *, sign: str | None = None, pads: bool | None = None
) -> None:
    """Name a prior of your own, as a value of the axis `prior`; see `register_encoder`.

    >>> import rd_elbo as rd
    >>> rd.register_prior("large_vamp", lambda a, shape: rd.models.VampPrior(1000), sign="V")
    >>> rd.Member(prior="large_vamp").family
    '--V'
    """
    register("prior", name, build, sign=sign, pads=pads)


def register(
    kind: str,
    name: str,
    build: Build,
    *,
    sign: str | None = None,
    pads: bool | None = None,
) -> None:
    """Name a part of your own.

    Args:
      kind: Kind of the part, "encoder", "decoder" or "prior".
      name: Name of the part, see `register_encoder`.
      build: Class or function of the part.
      sign: Character of the part in names of families.
      pads: Whether members of several widths may share a program.

    Raises:
      BadInput: If the name is taken, or an argument is not allowed.
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise BadInput(f"name={name!r}: expected a word of letters and digits, got something else.")
    given = {"sign": sign, "pads": pads}
    part = of_class(kind, name, build, **{k: v for k, v in given.items() if v is not None})
    taken = name in PARTS[kind] or _parts[kind].get(name, part).made_by != part.made_by
    if taken:
        raise BadInput(f"name={name!r}: expected one that is not taken, got {kind} {name!r}.")
    _parts[kind][name] = part


def of_class(kind: str, name: str, build: Any, **declared: Any) -> Part:
    """Make a part of a class of flax modules, or of a function.

    Fields of the class that a member has too, such as `decoder_width` or `latent`, and
    `image_shape` are filled in; others keep their defaults.

    Args:
      kind: Kind of the part, for messages.
      name: Name of the part, for messages.
      build: Class, or function from (member, shape of an example) to a module.
      **declared: Fields `sign`, `pads` and `drops` of `Part`. Attributes of the class of the same
        names declare the others.

    Raises:
      BadInput: If `build` is neither, such as an instance of a class, or the sign is not one
        character.
    """
    # flax prints a module over several lines.
    got = f"an instance of {type(build).__name__}" if isinstance(build, nn.Module) else repr(build)
    if not callable(build) or isinstance(build, nn.Module):
        raise BadInput(
            f"{kind}={name!r}: expected a class of flax modules or a function, got {got}."
        )
    own = {field: getattr(build, field, default) for field, default in _DECLARED.items()}
    own |= declared
    if not isinstance(own["sign"], str) or len(own["sign"]) != 1:
        raise BadInput(f"sign={own['sign']!r}: expected one character, got something else.")
    source = sources.digest(build)
    # The same cell or module may make a changed part of this name.
    made_by = f"{getattr(build, '__module__', '')}:{getattr(build, '__qualname__', '')}"
    if not (isinstance(build, type) and issubclass(build, nn.Module)):
        return Part(build=build, uses=_READABLE, source=source, made_by=made_by, **own)
    fields = [f for f in dataclasses.fields(build) if f.init and f.name not in ("parent", "name")]

    def fill(architecture: Any, image_shape: ImageShape) -> nn.Module:
        known = {f.name: getattr(architecture, f.name) for f in dataclasses.fields(architecture)}
        known["image_shape"] = image_shape
        for f in fields:
            needed = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
            if needed and f.name not in known:
                raise BadInput(
                    f"{kind}={name!r}: expected fields of a member or with a default, got "
                    f"{f.name!r}. Give it a default."
                )
        return build(**{f.name: known[f.name] for f in fields if f.name in known})

    return Part(
        build=fill, uses=tuple(f.name for f in fields), source=source, made_by=made_by, **own
    )


def _own(kind: str, reference: str) -> Part:
    return _of_reference(kind, reference, references.load(kind, reference))


# The object is a key too: a cell of a notebook that runs again makes another one.
@functools.cache
def _of_reference(kind: str, reference: str, build: Any) -> Part:
    return of_class(kind, reference, build)
