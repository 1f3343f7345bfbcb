"""Muon against singular vectors, a textbook in NumPy, and optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from rd_elbo import objectives
from rd_elbo.models.vae import Terms
from rd_elbo.sweep.grid import Member
from rd_elbo.training import checkpoint, fit, muon, optim, state
from tests.training.populations import Echo

SHAPES = [(5, 3), (3, 5), (4, 4), (30, 7)]


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_vectors_stay_and_singular_values_become_one(x64, shape):
    """At its fixed polynomial, to 0.68 to 1.14; values span a factor of a hundred."""
    left, values, right = np.linalg.svd(np.random.RandomState(0).normal(size=shape), False)
    spread = np.logspace(0, -2, len(values))
    result = muon.orthogonalised(jnp.asarray(left * spread @ right))
    inner = left.T @ result @ right.T
    np.testing.assert_allclose(inner, np.diag(np.diag(inner)), atol=1e-9)
    assert (np.diag(inner) > 0.65).all() and (np.diag(inner) < 1.2).all()
    np.testing.assert_allclose(result, left @ inner @ right, atol=1e-9)
    assert (muon.orthogonalised(jnp.zeros(shape)) == 0).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_first_step_has_the_direction_of_optax(shape):
    gradient = jax.random.normal(jax.random.key(0), shape)
    own = muon.direction(gradient)
    transformation = contrib.muon(1.0)
    theirs, _ = transformation.update(gradient, transformation.init(gradient), gradient)
    theirs = -theirs / jnp.linalg.norm(theirs)
    np.testing.assert_allclose(own / jnp.linalg.norm(own), theirs, atol=1e-4)
    np.testing.assert_allclose(jnp.sqrt(jnp.mean(own**2)), 0.2, rtol=1e-5)


def textbook(matrix):
    """Newton-Schulz as in Jordan et al. 2024, on the matrix itself."""
    matrix = matrix / np.linalg.norm(matrix)
    for _ in range(5):
        gram = matrix @ matrix.T
        matrix = 3.4445 * matrix + (-4.775 * gram + 2.0315 * gram @ gram) @ matrix
    return matrix


class Bowl(Echo):
    """D = sum |w - 1|^2, of a gated kernel, a bias, and a vector that is called a kernel."""

    def init(self, key, x):
        kernel = jax.random.normal(key, (1, 2, 3, 2, 4))
        bias = kernel[0, 0, 0]
        return {"layer": {"kernel": kernel, "bias": bias}, "readout_kernel": bias[0]}

    def terms(self, params, x, key):
        total = sum(jnp.sum((leaf - 1) ** 2) for leaf in jax.tree.leaves(params))
        return Terms(jnp.zeros(len(x)), jnp.full(len(x), total), x)


def test_steps_are_those_of_a_textbook(x64):
    """Kernels with their halves as outputs; what is no matrix goes by Adam."""
    model, rate = Bowl("w"), 0.05
    options = dict(schedule="constant", optimizer="muon", dtype="float64")
    spec = state.TrainSpec(model, batch_size=4, **options)
    hparams = state.HParams(0, objectives.LossWeights(), 0.0, rate)
    fitted = fit.fit(spec, [model], hparams, np.zeros((4, 1)), 6)
    start = state.initialise([model], [0], model, (1,), "float64")
    start = jax.tree.map(lambda leaf: np.asarray(leaf[0]), start)
    kernel, momentum = start["layer"]["kernel"].reshape(6, 8), 0.0
    rest = {"bias": start["layer"]["bias"], "one": start["readout_kernel"]}
    adam = optax.adam(rate)
    moments = adam.init(rest)
    for _ in range(6):
        gradient = (kernel - 1) / np.linalg.norm(kernel - 1)
        momentum = 0.95 * momentum + gradient
        moved = textbook(gradient + 0.95 * momentum)
        kernel = kernel - rate * 0.2 * moved / np.sqrt(np.mean(moved**2))
        gradient = jax.tree.map(lambda leaf: (leaf - 1) / np.linalg.norm(leaf - 1), rest)
        updates, moments = adam.update(gradient, moments)
        rest = optax.apply_updates(rest, updates)
    layer = fitted.params["layer"]
    np.testing.assert_allclose(layer["kernel"][0].reshape(6, 8), kernel, rtol=1e-6)
    np.testing.assert_allclose(layer["bias"][0], rest["bias"], rtol=1e-6)
    np.testing.assert_allclose(fitted.params["readout_kernel"][0], rest["one"], rtol=1e-6)


def test_a_training_resumes_with_its_momentum(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint.Checkpoints, "due", lambda self: True)

    def run(folder, stop=None):
        spec = state.TrainSpec(Bowl("w"), batch_size=4, optimizer="muon", call_steps=4)
        kept = checkpoint.Checkpoints(tmp_path / folder)
        hparams = state.HParams(np.arange(2), objectives.LossWeights(), 0.0, 0.1)
        models, images = [spec.model] * 2, np.zeros((4, 1))
        return fit.fit(spec, models, hparams, images, 12, checkpoints=kept, stop=stop)

    whole = run("whole")
    with pytest.raises(fit.Stopped):
        run("parts", stop=lambda: True)
    jax.tree.map(np.testing.assert_array_equal, run("parts").params, whole.params)


def test_the_kernel_that_paints_z_has_z_alone_as_inputs(x64):
    """Its matrix is (latents, pixels x outputs): a dense layer's; the encoder's is not."""
    key, shape = jax.random.key(4), (2, 3, 4, 2, 5)
    kernel, gradient = jax.random.normal(key, (2, *shape))
    dense = np.moveaxis(np.asarray(gradient), 2, 0).reshape(4, -1)
    for part in ("decoder", "encoder"):
        params = {part: {"whole": {"kernel": kernel}}}
        optimizer, alive = optim.choose_optimizer("muon"), jnp.asarray(True)
        gradients = jax.tree.map(lambda leaf: gradient, params)
        moved, _ = optimizer.step(
            params, optimizer.init(params), gradients, jnp.asarray(1.0), alive
        )
        matrix = dense if part == "decoder" else np.asarray(gradient).reshape(-1, 10)
        expected = -textbook(matrix)
        expected *= 0.2 / np.sqrt(np.mean(expected**2))
        result = np.asarray(moved[part]["whole"]["kernel"] - kernel)
        if part == "decoder":
            result = np.moveaxis(result, 2, 0)
        np.testing.assert_allclose(result.reshape(expected.shape), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 4), (6, 2, 4), (3, 3, 2, 4)])
def test_a_layer_of_that_name_with_other_axes_is_as_any_other(shape):
    """As a decoder of the user's own may have it."""
    gradient = jax.random.normal(jax.random.key(5), shape)
    moved = {}
    for part in ("decoder", "encoder"):
        params = {part: {"whole": {"kernel": jnp.zeros(shape)}}}
        optimizer, gradients = (
            optim.choose_optimizer("muon"),
            {part: {"whole": {"kernel": gradient}}},
        )
        step_size, alive = jnp.float32(1.0), jnp.asarray(True)
        new, _ = optimizer.step(params, optimizer.init(params), gradients, step_size, alive)
        moved[part] = new[part]["whole"]["kernel"]
    np.testing.assert_array_equal(moved["decoder"], moved["encoder"])


def test_decoders_paint_with_a_kernel_of_that_name():
    """Muon knows it by its path and its axes."""
    for decoder in ("deconv", "resnet", "pixelvae", "pixelvae_resnet"):
        model = Member(decoder=decoder, decoder_width=3, latent=5).build((8, 12))
        params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 12)))
        kernels, _ = muon.split(params)
        assert kernels[muon._PAINTER].shape[:4] == (2, 3, 5, 2)


def test_zeros_around_a_kernel_change_nothing(x64):
    """As around the kernel of a narrower member; the small one is wide, the large one is not."""
    small = jax.random.normal(jax.random.key(1), (3, 2, 2))
    large = jnp.zeros((6, 2, 4)).at[:3, :, :2].set(small)
    expected = jnp.zeros((6, 2, 4)).at[:3, :, :2].set(muon.direction(small))
    result = muon.direction(large)
    np.testing.assert_allclose(result, expected, rtol=1e-9)
    assert (result[3:] == 0).all() and (result[..., 2:] == 0).all()


def test_masked_elements_do_not_move():
    masked = jax.random.normal(jax.random.key(2), (5, 4)).at[2:, 0].set(0.0)
    result = np.asarray(muon.direction(masked))
    assert (result[2:, 0] == 0).all() and (result[:2, 0] != 0).all()
    np.testing.assert_allclose(np.sqrt((result**2).sum() / 17), 0.2, rtol=1e-5)


def test_a_kernel_without_a_gradient_stays():
    params = {"kernel": jnp.ones((2, 3))}
    optimizer = optim.choose_optimizer("muon")
    zeros = jax.tree.map(jnp.zeros_like, params)
    step_size, alive = jnp.float32(0.1), jnp.asarray(True)
    moved, _ = optimizer.step(params, optimizer.init(params), zeros, step_size, alive)
    np.testing.assert_array_equal(moved["kernel"], params["kernel"])
