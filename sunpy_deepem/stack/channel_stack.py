"""One calibrated, co-aligned, binned stack of all channels: `ChannelStack`."""

from dataclasses import dataclass, field, replace
from itertools import product

import astropy.units as u
import numpy as np

from sunpy_deepem.calibrate.alignment import REFERENCE_CHANNEL, measure_misalignment
from sunpy_deepem.calibrate.degradation import degradation_factor, known_until
from sunpy_deepem.calibrate.photometry import common_fraction, counts_uncertainty, error_table, native_pixels
from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.quality import MASKED, Quality, signal_flags
from sunpy_deepem.stack.agreement import check_fields, check_observers, check_registration, check_units
from sunpy_deepem.stack.binning import Binning
from sunpy_deepem.stack.counts import ChannelCounts, unused_provenance
from sunpy_deepem.stack.grid import binned_header, common_field, common_grid, output_shape, part_header
from sunpy_deepem.stack.maps import channel_of, check_times, checked_channels, load_maps, one_of_each
from sunpy_deepem.stack.options import check_synthetic, checked_degradation, checked_min_channels, degradation_table
from sunpy_deepem.units import INTENSITY_UNIT, MIN_CHANNELS
from sunpy_deepem.utils.checks import fraction_of_one, one_time
from sunpy_deepem.utils.messages import warn_user
from sunpy_deepem.utils.parallel import thread_map
from sunpy_deepem.utils.regions import resolve_region
from sunpy_deepem.utils.wcs import sky_wcs

__all__ = ["ChannelStack", "Observation"]

# Largest number of pixels per band, and of native pixels in it, that stay in a CPU's cache.
_BAND_PIXELS, _NATIVE_BAND_PIXELS = 2**18, 2**21
# Default number of pixels along the longer side; and size of images from which misalignment is measured.
_SHAPE, _MIN_SIZE_TO_ALIGN = 512, 64


@dataclass(frozen=True, eq=False)
class ChannelStack:
    """
    Calibrated intensities of all channels on one grid, the input of an inversion.

    Create it by `from_maps`.

    Attributes
    ----------
    intensity : `~astropy.units.Quantity`
        DN s^-1 pix^-1 with AIA's native pixel, shape ``(6, ny, nx)``. NaN where a channel is not used, because it is
        missing, saturated, bloomed, masked in its map or not among the requested channels.
    uncertainty : `~astropy.units.Quantity`
        σ of the intensity or of its lower limit, of the same shape and unit.
    quality : `~numpy.ndarray`
        `Quality` flags MISSING, SATURATED, BLOOMING, NEGATIVE, LOW_SIGNAL, OUTSIDE, PARTIAL and FEW_CHANNELS, shape
        ``(ny, nx)``.
    saturation : `~numpy.ndarray`
        Largest fraction of saturated native pixels among the channels, shape ``(ny, nx)``.
    header : `dict`
        FITS header of the common grid: WCS, observer and time.
    inputs : `tuple` of `dict`
        Facts about the input of each channel and its processing.
    meta : `dict`
        Facts about the processing of all channels.
    limit : `~astropy.units.Quantity` or `None`
        Lower limit of the intensity where a channel is saturated but not bloomed, elsewhere NaN, of the same shape and
        unit; `None` if no channel is saturated.
    """

    intensity: u.Quantity
    uncertainty: u.Quantity
    quality: np.ndarray
    saturation: np.ndarray
    header: dict
    inputs: tuple
    meta: dict = field(default_factory=dict)
    limit: u.Quantity | None = None

    @property
    def mask(self):
        """`True` where too few channels can be used, and outside the region, shape ``(ny, nx)``."""
        return (self.quality & MASKED) != 0

    @property
    def usable(self):
        """`True` where the intensity of a channel can be used, shape ``(6, ny, nx)``."""
        return np.isfinite(self.intensity.value)

    @property
    def lower_limit(self):
        """`True` where a channel is saturated, so that only a lower limit is known, shape ``(6, ny, nx)``."""
        if self.limit is None:
            return np.zeros(self.intensity.shape, dtype=bool)
        return np.isfinite(self.limit.value)

    def with_limits(self):
        """
        Return the intensities including lower limits.

        Returns
        -------
        intensity : `~numpy.ndarray`
            DN s^-1 pix^-1, the lower limit where a channel is saturated, shape ``(6, ny, nx)``.
        lower_limit : `~numpy.ndarray` or `None`
            `True` for lower limits; `None` if there are no limits.
        """
        if self.limit is None:
            return self.intensity.value, None
        return np.where(self.lower_limit, self.limit.value, self.intensity.value), self.lower_limit

    @property
    def wcs(self):
        """Celestial WCS of the grid, `~astropy.wcs.WCS`."""
        return sky_wcs(self.header)

    @classmethod
    def from_maps(cls, maps, **options) -> "ChannelStack":
        """
        Calibrate, align and bin maps.

        Parameters
        ----------
        maps : `~sunpy.map.MapSequence`, path of a folder, or iterable of `~sunpy.map.GenericMap` or paths
            One map of each channel, in any order.
        **options
            As for `Observation`: ``shape`` (default 512), ``region``, ``channels``, ``min_channels`` (3),
            ``systematic`` (0.1), ``pixel_error`` (0), ``degradation`` (``"data"``), ``epoch``, ``correction_table``,
            ``calibration_error``, ``chianti_error``, ``max_time_span``.

        Returns
        -------
        `ChannelStack`

        Raises
        ------
        TypeError, ValueError, FileNotFoundError
            As for `Observation`.
        """
        return Observation(maps, **options).stack()

    def __repr__(self):
        ny, nx = self.quality.shape
        return f"<ChannelStack {len(self.intensity)} × {ny} × {nx}, {self.header['date-obs']}>"


class Observation:
    """
    Maps checked and placed on a common grid; any part is calibrated on request.

    `aiapy.calibrate.register` registers full disks of level 1. Maps whose pixels differ by more than a tenth are
    reprojected onto the coarsest map, and cutouts are cropped to their common field. Counts are binned by area-weighted
    mean. Their noise is that of the number of native pixels averaged, or the map's own ``uncertainty`` if it has one.
    Both are divided by exposure time and degradation.

    A channel is used in a pixel unless it is missing, saturated or bloomed there. A map's ``mask`` excludes pixels of
    that channel, for example spikes. A saturated channel gives a lower limit, unless it is bloomed: in long saturated
    runs along a column, spilled charge can exceed a pixel's own. Bloomed channels that are not saturated are used where
    fewer than ``min_channels`` others remain.

    Parameters
    ----------
    maps : `~sunpy.map.MapSequence`, path of a folder, or iterable of `~sunpy.map.GenericMap` or paths
        One map of each channel, in any order.
    shape : `int`, `tuple` of `int` or `None`, optional
        Pixels along the longer side, ``(ny, nx)``, or `None` for the native resolution. Maps are never upsampled; a
        larger `int` keeps the native resolution.
    region : optional
        Part of the field to keep, in any form of `~sunpy_deepem.utils.regions.resolve_region`, on the binned grid of
        the whole maps. Pixels of the rectangle around it that do not belong to it are masked.
    channels : sequence of `int`, optional
        Channels to use, at least three; maps of other channels are ignored. By default all six.
    min_channels : `int`, optional
        Pixels with fewer usable channels are masked.
    systematic : `float`, optional
        Error of calibration and atomic data as a fraction of the intensity, added to σ in quadrature. It is common to
        all pixels of a channel, so the mean of a region has it in full.
    pixel_error : `float`, optional
        Likewise, an error that is independent from pixel to pixel, such as that of the flat field or of small shifts
        between channels. It averages out.
    degradation : {"data", "response", None}, optional
        Correct the data for degradation to ``epoch``; leave it to a response of the observation's date; or do neither,
        for maps already corrected. `True` and `False` mean ``"data"`` and `None`.
    epoch : `~astropy.time.Time` or `str`, optional
        Time of the response, by default launch.
    correction_table : optional
        As for `sunpy_deepem.calibrate.correction_table`. With ``degradation=None`` it is the table by which the maps
        were corrected, for `DEMCube.synthesize`.
    calibration_error, chianti_error : optional
        Further terms of σ, common to all pixels, as for `sunpy_deepem.calibrate.counts_uncertainty`; by default
        ``systematic`` covers them.
    max_time_span : `~astropy.units.Quantity`, optional
        Largest time between the first and the last map.

    Attributes
    ----------
    shape : `tuple` of `int`
        ``(ny, nx)`` of the stack.
    header : `dict`
        FITS header of its grid: WCS, observer and time.
    inputs : `tuple` of `dict`
        Facts about the input of each channel and its processing.
    meta : `dict`
        Facts about the processing of all channels.

    Raises
    ------
    TypeError
        If ``maps`` contains anything but maps and paths.
    ValueError
        If maps are not one of each channel, are too far apart in time or on the sky, or have no exposure time or an
        unknown unit; or if an option is invalid.
    FileNotFoundError
        If a path does not exist.

    Warns
    -----
    sunpy.util.exceptions.SunpyUserWarning
        If a channel is shifted by more than a pixel, its roll, field or kind of unit differs from those of the other
        channels, a level 1 map cannot be registered, or the observation is later than the table of degradation.

    Examples
    --------
    >>> from sunpy_deepem.stack import Observation
    >>> observation = Observation(sample_maps((64, 64)))
    >>> observation.part(slice(0, 8), slice(0, 64))
    <ChannelStack 6 × 8 × 64, 2014-01-01T00:00:01.570>
    """

    @u.quantity_input
    def __init__(
        self,
        maps,
        *,
        shape=_SHAPE,
        region=None,
        channels=None,
        min_channels=MIN_CHANNELS,
        systematic=0.1,
        pixel_error=0.0,
        degradation="data",
        epoch=None,
        correction_table=None,
        calibration_error=None,
        chianti_error=False,
        max_time_span: u.s = 60 * u.s,
    ):
        self._systematic = fraction_of_one(systematic, "systematic")
        self._pixel_error = fraction_of_one(pixel_error, "pixel_error")
        degradation = checked_degradation(degradation)
        self._used = checked_channels(channels)
        self._min_channels = checked_min_channels(min_channels, self._used)
        maps = one_of_each(load_maps(maps), self._used)
        check_times(maps, max_time_span)
        check_observers(maps)
        check_units(maps)
        check_synthetic(maps, degradation)
        epoch = None if epoch is None else one_time(epoch, "epoch")
        table, table_origin = degradation_table(degradation, correction_table)
        known = None if table is None else known_until(table, max(smap.date for smap in maps))
        self._counts = {channel_of(smap): ChannelCounts.from_map(smap) for smap in maps}
        check_registration(self._counts)
        self._place(shape, region)
        check_fields(maps)
        self._errors = {"calibration_error": calibration_error, "chianti_error": chianti_error}
        corrected = degradation == "data"
        self.inputs = tuple(self._input(channel, epoch, table, corrected=corrected) for channel in CHANNELS)
        self.meta = {
            "systematic": self._systematic,
            "pixel_error": self._pixel_error,
            "common_error": [self._common_error(facts) for facts in self.inputs],
            "degradation": degradation,
            "correction_table": table_origin,
            "degradation_known_until": None if known is None else known.utc.isot,
            "epoch": epoch.utc.isot if corrected and epoch is not None else None,
            "calibration_error": calibration_error,
            "chianti_error": bool(chianti_error),
            "native_pixels": native_pixels(self._scale),
            "channels": list(self._used),
            "min_channels": self._min_channels,
        }

    def _place(self, shape, region):
        """Find the common grid, the field that all channels cover, and the region in it."""
        self._grid = common_grid(self._counts.values())
        self._offsets = {channel: counts.offset(self._grid) for channel, counts in self._counts.items()}
        self._field = common_field(self._counts.values(), self._grid)
        native = tuple(part.stop - part.start for part in self._field)
        self._binning = Binning(native, output_shape(native, shape))
        if isinstance(shape, int) and shape > max(native) and shape != _SHAPE:
            warn_user(
                f"shape={shape} exceeds the {native} native pixels. Maps are not upsampled: they keep their pixels."
            )
        header = binned_header(self._grid.smap, self._field, self._binning.shape)
        self._rows, self._columns, self._inside = resolve_region(region, sky_wcs(header), self._binning.shape)
        self.header = part_header(header, self._rows, self._columns)
        self.shape = self._rows.stop - self._rows.start, self._columns.stop - self._columns.start

    def _input(self, channel, epoch, table, *, corrected):
        """Return facts about a channel's input and processing; one that is not used has the time of another."""
        counts = self._counts.get(channel, self._grid)
        if channel in self._counts:
            facts = counts.provenance() | {"reprojected": self._offsets[channel] is None}
        else:
            facts = unused_provenance(channel, counts.smap) | {"reprojected": False}
        if table is None:
            return facts | {"degradation": 1.0}
        factor = degradation_factor(channel, counts.smap.date, epoch=epoch, table=table)
        return facts | ({"degradation": factor} if corrected else {"degradation": 1.0, "earlier_correction": factor})

    def _common_error(self, facts):
        """Return the error of a channel that is common to all pixels, as a fraction of the intensity."""
        # A map's own uncertainty takes the place of all terms but the systematic error.
        errors = 0.0 if facts.get("own_uncertainty") else common_fraction(facts["channel"], **self._errors)
        return float(np.hypot(self._systematic, errors))

    @property
    def _scale(self):
        return u.Quantity([abs(self.header["cdelt1"]), abs(self.header["cdelt2"])], u.arcsec / u.pix)

    def stack(self):
        """
        Calibrate the whole field.

        Returns
        -------
        `ChannelStack`

        Warns
        -----
        sunpy.util.exceptions.SunpyUserWarning
            If a channel is shifted by more than a pixel.
        """
        # Read before starting threads, because aiapy silences warnings of all threads while reading.
        error_table()
        with thread_map() as map_parts:
            whole = self._calibrated(self.bands(), slice(0, self.shape[1]), map_parts)
        return replace(whole, meta=self.meta | {"misalignment": self.misalignment(whole.intensity.value)})

    def bands(self, multiple=1):
        """
        Return slices of rows that fit into a CPU's cache.

        Parameters
        ----------
        multiple : `int`, optional
            The number of rows of each but the last is a multiple of this.

        Returns
        -------
        `list` of `slice`
        """
        ny, nx = self.shape
        native = np.prod([n_in / n_out for n_in, n_out in zip(self._binning.native, self._binning.shape, strict=True)])
        step = max(1, int(min(_BAND_PIXELS, _NATIVE_BAND_PIXELS / native) / (nx * multiple))) * multiple
        return [slice(start, min(start + step, ny)) for start in range(0, ny, step)]

    def part(self, rows, columns):
        """
        Calibrate a part of the field.

        Parameters
        ----------
        rows, columns : `slice`
            Part of ``shape``, with a step of one.

        Returns
        -------
        `ChannelStack`
            Without misalignment, since a part may be too small to measure it.
        """
        return self._calibrated([rows], columns, map)

    def _calibrated(self, bands, columns, map_parts):
        """Return the stack of consecutive ``bands`` of rows; ``map_parts`` maps over channels and bands."""
        rows = slice(bands[0].start, bands[-1].stop)
        shape = rows.stop - rows.start, columns.stop - columns.start
        intensity = np.full((len(CHANNELS), *shape), np.nan, dtype=np.float32)
        sigma = np.full_like(intensity, np.nan)
        counts = self._counts.values()
        limit = np.full_like(intensity, np.nan) if any(one.saturated is not None for one in counts) else None
        bloomed = np.zeros(intensity.shape, dtype=bool) if any(one.bloomed is not None for one in counts) else None
        quality, saturation = np.zeros(shape, dtype=np.uint16), np.zeros(shape, dtype=np.float32)

        def calibrate(part):
            channel, band = part
            here = CHANNELS.index(channel), slice(band.start - rows.start, band.stop - rows.start)
            binned = self._binned(channel, band, columns)
            self._fill_in(channel, binned, intensity[here], sigma[here])
            if binned.bloomed is not None:
                bloomed[here] = binned.bloomed > 0
            return here[1], _exclude(binned, intensity[here], sigma[here], None if limit is None else limit[here])

        for here, (flags, saturated) in map_parts(calibrate, product(self._counts, bands)):
            quality[here] |= flags
            if saturated is not None:
                np.maximum(saturation[here], saturated, out=saturation[here])
        if bloomed is not None:
            quality |= _flagged(bloomed.any(axis=0), Quality.BLOOMING)
            enough = np.count_nonzero(np.isfinite(intensity) & ~bloomed, axis=0) >= self._min_channels
            intensity[bloomed & enough] = np.nan
        quality |= signal_flags(intensity, sigma) | self._use_flags(np.isfinite(intensity))
        if self._inside is not None:
            quality |= _flagged(~self._inside[rows, columns], Quality.OUTSIDE)
        arrays = [None if array is None else array << INTENSITY_UNIT for array in (intensity, sigma, limit)]
        header = part_header(self.header, rows, columns)
        return ChannelStack(*arrays[:2], quality, saturation, header, self.inputs, self.meta, limit=arrays[2])

    def _binned(self, channel, rows, columns):
        """Return the binned counts of a channel in a part of the stack."""
        binned = _moved((rows, columns), (self._rows, self._columns))
        native = _moved(self._binning.native_slices(*binned), self._field)
        return self._binning.mean(self._counts[channel].on(self._grid, self._offsets[channel], *native), *binned)

    def _fill_in(self, channel, binned, intensity, sigma):
        """Write the intensity and σ of a channel into two arrays."""
        noise = binned.noise
        if noise is None:
            n_sample = np.maximum(native_pixels(self._scale) * binned.valid_fraction, 1)
            noise = counts_uncertainty(binned.values, channel, n_sample, **self._errors)
        divisor = np.float32(self._counts[channel].exposure * self.inputs[CHANNELS.index(channel)]["degradation"])
        np.divide(binned.values, divisor, out=intensity)
        np.divide(noise, divisor, out=sigma, casting="same_kind")
        np.hypot(sigma, np.float32(np.hypot(self._systematic, self._pixel_error)) * intensity, out=sigma)

    def _use_flags(self, usable):
        """Return the flags PARTIAL and FEW_CHANNELS."""
        n = np.count_nonzero(usable, axis=0)
        few = n < self._min_channels
        return _flagged(few, Quality.FEW_CHANNELS) | _flagged(~few & (n < len(self._counts)), Quality.PARTIAL)

    def misalignment(self, intensity):
        """
        Measure the shift of each channel relative to 193 Å; warn of shifts beyond a pixel.

        Parameters
        ----------
        intensity : `~numpy.ndarray`
            Intensity of the whole field, shape ``(6, ny, nx)``, or its mean over blocks of pixels.

        Returns
        -------
        `dict`
            Shift (x, y) in arcsec by channel, `None` if unknown.
        """
        block = self.shape[0] // intensity.shape[1]
        return _misalignment(intensity, self._scale * block)


def _misalignment(intensity, scale):
    """Return the shift (x, y) of each channel in arcsec, `None` if unknown; warn of shifts beyond a pixel."""
    if min(intensity.shape[1:]) < _MIN_SIZE_TO_ALIGN:
        return dict.fromkeys(map(str, CHANNELS))
    shifts = measure_misalignment(intensity)
    arcsec = (shifts[:, ::-1] * scale.value).round(2).tolist()
    misalignment = {
        str(channel): shift if np.isfinite(shift).all() else None
        for channel, shift in zip(CHANNELS, arcsec, strict=True)
    }
    if far := [channel for channel, shift in zip(CHANNELS, shifts, strict=True) if np.hypot(*shift) > 1]:
        listed = ", ".join(f"{channel} Å by {misalignment[str(channel)]} arcsec" for channel in far)
        warn_user(
            f"Channels are shifted relative to {REFERENCE_CHANNEL} Å by more than a pixel: {listed}. Update their "
            "pointing with sunpy_deepem.prepare(pointing=True) or align them first."
        )
    return misalignment


def _exclude(binned, intensity, sigma, limit):
    """Set unusable intensities to NaN, move saturated ones to ``limit``; return flags and saturated fraction."""
    # A value without σ is useless.
    invalid = ~(np.isfinite(intensity) & (sigma > 0))
    intensity[invalid] = np.nan
    flags = _flagged(invalid, Quality.MISSING)
    if binned.saturated is not None:
        saturated = binned.saturated > 0
        # Charge spilled along a column can exceed the pixel's own.
        own = saturated if binned.bloomed is None else saturated & (binned.bloomed == 0)
        limit[own] = intensity[own]
        intensity[saturated] = np.nan
        flags |= _flagged(saturated, Quality.SATURATED)
    return flags, binned.saturated


def _moved(parts, by):
    return tuple(slice(part.start + b.start, part.stop + b.start) for part, b in zip(parts, by, strict=True))


def _flagged(where, flag):
    return where * np.uint16(flag)
