"""Training that needs draws from a posterior."""

import copy

import numpy as np
import pytest
import torch

from sunpy_deepem import DeepEM, TemperatureResponse
from sunpy_deepem.network import ScaledNetwork
from sunpy_deepem.training import DEMPrior, TrainingOptions, TrainingSet, fit_to_draws, match_coverage
from sunpy_deepem.training.fitting import pixel_tensors
from sunpy_deepem.units import EM_SCALE

RESPONSE = TemperatureResponse.default()


@pytest.fixture(scope="module")
def data():
    pixels = TrainingSet.from_prior(DEMPrior(), RESPONSE, 6000, seed=3, systematic=0.1, n_sample=64)
    return pixel_tensors(pixels.usable(RESPONSE), RESPONSE, "cpu", seed=[3, 0])


@pytest.fixture
def network():
    return copy.deepcopy(DeepEM.load())


def narrowed(network, factor):
    """Multiply the widths of the components by a factor."""
    posterior = network.posterior
    with torch.no_grad():
        posterior.layers[-1].bias.split(posterior.sizes)[2].add_(np.log(factor))
    return network


def test_packaged_posterior_was_calibrated(network, data):
    expected = network.posterior.widening
    match_coverage(network, data)
    assert network.posterior.widening == pytest.approx(expected, abs=0.15)
    # What is known of a pixel with fewer channels is harder to learn.
    assert expected == tuple(sorted(expected))


def test_narrow_posterior_is_widened(network, data):
    expected = network.posterior.widening
    match_coverage(narrowed(network, 0.75), data)
    assert network.posterior.widening == pytest.approx([factor / 0.75 for factor in expected], rel=0.2)


@pytest.mark.slow
def test_network_learns_mean_and_width_of_draws(network, data):
    torch.manual_seed(0)
    scale = RESPONSE.matrix.value.sum(axis=1) * EM_SCALE
    network.module = ScaledNetwork(scale, len(RESPONSE.bins), (16, 16))
    intensity, uncertainty, _, flags = data
    full = ~flags.any(dim=0)
    observed = intensity[:, full].numpy(), uncertainty[:, full].numpy()
    mean = network.map_draws(lambda draws: draws.mean(axis=0), *observed)

    def error():
        em = network.predict(*observed, precision="float32")[0]
        return np.median(np.abs(em - mean).sum(axis=0) / mean.sum(axis=0))

    before = error()
    options = TrainingOptions(epochs=40, batch_size=100)
    losses = fit_to_draws(network, data, RESPONSE, options)
    assert losses[-1]["train"] < 0.2 * losses[0]["train"]
    assert error() < 0.5 * before


def test_random_numbers_are_not_common_to_all_pixels_to_learn_from(network, data, monkeypatch):
    seeds, map_draws = [], DeepEM.map_draws

    def recording(*args, seed, **kwargs):
        seeds.append(seed)
        return map_draws(*args, seed=seed, **kwargs)

    monkeypatch.setattr(DeepEM, "map_draws", recording)
    few = [array[:, :300] for array in data]
    fit_to_draws(network, few, RESPONSE, TrainingOptions(epochs=1))
    assert 1 < len(seeds) == len(set(seeds))
