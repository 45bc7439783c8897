"""`Importance` against posteriors that can be worked out by hand or on a grid."""

import numpy as np
import pytest

from sunpy_deepem import LogTBins, TemperatureResponse, invert
from sunpy_deepem.methods import Importance, SolveStatus
from sunpy_deepem.methods.weighing import _systematic
from sunpy_deepem.sample import sample_maps
from sunpy_deepem.training import DEMPrior, simulate_observation

UNIT = 1e27
RESPONSE = TemperatureResponse.default()


def one_bin(*indices):
    return np.eye(18)[:, indices]


class ShapePrior:
    """Given shapes, ``(bins, n)``, in turn, with a log-uniform total between limits in 10^27 cm^-5, ``(2, n)``."""

    families = ("one",)

    def __init__(self, shapes, limits):
        self.shapes, self.limits = np.asarray(shapes, dtype=float), np.asarray(limits, dtype=float)
        self.bins = LogTBins()

    def sample(self, n, *, seed, return_family=False):
        em = np.resize(self.shapes.T, (n, 18)).T * UNIT
        return (em, np.zeros(n, dtype=int)) if return_family else em

    def log_total_em(self, name, em):
        which = (np.abs(em[:, :, None] / em.sum(axis=0)[:, None] - self.shapes[:, None])).sum(axis=0).argmin(axis=1)
        return np.log10(self.limits[:, which] * UNIT)


def folded(shapes):
    """Intensities of shapes with a total EM of 10^27 cm^-5."""
    return RESPONSE.matrix.value @ np.asarray(shapes, dtype=float) * UNIT


def brute_force(log_likelihood, shapes, limits, n=20000):
    """Posterior mean, second moment and weight of each shape, by a sum over a fine grid of totals."""
    low, high = np.log(np.asarray(limits, dtype=float))
    totals = np.exp(low[:, None] + (high - low)[:, None] * (np.arange(n) + 0.5) / n)
    logs = log_likelihood(folded(shapes)[:, :, None] * totals)
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    mean = shapes @ (weights * totals).sum(axis=1) * UNIT
    return mean, np.square(shapes) @ (weights * totals**2).sum(axis=1) * UNIT**2, weights.sum(axis=1)


def gaussian(intensity, sigma):
    return lambda model: -0.5 * (((model - intensity[:, None, None]) / sigma[:, None, None]) ** 2).sum(axis=0)


def test_two_fixed_draws_are_weighted_by_their_likelihoods():
    shapes = one_bin(6, 7) * UNIT
    intensity = RESPONSE.matrix.value @ shapes @ [0.37, 0.63]
    sigma = 0.5 * intensity
    chi2 = (((RESPONSE.matrix.value @ shapes - intensity[:, None]) / sigma[:, None]) ** 2).sum(axis=0)
    expected = np.exp(-0.5 * chi2) / np.exp(-0.5 * chi2).sum()
    assert 0.05 < expected[0] < 0.95
    method = Importance(lambda n, seed: shapes[:, :n], draws=2, min_ess=1, response=RESPONSE)
    result = method.solve(intensity, sigma)
    np.testing.assert_allclose(result.em[[6, 7]] / UNIT, expected, rtol=1e-4)
    np.testing.assert_allclose(result.ess, 1 / (expected**2).sum(), rtol=1e-4)
    draws = method.sample(intensity, sigma, n=4000)
    assert (draws[:, 6] > 0).mean() == pytest.approx(expected[0], abs=0.03)
    assert set(np.unique(draws)) == {np.float32(0), np.float32(UNIT)}


@pytest.mark.parametrize("error", [0.05, 0.2, 1.0, 5.0])
def test_total_is_integrated_as_by_brute_force(error):
    shapes = np.stack([one_bin(6, 7).mean(axis=1), one_bin(7, 8).mean(axis=1)]).T
    limits = [[0.01, 0.1], [100, 10]]
    intensity = 2 * folded(shapes).mean(axis=1)
    sigma = error * intensity
    mean, square, weights = brute_force(gaussian(intensity, sigma), shapes, limits)
    method = Importance(ShapePrior(shapes, limits), draws=2, min_ess=1, response=RESPONSE)
    result, draws = method.solve(intensity, sigma), method.sample(intensity, sigma, n=20000).astype(float)
    np.testing.assert_allclose(result.em, mean, rtol=2e-3, atol=1e-4 * UNIT)
    np.testing.assert_allclose(draws.mean(axis=0), mean, rtol=0.05, atol=1e-4 * UNIT)
    np.testing.assert_allclose((draws**2).mean(axis=0), square, rtol=0.1, atol=1e-4 * UNIT**2)
    np.testing.assert_allclose(result.ess, 1 / (weights**2).sum(), rtol=2e-3)


def test_missing_channels_are_not_used():
    shapes = np.stack([one_bin(6, 7).mean(axis=1), one_bin(9, 12).mean(axis=1)]).T
    limits = [[0.01, 0.01], [100, 100]]
    intensity = folded(shapes).mean(axis=1)
    sigma = np.where(np.arange(6) % 2, np.inf, 0.3 * intensity)
    mean, *_ = brute_force(gaussian(intensity, sigma), shapes, limits)
    method = Importance(ShapePrior(shapes, limits), draws=2, min_ess=1, response=RESPONSE)
    by_uncertainty = method.solve(intensity, sigma)
    by_intensity = method.solve(np.where(np.isinf(sigma), np.nan, intensity), 0.3 * intensity)
    np.testing.assert_allclose(by_uncertainty.em, mean, rtol=2e-3, atol=1e-4 * UNIT)
    np.testing.assert_array_equal(by_intensity.em, by_uncertainty.em)


@pytest.mark.parametrize("saturated", [(2,), (0, 2, 4), (0, 1, 2, 3, 4)])
def test_saturated_channels_are_lower_limits(saturated):
    from scipy.stats import norm

    shapes = np.stack([one_bin(6, 7).mean(axis=1), one_bin(9, 12).mean(axis=1), one_bin(14).mean(axis=1)]).T
    limits = [[0.01] * 3, [100] * 3]
    intensity = folded(shapes).mean(axis=1)
    sigma, lower = 0.2 * intensity, np.isin(np.arange(6), saturated)
    intensity[lower] *= 1.2

    def log_likelihood(model):
        excess = (model - intensity[:, None, None]) / sigma[:, None, None]
        return np.where(lower[:, None, None], norm.logcdf(excess), -0.5 * excess**2).sum(axis=0)

    mean, _, weights = brute_force(log_likelihood, shapes, limits)
    result = Importance(ShapePrior(shapes, limits), draws=3, min_ess=1, response=RESPONSE).solve(
        intensity, sigma, lower_limit=lower
    )
    np.testing.assert_allclose(result.em, mean, rtol=0.01, atol=1e-3 * UNIT)
    np.testing.assert_allclose(result.ess, 1 / (weights**2).sum(), rtol=0.01)


def test_total_beyond_the_prior_stays_at_its_limit():
    method = Importance(ShapePrior(one_bin(7), [[0.1], [1.0]]), draws=1, min_ess=1, response=RESPONSE)
    intensity = 1.5 * folded(one_bin(7))[:, 0]
    mean, *_ = brute_force(gaussian(intensity, 0.1 * intensity), one_bin(7), [[0.1], [1.0]])
    result = method.solve(intensity, 0.1 * intensity)
    assert result.em[7] < UNIT
    np.testing.assert_allclose(result.em[7], mean[7], rtol=1e-4)


def test_interval_of_one_shape_is_that_of_its_total():
    # With a sharp likelihood the total is normal; half its 68 % interval is 0.994 standard deviations.
    intensity = folded(one_bin(7))[:, 0]
    result = Importance(ShapePrior(one_bin(7), [[0.01], [100.0]]), draws=1, min_ess=1, response=RESPONSE).solve(
        intensity, 0.02 * intensity
    )
    std = 0.02 / np.sqrt(6)
    expected = 1 + std * np.array([-1.960, -0.994, 0, 0.994, 1.960])
    np.testing.assert_allclose(result.quantiles[:, 7] / UNIT, expected, atol=0.15 * std)
    np.testing.assert_allclose(result.em_std[7] / UNIT, 0.994 * std, rtol=0.1)


def test_noise_that_depends_on_the_truth_is_integrated_as_by_brute_force():
    def variance(model):
        return (0.3 * model) ** 2 + 1

    shapes = np.stack([one_bin(6, 7).mean(axis=1), one_bin(7, 8).mean(axis=1)]).T
    limits, intensity = [[0.01, 0.1], [100, 10]], folded(shapes).mean(axis=1)

    def log_likelihood(model):
        sigma2 = variance(model)
        return -0.5 * ((model - intensity[:, None, None]) ** 2 / sigma2 + np.log(sigma2)).sum(axis=0)

    mean, *_ = brute_force(log_likelihood, shapes, limits)
    method = Importance(ShapePrior(shapes, limits), draws=2, min_ess=1, noise=variance, response=RESPONSE)
    np.testing.assert_allclose(method.solve(intensity, 0.3 * intensity).em, mean, rtol=5e-3, atol=1e-4 * UNIT)


@pytest.fixture(scope="module")
def pixels():
    truth = DEMPrior().sample(12, seed=3)
    return truth, *simulate_observation(truth, RESPONSE, seed=4, systematic=0.1, n_sample=64)


@pytest.fixture(scope="module")
def method():
    return Importance(DEMPrior(), draws=20000, response=RESPONSE)


def test_thinning_changes_little(pixels, method, monkeypatch):
    full = method.solve(*pixels[1:])
    monkeypatch.setattr("sunpy_deepem.methods.weighing._FOLLOWED", 500)
    part = method.solve(*pixels[1:])
    np.testing.assert_allclose(part.em.sum(axis=0), full.em.sum(axis=0), rtol=0.05)
    np.testing.assert_allclose(part.ess, full.ess, rtol=0.3)


def test_solution_of_an_image_is_that_of_its_pixels(pixels, method):
    _, intensity, sigma = pixels
    image = method.solve(intensity.reshape(6, 3, 4), sigma.reshape(6, 3, 4), RESPONSE)
    pixel = method.solve(intensity[:, 5], sigma[:, 5], RESPONSE)
    assert image.em.shape == image.em_std.shape == (18, 3, 4)
    assert image.status.shape == image.ess.shape == (3, 4)
    np.testing.assert_array_equal(pixel.em, image.em[:, 1, 1])
    draws = method.sample(intensity.reshape(6, 3, 4), sigma.reshape(6, 3, 4), n=5, seed=7)
    assert draws.shape == (5, 18, 3, 4)
    np.testing.assert_array_equal(method.sample(intensity[:, 5], sigma[:, 5], n=3, seed=7), draws[:3, :, 1, 1])


def test_draws_have_the_mean_of_the_posterior(pixels, method):
    result, draws = method.solve(*pixels[1:]), method.sample(*pixels[1:], n=4000)
    good = result.status == 0
    np.testing.assert_allclose(draws.sum(axis=1).mean(axis=0)[good], result.em.sum(axis=0)[good], rtol=0.05)


def test_status_says_which_pixels_have_no_answer(pixels, method):
    _, intensity, sigma = (array.copy() for array in pixels)
    intensity[:, 0] = np.nan
    intensity[:, 1], sigma[:, 1] = [1, 1e4, 1, 1e4, 1, 1e4], 0.01
    result = method.solve(intensity, sigma)
    assert result.status[0] == SolveStatus.INVALID
    assert result.status[1] == SolveStatus.FEW_DRAWS
    assert result.ess[1] < 50
    assert (result.status[2:] == 0).any()
    assert np.isnan(result.em[:, :2]).all()
    assert np.isnan(method.sample(intensity, sigma, n=2)[:, :, 0]).all()


def test_a_fixed_prior_of_the_same_draws_agrees_with_the_integrated_one(pixels):
    _, intensity, sigma = pixels
    sigma = 3 * sigma
    integrated = Importance(DEMPrior(), draws=20000, response=RESPONSE).solve(intensity, sigma)
    fixed = Importance(lambda n, seed: DEMPrior().sample(n, seed=seed), draws=100000, response=RESPONSE).solve(
        intensity, sigma
    )
    good = (integrated.status == 0) & (fixed.status == 0)
    assert good.sum() > 6
    ratio = np.log10(fixed.em.sum(axis=0) / integrated.em.sum(axis=0))[good]
    assert np.abs(ratio).max() < 0.1
    assert np.median(integrated.ess / 20000) > 3 * np.median(fixed.ess / 100000)


def test_cube_of_a_small_sun():
    cube = invert(sample_maps((8, 8)), shape=None, method=Importance(DEMPrior(), draws=20000, min_ess=5))
    assert cube.meta["provenance"]["method"] == "importance"
    solved = ~cube.mask.any(axis=0)
    assert solved.sum() > 10
    assert (cube.uncertainty.array[:, solved] > 0).any(axis=0).all()
    assert np.nanmedian(cube.chi2) < 2


def test_defaults():
    method = Importance(DEMPrior(), response=RESPONSE)
    assert (method.draws, method.seed, method.min_ess) == (1_000_000, 0, 50)
    intensity = folded(one_bin(7))
    method = Importance(ShapePrior(one_bin(7), [[0.1], [10.0]]), draws=1, min_ess=1, response=RESPONSE)
    for sample in (method.sample, method.sample_factors):
        draws = sample(intensity, 0.1 * intensity)
        assert len(draws) == 64
        np.testing.assert_array_equal(draws, sample(intensity, 0.1 * intensity, n=64, seed=0))


def test_factors_belong_to_the_draws():
    """One channel determines the product of its factor and the total EM, but neither of them."""
    prior = ShapePrior(one_bin(7), [[0.01], [100.0]])
    method = Importance(prior, draws=2000, min_ess=1, response=RESPONSE, factors={193: 0.5})
    intensity = np.where(np.arange(6) == 3, folded(one_bin(7))[:, 0], np.nan)
    draws, factors = method.sample(intensity, 0.01 * intensity), method.sample_factors(intensity, 0.01 * intensity)
    assert factors[:, 3].std() > 0.2
    np.testing.assert_allclose(factors[:, 3] * (RESPONSE.matrix.value @ draws.T)[3], intensity[3], rtol=0.06)


@pytest.mark.parametrize(("min_ess", "status"), [(2, SolveStatus.SOLVED), (2.01, SolveStatus.FEW_DRAWS)])
def test_enough_effective_draws(min_ess, status):
    """Two draws that explain the pixel alike."""
    shapes = one_bin(7, 7) * UNIT
    method = Importance(lambda n, seed: shapes[:, :n], draws=2, min_ess=min_ess, response=RESPONSE)
    result = method.solve(folded(one_bin(7))[:, 0], folded(one_bin(7))[:, 0])
    assert result.ess == 2
    assert result.status == status


def test_thinned_draws_are_in_proportion_to_their_weights():
    rng = np.random.default_rng(0)
    assert _systematic(np.array([0.0, 0, 0, 1]), 5, rng).tolist() == [3] * 5
    counts = np.bincount(_systematic(np.array([1.0, 0, 4, 3, 2]), 1000, rng))
    np.testing.assert_allclose(counts, [100, 0, 400, 300, 200], atol=1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e20])
def test_a_single_wrong_value_of_the_prior_is_refused(pixels, value):
    def prior(n, seed):
        em = np.full((18, n), 1e26)
        em[4, -1] = value
        return em

    with pytest.raises(ValueError, match="prior must return finite, non-negative EM"):
        Importance(prior, draws=10, response=RESPONSE).solve(*pixels[1:])


def test_wrong_arguments_are_refused(pixels, method):
    with pytest.raises(TypeError, match="prior must be callable"):
        Importance(3)
    with pytest.raises(ValueError, match="draws"):
        Importance(DEMPrior(), draws=0)
    with pytest.raises(ValueError, match="prior must return"):
        Importance(lambda n, seed: np.ones((5, n)), draws=10, response=RESPONSE).solve(*pixels[1:])
    with pytest.raises(ValueError, match="without EM"):
        Importance(lambda n, seed: np.zeros((18, n)), draws=10, response=RESPONSE).solve(*pixels[1:])
    with pytest.raises(ValueError, match="response is missing"):
        Importance(DEMPrior(), draws=10).solve(*pixels[1:])
    with pytest.raises(ValueError, match="uncertainty must have the shape"):
        method.solve(pixels[1], pixels[2][:, :3])
    with pytest.raises(ValueError, match="lower_limit must have the shape"):
        method.solve(*pixels[1:], lower_limit=[True] * 6)
    with pytest.raises(ValueError, match="bins of the prior"):
        method.solve(*pixels[1:], TemperatureResponse.default(bins=LogTBins(5.6, 0.1, 15)))
