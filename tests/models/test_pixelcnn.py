"""The autoregressive decoder is a distribution: causal, normalised, sampled as it is scored."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from rd_elbo.models.pixelcnn import PixelCNNDecoder, PixelVAEDecoder, causal_mask
from rd_elbo.models.pixelcnnpp import PixelCNNPPDecoder, nodes
from tests.drawn import random_params

KINDS = {
    "pixelcnn": lambda width, depth, shape: PixelCNNDecoder(width, depth, shape, planes=2),
    "pixelcnnpp": PixelCNNPPDecoder,
    "pixelcnnpp, z in every layer": functools.partial(PixelCNNPPDecoder, z_in_every_layer=True),
    "pixelvae": lambda width, depth, shape: PixelVAEDecoder(width, 1, depth, shape),
    "pixelvae, resnet": lambda width, depth, shape: PixelVAEDecoder(
        width, 1, depth, shape, trunk="resnet"
    ),
}


# Without z in every layer PixelCNN++ has only less to compile, and to go wrong; either takes long.
SLOW = pytest.param("pixelcnnpp, z in every layer", marks=pytest.mark.slow)
MOST = ["pixelcnn", "pixelvae", "pixelvae, resnet", SLOW]


def decoder(shape, width=3, depth=1, latent=2, batch=1, kind="pixelcnn", noise=None):
    """A decoder with random biases too, so that nothing is hidden by a zero, and z for it."""
    module = KINDS[kind](width, depth, shape)
    z = jnp.asarray(np.random.RandomState(7).normal(size=(batch, latent)))
    # Larger ones saturate the gates of the deep ones, and hide in exact zeros what looks where.
    scale = noise or (0.8 if kind in ("pixelcnn", "pixelvae") else 0.4)
    return module, random_params(module, z, scale=scale), z


def uniform(*shape, seed=3):
    """Numbers between 0 and 1."""
    return jnp.asarray(np.random.RandomState(seed).uniform(size=shape))


def rows_of_jacobian(function, at, count):
    """Gradients of all results of one example: result i by copy i of a batch of copies."""
    copies = jnp.asarray(np.repeat(at, count, 0))
    gradient = jax.jit(jax.grad(lambda copies: jnp.trace(function(copies).reshape(count, count))))
    return np.asarray(gradient(copies)).reshape(count, -1)


@pytest.mark.parametrize("kind", MOST)
def test_every_pixel_depends_on_those_before_it_alone(kind):
    shape = (8, 7)
    module, params, z = decoder(shape, depth=2 if "pixelcnnpp" in kind else 3, kind=kind)
    x = uniform(1, *shape)
    jacobian = rows_of_jacobian(
        lambda x: module.apply(params, np.repeat(z, 56, 0)).outputs(x), x, 56
    )
    row, column = np.divmod(np.arange(56), 7)
    assert (np.triu(np.abs(jacobian)) == 0).all()
    # It sees what it may: its left neighbour, the pixel above, and that above to the right.
    for down, right in ((0, -1), (-1, 0), (-1, 1), (-2, 2)):
        for i in range(56):
            r, c = row[i] + down, column[i] + right
            if 0 <= r < 8 and 0 <= c < 7:
                assert jacobian[i, r * 7 + c] != 0
    if "pixelcnnpp" in kind:
        # At this size and depth its streams see all of the past.
        assert (jacobian[np.tril_indices(56, -1)] != 0).all()


@pytest.mark.parametrize("kind", MOST[:2])
def test_causality_at_full_size_on_random_pixels(kind):
    module, params, z = decoder((28, 28), kind=kind)
    x = uniform(1, 28, 28)
    logit = jax.jit(jax.grad(lambda x, i: module.apply(params, z).outputs(x).ravel()[i]))
    for pixel in np.random.RandomState(0).choice(784, 12, replace=False):
        gradient = np.asarray(logit(x, pixel)).ravel()
        assert (gradient[pixel:] == 0).all()
        assert (gradient[max(pixel - 1, 0) : pixel] != 0).all() or pixel % 28 == 0


@pytest.mark.parametrize("kind", MOST)
def test_z_reaches_every_pixel(kind):
    module, params, z = decoder((5, 4), kind=kind)
    images = jnp.zeros((20, 5, 4))
    jacobian = rows_of_jacobian(lambda z: module.apply(params, z).outputs(images), z, 20)
    assert (np.abs(jacobian) > 0).all()


@pytest.mark.slow
def test_z_reaches_every_residual_layer_of_pixelcnnpp():
    """Gradients at z alone: no linear map is forgotten or reads another size's planes."""
    module, params, z = decoder((8, 8), depth=1, kind="pixelcnnpp, z in every layer", batch=3)
    x = (uniform(3, 8, 8) < 0.4).astype(jnp.float32)
    gradient = jax.jit(jax.grad(lambda p: module.apply(p, z).log_prob(x).sum()))(params)["params"]
    maps = {name: leaf for name, leaf in gradient.items() if name.endswith("_planes")}
    assert len(maps) == sum(node.residual is not None for node in nodes(1)) == 12
    assert all((np.abs(leaf).max((1, 2)) > 0).all() for leaf in maps.values())
    off = module.clone(z_in_every_layer=False)
    plain = off.init(jax.random.key(0), z)["params"]
    assert {*plain} == {*gradient} - {*maps} - {"planes"}


@pytest.mark.parametrize("kind", MOST)
def test_a_decoder_of_bfloat16_latents_draws_and_scores_in_float32(kind):
    """Logits, log-densities and uniforms are not bfloat16: 1 in 256 draws would tie."""
    module, params, z = decoder((5, 4), kind=kind, batch=2, noise=0.3)
    planes = jax.eval_shape(lambda: module.apply(params, z.astype(jnp.bfloat16)).planes)
    assert planes.dtype == jnp.bfloat16

    @jax.jit
    def scored():
        fine, coarse = module.apply(params, z), module.apply(params, z.astype(jnp.bfloat16))
        x = coarse.sample(seed=jax.random.key(2), sample_shape=3)
        return x, coarse.log_prob(x), coarse.outputs(x), fine.log_prob(x.astype(jnp.float32))

    x, log_prob, logits, exact = scored()
    assert set(np.unique(x.astype(jnp.float32))) <= {0.0, 1.0}
    assert log_prob.dtype == jnp.float32
    np.testing.assert_allclose(log_prob, exact, atol=0.3)
    drawn = jax.random.uniform(jax.random.key(2), (20, 6)).T.reshape(3, 2, 5, 4)
    np.testing.assert_array_equal(x == 1, drawn < jax.nn.sigmoid(logits))


def test_mask_counts():
    assert causal_mask(includes_centre=False).sum() == 12
    assert causal_mask(includes_centre=True).sum() == 13


@pytest.mark.parametrize("kind", MOST)
def test_probabilities_of_all_images_sum_to_one(x64, kind):
    shape = (3, 4)
    module, params, z = decoder(shape, batch=3, kind=kind)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
    images = np.asarray(list(itertools.product((0.0, 1.0), repeat=12))).reshape(-1, 1, *shape)
    log_prob = jax.jit(lambda x: module.apply(params, z.astype(jnp.float64)).log_prob(x))(images)
    assert log_prob.shape == (4096, 3)
    np.testing.assert_allclose(scipy.special.logsumexp(log_prob, axis=0), 0.0, atol=1e-12)


SAMPLED = [
    ("pixelcnn", 2, (6, 5)),
    ("pixelvae", 2, (6, 5)),
    ("pixelvae, resnet", 2, (6, 5)),
    pytest.param("pixelcnnpp, z in every layer", 2, (8, 7), marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("kind", "depth", "shape"), SAMPLED)
def test_samples_follow_the_scored_conditionals(kind, depth, shape):
    """With its uniforms known, a draw is 1 just where the parallel pass exceeds them."""
    n, pixels = 4, shape[0] * shape[1]
    module, params, z = decoder(shape, batch=3, depth=depth, kind=kind)
    key = jax.random.key(5)
    x = jax.jit(lambda key: module.apply(params, z).sample(seed=key, sample_shape=n))(key)
    assert x.shape == (n, 3, *shape)
    assert set(np.unique(x)) == {0.0, 1.0}
    drawn = jax.random.uniform(key, (pixels, n * 3)).T.reshape(n, 3, *shape)
    probability = jax.jit(lambda x: jax.nn.sigmoid(module.apply(params, z).outputs(x)))(x)
    np.testing.assert_array_equal(x, (drawn < probability).astype(x.dtype))
    assert 0.2 < x.mean() < 0.8 and probability.std() > 0.1


@pytest.mark.parametrize("kind", MOST[:2])
def test_frequencies_of_samples_are_their_probabilities(kind):
    shape = (2, 2)
    module, params, z = decoder(shape, kind=kind)
    draws = 20_000
    options = {"seed": jax.random.key(11), "sample_shape": draws}
    x = jax.jit(lambda: module.apply(params, z).sample(**options))().reshape(draws, 4)
    counts = np.bincount(np.asarray(x @ jnp.array([8, 4, 2, 1])).astype(int), minlength=16)
    images = jnp.asarray(list(itertools.product((0.0, 1.0), repeat=4))).reshape(16, 1, 2, 2)
    log_prob = jax.jit(lambda: module.apply(params, z).log_prob(images))()
    expected = draws * np.exp(np.asarray(log_prob))[:, 0]
    chi_square = ((counts - expected) ** 2 / expected).sum()
    # The 99.9 % point of chi-square with 15 degrees of freedom; the key is fixed.
    assert chi_square < 37.7


def test_distribution_works_outside_the_call_that_made_it():
    module, params, z = decoder((4, 4), batch=2)
    distribution = jax.jit(module.apply)(params, z)
    x = uniform(2, 4, 4) < 0.5
    inside = jax.jit(lambda x: module.apply(params, z).log_prob(x))(x)
    outside = jax.jit(lambda distribution, x: distribution.log_prob(x))(distribution, x)
    np.testing.assert_allclose(outside, inside, rtol=1e-5)
    assert distribution.event_shape == (4, 4) and distribution.batch_shape == (2,)


@pytest.mark.parametrize("depth", [1, 3])
def test_parameter_count(depth):
    module = KINDS["pixelcnn"](12, depth, (28, 28))
    params = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32)))
    planes, first = 32 * 784 * 2 + 784 * 2, 15 * 1 * 2 * 12 + 2 * 12 + 2 * 2 * 12
    block, readout = 15 * 12 * 2 * 12 + 2 * 12 + 2 * 2 * 12, 12 + 2 + 1
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert count == planes + first + depth * block + readout


def test_parameter_count_of_pixelvae_at_full_size():
    module = PixelVAEDecoder(32, 2, 3, (28, 28))
    params = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 64)))
    gated = lambda taps, inputs, units: 2 * (taps * inputs * units + units)  # noqa: E731
    trunk = gated(49, 64, 64) + 2 * gated(25, 64, 64) + gated(25, 64, 32)
    trunk += gated(25, 32, 32) + gated(16, 32, 32)
    causal = gated(15, 1, 32) + 3 * gated(15, 32, 32) + 4 * 2 * 32 * 32 + 32 + 32 + 1
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == trunk + causal == 1_099_585


def test_parameter_count_of_pixelvae_with_a_residual_trunk():
    module = PixelVAEDecoder(8, 2, 3, (28, 28), trunk="resnet")
    params = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 64)))
    gated = lambda taps, inputs, units: 2 * (taps * inputs * units + units)  # noqa: E731
    trunk = gated(49, 64, 32) + gated(16, 32, 16) + gated(16, 16, 8)
    trunk += 2 * sum(gated(9, channels, channels) for channels in (32, 16, 8))
    causal = gated(15, 1, 8) + 3 * gated(15, 8, 8) + 4 * 2 * 8 * 8 + 8 + 8 + 1
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == trunk + causal


def test_the_blocks_of_pixelcnnpp_and_their_shortcuts():
    """Six blocks at 28, 14, 7, 7, 14, 28; shortcuts join equal sizes, latest first."""
    network = nodes(2)
    layers = [node for node in network if node.residual is not None]
    for stream in ("down", "right"):
        levels = [node.level for node in layers if node.stream == stream]
        assert levels == [0, 0, 1, 1, 2, 2, 2, 2, 1, 1, 0, 0]
    kinds = [node.kind for node in network]
    assert kinds.count("shrink") == kinds.count("grow") == 4
    for node in network:
        for other in (*node.besides, *(() if node.residual is None else (node.residual,))):
            assert network[other].level == node.level
        if node.stream == "down":
            # Nothing of the right stream flows back.
            assert all(network[i].stream == "down" for i in (node.source, *node.besides) if i >= 0)
    middles = [
        i
        for i, node in enumerate(network)
        if node.kind == "gated" and node.residual is None and node.stream == "down"
    ]
    into = [network[i].besides for i in middles[6:]]
    outputs = [
        i
        for i, node in enumerate(network)
        if (node.stream == "down" and node.kind != "gated") or node.residual is not None
    ]
    down = [i for i in outputs if network[i].stream == "down"]
    # Of (input, first, second layer) on the way down: at 7 the first and the input, at 14 and 28
    # the second and first.
    assert into == [(down[7],), (down[6],), (down[5],), (down[4],), (down[2],), (down[1],)]


def test_parameter_count_of_pixelcnnpp_at_full_size():
    module = PixelCNNPPDecoder(64, 2, (28, 28))
    params = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 64)))
    plane = 2 * (64 * 784 + 784)
    first = 2 * (6 * 3 * 64 + 64)
    gated = lambda taps: 2 * (taps * 64 * 64 + 64)  # noqa: E731
    # Twelve layers of two filters in each stream; beside them the down stream into the right, and
    # shortcuts into half of both.
    layers = 12 * 2 * (gated(6) + gated(4)) + (12 + 6 + 6) * 2 * 64 * 64
    resizing = 2 * (6 * 64 * 64 + 64) + 2 * (4 * 64 * 64 + 64) + 4 * (4 * 64 * 64 + 64)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert count == plane + first + layers + resizing + 64 + 1 == 2_421_217
    init = module.clone(z_in_every_layer=True).init
    told = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 64)))
    planes = (64 + 1) * 784 * 4 + 24 * 4 * 2 * 64
    assert sum(leaf.size for leaf in jax.tree.leaves(told)) == count + planes
