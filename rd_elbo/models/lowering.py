"""The lowering of convolutions that have a kernel per member.

Under `jax.vmap` such a convolution can become one grouped convolution, a loop over members, or a
matrix product. `lowering` chooses the form for a whole program; `vmap_by_member` carries it out.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator

import jax
from jax import lax
from jax.custom_batching import custom_vmap
from jaxtyping import Array

from rd_elbo.errors import choice

# "auto" is the form that measured fastest on the platform at hand.
LOWERINGS = ("auto", "grouped", "looped", "matmul")

_chosen: contextvars.ContextVar[tuple[str, str | None]] = contextvars.ContextVar(
    "lowering", default=("auto", None)
)


@contextlib.contextmanager
def lowering(name: str, platform: str | None = None) -> Iterator[None]:
    """Lower the convolutions that are traced inside in one form.

    | name | form |
    |---|---|
    | "grouped" | one grouped convolution of all members |
    | "looped" | one convolution after another |
    | "matmul" | patches of the images times kernels, one batched matrix product of all members |
    | "auto" | "looped" on CPU, "grouped" elsewhere |

    Args:
      name: Name of the form.
      platform: Platform that the program is for, such as "cpu"; None means JAX's default backend.

    Raises:
      BadInput: If there is no such form.
    """
    choice("lowering", name, LOWERINGS)
    token = _chosen.set((name, platform))
    try:
        yield
    finally:
        _chosen.reset(token)


def chosen() -> tuple[str, bool]:
    """The name of the lowering in force, and whether the program is for CPU."""
    # `lax.platform_dependent` would trace every form.
    name, platform = _chosen.get()
    return name, (platform or jax.default_backend()) == "cpu"


def vmap_by_member(
    one: Callable[..., Array], grouped: Callable[..., Array], *, loop: bool
) -> Callable[..., Array]:
    """Give the function `one` a batching rule.

    Args:
      one: Function of the arrays of one member.
      grouped: Function that computes the same and batches well.
      loop: Whether `jax.vmap` loops `one` over members; otherwise it batches `grouped`.

    Returns:
      The function `one` with that rule, at every depth of nested vmaps.
    """

    @custom_vmap
    def member_wise(*args: Array) -> Array:
        return one(*args)

    @member_wise.def_vmap
    def rule(_: int, in_batched: list[bool], *args: Array) -> tuple[Array, bool]:
        if not loop:
            axes = tuple(0 if batched else None for batched in in_batched)
            return jax.vmap(grouped, axes)(*args), True
        pairs = list(zip(args, in_batched, strict=True))

        def of_member(own: list[Array]) -> Array:
            rest = iter(own)
            # member_wise itself: a second vmap around this one then loops as well.
            return member_wise(*[next(rest) if batched else a for a, batched in pairs])

        return lax.map(of_member, [a for a, batched in pairs if batched]), True

    return member_wise
