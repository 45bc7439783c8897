"""
What is done to whole cubes, companions included: rebinning, reprojection and arithmetic.

Each function takes a `DEMCube` and makes another of it. What was observed goes along: intensities as the EM, by
linearity; χ² and the flags that follow from it are computed anew.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.nddata import NDData, StdDevUncertainty, block_reduce
from astropy.wcs import WCS
from ndcube import NDMeta
from reproject import reproject_adaptive, reproject_exact, reproject_interp
from sunpy.util.exceptions import SunpyUserWarning

from sunpy_deepem.analysis.curves import systematic_fraction
from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.forward import chi_squared
from sunpy_deepem.quality import HIGH_CHI2, MASKED, Quality, signal_flags
from sunpy_deepem.temperature import LogTBins
from sunpy_deepem.units import ALIGNMENT_TOLERANCE, EM_UNIT, LOG_T_TOLERANCE, MIN_VALID_FRACTION
from sunpy_deepem.utils.checks import whole_number
from sunpy_deepem.utils.uncertainty import sigma_of_mean, standard_deviation
from sunpy_deepem.utils.wcs import cube_wcs, sky_header, sky_wcs

__all__ = [
    "add",
    "companions_of",
    "divide",
    "fit_flags",
    "judge_fit",
    "multiply",
    "power",
    "rebin",
    "reproject",
]

_ALGORITHMS = {"interpolation": reproject_interp, "adaptive": reproject_adaptive, "exact": reproject_exact}
_EDGE_SHARE = 0.25
_EDGE_DEX = 0.2
_OF_FIT = Quality.HIGH_CHI2 | Quality.EDGE
_OF_SIGNAL = Quality.LOW_SIGNAL | Quality.NEGATIVE


# ---------------------------------------------------------------------------------------------------------------------
# What goes with the EM
# ---------------------------------------------------------------------------------------------------------------------


def companions_of(intensity, sigma, chi2, quality, saturation):
    """Return the entries of a cube's meta that belong to pixels of the sky, from plain arrays in DN s^-1 pix^-1."""
    companions = {"chi2": chi2, "quality": quality, "saturation": saturation}
    for channel, g, error in zip(CHANNELS, intensity, sigma, strict=True):
        companions |= {f"intensity_{channel}": g, f"sigma_{channel}": error}
    return companions


def fit_flags(em, chi2, bins):
    """Return the flags HIGH_CHI2 and EDGE that follow from EM per bin and χ²."""
    n = min(max(1, round(_EDGE_DEX / bins.step)), len(bins))
    with np.errstate(invalid="ignore"):
        edge = np.maximum(em[:n].sum(axis=0), em[-n:].sum(axis=0)) > _EDGE_SHARE * em.sum(axis=0)
        flags = np.where(chi2 > HIGH_CHI2, Quality.HIGH_CHI2, 0) | np.where(edge, Quality.EDGE, 0)
    return flags.astype(np.uint16)


def judge_fit(em, intensity, uncertainty, response, quality):
    """
    Return χ² and the quality flags of a fit, and make the EM of masked pixels NaN, in place.

    Parameters
    ----------
    em : `~numpy.ndarray`
        EM per bin in cm^-5, shape ``(number of bins, ny, nx)``.
    intensity, uncertainty : `~astropy.units.Quantity`
        What was fitted, DN s^-1 pix^-1, shape ``(6, ny, nx)``.
    response : `TemperatureResponse`
    quality : `~numpy.ndarray`
        The flags so far, shape ``(ny, nx)``. Pixels of which EM or intensity is not finite for no reason that they tell
        are flagged MISSING.
    """
    missing = ~(np.isfinite(em).all(axis=0) & np.isfinite(intensity.value).all(axis=0)) & ((quality & MASKED) == 0)
    quality = (quality | np.where(missing, Quality.MISSING, 0)).astype(np.uint16)
    em[:, (quality & MASKED) != 0] = np.nan
    chi2 = chi_squared(em << EM_UNIT, intensity, uncertainty, response).astype(np.float32)
    return chi2, quality | fit_flags(em, chi2, response.bins)


def _is_whole(cube):
    """Whether the cube has all the log T that was fitted, so that its EM stands for what was observed."""
    edges = cube.bins.edges[[0, -1]]
    return np.allclose(cube.meta["provenance"].get("log_t_range", edges), edges, rtol=0, atol=LOG_T_TOLERANCE)


def _refitted(cube, em, bins, intensity, sigma, quality):
    """Return χ² and quality of EM and intensities that were derived from ``cube``."""
    quality = _with_signal_flags(quality, intensity, sigma)
    if not _is_whole(cube):
        if np.isfinite(cube.chi2).any():
            _warn_dropped("chi2", "it cannot be told of a part of the log T that was fitted")
        return np.full(em.shape[1:], np.nan, dtype=np.float32), quality
    chi2 = _chi2(em, intensity, sigma, cube.meta["response"].with_bins(bins))
    return chi2, (quality & ~_OF_FIT) | fit_flags(em, chi2, bins)


def _with_signal_flags(quality, intensity, sigma):
    """Return the flags with those of the signal computed anew; they stay where no intensity is known."""
    known = np.isfinite(intensity).all(axis=0)
    return np.where(known, (quality & ~_OF_SIGNAL) | signal_flags(intensity, sigma), quality).astype(np.uint16)[()]


def _chi2(em, intensity, sigma, response):
    unit = u.DN / (u.s * u.pix)
    return chi_squared(em << EM_UNIT, intensity << unit, sigma << unit, response).astype(np.float32)


def _warn_dropped(what, why):
    warnings.warn(f"The new cube has no {what}, which are NaN, as {why}.", SunpyUserWarning, stacklevel=5)


def _made_of(cube, data, std, mask, companions, event, *, wcs=None, unit=None):
    """Return a cube like ``cube`` but for what is given; ``event`` is added to its history."""
    provenance = dict(cube.meta["provenance"])
    provenance["history"] = [*provenance.get("history", []), event]
    axes = dict.fromkeys(companions, (1, 2)) if cube.is_3d else dict(cube.meta.axes)
    return type(cube)(
        data,
        wcs=cube.wcs if wcs is None else wcs,
        uncertainty=None if std is None else StdDevUncertainty(std),
        mask=mask,
        unit=cube.unit if unit is None else unit,
        meta=NDMeta(dict(cube.meta) | companions | {"provenance": provenance}, axes=axes, data_shape=data.shape),
    )


# ---------------------------------------------------------------------------------------------------------------------
# Rebinning
# ---------------------------------------------------------------------------------------------------------------------


def rebin(cube, bin_shape, operation, *, handle_mask, propagate_uncertainties):
    """Return a cube of coarser pixels; see `DEMCube.rebin`."""
    factors = _factors(cube.data.shape, bin_shape)
    _check_operation(operation, factors)
    if factors == (1, 1, 1):
        return cube
    merged, on_sky = factors[0], factors[1:]
    valid = ~cube.sky_mask & np.isfinite(cube.data).all(axis=0)
    masked = block_reduce(~valid, on_sky, handle_mask)
    count = block_reduce(valid.astype(int), on_sky, np.sum)

    def mean(image):
        blocks = (1,) * (image.ndim - 2) + on_sky
        with np.errstate(invalid="ignore"):
            return np.where(masked, np.nan, block_reduce(np.where(valid, image, 0), blocks, np.sum) / count)

    em = block_reduce(mean(cube.data), (merged, 1, 1), np.sum)
    std = standard_deviation(cube) if propagate_uncertainties else None
    std = None if std is None else np.sqrt(block_reduce(mean(std) ** 2, (merged, 1, 1), np.sum))
    intensity = mean(cube.intensity.value)
    sigma = sigma_of_mean(
        cube.intensity.value, cube.intensity_uncertainty.value, systematic_fraction(cube), mean, count
    )
    bins = cube.bins
    bins = LogTBins(bins.edges[0] + merged * bins.step / 2, merged * bins.step, len(bins) // merged)
    quality = _flags_under(cube.quality, valid, masked, on_sky)
    chi2, quality = _refitted(cube, em * cube.unit.to(EM_UNIT), bins, intensity, sigma, quality)
    return _made_of(
        cube,
        em,
        std,
        masked,
        companions_of(intensity, sigma, chi2, quality, block_reduce(cube.saturation, on_sky, np.mean)),
        f"rebinned by {factors}",
        wcs=_binned_wcs(cube.wcs, factors[::-1]),
    )


def _factors(shape, bin_shape):
    try:
        # Pixels are none where the unit is another; what is no number or no whole one is none either.
        given = u.Quantity(bin_shape, u.pix) if isinstance(bin_shape, u.Quantity) else bin_shape
        given = np.atleast_1d(given.value if isinstance(given, u.Quantity) else given).astype(float)
        factors = np.where(given == np.rint(given), np.nan_to_num(given, posinf=0), 0).astype(int)
    except (TypeError, ValueError):
        factors = np.zeros(1, dtype=int)
    if factors.shape == (3,):
        factors = np.where(factors == -1, shape, factors)
    if factors.shape != (3,) or (factors < 1).any() or np.mod(shape, factors).any():
        msg = (
            "bin_shape must hold the numbers of pixels to be made one along log T, y and x, each of which divides the "
            f"cube's {shape}, found {bin_shape}. Crop the cube first, as with cube[:, :500, :500]."
        )
        raise ValueError(msg)
    return tuple(factors.tolist())


def _check_operation(operation, factors):
    if operation is None:
        return
    right = np.sum if factors[0] > 1 else np.mean
    if operation is not right or (factors[0] > 1 and factors[1:] != (1, 1)):
        msg = (
            "operation must be numpy.mean over the sky, as EM is a column density, and numpy.sum over log T, as each "
            f"bin holds an integral; found {getattr(operation, '__name__', operation)} for bin_shape={factors}. Leave "
            "it out to have each done along its axes."
        )
        raise ValueError(msg)


def _flags_under(quality, valid, masked, on_sky):
    """Return the flags of all pixels that went in; of all pixels there are where none went in."""
    those, every = (block_reduce(q, on_sky, np.bitwise_or.reduce) for q in (np.where(valid, quality, 0), quality))
    return np.where(masked, every, those).astype(np.uint16)


def _binned_wcs(wcs, factors):
    """Return the FITS WCS of pixels that are ``factors`` larger, in the order of its axes."""
    wcs, factors = wcs.deepcopy(), np.asarray(factors, dtype=float)
    wcs.wcs.crpix = (wcs.wcs.crpix - 0.5) / factors + 0.5
    # PC stands before CDELT, so that a rotation is sheared where pixels are no longer square.
    wcs.wcs.pc = wcs.wcs.get_pc() * factors / factors[:, np.newaxis]
    wcs.wcs.cdelt = wcs.wcs.get_cdelt() * factors
    wcs.wcs.set()
    return wcs


# ---------------------------------------------------------------------------------------------------------------------
# Reprojection
# ---------------------------------------------------------------------------------------------------------------------


def reproject(cube, target, algorithm, shape_out, reproject_args):
    """Return a cube on the pixels of another WCS, and its footprint; see `DEMCube.reproject_to`."""
    if not isinstance(algorithm, str) or algorithm not in _ALGORITHMS:
        msg = f"algorithm must be one of {', '.join(map(repr, _ALGORITHMS))}, found {algorithm!r}."
        raise ValueError(msg)
    target, shape_out = _target(cube, target, shape_out)
    source, valid = sky_wcs(cube.sky_header), ~cube.sky_mask

    def onto(image, resample=_ALGORITHMS[algorithm], **options):
        return resample((image, source), target, shape_out=shape_out, return_footprint=False, **options)

    share = onto(valid.astype(float), **reproject_args)
    outside = ~np.isfinite(share)
    quality, masked = (
        np.where(outside, other, onto(image.astype(float), reproject_interp, order="nearest-neighbor"))
        for image, other in ((cube.quality, Quality.MISSING), (~valid, 1))
    )
    # A pixel must be near a valid one, which then stands for its neighbours that are not.
    masked = (np.nan_to_num(masked, nan=1) > 0) | ~(share >= MIN_VALID_FRACTION)
    quality = np.nan_to_num(quality).astype(np.uint16)
    quality[masked & ((quality & MASKED) == 0)] |= np.uint16(Quality.MISSING)

    def mean(image):
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(masked, np.nan, onto(np.where(valid, image, 0), **reproject_args) / share)

    em, intensity, sigma, saturation = (
        mean(image) for image in (cube.data, cube.intensity.value, cube.intensity_uncertainty.value, cube.saturation)
    )
    std = standard_deviation(cube)
    chi2, quality = _refitted(cube, em * cube.unit.to(EM_UNIT), cube.bins, intensity, sigma, quality)
    made = _made_of(
        cube,
        em,
        None if std is None else mean(std),
        masked,
        companions_of(intensity, sigma, chi2, quality, np.nan_to_num(saturation)),
        f"reprojected by {algorithm}",
        wcs=cube_wcs({"date-obs": cube.sky_header["date-obs"]} | sky_header(target), cube.bins),
    )
    return made, np.broadcast_to(np.nan_to_num(share), em.shape)


def _target(cube, target, shape_out):
    """Return the sky's WCS and shape of what ``target`` describes, or raise."""
    if isinstance(target, Mapping):
        cards = {str(key).lower(): value for key, value in target.items()}
        known = (cards["naxis2"], cards["naxis1"]) if {"naxis1", "naxis2"} <= cards.keys() else None
        target = sky_wcs(cards)
    else:
        known = getattr(target, "array_shape", None)
    if not isinstance(target, WCS) or not target.has_celestial:
        msg = f"target_wcs must be a FITS WCS or header with two axes of the sky, found {type(target).__name__}."
        raise ValueError(msg)
    if target.naxis == 3 and not _same_log_t(cube, target):
        msg = "target_wcs must have the cube's own log T axis, or none. Merge bins with rebin; crop by slicing."
        raise ValueError(msg)
    shape = known if shape_out is None else shape_out
    if shape is None:
        msg = "shape_out must be given, as target_wcs does not tell its shape; (ny, nx) of the new cube."
        raise ValueError(msg)
    try:
        return target.celestial, tuple(whole_number(n, "shape_out") for n in (shape[-2], shape[-1]))
    except (TypeError, LookupError, ValueError):
        msg = f"shape_out must be two positive whole numbers of pixels, (ny, nx), found {shape!r}."
        raise ValueError(msg) from None


def _same_log_t(cube, target):
    there = target.sub([3]).wcs
    first = there.crval[0] + (1 - there.crpix[0]) * there.cdelt[0]
    return np.allclose([first, there.cdelt[0]], [cube.bins.first, cube.bins.step], rtol=0, atol=LOG_T_TOLERANCE)


# ---------------------------------------------------------------------------------------------------------------------
# Arithmetic
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Operand:
    """The other side of an operator."""

    values: u.Quantity
    std: np.ndarray | None = None
    mask: np.ndarray | None = None

    @classmethod
    def of(cls, cube, value):
        """Return what ``value`` is, or `None` if it is nothing that cubes are computed with."""
        if isinstance(value, type(cube)):
            _check_grid(cube, value)
        elif getattr(value, "wcs", None) is not None:
            msg = (
                f"A DEMCube is combined with numbers, Quantities and DEMCubes, found {type(value).__name__}, whose "
                "coordinates may differ from the cube's. Pass its data as a Quantity."
            )
            raise TypeError(msg)
        if isinstance(value, NDData):
            return cls(value.data << (value.unit or u.one), standard_deviation(value), value.mask)
        try:
            other = cls(u.Quantity(value))
        except TypeError:
            return None
        _check_shape(cube, other.values.shape)
        return other


def add(cube, value, sign=1):
    """Return ``cube + sign * value``, or `NotImplemented`."""
    other = _Operand.of(cube, value)
    if other is None:
        return NotImplemented
    if not isinstance(value, NDData) and not np.any(other.values.value):
        return cube  # As sum() begins with zero
    to_unit = other.values.unit.to(cube.unit)
    data = cube.data + sign * to_unit * other.values.value
    std = _propagated(cube, 1, other, to_unit)
    word = "plus" if sign > 0 else "minus"
    linear = isinstance(value, type(cube)) and cube.is_3d and cube.response == value.response
    if not linear:
        why = "the EM is no longer that of the observation"
        return _without_fit(cube, data, std, value, f"{word} {_told(value)}", why)
    intensity = cube.intensity.value + sign * value.intensity.value
    sigma = np.hypot(cube.intensity_uncertainty.value, value.intensity_uncertainty.value)
    chi2, quality = _refitted(cube, data * cube.unit.to(EM_UNIT), cube.bins, intensity, sigma, _flags(cube, value))
    companions = companions_of(intensity, sigma, chi2, quality, np.maximum(cube.saturation, value.saturation))
    return _made_of(cube, data, std, _either_mask(cube, other), companions, f"{word} {_told(value)}")


def multiply(cube, value):
    """Return ``cube * value``, or `NotImplemented`."""
    other = _Operand.of(cube, value)
    if other is None:
        return NotImplemented
    data, unit = cube.data * other.values.value, cube.unit * other.values.unit
    std = _propagated(cube, other.values.value, other, cube.data)
    event = f"times {_told(value)}"
    if why := _why_not_scaled(cube, value, other.values):
        return _without_fit(cube, data, std, value, event, why, unit=unit)
    return _scaled(cube, data, std, unit, other, other.values, event)


def divide(cube, value):
    """Return ``cube / value``, or `NotImplemented`."""
    other = _Operand.of(cube, value)
    if other is None:
        return NotImplemented
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = 1 / other.values
        data, unit = cube.data * inverse.value, cube.unit / other.values.unit
        std = _propagated(cube, inverse.value, other, data * inverse.value)
    event = f"over {_told(value)}"
    if why := _why_not_scaled(cube, value, inverse):
        return _without_fit(cube, data, std, value, event, why, unit=unit)
    return _scaled(cube, data, std, unit, other, inverse, event)


def power(cube, exponent):
    """Return ``cube ** exponent``, or `NotImplemented`."""
    try:
        number = float(exponent)
    except (TypeError, ValueError):
        return NotImplemented
    if not np.isfinite(number):
        msg = f"The exponent of a cube must be finite, found {exponent}."
        raise ValueError(msg)
    exponent = int(number) if number.is_integer() else number
    with np.errstate(divide="ignore", invalid="ignore"):
        data = np.power(cube.data, float(exponent))
        std = _propagated(cube, exponent * np.power(cube.data, float(exponent - 1)), None, 0)
    event, why = f"to the power of {exponent}", "the data are no longer an EM"
    return _without_fit(cube, data, std, None, event, why, unit=cube.unit**exponent)


def _why_not_scaled(cube, value, factor):
    """Return why what was observed does not scale with the EM; it does by a number that is the same at all log T."""
    if not factor.unit.is_equivalent(u.one):
        return "the data are no longer an EM"
    if isinstance(value, NDData):
        return "it was multiplied by something uncertain"
    if factor.ndim == 0 or (cube.is_3d and (factor.ndim <= 2 or factor.shape[-3] == 1)):
        return ""
    return "the EM was scaled differently at different log T"


def _scaled(cube, data, std, unit, other, factor, event):
    """Return the multiple of a cube along with what was observed."""
    number = factor.to_value(u.one)
    number = number.reshape(number.shape[-2:])
    intensity, sigma = cube.intensity.value * number, cube.intensity_uncertainty.value * np.abs(number)
    # Observed and synthetic intensities and σ scale alike, so that χ² is what it was.
    chi2 = np.where((number != 0) & np.isfinite(number), cube.chi2, np.nan).astype(np.float32)
    quality = _with_signal_flags(cube.quality, intensity, sigma)
    companions = companions_of(intensity, sigma, chi2, quality, cube.saturation)
    return _made_of(cube, data, std, _either_mask(cube, other), companions, event, unit=unit)


def _without_fit(cube, data, std, value, event, why, unit=None):
    """Return a cube whose EM no longer goes with what was observed."""
    if np.isfinite(cube.chi2).any() or np.isfinite(cube.intensity.value).any():
        _warn_dropped("chi2 and observed intensities", why)
    nothing = np.full(np.shape(cube.intensity), np.nan, dtype=np.float32)
    quality = np.asarray(_flags(cube, value) & ~np.uint16(Quality.HIGH_CHI2), dtype=np.uint16)[()]
    chi2 = np.full(np.shape(cube.chi2), np.nan, dtype=np.float32)[()]
    companions = companions_of(nothing, nothing.copy(), chi2, quality, cube.saturation)
    mask = cube.mask if value is None else _either_mask(cube, _Operand.of(cube, value))
    return _made_of(cube, data, std, mask, companions, event, unit=unit)


def _propagated(cube, by_cube, other, by_other):
    """Return the standard deviation of a result, from its derivatives by either side; errors are independent."""
    errors = [(by_cube, standard_deviation(cube)), (by_other, None if other is None else other.std)]
    terms = [np.abs(derivative * std) for derivative, std in errors if std is not None]
    return None if not terms else np.hypot(*terms) if len(terms) == 2 else terms[0]


def _either_mask(cube, other):
    if cube.mask is None or other.mask is None:
        return other.mask if cube.mask is None else cube.mask
    return cube.mask | other.mask


def _flags(cube, value):
    return cube.quality | value.quality if isinstance(value, type(cube)) else cube.quality


def _told(value):
    """Return a word on the other side of an operator, for the history."""
    if isinstance(value, NDData):
        when = value.sky_header["date-obs"] if getattr(value, "is_3d", False) else ""
        return f"the {type(value).__name__} of {when}" if when else f"a {type(value).__name__}"
    value = u.Quantity(value)
    return f"{value:g}" if value.isscalar else f"an array of shape {value.shape} {value.unit}".strip()


def _check_shape(cube, shape):
    """Raise unless an array can be combined with a cube and leaves its shape."""
    try:
        fits = np.broadcast_shapes(cube.data.shape, shape) == cube.data.shape
    except ValueError:
        fits = False
    if not fits:
        msg = f"The other side must have a shape that fits the cube's {cube.data.shape}, found {shape}."
        raise ValueError(msg)


def _check_grid(cube, other):
    if cube.data.shape != other.data.shape:
        msg = f"Two cubes must have the same shape, found {cube.data.shape} and {other.data.shape}. Crop or rebin one."
        raise ValueError(msg)
    corners = np.indices((2,) * cube.data.ndim).reshape(cube.data.ndim, -1)
    corners = corners * (np.array(cube.data.shape)[::-1, np.newaxis] - 1.0)
    here, there = (one.wcs.low_level_wcs for one in (cube, other))
    shift = np.asarray(there.world_to_pixel_values(*here.pixel_to_world_values(*corners))) - corners
    if not np.abs(shift).max() <= ALIGNMENT_TOLERANCE:
        msg = (
            f"Two cubes must have the same pixels and bins, found pixels that are {np.abs(shift).max():.2g} apart. "
            "Use reproject_to for the sky, and rebin or slices for log T."
        )
        raise ValueError(msg)
