"""Counts of one channel, resampled onto the common grid on request: `ChannelCounts`."""

from dataclasses import dataclass, replace

import astropy.units as u
import numpy as np
from aiapy.calibrate import register
from astropy.nddata import StdDevUncertainty
from reproject import reproject_exact, reproject_interp
from scipy.ndimage import distance_transform_edt
from sunpy.map import GenericMap, contains_full_disk

from sunpy_deepem.calibrate.preparation import is_level_1
from sunpy_deepem.stack.maps import channel_of, describe
from sunpy_deepem.units import ALIGNMENT_TOLERANCE, SATURATION

__all__ = ["ChannelCounts", "Counts", "is_per_second", "pixel_area", "unused_provenance"]

# Runs of at least this many saturated pixels spill charge along their column.
_BLOOMING_RUN = 5
# Pixels around a part that its resampling may use.
_MARGIN = 2
_COUNT_UNITS = (u.DN, u.ct, u.DN / u.pix, u.ct / u.pix, u.dimensionless_unscaled)


@dataclass(frozen=True, eq=False)
class Counts:
    """
    Counts of a part of a grid.

    Attributes
    ----------
    values : `~numpy.ndarray`
        Mean counts per native pixel, NaN where missing.
    noise : `~numpy.ndarray` or `None`
        The map's own noise.
    saturated, bloomed : `~numpy.ndarray` or `None`
        Fraction of the native pixels that are saturated or bloomed; `None` if there are no such pixels.
    valid_fraction : `~numpy.ndarray` or `float`
        Fraction of each pixel with valid counts.
    """

    values: np.ndarray
    noise: np.ndarray | None
    saturated: np.ndarray | None
    bloomed: np.ndarray | None
    valid_fraction: np.ndarray | float = 1.0


@dataclass(frozen=True, eq=False)
class ChannelCounts:
    """
    A checked map that returns the `Counts` of any part.

    Attributes
    ----------
    smap : `~sunpy.map.GenericMap`
        The map, registered if it is a full disk of level 1.
    data : `~numpy.ndarray`
        Its data.
    to_counts : `numpy.float32`
        Factor from data to counts.
    bad : `~numpy.ndarray` or `None`
        Masked pixels.
    noise : `~numpy.ndarray` or `None`
        The map's own noise, in counts.
    saturated, bloomed : `~numpy.ndarray` or `None`
        Saturated and bloomed pixels, `None` if there are no such pixels.
    exposure : `float`
        Exposure time in s.
    registered : `bool`
        Whether the map was registered.
    own_uncertainty : `bool`
        Whether the map has an uncertainty.
    level : `float`
        Processing level of the input, NaN if unknown.
    """

    smap: GenericMap
    data: np.ndarray
    to_counts: np.float32
    bad: np.ndarray | None
    noise: np.ndarray | None
    saturated: np.ndarray | None
    bloomed: np.ndarray | None
    exposure: float
    registered: bool
    own_uncertainty: bool
    level: float

    @classmethod
    def from_map(cls, smap):
        """Check a map; register it if it is a full disk of level 1."""
        counts = cls.unregistered(smap)
        return _registered(counts) if is_level_1(smap) and contains_full_disk(smap) else counts

    @classmethod
    def unregistered(cls, smap):
        """Check a map of any level."""
        _check_pixels(smap)
        exposure = float(smap.exposure_time.to_value(u.s))
        to_counts = np.float32(exposure if is_per_second(smap) else 1)
        # Before any resampling, because averaging hides saturation.
        saturated = np.asarray(smap.data >= SATURATION / to_counts)
        saturated = saturated if saturated.any() else None
        bloomed = None if saturated is None else _bloomed(saturated)
        noise = _own_noise(smap, to_counts)
        return cls(
            smap,
            np.asarray(smap.data),
            to_counts,
            _own_mask(smap),
            noise,
            saturated,
            bloomed,
            exposure,
            registered=False,
            own_uncertainty=noise is not None,
            level=np.nan if smap.processing_level is None else float(smap.processing_level),
        )

    @property
    def shape(self):
        """Shape ``(ny, nx)`` of the map."""
        return self.data.shape

    def offset(self, grid):
        """Return (y, x) of the map's first pixel on ``grid``, or `None` if the grids differ."""
        if self.smap is grid.smap:
            return (0, 0)
        ny, nx = self.shape
        corners = np.array([[0, 0], [nx - 1, 0], [0, ny - 1], [nx - 1, ny - 1], [nx / 2, ny / 2]])
        # Observers are ignored: seconds of orbit between two channels are not a misalignment.
        moved = grid.smap.wcs.wcs_world2pix(self.smap.wcs.wcs_pix2world(corners, 0), 0) - corners
        whole = np.round(moved[0])
        return tuple(whole.astype(int)[::-1].tolist()) if np.abs(moved - whole).max() <= ALIGNMENT_TOLERANCE else None

    def footprint(self, grid):
        """Return (first y, first x, end y, end x) of the map in pixels of ``grid``."""
        ny, nx = self.shape
        corners = np.array([[0, 0], [nx, 0], [0, ny], [nx, ny]]) - 0.5
        source = _on_frame_of(self.smap.wcs, grid.smap.wcs)
        x, y = np.sort(grid.smap.wcs.wcs_world2pix(source.wcs_pix2world(corners, 0), 0) + 0.5, axis=0).T
        return y[1], x[1], y[2], x[2]

    def on(self, grid, offset, rows, columns):
        """Return the `Counts` in two slices of ``grid``, another channel, on which the map has the given `offset`."""
        if offset is None:
            return self._reprojected(grid, rows, columns)
        return self._shifted(
            *(slice(part.start - o, part.stop - o) for part, o in zip((rows, columns), offset, strict=True))
        )

    def _part(self, rows, columns):
        """Return the `Counts` of two slices of the map."""
        part = rows, columns
        # Values beyond single precision become infinite, and so invalid.
        with np.errstate(over="ignore"):
            values = self.data[part].astype(np.float32)
            if self.to_counts != 1:
                values *= self.to_counts
        noise = None if self.noise is None else self.noise[part]
        bad = ~np.isfinite(values)
        if self.bad is not None:
            bad |= self.bad[part]
        if noise is not None:
            bad |= ~np.isfinite(noise)
        values[bad] = np.nan
        saturated, bloomed = (None if plane is None else plane[part] for plane in (self.saturated, self.bloomed))
        return Counts(values, noise, saturated, bloomed)

    def _shifted(self, rows, columns):
        """Return the `Counts` of two slices that may extend beyond the map."""
        wanted = rows, columns
        inside = tuple(
            slice(*np.clip([0, n], part.start, part.stop).tolist()) for part, n in zip(wanted, self.shape, strict=True)
        )
        if inside == wanted:
            return self._part(rows, columns)
        around = [(i.start - part.start, part.stop - i.stop) for i, part in zip(inside, wanted, strict=True)]
        counts = self._part(*inside)
        return Counts(
            np.pad(counts.values, around, constant_values=np.nan),
            None if counts.noise is None else np.pad(counts.noise, around, constant_values=np.nan),
            *(None if plane is None else np.pad(plane, around) for plane in (counts.saturated, counts.bloomed)),
        )

    def _reprojected(self, grid, rows, columns):
        """Return the `Counts` resampled onto two slices of another grid."""
        target = grid.smap.wcs[rows, columns]
        shape = rows.stop - rows.start, columns.stop - columns.start
        source = _on_frame_of(self.smap.wcs, grid.smap.wcs)
        near = _pixels_near(source, self.shape, target, shape)
        counts, source = self._part(*near), source[near]
        # A coarser grid takes the mean of several pixels, any other interpolates.
        averaged = pixel_area(grid.smap) / pixel_area(self.smap)
        averaged, resample = (averaged, reproject_exact) if averaged > 1.02 else (1.0, reproject_interp)

        def onto(values):
            if 0 in values.shape:
                return np.full(shape, np.nan, dtype=np.float32)
            return resample((values, source), target, shape_out=shape, return_footprint=False).astype(np.float32)

        noise = None if counts.noise is None else np.sqrt(onto(counts.noise**2) / averaged)
        saturated, bloomed = (
            None if plane is None else np.nan_to_num(onto(plane.astype(np.float32))) > 0
            for plane in (counts.saturated, counts.bloomed)
        )
        return Counts(onto(counts.values), noise, saturated, bloomed)

    def whole(self):
        """Return the `Counts` of the whole map."""
        return self._part(slice(None), slice(None))

    def provenance(self):
        """Return facts about the input and its processing, as a `dict`."""
        return {
            "channel": channel_of(self.smap),
            "date": self.smap.date.isot,
            "exposure_time": self.exposure,
            "instrument": self.smap.instrument,
            "level": self.level,
            "registered": self.registered,
            "own_uncertainty": self.own_uncertainty,
        }


def unused_provenance(channel, smap):
    """Return facts as `ChannelCounts.provenance` for a channel without a map, at the time of another channel's map."""
    return {
        "channel": channel,
        "date": smap.date.isot,
        "exposure_time": np.nan,
        "instrument": "not used",
        "level": np.nan,
        "registered": False,
        "own_uncertainty": False,
    }


def _check_pixels(smap):
    """Raise `ValueError` unless a map has real data."""
    if smap.data.dtype.kind not in "biuf":
        msg = f"maps: the {describe(smap)} map must contain real numbers, found {smap.data.dtype}. Read its file again."
        raise ValueError(msg)


def is_per_second(smap):
    """Return whether a map is normalized by exposure time; raise `ValueError` if its unit is another."""
    unit = u.dimensionless_unscaled if smap.unit is None else smap.unit
    if unit in _COUNT_UNITS:
        return False
    if unit * u.s in _COUNT_UNITS:
        return True
    msg = (
        f"maps: the {describe(smap)} map is in {unit}; expected DN, or DN / s if normalised by exposure. Set its "
        "BUNIT if the header is wrong."
    )
    raise ValueError(msg)


def _own_noise(smap, to_counts):
    """Return the map's own standard deviation in counts, or `None`."""
    if smap.uncertainty is None:
        return None
    # Before a conversion, which would square it.
    given = np.asarray(smap.uncertainty.array)
    if given.dtype.kind not in "biuf" or given.shape != smap.data.shape or (given < 0).any():
        found = f"{np.count_nonzero(given < 0)} negative values" if given.shape == smap.data.shape else given.shape
        msg = (
            f"maps: the uncertainty of the {describe(smap)} map must be an array of real numbers, not negative, of the "
            f"shape of its data, {smap.data.shape}, found {found}."
        )
        raise ValueError(msg)
    try:
        uncertainty = smap.uncertainty.represent_as(StdDevUncertainty)
    except TypeError:
        kind = type(smap.uncertainty).__name__
        msg = f"maps: the {describe(smap)} map must have a StdDevUncertainty or another of astropy's, found {kind}."
        raise ValueError(msg) from None
    factor = np.float32(to_counts * _to_data_unit(smap, uncertainty.unit))
    return np.asarray(uncertainty.array, dtype=np.float32) * factor


def _to_data_unit(smap, unit):
    """Return the factor from the unit of a map's uncertainty to that of its data."""
    data_unit = u.DN if smap.unit is None else smap.unit
    per_second = [u.dimensionless_unscaled if smap.unit is None else smap.unit * u.s, unit and unit * u.s]
    if unit is None or {data_unit, unit} <= set(_COUNT_UNITS) or set(per_second) <= set(_COUNT_UNITS):
        return 1.0
    try:
        return unit.to(data_unit)
    except u.UnitConversionError:
        msg = (
            f"maps: the uncertainty of the {describe(smap)} map is in {unit}, but its data are in {data_unit}. Give "
            "both the same unit."
        )
        raise ValueError(msg) from None


def _own_mask(smap):
    """Return the map's mask, or `None`."""
    mask = smap.mask
    if mask is None:
        return None
    if getattr(mask, "dtype", None) != np.dtype(bool) or np.shape(mask) != smap.data.shape:
        found = f"{type(mask).__name__} of {getattr(mask, 'dtype', mask)}, shape {np.shape(mask)}"
        msg = (
            f"maps: the mask of the {describe(smap)} map must be a Boolean array of the shape of its data, "
            f"{smap.data.shape}, found {found}."
        )
        raise ValueError(msg)
    return np.asarray(mask)


def _bloomed(saturated):
    """Flag long saturated runs along columns, and pixels within their length of them; `None` if there are none."""
    bloomed = np.zeros_like(saturated)
    for column in np.flatnonzero(np.count_nonzero(saturated, axis=0) >= _BLOOMING_RUN):
        steps = np.diff(np.concatenate([[0], saturated[:, column], [0]]).astype(np.int8))
        for first, last in zip(np.flatnonzero(steps == 1), np.flatnonzero(steps == -1), strict=True):
            if (length := last - first) >= _BLOOMING_RUN:
                bloomed[max(0, first - length) : last + length, column] = True
    return bloomed if bloomed.any() else None


def _registered(counts):
    """Register a full disk with its noise and flags."""
    whole = counts.whole()
    bad = np.isnan(whole.values)

    def registered(array, order, missing):
        # register depends on the header only, so it also serves flags and noise.
        return register(type(counts.smap)(array, counts.smap.meta), order=order, missing=missing)

    def spread(plane):
        return None if plane is None else registered(plane.astype(np.float32), 1, 0).data > 0

    main = registered(_filled(whole.values, bad), 3, np.nan)
    values = main.data.astype(np.float32)
    if bad.any():
        values[spread(bad)] = np.nan
    noise = None
    if whole.noise is not None:
        noise = np.sqrt(registered(_filled(whole.noise, bad) ** 2, 1, np.nan).data)
    return replace(
        counts,
        smap=main,
        data=values,
        to_counts=np.float32(1),
        bad=None,
        noise=noise,
        saturated=spread(whole.saturated),
        bloomed=spread(whole.bloomed),
        registered=True,
    )


def _filled(values, bad):
    """Fill bad pixels with their nearest good neighbor, to avoid ringing of splines."""
    if not bad.any() or bad.all():
        return values
    nearest = distance_transform_edt(bad, return_distances=False, return_indices=True)
    return values[tuple(nearest)]


def _on_frame_of(wcs, other):
    """
    Return ``wcs`` with the observer and time of ``other``.

    The maps are taken seconds apart by one spacecraft. With their own observers, a reprojection would have to assume a
    position along the line of sight, and would lose all pixels off the limb.
    """
    framed = other.deepcopy()
    for name in ("crpix", "crval", "cdelt", "pc", "ctype"):
        setattr(framed.wcs, name, getattr(wcs.wcs, name))
    framed.wcs.lonpole, framed.wcs.latpole = wcs.wcs.lonpole, wcs.wcs.latpole
    framed.array_shape = wcs.array_shape
    return framed


def _pixels_near(source, source_shape, target, shape):
    """Return the slices of ``source`` that ``target`` needs."""
    ny, nx = shape
    corners = np.array([[0, 0], [nx, 0], [0, ny], [nx, ny]]) - 0.5
    there = source.wcs_world2pix(target.wcs_pix2world(corners, 0), 0)[:, ::-1]
    first = np.floor(there.min(axis=0)).astype(int) - _MARGIN
    last = np.ceil(there.max(axis=0)).astype(int) + _MARGIN + 1
    limits = [np.clip([a, b], 0, n).tolist() for a, b, n in zip(first, last, source_shape, strict=True)]
    return tuple(slice(a, b) for a, b in limits)


def pixel_area(smap):
    """Return the area of a pixel in square arcseconds."""
    return float(np.prod(np.abs(u.Quantity(smap.scale).to_value(u.arcsec / u.pix))))
