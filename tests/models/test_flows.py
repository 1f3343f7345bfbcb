"""Flows against autodiff, and the densities they make against quadrature and explicit mixtures."""

import functools

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
from rd_elbo.models.flow_networks import MADE, made_masks
from rd_elbo.models.flows import AutoregressiveFlow, RealNVP, coupling_halves
from rd_elbo.models.priors import FlowPrior, VampPrior
from tests.drawn import random_params


def points(*shape, seed=1, scale=1.0):
    """Normal numbers, in the type that JAX has at the moment."""
    return jnp.asarray(scale * np.random.RandomState(seed).normal(size=shape))


def flow(dimensions, steps=3, width=40, depth=2):
    module = AutoregressiveFlow(dimensions, steps, width, depth)
    return module.apply(random_params(module))


affine_made = functools.partial(AutoregressiveFlow, affine=True)
AFFINE = {
    "maf_affine": lambda n, steps, width=40, depth=2: affine_made(n, steps, width, depth),
    "realnvp": lambda n, steps, width=40, depth=2: RealNVP(n, steps, width, depth),
}


def affine(kind, dimensions, steps, scale=0.2):
    module = AFFINE[kind](dimensions, steps)
    return module.apply(random_params(module, scale=scale))


@pytest.mark.parametrize("dimensions", [1, 2, 5])
@pytest.mark.parametrize("depth", [1, 3])
def test_masks_connect_each_output_to_all_inputs_before_it(dimensions, depth):
    masks = made_masks(dimensions, 12, depth)
    between = [(12, 12)] * (depth - 1)
    assert [mask.shape for mask in masks] == [(dimensions, 12), *between, (12, dimensions)]
    paths = np.linalg.multi_dot(masks)
    np.testing.assert_array_equal(paths > 0, np.triu(np.ones((dimensions, dimensions)), 1) > 0)


def test_a_narrow_made_spreads_its_units_over_the_dimensions():
    """With few units it cannot see all; its last output sees up to the last degree."""
    paths = np.linalg.multi_dot(made_masks(9, 4, 2)) > 0
    assert not np.tril(paths).any()
    assert paths[:, -1].tolist() == [True] * 7 + [False] * 2  # degrees 1, 3, 5, 7


def test_made_is_causal_by_its_jacobian(x64):
    module, z = MADE(60, 2), points(6)
    params = random_params(module, z)
    jacobian = np.asarray(jax.jit(jax.jacobian(lambda z: module.apply(params, z)))(z))
    assert (np.triu(jacobian) == 0).all() and (jacobian[np.tril_indices(6, -1)] != 0).all()
    assert jacobian.shape == (6, 6)


def test_made_starts_with_small_shifts_of_the_right_size():
    z, module = points(500, 8), MADE(64, 3)
    shifts = jax.jit(lambda z: module.apply(module.init(jax.random.key(0), z), z))(z)
    assert (shifts[:, 0] == 0).all() and 0.1 < shifts[:, 1:].std() < 0.6


# One dimension sees nothing, of two there is none between first and last; odd and even halves.
SIZES = [(1, 1), (2, 2), (5, 3)]


def round_trip(bijector, z):
    """Where it goes with its log-determinant and Jacobian, and back again."""
    moved, log_det = bijector.forward_and_log_det(z)
    jacobian = jax.vmap(jax.jacobian(bijector.forward))(z)
    return moved, log_det, jacobian, *bijector.inverse_and_log_det(moved)


@pytest.mark.parametrize(("dimensions", "steps"), SIZES)
def test_log_determinant_and_round_trips(x64, dimensions, steps):
    forward, z = flow(dimensions, steps), points(3, dimensions, seed=2)
    moved, log_det, jacobian, back, log_det_back = jax.jit(lambda z: round_trip(forward, z))(z)
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
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), random_params(module))
    move = jax.jit(lambda params, z: getattr(module.apply(params), way)(z))
    check_grads(move, (params, jnp.arange(4.0)), order=1, modes=["rev"])


def encoder(latent=2):
    module = FlowEncoder(DenseEncoder(5, 1, latent), AutoregressiveFlow(latent, 2, 8, 1))
    x = (points(3, 4, 4, seed=3) < 0).astype(float)
    params = random_params(module, x)
    # Not jitted: a flow is known again by its arrays.
    return lambda x: module.apply(params, x), x


def test_an_iaf_encoder_scores_what_it_draws_and_integrates_to_one(x64):
    encode, x = encoder()
    axis = np.linspace(-30, 30, 301)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 1, 2)

    @jax.jit
    def scored(grid):
        e = encode(x)
        z, log_e = e.sample_and_log_prob(seed=jax.random.key(1), sample_shape=5)
        return z, log_e, e.log_prob(z), e.log_prob(grid)

    z, log_e, again, log_grid = scored(grid)
    assert z.shape == (5, 3, 2)
    np.testing.assert_allclose(again, log_e, rtol=1e-9)
    mass = np.exp(log_grid).sum(0) * (axis[1] - axis[0]) ** 2
    np.testing.assert_allclose(mass, 1.0, atol=1e-3)


def test_a_flow_prior_is_the_change_of_variables_of_a_normal(x64):
    module, unused = FlowPrior(AutoregressiveFlow(3, 2, 8, 1)), lambda x: x
    params = random_params(module, unused, jnp.zeros((1, 4, 4)))
    to_normal = module.flow.apply({"params": params["params"]["flow"]}).forward

    @jax.jit
    def scored(z):
        m = module.apply(params, unused, jnp.zeros((1, 4, 4)))
        drawn, log_m = m.sample_and_log_prob(seed=jax.random.key(2), sample_shape=4)
        jacobian = jax.vmap(jax.jacobian(to_normal))(z)
        return m.log_prob(z), to_normal(z), jacobian, drawn, log_m, m.log_prob(drawn)

    log_prob, normal, jacobian, drawn, log_m, again = scored(points(6, 3))
    by_hand = scipy.stats.norm.logpdf(np.asarray(normal)).sum(-1)
    np.testing.assert_allclose(log_prob, by_hand + np.linalg.slogdet(jacobian)[1], rtol=1e-9)
    np.testing.assert_allclose(again, log_m, rtol=1e-9)
    assert drawn.shape == (4, 3)


def test_vampprior_through_a_flow_is_the_explicit_mixture(x64):
    encode, x = encoder()
    module = VampPrior(4)
    params = random_params(module, encode, x, scale=3.0)
    params["params"]["weights"] = jnp.array([0.3, -1.0, 2.0, 0.1])
    z = points(7, 2, seed=6, scale=2.0)
    log_prob = jax.jit(lambda z: module.apply(params, encode, x).log_prob(z))(z)
    pseudo_inputs = scipy.special.expit(np.asarray(params["params"]["pseudo_inputs"]))
    component = jax.jit(lambda p: encode(p[None]).log_prob(z))
    each = np.stack([np.asarray(component(jnp.asarray(p))) for p in pseudo_inputs], axis=-1)
    weights = scipy.special.log_softmax([0.3, -1.0, 2.0, 0.1])
    explicit = scipy.special.logsumexp(each + weights, axis=1)
    np.testing.assert_allclose(log_prob, explicit, rtol=1e-9)


def test_a_flow_that_moves_encoder_and_vampprior_alike_leaves_the_rate_as_it_is(x64):
    """The short way, without inverting, gives what the two densities give at the moved point."""
    encode, x = encoder()
    params = random_params(VampPrior(4), encode, x, scale=3.0)

    @jax.jit
    def both_ways(params):
        e, m = encode(x), VampPrior(4).apply(params, encode, x)
        base_e, base_m, move = flows.without_common_flow(e, m)
        assert base_e is not e
        z, log_e = base_e.sample_and_log_prob(seed=jax.random.key(1))
        short = information.rate(log_e, base_m.log_prob(z))
        long = e.log_prob(move(z)) - m.log_prob(move(z))
        return short, long, move(z), e.sample(seed=jax.random.key(1))

    short, long, moved, sample = both_ways(params)
    np.testing.assert_allclose(short, long, rtol=1e-8)
    np.testing.assert_allclose(moved, sample, rtol=1e-9)


def test_flows_that_only_look_alike_are_not_taken_for_one(x64):
    encode, x = encoder()
    other, _ = encoder()
    mixed = distrax.Transformed(encode(x).distribution, other(x).bijector)
    # Equal arrays would do, but arrays that are not the same ones are not compared.
    copied = flows.MeanOnlyFlow(
        mixed.bijector.made, jax.tree.map(lambda a: a + 0, mixed.bijector.params)
    )
    e = encode(x)
    for m in (
        distrax.Transformed(e.distribution, copied),
        e.distribution,
        distrax.Transformed(e.distribution, distrax.Inverse(e.bijector)),
    ):
        assert flows.without_common_flow(e, m)[:2] == (e, m)
    assert flows.without_common_flow(e, encode(x))[0] is e.distribution
    gaussian = DenseEncoder(5, 1, 2)
    plain = gaussian.apply(random_params(gaussian, x), x)
    assert not flows.is_flow(plain) and flows.without_common_flow(plain, plain)[0] is plain


@pytest.mark.parametrize("kind", AFFINE)
@pytest.mark.parametrize(("dimensions", "steps"), SIZES)
def test_affine_log_determinant_and_round_trips(x64, kind, dimensions, steps):
    """Shows a wrong sign of a log-scale, a lost permutation, steps undone out of order."""
    forward, z = affine(kind, dimensions, steps), points(3, dimensions, seed=2)
    moved, log_det, jacobian, back, log_det_back = jax.jit(lambda z: round_trip(forward, z))(z)
    np.testing.assert_allclose(np.linalg.slogdet(jacobian)[1], log_det, atol=1e-9)
    np.testing.assert_allclose(back, z, atol=1e-9)
    np.testing.assert_allclose(log_det_back, -log_det, atol=1e-9)
    assert np.abs(log_det).min() > 1e-3 and np.abs(moved - z).max() > 0.05


def test_an_affine_step_looks_back_alone_and_stretches_by_what_it_saw(x64):
    """One step's Jacobian, unreversed: triangular, full below, scales on the diagonal."""
    bijector, z = affine("maf_affine", 6, 1), points(6, seed=1)

    @jax.jit
    def flipped(z):
        forward = lambda z: jnp.flip(bijector.forward(z))  # noqa: E731
        return jax.jacobian(forward)(z), bijector.forward_and_log_det(z)[1]

    jacobian, log_det = map(np.asarray, flipped(z))
    assert (np.triu(jacobian, 1) == 0).all() and (jacobian[np.tril_indices(6, -1)] != 0).all()
    log_scale = -np.log(np.diag(jacobian))
    np.testing.assert_allclose(-log_scale.sum(), log_det, rtol=1e-9)
    # The first has nothing to look at, so its scale is the same everywhere; the last one's is not.
    elsewhere = np.diag(np.asarray(flipped(z + 1)[0]))
    stretched = np.abs(elsewhere / np.diag(jacobian) - 1)
    assert stretched[0] < 1e-12 and stretched[-1] > 1e-3


@pytest.mark.parametrize("step", range(4))
def test_a_coupling_leaves_alone_what_it_looks_at(x64, step):
    looked_at, moved = coupling_halves(5, step)
    assert sorted([*looked_at, *moved]) == list(range(5)) and {len(looked_at), len(moved)} == {2, 3}
    module = RealNVP(5, step + 1, 12, 1)
    bijector = module.apply(random_params(module))
    single = flows.CouplingFlow([*bijector.couplers], bijector.params)
    move = lambda z: single._joined(step, *_moved(single, step, z))  # noqa: E731
    jacobian = np.asarray(jax.jit(jax.jacobian(move))(np.arange(5.0) / 5))
    np.testing.assert_array_equal(jacobian[looked_at], np.eye(5)[looked_at])
    assert (jacobian[np.ix_(moved, looked_at)] != 0).all()
    across = jacobian[np.ix_(moved, moved)]
    assert (across[~np.eye(len(moved), dtype=bool)] == 0).all() and (np.diag(across) > 0).all()


def _moved(bijector, step, z):
    looked_at, moved, shift, log_scale = bijector._halves(step, z)
    return looked_at, (moved - shift) * jnp.exp(-log_scale)


@pytest.mark.parametrize(("kind", "steps"), [("maf_affine", 2), ("realnvp", 4)])
def test_with_several_affine_steps_every_dimension_depends_on_every_other(x64, kind, steps):
    jacobian = jax.jit(jax.jacobian(affine(kind, 5, steps).forward))
    assert (np.asarray(jacobian(jnp.arange(5.0) / 5)) != 0).all()


@pytest.mark.parametrize("kind", AFFINE)
def test_affine_flows_start_near_the_identity_and_stay_bounded(kind):
    module, z = AFFINE[kind](8, 4), points(500, 8, seed=1)
    params = jax.jit(module.init)(jax.random.key(0))
    log_det_of = jax.jit(lambda params: module.apply(params).forward_and_log_det(z)[1])
    assert 0 < np.abs(log_det_of(params)).mean() < 1
    # A step stretches a dimension by at most e^3 for any weights: no overflow in float32.
    log_det = log_det_of(jax.tree.map(lambda leaf: 1e3 * np.asarray(leaf), params))
    assert np.isfinite(log_det).all() and 10 < np.abs(log_det).max() <= 4 * 8 * 3


def test_a_draw_of_an_affine_flow_does_not_guess_at_dimensions_to_come():
    """Guesses would be stretched again in each pass, and overflow long before all are right."""
    module = AFFINE["maf_affine"](64, 1)
    params = jax.jit(module.init)(jax.random.key(0))
    wild = module.apply(jax.tree.map(lambda leaf: 12 * np.asarray(leaf), params))
    # Dimensions that nothing before them moves, so that a draw is tame however wild the network.
    z = np.zeros((2, 64), np.float32)
    z[:, -1] = 0.5, -2.0
    np.testing.assert_allclose(jax.jit(lambda z: wild.inverse(wild.forward(z)))(z), z, atol=1e-3)
    guess = y = np.full((1, 64), 3.0, np.float32)
    look = jax.jit(lambda guess: wild._of(wild.params[0], guess))
    for _ in range(60):
        shift, log_scale = look(guess)
        guess = y * np.exp(log_scale) + shift
    assert not np.abs(guess).max() < 1e8


@pytest.mark.parametrize("kind", AFFINE)
@pytest.mark.parametrize("way", ["forward", "inverse"])
def test_gradients_go_through_both_directions_of_affine_flows(x64, kind, way):
    module = AFFINE[kind](4, 2, 8, 1)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), random_params(module, scale=0.2))
    move = jax.jit(lambda params, z: getattr(module.apply(params), way + "_and_log_det")(z))
    check_grads(move, (params, jnp.arange(4.0) / 4), order=1, modes=["rev"])


@pytest.mark.parametrize("kind", AFFINE)
def test_an_affine_prior_integrates_to_one_and_scores_what_it_draws(x64, kind):
    module, unused, like = FlowPrior(AFFINE[kind](2, 3, 8, 1)), lambda x: x, jnp.zeros((1, 4, 4))
    m = module.apply(random_params(module, unused, like, scale=0.1), unused, like)
    axis = np.linspace(-30, 30, 1201)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)

    @jax.jit
    def scored(grid):
        drawn, log_m = m.sample_and_log_prob(seed=jax.random.key(2), sample_shape=2000)
        return drawn, log_m, m.log_prob(drawn), m.log_prob(grid)

    drawn, log_m, again, log_grid = scored(grid)
    np.testing.assert_allclose(again, log_m, rtol=1e-7)
    density = np.exp(np.asarray(log_grid))
    cell = (axis[1] - axis[0]) ** 2
    assert abs(density.sum() * cell - 1) < 1e-3
    # And draws lie where the density says: their mean is its mean.
    mean = (density[:, None] * np.asarray(grid)).sum(0) * cell
    error = np.asarray(drawn).std(0) / np.sqrt(len(drawn))
    assert (np.abs(np.asarray(drawn).mean(0) - mean) < 4 * error).all()


@pytest.mark.parametrize("kind", AFFINE)
def test_an_affine_flow_is_never_taken_for_the_encoders(x64, kind):
    encode, x = encoder()
    module = FlowPrior(AFFINE[kind](2, 2, 8, 1))
    m = module.apply(random_params(module, encode, x), encode, x)
    e = encode(x)
    assert flows.without_common_flow(e, m)[:2] == (e, m) and not flows.is_flow(m)
    bijector = m.bijector.bijector if kind == "realnvp" else m.bijector
    moved_alike = distrax.Transformed(e.distribution, bijector)
    assert flows.without_common_flow(e, moved_alike)[:2] == (e, moved_alike)
