"""Counts of one channel, of which any part is put on the common grid and binned when it is asked for."""

import warnings
from dataclasses import dataclass, replace

import astropy.units as u
import numpy as np
from aiapy.calibrate import register
from astropy.nddata import StdDevUncertainty
from reproject import reproject_exact, reproject_interp
from scipy.ndimage import distance_transform_edt
from scipy.sparse import csr_array
from sunpy.coordinates.frames import SunPyBaseCoordinateFrame
from sunpy.map import GenericMap, contains_full_disk
from sunpy.util.exceptions import SunpyUserWarning

from sunpy_deepem.calibrate.preparation import is_level_1
from sunpy_deepem.stack.maps import channel_of, describe
from sunpy_deepem.units import ALIGNMENT_TOLERANCE, MIN_VALID_FRACTION, SATURATION

__all__ = ["Binning", "ChannelCounts", "Counts", "pixel_area"]

# So many saturated pixels in a run along a column spill charge along it.
_BLOOMING_RUN = 5
# Pixels around those that a resampling is asked for, which it may look at.
_MARGIN = 2
_COUNT_UNITS = (u.DN, u.ct, u.DN / u.pix, u.ct / u.pix, u.dimensionless_unscaled)


@dataclass(frozen=True, eq=False)
class Counts:
    """Mean counts per native pixel; ``values`` are NaN where there are none, and `None` stands for no such pixels."""

    values: np.ndarray
    noise: np.ndarray | None  # Where the map brings its own
    saturated: np.ndarray | None  # Share of the native pixels
    bloomed: np.ndarray | None
    valid_share: np.ndarray | float = 1.0  # How much of a binned pixel there are counts of


@dataclass(frozen=True, eq=False)
class ChannelCounts:
    """
    One map, checked, whose counts are made when they are asked for; ``data`` times ``to_counts`` are counts.

    ``saturated`` and ``bloomed`` are `None` where no pixel is.
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
        """Check a map and return its counts."""
        _check_pixels(smap)
        exposure = _exposure(smap)
        to_counts = np.float32(exposure if _is_per_second(smap) else 1)
        # Before anything is resampled, as the mean of a full well and its neighbours looks innocent.
        saturated = np.asarray(smap.data >= SATURATION / to_counts)
        saturated = saturated if saturated.any() else None
        bloomed = None if saturated is None else _bloomed(saturated)
        noise = _own_noise(smap, to_counts)
        counts = cls(
            smap,
            np.asarray(smap.data),
            to_counts,
            smap.mask,
            noise,
            saturated,
            bloomed,
            exposure,
            registered=False,
            own_uncertainty=noise is not None,
            level=np.nan if smap.processing_level is None else float(smap.processing_level),
        )
        if not is_level_1(smap):
            return counts
        if contains_full_disk(smap):
            return _registered(counts)
        warnings.warn(
            f"The {describe(smap)} map is level 1 and not full-disc, so that aiapy cannot register it; its WCS is "
            "taken as it is. Use level 1.5 cutouts where pointing matters.",
            SunpyUserWarning,
            stacklevel=6,
        )
        return counts

    @property
    def shape(self):
        """Rows and columns of the map."""
        return self.data.shape

    def offset(self, grid):
        """Return (y, x) of this map's first pixel on ``grid`` if the pixels of both are the same, else `None`."""
        if self.smap is grid.smap:
            return (0, 0)
        ny, nx = self.shape
        corners = np.array([[0, 0], [nx - 1, 0], [0, ny - 1], [nx - 1, ny - 1], [nx / 2, ny / 2]])
        # Angles are compared as they stand: seconds of orbit between two channels are no misalignment.
        moved = grid.smap.wcs.wcs_world2pix(self.smap.wcs.wcs_pix2world(corners, 0), 0) - corners
        whole = np.round(moved[0])
        return tuple(whole.astype(int)[::-1].tolist()) if np.abs(moved - whole).max() <= ALIGNMENT_TOLERANCE else None

    def footprint(self, grid):
        """Return (first y, first x, end y, end x) in pixels of ``grid`` of the rectangle that this map covers."""
        ny, nx = self.shape
        corners = np.array([[0, 0], [nx, 0], [0, ny], [nx, ny]]) - 0.5
        source = _on_frame_of(self.smap.wcs, grid.smap.wcs)
        x, y = np.sort(grid.smap.wcs.wcs_world2pix(source.wcs_pix2world(corners, 0), 0) + 0.5, axis=0).T
        return y[1], x[1], y[2], x[2]

    def on(self, grid, offset, rows, columns):
        """
        Return the `Counts` under ``rows`` and ``columns``, two slices, of the grid of another channel, of which
        ``offset`` is this one's `offset`.
        """
        if offset is None:
            return self._reprojected(grid, rows, columns)
        return self._shifted(
            *(slice(part.start - o, part.stop - o) for part, o in zip((rows, columns), offset, strict=True))
        )

    def _part(self, rows, columns):
        """Return the `Counts` of the map's own pixels."""
        part = rows, columns
        # What single precision cannot hold is no count, and becomes infinite.
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
        """Return the `Counts` of pixels of which some may lie outside of the map."""
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
        """Return the `Counts` of pixels of another grid."""
        target = grid.smap.wcs[rows, columns]
        shape = rows.stop - rows.start, columns.stop - columns.start
        source = _on_frame_of(self.smap.wcs, grid.smap.wcs)
        near = _pixels_near(source, self.shape, target, shape)
        counts, source = self._part(*near), source[near]
        # How many pixels go into one: a coarser grid takes their mean, any other interpolates between them.
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

    def provenance(self):
        """Return what came in and what was done to it, as a `dict`."""
        return {
            "channel": channel_of(self.smap),
            "date": self.smap.date.isot,
            "exposure_time": self.exposure,
            "instrument": self.smap.instrument,
            "level": self.level,
            "registered": self.registered,
            "own_uncertainty": self.own_uncertainty,
        }


def _check_pixels(smap):
    """Raise unless the pixels of a map hold numbers and lie on the Sun."""
    if smap.data.dtype.kind not in "biuf":
        msg = f"maps: the {describe(smap)} map must hold real numbers, found {smap.data.dtype}. Read its file again."
        raise ValueError(msg)
    frame, reference, area, wrong = SunPyBaseCoordinateFrame, [], np.nan, ""
    try:
        reference = [*smap.wcs.wcs.crpix.tolist(), *smap.wcs.wcs.crval.tolist()]
        frame, area = type(smap.coordinate_frame), pixel_area(smap)
    except ValueError as error:  # of wcslib
        wrong = f" ({' '.join(str(error).split())})"
    if not (np.isfinite([area, *reference]).all() and area > 0 and issubclass(frame, SunPyBaseCoordinateFrame)):
        msg = (
            f"maps: the {describe(smap)} map must tell where on the Sun its pixels lie, by CTYPE, CRPIX, CRVAL, CDELT "
            f"and PC; found {frame.__name__}, reference {reference} and a pixel of {area:g} square arcsec{wrong}. "
            "Correct its header."
        )
        raise ValueError(msg)


def _is_per_second(smap):
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


def _exposure(smap):
    exposure = smap.exposure_time
    # Of a text in EXPTIME sunpy makes a unit.
    seconds = exposure.to_value(u.s) if isinstance(exposure, u.Quantity) else np.nan
    if not (np.isfinite(seconds) and np.float32(seconds) > 0):
        msg = (
            f"maps: the {describe(smap)} map has exposure time {exposure}; a positive one is needed for intensity and "
            "noise, also where the data are already per second. Set EXPTIME in its header."
        )
        raise ValueError(msg)
    return float(seconds)


def _own_noise(smap, to_counts):
    if smap.uncertainty is None:
        return None
    sigma = smap.uncertainty.represent_as(StdDevUncertainty).array
    return np.asarray(sigma, dtype=np.float32) * to_counts


def _bloomed(saturated):
    """Flag pixels along a column next to a long run of saturated ones, as far again; `None` if there are none."""
    bloomed = np.zeros_like(saturated)
    for column in np.flatnonzero(np.count_nonzero(saturated, axis=0) >= _BLOOMING_RUN):
        steps = np.diff(np.concatenate([[0], saturated[:, column], [0]]).astype(np.int8))
        for first, last in zip(np.flatnonzero(steps == 1), np.flatnonzero(steps == -1), strict=True):
            if (length := last - first) >= _BLOOMING_RUN:
                bloomed[max(0, first - length) : last + length, column] = True
    bloomed &= ~saturated
    return bloomed if bloomed.any() else None


def _registered(counts):
    """Register the counts of a full disc, and with them what is known of each pixel."""
    whole = counts._part(slice(None), slice(None))
    bad = np.isnan(whole.values)

    def registered(array, order, missing):
        # aiapy looks at the header alone, so that any plane can take the same way.
        return register(counts.smap._new_instance(array, counts.smap.meta), order=order, missing=missing)

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
    """Fill bad pixels with their nearest good neighbour, so that no spline rings around them."""
    if not bad.any() or bad.all():
        return values
    nearest = distance_transform_edt(bad, return_distances=False, return_indices=True)
    return values[tuple(nearest)]


def _on_frame_of(wcs, other):
    """
    Return ``wcs`` with the observer and time of ``other``.

    The maps are taken seconds apart by one spacecraft. With their own observers a reprojection would have to assume
    where along the line of sight the plasma is, and would lose everything off the limb.
    """
    framed = other.deepcopy()
    for name in ("crpix", "crval", "cdelt", "pc", "ctype"):
        setattr(framed.wcs, name, getattr(wcs.wcs, name))
    framed.wcs.lonpole, framed.wcs.latpole = wcs.wcs.lonpole, wcs.wcs.latpole
    framed.array_shape = wcs.array_shape
    return framed


def _pixels_near(source, source_shape, target, shape):
    """Return the slices of ``source`` from which the pixels of ``target`` are made."""
    ny, nx = shape
    corners = np.array([[0, 0], [nx, 0], [0, ny], [nx, ny]]) - 0.5
    there = source.wcs_world2pix(target.wcs_pix2world(corners, 0), 0)[:, ::-1]
    first = np.floor(there.min(axis=0)).astype(int) - _MARGIN
    last = np.ceil(there.max(axis=0)).astype(int) + _MARGIN + 1
    limits = [np.clip([a, b], 0, n).tolist() for a, b, n in zip(first, last, source_shape, strict=True)]
    return tuple(slice(a, b) for a, b in limits)


def pixel_area(smap):
    """Area of a pixel in square arcseconds."""
    return float(np.prod(np.abs(u.Quantity(smap.scale).to_value(u.arcsec / u.pix))))


# ---------------------------------------------------------------------------------------------------------------------
# Binning
# ---------------------------------------------------------------------------------------------------------------------


class Binning:
    """
    From the pixels of a grid to those of a coarser one: exact for any factor, a block mean for a whole one.

    Parameters
    ----------
    native, shape : `tuple` of `int`
        Shapes ``(ny, nx)`` of the two grids.
    """

    def __init__(self, native, shape):
        self.native, self.shape = native, shape
        self._overlaps = None if native == shape else [_overlap(*n) for n in zip(native, shape, strict=True)]

    def under(self, rows, columns):
        """Return the slices of native pixels under those of the coarser grid."""
        if self._overlaps is None:
            return rows, columns
        return tuple(_covered(overlap[part]) for overlap, part in zip(self._overlaps, (rows, columns), strict=True))

    def mean(self, counts, rows, columns):
        """Average the valid pixels of ``counts``, which are those `under` ``rows`` and ``columns``."""
        if self._overlaps is None:
            return counts
        overlaps = [
            overlap[part][:, _covered(overlap[part])]
            for overlap, part in zip(self._overlaps, (rows, columns), strict=True)
        ]
        area = np.float32(np.prod([n_in / n_out for n_in, n_out in zip(self.native, self.shape, strict=True)]))
        valid = np.isfinite(counts.values)
        if valid.all():
            share = weight = 1.0
            values = _area_sum(counts.values, overlaps) / area
            weight = area
        else:
            weight = _area_sum(valid.astype(np.float32), overlaps)
            share = weight / area
            with np.errstate(invalid="ignore"):
                values = _area_sum(np.where(valid, counts.values, 0), overlaps) / weight
            values[share < MIN_VALID_FRACTION] = np.nan
        noise = None
        if counts.noise is not None:
            # σ of the mean of independent pixels.
            with np.errstate(invalid="ignore"):
                noise = np.sqrt(_area_sum(np.where(valid, counts.noise, 0) ** 2, overlaps)) / weight
        saturated, bloomed = (
            None if plane is None else _area_sum(plane.astype(np.float32), overlaps) / area
            for plane in (counts.saturated, counts.bloomed)
        )
        return Counts(values, noise, saturated, bloomed, share)


def _overlap(n_in, n_out):
    """Return the share of each of ``n_in`` pixels in each of ``n_out``, a sparse matrix (n_out, n_in)."""
    edges = np.arange(n_out + 1) * (n_in / n_out)
    rows, columns, shares = [], [], []
    for row in range(n_out):
        first, last = int(np.floor(edges[row] + 1e-9)), int(np.ceil(edges[row + 1] - 1e-9))
        covered = np.arange(first, last)
        rows += [row] * covered.size
        columns += covered.tolist()
        shares += (np.minimum(covered + 1, edges[row + 1]) - np.maximum(covered, edges[row])).tolist()
    return csr_array((np.array(shares, dtype=np.float32), (rows, columns)), shape=(n_out, n_in))


def _covered(overlap):
    return slice(int(overlap.indices.min()), int(overlap.indices.max()) + 1)


def _area_sum(values, overlaps):
    """Sum over the area of each pixel of a coarser grid."""
    rows, columns = overlaps
    return np.ascontiguousarray((columns @ (rows @ values).T).T)
