"""Small AIA maps and cubes whose content is known."""

import functools

import astropy.units as u
import numpy as np
import sunpy.map

from sunpy_deepem import CHANNELS, ChannelStack, DEMCube, TemperatureResponse
from sunpy_deepem.sample.synthetic import sample_em, sample_maps

#: Exposure times in s, one for each channel, as AIA's differ from channel to channel.
EXPOSURES = dict(zip(CHANNELS, (2.9, 2.8, 2.0, 2.1, 2.7, 3.0), strict=True))


def aia_map(channel, data, *, scale=2.4, mask=None, uncertainty=None, **cards):
    """An AIA map of ``data``, level 1.5 and centred on the Sun unless ``cards`` say otherwise."""
    ny, nx = np.shape(data)
    header = {
        "telescop": "SDO/AIA",
        "instrume": "AIA_1",
        "lvl_num": 1.5,
        "wavelnth": channel,
        "waveunit": "angstrom",
        "exptime": EXPOSURES.get(channel, 2.0),
        "bunit": "DN",
        "date-obs": "2014-01-01T00:00:00.000",
        "dsun_obs": 1.4711e11,
        "rsun_ref": 6.96e8,
        "rsun_obs": 975.9,
        "hgln_obs": 0.0,
        "hglt_obs": -3.0,
        "crota2": 0.0,
        "ctype1": "HPLN-TAN",
        "ctype2": "HPLT-TAN",
        "cunit1": "arcsec",
        "cunit2": "arcsec",
        "crval1": 0.0,
        "crval2": 0.0,
        "cdelt1": scale,
        "cdelt2": scale,
        "crpix1": (nx + 1) / 2,
        "crpix2": (ny + 1) / 2,
    }
    header = {key: value for key, value in (header | cards).items() if value is not None}
    return sunpy.map.Map(np.asarray(data), header, mask=mask, uncertainty=uncertainty)


def six(data, **cards):
    """Six maps of the same data, or of one array for each channel."""
    images = [data] * len(CHANNELS) if np.ndim(data) == 2 else data
    return [aia_map(channel, image, **cards) for channel, image in zip(CHANNELS, images, strict=True)]


def changed(smap, *, data=None, **cards):
    """The same map with other data or header cards; a card of `None` is taken out."""
    header = {key: value for key, value in (dict(smap.meta) | cards).items() if value is not None}
    return sunpy.map.Map(smap.data if data is None else data, header, mask=smap.mask)


def world_grid(smap):
    """Helioprojective x and y of the pixels in arcsec, from the map's own WCS."""
    ny, nx = smap.data.shape
    degrees = smap.wcs.wcs_pix2world(np.stack(np.meshgrid(np.arange(nx), np.arange(ny)), axis=-1).reshape(-1, 2), 0)
    x, y = (degrees * 3600).T.reshape(2, ny, nx)
    return (x + 180 * 3600) % (360 * 3600) - 180 * 3600, y


def blob(x, y, center, width):
    """A Gaussian of height one on the sky, arcsec."""
    return np.exp(-((x - center[0]) ** 2 + (y - center[1]) ** 2) / (2 * width**2))


def centroid(image, x, y):
    """Centre of gravity of an image on the sky, arcsec."""
    return np.array([(image * x).sum(), (image * y).sum()]) / image.sum()


def true_cube(maps=None, n=32):
    """The cube of the sample's true EM beside what was observed of it: a fit as good as can be, without a network."""
    stack = ChannelStack.from_maps(sample_maps((n, n)) if maps is None else maps, shape=None)
    em = _true_em(n)
    return DEMCube.from_arrays(
        em,
        0.2 * em + 1e23,
        TemperatureResponse.default(),
        stack.header,
        stack.inputs,
        intensity=stack.intensity,
        uncertainty=stack.uncertainty,
        quality=stack.quality,
        meta=stack.meta | {"method": "truth"},
    )


@functools.cache
def _true_em(n):
    return sample_em((n, n)).to_value(u.cm**-5)
