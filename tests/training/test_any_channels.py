"""Channels are data: training, networks and other methods for eight made-up channels."""

import astropy.units as u
import numpy as np
import pytest

from sunpy_deepem import CHANNELS, DeepEM, TemperatureResponse, invert
from sunpy_deepem.methods import BasisPursuit, Demreg, Importance
from sunpy_deepem.sample import sample_maps
from sunpy_deepem.training import DEMPrior, TrainingOptions, TrainingSet, train_on_prior
from sunpy_deepem.units import RESPONSE_UNIT

NAMES = tuple(f"filter {letter}" for letter in "abcdefgh")


@pytest.fixture(scope="module")
def eight():
    """Curves that peak at eight temperatures."""
    log_t = np.linspace(5, 8, 151)
    peaks = np.linspace(5.6, 7.1, len(NAMES))
    curves = {name: 1e-25 * np.exp(-(((log_t - p) / 0.4) ** 2)) for name, p in zip(NAMES, peaks, strict=True)}
    return TemperatureResponse.from_curves(10**log_t * u.K, {name: c * RESPONSE_UNIT for name, c in curves.items()})


@pytest.fixture(scope="module")
def pixels(eight):
    return TrainingSet.from_prior(DEMPrior(), eight, 12, seed=1, systematic=0.2)


@pytest.fixture(scope="module")
def network(eight):
    options = TrainingOptions(epochs=2, consistency_epochs=1)
    return train_on_prior(DEMPrior(), eight, pixels=3000, network=(16,), options=options, posterior_epochs=1)


@pytest.mark.parametrize(
    "method", [BasisPursuit(), Demreg(), Importance(DEMPrior(), draws=100_000)], ids=lambda m: m.name
)
def test_methods_fit_eight_channels(method, eight, pixels):
    solution = method.solve(pixels.intensity, pixels.uncertainty, eight)
    solved = solution.status == 0
    assert solved.mean() > 0.5
    assert solution.em.shape == (18, 12)
    chosen = pixels.take(solved)
    residual = (eight.matrix.value @ solution.em[:, solved] - chosen.intensity) / chosen.uncertainty
    assert np.median(np.abs(residual)) < 2


def test_network_predicts_and_samples(network, eight, pixels):
    assert network.channels == NAMES
    em, em_std = network.predict(pixels.intensity, pixels.uncertainty)
    assert em.shape == em_std.shape == (18, 12)
    assert network.deviation(pixels.intensity, pixels.uncertainty).shape == (8, 12)
    # After so short a training only the scale is right.
    assert np.median(eight.matrix.value @ em / pixels.intensity) == pytest.approx(1, abs=0.4)
    partial = pixels.intensity.copy()
    partial[:5] = np.nan
    assert np.isfinite(network.sample(partial, pixels.uncertainty, n=4)).all()
    partial[:6] = np.nan
    assert np.isnan(network.sample(partial, pixels.uncertainty, n=4)).all()


def test_weights_file_keeps_names(network, eight, pixels, tmp_path):
    network.save(tmp_path / "eight.safetensors")
    again = DeepEM.load(tmp_path / "eight.safetensors")
    assert again.channels == NAMES
    assert again.fingerprint == network.fingerprint
    again.check_response(eight)
    np.testing.assert_array_equal(
        again.predict(pixels.intensity, pixels.uncertainty)[0], network.predict(pixels.intensity, pixels.uncertainty)[0]
    )


def test_training_set_keeps_names(pixels, response, tmp_path):
    pixels.save(tmp_path / "set.safetensors")
    again = TrainingSet.load(tmp_path / "set.safetensors")
    assert again.channels == again.take([0, 1]).channels == NAMES
    np.testing.assert_array_equal(again.intensity, pixels.intensity)
    with pytest.raises(ValueError, match="The training set has the channels"):
        again.usable(response)


def test_network_refuses_other_channels(network, eight, response):
    with pytest.raises(ValueError, match="response must have the channels of the network"):
        network.check_response(response)
    with pytest.raises(ValueError, match="must have the channels of the network"):
        network.check_response(TemperatureResponse(eight.temperature, eight.curves[::-1], channels=NAMES[::-1]))
    with pytest.raises(ValueError, match="response must be that of all six channels"):
        invert(sample_maps((16, 16)), method="basis-pursuit", response=eight)


def test_default_weights_are_of_aia():
    assert DeepEM.load("default").channels == CHANNELS
