"""Constant factors of the channels' responses as nuisance parameters."""

import numpy as np
import pytest

from sunpy_deepem import CHANNELS, TemperatureResponse
from sunpy_deepem.methods import Importance
from sunpy_deepem.training import DEMPrior, PriorStream, simulate_observation

RESPONSE = TemperatureResponse.default()
WIDTH, SIGMA = 0.3, 0.05


def one_shape(n, seed):
    """A prior that knows the EM."""
    return np.full((18, n), 1e26)


def off_by(factor):
    """Intensities of that EM with 193 Å off by a factor, and their σ."""
    intensity = RESPONSE.matrix.value.sum(axis=1) * 1e26
    sigma = SIGMA * intensity
    intensity[CHANNELS.index(193)] *= factor
    return intensity, sigma


def test_factor_is_inferred_from_the_other_channels():
    method = Importance(one_shape, draws=30_000, response=RESPONSE, factors={193: WIDTH})
    factors = method.sample_factors(*off_by(1.4), n=4000)
    assert factors.shape == (4000, 6)
    assert (np.delete(factors, CHANNELS.index(193), axis=1) == 1).all()
    # The posterior of the factor on a grid: a log-normal prior and a normal likelihood.
    grid = np.linspace(0.5, 2, 4000)
    density = np.exp(-0.5 * (np.log(grid) / WIDTH) ** 2 - 0.5 * ((1.4 - grid) / SIGMA) ** 2) / grid
    mean = (grid * density).sum() / density.sum()
    std = np.sqrt(((grid - mean) ** 2 * density).sum() / density.sum())
    inferred = factors[:, CHANNELS.index(193)]
    assert inferred.mean() == pytest.approx(mean, abs=0.005)
    assert inferred.std() == pytest.approx(std, rel=0.1)


def test_interval_includes_the_truth_only_with_the_factor():
    em = DEMPrior().sample_family("active region", 1, seed=4)
    intensity = RESPONSE.matrix.value @ em[:, 0]
    sigma = 0.05 * intensity
    intensity[CHANNELS.index(335)] *= 1.8
    hot = {}
    for name, factors in (("known", None), ("unknown", {335: 0.5})):
        method = Importance(DEMPrior(), draws=60_000, response=RESPONSE, factors=factors)
        hot[name] = method.sample(intensity, sigma, n=400)[:, 10:12].sum(axis=1) / em[10:12].sum()
    assert np.quantile(hot["known"], 0.05) > 1
    low, high = np.quantile(hot["unknown"], (0.05, 0.95))
    assert low < 1 < high


def test_simulated_observations_have_factors_of_the_width_asked():
    em = DEMPrior().sample(4000, seed=1)
    how = {"seed": 2, "systematic": 0, "n_sample": 1e9}
    plain, _ = simulate_observation(em, RESPONSE, **how)
    intensity, sigma = simulate_observation(em, RESPONSE, **how, factors={94: 0.2})
    bright = (plain > 1).all(axis=0)
    factor = np.log(intensity[:, bright] / plain[:, bright])
    assert factor[0].std() == pytest.approx(0.2, rel=0.1)
    assert np.median(np.abs(factor[1:])) < 0.005
    assert (sigma[:, bright] < 0.1 * intensity[:, bright]).all()


def test_stream_of_a_prior_has_factors():
    with_factors = PriorStream(DEMPrior(), RESPONSE, 100, factors={94: 1.0})
    without = PriorStream(DEMPrior(), RESPONSE, 100)
    assert with_factors.identity != without.identity
    assert not np.allclose(with_factors.epoch(0).intensity[0], without.epoch(0).intensity[0])


@pytest.mark.parametrize("factors", [{94: -0.1}, {94: np.nan}, {94: "a"}])
def test_invalid_widths(factors):
    with pytest.raises(ValueError, match="factors"):
        Importance(one_shape, factors=factors)


def test_invalid_channels():
    with pytest.raises(TypeError, match="factors must be a dict"):
        Importance(one_shape, factors=0.2)
    with pytest.raises(ValueError, match="factors must be of the channels"):
        Importance(one_shape, draws=10, response=RESPONSE, factors={"XRT": 0.2}).sample(*off_by(1))
