"""Tests of the quantities derived from EM against hand calculations."""

import astropy.units as u
import numpy as np
import pytest
from astropy.constants import k_B
from helpers import uniform_em

from sunpy_deepem import LogTBins
from sunpy_deepem.analysis.derived import (
    band_em,
    checked_bands,
    electron_density,
    em_weighted_log_t,
    log_temperature,
    peak_log_t,
    thermal_energy,
    thermal_width,
    weighted_sum,
)

BINS = LogTBins()
DEPTH = {"depth": 1e10, "hydrogen_ratio": 0.83}
FUNCTIONS = {
    "total": lambda em: band_em(em, BINS),
    "band": lambda em: band_em(em, BINS, 5.87, 6.41),
    "log_t": lambda em: em_weighted_log_t(em, BINS),
    "peak": lambda em: peak_log_t(em, BINS),
    "width": lambda em: thermal_width(em, BINS),
    "density": lambda em: electron_density(em, BINS, low=5.9, **DEPTH),
    "energy": lambda em: thermal_energy(em, BINS, low=5.93, high=6.48, **DEPTH),
}


def test_weighted_sum():
    em = np.arange(8.0).reshape(4, 2)
    np.testing.assert_array_equal(weighted_sum([2, 0, 1, 0.5], em), 2 * em[0] + em[2] + 0.5 * em[3])
    np.testing.assert_array_equal(weighted_sum([0] * 4, em), [0, 0])


@pytest.mark.parametrize(
    ("given", "expected"), [(6.2, 6.2), (1e6 * u.K, 6), (2 * u.MK, 6.30103), (0.5 * u.K, -0.30103)]
)
def test_log_temperature(given, expected):
    assert log_temperature(given) == pytest.approx(expected)


@pytest.mark.parametrize("given", [0 * u.K, -1 * u.K, [1, 2] * u.MK, 1 * u.m])
def test_no_temperature(given):
    with pytest.raises(ValueError, match="must be a positive temperature"):
        log_temperature(given)


def test_bands():
    em = uniform_em(5.95, 6.45)
    # 5.6–6.0 holds half of one of the five bins, 6.0–6.3 half, two and a half, 6.3–6.6 half and one.
    found = [band_em(em, BINS, *band)[0] for band in ((5.6, 6.0), (6.0, 6.3), (6.3, 6.6), (6.6, 7.0))]
    np.testing.assert_allclose(found, [1e26, 6e26, 3e26, 0], atol=1e15)
    np.testing.assert_allclose(band_em(em, BINS, 6.11, 6.12), 2e25)
    for every in (em, uniform_em(5.45, 7.25)):
        np.testing.assert_allclose(band_em(every, BINS), 1e27)


@pytest.mark.parametrize(("low", "high"), [(5.95, 6.05), (5.95, 6.45), (5.45, 7.25)])
def test_uniform(low, high):
    em = uniform_em(low, high)
    np.testing.assert_allclose(em_weighted_log_t(em, BINS), (low + high) / 2)
    np.testing.assert_allclose(thermal_width(em, BINS), (high - low) / np.sqrt(12))


def test_two_temperatures():
    em = uniform_em(5.95, 6.05) + 3 * uniform_em(6.45, 6.55)
    np.testing.assert_allclose(em_weighted_log_t(em, BINS), 6.375)
    np.testing.assert_allclose(thermal_width(em, BINS) ** 2, 0.25 * 0.75 * 0.5**2 + 0.1**2 / 12)
    assert peak_log_t(em, BINS) == 6.5


def test_density():
    em = uniform_em(5.95, 6.45, total=8.3e26)
    np.testing.assert_allclose(electron_density(em, BINS, **DEPTH), np.sqrt(8.3e26 / 0.83 / 1e10))
    part = electron_density(em, BINS, low=6.05, high=6.15, **DEPTH)
    np.testing.assert_allclose(part, np.sqrt(8.3e26 / 0.83 / 1e10 / 5))


def test_thermal_energy():
    em = uniform_em(6.25, 6.35)
    density = electron_density(em, BINS, **DEPTH)
    temperature = (10**6.35 - 10**6.25) / np.log(10) / 0.1
    np.testing.assert_allclose(
        thermal_energy(em, BINS, **DEPTH), 3 * k_B.cgs.value * density * temperature * DEPTH["depth"]
    )
    assert thermal_energy(em, BINS, low=6.3, **DEPTH) < thermal_energy(em, BINS, **DEPTH)


def test_sum_without_weights_is_zero():
    np.testing.assert_array_equal(weighted_sum(np.zeros(1), np.ones((1, 3))), np.zeros(3))


def test_faint_em_has_a_peak():
    em = np.zeros((18, 1))
    em[7] = 0.5
    np.testing.assert_allclose(FUNCTIONS["peak"](em), BINS.centers[7])


@pytest.mark.parametrize("name", ["log_t", "peak", "width", "energy"])
def test_zero_em_has_no_temperature(name):
    assert np.isnan(FUNCTIONS[name](np.zeros((18, 2)))).all()


@pytest.mark.parametrize("bins", [slice(None), 6], ids=["all bins", "one bin"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_nan(name, bins):
    em = np.random.default_rng(0).lognormal(58, 2, (18, 3))
    em[bins, 1] = np.nan
    found = FUNCTIONS[name](em)
    np.testing.assert_array_equal(np.isnan(found), [False, True, False])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_single_precision(name):
    """Draws and EM of flares, too, keep single precision."""
    em = np.random.default_rng(1).lognormal(58, 3, (18, 40, 5))
    em[:, :5] *= 1e5
    single = FUNCTIONS[name](em.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, FUNCTIONS[name](em), rtol=1e-4)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_draws_equal_single_arrays(name):
    draws = np.random.default_rng(2).lognormal(58, 2, (7, 18, 5)).astype(np.float32)
    together = FUNCTIONS[name](np.swapaxes(draws, 0, 1))
    np.testing.assert_allclose(together, [FUNCTIONS[name](draw) for draw in draws], rtol=1e-6)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ((6.5, 6.0), "low must be below high"),
        ((6.0, 6.0), "low must be below high"),
        ((3, 6), "within the cube's bins"),
        ((5.4, 6), "within the cube's bins"),
        ((6, 7.3), "within the cube's bins"),
        (("hot", 7), "low must be a number"),
    ],
)
def test_invalid_limits(limits, message):
    with pytest.raises(ValueError, match=message):
        band_em(uniform_em(6, 6.5), BINS, *limits)


@pytest.mark.parametrize("bands", [3, [], [(1, 2, 3)]])
def test_invalid_bands(bands):
    with pytest.raises(ValueError, match="bands must be one or more pairs"):
        checked_bands(bands)
