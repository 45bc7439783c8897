"""Tests of the Fe XVIII estimate."""

from types import SimpleNamespace

import astropy.units as u
import numpy as np
import pytest

from sunpy_deepem.analysis import fe_xviii, fe_xviii_map
from sunpy_deepem.units import INTENSITY_UNIT


def test_hand_calculation():
    intensity = np.array([7.0, 1, 900, 1, 240, 1]) * INTENSITY_UNIT
    assert fe_xviii(intensity) == (7 - 2 - 2) * INTENSITY_UNIT
    line, sigma = fe_xviii(intensity, np.array([3.0, 9, 0, 9, 480, 9]) * INTENSITY_UNIT)
    assert line == 3 * INTENSITY_UNIT
    assert sigma == 5 * INTENSITY_UNIT


def test_shape_of_images():
    assert fe_xviii(np.ones((6, 3, 4)) * INTENSITY_UNIT).shape == (3, 4)


def test_map_peaks_in_hot_core(cube):
    smap = fe_xviii_map(cube)
    line, sigma = fe_xviii(cube.intensity, cube.intensity_uncertainty)
    np.testing.assert_allclose(smap.data, line.value)
    np.testing.assert_allclose(smap.uncertainty.array, sigma.value)
    assert smap.unit == u.DN / u.s
    assert smap.observer_coordinate.radius.to_value("AU") == pytest.approx(0.983, abs=0.001)
    hottest = np.unravel_index(np.argmax(smap.data), smap.data.shape)
    assert cube.em_weighted_log_t().data[hottest] > 6.6
    for source in (smap, SimpleNamespace(header={}), SimpleNamespace(intensity=cube.intensity)):
        with pytest.raises(TypeError, match="source must be a ChannelStack or a DEMCube"):
            fe_xviii_map(source)


def test_invalid_intensity():
    with pytest.raises(ValueError, match="the 6 channels"):
        fe_xviii(np.ones(5) * INTENSITY_UNIT)
    with pytest.raises(u.UnitsError):
        fe_xviii(np.ones(6) * u.DN)
