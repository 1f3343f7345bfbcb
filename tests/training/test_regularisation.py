"""Averages of parameters, dropout and shifts against what they are by definition."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rd_elbo.errors import BadInput
from rd_elbo.models.dropout import Dropout, Dropping
from rd_elbo.models.vae import Terms
from rd_elbo.training import evaluate, fit, regularisation, state
from tests.training.populations import (
    Echo,
    Member,
    assert_identical,
    assert_same,
    echo,
    images_of,
    models_of,
    of,
    several,
    train,
)


class Bowl(Echo):
    """D = w^2 / 2, so that the metrics tell the parameter before every step."""

    def terms(self, params, x, key):
        weight = params["w"] + 0 * x[:, 0]
        return Terms(0 * weight, 0.5 * weight**2, x)


def test_an_average_is_the_recursion_over_recorded_parameters(x64):
    """A wrong warm-up, an average of parameters before the step, or one that thaws would differ.

    The members' decays are none, one that binds after five steps, and one that never does; the last
    member climbs, and is frozen on its way.
    """
    decays, rates = (0.0, 0.4, 0.99, 0.4), (0.01, 0.01, 0.01, -0.1)
    bounds = (np.inf, np.inf, np.inf, 3.0)
    base = Member(schedule="constant", objective="beta")
    # No grid would allow a negative rate; a step is a step.
    members = several(base, ema_decay=decays, learning_rate=rates, divergence_threshold=bounds)
    how = dict(dtype="float64", schedule="constant")
    fitted = echo(Bowl("weight"), members, np.zeros((4, 1)), 12, **how)
    assert fitted.steps.tolist()[:3] == [12] * 3 and 2 < fitted.steps[3] < 12
    recorded = np.sign(fitted.params["w"])[:, None] * np.sqrt(2 * fitted.metrics.distortion)
    for i, decay in enumerate(decays):
        after = np.append(recorded[i], fitted.params["w"][i])
        average = after[0]
        for t in range(fitted.steps[i]):
            d = min(decay, (1 + t) / (10 + t))
            average = d * average + (1 - d) * after[t + 1]
        np.testing.assert_allclose(fitted.averaged["w"][i], average, rtol=1e-12)
    assert fitted.averaged["w"][0] == fitted.params["w"][0] != fitted.averaged["w"][2]
    # An evaluation of the average sees it, and not the last parameters.
    seen = evaluate.evaluate(fitted, [0] * 4, np.zeros((2, 1)), averaging="ema")
    np.testing.assert_allclose(seen.distortion[:, 0], fitted.averaged["w"] ** 2 / 2, rtol=1e-12)


def test_a_mask_is_of_an_example_and_a_unit_whatever_is_beside_it():
    """A mask drawn per pixel, or of a padded shape, would differ; so would one without a scale."""
    dropping = Dropping(0.25, jax.random.key(0))
    with state.settings("float32"):
        h = jnp.ones((50, 2, 3, 40))
        left = np.asarray(dropping.apply(Dropout(), {}, h, 0))
        narrow = dropping.apply(Dropout(), {}, h[..., :7], 0)
        other = dropping.apply(Dropout(), {}, h, 1)
        flat = dropping.apply(Dropout(), {}, h[:, 0, 0], 0)
    np.testing.assert_array_equal(left, np.broadcast_to(left[:, :1, :1], left.shape))
    np.testing.assert_allclose(np.unique(left), [0, 1 / 0.75], rtol=1e-6)
    # 2000 masks, of standard deviation 0.0097.
    assert abs((left[:, 0, 0] == 0).mean() - 0.25) < 0.04
    np.testing.assert_array_equal(narrow, left[..., :7])
    np.testing.assert_array_equal(flat, left[:, 0, 0])
    assert (other != left).any()
    np.testing.assert_array_equal(Dropout().apply({}, h), h)


@pytest.mark.slow
def test_a_rate_of_zero_beside_another_is_no_dropout():
    base = Member(encoder_width=4)
    together = train(several(base, dropout=(0.0, 0.5)), steps=10)
    alone = train([base], steps=10)
    assert_same(of(together, 0), of(alone, 0))
    weights = together.params["encoder"]["hidden_0"]["kernel"]
    assert np.abs(weights[0] - weights[1]).max() > 1e-3
    with state.settings("float64"):
        model, x = models_of([base])[1], jnp.asarray(images_of()[:4], float)
        params, key = of(alone, 0), jax.random.key(1)
        without = model.terms(params, x, key)
        assert_identical(model.terms(params, x, key, Dropping(0.0, key)), without)
        for part in ("rate", "distortion"):
            dropped = getattr(model.terms(params, x, key, Dropping(0.5, key)), part)
            assert np.abs(dropped - getattr(without, part)).max() > 1e-3


def test_shifted_images_are_those_of_numpy():
    """Images that wrap around, axes that change places, or a shift that is never reached."""
    random, key = np.random.RandomState(0), jax.random.key(2)
    images = random.randint(1, 256, (64, 4, 5, 3)).astype(np.uint8)
    for shift in (0.0, 2.0):
        moved = regularisation.shifted(jnp.asarray(images), jnp.asarray(shift), key)
        assert moved.dtype == np.uint8
        seen = set()
        for image, result in zip(images, np.asarray(moved), strict=True):
            padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
            found = [
                (down, right)
                for down in range(-2, 3)
                for right in range(-2, 3)
                if (padded[2 - down : 6 - down, 2 - right : 7 - right] == result).all()
            ]
            assert len(found) == 1
            seen |= {*found}
        assert seen == {(0, 0)} if shift == 0 else len(seen) > 20


def test_members_see_images_moved_by_their_own_shift():
    """The top row of an image stays in place unless the image moves up or down."""
    images = np.zeros((4, 3, 3))
    images[:, 0] = 1.0

    class Corner(Echo):
        def terms(self, params, x, key):
            return Terms(x[:, 0, 1] + 0 * params["w"], jnp.full(len(x), params["w"]), x)

    seen = echo(Corner(), several(Member(), shift=(0, 1)), images, 75).metrics.rate
    assert (seen[0] == 1).all() and len(set(seen[1])) > 2
    # A third of 300 images, standard deviation 0.027.
    assert abs(seen[1].mean() - 1 / 3) < 0.11


def test_what_a_program_does_not_have_is_refused():
    spec = state.TrainSpec(Echo(), batch_size=4)
    member = dataclasses.replace(Member(), ema_decay=0.9)
    with pytest.raises(BadInput, match=r"ema_decay=0\.9.*averages=False"):
        fit.fit(spec, [Echo()], state.HParams.of([member], spec), np.zeros((4, 1)), 1)
    dropped = state.TrainSpec(Echo(), batch_size=4, drops=True)
    with pytest.raises(BadInput, match="dropout: expected 0, since the model has no dropout layer"):
        fit.fit(dropped, [Echo()], state.HParams.of([Member()], spec), np.zeros((4, 1)), 1)
    spec = state.TrainSpec(Echo(), batch_size=4, shifts=True)
    moving = state.HParams.of([Member(shift=3)], spec)
    for shape, words in (((4, 9), "only images"), ((4, 3, 5), "fewer pixels than the 3")):
        with pytest.raises(BadInput, match=f"shift=3: expected .*{words}"):
            fit.fit(spec, [Echo()], moving, np.zeros(shape), 1)
    fitted = fit.Fitted(spec, *[None] * 7)
    with pytest.raises(BadInput, match="averaging='ema': expected members with ema_decay above 0"):
        fitted.on_mesh("ema")
