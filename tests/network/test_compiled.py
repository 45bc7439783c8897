"""The compiled draws of a CPU are those that PyTorch computes on other devices."""

import numpy as np
import pytest
import torch

from sunpy_deepem import DeepEM, TemperatureResponse
from sunpy_deepem.network import PosteriorNetwork, sampling
from sunpy_deepem.network.sampling import common_numbers, draw_tile
from sunpy_deepem.network.tiles import in_precision
from sunpy_deepem.training import DEMPrior, simulate_observation
from sunpy_deepem.units import EM_SCALE

PIXELS = 60


@pytest.fixture(scope="module")
def posterior():
    return DeepEM.load("default").posterior


def observed(systematic=0.1):
    """Return intensity and σ of draws from the default prior as tensors, shape ``(1, 6, 1, pixels)``."""
    rng = np.random.default_rng(4)
    response = TemperatureResponse.default()
    arrays = simulate_observation(
        DEMPrior().sample(PIXELS, seed=rng), response, seed=rng, systematic=systematic, n_sample=64
    )
    return [torch.tensor(array, dtype=torch.float32)[None, :, None] for array in arrays]


def both(monkeypatch, network, intensity, sigma, flags=None, n=64, matrix=None):
    """Return the draws in units of each pixel's mean total EM, compiled and by PyTorch, shape (n, bins, pixels)."""
    if matrix is None:
        matrix = torch.tensor(TemperatureResponse.default().matrix.value * EM_SCALE, dtype=torch.float32)
    arguments = (network, intensity, sigma, flags, matrix, common_numbers(n, 0, *matrix.shape[::-1]))
    with torch.no_grad():
        compiled = draw_tile(*arguments)
        monkeypatch.setattr(sampling, "_draw_compiled", sampling._draw)
        expected = draw_tile(*arguments)
    assert compiled.shape == expected.shape == (n, matrix.shape[1], intensity.shape[-1])
    total = expected.sum(dim=1).mean(dim=0)
    return compiled / total, expected / total


def assert_alike(compiled, expected):
    """Nearly all are equal to rounding; steps that start near a threshold may end elsewhere."""
    difference = (compiled - expected).abs().amax(dim=1)
    assert difference.median() < 1e-4
    assert (difference > 0.01).float().mean() < 0.01


@pytest.mark.parametrize("systematic", [0.0, 0.02, 0.1, 0.25])
def test_noise(monkeypatch, posterior, systematic):
    assert_alike(*both(monkeypatch, posterior, *observed(systematic)))


@pytest.mark.parametrize("n", [1, 5, 16, 100])
def test_numbers_of_draws(monkeypatch, posterior, n):
    assert_alike(*both(monkeypatch, posterior, *observed(), n=n))


def test_missing_channels_and_lower_limits(monkeypatch, posterior):
    intensity, sigma = observed()
    flags = torch.zeros(1, 12, 1, PIXELS, dtype=torch.bool)
    # The first six flags are of missing channels, the others of lower limits.
    flags[:, 0, :, ::2] = flags[:, 3, :, ::3] = flags[:, 9, :, 1::3] = True
    assert_alike(*both(monkeypatch, posterior, intensity, sigma, flags))


def test_intensities_that_contradict_each_other(monkeypatch, posterior):
    intensity, sigma = observed(0.02)
    intensity[:, 2] *= -1
    intensity[:, 4] *= 30
    # Steps do not converge, so that rounding errors grow.
    for draws in both(monkeypatch, posterior, intensity, sigma):
        assert torch.isfinite(draws).all()
        assert (draws >= 0).all()


def test_any_number_of_channels_bins_and_components(monkeypatch):
    torch.manual_seed(0)
    network = PosteriorNetwork(np.full(8, 10.0), 5, hidden=(16,), components=3)
    matrix = 5 + 10 * torch.rand(8, 5)
    intensity = 20 + 100 * torch.rand(1, 8, 1, PIXELS)
    assert_alike(*both(monkeypatch, network, intensity, 0.1 * intensity, matrix=matrix))


def test_no_pixels(posterior):
    empty = torch.empty(1, 6, 1, 0)
    matrix = torch.tensor(TemperatureResponse.default().matrix.value * EM_SCALE, dtype=torch.float32)
    with torch.no_grad():
        assert draw_tile(posterior, empty, empty, None, matrix, common_numbers(4, 0, 18, 6)).shape == (4, 18, 0)


@pytest.mark.parametrize("missing", [False, True])
def test_predict(missing):
    """PyTorch computes the layers with gradients, and on other devices."""
    module = DeepEM.load("default").module
    intensity, sigma = observed()
    flags = torch.zeros(1, 12, 1, PIXELS, dtype=torch.bool) if missing else None
    if missing:
        flags[:, 0, :, ::2] = flags[:, 9, :, 1::3] = True
    with torch.enable_grad():
        expected = [values.detach() for values in module(intensity, sigma, flags)]
    with torch.no_grad():
        found = module(intensity, sigma, flags)
    for values, same in zip(found, expected, strict=True):
        torch.testing.assert_close(values, same, rtol=1e-3, atol=1e-6 * float(same.max()))


@pytest.mark.parametrize("spread", [False, True])
def test_predict_in_bfloat16(monkeypatch, spread):
    """What surrounds the layers is compiled; rounded inputs may differ by a unit of bfloat16."""
    module = in_precision(DeepEM.load("default").module, torch.bfloat16)
    with torch.no_grad():
        found = module(*observed(), spread=spread)
        monkeypatch.setattr(type(module), "_is_compiled", lambda *_: False)
        expected = module(*observed(), spread=spread)
    for values, same in zip(found[: 1 + spread], expected, strict=False):
        torch.testing.assert_close(values, same, rtol=0.02, atol=0)
        assert (values / same - 1).abs().median() < 1e-5
    assert (found[1] is None) == (not spread)


def test_predict_of_a_pixel_does_not_depend_on_channels_of_others():
    network = DeepEM.load("default")
    intensity, sigma = (values[0, :, 0].numpy() for values in observed())
    spoiled = intensity.copy()
    spoiled[2, 7] = np.nan
    for values, expected in zip(network.predict(spoiled, sigma), network.predict(intensity, sigma), strict=True):
        np.testing.assert_array_equal(np.delete(values, 7, axis=1), np.delete(expected, 7, axis=1))
        assert np.isfinite(values).all()
