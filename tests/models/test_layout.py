"""A function with its members on the trailing axis is the same function, whatever is done to it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rd_elbo.models.layout import members_last


def plain(a, b):
    """Of (n,) and (k, n): a (k,) and a scalar."""
    table = jnp.exp(-((a[None] - b) ** 2))
    return (table * jax.nn.softmax(b, axis=1)).sum(1), jnp.sin(a).sum()


@members_last
def trailing(a, b):
    """`plain`, with a trailing axis on everything."""
    table = jnp.exp(-((a[None] - b) ** 2))
    return (table * jax.nn.softmax(b, axis=1)).sum(1), jnp.sin(a).sum(0)


def scalar(function):
    def loss(a, b):
        first, second = function(a, b)
        return (first * jnp.arange(1, 4)).sum() + second**2

    return loss


A = np.random.default_rng(0).standard_normal((6, 5))
B = np.random.default_rng(1).standard_normal((6, 3, 5))


def same(x, y):
    jax.tree.map(lambda u, v: np.testing.assert_allclose(u, v, rtol=1e-12), x, y)


@pytest.mark.parametrize("axes", [(0, 0), (None, 0), (0, None)])
def test_values_and_gradients_under_vmap(x64, axes):
    args = tuple(value if axis == 0 else value[0] for value, axis in zip((A, B), axes, strict=True))

    @jax.jit
    def all_of(*args):
        several = [], []
        for results, function in zip(several, (trailing, plain), strict=True):
            results.append(jax.vmap(function, axes)(*args))
            results += [jax.vmap(jax.grad(scalar(function), i), axes)(*args) for i in (0, 1)]
        return several

    same(*all_of(*args))


def test_alone(x64):
    same(trailing(A[0], B[0]), plain(A[0], B[0]))
    same(*(jax.grad(scalar(form), (0, 1))(A[0], B[0]) for form in (trailing, plain)))


def test_a_gradient_through_vmap_of_what_members_share_is_summed(x64):
    def total(function):
        return jax.grad(lambda a: jax.vmap(scalar(function), (None, 0))(a, B).sum())

    same(total(trailing)(A[0]), total(plain)(A[0]))


def test_nested_vmap_and_loops(x64):
    stacked = np.stack([A, A + 1])

    @jax.jit
    def both(stacked, a, b):
        nested = [jax.vmap(jax.vmap(f), (0, None))(stacked, b) for f in (trailing, plain)]
        mapped = jax.lax.map(lambda ab: jax.grad(scalar(trailing))(*ab), (a, b), batch_size=4)
        return nested, [mapped, jax.vmap(jax.grad(scalar(plain)))(a, b)]

    nested, mapped = both(stacked, A, B)
    same(*nested)
    same(*mapped)


def test_members_are_on_the_trailing_axis():
    seen = []

    @members_last
    def spy(a):
        seen.append(a.shape)
        return (a.sum(0),)

    jax.vmap(spy)(jnp.zeros((7, 2)))
    assert seen[-1] == (2, 7)
