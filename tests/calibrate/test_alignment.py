"""Measured shifts between channels."""

import numpy as np
import pytest
from scipy import ndimage

from sunpy_deepem.calibrate.alignment import measure_misalignment
from sunpy_deepem.channels import CHANNELS


@pytest.fixture(scope="module")
def sky():
    """A positive image with structure on all scales."""
    noise = np.random.default_rng(0).normal(size=(128, 160))
    return np.exp(sum(ndimage.gaussian_filter(noise, width) * width for width in (1, 2, 4, 8)))


@pytest.mark.parametrize("shift", [(0, 0), (3, -2), (-7, 5), (0.4, -0.3)])
def test_known_shift(sky, shift):
    images = np.array([sky.copy() for _ in CHANNELS])
    images[0] = ndimage.shift(sky, shift, order=3, mode="wrap")
    found = measure_misalignment(images)
    np.testing.assert_allclose(found[0], shift, atol=0.1)
    np.testing.assert_allclose(found[1:], 0, atol=1e-6)


def test_brightness_is_irrelevant(sky):
    images = np.array([factor * sky for factor in (0.01, 1, 100, 1, 3, 0.5)])
    np.testing.assert_allclose(measure_misalignment(images), 0, atol=0.05)


def test_unrelated_images(sky):
    images = np.array([sky.copy() for _ in CHANNELS])
    images[1] = np.random.default_rng(1).uniform(size=sky.shape)
    found = measure_misalignment(images)
    assert np.isnan(found[1]).all()
    assert np.isfinite(np.delete(found, 1, axis=0)).all()


def test_large_images_are_averaged(sky):
    large = np.array([np.kron(sky, np.ones((8, 8))) for _ in CHANNELS])
    large[5] = np.roll(large[5], (16, -8), (0, 1))
    np.testing.assert_allclose(measure_misalignment(large)[5], (16, -8), atol=1)


@pytest.mark.parametrize("fill", [np.nan, 0.0])
def test_empty_images(sky, fill):
    images = np.array([sky.copy() for _ in CHANNELS])
    images[2] = fill
    assert np.isnan(measure_misalignment(images)[2]).all()


def test_real_sun(real_sun):
    from sunpy_deepem import ChannelStack

    stack = ChannelStack.from_maps(real_sun)
    assert np.abs(measure_misalignment(stack.intensity.value)).max() < 0.25
