"""Bands against the closed forms of Gaussian errors."""

import numpy as np

from rd_elbo.bootstrap import hull_band, resample

RATE, DISTORTION = np.asarray([2.0, 6.0]), np.asarray([10.0, 4.0])
# R and D of the first point are correlated by -0.6, those of the second not at all.
ERRORS = np.asarray([[0.3, 0.2], [0.5, 0.4], [0.4, np.sqrt(0.2)]])


def test_replicates_have_the_recorded_errors_and_share_their_images():
    """The covariance of R and D is that of the recorded errors of R, D and R + D."""
    made = resample((RATE, DISTORTION), ERRORS, np.arange(2), replicates=20_000)
    np.testing.assert_allclose(made.rate.std(0), ERRORS[0], rtol=0.02)
    np.testing.assert_allclose(made.distortion.std(0), ERRORS[1], rtol=0.02)
    np.testing.assert_allclose((made.rate + made.distortion).std(0), ERRORS[2], rtol=0.02)
    np.testing.assert_allclose(made.distortion.mean(0), DISTORTION, atol=0.02)
    np.testing.assert_allclose(np.corrcoef(made.rate.T)[0, 1], 1)
    assert (made.times == 1).all()


def test_the_band_of_a_chord_is_that_of_its_ends_together():
    """Independent draws of both ends would give half the root of the sum of squares, 0.32."""
    errors = ERRORS * np.asarray([[0.0], [1.0], [0.0]])
    errors[2] = errors[1]
    made = resample((RATE, DISTORTION), errors, np.arange(2), replicates=20_000)
    band = hull_band((RATE, DISTORTION), made, np.asarray([1.0, 2.0, 4.0, 6.0, 9.0]))
    np.testing.assert_allclose(band.distortion, [np.nan, 10, 7, 4, 4])
    np.testing.assert_allclose(band.error, [np.nan, 0.5, 0.45, 0.4, 0.4], rtol=0.02)
    np.testing.assert_allclose(band.high - band.distortion, 1.96 * band.error, rtol=0.04)
    np.testing.assert_allclose(band.distortion - band.low, 1.96 * band.error, rtol=0.04)


def test_seeds_are_drawn_with_replacement():
    """Of two seeds the better one is missing from a quarter of the replicates."""
    rate, distortion = np.asarray([2.0, 2.0, 6.0]), np.asarray([10.0, 12.0, 4.0])
    nothing = np.zeros((3, 3))
    made = resample((rate, distortion), nothing, np.asarray([0, 0, 1]), replicates=4000)
    assert (made.times[:, :2].sum(1) == 2).all() and (made.times[:, 2] == 1).all()
    band = hull_band((rate, distortion), made, np.asarray([2.0]))
    assert band.distortion[0] == band.low[0] == 10 and band.high[0] == 12
    np.testing.assert_allclose((made.times[:, 0] == 0).mean(), 0.25, atol=0.03)
    np.testing.assert_allclose(band.error, 2 * np.sqrt(0.25 * 0.75), rtol=0.05)
