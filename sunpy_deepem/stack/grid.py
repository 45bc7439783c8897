"""The pixels on which six channels meet: their common field, the grid of the answer and the part of it asked for."""

from collections.abc import Mapping

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS
from astropy.wcs.utils import wcs_to_celestial_frame
from sunpy.coordinates import SphericalScreen
from sunpy.coordinates.utils import get_rectangle_coordinates
from sunpy.map import GenericMap, contains_full_disk
from sunpy.map.header_helper import make_fitswcs_header

from sunpy_deepem.stack.counts import pixel_area
from sunpy_deepem.utils.wcs import sky_wcs

__all__ = ["binned_header", "common_field", "common_grid", "output_shape", "part_header", "region_pixels"]

# Less of a pixel than this is none of it: so much the edges of a field move by rounding and by seconds of orbit.
_SLIVER = 0.01
_OUTSIDE = "region holds no pixel of the maps. Give one that lies in their common field of view."
_UNKNOWN = (
    "region must be a pair of SkyCoord (bottom left, top right), a region of the package regions, a map, a FITS header "
    "or a WCS that knows its shape, found {found}."
)
# Points along each side of a field of view, which need not be straight in the grid of another.
_POINTS = 17


def common_grid(channels):
    """Return the channel onto whose pixels the others go: the coarsest, and of equals the first."""
    return max(channels, key=lambda counts: round(pixel_area(counts.smap), 3))


def common_field(channels, grid):
    """
    Return the two slices of the grid that all channels cover.

    A full disc is kept whole, as what another channel lacks at its edge is no loss, but its size may be.
    """
    whole = np.array([0, 0, *grid.shape], dtype=float)
    footprints = np.array([counts.footprint(grid) for counts in channels])
    first = np.ceil(np.max([*footprints[:, :2], whole[:2]], axis=0) - 0.5 + _SLIVER)
    end = np.floor(np.min([*footprints[:, 2:], whole[2:]], axis=0) + 0.5 - _SLIVER)
    if (first >= end).any():
        msg = "maps have no field of view in common. Give six cutouts of the same part of the Sun."
        raise ValueError(msg)
    if np.array_equal([*first, *end], whole) or contains_full_disk(grid.smap):
        return tuple(slice(0, n) for n in grid.shape)
    return tuple(slice(int(a), int(b)) for a, b in zip(first, end, strict=True))


def output_shape(native, shape):
    """Return (ny, nx) of the answer."""
    if shape is None:
        return native
    if isinstance(shape, int | np.integer) and not isinstance(shape, bool) and shape > 0:
        factor = max(1.0, max(native) / shape)
        return tuple(max(1, round(n / factor)) for n in native)
    try:
        wanted = tuple(int(n) for n in shape)
        sensible = len(wanted) == 2 and wanted == tuple(shape) and min(wanted) > 0
    except (TypeError, ValueError, OverflowError):
        sensible = False
    if not sensible:
        msg = f"shape must be None, a positive whole number or (ny, nx), found {shape!r}. The default is 512."
        raise ValueError(msg)
    if wanted[0] > native[0] or wanted[1] > native[1]:
        msg = f"shape {wanted} is larger than the maps' {native}; maps are never upsampled. Use shape=None for native."
        raise ValueError(msg)
    return wanted


def binned_header(smap, field, shape):
    """Return the FITS header of the ``field`` of a map, two slices, at another shape: WCS, observer, time."""
    fy, fx = ((part.stop - part.start) / n_out for part, n_out in zip(field, shape, strict=True))
    reference = [smap.reference_pixel.x.value - field[1].start, smap.reference_pixel.y.value - field[0].start]
    pixel = (np.array(reference) + 0.5) / [fx, fy] - 0.5
    rotation = smap.rotation_matrix * np.array([[1, fy / fx], [fx / fy, 1]])
    header = make_fitswcs_header(
        shape,
        SkyCoord(smap.reference_coordinate),
        reference_pixel=pixel * u.pix,
        scale=u.Quantity(smap.scale) * [fx, fy],
        rotation_matrix=rotation,
        projection_code=smap.coordinate_system.axis1[-3:],
    )
    return {key: value for key, value in header.items() if value is not None}


def part_header(header, rows, columns):
    """Return the FITS header of the part of a grid."""
    moved = {"crpix1": header["crpix1"] - columns.start, "crpix2": header["crpix2"] - rows.start}
    return header | moved | {"naxis1": columns.stop - columns.start, "naxis2": rows.stop - rows.start}


def region_pixels(region, header, shape):
    """
    Return the pixels of a grid that hold a region.

    Parameters
    ----------
    region
        As for `sunpy_deepem.stack.Observation`.
    header : `dict`
        FITS header of the grid.
    shape : `tuple` of `int`
        Its ``(ny, nx)``.

    Returns
    -------
    rows, columns : `slice`
        The smallest rectangle around the region.
    inside : `~numpy.ndarray` or `None`
        `True` for the pixels of that rectangle whose centre lies in a region of another form than a field of view.
    """
    if region is None:
        return slice(0, shape[0]), slice(0, shape[1]), None
    wcs = sky_wcs(header)
    if hasattr(region, "to_mask") or (hasattr(region, "to_pixel") and not isinstance(region, SkyCoord)):
        return _inside(region, wcs, shape)
    points = _outline(region)
    # What lies off the disc has a place, too, as seen from elsewhere or a few seconds later.
    with SphericalScreen(wcs_to_celestial_frame(wcs).observer, only_off_disk=True):
        x, y = wcs.world_to_pixel(points)
    rows, columns = (_between(axis, n) for axis, n in zip((y, x), shape, strict=True))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        raise ValueError(_OUTSIDE)
    return rows, columns, None


def _outline(region):
    """Return points around a field of view, `~astropy.coordinates.SkyCoord`."""
    if isinstance(region, GenericMap):
        return _edges(region.wcs, region.data.shape)
    if isinstance(region, Mapping) and {"naxis1", "naxis2"} <= {str(key).lower() for key in region}:
        return _edges(sky_wcs(region), (region["naxis2"], region["naxis1"]))
    if isinstance(region, WCS) and region.array_shape is not None:
        return _edges(region, region.array_shape)
    several = isinstance(region, tuple | list) or (isinstance(region, SkyCoord) and not region.isscalar)
    corners = list(region) if several else []
    if len(corners) != 2 or not all(isinstance(corner, SkyCoord) and corner.isscalar for corner in corners):
        raise TypeError(_UNKNOWN.format(found=type(region).__name__))
    corners = SkyCoord(get_rectangle_coordinates(corners[0], top_right=corners[1]))
    lon, lat = np.meshgrid(corners.spherical.lon, corners.spherical.lat)
    return SkyCoord(lon.ravel(), lat.ravel(), frame=corners.frame.replicate_without_data())


def _edges(wcs, shape):
    """Return the outer edges of the pixels around an image."""
    y, x = (np.linspace(-0.5, n - 0.5, _POINTS) for n in shape)
    sides = [(x, y[0]), (x, y[-1]), (x[0], y), (x[-1], y)]
    x, y = (np.concatenate([np.broadcast_to(side[axis], _POINTS) for side in sides]) for axis in (0, 1))
    return wcs.pixel_to_world(x, y)


def _between(points, n):
    """Return the slice of ``n`` pixels in which points lie, as `sunpy.map.GenericMap.submap` rounds them."""
    if not np.isfinite(points).all():
        raise ValueError(_OUTSIDE)
    first = np.floor(points.min() + 0.5 + _SLIVER)
    end = np.ceil(points.max() - 0.5 - _SLIVER) + 1
    return slice(*np.clip([first, end], 0, n).astype(int).tolist())


def _inside(region, wcs, shape):
    """As `region_pixels` for what the package regions calls a region."""
    region = region.to_pixel(wcs) if hasattr(region, "to_pixel") else region
    image = region.to_mask(mode="center").to_image(shape)
    inside = np.zeros(shape, dtype=bool) if image is None else image > 0
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    if rows.size == 0:
        raise ValueError(_OUTSIDE)
    part = tuple(slice(int(axis[0]), int(axis[-1]) + 1) for axis in (rows, columns))
    return *part, inside[part]
