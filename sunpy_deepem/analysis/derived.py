"""
Quantities derived from the EM per bin, on plain arrays.

EM in cm^-5 has bins along the first axis; the other axes are pixels or draws. Each function returns one value per
pixel and keeps the precision of ``em``. EM is uniform per dex inside a bin. Intervals come from the same functions,
applied to posterior draws, see `sunpy_deepem.analysis.intervals`.
"""

import astropy.units as u
import numpy as np
from astropy.constants import k_B

from sunpy_deepem.utils.checks import real_number

__all__ = [
    "band_em",
    "band_limits",
    "checked_bands",
    "electron_density",
    "em_weighted_log_t",
    "log_temperature",
    "peak_log_t",
    "thermal_energy",
    "thermal_width",
    "weighted_sum",
]


def log_temperature(value, name="temperature"):
    """Return log10(T/K) of a number, which is log10(T/K), or of a temperature as a `~astropy.units.Quantity`."""
    if not isinstance(value, u.Quantity) or value.unit == u.one:
        return real_number(value, name, "a number, log10(T/K)")
    if not (value.unit.is_equivalent(u.K) and value.isscalar and value > 0):
        msg = f"{name} must be a positive temperature such as 2 * u.MK, or log10(T/K) as a number, found {value}."
        raise ValueError(msg)
    return float(np.log10(value.to_value(u.K)))


def band_limits(bins, low, high):
    """Return the limits in log T of the part of each bin between low and high, two arrays of shape ``(n_bins,)``."""
    edges = bins.edges
    low, high = (
        end if limit is None else log_temperature(limit, name)
        for limit, name, end in ((low, "low", edges[0]), (high, "high", edges[-1]))
    )
    if not low < high:
        msg = f"low must be below high, found {low} and {high}."
        raise ValueError(msg)
    if low < edges[0] - 1e-6 or high > edges[-1] + 1e-6:
        msg = f"low and high must lie within the cube's bins, from {edges[0]} to {edges[-1]}, found {low} and {high}."
        raise ValueError(msg)
    return np.clip(edges[:-1], low, high), np.clip(edges[1:], low, high)


def checked_bands(bands):
    """Return ranges of log T as a list of pairs, or raise `ValueError`."""
    try:
        pairs = [tuple(log_temperature(limit) for limit in (low, high)) for low, high in bands]
    except (TypeError, ValueError):
        pairs = []
    if not pairs:
        msg = f"bands must be one or more pairs of log10(T/K), as in [(5.6, 6.0), (6.0, 6.3)], found {bands!r}."
        raise ValueError(msg)
    return pairs


def band_em(em, bins, low=None, high=None):
    """EM between two limits in log T, by default all of it."""
    begin, end = band_limits(bins, low, high)
    return weighted_sum(((end - begin) / bins.step).round(9), em)


def em_weighted_log_t(em, bins):
    """EM-weighted mean log T."""
    middle, mean, _ = _moments(em, bins)
    return middle + mean


def peak_log_t(em, bins):
    """Center of the bin with the most EM."""
    empty = ~np.isfinite(em).all(axis=0) | (em.max(axis=0) <= 0)
    return np.where(empty, np.nan, bins.centers[np.argmax(em, axis=0)]).astype(np.result_type(em, np.float32))


def thermal_width(em, bins):
    """Standard deviation of the EM along log T; a single bin has its width over √12."""
    _, mean, square = _moments(em, bins)
    with np.errstate(invalid="ignore"):
        return np.sqrt(np.maximum(square - mean**2, 0) + bins.step**2 / 12)


def electron_density(em, bins, *, low=None, high=None, depth, hydrogen_ratio):
    """Electron density √(EM / depth / ratio) in cm^-3 of the EM from low to high along a ``depth`` in cm."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt(band_em(em, bins, low, high) / _like(hydrogen_ratio * depth, em))


def thermal_energy(em, bins, *, low=None, high=None, depth, hydrogen_ratio):
    """Thermal energy 3 k n T × depth in erg cm^-2 of the EM from low to high, with the EM-weighted mean of T."""
    begin, end = band_limits(bins, low, high)
    # Integral of T in MK over the part of the bin in the band, per unit EM. In K it might exceed single precision.
    heat = (10**end - 10**begin) / (np.log(10) * bins.step) / 1e6
    constant = 1e6 * 3 * k_B.cgs.value * np.sqrt(depth / hydrogen_ratio)
    with np.errstate(invalid="ignore", divide="ignore"):
        return _like(constant, em) * (weighted_sum(heat, em) / np.sqrt(band_em(em, bins, low, high)))


def _moments(em, bins):
    """Return the middle of the bins, and mean and mean square of log T relative to it, weighted by EM."""
    # Relative to the middle, rounding errors of single precision stay small.
    middle = bins.centers.mean()
    offset = bins.centers - middle
    with np.errstate(invalid="ignore", divide="ignore"):
        total = em.sum(axis=0)
        return _like(middle, em), weighted_sum(offset, em) / total, weighted_sum(offset**2, em) / total


def weighted_sum(weights, em):
    """Sum over bins of ``weights`` times EM."""
    # Bin by bin, as a tensor product would copy the draws of a tile, whose bins are not the first axis in memory.
    total = None
    for weight, layer in zip(weights, em, strict=True):
        if weight:
            term = layer if weight == 1 else layer * _like(weight, em)
            total = term if total is None else total + term
    return em[0] * 0 if total is None else total


def _like(value, em):
    """Return a value in the precision of ``em``."""
    return np.asarray(value).astype(np.result_type(em.dtype, np.float32))
