"""Small AIA maps and cubes with known content, and comparisons of cubes."""

import functools

import astropy.units as u
import numpy as np
import sunpy.map
from aiapy.calibrate import degradation, estimate_error
from astropy.time import Time

from sunpy_deepem import CHANNELS, ChannelStack, DEMCube, LogTBins, TemperatureResponse
from sunpy_deepem.calibrate import correction_table, error_table
from sunpy_deepem.cube import Planes
from sunpy_deepem.forward import synthetic_intensity
from sunpy_deepem.sample import sample_em, sample_maps
from sunpy_deepem.units import INTENSITY_UNIT

#: Exposure time of each channel in s; AIA's channels have different ones.
EXPOSURES = dict(zip(CHANNELS, (2.9, 2.8, 2.0, 2.1, 2.7, 3.0), strict=True))


def aia_map(channel, data, *, scale=2.4, mask=None, uncertainty=None, **cards):
    """Make a level 1.5 AIA map of ``data``, centred on the Sun; ``cards`` replace header cards."""
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
    """Make six maps, from one array or from one array per channel."""
    images = [data] * len(CHANNELS) if np.ndim(data) == 2 else data
    return [aia_map(channel, image, **cards) for channel, image in zip(CHANNELS, images, strict=True)]


def changed(smap, *, data=None, **cards):
    """Copy a map with other data or header cards; a card of `None` is removed."""
    header = {key: value for key, value in (dict(smap.meta) | cards).items() if value is not None}
    return sunpy.map.Map(smap.data if data is None else data, header, mask=smap.mask)


def later(smap, delay, **cards):
    """Copy a map with both of its times moved by ``delay``."""
    times = {"date-obs": (smap.date + delay).isot, "t_obs": (smap.reference_date + delay).isot}
    return changed(smap, **times, **cards)


def world_grid(smap):
    """Return the helioprojective x and y of the pixels in arcsec."""
    ny, nx = smap.data.shape
    degrees = smap.wcs.wcs_pix2world(np.stack(np.meshgrid(np.arange(nx), np.arange(ny)), axis=-1).reshape(-1, 2), 0)
    x, y = (degrees * 3600).T.reshape(2, ny, nx)
    return (x + 180 * 3600) % (360 * 3600) - 180 * 3600, y


def blob(x, y, center, width):
    """Return a Gaussian of height one; lengths are in arcsec."""
    return np.exp(-((x - center[0]) ** 2 + (y - center[1]) ** 2) / (2 * width**2))


def centroid(image, x, y):
    """Return the centroid of an image in arcsec."""
    return np.array([(image * x).sum(), (image * y).sum()]) / image.sum()


def cube_from_arrays(em, em_std, response, header, inputs, *, meta=None, **options):
    """Make a cube of arrays; ``options`` are those of `Planes.from_fit`, ``meta`` is its provenance."""
    planes = Planes.from_fit(em, em_std, response, **options)
    return DEMCube.from_planes(planes, response, header, inputs=inputs, provenance=meta)


def true_cube(maps=None, n=32):
    """Make a cube of the synthetic Sun's true EM and its observed intensities, without a network."""
    stack = ChannelStack.from_maps(sample_maps((n, n)) if maps is None else maps, shape=None)
    em = _true_em(n)
    return cube_from_arrays(
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


def cube_of(em, em_std=None, **options):
    """Return a cube of one row of pixels with the given EM, shape (18, n), and its synthetic intensities."""
    response = TemperatureResponse.default()
    em = np.asarray(em, dtype=float)[:, np.newaxis]
    seen = synthetic_intensity(em * u.cm**-5, response)
    header = {key: value for key, value in aia_map(94, em[0]).meta.items() if key[:4] != "naxi"}
    inputs = [{"channel": channel, "date": "2014-01-01T00:00:00.000", "exposure_time": 2.0} for channel in CHANNELS]
    options = {"intensity": seen, "uncertainty": 0.1 * seen + 1 * INTENSITY_UNIT} | options
    em_std = None if em_std is None else np.asarray(em_std, dtype=float)[:, np.newaxis]
    return cube_from_arrays(em, em_std, response, header, inputs, **options)


def uniform_em(low, high, total=1e27):
    """Return EM that is uniform per dex between two bin edges."""
    inside = (LogTBins().centers > low) & (LogTBins().centers < high)
    return np.where(inside, total / inside.sum(), 0)[:, np.newaxis]


class LognormalMethod:
    """A posterior of the same shape in all pixels."""

    def sample(self, intensity, uncertainty, n, seed):
        shape = np.random.default_rng(seed).lognormal(0, 0.3, (n, 18))
        return (shape[:, :, np.newaxis] * 1e25 * np.nanmean(intensity, axis=0)).astype(np.float32)


@functools.cache
def _true_em(n):
    return sample_em((n, n)).to_value(u.cm**-5)


def assert_same_cube(one, other):
    """Assert that two cubes are equal, and their WCS to the precision of a FITS header."""
    np.testing.assert_array_equal(one.data, other.data)
    np.testing.assert_array_equal(one.mask, other.mask)
    assert (one.data.dtype, one.unit) == (other.data.dtype, other.unit)
    assert type(one.uncertainty) is type(other.uncertainty)
    if one.uncertainty is not None:
        np.testing.assert_array_equal(one.uncertainty.array, other.uncertainty.array)
        assert one.uncertainty.array.dtype == other.uncertainty.array.dtype
        assert one.uncertainty.unit == other.uncertainty.unit
    assert one.bins == other.bins
    assert one.response == other.response
    np.testing.assert_equal(one.response.meta, other.response.meta)
    _assert_same_meta(one.meta, other.meta)
    _assert_same_sky(one, other)


def _assert_same_meta(one, other):
    assert set(one) == set(other)
    assert one.axes.keys() == other.axes.keys()
    np.testing.assert_array_equal(one.data_shape, other.data_shape)
    for key in one.axes:
        np.testing.assert_array_equal(one.axes[key], other.axes[key])
        np.testing.assert_array_equal(one[key], other[key])
        assert one[key].dtype == other[key].dtype
    for key in set(one) - {"response"} - set(one.axes):
        # Unlike ==, this treats NaN as equal to itself
        np.testing.assert_equal(one[key], other[key])
    types = [[{key: type(value) for key, value in row.items()} for row in meta["inputs"]] for meta in (one, other)]
    assert types[0] == types[1]


def _assert_same_sky(one, other):
    nz, ny, nx = one.data.shape
    corners = np.array([[0, 0, 0], [nx - 1, 0, nz - 1], [nx / 2, ny - 1, 3]])
    here, there = (cube.wcs.wcs_pix2world(corners, 0) for cube in (one, other))
    np.testing.assert_allclose(here, there, rtol=0, atol=1e-11)
    assert one.sky_header.keys() == other.sky_header.keys()
    first, second = (sunpy.map.Map(np.zeros((ny, nx)), cube.sky_header) for cube in (one, other))
    assert first.date == second.date
    assert first.observer_coordinate.separation_3d(second.observer_coordinate) < 1 * u.km
    assert first.rsun_meters == second.rsun_meters


def spoiled(smap, values):
    """Replace single pixels of a map, given as ``{(row, column): value}``."""
    data = smap.data.copy()
    for pixel, value in values.items():
        data[pixel] = value
    return changed(smap, data=data)


def random_counts(shape=(16, 16), seed=1, mean=500):
    """Make positive counts."""
    return np.random.default_rng(seed).gamma(4, mean / 4, size=shape).astype(np.float32)


def replaced(maps, channel, new):
    """Replace the map of ``channel`` by the function ``new`` of it."""
    return [new(smap) if round(smap.wavelength.value) == channel else smap for smap in maps]


def assert_same_stack(one, other):
    """Assert that two stacks have the same arrays."""
    np.testing.assert_array_equal(one.intensity, other.intensity)
    np.testing.assert_array_equal(one.uncertainty, other.uncertainty)
    np.testing.assert_array_equal(one.quality, other.quality)


def degradation_by_aiapy(channel, obstime="2014-01-01"):
    """Return the degradation of a channel since launch."""
    return degradation(channel * u.angstrom, Time(obstime), correction_table=correction_table()[0]).to_value("")[0]


def noise_by_aiapy(counts, channel, n_sample):
    """Return the noise of counts in DN / pix."""
    flat = np.ravel(counts) * u.DN / u.pix
    errors = estimate_error(flat, channel * u.angstrom, n_sample=n_sample, error_table=error_table())
    return errors.value.reshape(np.shape(counts))
