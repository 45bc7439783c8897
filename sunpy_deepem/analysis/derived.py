"""
What follows from the EM of each bin, on plain arrays: temperatures, density, energy.

EM in cm^-5 and its standard deviation have bins along the first axis; each function returns a value and its standard
deviation, which is `None` where there is none for the EM. Errors of bins are taken as independent of each other. Inside
a bin EM is uniform per dex.
"""

import numpy as np
from astropy.constants import k_B

from sunpy_deepem.utils.checks import real_number

__all__ = [
    "band_shares",
    "checked_bands",
    "electron_density",
    "mean_log_t",
    "peak_log_t",
    "thermal_energy",
    "thermal_width",
]


def band_shares(bins, low, high):
    """Return the limits in log T, shape ``(number of bins,)`` each, of the part of every bin from low to high."""
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
    """Return the limits in log T of ranges as a list of pairs, or raise."""
    try:
        pairs = [(low, high) for low, high in bands]
    except (TypeError, ValueError):
        pairs = []
    if not pairs:
        msg = f"bands must be one or more pairs of log10(T/K), as in [(5.6, 6.0), (6.0, 6.3)], found {bands!r}."
        raise ValueError(msg)
    return pairs


def mean_log_t(em, std, bins):
    """Mean log T weighted by EM."""
    with np.errstate(invalid="ignore", divide="ignore"):
        total = em.sum(axis=0)
        mean = np.tensordot(bins.centers, em, axes=1) / total
        return mean, _spread((_upright(bins.centers, em) - mean) / total, std)


def peak_log_t(em, std, bins):
    """Centre of the bin of most EM, and half the range of the bins that may be it within one standard deviation."""
    empty = ~np.isfinite(em).all(axis=0) | (em.max(axis=0) <= 0)
    top = np.argmax(em, axis=0)
    peak = np.where(empty, np.nan, bins.centers[top])
    if std is None:
        return peak, None
    least = np.take_along_axis(em - std, top[np.newaxis], axis=0)
    may_be = em + std >= least
    first, last = np.argmax(may_be, axis=0), len(bins) - 1 - np.argmax(may_be[::-1], axis=0)
    return peak, np.where(empty, np.nan, (last - first + 1) * bins.step / 2)


def thermal_width(em, std, bins):
    """Standard deviation of the EM along log T; that of a single bin is its width over √12."""
    with np.errstate(invalid="ignore", divide="ignore"):
        total, (mean, _) = em.sum(axis=0), mean_log_t(em, None, bins)
        # The second moment of each bin about the mean, its own uniform spread included.
        moment = (_upright(bins.centers, em) - mean) ** 2 + bins.step**2 / 12
        variance = (moment * em).sum(axis=0) / total
        width = np.sqrt(variance)
        return width, _spread((moment - variance) / (2 * width * total), std)


def electron_density(em, std, bins, *, low, high, depth, hydrogen_ratio):
    """Electron density in cm^-3, √(EM / depth / ratio), of EM from low to high along a ``depth`` in cm."""
    share = _share(em, bins, low, high)
    with np.errstate(invalid="ignore", divide="ignore"):
        total = (share * em).sum(axis=0)
        density = np.sqrt(total / (hydrogen_ratio * depth))
        return density, _spread(share * density / (2 * total), std)


def thermal_energy(em, std, bins, *, low, high, depth, hydrogen_ratio):
    """Thermal energy 3 k n T × depth in erg cm^-2, T the mean weighted by EM, of EM from low to high."""
    begin, end = band_shares(bins, low, high)
    share = _share(em, bins, low, high)
    # The integral of T over what of the bin lies in the band, for an EM of one.
    heat = _upright((10**end - 10**begin) / (np.log(10) * bins.step), em)
    with np.errstate(invalid="ignore", divide="ignore"):
        total, heated = (share * em).sum(axis=0), (heat * em).sum(axis=0)
        constant = 3 * k_B.cgs.value * np.sqrt(depth / hydrogen_ratio)
        energy = constant * heated / np.sqrt(total)
        return energy, _spread(constant * (heat - share * heated / (2 * total)) / np.sqrt(total), std)


def _share(em, bins, low, high):
    begin, end = band_shares(bins, low, high)
    return _upright((end - begin) / bins.step, em)


def _upright(values, em):
    """Return values of each bin in a shape that fits ``em``."""
    return np.reshape(values, (-1, *[1] * (em.ndim - 1)))


def _spread(derivatives, std):
    """Return the standard deviation of what has these derivatives by the EM of each bin."""
    return None if std is None else np.sqrt(((derivatives * std) ** 2).sum(axis=0))
