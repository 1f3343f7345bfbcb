"""The autoregressive decoder is a distribution: causal, normalised, and sampled from what it scores."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rd_elbo.models.pixelcnn import PixelCNNDecoder, causal_mask


def decoder(shape, width=3, depth=2, latent=2, batch=1, scale=1.0):
    """A decoder with random biases too, so that nothing is hidden by a zero, and z for it."""
    module = PixelCNNDecoder(width, depth, shape, planes=2)
    z = jax.random.normal(jax.random.key(7), (batch, latent))
    params = module.init(jax.random.key(0), z)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noisy = [leaf + 0.3 * jax.random.normal(key, leaf.shape, leaf.dtype) for leaf, key in zip(leaves, keys, strict=True)]
    params = jax.tree.unflatten(tree, [scale * leaf for leaf in noisy])
    return module, params, z


def test_every_pixel_depends_on_those_before_it_alone():
    shape = (6, 7)
    module, params, z = decoder(shape, depth=3)
    x = jax.random.uniform(jax.random.key(3), (1, *shape))
    jacobian = jax.jacrev(lambda x: module.apply(params, z).logits(x).ravel())(x).reshape(42, 42)
    row, column = np.divmod(np.arange(42), 7)
    assert (np.triu(np.abs(jacobian)) == 0).all()
    # It does look at what it may: its left neighbour, and the pixels right above and above to the right.
    for down, right in ((0, -1), (-1, 0), (-1, 1), (-2, 2)):
        for i in range(42):
            r, c = row[i] + down, column[i] + right
            if 0 <= r < 6 and 0 <= c < 7:
                assert jacobian[i, r * 7 + c] != 0


def test_causality_at_full_size_on_random_pixels():
    module, params, z = decoder((28, 28), width=4)
    x = jax.random.uniform(jax.random.key(3), (1, 28, 28))
    logit = jax.jit(jax.grad(lambda x, i: module.apply(params, z).logits(x).ravel()[i]))
    for pixel in np.random.RandomState(0).choice(784, 12, replace=False):
        gradient = np.asarray(logit(x, pixel)).ravel()
        assert (gradient[pixel:] == 0).all()
        assert (gradient[max(pixel - 1, 0) : pixel] != 0).all() or pixel % 28 == 0


def test_z_reaches_every_pixel():
    module, params, z = decoder((5, 4))
    jacobian = jax.jacrev(lambda z: module.apply(params, z).logits(jnp.zeros((1, 5, 4))).ravel())(z)
    assert (np.abs(jacobian).reshape(20, -1) > 0).all()


def test_mask_counts():
    assert causal_mask(includes_centre=False).sum() == 12
    assert causal_mask(includes_centre=True).sum() == 13


def test_probabilities_of_all_images_sum_to_one(x64):
    shape = (3, 4)
    module, params, z = decoder(shape, batch=3)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
    images = jnp.asarray(list(itertools.product((0.0, 1.0), repeat=12))).reshape(-1, 1, *shape)
    log_prob = module.apply(params, z.astype(jnp.float64)).log_prob(images)
    assert log_prob.shape == (4096, 3)
    np.testing.assert_allclose(jax.scipy.special.logsumexp(log_prob, axis=0), 0.0, atol=1e-12)


def test_samples_follow_the_scored_conditionals():
    """With its own uniforms laid open, a draw is 1 just where the parallel pass gives more than the uniform."""
    shape, n = (6, 5), 4
    module, params, z = decoder(shape, batch=3)
    distribution = module.apply(params, z)
    key = jax.random.key(5)
    x = distribution.sample(seed=key, sample_shape=n)
    assert x.shape == (n, 3, *shape)
    assert set(np.unique(x)) == {0.0, 1.0}
    uniform = jax.random.uniform(key, (30, n * 3)).T.reshape(n, 3, *shape)
    probability = jax.nn.sigmoid(distribution.logits(x))
    np.testing.assert_array_equal(x, (uniform < probability).astype(x.dtype))


def test_frequencies_of_samples_are_their_probabilities():
    shape = (2, 2)
    module, params, z = decoder(shape)
    distribution = module.apply(params, z)
    draws = 20_000
    x = distribution.sample(seed=jax.random.key(11), sample_shape=draws).reshape(draws, 4)
    counts = np.bincount(np.asarray(x @ jnp.array([8, 4, 2, 1])).astype(int), minlength=16)
    images = jnp.asarray(list(itertools.product((0.0, 1.0), repeat=4))).reshape(16, 1, 2, 2)
    expected = draws * np.exp(np.asarray(distribution.log_prob(images)))[:, 0]
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 37.7  # the 99.9 % point of chi-square with 15 degrees of freedom; the key is fixed


def test_distribution_works_outside_the_call_that_made_it():
    module, params, z = decoder((4, 4), batch=2)
    distribution = jax.jit(module.apply)(params, z)
    x = distribution.sample(seed=jax.random.key(0))
    np.testing.assert_allclose(distribution.log_prob(x), module.apply(params, z).log_prob(x), rtol=1e-5)
    assert distribution.event_shape == (4, 4) and distribution.batch_shape == (2,)


@pytest.mark.parametrize("depth", [1, 3])
def test_parameter_count(depth):
    _, params, _ = decoder((28, 28), width=12, depth=depth, latent=32)
    planes, first = 32 * 784 * 2 + 784 * 2, 15 * 1 * 2 * 12 + 2 * 12 + 2 * 2 * 12
    block, readout = 15 * 12 * 2 * 12 + 2 * 12 + 2 * 2 * 12, 12 + 2 + 1
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == planes + first + depth * block + readout
