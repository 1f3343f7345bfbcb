"""Encoders, decoders and priors by name: ours, registered ones, and classes by reference."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn

from rd_elbo import references
from rd_elbo.errors import BadInput

KINDS = ("encoder", "decoder", "prior")
# The character of the user's own parts in names of families, unless they have another.
OWN = "o"


@dataclasses.dataclass(frozen=True)
class Part:
    """An encoder, a decoder or a prior that architectures can name.

    Attributes:
      sign: Character of the part in the paper's family names.
      build: Function from (architecture, image shape) to the flax module.
      pads: Whether a narrower part embedded in zeros trains exactly as it would alone. Holds for
        linear gating and ReLU; normalised weights, for one, break it (0/0).
      uses: Fields of the architecture that not every part has a use for, and that this one does.
      source: SHA-256 of the file that the user's own part is written in; "" for ours.
      axes: Numbers of axes that an example may have, such as (2, 3) for images with and without
        colour; () for any.
      likelihoods: Likelihoods that a decoder takes; () where it has one of its own.
      drops: Whether an encoder or a decoder has layers `dropout.Dropout`.
    """

    sign: str
    build: Callable[..., nn.Module]
    pads: bool = True
    uses: tuple[str, ...] = ()
    source: str = ""
    axes: tuple[int, ...] = ()
    likelihoods: tuple[str, ...] = ()
    drops: bool = False


_parts: dict[str, dict[str, Part]] = {kind: {} for kind in KINDS}


def add(kind: str, **parts: Part) -> None:
    """Add parts of the library."""
    _parts[kind].update(parts)


def names(kind: str) -> tuple[str, ...]:
    """Names that are known, of "encoder", "decoder" or "prior"."""
    return tuple(_parts[kind])


def find(kind: str, name: Any) -> Part:
    """The part of a name or a reference.

    Raises:
      BadInput: If there is none.
    """
    if references.is_reference(name):
        return _own(kind, name)
    if name not in _parts[kind]:
        known = ", ".join(map(repr, _parts[kind]))
        own = "package.module:Class of your own"
        raise BadInput(f"{kind}={name!r} does not exist; there are {known}, or {own}")
    return _parts[kind][name]


def uses(kind: str, name: str) -> tuple[str, ...]:
    """Fields that a part has a use for; of one that is no longer there, none."""
    try:
        return find(kind, name).uses
    except BadInput:
        return ()


def drops(kind: str, name: str) -> bool:
    """Whether a part has dropout layers; one that is no longer there, or has no name, may."""
    try:
        return find(kind, name).drops
    except BadInput:
        return True


def register(kind: str, name: str, build: Callable[..., nn.Module], *, sign: str = OWN, pads: bool = False) -> None:
    """Give a part of the user's own a name.

    Args:
      kind: "encoder", "decoder" or "prior".
      name: A name that is not taken.
      build: A class of flax modules, see `of_class`; or a function from (architecture, image shape)
        to a module.
      sign: One character, for names of families.
      pads: Whether members of several widths may share a program, see `Part`.

    Raises:
      BadInput: If the name is taken, or an argument is not allowed.
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise BadInput(f"name={name!r}: expected a word of letters and digits, got something else.")
    if not isinstance(sign, str) or len(sign) != 1:
        raise BadInput(f"sign={sign!r}: expected one character, got something else.")
    part = of_class(kind, name, build, sign=sign, pads=pads)
    if name in _parts[kind] and (not part.source or _parts[kind][name].source != part.source):
        raise BadInput(f"name={name!r}: expected one that is not taken, got {kind} {name!r}.")
    _parts[kind][name] = part


def of_class(kind: str, name: str, build: Any, **declared: Any) -> Part:
    """A part from a class of flax modules, or from a function.

    Fields of the class that an architecture has too, such as `decoder_width` or `latent`, and
    `image_shape` are filled in; others keep their defaults. Class attributes `sign`, `pads` and
    `drops` declare what `declared` does not.

    Raises:
      BadInput: If it is neither.
    """
    if not callable(build):
        raise BadInput(f"{kind}={name!r}: expected a flax module or a function, got {build!r}.")
    own: dict[str, Any] = {"sign": OWN, "pads": False, "drops": False}
    declared = {name: getattr(build, name, default) for name, default in own.items()} | declared
    if not (isinstance(build, type) and issubclass(build, nn.Module)):
        return Part(build=build, source=references.source(build), **declared)
    fields = [f for f in dataclasses.fields(build) if f.init and f.name not in ("parent", "name")]

    def fill(architecture: Any, image_shape: tuple[int, ...]) -> nn.Module:
        own = {f.name: getattr(architecture, f.name) for f in dataclasses.fields(architecture)}
        own["image_shape"] = image_shape
        for f in fields:
            needed = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
            if needed and f.name not in own:
                raise BadInput(f"{kind}={name!r}: its field {f.name!r} has no default and is none of a member. Give it a default.")
        return build(**{f.name: own[f.name] for f in fields if f.name in own})

    used = tuple(f.name for f in fields)
    return Part(build=fill, uses=used, source=references.source(build), **declared)


@functools.cache
def _own(kind: str, reference: str) -> Part:
    return of_class(kind, reference, references.load(kind, reference))


register_encoder = functools.partial(register, "encoder")
register_decoder = functools.partial(register, "decoder")
register_prior = functools.partial(register, "prior")
