"""When two cubes are the same."""

import astropy.units as u
import numpy as np
from sunpy.map import Map


def assert_same_cube(one, other):
    """Nothing that a cube holds differs; the sky differs by no more than the last digits of a FITS header."""
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
        # Here what is not a number equals itself.
        np.testing.assert_equal(one[key], other[key])
    types = [[{key: type(value) for key, value in row.items()} for row in meta["inputs"]] for meta in (one, other)]
    assert types[0] == types[1]


def _assert_same_sky(one, other):
    nz, ny, nx = one.data.shape
    corners = np.array([[0, 0, 0], [nx - 1, 0, nz - 1], [nx / 2, ny - 1, 3]])
    here, there = (cube.wcs.wcs_pix2world(corners, 0) for cube in (one, other))
    np.testing.assert_allclose(here, there, rtol=0, atol=1e-11)
    assert one.sky_header.keys() == other.sky_header.keys()
    first, second = (Map(np.zeros((ny, nx)), cube.sky_header) for cube in (one, other))
    assert first.date == second.date
    assert first.observer_coordinate.separation_3d(second.observer_coordinate) < 1 * u.km
    assert first.rsun_meters == second.rsun_meters
