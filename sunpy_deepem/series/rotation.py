"""Regions that follow the rotation of the Sun."""

from dataclasses import dataclass

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS
from sunpy.coordinates import transform_with_sun_center
from sunpy.physics.differential_rotation import solar_rotate_coordinate

from sunpy_deepem.utils.regions import resolve_region
from sunpy_deepem.utils.wcs import sky_wcs

__all__ = ["RotatingRegion"]

# Pixels around the rotated centers of pixels, which contain the rotated pixels.
_MARGIN = 2


@dataclass(frozen=True, eq=False)
class RotatingRegion:
    """
    Part of the solar disk that moves with the differential rotation.

    Attributes
    ----------
    wcs : `~astropy.wcs.WCS`
        Celestial WCS of the grid on which the region was given.
    inside : `~numpy.ndarray`
        `True` for the pixels of that grid that belong to it, all of them on the disk.
    """

    wcs: WCS
    inside: np.ndarray

    @classmethod
    def from_region(cls, region, header, shape):
        """
        Resolve a region on a grid.

        Parameters
        ----------
        region : coordinates, quantity, region, array or others
            See `sunpy_deepem.utils.regions.resolve_region`.
        header : `dict`
            FITS header of the sky.
        shape : `tuple` of `int`
            ``(ny, nx)`` of the grid.

        Raises
        ------
        TypeError
            If ``region`` has another type.
        ValueError
            If it holds no pixel on the disk.
        """
        wcs = sky_wcs(header)
        rows, columns, part = resolve_region(region, wcs, shape)
        inside = np.zeros(shape, dtype=bool)
        inside[rows, columns] = True if part is None else part
        y, x = np.nonzero(inside)
        on_disk = _on_disk(wcs.pixel_to_world(x, y))
        if not on_disk.any():
            msg = "region must hold pixels on the solar disk to follow its rotation, found none. Choose another region."
            raise ValueError(msg)
        inside[y[~on_disk], x[~on_disk]] = False
        return cls(wcs, inside)

    def on_grid(self, header, shape):
        """
        Return the pixels of another grid, of another time, whose centers are in the region.

        Parameters
        ----------
        header : `dict`
            FITS header of the sky.
        shape : `tuple` of `int`

        Returns
        -------
        `~numpy.ndarray` or `None`
            Mask of the given shape; `None` if the region is behind the Sun or outside the grid.
        """
        wcs = sky_wcs(header)
        box = self._box(wcs, shape)
        if box is None:
            return None
        y, x = (index.ravel() for index in np.mgrid[box])
        sky = wcs.pixel_to_world(x, y)
        on_disk = _on_disk(sky)
        if not on_disk.any():
            return None
        x, y, sky = x[on_disk], y[on_disk], sky[on_disk]
        there = _rotated(sky, self.wcs)
        columns, rows = (np.rint(axis).astype(int) for axis in self.wcs.world_to_pixel(there))
        ny, nx = self.inside.shape
        valid = there.frame.is_visible() & (rows >= 0) & (rows < ny) & (columns >= 0) & (columns < nx)
        mask = np.zeros(shape, dtype=bool)
        mask[y[valid], x[valid]] = self.inside[rows[valid], columns[valid]]
        return mask if mask.any() else None

    def _box(self, wcs, shape):
        """Return two slices around the region on another grid, `None` if it is not on it."""
        y, x = np.nonzero(self.inside)
        rotated = _rotated(self.wcs.pixel_to_world(x, y), wcs)
        seen = rotated[rotated.frame.is_visible()]
        if not len(seen):
            return None
        slices = []
        for axis, n in zip(wcs.world_to_pixel(seen)[::-1], shape, strict=True):
            low, high = int(np.floor(axis.min())) - _MARGIN, int(np.ceil(axis.max())) + _MARGIN + 1
            slices.append(slice(max(low, 0), min(high, n)))
        return tuple(slices) if all(each.start < each.stop for each in slices) else None


def _on_disk(sky):
    """Return which helioprojective coordinates are on the disk."""
    frame = sky.frame
    sine = np.sin(np.hypot(sky.Tx.wrap_at("180d"), sky.Ty))
    return np.asarray(sine < frame.rsun / frame.observer.radius)


def _rotated(sky, wcs):
    """Return where the points are at the time of another grid, as seen by its observer."""
    origin = wcs.pixel_to_world(0, 0).frame
    observer = SkyCoord(origin.observer)
    rotated = solar_rotate_coordinate(sky, observer=observer)
    with transform_with_sun_center():
        return rotated.transform_to(origin.replicate_without_data())
