"""Flows against autodiff, and the densities they make against quadrature and explicit mixtures."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from jax.test_util import check_grads

from rd_elbo import information
from rd_elbo.models import flows
from rd_elbo.models.encoders import DenseEncoder, FlowEncoder
from rd_elbo.models.flows import MADE, AutoregressiveFlow, made_masks
from rd_elbo.models.marginals import FlowMarginal, VampPrior


def stirred(params, scale=0.5, key=9):
    """Random numbers added to all parameters, so that nothing is hidden by a bias of zero or a shift that starts small."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(key), len(leaves))
    noisy = [leaf + scale * jax.random.normal(k, leaf.shape, leaf.dtype) for leaf, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, noisy)


def flow(dimensions, steps=3, width=40, depth=2):
    module = AutoregressiveFlow(dimensions, steps, width, depth)
    return module.apply(stirred(module.init(jax.random.key(0))))


@pytest.mark.parametrize("dimensions", [1, 2, 5])
@pytest.mark.parametrize("depth", [1, 3])
def test_masks_connect_each_output_to_all_inputs_before_it(dimensions, depth):
    masks = made_masks(dimensions, 12, depth)
    assert [mask.shape for mask in masks] == [(dimensions, 12), *[(12, 12)] * (depth - 1), (12, dimensions)]
    paths = np.linalg.multi_dot(masks)
    np.testing.assert_array_equal(paths > 0, np.triu(np.ones((dimensions, dimensions)), 1) > 0)


def test_a_narrow_made_spreads_its_units_over_the_dimensions():
    """With fewer units than dimensions it cannot see all, but its last output sees what lies up to the last degree."""
    paths = np.linalg.multi_dot(made_masks(9, 4, 2)) > 0
    assert not np.tril(paths).any()
    assert paths[:, -1].tolist() == [True] * 7 + [False] * 2  # degrees 1, 3, 5, 7


def test_made_is_causal_by_its_jacobian(x64):
    module, z = MADE(60, 2), jax.random.normal(jax.random.key(1), (6,))
    params = stirred(module.init(jax.random.key(0), z))
    jacobian = np.asarray(jax.jit(jax.jacobian(lambda z: module.apply(params, z)))(z))
    assert (np.triu(jacobian) == 0).all() and (jacobian[np.tril_indices(6, -1)] != 0).all()
    assert jacobian.shape == (6, 6)


def test_made_starts_with_small_shifts_of_the_right_size():
    z = jax.random.normal(jax.random.key(1), (500, 8))
    shifts = MADE(64, 3).apply(MADE(64, 3).init(jax.random.key(0), z), z)
    assert (shifts[:, 0] == 0).all() and 0.1 < shifts[:, 1:].std() < 0.6


@pytest.mark.parametrize("dimensions", [1, 2, 6])
@pytest.mark.parametrize("steps", [1, 4])
def test_log_determinant_and_round_trips(x64, dimensions, steps):
    forward = flow(dimensions, steps)
    for bijector in (forward, distrax.Inverse(forward)):
        z = jax.random.normal(jax.random.key(2), (3, dimensions))
        moved, log_det = jax.jit(bijector.forward_and_log_det)(z)
        jacobian = jax.jit(jax.vmap(jax.jacobian(bijector.forward)))(z)
        np.testing.assert_allclose(np.linalg.slogdet(jacobian)[1], log_det, atol=1e-9)
        back, log_det_back = jax.jit(bijector.inverse_and_log_det)(moved)
        np.testing.assert_allclose(back, z, atol=1e-9)
        np.testing.assert_allclose(log_det_back, -log_det, atol=1e-12)
        assert np.abs(moved - z).max() > 0.1


def test_with_several_steps_every_dimension_moves_and_depends_on_every_other(x64):
    bijector = flow(5, steps=2)
    jacobian = np.asarray(jax.jit(jax.jacobian(bijector.forward))(jnp.arange(5.0)))
    # One step alone leaves half of the pairs untouched; reversing between steps does not.
    assert (jacobian != 0).all()


@pytest.mark.parametrize("way", ["forward", "inverse"])
def test_gradients_go_through_both_directions(x64, way):
    module = AutoregressiveFlow(4, 2, 8, 1)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), stirred(module.init(jax.random.key(0))))
    move = jax.jit(lambda params, z: getattr(module.apply(params), way)(z))
    check_grads(move, (params, jnp.arange(4.0)), order=1, modes=["rev"])


def encoder(latent=2):
    module = FlowEncoder(DenseEncoder(5, 1, latent), AutoregressiveFlow(latent, 2, 8, 1))
    x = (jax.random.uniform(jax.random.key(3), (3, 4, 4)) < 0.5).astype(jnp.float64)
    params = stirred(module.init(jax.random.key(0), x))
    # Not jitted: a flow is known again by its arrays.
    return lambda x: module.apply(params, x), x


def test_an_iaf_encoder_scores_what_it_draws_and_integrates_to_one(x64):
    encode, x = encoder()
    e = encode(x)
    z, log_e = e.sample_and_log_prob(seed=jax.random.key(1), sample_shape=5)
    assert z.shape == (5, 3, 2)
    np.testing.assert_allclose(e.log_prob(z), log_e, rtol=1e-9)
    axis = jnp.linspace(-30, 30, 301)
    grid = jnp.stack(jnp.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 1, 2)
    mass = jnp.exp(jax.jit(e.log_prob)(grid)).sum(0) * (axis[1] - axis[0]) ** 2
    np.testing.assert_allclose(mass, 1.0, atol=1e-3)


def test_a_flow_marginal_is_the_change_of_variables_of_a_normal(x64):
    module, unused = FlowMarginal(AutoregressiveFlow(3, 2, 8, 1)), lambda x: x
    params = stirred(module.init(jax.random.key(0), unused, jnp.zeros((1, 4, 4))))
    m = module.apply(params, unused, jnp.zeros((1, 4, 4)))
    z = jax.random.normal(jax.random.key(1), (6, 3))
    to_normal = module.flow.apply({"params": params["params"]["flow"]}).forward
    by_hand = scipy.stats.norm.logpdf(np.asarray(to_normal(z))).sum(-1)
    log_det = np.linalg.slogdet(np.asarray(jax.jit(jax.vmap(jax.jacobian(to_normal)))(z)))[1]
    np.testing.assert_allclose(m.log_prob(z), by_hand + log_det, rtol=1e-9)
    drawn, log_m = m.sample_and_log_prob(seed=jax.random.key(2), sample_shape=4)
    np.testing.assert_allclose(m.log_prob(drawn), log_m, rtol=1e-9)
    np.testing.assert_allclose(to_normal(drawn).shape, (4, 3))


def test_vampprior_through_a_flow_is_the_explicit_mixture(x64):
    encode, x = encoder()
    module = VampPrior(4)
    params = module.init(jax.random.key(5), encode, x)
    params["params"]["weights"] = jnp.array([0.3, -1.0, 2.0, 0.1])
    m = module.apply(params, encode, x)
    z = 2 * jax.random.normal(jax.random.key(6), (7, 2))
    pseudo_inputs = scipy.special.expit(np.asarray(params["params"]["pseudo_inputs"]))
    each = np.stack([np.asarray(encode(jnp.asarray(p)[None]).log_prob(z)) for p in pseudo_inputs], axis=-1)
    explicit = scipy.special.logsumexp(each + scipy.special.log_softmax([0.3, -1.0, 2.0, 0.1]), axis=1)
    np.testing.assert_allclose(m.log_prob(z), explicit, rtol=1e-9)


def test_a_flow_that_moves_encoder_and_vampprior_alike_leaves_the_rate_as_it_is(x64):
    """The short way, without inverting, gives what the two densities give at the moved point."""
    encode, x = encoder()
    e, m = encode(x), VampPrior(4).apply(VampPrior(4).init(jax.random.key(5), encode, x), encode, x)
    base_e, base_m, move = flows.without_common_flow(e, m)
    z, log_e = base_e.sample_and_log_prob(seed=jax.random.key(1))
    short = information.rate(log_e, base_m.log_prob(z))
    np.testing.assert_allclose(short, e.log_prob(move(z)) - m.log_prob(move(z)), rtol=1e-8)
    np.testing.assert_allclose(move(z), e.sample(seed=jax.random.key(1)), rtol=1e-9)


def test_flows_that_only_look_alike_are_not_taken_for_one(x64):
    encode, x = encoder()
    other, _ = encoder()
    mixed = distrax.Transformed(encode(x).distribution, other(x).bijector)
    # Equal arrays would do, but arrays that are not the same ones are not compared.
    copied = flows.MeanOnlyFlow(mixed.bijector.made, jax.tree.map(lambda a: a + 0, mixed.bijector.params))
    e = encode(x)
    for m in (
        distrax.Transformed(e.distribution, copied),
        e.distribution,
        distrax.Transformed(e.distribution, distrax.Inverse(e.bijector)),
    ):
        assert flows.without_common_flow(e, m)[:2] == (e, m)
    assert flows.without_common_flow(e, encode(x))[0] is e.distribution
    gaussian = DenseEncoder(5, 1, 2)
    plain = gaussian.apply(gaussian.init(jax.random.key(0), x), x)
    assert not flows.is_flow(plain) and flows.without_common_flow(plain, plain)[0] is plain
