"""Combination of long and short exposures."""

import astropy.units as u
import numpy as np
import pytest
from helpers import aia_map, changed, noise_by_aiapy, six

from sunpy_deepem import CHANNELS, ChannelStack, Quality
from sunpy_deepem.stack import combine_exposures

RATES = np.array([[100.0, 4000.0], [20000.0, 200000.0]])  # DN / s
TIMES = ("2014-01-01T00:00:00", "2014-01-01T00:00:12", "2014-01-01T00:00:24")


def exposure(channel, time, exptime, rates=RATES):
    counts = np.minimum(rates * exptime, 16383).astype(np.float32)
    return aia_map(channel, counts, exptime=exptime, **{"date-obs": time})


def exposures(channel=193, exptimes=(2.0, 0.2, 2.0)):
    return [exposure(channel, *facts) for facts in zip(TIMES, exptimes, strict=True)]


def test_nearest_unsaturated_exposure():
    (smap,) = combine_exposures(exposures(), obstime=TIMES[0])
    assert smap.meta["exptime"] == 0.2
    np.testing.assert_allclose(smap.data / 0.2, np.minimum(RATES, 16383 / 0.2), rtol=1e-6)
    assert smap.date.isot.startswith(TIMES[0])
    assert smap.meta["exposure"] == f"{TIMES[0]}.000 2 s 0.500; {TIMES[1]}.000 0.2 s 0.500"


def test_noise_is_that_of_each_exposure():
    (smap,) = combine_exposures(exposures(), obstime=TIMES[0])
    long, short = noise_by_aiapy(200.0, 193, 16)[()] / 10, noise_by_aiapy(4000.0, 193, 16)[()]
    assert smap.uncertainty.array[0, 0] == pytest.approx(long, rel=1e-5)
    assert smap.uncertainty.array[1, 0] == pytest.approx(short, rel=1e-5)


def test_stack():
    maps = [smap for channel in CHANNELS for smap in exposures(channel)]
    stack = ChannelStack.from_maps(combine_exposures(maps), degradation=None, systematic=0)
    assert stack.usable[:, 0, 0].all()
    assert stack.usable[:, 1, 0].all()
    np.testing.assert_allclose(stack.intensity[:, :, 0].value, RATES[np.newaxis, :, 0].repeat(6, axis=0), rtol=1e-6)
    assert stack.lower_limit[:, 1, 1].all()
    assert stack.quality[1, 1] & Quality.SATURATED
    np.testing.assert_allclose(stack.limit[:, 1, 1].value, 16383 / 0.2, rtol=1e-6)


def test_bloomed_exposures_are_avoided():
    rates = np.full((32, 4), 100.0)
    rates[10:18, 1] = 1e4
    maps = [exposure(193, TIMES[0], 2.0, rates), exposure(193, TIMES[1], 0.2, rates)]
    (smap,) = combine_exposures(maps, obstime=TIMES[0])
    # Scaled from 2 s, the noise is smaller than in 0.2 s.
    short = smap.uncertainty.array[:, 1] > 1.5 * smap.uncertainty.array[:, 0]
    assert np.flatnonzero(short).tolist() == list(range(2, 26))


def test_missing_pixels_take_another_exposure():
    maps = exposures(exptimes=(0.2, 0.2, 0.2))
    maps[0].data[0, 0] = np.nan
    (smap,) = combine_exposures(maps, obstime=TIMES[0])
    assert smap.data[0, 0] == pytest.approx(20)


def test_single_exposures_are_unchanged():
    maps = six(np.random.default_rng(0).uniform(100, 1000, (8, 8)))
    combined = combine_exposures(maps)
    for one, other in zip(combined, maps, strict=True):
        np.testing.assert_array_equal(one.data, other.data.astype(np.float32))
    options = {"systematic": 0, "degradation": None}
    one, other = (ChannelStack.from_maps(each, **options) for each in (combined, maps))
    np.testing.assert_array_equal(one.intensity, other.intensity)
    np.testing.assert_allclose(one.uncertainty, other.uncertainty, rtol=1e-6)


def test_default_time_is_the_median():
    (smap,) = combine_exposures(exposures(exptimes=(2.0, 2.0, 2.0)))
    assert smap.date.isot.startswith(TIMES[1])


def test_exposures_far_away_are_ignored():
    late = exposure(193, "2014-01-01T00:05:00", 0.02)
    (smap,) = combine_exposures([*exposures(), late], obstime=TIMES[0])
    assert smap.meta["exptime"] == 0.2
    with pytest.raises(ValueError, match="maps of 211 Å must be within 30 s of"):
        combine_exposures([*exposures(), exposure(211, "2014-01-01T00:05:00", 2.0)], obstime=TIMES[0])


def test_different_pixels():
    maps = exposures()
    maps[1] = changed(maps[1], crpix1=3.5)
    with pytest.raises(ValueError, match="maps of 193 Å must have the same pixels"):
        combine_exposures(maps)


@pytest.mark.parametrize("maps", [[], [aia_map(304, [[1.0]])]])
def test_other_maps(maps):
    with pytest.raises(ValueError, match="maps must be AIA maps of"):
        combine_exposures(maps)


def test_unit_of_time_span():
    with pytest.raises(TypeError, match="max_time_span"):
        combine_exposures(exposures(), max_time_span=60)
    assert len(combine_exposures(exposures(), max_time_span=1 * u.min).maps) == 1
