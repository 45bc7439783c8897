"""Regions of the sky, given in any form, as pixels of a grid."""

from collections.abc import Mapping
from contextlib import nullcontext

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS
from astropy.wcs.utils import wcs_to_celestial_frame
from sunpy.coordinates import HeliographicCarrington, HeliographicStonyhurst, Helioprojective, SphericalScreen
from sunpy.coordinates.utils import get_rectangle_coordinates
from sunpy.map import GenericMap

from sunpy_deepem.units import EDGE_TOLERANCE
from sunpy_deepem.utils.wcs import sky_wcs

__all__ = ["resolve_region"]

# Points along each side of a field of view, which need not be straight on another grid.
_POINTS_PER_SIDE = 17
# Radii of the Sun that are in use differ by about this much.
_DEPTH = 1 * u.Mm
_OUTSIDE = "region holds no pixel. Give one inside the field of view of the maps or cube."


def resolve_region(region, wcs, shape):
    """
    Return the pixels of a grid that belong to a region.

    Parameters
    ----------
    region : coordinates, quantity, map, header, WCS, region, array or `None`
        A `~astropy.coordinates.SkyCoord`: the pixel that contains it. Two coordinates: the bottom left and top right of
        a rectangle. A quantity: its left, bottom, right and top, four angles in the frame of the grid. A map,
        a FITS header with NAXIS1 and NAXIS2 or a WCS with an ``array_shape``: its field of view. A sky or pixel region
        of the package ``regions``: the pixels whose centers it contains. A boolean mask of the given shape. `None`:
        the whole grid.
    wcs : `~astropy.wcs.WCS`
        Celestial WCS of the grid.
    shape : `tuple` of `int`
        ``(ny, nx)`` of the grid.

    Returns
    -------
    rows, columns : `slice`
        The smallest rectangle around the region.
    inside : `~numpy.ndarray` or `None`
        `True` for the pixels of the rectangle that belong to the region; `None` if all do.

    Raises
    ------
    TypeError
        If ``region`` has another type, or is a region without area such as a line.
    ValueError
        If ``region`` contains no pixel, lies behind the Sun, or is a mask of another shape.
    """
    if region is None:
        return slice(0, shape[0]), slice(0, shape[1]), None
    if isinstance(region, u.Quantity):
        region = _rectangle(region, wcs)
    if isinstance(region, SkyCoord) and region.isscalar:
        return _pixel(*_to_pixel(region, wcs), shape)
    if isinstance(region, np.ndarray) and region.dtype == bool:
        return _masked(region, shape)
    if not isinstance(region, SkyCoord) and (hasattr(region, "to_pixel") or hasattr(region, "to_mask")):
        return _covered(region, wcs, shape)
    x, y = _to_pixel(_outline(region), wcs)
    rows, columns = _span(y, shape[0]), _span(x, shape[1])
    if rows.start >= rows.stop or columns.start >= columns.stop:
        raise ValueError(_OUTSIDE)
    return rows, columns, None


def _rectangle(limits, wcs):
    """Return the bottom left and top right of left, bottom, right and top."""
    if limits.shape != (4,) or not limits.unit.is_equivalent(u.arcsec):
        msg = f"region as a quantity must be four angles, left, bottom, right and top, found {limits}."
        raise ValueError(msg)
    return SkyCoord(limits[::2], limits[1::2], frame=wcs_to_celestial_frame(wcs))


def _to_pixel(coordinates, wcs):
    # Off-disk coordinates of another observer or time have no position without a screen.
    frame = wcs_to_celestial_frame(wcs)
    observer = getattr(frame, "observer", None)
    _check_visible(coordinates, frame)
    with nullcontext() if observer is None else SphericalScreen(observer, only_off_disk=True):
        return wcs.world_to_pixel(coordinates)


def _check_visible(coordinates, frame):
    """Raise `ValueError` if coordinates on the Sun are behind it as seen by the observer of ``frame``."""
    # Heliographic positions have a distance, which a projection onto the sky drops.
    on_sun = isinstance(coordinates.frame, HeliographicStonyhurst | HeliographicCarrington)
    if not (on_sun and isinstance(frame, Helioprojective)):
        return
    seen = coordinates.transform_to(frame)
    hidden = ~np.atleast_1d(seen.frame.is_visible(tolerance=_DEPTH))
    if hidden.any():
        first = coordinates if coordinates.isscalar else coordinates[int(np.flatnonzero(hidden)[0])]
        msg = f"region lies behind the Sun at {first.to_string(precision=1)} in {first.frame.name}. Choose another."
        raise ValueError(msg)


def _pixel(x, y, shape):
    ny, nx = shape
    if not (-0.5 <= x < nx - 0.5 and -0.5 <= y < ny - 0.5):
        msg = f"region lies at pixel x = {x:.1f}, y = {y:.1f}, outside the {nx} × {ny} pixels of the field of view."
        raise ValueError(msg)
    row, column = int(np.floor(y + 0.5)), int(np.floor(x + 0.5))
    return slice(row, row + 1), slice(column, column + 1), None


def _masked(mask, shape):
    if mask.shape != tuple(shape):
        msg = f"region, as a mask, must have the shape {tuple(shape)} of the field of view, found {mask.shape}."
        raise ValueError(msg)
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if rows.size == 0:
        raise ValueError(_OUTSIDE)
    part = tuple(slice(int(axis[0]), int(axis[-1]) + 1) for axis in (rows, columns))
    inside = mask[part]
    return *part, None if inside.all() else inside


def _covered(region, wcs, shape):
    """Resolve a region of the package regions."""
    if isinstance(getattr(region, "center", None), SkyCoord):
        _check_visible(region.center, wcs_to_celestial_frame(wcs))
    region = region.to_pixel(wcs) if hasattr(region, "to_pixel") else region
    try:
        mask = region.to_mask(mode="center")
    except NotImplementedError:  # points and lines
        if not hasattr(region, "center"):
            msg = f"region must have an area or be a point, found {type(region).__name__}."
            raise TypeError(msg) from None
        return _pixel(region.center.x, region.center.y, shape)
    image = mask.to_image(shape)
    if image is None:
        raise ValueError(_OUTSIDE)
    return _masked(image > 0, shape)


def _outline(region):
    """Return points around a field of view, `~astropy.coordinates.SkyCoord`."""
    if isinstance(region, GenericMap):
        return _edges(region.wcs, region.data.shape)
    if isinstance(region, Mapping):
        cards = {str(key).lower(): value for key, value in region.items()}
        if {"naxis1", "naxis2"} <= cards.keys():
            return _edges(sky_wcs(cards), (cards["naxis2"], cards["naxis1"]))
    if isinstance(region, WCS) and region.array_shape is not None:
        return _edges(region, region.array_shape)
    corners = list(region) if isinstance(region, tuple | list | SkyCoord) else []
    if len(corners) != 2 or not all(isinstance(corner, SkyCoord) and corner.isscalar for corner in corners):
        found = f"{len(corners)} coordinates" if isinstance(region, SkyCoord) else type(region).__name__
        msg = (
            "region must be a SkyCoord, a pair of SkyCoord (bottom left, top right), a region of the package regions, "
            "a map, a FITS header with NAXIS1 and NAXIS2, a WCS with an array_shape, a boolean mask or None, found "
            f"{found}."
        )
        raise TypeError(msg)
    corners = SkyCoord(get_rectangle_coordinates(corners[0], top_right=corners[1]))
    lon, lat = np.meshgrid(corners.spherical.lon, corners.spherical.lat)
    return SkyCoord(lon.ravel(), lat.ravel(), frame=corners.frame.replicate_without_data())


def _edges(wcs, shape):
    """Return the outer edges of the pixels around an image."""
    y, x = (np.linspace(-0.5, n - 0.5, _POINTS_PER_SIDE) for n in shape)
    sides = [(x, y[0]), (x, y[-1]), (x[0], y), (x[-1], y)]
    x, y = (np.concatenate([np.broadcast_to(side[axis], _POINTS_PER_SIDE) for side in sides]) for axis in (0, 1))
    return wcs.pixel_to_world(x, y)


def _span(points, n):
    """Return the slice of ``n`` pixels that contains the points, rounded as in `sunpy.map.GenericMap.submap`."""
    if not np.isfinite(points).all():
        raise ValueError(_OUTSIDE)
    first = np.floor(points.min() + 0.5 + EDGE_TOLERANCE)
    end = np.ceil(points.max() - 0.5 - EDGE_TOLERANCE) + 1
    return slice(*np.clip([first, end], 0, n).astype(int).tolist())
