"""The packaged real Sun: `real_maps`."""

from importlib import resources

import sunpy.map
from sunpy.map import MapSequence

from sunpy_deepem.channels import CHANNELS

__all__ = ["real_maps"]

_FOLDER = "aia_20140101"
_NAME = "AIA20140101_0000_{:04d}.fits"


def real_maps() -> MapSequence:
    """
    Return six AIA maps of the Sun on 2014-01-01 at 00:00 UT, level 1.5, which the package contains.

    They are JSOC's synoptic images, binned to 256 × 256 pixels of 9.6 arcsec: a pixel holds the mean of AIA's native
    pixels, rounded to steps of 1/64 DN, which is far less than the noise. No pixel is saturated. Active region AR 11936
    is near x = 600″, y = −290″.

    Returns
    -------
    `~sunpy.map.MapSequence`
        Six `~sunpy.map.sources.AIAMap` in DN, not per second, not corrected for degradation, in the order of
        `sunpy_deepem.CHANNELS`.

    Notes
    -----
    Courtesy of NASA/SDO and the AIA science team.

    Examples
    --------
    >>> from sunpy_deepem.sample import real_maps
    >>> [int(smap.exposure_time.value) for smap in real_maps()]
    [2, 2, 1, 2, 2, 2]
    """
    folder = resources.files("sunpy_deepem.data") / _FOLDER
    maps = []
    for channel in CHANNELS:
        with resources.as_file(folder / _NAME.format(channel)) as path:
            maps.append(sunpy.map.Map(path))
    return sunpy.map.Map(maps, sequence=True, sortby=None)
