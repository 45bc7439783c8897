"""The limit of ``benchmarks/limit.py`` where it can be worked out by hand, and the test pixels and their measures."""

import sys
from pathlib import Path

import numpy as np
import pytest

from sunpy_deepem import LogTBins

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from families import CASES, FAMILIES, covered, observe, wasserstein
from limit import Draws, SimulatedNoise, draw, posterior

from sunpy_deepem.training import DEMPrior

UNIT = 1e27


def draws_of(response, shapes, limits):
    """Draws of given shapes, ``(bins, n)``, and limits of the total EM in 10^27 cm^-5, ``(2, n)``."""
    matrix = response.matrix.value * UNIT
    return Draws(*(np.asarray(array, dtype=np.float32) for array in (shapes, matrix @ shapes, limits)))


def one_bin(*indices):
    return np.eye(18)[:, indices]


def brute_force(intensity, variance, draws, n=20000):
    """Posterior mean, second moment and weight of each draw for one pixel, by a sum over a fine grid of totals."""
    low, high = np.log(draws.limits.astype(float))
    totals = np.exp(low[:, None] + (high - low)[:, None] * (np.arange(n) + 0.5) / n)
    model = draws.intensity.astype(float)[:, :, None] * totals
    sigma2 = variance(model)
    logs = -0.5 * ((model - intensity[:, None, None]) ** 2 / sigma2 + np.log(sigma2)).sum(axis=0)
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    shape = draws.shape.astype(float)
    mean = shape @ (weights * totals).sum(axis=1) * UNIT
    return mean, shape**2 @ (weights * totals**2).sum(axis=1) * UNIT**2, weights.sum(axis=1)


def test_two_draws_of_known_weights(response):
    # With the total known, the weights of two shapes are in the ratio of their likelihoods.
    draws = draws_of(response, one_bin(6, 7), [[1.0, 1.0], [1.00001, 1.00001]])
    share = 0.37
    intensity = draws.intensity.astype(float) @ [share, 1 - share]
    uncertainty = 0.5 * intensity
    chi2 = (((draws.intensity - intensity[:, None]) / uncertainty[:, None]) ** 2).sum(axis=0)
    expected = np.exp(-0.5 * chi2) / np.exp(-0.5 * chi2).sum()
    assert 0.05 < expected[0] < 0.95
    result = posterior(intensity[:, None], uncertainty[:, None], draws)
    np.testing.assert_allclose(result.em[[6, 7], 0] / UNIT, expected, rtol=1e-4)
    np.testing.assert_allclose(result.std[6, 0] / UNIT, np.sqrt(expected[0] * expected[1]), rtol=1e-3)
    np.testing.assert_allclose(result.ess, 1 / (expected**2).sum(), rtol=1e-4)


@pytest.mark.parametrize("error", [0.05, 0.2, 1.0, 5.0])
def test_totals_are_integrated_as_by_brute_force(response, error):
    # Two shapes, ranges of different length, a true total within them: from a sharp to a hardly bounded likelihood.
    draws = draws_of(
        response, np.stack([one_bin(6, 7).mean(axis=1), one_bin(7, 8).mean(axis=1)]).T, [[0.01, 0.1], [100, 10]]
    )
    intensity = 2 * draws.intensity.astype(float).mean(axis=1)
    uncertainty = error * intensity
    mean, square, weights = brute_force(intensity, lambda model: uncertainty[:, None, None] ** 2, draws)
    result = posterior(intensity[:, None], uncertainty[:, None], draws)
    np.testing.assert_allclose(result.em[:, 0], mean, rtol=2e-3, atol=1e-4 * UNIT)
    np.testing.assert_allclose(result.std[:, 0] ** 2 + result.em[:, 0] ** 2, square, rtol=5e-3, atol=1e-4 * UNIT**2)
    np.testing.assert_allclose(result.ess, 1 / (weights**2).sum(), rtol=2e-3)


def test_true_total_beyond_the_prior_is_held_at_its_limit(response):
    draws = draws_of(response, one_bin(7), [[0.1], [1.0]])
    intensity = 1.5 * draws.intensity.astype(float)[:, 0]
    uncertainty = 0.1 * intensity
    mean, *_ = brute_force(intensity, lambda model: uncertainty[:, None, None] ** 2, draws)
    result = posterior(intensity[:, None], uncertainty[:, None], draws)
    assert result.em[7, 0] < UNIT
    np.testing.assert_allclose(result.em[7, 0], mean[7], rtol=1e-4)


def test_quantiles_of_one_shape_are_those_of_its_total(response):
    # With a sharp likelihood the total is normal, and its 68 % interval one standard deviation to each side.
    draws = draws_of(response, one_bin(7), [[0.01], [100.0]])
    intensity = draws.intensity.astype(float)[:, 0]
    uncertainty = 0.02 * intensity
    result = posterior(intensity[:, None], uncertainty[:, None], draws)
    std = 0.02 / np.sqrt(6)
    np.testing.assert_allclose(result.std[7, 0] / UNIT, std, rtol=0.01)
    quantiles = result.quantiles[:, 7, 0] / UNIT
    expected = 1 + std * np.array([-1.960, -0.994, 0.994, 1.960])
    np.testing.assert_allclose(quantiles, expected, atol=0.15 * std)


def test_noise_of_the_truth_is_integrated_as_by_brute_force(response):
    noise = SimulatedNoise(*CASES[4])
    draws = draw(DEMPrior(), response, 300, seed=5)
    _, intensity, uncertainty = observe("prior", CASES[4], 4, response, seed=3)
    result = posterior(intensity, uncertainty, draws, noise=noise)
    for pixel in range(4):
        mean, *_ = brute_force(intensity[:, pixel], noise, draws, n=1000)
        assert wasserstein(result.em[:, pixel, None], mean[:, None], response.bins)[0] < 2e-3
        np.testing.assert_allclose(result.em[:, pixel].sum(), mean.sum(), rtol=5e-3)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_simulated_noise_is_that_of_the_simulation(response, case):
    truth, intensity, _ = observe("prior", case, 4000, response, seed=2)
    truth = response.matrix.value @ truth
    scatter = ((intensity - truth) / np.sqrt(SimulatedNoise(*case)(truth))).std(axis=1)
    np.testing.assert_allclose(scatter, 1, atol=0.05)


def test_following_up_a_part_of_the_draws_changes_little(response, monkeypatch):
    draws = draw(DEMPrior(), response, 20000, seed=5)
    _, intensity, uncertainty = observe("prior", CASES[4], 8, response, seed=3)
    full = posterior(intensity, uncertainty, draws)
    monkeypatch.setattr("limit._FOLLOWED", 500)
    part = posterior(intensity, uncertainty, draws)
    assert wasserstein(part.em, full.em, response.bins).max() < 0.01
    np.testing.assert_allclose(part.ess, full.ess, rtol=0.1)


def test_interval_of_the_limit_covers_the_prior_as_often_as_it_says(response):
    draws = draw(DEMPrior(), response, 10000, seed=5)
    truth, intensity, uncertainty = observe("prior", CASES[4], 80, response, seed=3)
    result = posterior(intensity, uncertainty, draws, noise=SimulatedNoise(*CASES[4]))
    known = result.ess > 50
    assert known.sum() > 50
    low, high = result.quantiles[1][:, known], result.quantiles[2][:, known]
    assert covered(low, high, result.em[:, known], truth[:, known]) == pytest.approx(0.68, abs=0.08)


@pytest.mark.parametrize("name", FAMILIES)
def test_families_are_distributions_on_the_bins(name):
    em = FAMILIES[name](50, np.random.default_rng(0), LogTBins())
    assert em.shape == (18, 50)
    assert (em >= 0).all()
    assert ((em.sum(axis=0) > 1e24) & (em.sum(axis=0) < 2e30)).all()


def test_every_case_has_the_same_truth(response):
    first, second = (observe("flare", case, 5, response, seed=1) for case in CASES[:2])
    np.testing.assert_array_equal(first[0], second[0])
    assert (first[1] != second[1]).all()


def test_chianti_quiet_sun_peaks_where_its_table_does():
    # DEM T is largest at log T 6.1 (10^(20.460 + 6.1)), and the bin holds DEM T ln(10) 0.1 of it.
    em = FAMILIES["CHIANTI quiet Sun"](200, np.random.default_rng(0), LogTBins())
    assert (em.argmax(axis=0) == 6).all()
    peak = 10 ** (20.460 + 6.1) * np.log(10) * 0.1
    assert 0.29 * peak < em[6].min() < em[6].max() < 3 * peak
    assert (em[LogTBins().centers > 6.65] == 0).all()


def test_wasserstein_distance_of_shifted_isothermal_plasma_is_the_shift():
    bins = LogTBins()
    np.testing.assert_allclose(wasserstein(3 * one_bin(4, 4, 4), one_bin(4, 5, 9), bins), [0, 0.1, 0.5], atol=1e-12)
