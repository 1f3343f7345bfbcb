"""Averages of parameters against recursions written out in NumPy."""

import dataclasses

import numpy as np
import pytest
from rd_elbo.errors import BadInput
from rd_elbo.models.base import Terms
from rd_elbo.training import evaluate, fit, state
from tests.training.populations import Echo, Member, echo, several


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
    members = several(base, ema_decay=decays, learning_rate=rates, loss_bound=bounds)
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


def test_what_a_program_does_not_have_is_refused():
    spec = state.TrainSpec(Echo(), batch_size=4)
    member = dataclasses.replace(Member(), ema_decay=0.9)
    with pytest.raises(BadInput, match=r"ema_decay=0\.9.*averages=False"):
        fit.fit(spec, [Echo()], state.HParams.of([member], spec), np.zeros((4, 1)), 1)
    fitted = fit.Fitted(spec, *[None] * 7)
    with pytest.raises(BadInput, match="averaging='ema': expected members with ema_decay above 0"):
        fitted.on_mesh("ema")
