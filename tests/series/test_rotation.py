"""Tests of regions that follow the rotation of the Sun."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.time import Time
from helpers import later, true_cube
from sunpy.physics.differential_rotation import solar_rotate_coordinate

from sunpy_deepem.sample import sample_maps
from sunpy_deepem.series import DEMCubeSequence
from sunpy_deepem.series.rotation import RotatingRegion
from sunpy_deepem.utils.wcs import sky_wcs

N = 200
START = Time("2014-01-01T00:00:00")


def header(days, **cards):
    """Return the header of a full disc of 200 × 200 pixels."""
    axes = {"crpix": (N + 1) / 2, "crval": 0.0, "cdelt": 12.0, "cunit": "arcsec"}
    return (
        {"wcsaxes": 2, "ctype1": "HPLN-TAN", "ctype2": "HPLT-TAN", "date-obs": (START + days * u.day).isot}
        | {f"{key}{axis}": value for key, value in axes.items() for axis in "12"}
        | {"rsun_ref": 6.96e8, "dsun_obs": 1.471e11, "hgln_obs": 0.0, "hglt_obs": -3.0}
        | cards
    )


def box(rows, columns):
    inside = np.zeros((N, N), dtype=bool)
    inside[rows, columns] = True
    return inside


def region(inside):
    return RotatingRegion.from_region(inside, header(0), (N, N))


def center(mask):
    return np.argwhere(mask).mean(axis=0)


def test_same_time():
    inside = box(slice(90, 100), slice(60, 75))
    np.testing.assert_array_equal(region(inside).on_grid(header(0), (N, N)), inside)


def test_whole_field():
    inside, cutout = np.ones((12, 20), dtype=bool), header(0, crpix1=10.5, crpix2=6.5)
    followed = RotatingRegion.from_region(inside, cutout, inside.shape)
    np.testing.assert_array_equal(followed.on_grid(cutout, inside.shape), inside)
    # The same in the middle of a larger field.
    on_disk = followed.on_grid(header(0), (N, N))
    np.testing.assert_array_equal(on_disk, box(slice(94, 106), slice(90, 110)))


@pytest.mark.parametrize("rows", [slice(98, 102), slice(140, 144)])
def test_follows_a_point(rows):
    """Its center is where sunpy puts that of the region."""
    inside = box(rows, slice(98, 102))
    wcs = [sky_wcs(header(days)) for days in (0, 2)]
    point = wcs[0].pixel_to_world(*center(inside)[::-1])
    observer = SkyCoord(wcs[1].pixel_to_world(0, 0).frame.observer)
    x, y = wcs[1].world_to_pixel(solar_rotate_coordinate(point, observer=observer))
    np.testing.assert_allclose(center(region(inside).on_grid(header(2), (N, N))), [y, x], atol=0.6)


def test_high_latitudes_are_slower():
    shifts = [
        center(region(box(rows, slice(95, 105))).on_grid(header(1), (N, N)))[1] - 99.5
        for rows in (slice(98, 102), slice(150, 154))
    ]
    assert shifts[0] > 1.15 * shifts[1] > 0


def test_shrinks_towards_the_limb():
    inside = box(slice(95, 105), slice(95, 105))
    areas = [region(inside).on_grid(header(days), (N, N)).sum() for days in (0, 3, 5)]
    assert areas[0] > areas[1] > areas[2] > 0


def test_behind_the_sun():
    assert region(box(slice(95, 105), slice(95, 105))).on_grid(header(9), (N, N)) is None


def test_outside_the_grid():
    narrow = header(3, crpix1=50.0)
    assert region(box(slice(95, 105), slice(95, 105))).on_grid(narrow, (N, 60)) is None


def test_other_grid():
    finer = header(0, cdelt1=6.0, cdelt2=6.0, crpix1=N + 0.5, crpix2=N + 0.5)
    found = region(box(slice(90, 100), slice(60, 75))).on_grid(finer, (2 * N, 2 * N))
    np.testing.assert_array_equal(np.argwhere(found).min(axis=0), [180, 120])
    assert found.sum() == 4 * 150


def test_off_disk_pixels_are_left_out():
    found = region(np.ones((N, N), dtype=bool))
    assert found.inside.sum() == pytest.approx(np.pi * (975.9 / 12) ** 2, rel=0.01)
    with pytest.raises(ValueError, match="region must hold pixels on the solar disk"):
        region(box(slice(0, 4), slice(0, 4)))


@pytest.fixture(scope="module")
def days():
    """The same Sun on three days, though it has rotated."""
    maps = sample_maps((32, 32))
    return DEMCubeSequence([true_cube([later(smap, step * u.day) for smap in maps]) for step in (0, 2, 12)])


@pytest.mark.parametrize("draws", [True, False])
def test_light_curve(days, draws):
    inside = np.zeros((32, 32), dtype=bool)
    inside[15:17, 15:17] = True
    fixed = days.light_curve(inside, draws=draws)
    curve = days.light_curve(inside, follow_rotation=True, draws=draws)
    assert curve.colnames == fixed.colnames
    assert curve["em_6.0_6.3"][0] == fixed["em_6.0_6.3"][0]
    assert curve["em_6.0_6.3"][1] != fixed["em_6.0_6.3"][1]
    # It is behind the Sun.
    assert np.isnan(curve["em_6.0_6.3"][2])
    assert curve["n_pixels"][2] == 0
    assert curve["n_pixels"].dtype.kind == "i"
