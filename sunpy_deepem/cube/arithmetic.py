"""Arithmetic of cubes with numbers, Quantities and each other: a mixin of `DEMCube`."""

from dataclasses import dataclass, replace

import astropy.units as u
import numpy as np
from astropy.nddata import NDData

from sunpy_deepem.cube.fit import refitted, warn_dropped, with_signal_flags
from sunpy_deepem.cube.planes import Planes
from sunpy_deepem.quality import Quality
from sunpy_deepem.units import ALIGNMENT_TOLERANCE, EM_UNIT
from sunpy_deepem.utils.uncertainty import standard_deviation

__all__ = ["Arithmetic"]


class Arithmetic:
    """
    Operators of `DEMCube`.

    By linearity, the observed intensities follow in sums and differences of cubes with the same response, and in
    multiples. Otherwise they are dropped with a warning. A positive multiple keeps its posterior; other results have
    none: their distribution is that of the operands' distributions with the same seed, as in
    ``one.distribution() - other.distribution()``.
    """

    def __add__(self, value):
        return _add(self, value)

    def __radd__(self, value):
        return _add(self, value)

    def __sub__(self, value):
        return _add(self, value, sign=-1)

    def __rsub__(self, value):
        difference = _add(self, value, sign=-1)
        return difference if difference is NotImplemented else -difference

    def __neg__(self):
        return _multiply(self, -1)

    def __mul__(self, value):
        return _multiply(self, value)

    def __rmul__(self, value):
        return _multiply(self, value)

    def __truediv__(self, value):
        return _divide(self, value)

    def __rtruediv__(self, value):
        return _multiply(_power(self, -1), value)

    def __pow__(self, value):
        return _power(self, value)


@dataclass(frozen=True, eq=False)
class _Operand:
    """The other side of an operator."""

    values: u.Quantity
    std: np.ndarray | None = None
    mask: np.ndarray | None = None

    @classmethod
    def of(cls, cube, value):
        """Return the operand, or `None` if ``value`` cannot be one."""
        if isinstance(value, type(cube)):
            _check_grid(cube, value)
        elif getattr(value, "wcs", None) is not None:
            msg = (
                f"A DEMCube can be combined with numbers, Quantities and DEMCubes, found {type(value).__name__}, whose "
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


def _add(cube, value, sign=1):
    """Return ``cube + sign * value``, or `NotImplemented`."""
    other = _Operand.of(cube, value)
    if other is None:
        return NotImplemented
    if not isinstance(value, NDData) and not np.any(other.values.value):
        return cube  # sum() starts with zero
    to_unit = other.values.unit.to(cube.unit)
    data = cube.data + sign * to_unit * other.values.value
    std = _propagate(cube, 1, other, to_unit)
    event = f"{'plus' if sign > 0 else 'minus'} {_describe(value)}"
    linear = isinstance(value, type(cube)) and cube.is_3d and cube.response == value.response
    if not linear:
        return _without_fit(cube, data, std, value, event, "the EM is no longer that of the observation")
    intensity = cube.intensity.value + sign * value.intensity.value
    sigma = np.hypot(cube.intensity_uncertainty.value, value.intensity_uncertainty.value)
    chi2, quality = refitted(cube, data * cube.unit.to(EM_UNIT), cube.bins, intensity, sigma, _flags(cube, value))
    saturation = np.maximum(cube.saturation, value.saturation)
    planes = Planes(data, std, _either_mask(cube, other), intensity, sigma, chi2, quality, saturation)
    return cube.with_planes(planes, event, factor=None)


def _multiply(cube, value):
    """Return ``cube * value``, or `NotImplemented`."""
    other = _Operand.of(cube, value)
    if other is None:
        return NotImplemented
    data, unit = cube.data * other.values.value, cube.unit * other.values.unit
    std = _propagate(cube, other.values.value, other, cube.data)
    event = f"times {_describe(value)}"
    if why := _why_not_scaled(cube, value, other.values):
        return _without_fit(cube, data, std, value, event, why, unit=unit)
    return _scaled(cube, data, std, unit, other, other.values, event)


def _divide(cube, value):
    """Return ``cube / value``, or `NotImplemented`."""
    other = _Operand.of(cube, value)
    if other is None:
        return NotImplemented
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = 1 / other.values
        data, unit = cube.data * inverse.value, cube.unit / other.values.unit
        std = _propagate(cube, inverse.value, other, data * inverse.value)
    event = f"over {_describe(value)}"
    if why := _why_not_scaled(cube, value, inverse):
        return _without_fit(cube, data, std, value, event, why, unit=unit)
    return _scaled(cube, data, std, unit, other, inverse, event)


def _power(cube, exponent):
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
        std = _propagate(cube, exponent * np.power(cube.data, float(exponent - 1)), None, 0)
    event, why = f"to the power of {exponent}", "the data are no longer an EM"
    return _without_fit(cube, data, std, None, event, why, unit=cube.unit**exponent)


def _why_not_scaled(cube, value, factor):
    """Return why the observations do not scale with the EM, or an empty text if they do."""
    if not factor.unit.is_equivalent(u.one):
        return "the data are no longer an EM"
    if isinstance(value, NDData):
        return "the factor is uncertain"
    if factor.ndim == 0 or (cube.is_3d and (factor.ndim <= 2 or factor.shape[-3] == 1)):
        return ""
    return "the EM was scaled differently at different log T"


def _scaled(cube, data, std, unit, other, factor, event):
    """Return a multiple of a cube with its observations."""
    number = factor.to_value(u.one)
    number = number.reshape(number.shape[-2:])
    intensity, sigma = cube.intensity.value * number, cube.intensity_uncertainty.value * np.abs(number)
    # Observed and synthetic intensities and σ scale alike, so χ² does not change.
    chi2 = np.where((number != 0) & np.isfinite(number), cube.chi2, np.nan).astype(np.float32)
    quality = with_signal_flags(cube.quality, intensity, sigma)
    planes = replace(cube.planes, em=data, std=std, mask=_either_mask(cube, other))
    limit = None if planes.limit is None else np.stack(planes.limit) * number
    planes = replace(planes, intensity=intensity, sigma=sigma, chi2=chi2, quality=quality, limit=limit)
    keeps_draws = number.ndim == 0 and 0 < number < np.inf
    return cube.with_planes(planes, event, unit=unit, factor=float(number) if keeps_draws else None)


def _without_fit(cube, data, std, value, event, why, unit=None):
    """Return a cube whose EM no longer corresponds to the observations."""
    if np.isfinite(cube.chi2).any() or np.isfinite(cube.intensity.value).any():
        warn_dropped("chi2 and observed intensities", why)
    nothing = np.full(np.shape(cube.intensity), np.nan, dtype=np.float32)
    quality = np.asarray(_flags(cube, value) & ~np.uint16(Quality.HIGH_CHI2), dtype=np.uint16)[()]
    chi2 = np.full(np.shape(cube.chi2), np.nan, dtype=np.float32)[()]
    mask = cube.mask if value is None else _either_mask(cube, _Operand.of(cube, value))
    planes = replace(cube.planes, em=data, std=std, mask=mask, chi2=chi2, quality=quality)
    planes = replace(planes, intensity=nothing, sigma=nothing.copy(), limit=None)
    return cube.with_planes(planes, event, unit=unit, factor=None)


def _propagate(cube, by_cube, other, by_other):
    """Return the standard deviation of a result from its derivatives; the errors of the two sides are independent."""
    errors = [(by_cube, standard_deviation(cube)), (by_other, None if other is None else other.std)]
    terms = [np.abs(derivative * std) for derivative, std in errors if std is not None]
    return None if not terms else np.hypot(*terms) if len(terms) == 2 else terms[0]


def _either_mask(cube, other):
    if cube.mask is None or other.mask is None:
        return other.mask if cube.mask is None else cube.mask
    return cube.mask | other.mask


def _flags(cube, value):
    return cube.quality | value.quality if isinstance(value, type(cube)) else cube.quality


def _describe(value):
    """Return a short description of the other side of an operator, for the history."""
    if isinstance(value, NDData):
        when = value.date.isot[:19] if hasattr(value, "inputs") else ""
        return f"the {type(value).__name__} of {when}" if when else f"a {type(value).__name__}"
    value = u.Quantity(value)
    return f"{value:g}" if value.isscalar else f"an array of shape {value.shape} {value.unit}".strip()


def _check_shape(cube, shape):
    """Raise unless an array can be broadcast to the shape of the cube."""
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
