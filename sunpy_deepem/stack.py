"""Six AIA maps become one calibrated, co-aligned, binned stack: `ChannelStack`."""

import warnings
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import astropy.units as u
import numpy as np
import sunpy.map
from aiapy.calibrate import register
from astropy.coordinates import SkyCoord
from astropy.nddata import StdDevUncertainty
from reproject import reproject_exact, reproject_interp
from scipy.ndimage import distance_transform_edt
from scipy.sparse import csr_array
from sunpy.map import GenericMap, MapSequence, contains_full_disk
from sunpy.map.header_helper import make_fitswcs_header
from sunpy.map.sources import AIAMap
from sunpy.time import parse_time
from sunpy.util.exceptions import SunpyUserWarning

from sunpy_deepem._wcs import sky_wcs
from sunpy_deepem.alignment import REFERENCE_CHANNEL, measure_misalignment
from sunpy_deepem.calibration import correction_table as get_correction_table
from sunpy_deepem.calibration import counts_uncertainty, degradation_factor, native_pixels
from sunpy_deepem.channels import CHANNELS, INTENSITY_UNIT, SYNTHETIC
from sunpy_deepem.preparation import is_level_1
from sunpy_deepem.quality import Quality

__all__ = ["ChannelStack"]

# NOTE: full well is 16383 DN; the detector is not linear near it. Boerner et al. (2012), Solar Phys. 275, 41.
SATURATION = 15000
# Maps that differ by less than this are the same pixel grid.
_ALIGNMENT_TOLERANCE = 0.1
# A binned pixel needs this much valid data under it.
_MIN_VALID = 0.5
# So many saturated pixels in a run along a column spill charge along it.
_BLOOMING_RUN = 5
# Images smaller than this are too small for their channels to be compared.
_LEAST_TO_ALIGN = 64
_COUNT_UNITS = (u.DN, u.ct, u.DN / u.pix, u.ct / u.pix, u.dimensionless_unscaled)
_FITS_SUFFIXES = (".fits", ".fit", ".fts", ".fits.gz", ".fits.fz")


@dataclass(frozen=True, eq=False)
class ChannelStack:
    """
    Six channels on one grid: what `invert` hands to the network.

    Made by `from_maps`; the constructor takes what that computed.

    Attributes
    ----------
    intensity : `~astropy.units.Quantity`
        DN s^-1 pix^-1 with AIA's native pixel, shape ``(6, ny, nx)``. NaN where a channel is missing.
    uncertainty : `~astropy.units.Quantity`
        σ of the intensity, of the same shape and unit.
    quality : `~numpy.ndarray`
        `Quality` flags MISSING, SATURATED, BLOOMING, NEGATIVE and LOW_SIGNAL, shape ``(ny, nx)``.
    saturation : `~numpy.ndarray`
        Share of the native pixels under each pixel that are saturated, in the channel where it is largest, shape
        ``(ny, nx)``.
    header : `dict`
        FITS header of the common grid: WCS, observer and time.
    inputs : `tuple` of `dict`
        For each channel what came in and what was done to it.
    meta : `dict`
        What was done to all.
    """

    intensity: u.Quantity
    uncertainty: u.Quantity
    quality: np.ndarray
    saturation: np.ndarray
    header: dict
    inputs: tuple
    meta: dict = field(default_factory=dict)

    @property
    def mask(self):
        """`True` where a channel is missing or saturated, shape ``(ny, nx)``."""
        return (self.quality & (Quality.MISSING | Quality.SATURATED)) != 0

    @property
    def wcs(self):
        """The two celestial axes, `~astropy.wcs.WCS`."""
        return sky_wcs(self.header)

    @classmethod
    @u.quantity_input
    def from_maps(
        cls,
        maps,
        *,
        shape=512,
        systematic=0.1,
        degradation="data",
        epoch=None,
        correction_table=None,
        calibration_error=None,
        chianti_error=False,
        max_time_span: u.s = 60 * u.s,
    ):
        """
        Calibrate, align and bin six maps.

        Level 1 full-disc maps are registered by `aiapy.calibrate.register`; maps that differ by more than a tenth of a
        pixel are reprojected onto the coarsest. Counts are binned by area-weighted mean, their noise estimated as that
        of so many native pixels, and both divided by exposure time and degradation. A map's own ``uncertainty``, where
        it has one, is used instead of the estimate.

        Parameters
        ----------
        maps : `~sunpy.map.MapSequence`, path of a folder, or iterable of `~sunpy.map.GenericMap` or paths
            One map of each channel, in any order.
        shape : `int`, `tuple` of `int` or `None`, optional
            Pixels along the longer side; or ``(ny, nx)``; or `None` to keep the native resolution. Nothing is ever
            upsampled: an `int` larger than the maps leaves them as they are.
        systematic : `float`, optional
            Error of calibration and atomic data, as a fraction of the intensity, added to σ in quadrature.
        degradation : {"data", "response", None}, optional
            Whether to correct the data for degradation to ``epoch``, to leave that to a response of the date of the
            observation, or to do nothing about it, as for maps that are corrected already. `True` and `False` mean
            ``"data"`` and `None`.
        epoch : `~astropy.time.Time` or `str`, optional
            Time for which the response holds, by default launch.
        correction_table : optional
            As in `sunpy_deepem.calibration.correction_table`.
        calibration_error, chianti_error : optional
            Further terms of σ, as in `sunpy_deepem.calibration.counts_uncertainty`; ``systematic`` stands for them by
            default.
        max_time_span : `~astropy.units.Quantity`, optional
            The most time that may lie between the first and last map.

        Returns
        -------
        `ChannelStack`

        Raises
        ------
        TypeError
            If ``maps`` holds something that is neither map nor path.
        ValueError
            If maps are not one of each channel, are too far apart in time, have no exposure time or an unknown unit,
            or an option makes no sense.
        FileNotFoundError
            If a path does not exist.

        Warns
        -----
        sunpy.util.exceptions.SunpyUserWarning
            If a channel is shifted against the others by more than a pixel, or a level 1 map could not be registered.
        """
        systematic = _check_systematic(systematic)
        if degradation not in ("data", "response", None, True, False):
            msg = f"degradation must be 'data', 'response' or None, found {degradation!r}."
            raise ValueError(msg)
        degradation = {True: "data", False: None}.get(degradation, degradation)
        maps = _one_of_each(_load(maps))
        _check_times(maps, max_time_span)
        _check_synthetic(maps, degradation)
        epoch = None if epoch is None else parse_time(epoch)
        table, table_origin = get_correction_table(correction_table) if degradation == "data" else (None, None)
        prepared = [_Counts.from_map(smap) for smap in maps]
        grid = _common_grid(prepared)
        shape_out = _output_shape(grid.values.shape, shape)
        header = _binned_header(grid.smap, shape_out)
        scale = u.Quantity([abs(header["cdelt1"]), abs(header["cdelt2"])], u.arcsec / u.pix)
        intensity = np.empty((len(CHANNELS), *shape_out), dtype=np.float32)
        sigma = np.empty_like(intensity)
        quality, saturation = np.zeros(shape_out, dtype=np.uint16), np.zeros(shape_out, dtype=np.float32)
        inputs = []
        for index, (channel, counts) in enumerate(zip(CHANNELS, prepared, strict=True)):
            binned = counts.onto(grid).binned(shape_out)
            noise = binned.noise
            if noise is None:
                noise = counts_uncertainty(
                    binned.values,
                    channel,
                    np.maximum(native_pixels(scale) * binned.valid_share, 1),
                    calibration_error=calibration_error,
                    chianti_error=chianti_error,
                )
            factor = 1.0 if table is None else degradation_factor(channel, counts.smap.date, epoch=epoch, table=table)
            divisor = counts.exposure * factor
            intensity[index] = binned.values / divisor
            sigma[index] = np.hypot(noise / divisor, systematic * intensity[index])
            quality |= _flagged(binned.saturated > 0, Quality.SATURATED) | _flagged(binned.bloomed, Quality.BLOOMING)
            saturation = np.maximum(saturation, binned.saturated)
            inputs.append(counts.provenance() | {"degradation": factor, "reprojected": not counts.same_grid(grid)})
        # A pixel that brings no σ could be anything.
        intensity[~(sigma > 0)] = np.nan
        quality |= _flags(intensity, sigma)
        meta = {
            "systematic": systematic,
            "degradation": degradation,
            "correction_table": table_origin,
            "epoch": epoch.utc.isot if degradation == "data" and epoch is not None else None,
            "calibration_error": calibration_error,
            "chianti_error": bool(chianti_error),
            "native_pixels": native_pixels(scale),
            "misalignment": _misalignment(intensity, scale),
        }
        return cls(
            intensity << INTENSITY_UNIT,
            sigma << INTENSITY_UNIT,
            quality,
            saturation,
            header,
            tuple(inputs),
            meta,
        )

    def __repr__(self):
        ny, nx = self.quality.shape
        return f"<ChannelStack {len(CHANNELS)} × {ny} × {nx}, {self.header['date-obs']}>"


# ---------------------------------------------------------------------------------------------------------------------
# Which maps
# ---------------------------------------------------------------------------------------------------------------------


def _load(maps):
    """Return a list of maps from whatever ``maps`` is."""
    if isinstance(maps, GenericMap):
        msg = f"maps must be six maps, found a single {_describe(maps)}. Pass one map of each of {CHANNELS} Å."
        raise TypeError(msg)
    if isinstance(maps, str | Path):
        maps = _files_in(Path(maps))
    try:
        items = list(maps)
    except TypeError:
        msg = f"maps must be a MapSequence, a folder, or an iterable of maps or paths, found {type(maps).__name__}."
        raise TypeError(msg) from None
    loaded = []
    for item in items:
        loaded += _read(Path(item)) if isinstance(item, str | Path) else [item]
    for item in loaded:
        if not isinstance(item, GenericMap):
            msg = f"maps must hold sunpy maps or paths of files, found {type(item).__name__}."
            raise TypeError(msg)
    return loaded


def _files_in(folder):
    if not folder.is_dir():
        msg = f"maps must be a folder or six maps or paths, found the single path {folder}, which is no folder."
        raise FileNotFoundError(msg)
    # Hidden files are what operating systems and unfinished downloads leave, not maps.
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    files = [folder / name for name in names if name.lower().endswith(_FITS_SUFFIXES)]
    if not files:
        msg = f"maps: the folder {folder} holds no FITS file ({', '.join(_FITS_SUFFIXES)})."
        raise FileNotFoundError(msg)
    return files


def _read(path):
    if not path.is_file():
        msg = f"maps: there is no file {path}."
        raise FileNotFoundError(msg)
    try:
        read = sunpy.map.Map(path)
    except Exception as error:  # sunpy lets through whatever the readers raise
        msg = f"maps: {path} cannot be read as a map ({type(error).__name__}: {error}). Download it again."
        raise ValueError(msg) from error
    return read if isinstance(read, list | MapSequence) else [read]


def _channel(smap):
    """Return the channel of a map, or `None` if it is none of the six."""
    if not isinstance(smap, AIAMap) or smap.wavelength is None:
        return None
    value = round(smap.wavelength.to_value(u.angstrom))
    return value if value in CHANNELS else None


def _describe(smap):
    instrument = smap.instrument or smap.observatory or type(smap).__name__
    wavelength = "" if smap.wavelength is None else f" {smap.wavelength:g}"
    return f"{instrument}{wavelength}"


def _one_of_each(maps):
    """Return the maps in channel order, or raise."""
    found = Counter(_channel(smap) for smap in maps)
    wrong = []
    foreign = [_describe(smap) for smap in maps if _channel(smap) is None]
    if foreign:
        wrong.append(f"foreign: {', '.join(foreign)}")
    if missing := [channel for channel in CHANNELS if not found[channel]]:
        wrong.append(f"missing: {', '.join(f'{channel} Å' for channel in missing)}")
    if double := [channel for channel in CHANNELS if found[channel] > 1]:
        wrong.append(f"more than once: {', '.join(f'{channel} Å ({found[channel]} maps)' for channel in double)}")
    if wrong:
        msg = f"maps must be exactly one AIA map for each of {CHANNELS} Å; found {len(maps)} maps, {'; '.join(wrong)}."
        raise ValueError(msg)
    return sorted(maps, key=lambda smap: CHANNELS.index(_channel(smap)))


def _check_times(maps, max_time_span):
    times = [smap.date for smap in maps]
    if (span := (max(times) - min(times)).to(u.s)) > max_time_span:
        listed = ", ".join(f"{channel} Å {time.isot}" for channel, time in zip(CHANNELS, times, strict=True))
        msg = (
            f"maps span {span:.1f}, more than max_time_span={max_time_span:g}: {listed}. Choose maps closer in time or "
            "raise max_time_span."
        )
        raise ValueError(msg)


def _check_synthetic(maps, degradation):
    if degradation == "data" and any(smap.meta.get("content") == SYNTHETIC for smap in maps):
        msg = (
            "maps are synthetic ones, as DEMCube.synthesize makes them, and have no degradation to be corrected for. "
            "Pass degradation=None."
        )
        raise ValueError(msg)


def _check_systematic(systematic):
    try:
        value = float(systematic)
    except (TypeError, ValueError):
        value = np.nan
    if not 0 <= value < 1:
        msg = f"systematic must be a fraction from 0 up to 1, such as 0.1 for 10 %, found {systematic!r}."
        raise ValueError(msg)
    return value


# ---------------------------------------------------------------------------------------------------------------------
# Counts of one channel
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Counts:
    """Mean counts per native pixel of one channel; ``values`` are NaN where there are none."""

    smap: GenericMap
    values: np.ndarray
    saturated: np.ndarray  # Of the native pixels, or their share once binned
    bloomed: np.ndarray
    noise: np.ndarray | None
    exposure: float
    level: float
    registered: bool
    valid_share: np.ndarray | float = 1.0  # How much of a binned pixel there are counts of

    @classmethod
    def from_map(cls, smap):
        exposure = _exposure(smap)
        to_counts = exposure if _is_per_second(smap) else 1.0
        values = np.asarray(smap.data, dtype=np.float32) * np.float32(to_counts)
        # Before anything is resampled, as the mean of a full well and its neighbours looks innocent.
        saturated = values >= SATURATION
        bloomed = _bloomed(saturated)
        bad = ~np.isfinite(values)
        if smap.mask is not None:
            bad |= smap.mask
        noise = _own_noise(smap, to_counts)
        if noise is not None:
            bad |= ~np.isfinite(noise)
        level = float(smap.processing_level or np.nan)
        registered = bool(is_level_1(smap) and contains_full_disk(smap))
        if registered:
            values, (bad, saturated, bloomed), noise, smap = _register(smap, values, (bad, saturated, bloomed), noise)
        elif is_level_1(smap):
            warnings.warn(
                f"The {_describe(smap)} map is level 1 and not full-disc, so that aiapy cannot register it; its WCS is "
                "taken as it is. Use level 1.5 cutouts where pointing matters.",
                SunpyUserWarning,
                stacklevel=4,
            )
        values = np.where(bad, np.float32(np.nan), values)
        return cls(smap, values, saturated, bloomed, noise, exposure, level, registered)

    def same_grid(self, other):
        if self.smap is other.smap:
            return True
        if self.values.shape != other.values.shape:
            return False
        ny, nx = self.values.shape
        corners = np.array([[0, 0], [nx - 1, 0], [0, ny - 1], [nx - 1, ny - 1], [nx / 2, ny / 2]])
        # Angles are compared as they stand: seconds of orbit between two channels are no misalignment.
        there = other.smap.wcs.wcs_world2pix(self.smap.wcs.wcs_pix2world(corners, 0), 0)
        return bool(np.abs(there - corners).max() <= _ALIGNMENT_TOLERANCE)

    def onto(self, grid):
        """Reproject onto the pixels of another channel."""
        if self.same_grid(grid):
            return self
        target, source = grid.smap.wcs, _on_frame_of(self.smap.wcs, grid.smap.wcs)
        # How many pixels go into one: a coarser grid takes their mean, any other interpolates between them.
        averaged = _pixel_area(grid.smap) / _pixel_area(self.smap)
        averaged, resample = (averaged, reproject_exact) if averaged > 1.02 else (1.0, reproject_interp)

        def onto(values):
            return resample((values, source), target, shape_out=grid.values.shape, return_footprint=False)

        values = onto(self.values).astype(np.float32)
        saturated, bloomed = (
            np.nan_to_num(onto(plane.astype(np.float32))) > 0 if plane.any() else np.zeros(values.shape, dtype=bool)
            for plane in (self.saturated, self.bloomed)
        )
        noise = None if self.noise is None else np.sqrt(onto(self.noise**2) / averaged).astype(np.float32)
        return replace(self, values=values, saturated=saturated, bloomed=bloomed, noise=noise)

    def binned(self, shape):
        """Average the valid pixels under each pixel of a coarser grid."""
        if shape == self.values.shape:
            return self
        valid = np.isfinite(self.values)
        values, share = _area_mean(self.values, valid, shape)
        values[share < _MIN_VALID] = np.nan
        noise = None if self.noise is None else _noise_of_mean(self.noise, valid, shape)
        saturated, bloomed = (_area_share(plane, shape) for plane in (self.saturated, self.bloomed))
        return replace(self, values=values, saturated=saturated, bloomed=bloomed > 0, noise=noise, valid_share=share)

    def provenance(self):
        return {
            "channel": _channel(self.smap),
            "date": self.smap.date.isot,
            "exposure_time": self.exposure,
            "instrument": self.smap.instrument,
            "level": self.level,
            "registered": self.registered,
            "own_uncertainty": self.noise is not None,
        }


def _is_per_second(smap):
    unit = u.dimensionless_unscaled if smap.unit is None else smap.unit
    if unit in _COUNT_UNITS:
        return False
    if unit * u.s in _COUNT_UNITS:
        return True
    msg = (
        f"maps: the {_describe(smap)} map is in {unit}; expected DN, or DN / s if normalised by exposure. Set its "
        "BUNIT if the header is wrong."
    )
    raise ValueError(msg)


def _exposure(smap):
    exposure = smap.exposure_time
    seconds = np.nan if exposure is None else exposure.to_value(u.s)
    if not (np.isfinite(seconds) and seconds > 0):
        msg = (
            f"maps: the {_describe(smap)} map has exposure time {exposure}; a positive one is needed for intensity and "
            "noise, also where the data are already per second. Set EXPTIME in its header."
        )
        raise ValueError(msg)
    return float(seconds)


def _own_noise(smap, to_counts):
    if smap.uncertainty is None:
        return None
    sigma = smap.uncertainty.represent_as(StdDevUncertainty).array
    return np.asarray(sigma, dtype=np.float32) * np.float32(to_counts)


def _bloomed(saturated):
    """Flag pixels along a column next to a long run of saturated ones, as far again as the run is long."""
    bloomed = np.zeros_like(saturated)
    columns = np.flatnonzero(np.count_nonzero(saturated, axis=0) >= _BLOOMING_RUN)
    for column in columns:
        steps = np.diff(np.concatenate([[0], saturated[:, column], [0]]).astype(np.int8))
        for first, last in zip(np.flatnonzero(steps == 1), np.flatnonzero(steps == -1), strict=True):
            if (length := last - first) >= _BLOOMING_RUN:
                bloomed[max(0, first - length) : last + length, column] = True
    return bloomed & ~saturated


def _register(smap, values, planes, noise):
    """Register counts, and with them what is known of each pixel: ``planes``, of which the first says which are bad."""
    bad = planes[0]

    def registered(array, order, missing):
        # aiapy looks at the header alone, so that any plane can take the same way.
        return register(smap._new_instance(array, smap.meta), order=order, missing=missing)

    main = registered(_filled(values, bad), 3, np.nan)
    planes = [
        registered(plane.astype(np.float32), 1, 0).data > 0 if plane.any() else np.zeros(main.data.shape, dtype=bool)
        for plane in planes
    ]
    planes[0] |= ~np.isfinite(main.data)
    if noise is not None:
        noise = np.sqrt(registered(_filled(noise, bad) ** 2, 1, np.nan).data)
    return main.data.astype(np.float32), planes, noise, main


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


def _common_grid(prepared):
    """Return the channel onto whose pixels the others go: the coarsest, and of equals the first."""
    return max(prepared, key=lambda counts: round(_pixel_area(counts.smap), 3))


def _pixel_area(smap):
    """Area of a pixel in square arcseconds."""
    return float(np.prod(np.abs(u.Quantity(smap.scale).to_value(u.arcsec / u.pix))))


# ---------------------------------------------------------------------------------------------------------------------
# Binning
# ---------------------------------------------------------------------------------------------------------------------


def _output_shape(native, shape):
    """Return (ny, nx) of the stack."""
    if shape is None:
        return native
    if isinstance(shape, int | np.integer) and not isinstance(shape, bool) and shape > 0:
        factor = max(1.0, max(native) / shape)
        return tuple(max(1, round(n / factor)) for n in native)
    try:
        wanted = tuple(int(n) for n in shape)
        sensible = len(wanted) == 2 and wanted == tuple(shape) and min(wanted) > 0
    except (TypeError, ValueError):
        sensible = False
    if not sensible:
        msg = f"shape must be None, a positive whole number or (ny, nx), found {shape!r}. The default is 512."
        raise ValueError(msg)
    if wanted[0] > native[0] or wanted[1] > native[1]:
        msg = f"shape {wanted} is larger than the maps' {native}; maps are never upsampled. Use shape=None for native."
        raise ValueError(msg)
    return wanted


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


def _area_sum(values, shape):
    """Sum over the area of each pixel of a coarser grid; exact for any factor, a block sum for a whole one."""
    rows, columns = _overlap(values.shape[0], shape[0]), _overlap(values.shape[1], shape[1])
    return np.ascontiguousarray((columns @ (rows @ values).T).T)


def _area_mean(values, valid, shape):
    """Return the area-weighted mean of valid values, and the share of each pixel's area that is valid."""
    area = (values.shape[0] / shape[0]) * (values.shape[1] / shape[1])
    if valid.all():
        return _area_sum(values, shape) / np.float32(area), np.ones(shape, dtype=np.float32)
    weight = _area_sum(valid.astype(np.float32), shape)
    with np.errstate(invalid="ignore"):
        return _area_sum(np.where(valid, values, 0), shape) / weight, weight / np.float32(area)


def _area_share(plane, shape):
    """Return the share of each pixel of a coarser grid that a mask covers."""
    if not plane.any():
        return np.zeros(shape, dtype=np.float32)
    return _area_sum(plane.astype(np.float32), shape) / np.float32(plane.size / (shape[0] * shape[1]))


def _noise_of_mean(noise, valid, shape):
    """σ of the mean of independent pixels."""
    weight = _area_sum(valid.astype(np.float32), shape)
    with np.errstate(invalid="ignore"):
        return np.sqrt(_area_sum(np.where(valid, noise, 0) ** 2, shape)) / weight


def _binned_header(smap, shape):
    """Return the FITS header of a map's grid at another shape: WCS, observer, time."""
    fy, fx = (n_in / n_out for n_in, n_out in zip(smap.data.shape, shape, strict=True))
    pixel = u.Quantity([(smap.reference_pixel.x.value + 0.5) / fx, (smap.reference_pixel.y.value + 0.5) / fy]) - 0.5
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


def _misalignment(intensity, scale):
    """Return each channel's shift (x, y) in arcsec, `None` where it cannot be told; warn of those beyond a pixel."""
    if min(intensity.shape[1:]) < _LEAST_TO_ALIGN:
        return dict.fromkeys(map(str, CHANNELS))
    shifts = measure_misalignment(intensity)
    arcsec = (shifts[:, ::-1] * scale.value).round(2).tolist()
    told = {
        str(channel): shift if np.isfinite(shift).all() else None
        for channel, shift in zip(CHANNELS, arcsec, strict=True)
    }
    if far := [channel for channel, shift in zip(CHANNELS, shifts, strict=True) if np.hypot(*shift) > 1]:
        listed = ", ".join(f"{channel} Å by {told[str(channel)]} arcsec" for channel in far)
        warnings.warn(
            f"Channels are shifted against {REFERENCE_CHANNEL} Å by more than a pixel: {listed}. Update their pointing "
            "with sunpy_deepem.prepare(pointing=True) or align them first.",
            SunpyUserWarning,
            stacklevel=3,
        )
    return told


def _flagged(where, flag):
    return np.where(where, flag, 0).astype(np.uint16)


def _flags(intensity, sigma):
    """Return the quality flags that follow from intensity and σ alone."""
    finite = np.isfinite(intensity).all(axis=0)
    signal = np.nan_to_num(intensity) > 3 * np.nan_to_num(sigma, nan=np.inf)
    flags = np.where(finite, 0, Quality.MISSING)
    flags |= np.where((np.nan_to_num(intensity) < 0).any(axis=0), Quality.NEGATIVE, 0)
    flags |= np.where(finite & (signal.sum(axis=0) < 3), Quality.LOW_SIGNAL, 0)
    return flags.astype(np.uint16)
