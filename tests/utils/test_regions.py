"""Regions in every form are resolved to pixels."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from helpers import aia_map
from regions import CircleSkyRegion

from sunpy_deepem.utils.regions import resolve_region

SHAPE = (12, 20)


@pytest.fixture(scope="module")
def grid():
    return aia_map(171, np.zeros(SHAPE))


def resolved(region, grid):
    return resolve_region(region, grid.wcs, SHAPE)


def at(grid, x, y):
    return grid.wcs.pixel_to_world(x, y)


def test_whole_grid(grid):
    assert resolved(None, grid) == (slice(0, 12), slice(0, 20), None)


def test_coordinate(grid):
    assert resolved(at(grid, 3.4, 7.6), grid) == (slice(8, 9), slice(3, 4), None)


def test_coordinate_seen_by_another_observer(grid):
    there = aia_map(171, np.zeros(SHAPE), hgln_obs=2.0, crval1=5.0)
    region = at(grid, 3, 7).transform_to(there.coordinate_frame)
    assert resolved(region, grid) == (slice(7, 8), slice(3, 4), None)


@pytest.mark.parametrize("x", [-0.6, 19.6])
def test_coordinate_outside(grid, x):
    with pytest.raises(ValueError, match=r"region lies at pixel x = .*outside the 20 × 12 pixels"):
        resolved(at(grid, x, 3), grid)


@pytest.mark.parametrize("kind", [tuple, list, SkyCoord])
def test_rectangle(grid, kind):
    corners = kind([at(grid, 2.6, 3.6), at(grid, 8.4, 5.4)])
    assert resolved(corners, grid) == (slice(4, 6), slice(3, 9), None)


def test_four_angles(grid):
    low, high = at(grid, 2.6, 3.6), at(grid, 8.4, 5.4)
    limits = u.Quantity([low.Tx, low.Ty, high.Tx, high.Ty])
    assert resolved(limits, grid) == (slice(4, 6), slice(3, 9), None)
    for wrong in (limits[:3], limits.value * u.s):
        with pytest.raises(ValueError, match="region as a quantity must be four angles"):
            resolved(wrong, grid)


def test_rectangle_is_cut_at_the_edge(grid):
    assert resolved((at(grid, -9, 3.6), at(grid, 2.4, 99)), grid) == (slice(4, 12), slice(0, 3), None)


def test_rectangle_outside(grid):
    with pytest.raises(ValueError, match="region holds no pixel"):
        resolved((at(grid, 30, 3), at(grid, 40, 9)), grid)


def test_field_of_view(grid):
    smap = grid.submap([4, 2] * u.pix, top_right=[9, 7] * u.pix)
    header = dict(smap.meta) | {"naxis1": 6, "naxis2": 6}
    for region in (smap, header, {key.upper(): value for key, value in header.items()}, smap.wcs):
        assert resolved(region, grid) == (slice(2, 8), slice(4, 10), None)


@pytest.mark.parametrize("on_sky", [False, True])
def test_circle(grid, on_sky):
    regions = pytest.importorskip("regions")
    circle = regions.CirclePixelRegion(regions.PixCoord(6, 5), 2.2)
    rows, columns, inside = resolved(circle.to_sky(grid.wcs) if on_sky else circle, grid)
    assert (rows, columns) == (slice(3, 8), slice(4, 9))
    y, x = np.mgrid[3:8, 4:9]
    np.testing.assert_array_equal(inside, np.hypot(x - 6, y - 5) < 2.2)


def test_point(grid):
    regions = pytest.importorskip("regions")
    point = regions.PointSkyRegion(at(grid, 6, 5))
    assert resolved(point, grid) == (slice(5, 6), slice(6, 7), None)


def test_line_has_no_area(grid):
    regions = pytest.importorskip("regions")
    line = regions.LinePixelRegion(regions.PixCoord(1, 1), regions.PixCoord(5, 5))
    with pytest.raises(TypeError, match="region must have an area or be a point, found LinePixelRegion"):
        resolved(line, grid)


def test_region_outside(grid):
    regions = pytest.importorskip("regions")
    with pytest.raises(ValueError, match="region holds no pixel"):
        resolved(regions.CirclePixelRegion(regions.PixCoord(60, 5), 2.2), grid)


def test_mask(grid):
    mask = np.zeros(SHAPE, dtype=bool)
    mask[2, 3] = mask[4, 5] = True
    rows, columns, inside = resolved(mask, grid)
    assert (rows, columns) == (slice(2, 5), slice(3, 6))
    assert np.argwhere(inside).tolist() == [[0, 0], [2, 2]]


def test_mask_of_a_rectangle(grid):
    mask = np.zeros(SHAPE, dtype=bool)
    mask[2:5, 3:6] = True
    assert resolved(mask, grid) == (slice(2, 5), slice(3, 6), None)


def test_empty_mask(grid):
    with pytest.raises(ValueError, match="region holds no pixel"):
        resolved(np.zeros(SHAPE, dtype=bool), grid)


def test_mask_of_another_shape(grid):
    with pytest.raises(ValueError, match=r"region, as a mask, must have the shape \(12, 20\).*found \(3, 4\)"):
        resolved(np.ones((3, 4), dtype=bool), grid)


@pytest.mark.parametrize(
    "region", [3, "disk", (1, 2), np.ones(4), {"naxis1": 3}, SkyCoord([0, 1, 2] * u.deg, [0, 1, 2] * u.deg)]
)
def test_other_types(grid, region):
    with pytest.raises(TypeError, match="region must be a SkyCoord, a pair of SkyCoord"):
        resolved(region, grid)


def heliographic(lon, lat, grid):
    return SkyCoord(lon * u.deg, lat * u.deg, frame="heliographic_stonyhurst", obstime=grid.reference_date)


@pytest.mark.parametrize(
    "region",
    [
        lambda grid: heliographic(180, 0, grid),
        lambda grid: (heliographic(179.9, -0.1, grid), heliographic(180.1, 0.1, grid)),
        lambda grid: heliographic([179.9, 180.1], [-0.1, 0.1], grid),
        lambda grid: CircleSkyRegion(heliographic(180, 0, grid), 10 * u.arcsec),
    ],
    ids=["coordinate", "corners", "coordinates", "circle"],
)
def test_far_side(grid, region):
    """The far side projects onto pixels of the near side, which it is not."""
    with pytest.raises(ValueError, match="region lies behind the Sun"):
        resolved(region(grid), grid)


def test_near_side(grid):
    # The center of the disk, at the latitude of the observer.
    rows, columns, _ = resolved(heliographic(0, -3, grid), grid)
    assert abs(rows.start - 5.5) <= 0.5
    assert abs(columns.start - 9.5) <= 0.5
