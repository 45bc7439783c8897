"""Pixel grids: the common field of the channels and the grid of the stack."""

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from sunpy.map import contains_full_disk
from sunpy.map.header_helper import make_fitswcs_header

from sunpy_deepem.stack.counts import pixel_area
from sunpy_deepem.units import EDGE_TOLERANCE

__all__ = ["binned_header", "common_field", "common_grid", "output_shape", "part_header"]


def common_grid(channels):
    """Return the channel with the coarsest pixels, to which the others are resampled; the first of equal ones."""
    return max(channels, key=lambda counts: round(pixel_area(counts.smap), 3))


def common_field(channels, grid):
    """
    Return the two slices of the grid that all channels cover.

    A full disk is kept whole, even where a channel has no data at its edge.
    """
    whole = np.array([0, 0, *grid.shape], dtype=float)
    footprints = np.array([counts.footprint(grid) for counts in channels])
    first = np.ceil(np.max([*footprints[:, :2], whole[:2]], axis=0) - 0.5 + EDGE_TOLERANCE)
    end = np.floor(np.min([*footprints[:, 2:], whole[2:]], axis=0) + 0.5 - EDGE_TOLERANCE)
    if (first >= end).any():
        msg = "maps have no field of view in common. Give cutouts of the same part of the Sun."
        raise ValueError(msg)
    if np.array_equal([*first, *end], whole) or contains_full_disk(grid.smap):
        return tuple(slice(0, n) for n in grid.shape)
    return tuple(slice(int(a), int(b)) for a, b in zip(first, end, strict=True))


def output_shape(native, shape):
    """Return (ny, nx) of the stack for the argument ``shape``."""
    if shape is None:
        return native
    if isinstance(shape, int | np.integer) and not isinstance(shape, bool) and shape > 0:
        factor = max(1.0, max(native) / shape)
        return tuple(max(1, round(n / factor)) for n in native)
    try:
        requested = tuple(int(n) for n in shape)
        valid = len(requested) == 2 and requested == tuple(shape) and min(requested) > 0
    except (TypeError, ValueError, OverflowError):
        valid = False
    if not valid:
        msg = f"shape must be None, a positive whole number or (ny, nx), found {shape!r}. The default is 512."
        raise ValueError(msg)
    if requested[0] > native[0] or requested[1] > native[1]:
        msg = (
            f"shape {requested} is larger than the maps' {native}; maps are never upsampled. Use shape=None for the "
            "native resolution."
        )
        raise ValueError(msg)
    return requested


def binned_header(smap, field, shape):
    """Return the FITS header, with WCS, observer and time, of two slices ``field`` of a map binned to ``shape``."""
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
    """Return the FITS header of a part of a grid."""
    moved = {"crpix1": header["crpix1"] - columns.start, "crpix2": header["crpix2"] - rows.start}
    return header | moved | {"naxis1": columns.stop - columns.start, "naxis2": rows.stop - rows.start}
