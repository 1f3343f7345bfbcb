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
from rd_elbo.models.flows import MADE, AutoregressiveFlow, RealNVP, coupling_halves, made_masks
from rd_elbo.models.priors import FlowPrior, VampPrior


def stirred(params, scale=0.5, key=9):
    """Random numbers added to all parameters, so that nothing is hidden by a bias of zero or a shift that starts small."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(key), len(leaves))
    noisy = [leaf + scale * jax.random.normal(k, leaf.shape, leaf.dtype) for leaf, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, noisy)


def flow(dimensions, steps=3, width=40, depth=2):
    module = AutoregressiveFlow(dimensions, steps, width, depth)
    return module.apply(stirred(module.init(jax.random.key(0))))


AFFINE = {
    "maf_affine": lambda n, steps, width=40, depth=2: AutoregressiveFlow(n, steps, width, depth, affine=True),
    "realnvp": lambda n, steps, width=40, depth=2: RealNVP(n, steps, width, depth),
}


def affine(kind, dimensions, steps, scale=0.1):
    module = AFFINE[kind](dimensions, steps)
    return module.apply(stirred(module.init(jax.random.key(0)), scale))


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


# With one dimension there is nothing to look at, with two nothing between first and last; odd and even numbers of halves.
SIZES = [(1, 1), (2, 4), (5, 3)]


def round_trip(bijector, z):
    """Where it goes with its log-determinant and Jacobian, and back again."""
    moved, log_det = bijector.forward_and_log_det(z)
    return moved, log_det, jax.vmap(jax.jacobian(bijector.forward))(z), *bijector.inverse_and_log_det(moved)


@pytest.mark.parametrize(("dimensions", "steps"), SIZES)
def test_log_determinant_and_round_trips(x64, dimensions, steps):
    forward, z = flow(dimensions, steps), jax.random.normal(jax.random.key(2), (3, dimensions))
    for bijector in (forward, distrax.Inverse(forward)):
        moved, log_det, jacobian, back, log_det_back = jax.jit(lambda z, b=bijector: round_trip(b, z))(z)
        np.testing.assert_allclose(np.linalg.slogdet(jacobian)[1], log_det, atol=1e-9)
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


def test_a_flow_prior_is_the_change_of_variables_of_a_normal(x64):
    module, unused = FlowPrior(AutoregressiveFlow(3, 2, 8, 1)), lambda x: x
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


@pytest.mark.parametrize("kind", AFFINE)
@pytest.mark.parametrize(("dimensions", "steps"), SIZES)
def test_affine_log_determinant_and_round_trips(x64, kind, dimensions, steps):
    """A wrong sign of a log-scale, a lost permutation or a step undone out of order shows in one of the three."""
    forward, z = affine(kind, dimensions, steps), jax.random.normal(jax.random.key(2), (3, dimensions))
    for bijector in (forward, distrax.Inverse(forward)):
        moved, log_det, jacobian, back, log_det_back = jax.jit(lambda z, b=bijector: round_trip(b, z))(z)
        np.testing.assert_allclose(np.linalg.slogdet(jacobian)[1], log_det, atol=1e-9)
        np.testing.assert_allclose(back, z, atol=1e-9)
        np.testing.assert_allclose(log_det_back, -log_det, atol=1e-9)
        assert np.abs(log_det).min() > 1e-3 and np.abs(moved - z).max() > 0.1


def test_an_affine_step_looks_back_alone_and_stretches_by_what_it_saw(x64):
    """The Jacobian of one step, its reversal undone: triangular, full below, with the scales on the diagonal."""
    bijector, z = affine("maf_affine", 6, 1), jax.random.normal(jax.random.key(1), (6,))
    jacobian = np.asarray(jax.jit(jax.jacobian(lambda z: jnp.flip(bijector.forward(z))))(z))
    assert (np.triu(jacobian, 1) == 0).all() and (jacobian[np.tril_indices(6, -1)] != 0).all()
    log_scale = -np.log(np.diag(jacobian))
    np.testing.assert_allclose(-log_scale.sum(), bijector.forward_and_log_det(z)[1], rtol=1e-9)
    # The first has nothing to look at, so its scale is the same everywhere; the last one's is not.
    elsewhere = np.diag(np.asarray(jax.jacobian(lambda z: jnp.flip(bijector.forward(z)))(z + 1)))
    stretched = np.abs(elsewhere / np.diag(jacobian) - 1)
    assert stretched[0] < 1e-12 and stretched[-1] > 1e-3


@pytest.mark.parametrize("step", range(4))
def test_a_coupling_leaves_alone_what_it_looks_at(x64, step):
    looked_at, moved = coupling_halves(5, step)
    assert sorted([*looked_at, *moved]) == list(range(5)) and {len(looked_at), len(moved)} == {2, 3}
    module = RealNVP(5, step + 1, 12, 1)
    bijector = module.apply(stirred(module.init(jax.random.key(0))))
    single = flows.CouplingFlow([*bijector.couplers], bijector.params)
    jacobian = np.asarray(jax.jacobian(lambda z: single._joined(step, *_moved(single, step, z)))(jnp.arange(5.0) / 5))
    np.testing.assert_array_equal(jacobian[looked_at], np.eye(5)[looked_at])
    assert (jacobian[np.ix_(moved, looked_at)] != 0).all()
    across = jacobian[np.ix_(moved, moved)]
    assert (across[~np.eye(len(moved), dtype=bool)] == 0).all() and (np.diag(across) > 0).all()


def _moved(bijector, step, z):
    looked_at, moved, shift, log_scale = bijector._halves(step, z)
    return looked_at, (moved - shift) * jnp.exp(-log_scale)


@pytest.mark.parametrize(("kind", "steps"), [("maf_affine", 2), ("realnvp", 4)])
def test_with_several_affine_steps_every_dimension_depends_on_every_other(x64, kind, steps):
    jacobian = np.asarray(jax.jit(jax.jacobian(affine(kind, 5, steps).forward))(jnp.arange(5.0) / 5))
    assert (jacobian != 0).all()


@pytest.mark.parametrize("kind", AFFINE)
def test_affine_flows_start_near_the_identity_and_stay_bounded(kind):
    module, z = AFFINE[kind](8, 4), jax.random.normal(jax.random.key(1), (500, 8))
    params = module.init(jax.random.key(0))
    start = module.apply(params)
    assert 0 < np.abs(start.forward_and_log_det(z)[1]).mean() < 1
    # Whatever the networks say, each step stretches a dimension by at most e^3, so nothing overflows in float32.
    wild = module.apply(jax.tree.map(lambda leaf: 1e3 * leaf, params))
    _, log_det = wild.forward_and_log_det(z)
    assert np.isfinite(log_det).all() and 10 < np.abs(log_det).max() <= 4 * 8 * 3


def test_a_draw_of_an_affine_flow_does_not_guess_at_dimensions_to_come():
    """Guesses would be stretched again in each pass, and overflow long before all are right."""
    module = AFFINE["maf_affine"](64, 1)
    wild = module.apply(jax.tree.map(lambda leaf: 12 * leaf, module.init(jax.random.key(0))))
    # Dimensions that nothing before them moves, so that a draw is tame however wild the network.
    z = jnp.zeros((2, 64)).at[:, -1].set(jnp.array([0.5, -2.0]))
    there = wild.forward(z)
    np.testing.assert_allclose(wild.inverse(there), z, atol=1e-3)
    guess = y = jnp.flip(jnp.full((1, 64), 3.0), -1)
    for _ in range(60):
        shift, log_scale = wild._of(wild.params[0], guess)
        guess = y * jnp.exp(log_scale) + shift
    assert not np.abs(guess).max() < 1e8


@pytest.mark.parametrize("kind", AFFINE)
@pytest.mark.parametrize("way", ["forward", "inverse"])
def test_gradients_go_through_both_directions_of_affine_flows(x64, kind, way):
    module = AFFINE[kind](4, 2, 8, 1)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), stirred(module.init(jax.random.key(0)), 0.2))
    move = jax.jit(lambda params, z: getattr(module.apply(params), way + "_and_log_det")(z))
    check_grads(move, (params, jnp.arange(4.0) / 4), order=1, modes=["rev"])


@pytest.mark.parametrize("kind", AFFINE)
def test_an_affine_prior_integrates_to_one_and_scores_what_it_draws(x64, kind):
    module, unused, like = FlowPrior(AFFINE[kind](2, 3, 8, 1)), lambda x: x, jnp.zeros((1, 4, 4))
    m = module.apply(stirred(module.init(jax.random.key(0), unused, like), 0.1), unused, like)
    drawn, log_m = m.sample_and_log_prob(seed=jax.random.key(2), sample_shape=2000)
    np.testing.assert_allclose(jax.jit(m.log_prob)(drawn), log_m, rtol=1e-7)
    axis = jnp.linspace(-30, 30, 1201)
    grid = jnp.stack(jnp.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    density = np.exp(np.asarray(jax.jit(m.log_prob)(grid)))
    cell = float(axis[1] - axis[0]) ** 2
    assert abs(density.sum() * cell - 1) < 1e-3
    # And draws lie where the density says: their mean is its mean.
    mean = (density[:, None] * np.asarray(grid)).sum(0) * cell
    error = np.asarray(drawn).std(0) / np.sqrt(len(drawn))
    assert (np.abs(np.asarray(drawn).mean(0) - mean) < 4 * error).all()


@pytest.mark.parametrize("kind", AFFINE)
def test_an_affine_flow_is_never_taken_for_the_encoders(x64, kind):
    encode, x = encoder()
    module = FlowPrior(AFFINE[kind](2, 2, 8, 1))
    m = module.apply(module.init(jax.random.key(0), encode, x), encode, x)
    e = encode(x)
    assert flows.without_common_flow(e, m)[:2] == (e, m) and not flows.is_flow(m)
    moved_alike = distrax.Transformed(e.distribution, m.bijector.bijector if kind == "realnvp" else m.bijector)
    assert flows.without_common_flow(e, moved_alike)[:2] == (e, moved_alike)
