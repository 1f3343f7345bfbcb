"""Where the members' axis lies while a population computes.

A population puts members on the leading axis. For models of a few hundred numbers that is slow on a
CPU: sums and softmaxes over short trailing axes leave its vector units empty. With members on the
trailing axis every operation is the same instruction for neighbouring members. `members_last` does
so inside one function, and everything outside just vmaps.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jaxtyping import Array

Arrays = tuple[Array, ...]


def members_last(fun: Callable[..., Arrays]) -> Callable[..., Arrays]:
    """Make a function that `jax.vmap` runs with members on the trailing axis.

    Args:
      fun: Function from arrays with a trailing axis of members to a tuple of such arrays. It treats
        members alike and apart, as element-wise operations and reductions over other axes do.

    Returns:
      A function of arrays of one member, without that axis. Its gradient vmaps in the same way.
      Differentiable once, in reverse mode.
    """

    @_trailing
    def forward(args: Arrays) -> tuple[Arrays, Arrays]:
        # The gradient starts from these transposed arguments: the compiler finds all that it has in
        # common with the function.
        args = lax.optimization_barrier(args)
        return fun(*args), args

    @_trailing
    def backward(args_cotangents: tuple[Arrays, Arrays]) -> Arrays:
        args, cotangents = args_cotangents
        return jax.vjp(fun, *args)[1](cotangents)

    @jax.custom_vjp
    def apply(*args: Array) -> Arrays:
        return forward(args)[0]

    apply.defvjp(lambda *args: forward(args), lambda args, cotangents: backward((args, cotangents)))
    return apply


def _trailing(fun: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Turn `fun` of arrays with a trailing axis into a function of arrays without it.

    A batching rule supplies the axis.
    """

    @custom_vmap
    def member_wise(tree: Any) -> Any:
        return jax.tree.map(lambda a: a[..., 0], fun(jax.tree.map(lambda a: a[..., None], tree)))

    @member_wise.def_vmap
    def rule(size: int, in_batched: list[Any], tree: Any) -> tuple[Any, Any]:
        def to_last(a: Array, batched: bool) -> Array:
            if batched:
                return jnp.moveaxis(a, 0, -1)
            # Shared arrays are repeated: their gradient is one per member, to be summed outside.
            return jnp.broadcast_to(a[..., None], (*a.shape, size))

        out = fun(jax.tree.map(to_last, tree, in_batched[0]))
        leading = jax.tree.map(lambda a: jnp.moveaxis(a, -1, 0), out)
        return leading, jax.tree.map(lambda _: True, out)

    return member_wise
