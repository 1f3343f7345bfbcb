"""The convolution against XLA's own, batched in every way a population batches it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

from rd_elbo.models import layers
from rd_elbo.models.layers import GatedDense, conv, gate

GEOMETRIES = {
    "same 5x5": dict(size=(7, 6), kernel=(5, 5), padding=((2, 2), (2, 2)), strides=(1, 1)),
    "causal crop": dict(size=(6, 5), kernel=(3, 5), padding=((2, 0), (2, 2)), strides=(1, 1)),
    "valid patch": dict(size=(3, 5), kernel=(3, 5), padding=((0, 0), (0, 0)), strides=(1, 1)),
    "stride 2, even": dict(size=(8, 8), kernel=(5, 5), padding=((1, 2), (1, 2)), strides=(2, 2)),
    "stride 2, rows unused": dict(size=(8, 7), kernel=(3, 2), padding=((0, 0), (0, 0)), strides=(2, 3)),
    "1x1": dict(size=(4, 4), kernel=(1, 1), padding=((0, 0), (0, 0)), strides=(1, 1)),
}


def plain(x, w, padding, strides):
    return lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def draw(geometry, members=None, dtype=jnp.float64):
    lead = () if members is None else (members,)
    kx, kw = jax.random.split(jax.random.key(0))
    x = jax.random.normal(kx, (*lead, 2, *geometry["size"], 3), dtype)
    w = jax.random.normal(kw, (*lead, *geometry["kernel"], 3, 4), dtype)
    return x, w, geometry["padding"], geometry["strides"]


def gradients(function, padding, strides):
    return jax.value_and_grad(lambda x, w: jnp.sum(jnp.sin(function(x, w, padding, strides))), (0, 1))


@pytest.mark.parametrize("name", GEOMETRIES)
def test_values_and_gradients_are_those_of_xla(x64, name):
    x, w, padding, strides = draw(GEOMETRIES[name])
    ours, theirs = gradients(conv, padding, strides)(x, w), gradients(plain, padding, strides)(x, w)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11), ours, theirs)


def test_gradients_are_those_of_finite_differences(x64):
    x, w, padding, strides = draw(GEOMETRIES["stride 2, even"])
    check_grads(jax.jit(lambda x, w: conv(x, w, padding, strides)), (x, w), order=1, modes=["rev"])


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0)])
def test_vmap_over_members_equals_a_loop(x64, name, axes):
    x, w, padding, strides = draw(GEOMETRIES[name], members=3)
    x, w = x if axes[0] == 0 else x[0], w if axes[1] == 0 else w[0]
    together = jax.jit(jax.vmap(gradients(conv, padding, strides), axes))(x, w)
    pick = lambda a, axis, i: a[i] if axis == 0 else a  # noqa: E731
    alone = [gradients(plain, padding, strides)(pick(x, axes[0], i), pick(w, axes[1], i)) for i in range(3)]
    alone = jax.tree.map(lambda *parts: jnp.stack(parts), *alone)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11), together, alone)


@pytest.mark.parametrize("axes", [(0, 0), (0, None)])
def test_the_form_for_other_platforms_computes_the_same(x64, monkeypatch, axes):
    """On GPU and TPU the grouped convolution is used; its code path, run here."""
    monkeypatch.setattr(layers.lax, "platform_dependent", lambda *args, cpu, default: default(*args))
    x, w, padding, strides = draw(dict(GEOMETRIES["stride 2, even"], size=(8, 10)), members=3)
    w = w if axes[1] == 0 else w[0]
    together = jax.vmap(gradients(conv, padding, strides), axes)(x, w)
    alone = [gradients(plain, padding, strides)(x[i], w[i] if axes[1] == 0 else w) for i in range(3)]
    alone = jax.tree.map(lambda *parts: jnp.stack(parts), *alone)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11), together, alone)
    assert (
        "feature_group_count = 3"
        in jax.jit(jax.vmap(gradients(conv, padding, strides)))
        .lower(*draw(dict(GEOMETRIES["stride 2, even"], size=(8, 12)), members=3)[:2])
        .as_text()
    )


def test_vmap_twice_and_inside_scan(x64):
    geometry = GEOMETRIES["causal crop"]
    x, w, padding, strides = draw(geometry, members=6)
    x, w = x.reshape(2, 3, *x.shape[1:]), w.reshape(2, 3, *w.shape[1:])

    def descend(function):
        def one(x, w):
            step = lambda w, _: (w - 0.01 * gradients(function, padding, strides)(x, w)[1][1], None)  # noqa: E731
            return lax.scan(step, w, None, length=3)[0]

        return jax.jit(jax.vmap(jax.vmap(one)))(x, w)

    np.testing.assert_allclose(descend(conv), descend(plain), rtol=1e-10, atol=1e-10)


def test_no_grouped_convolution_is_left_on_cpu():
    x, w, padding, strides = draw(GEOMETRIES["same 5x5"], members=3, dtype=jnp.float32)
    grouped = "feature_group_count = 3"
    lowered = lambda f: jax.jit(jax.vmap(gradients(f, padding, strides))).lower(x, w).as_text()  # noqa: E731
    assert grouped in lowered(plain)  # otherwise this test looks for the wrong words
    assert grouped not in lowered(conv) and "batch_group_count = 3" not in lowered(conv)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="kernel of size 5 does not fit into 3 pixels"):
        conv(jnp.zeros((1, 3, 9, 1)), jnp.zeros((5, 5, 1, 1)))
    with pytest.raises(ValueError, match="2 channels but the kernel takes 3"):
        conv(jnp.zeros((1, 9, 9, 2)), jnp.zeros((5, 5, 3, 1)))


def test_gated_dense_is_the_papers_formula(x64):
    x = jax.random.normal(jax.random.key(1), (4, 3))
    params = GatedDense(5).init(jax.random.key(0), x)
    w1, w2 = params["params"]["kernel"][:, 0], params["params"]["kernel"][:, 1]
    b1, b2 = jnp.arange(5.0), -jnp.arange(5.0)
    params["params"]["bias"] = jnp.stack([b1, b2])
    np.testing.assert_allclose(GatedDense(5).apply(params, x), (x @ w1 + b1) * nn.sigmoid(x @ w2 + b2), rtol=1e-6)
    # Each half starts with variance 1/inputs, as if it stood alone.
    wide = GatedDense(2000).init(jax.random.key(0), jnp.zeros((1, 50)))["params"]["kernel"]
    np.testing.assert_allclose(wide.var(axis=(0, 2)), 1 / 50, rtol=0.03)


def test_a_unit_without_weights_is_silent_and_has_no_gradient(x64):
    """What zero padding stands on: a gated unit of zero weights, not listened to, stays zero under any gradient method."""
    x = jax.random.normal(jax.random.key(0), (6, 3))
    kernel = jnp.zeros((3, 2, 2)).at[:, :, 0].set(jax.random.normal(jax.random.key(1), (3, 2)))
    readout = jnp.array([1.3, 0.0])
    loss = lambda kernel, readout: jnp.sum((gate(jnp.einsum("ni,igu->ngu", x, kernel)) @ readout) ** 2)  # noqa: E731
    of_kernel, of_readout = jax.grad(loss, (0, 1))(kernel, readout)
    assert (of_kernel[:, :, 1] == 0).all() and of_readout[1] == 0
    assert (of_kernel[:, :, 0] != 0).all() and of_readout[0] != 0
