"""Simulated observations."""

import astropy.units as u
import numpy as np
import pytest

from sunpy_deepem import CHANNELS, TemperatureResponse
from sunpy_deepem.calibrate.photometry import counts_uncertainty
from sunpy_deepem.training import simulate_observation
from sunpy_deepem.training.observing import usual_uncertainty

#: Usual exposure times in s.
EXPOSURES = {94: 2.9, 131: 2.9, 171: 2.0, 193: 2.0, 211: 2.9, 335: 2.9}


@pytest.fixture(scope="module")
def other():
    """The response of another instrument, for which the noise is that of photons alone."""
    response = TemperatureResponse.default()
    return TemperatureResponse.from_curves(response.temperature, {"other": response.curves[2]}, bins=response.bins)


def test_simulated_noise_matches_sigma(response):
    # Bright enough that σ, estimated from the noisy counts, is close to the width of the noise.
    em = np.repeat(1e29 / 18 * np.ones((18, 1)), 4000, axis=1)
    truth = (response.matrix.value @ em[:, :1])[:, 0]
    for systematic, n_sample in ((0.0, 1), (0.0, 64), (0.1, 16)):
        intensity, sigma = simulate_observation(em, response, seed=1, systematic=systematic, n_sample=n_sample)
        pull = (intensity - truth[:, None]) / sigma
        assert pull.std(axis=1) == pytest.approx(np.ones(6), abs=0.08)
        assert intensity.mean(axis=1) == pytest.approx(truth, rel=0.01)


def test_usual_exposures():
    intensity = np.full((6, 1), 100.0)
    sigma = usual_uncertainty(intensity, systematic=0, n_sample=4)
    for row, channel in zip(sigma, CHANNELS, strict=True):
        exposure = EXPOSURES[channel]
        np.testing.assert_allclose(row, counts_uncertainty([100 * exposure], channel, 4) / exposure)
    np.testing.assert_allclose(usual_uncertainty(intensity, n_sample=4), np.hypot(sigma, 10))


def test_systematic_error_is_drawn_between_limits(other):
    em = np.full((18, 20_000), 1e28)
    intensity, sigma = simulate_observation(em, other, seed=1, systematic=(0.1, 0.3), n_sample=1e12)
    fraction = (sigma / intensity)[0]
    assert fraction.min() == pytest.approx(0.1, abs=1e-3)
    assert fraction.max() == pytest.approx(0.3, abs=1e-3)
    # The mean of u ** 1.25, u between 0 and 1, is 1 / 2.25.
    assert fraction.mean() == pytest.approx(0.1 + 0.2 / 2.25, abs=2e-3)


def test_number_of_native_pixels_is_log_uniform(other):
    em = np.full((18, 20_000), 1e26)
    intensity, sigma = simulate_observation(em, other, seed=1, systematic=0, exposure_times=[2.0])
    n_sample = (intensity / 2.0 / sigma**2)[0]
    assert np.log2(n_sample).min() == pytest.approx(0, abs=0.01)
    assert np.log2(n_sample).max() == pytest.approx(6, abs=0.01)
    assert np.log2(n_sample).mean() == pytest.approx(3, abs=0.05)


def test_short_exposures(other):
    """The variance of photon noise tells the exposure time."""
    em = np.full((18, 20_000), 1e27)
    intensity, sigma = simulate_observation(em, other, seed=1, systematic=0, n_sample=1, short_exposures=0.4)
    exposure = np.where(intensity > 1 / 2.0, intensity / sigma**2, np.nan)[0]
    short = exposure < 1.99
    assert short.mean() == pytest.approx(0.4, abs=0.02)
    assert np.log10(exposure[short] / 2.0).mean() == pytest.approx(-1.25, abs=0.02)
    assert np.log10(exposure / 2.0).min() == pytest.approx(-2.5, abs=0.05)


def test_counts_stay_below_full_well(other):
    intensity, sigma = simulate_observation(np.full((18, 9), 1e30), other, seed=1, systematic=0, n_sample=1)
    np.testing.assert_allclose((intensity / sigma) ** 2, 1e4, rtol=0.05)


def test_noise_of_no_photon_is_that_of_one(other):
    _, sigma = simulate_observation(np.zeros((18, 100)), other, seed=1, systematic=0, n_sample=4)
    assert sigma.min() == pytest.approx(1 / 2.0 / np.sqrt(4))


@pytest.mark.parametrize("em", [np.ones(18), np.ones((17, 3)), np.ones((18, 3, 2))])
def test_shape_of_em(response, em):
    with pytest.raises(ValueError, match=r"em must have shape \(18, n\)"):
        simulate_observation(em, response, seed=0)


def test_unit_of_em_is_refused(response):
    with pytest.raises(TypeError, match="em must be a plain array"):
        simulate_observation(np.full((18, 2), 1e27) << u.cm**-5, response, seed=0)
