"""Warnings about maps that contradict each other."""

import astropy.units as u
import numpy as np
import pytest
from helpers import aia_map, changed, random_counts, replaced, six
from sunpy.util.exceptions import SunpyUserWarning

from sunpy_deepem import CHANNELS, ChannelStack
from sunpy_deepem.sample import real_maps, sample_maps
from sunpy_deepem.stack.agreement import check_fields, check_units

#: Roll in degrees, plate scale in arcsec and center of the Sun in pixels of AIA's channels in level 1 on 2011-02-15
LEVEL_1 = {
    94: (-0.137680, 0.600109, 2053.51, 2041.5),
    131: (-0.138856, 0.600698, 2046.74, 2044.2),
    171: (0.019266, 0.599489, 2055.06, 2045.8),
    193: (0.056381, 0.600758, 2045.21, 2046.1),
    211: (0.056363, 0.600758, 2040.06, 2042.4),
    335: (-0.142513, 0.600737, 2045.60, 2043.9),
}


def level_1_maps():
    """Full disks as AIA takes them, with few pixels of sky."""
    maps = []
    for channel, (roll, scale, x, y) in LEVEL_1.items():
        pointing = {"crota2": roll, "scale": scale * 128, "crpix1": (x + 0.5) / 128, "crpix2": (y + 0.5) / 128}
        maps.append(aia_map(channel, np.ones((32, 32)), lvl_num=1, **pointing))
    return maps


@pytest.mark.parametrize(
    "maps",
    [
        lambda: list(real_maps()),
        lambda: list(sample_maps((32, 32))),
        level_1_maps,
        lambda: six(random_counts(), crota2=30.0),
        lambda: six(random_counts(), crota2=180.0),
        lambda: six(random_counts(), bunit="DN / s"),
        lambda: [changed(smap, crota2=roll) for smap, roll in zip(six(random_counts()), [180, -180] * 3, strict=True)],
    ],
    ids=["real", "synthetic", "level 1", "all rolled", "upside down", "all per second", "two ways of upside down"],
)
def test_maps_that_agree(maps):
    check_fields(maps())
    check_units(maps())


def test_other_number_of_pixels():
    fine, coarse = aia_map(94, random_counts((32, 32)), scale=1.2), six(random_counts())[1:]
    check_fields([fine, *coarse])


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize(
    ("cards", "told"),
    [
        ({"crota2": 1.5}, r"rolled by 1\.50°, corners 0\.7 arcsec"),
        ({"crval1": -7.2}, r"rolled by 0\.00°, corners 7\.2 arcsec"),
        ({"crpix2": 13.5}, r"rolled by 0\.00°, corners 12\.0 arcsec"),
        ({"cdelt1": 3.6}, r"rolled by 0\.00°, corners 9\.6 arcsec"),
        ({"cdelt1": 3.6, "crpix1": 5.8333}, r"rolled by 0\.00°, corners 19\.2 arcsec"),
        ({"cdelt1": -2.4}, r"rolled by 180\.00°, corners 38\.4 arcsec"),
    ],
    ids=str,
)
def test_one_channel_differs(channel, cards, told):
    maps = replaced(six(random_counts()), channel, lambda smap: changed(smap, **cards))
    with pytest.warns(SunpyUserWarning, match=rf"of the other channels: {channel} Å \({told} away\)\. Pixels"):
        check_fields(maps)


def test_level_1_may_differ_more():
    maps = six(random_counts(), lvl_num=1)
    check_fields(replaced(maps, 171, lambda smap: changed(smap, crval1=20.0)))
    with pytest.warns(SunpyUserWarning, match="171 Å"):
        check_fields(replaced(maps, 171, lambda smap: changed(smap, crval1=50.0)))


def test_two_channels_differ():
    maps = six(random_counts())
    for channel in (94, 335):
        maps = replaced(maps, channel, lambda smap: changed(smap, crota2=-2.0))
    with pytest.warns(SunpyUserWarning, match=r"94 Å \(rolled by 2\.00°.*, 335 Å \(rolled by 2\.00°"):
        ChannelStack.from_maps(maps)


def test_other_unit():
    maps = replaced(six(random_counts()), 211, lambda smap: changed(smap, bunit="DN / s"))
    with pytest.warns(SunpyUserWarning, match="maps of 211 Å are in DN / s, but those of 94 Å, 131 Å, .* in DN. Check"):
        ChannelStack.from_maps(maps)


class TestMiddleOfExposure:
    """T_OBS is the middle of the exposure."""

    @staticmethod
    def maps(**cards):
        return replaced(six(random_counts()), 171, lambda smap: changed(smap, **cards))

    @pytest.mark.parametrize(
        "middle",
        ["2014-01-01T00:00:01.000", "2014-01-01T00:00:01.01Z", "2014-01-01T00:00:00.99Z", "2014.01.01_00:00:36.00_TAI"],
    )
    def test_agrees(self, middle):
        ChannelStack.from_maps(self.maps(t_obs=middle))

    def test_whole_seconds_are_too_coarse(self):
        ChannelStack.from_maps(self.maps(t_obs="2014-01-01T00:00:02Z"))

    def test_start_in_both(self):
        ChannelStack.from_maps(self.maps(t_obs="2014-01-01T00:00:00.000"))

    @pytest.mark.parametrize("exptime", [1.96, 2.04, 1.0, 2.9])
    def test_differs(self, exptime):
        maps = self.maps(t_obs="2014-01-01T00:00:01.000", exptime=exptime)
        with pytest.warns(SunpyUserWarning, match=rf"time {exptime:g} s is used, but T_OBS is 1 s after"):
            ChannelStack.from_maps(maps)

    def test_after_whole_minutes(self):
        start = {"date-obs": "2014-01-01T00:00:59.500", "t_obs": "2014-01-01T00:01:00.50"}
        stack = ChannelStack.from_maps(self.maps(**start), max_time_span=2 * u.min)
        assert stack.inputs[2]["exposure_time"] == 2
