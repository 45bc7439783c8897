"""
Temperatures, density and energy from the EM per bin, on plain arrays.

EM in cm^-5 and its standard deviation have bins along the first axis. Each function returns a value and its standard
deviation; the latter is `None` if the EM has none. The errors of bins are treated as independent. EM is uniform per
dex inside a bin.
"""

import numpy as np
from astropy.constants import k_B

from sunpy_deepem.utils.checks import real_number

__all__ = [
    "band_limits",
    "checked_bands",
    "electron_density",
    "mean_log_t",
    "peak_log_t",
    "thermal_energy",
    "thermal_width",
]


def band_limits(bins, low, high):
    """Return the limits in log T of the part of each bin between low and high, two arrays of shape ``(n_bins,)``."""
    edges = bins.edges
    low, high = (
        end if limit is None else real_number(limit, name, "a number, log10(T/K)")
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
        pairs = [(low, high) for low, high in bands]
    except (TypeError, ValueError):
        pairs = []
    if not pairs:
        msg = f"bands must be one or more pairs of log10(T/K), as in [(5.6, 6.0), (6.0, 6.3)], found {bands!r}."
        raise ValueError(msg)
    return pairs


def mean_log_t(em, std, bins):
    """EM-weighted mean log T."""
    with np.errstate(invalid="ignore", divide="ignore"):
        total = em.sum(axis=0)
        mean = np.tensordot(bins.centers, em, axes=1) / total
        return mean, _propagate((_column(bins.centers, em) - mean) / total, std)


def peak_log_t(em, std, bins):
    """Center of the bin with the most EM, and half the range of the bins that agree with it within their errors."""
    empty = ~np.isfinite(em).all(axis=0) | (em.max(axis=0) <= 0)
    top = np.argmax(em, axis=0)
    peak = np.where(empty, np.nan, bins.centers[top])
    if std is None:
        return peak, None
    least = np.take_along_axis(em - std, top[np.newaxis], axis=0)
    candidate = em + std >= least
    first, last = np.argmax(candidate, axis=0), len(bins) - 1 - np.argmax(candidate[::-1], axis=0)
    return peak, np.where(empty, np.nan, (last - first + 1) * bins.step / 2)


def thermal_width(em, std, bins):
    """Standard deviation of the EM along log T; a single bin has its width over √12."""
    with np.errstate(invalid="ignore", divide="ignore"):
        total, (mean, _) = em.sum(axis=0), mean_log_t(em, None, bins)
        # Second moment of each bin about the mean, including its uniform spread.
        moment = (_column(bins.centers, em) - mean) ** 2 + bins.step**2 / 12
        variance = (moment * em).sum(axis=0) / total
        width = np.sqrt(variance)
        return width, _propagate((moment - variance) / (2 * width * total), std)


def electron_density(em, std, bins, *, low, high, depth, hydrogen_ratio):
    """Electron density √(EM / depth / ratio) in cm^-3 of the EM from low to high along a ``depth`` in cm."""
    fraction = _fraction(em, bins, low, high)
    with np.errstate(invalid="ignore", divide="ignore"):
        total = (fraction * em).sum(axis=0)
        density = np.sqrt(total / (hydrogen_ratio * depth))
        return density, _propagate(fraction * density / (2 * total), std)


def thermal_energy(em, std, bins, *, low, high, depth, hydrogen_ratio):
    """Thermal energy 3 k n T × depth in erg cm^-2 of the EM from low to high, with the EM-weighted mean of T."""
    begin, end = band_limits(bins, low, high)
    fraction = _fraction(em, bins, low, high)
    # Integral of T over the part of the bin in the band, per unit EM.
    heat = _column((10**end - 10**begin) / (np.log(10) * bins.step), em)
    with np.errstate(invalid="ignore", divide="ignore"):
        total, heated = (fraction * em).sum(axis=0), (heat * em).sum(axis=0)
        constant = 3 * k_B.cgs.value * np.sqrt(depth / hydrogen_ratio)
        energy = constant * heated / np.sqrt(total)
        return energy, _propagate(constant * (heat - fraction * heated / (2 * total)) / np.sqrt(total), std)


def _fraction(em, bins, low, high):
    begin, end = band_limits(bins, low, high)
    return _column((end - begin) / bins.step, em)


def _column(values, em):
    """Return one value per bin in a shape that broadcasts with ``em``."""
    return np.reshape(values, (-1, *[1] * (em.ndim - 1)))


def _propagate(derivatives, std):
    """Return the standard deviation of a quantity from its derivatives with respect to the EM of each bin."""
    return None if std is None else np.sqrt(((derivatives * std) ** 2).sum(axis=0))
