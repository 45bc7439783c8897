"""Quality flags."""

import numpy as np
import pytest

from sunpy_deepem.quality import MASKED, NO_DATA, Quality, image_deviation, signal_flags, unusual_flags


def test_sets_of_flags():
    assert Quality.MISSING in NO_DATA
    assert Quality.FEW_CHANNELS in NO_DATA
    for flag in (Quality.FEW_CHANNELS, Quality.UNSOLVED, Quality.OUTSIDE):
        assert flag in MASKED


@pytest.mark.parametrize(
    ("intensity", "expected"),
    [
        ([4, 4, 4, 1, 1, 1], Quality(0)),
        ([4, 4, 3, 1, 1, 1], Quality.LOW_SIGNAL),
        ([4, 4, 4, 1, 1, -1], Quality.NEGATIVE),
        ([4, 4, 0, 1, 1, -1], Quality.LOW_SIGNAL | Quality.NEGATIVE),
        ([4, 1, 1, np.nan, np.nan, np.nan], Quality.LOW_SIGNAL),
        ([4, 1, np.nan, np.nan, np.nan, np.nan], Quality(0)),
    ],
)
def test_signal_flags(intensity, expected):
    """At least three channels should exceed 3 σ."""
    assert Quality(int(signal_flags(np.array(intensity, dtype=float), np.ones(6)))) == expected


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("deviation", "flagged"), [(2.9, False), (3.1, True)])
def test_unusual_pixels(sign, deviation, flagged):
    of_pixels = np.zeros((6, 2))
    of_pixels[3, 1] = sign * deviation
    assert (unusual_flags(of_pixels, np.zeros(6)) != 0).tolist() == [False, flagged]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("deviation", "flagged"), [(2.0, False), (2.2, True)])
def test_unusual_images(sign, deviation, flagged):
    of_image = np.where(np.arange(6) == 4, sign * deviation, 0)
    assert (unusual_flags(np.zeros((6, 3)), of_image) != 0).tolist() == [flagged] * 3


def test_deviation_of_an_image_is_that_of_its_brighter_half():
    """Brightness is in units of σ."""
    intensity, sigma = np.array([[1.0, 2, 3, 400]] * 6), np.array([[0.1, 0.1, 1, 200]] * 6)
    deviation = np.array([[1.0, 3, 50, 90]] * 6)
    np.testing.assert_array_equal(image_deviation(deviation, intensity, sigma), 2)
    np.testing.assert_array_equal(image_deviation(deviation * np.nan, intensity, sigma), 0)
