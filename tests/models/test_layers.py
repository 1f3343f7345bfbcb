"""The convolution against XLA's own, batched in every way a population batches it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from jax import lax
from jax.test_util import check_grads

from rd_elbo.errors import BadInput
from rd_elbo.models.geometry import same_padding
from rd_elbo.models.layers import GatedConv, GatedConvTranspose, GatedDense, gate, in_dtype_of
from rd_elbo.models.lowering import LOWERINGS, lowering
from rd_elbo.models.vmap_conv import conv, conv_transpose
from tests.drawn import random_params

GEOMETRIES = {
    "same 5x5": dict(size=(7, 6), kernel=(5, 5), padding=((2, 2), (2, 2)), strides=(1, 1)),
    "causal crop": dict(size=(6, 5), kernel=(3, 5), padding=((2, 0), (2, 2)), strides=(1, 1)),
    "valid patch": dict(size=(3, 5), kernel=(3, 5), padding=((0, 0), (0, 0)), strides=(1, 1)),
    "stride 2, even": dict(size=(8, 8), kernel=(5, 5), padding=((1, 2), (1, 2)), strides=(2, 2)),
    "stride 2, rows unused": dict(
        size=(8, 7), kernel=(3, 2), padding=((0, 0), (0, 0)), strides=(2, 3)
    ),
    "whole image": dict(size=(7, 7), kernel=(7, 7), padding=((0, 0), (0, 0)), strides=(1, 1)),
    "stride 2, whole kernel in the padding": dict(
        size=(3, 3), kernel=(5, 5), padding=((2, 2), (2, 2)), strides=(2, 2)
    ),
    "more taken than given": dict(
        size=(6, 5), kernel=(2, 3), padding=((2, -1), (1, 1)), strides=(1, 1)
    ),
    "1x1": dict(size=(4, 4), kernel=(1, 1), padding=((0, 0), (0, 0)), strides=(1, 1)),
}


def assert_equal(ours, theirs):
    """But for the rounding of float64."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-11, 1e-11), ours, theirs)


def plain(x, w, padding, strides):
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=layout)


def twice(plain_or_ours):
    """A convolution, and the transposed convolution of its result by the same filter."""

    def function(x, w, padding, strides):
        if plain_or_ours is conv:
            y = conv(x, w, padding, strides)
            return y, conv_transpose(jnp.cos(y), w, x.shape[1:3], padding, strides)
        y = plain(x, w, padding, strides)
        transposed = jax.linear_transpose(lambda images: plain(images, w, padding, strides), x)
        return y, transposed(jnp.cos(y))[0]

    return function


def draw(geometry, members=None, dtype=jnp.float64):
    lead, random = () if members is None else (members,), np.random.RandomState(0)
    x = random.normal(size=(*lead, 2, *geometry["size"], 3)).astype(dtype)
    w = random.normal(size=(*lead, *geometry["kernel"], 3, 4)).astype(dtype)
    return x, w, geometry["padding"], geometry["strides"]


def normal(seed, *shape):
    """Normal numbers, in the type that JAX has at the moment."""
    return jnp.asarray(np.random.RandomState(seed).normal(size=shape))


def gradients(function, padding, strides):
    def loss(x, w):
        return sum(jnp.sum(jnp.sin(part)) for part in twice(function)(x, w, padding, strides))

    return jax.value_and_grad(loss, (0, 1))


@pytest.mark.parametrize(
    "name", ["same 5x5", "stride 2, even", "whole image", "more taken than given"]
)
def test_values_and_gradients_are_those_of_xla(optimised, name):
    """In float32 and compiled as for users: by the library calls that they get."""
    x, w, padding, strides = draw(GEOMETRIES[name], dtype=jnp.float32)
    both = [gradients(function, padding, strides) for function in (conv, plain)]
    ours, theirs = jax.jit(lambda x, w: [function(x, w) for function in both])(x, w)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=3e-4), ours, theirs)


def test_gradients_are_those_of_finite_differences(x64):
    x, w, padding, strides = draw(GEOMETRIES["stride 2, even"])
    function = jax.jit(lambda x, w: twice(conv)(x, w, padding, strides))
    check_grads(function, (x, w), order=1, modes=["rev"])


@pytest.mark.parametrize(
    ("size", "kernel", "strides"),
    [((28, 28), (5, 5), (2, 2)), ((7, 6), (4, 4), (1, 1)), ((9, 8), (2, 5), (3, 1))],
)
def test_same_padding_is_that_of_lax(x64, size, kernel, strides):
    """And both directions are XLA's own convolutions with padding SAME."""
    padding = same_padding(size, kernel, strides)
    x, w, _, _ = draw(dict(size=size, kernel=kernel, padding=padding, strides=strides))
    divides = all(n % s == 0 for n, s in zip(size, strides, strict=True))

    @jax.jit
    def both(x, w):
        ours, theirs = [y := conv(x, w, padding, strides)], [plain(x, w, "SAME", strides)]
        if divides:
            ours.append(conv_transpose(y, w, size, padding, strides))
            theirs.append(lax.conv_transpose(y, w, strides, "SAME", transpose_kernel=True))
        return ours, theirs

    ours, theirs = both(x, w)
    assert_equal(ours, theirs)


SHARED = [
    (name, axes)
    for name in ("same 5x5", "stride 2, even", "more taken than given")
    for axes in ((0, None), (None, 0))
]


@pytest.mark.parametrize(("name", "axes"), [*((name, (0, 0)) for name in GEOMETRIES), *SHARED])
def test_vmap_over_members_equals_a_loop(x64, name, axes):
    x, w, padding, strides = draw(GEOMETRIES[name], members=3)
    x, w = x if axes[0] == 0 else x[0], w if axes[1] == 0 else w[0]
    together = jax.jit(jax.vmap(gradients(conv, padding, strides), axes))(x, w)
    pick = lambda a, axis, i: a[i] if axis == 0 else a  # noqa: E731
    one = jax.jit(gradients(plain, padding, strides))
    alone = [one(pick(x, axes[0], i), pick(w, axes[1], i)) for i in range(3)]
    alone = jax.tree.map(lambda *parts: np.stack(parts), *alone)
    assert_equal(together, alone)


@pytest.mark.parametrize("axes", [(0, 0), (0, None)])
def test_the_form_for_other_platforms_computes_the_same(x64, axes):
    """On GPU and TPU the grouped convolution is used; its code path, run here."""
    x, w, padding, strides = draw(dict(GEOMETRIES["stride 2, even"], size=(8, 10)), members=3)
    w = w if axes[1] == 0 else w[0]
    with lowering("auto", platform="gpu"):
        lowered = jax.jit(jax.vmap(gradients(conv, padding, strides), axes)).lower(x, w)
    assert "feature_group_count = 3" in lowered.as_text()
    one = jax.jit(gradients(plain, padding, strides))
    alone = [one(x[i], w[i] if axes[1] == 0 else w) for i in range(3)]
    alone = jax.tree.map(lambda *parts: np.stack(parts), *alone)
    together = lowered.compile()(x, w)
    assert_equal(together, alone)


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
    with pytest.raises(ValueError, match="2 channels but the kernel takes 3"):
        conv_transpose(jnp.zeros((1, 5, 5, 2)), jnp.zeros((5, 5, 1, 3)), (9, 9))
    sentence = r"kernel of size 5, stride 1 and padding \(0, 0\) does not take 8 pixels to 5"
    with pytest.raises(ValueError, match=sentence):
        conv_transpose(jnp.zeros((1, 5, 5, 3)), jnp.zeros((5, 5, 1, 3)), (8, 9))


def test_gated_dense_is_the_papers_formula(x64):
    x, random = normal(1, 4, 3), random_params(GatedDense(5), jnp.zeros((4, 3)))["params"]
    w, b = (np.asarray(random[name], float) for name in ("kernel", "bias"))
    by_hand = (x @ w[:, 0] + b[0]) * scipy.special.expit(x @ w[:, 1] + b[1])
    np.testing.assert_allclose(GatedDense(5).apply({"params": random}, x), by_hand, rtol=1e-6)
    # Each half starts with variance 1/inputs, as if it stood alone.
    wide = GatedDense(2000).init(jax.random.key(0), jnp.zeros((1, 50)))["params"]["kernel"]
    np.testing.assert_allclose(np.var(wide, axis=(0, 2)), 1 / 50, rtol=0.03)


@pytest.mark.parametrize("same", [True, False])
def test_gated_convolutions_are_the_papers_formula(same):
    x, down = normal(1, 2, 8, 8, 3), GatedConv(4, (5, 5), (2, 2), same)

    @jax.jit
    def downwards(params, x):
        kernel, bias = params["params"]["kernel"], params["params"]["bias"]
        half = lambda i: plain(x, kernel[..., i, :], "SAME" if same else "VALID", (2, 2)) + bias[i]  # noqa: E731
        return down.apply(params, x), half(0) * nn.sigmoid(half(1))

    np.testing.assert_allclose(*downwards(random_params(down, x), x), rtol=1e-4, atol=1e-5)

    z = normal(3, 2, 4, 4, 3) if same else normal(3, 2, 1, 1, 3)
    up = GatedConvTranspose(4, (8, 8), (8, 8), same=False)
    if same:
        up = GatedConvTranspose(4, (5, 5), (8, 8), (2, 2))
    padding, strides = ("SAME", (2, 2)) if same else ("VALID", (1, 1))

    @jax.jit
    def upwards(params, z):
        kernel, bias = params["params"]["kernel"], params["params"]["bias"]

        def half(i):
            twin = kernel[..., i, :].swapaxes(2, 3)
            return lax.conv_transpose(z, twin, strides, padding, transpose_kernel=True) + bias[i]

        return up.apply(params, z), half(0) * nn.sigmoid(half(1))

    np.testing.assert_allclose(*upwards(random_params(up, z), z), rtol=1e-4, atol=1e-5)


def test_gated_convolutions_start_with_the_variance_of_their_inputs():
    """Each half, in the middle of the image, where no filter sees the frame."""
    x = normal(1, 4, 14, 14, 30)
    for module in (
        GatedConv(50, (5, 5)),
        GatedConvTranspose(50, (5, 5), (14, 14)),
        GatedConvTranspose(50, (5, 5), (28, 28), (2, 2)),
        GatedConvTranspose(50, (3, 3), (3, 3), same=False),
    ):
        images = x[:, :1, :1] if isinstance(module, GatedConvTranspose) and not module.same else x

        @jax.jit
        def linear_part(images, module=module):
            params = module.init(jax.random.key(0), images)["params"]
            # With a gate of one half everywhere the result is half the linear part.
            params["kernel"] = params["kernel"].at[..., 1, :].set(0)
            return 2 * module.apply({"params": params}, images)

        linear = np.asarray(linear_part(images))
        inner = linear if linear.shape[1] < 6 else linear[:, 3:-3, 3:-3]
        np.testing.assert_allclose(inner.var(), 1.0, rtol=0.2)


def test_a_unit_without_weights_is_silent_and_has_no_gradient(x64):
    """Zero padding's ground: a gated unit of zero weights, in and out, gets no gradient."""
    x, kernel, readout = normal(0, 6, 3), np.zeros((3, 2, 2)), np.array([1.3, 0.0])
    kernel[:, :, 0] = normal(1, 3, 2)

    def loss(kernel, readout):
        return jnp.sum((gate(jnp.einsum("ni,igu->ngu", x, kernel)) @ readout) ** 2)

    of_kernel, of_readout = map(np.asarray, jax.jit(jax.grad(loss, (0, 1)))(kernel, readout))
    assert (of_kernel[:, :, 1] == 0).all() and of_readout[1] == 0
    assert (of_kernel[:, :, 0] != 0).all() and of_readout[0] != 0


def test_only_a_single_pixel_is_painted_by_a_filter_of_the_whole_size():
    module = GatedConvTranspose(2, (5, 5), (10, 10), same=False)
    sentence = (
        r"kernel=\(5, 5\): expected size=\(10, 10\) and images of \(1, 1\) pixel .* got .*\(6, 6\)"
    )
    with pytest.raises(ValueError, match=sentence):
        module.init(jax.random.key(0), jnp.zeros((1, 6, 6, 2)))


@pytest.mark.parametrize("how", [how for how in LOWERINGS if how != "auto"])
@pytest.mark.parametrize("name", ["same 5x5", "stride 2, even", "more taken than given"])
def test_every_lowering_is_the_same_convolution(x64, name, how):
    """Values and gradients of three members, both filtered and shared images among them."""
    x, w, padding, strides = draw(GEOMETRIES[name], 3)

    def both(function):
        gradient = gradients(function, padding, strides)
        own, shared = (jax.vmap(gradient, axes) for axes in ((0, 0), (None, 0)))
        return jax.jit(lambda x, w: [own(x, w), shared(x[0], w)])(x, w)

    theirs = both(plain)
    with lowering(how):
        ours = both(conv)
    assert_equal(ours, theirs)


def test_lowerings_are_what_they_say(x64):
    """One grouped convolution; or a loop, or products of matrices, and none."""
    x, w, padding, strides = draw(GEOMETRIES["same 5x5"], 3)
    text = {}
    for how in ("grouped", "looped", "matmul"):
        with lowering(how):
            together = jax.jit(jax.vmap(lambda x, w: conv(x, w, padding, strides)))
            text[how] = together.lower(x, w).as_text()
    assert "feature_group_count = 3" in text["grouped"] and "while" not in text["grouped"]
    assert "while" in text["looped"] and "feature_group_count = 3" not in text["looped"]
    assert "dot_general" in text["matmul"] and "convolution" not in text["matmul"]


def test_an_unknown_lowering_is_refused():
    with pytest.raises(BadInput, match="lowering='fast'"), lowering("fast"):
        pass


@pytest.mark.parametrize("kind", ["dense", "conv", "transpose"])
def test_layers_compute_in_the_dtype_of_their_input_and_have_gradients_of_their_own(kind):
    """A bias's gradient sums 10^4 numbers: in bfloat16 it would stop growing."""
    layer = {
        "dense": GatedDense(4),
        "conv": GatedConv(4, (3, 3)),
        "transpose": GatedConvTranspose(4, (3, 3), (10, 10)),
    }[kind]
    x = normal(0, 100, 10, 10, 3)
    params = random_params(layer, x)
    sums = jax.jit(jax.grad(lambda params, x: layer.apply(params, x).astype(jnp.float32).sum()))
    exact, coarse = sums(params, x), sums(params, x.astype(jnp.bfloat16))
    assert layer.apply(params, x.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    for ours, theirs in zip(jax.tree.leaves(coarse), jax.tree.leaves(exact), strict=True):
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(ours, theirs, atol=0.01 * np.abs(theirs).max())
    # Whole numbers are numbers, not a precision to round kernels to.
    kernel = params["params"]["kernel"]
    assert in_dtype_of(jnp.ones(3, int), kernel) is kernel


def test_gated_dense_is_two_matrix_products(x64):
    layer, x = GatedDense(4), normal(0, 2, 5, 3)
    params = random_params(layer, x)
    leaves = params["params"]
    kernel, bias = (np.asarray(leaves[name], np.float64) for name in ("kernel", "bias"))
    linear, gating = (np.asarray(x) @ kernel[:, half] + bias[half] for half in (0, 1))
    np.testing.assert_allclose(layer.apply(params, x), linear / (1 + np.exp(-gating)), rtol=1e-6)
