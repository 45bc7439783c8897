"""Channels that are inconsistent with the other five, though a DEM could explain them."""

import numpy as np
import pytest
import torch

from sunpy_deepem import CHANNELS, ChannelStack, DeepEM, Quality, TemperatureResponse, invert
from sunpy_deepem.network.consistency import ChannelConsistency
from sunpy_deepem.quality import image_deviation, unusual_flags
from sunpy_deepem.sample import sample_maps
from sunpy_deepem.training import DEMPrior, TrainingSet, fit
from sunpy_deepem.training.consistency import fit_consistency

RESPONSE = TemperatureResponse.default()


@pytest.fixture(scope="module")
def sun():
    """Intensity and σ of the pixels of the sample, which is not in the training set."""
    stack = ChannelStack.from_maps(sample_maps((64, 64)))
    return stack.intensity.value[:, ~stack.mask], stack.uncertainty.value[:, ~stack.mask]


def unusual(intensity, uncertainty):
    """Return the fraction of flagged pixels."""
    deviation = DeepEM.load().deviation(intensity, uncertainty)
    return (unusual_flags(deviation, image_deviation(deviation, intensity, uncertainty)) != 0).mean()


def test_solar_pixels_are_not_flagged(sun):
    assert unusual(*sun) < 0.1


@pytest.mark.parametrize("factor", [3, 1 / 3])
@pytest.mark.parametrize("channel", CHANNELS)
def test_channel_off_by_a_factor_of_three_flags_all_pixels(sun, channel, factor):
    scale = np.where(np.array(CHANNELS) == channel, factor, 1.0)[:, np.newaxis]
    assert unusual(sun[0] * scale, sun[1] * scale) == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [(i, j) for i in range(6) for j in range(i + 1, 6) if (CHANNELS[i], CHANNELS[j]) != (171, 193)],
)
def test_swapped_channels_flag_all_pixels(sun, first, second):
    order = list(range(6))
    order[first], order[second] = second, first
    assert unusual(sun[0][order], sun[1][order]) == 1


def test_swapped_171_and_193_flag_some_pixels(sun):
    """They are equally bright in much of the quiet Sun."""
    order = [0, 1, 3, 2, 4, 5]
    assert unusual(sun[0][order], sun[1][order]) > 2 * unusual(*sun)


@pytest.mark.parametrize("trained", ["shipped", "now"])
def test_prediction_of_a_channel_does_not_depend_on_it(sun, trained):
    intensity, uncertainty = (torch.as_tensor(array[:, :50], dtype=torch.float32) for array in sun)
    if trained == "shipped":
        module = DeepEM.load().consistency
    else:
        module = fit_consistency(TrainingSet.from_prior(DEMPrior(), RESPONSE, 3000, seed=1), RESPONSE, epochs=1)
    with torch.inference_mode():
        predicted = module(intensity, uncertainty)[0]
        for channel in range(6):
            other = intensity.clone()
            other[channel] *= 7
            torch.testing.assert_close(module(other, uncertainty)[0][channel], predicted[channel])


def test_deviations_of_prior_pixels_are_about_one():
    pixels = TrainingSet.from_prior(DEMPrior(), RESPONSE, 3000, seed=11)
    deviation = DeepEM.load().deviation(pixels.intensity, pixels.uncertainty)
    assert np.abs(np.median(deviation, axis=1)).max() < 0.2
    assert 0.3 < np.median(np.abs(deviation)) < 1


def test_tensors_give_tensors(sun):
    expected = DeepEM.load().deviation(*sun)
    found = DeepEM.load().deviation(*(torch.from_numpy(values) for values in sun))
    assert isinstance(found, torch.Tensor)
    np.testing.assert_array_equal(found.numpy(), expected)


def test_runs_on_any_device():
    module = ChannelConsistency(np.ones(6), width=2).to("meta")
    with torch.inference_mode():
        deviation = module.deviation(*(torch.empty(6, 5, device="meta") for _ in range(2)))
    assert (deviation.shape, deviation.device.type) == ((6, 5), "meta")


def test_pixels_with_missing_channels_are_not_flagged(sun):
    intensity = sun[0].copy()
    intensity[2, 7] = np.nan
    deviation = DeepEM.load().deviation(intensity, sun[1])
    assert np.isnan(deviation[:, 7]).all()
    assert np.isfinite(np.delete(deviation, 7, axis=1)).all()
    assert unusual_flags(deviation, np.full(6, 10.0))[7] == 0
    assert (np.delete(unusual_flags(deviation, np.full(6, 10.0)), 7) == Quality.UNUSUAL).all()


def test_invert_flags_swapped_maps():
    maps = list(sample_maps((64, 64)))
    swapped = [maps[i]._new_instance(maps[j].data, maps[i].meta) for i, j in enumerate([1, 0, 2, 3, 4, 5])]
    dem = invert(maps, shape=None)
    valid = ~dem.sky_mask
    assert (dem.quality[valid] & Quality.UNUSUAL != 0).mean() < 0.1
    assert (invert(swapped, shape=None).quality[valid] & Quality.UNUSUAL != 0).all()


def test_save_and_load_with_and_without_consistency(tmp_path, sun):
    pixels = TrainingSet.from_prior(DEMPrior(), RESPONSE, 2000, seed=1)
    quick = {"network": (8,), "epochs": 1, "seed": 2}
    network = fit(pixels, RESPONSE, consistency_epochs=1, **quick)
    network.save(tmp_path / "with.safetensors")
    again = DeepEM.load(tmp_path / "with.safetensors")
    np.testing.assert_array_equal(again.deviation(*sun), network.deviation(*sun))
    without = fit(pixels, RESPONSE, consistency_epochs=0, **quick)
    assert without.deviation(*sun) is None
    without.save(tmp_path / "without.safetensors")
    assert DeepEM.load(tmp_path / "without.safetensors").deviation(*sun) is None
