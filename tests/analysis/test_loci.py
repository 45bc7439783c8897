"""Tests of the EM loci."""

import astropy.units as u
import numpy as np
import pytest

from sunpy_deepem import TemperatureResponse
from sunpy_deepem.analysis import em_loci
from sunpy_deepem.units import INTENSITY_UNIT


def test_isothermal_loci_cross_at_the_temperature(response):
    at = 50
    intensity = 1e27 * u.cm**-5 * response.curves[:, at]
    loci = em_loci(intensity, response)
    assert loci.unit == u.cm**-5
    np.testing.assert_allclose(loci[:, at].value, 1e27)
    # At any other temperature the channels disagree.
    spread = np.log10((loci.max(axis=0) / loci.min(axis=0)).value)
    assert np.argmin(spread) == at


def test_loci_are_upper_limits(response):
    em = np.random.default_rng(0).uniform(0, 1e27, 18)
    loci = em_loci((response.matrix.value @ em) * INTENSITY_UNIT, response)
    lowest = loci.min(axis=0).value
    at_bins = np.interp(response.bins.centers, np.log10(response.temperature.value), lowest)
    assert (em < 1.5 * at_bins).all()


def test_intensity_that_is_not_positive_gives_nan(response):
    loci = em_loci(np.array([-1.0, 0, 1, 1, 1, 1]) * INTENSITY_UNIT, response)
    assert np.isnan(loci[:2]).all()
    assert (loci[2:] > 0).all()


def test_some_channels(response):
    intensity = np.ones(6) * INTENSITY_UNIT
    some = em_loci(intensity[1:4], response.with_channels((131, 171, 193)))
    np.testing.assert_array_equal(some, em_loci(intensity, response)[1:4])


def test_invalid_intensity(response):
    with pytest.raises(ValueError, match=r"one pixel .* found \(6, 2\)"):
        em_loci(np.ones((6, 2)) * INTENSITY_UNIT, response)


def test_negative_response_sets_no_limit(response):
    """Noise in a measured response may be negative; such temperatures emit nothing in the channel."""
    curves = response.curves.copy()
    curves[2, :10] = -curves[2].max()
    noisy = TemperatureResponse(response.temperature, curves, bins=response.bins)
    assert np.isposinf(em_loci(np.ones(6) * INTENSITY_UNIT, noisy)[2, :10]).all()
