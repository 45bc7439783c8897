"""χ² and quality flags of a fit, also after an operation on a cube."""

import numpy as np

from sunpy_deepem.forward import chi_squared
from sunpy_deepem.quality import HIGH_CHI2, MASKED, NO_DATA, Quality, signal_flags
from sunpy_deepem.units import EM_UNIT, INTENSITY_UNIT, LOG_T_TOLERANCE
from sunpy_deepem.utils.messages import warn_user

__all__ = ["evaluate_fit", "fit_flags", "refitted", "warn_dropped", "with_signal_flags"]

# EDGE is set where this fraction of the EM lies within so many dex of an end of the bins.
_EDGE_FRACTION, _EDGE_DEX = 0.25, 0.2
_FIT_FLAGS = Quality.HIGH_CHI2 | Quality.EDGE
_SIGNAL_FLAGS = Quality.LOW_SIGNAL | Quality.NEGATIVE


def evaluate_fit(em, intensity, uncertainty, response, quality):
    """
    Return χ² and the quality flags of a fit, and set the EM of masked pixels to NaN in place.

    Parameters
    ----------
    em : `~numpy.ndarray`
        EM per bin in cm^-5, shape ``(number of bins, ny, nx)``.
    intensity, uncertainty : `~astropy.units.Quantity`
        Observed intensities and their σ, DN s^-1 pix^-1, shape ``(6, ny, nx)``.
    response : `TemperatureResponse`
    quality : `~numpy.ndarray`
        The flags so far, shape ``(ny, nx)``. Other pixels without any intensity are flagged MISSING and FEW_CHANNELS,
        and other pixels without EM are flagged UNSOLVED.
    """
    missing = ~np.isfinite(intensity.value).any(axis=0) & ((quality & MASKED) == 0)
    quality = quality | np.where(missing, NO_DATA, 0).astype(np.uint16)
    unsolved = ~np.isfinite(em).all(axis=0) & ((quality & MASKED) == 0)
    quality = quality | np.where(unsolved, Quality.UNSOLVED, 0).astype(np.uint16)
    em[:, (quality & MASKED) != 0] = np.nan
    chi2 = chi_squared(em << EM_UNIT, intensity, uncertainty, response).astype(np.float32)
    return chi2, quality | fit_flags(em, chi2, response.bins)


def fit_flags(em, chi2, bins):
    """Return the flags HIGH_CHI2 and EDGE, which follow from EM per bin and χ²."""
    n = min(max(1, round(_EDGE_DEX / bins.step)), len(bins))
    with np.errstate(invalid="ignore"):
        edge = np.maximum(em[:n].sum(axis=0), em[-n:].sum(axis=0)) > _EDGE_FRACTION * em.sum(axis=0)
        flags = np.where(chi2 > HIGH_CHI2, Quality.HIGH_CHI2, 0) | np.where(edge, Quality.EDGE, 0)
    return flags.astype(np.uint16)


def refitted(cube, em, bins, intensity, sigma, quality):
    """
    Return χ² and quality of EM and intensities that were derived from a cube.

    Parameters
    ----------
    cube : `DEMCube`
    em : `~numpy.ndarray`
        EM per bin in cm^-5.
    bins : `LogTBins`
        The bins of ``em``.
    intensity, sigma : `~numpy.ndarray`
        In DN s^-1 pix^-1.
    quality : `~numpy.ndarray`
        Flags of the pixels of the cube.

    Returns
    -------
    chi2, quality : `~numpy.ndarray`
        χ² is NaN if the cube lacks a part of the fitted log T, as its EM then does not explain the intensities.
    """
    quality = with_signal_flags(quality, intensity, sigma)
    if not _covers_fit(cube):
        if np.isfinite(cube.chi2).any():
            warn_dropped("chi2", "the cube lacks a part of the log T range of the fit")
        return np.full(em.shape[1:], np.nan, dtype=np.float32), quality
    response = cube.meta["response"].with_bins(bins)
    observed = (intensity << INTENSITY_UNIT, sigma << INTENSITY_UNIT)
    chi2 = chi_squared(em << EM_UNIT, *observed, response).astype(np.float32)
    return chi2, (quality & ~_FIT_FLAGS) | fit_flags(em, chi2, bins)


def with_signal_flags(quality, intensity, sigma):
    """Return the flags with LOW_SIGNAL and NEGATIVE computed again where the intensities are known."""
    known = np.isfinite(intensity).any(axis=0)
    return np.where(known, (quality & ~_SIGNAL_FLAGS) | signal_flags(intensity, sigma), quality).astype(np.uint16)[()]


def warn_dropped(what, why):
    """Warn that a new cube has NaN instead of χ² or intensities."""
    warn_user(f"The new cube has no {what}, which are NaN, as {why}.")


def _covers_fit(cube):
    """Return whether the cube covers the full log T range of the fit."""
    edges = cube.bins.edges[[0, -1]]
    return np.allclose(cube.meta["provenance"].get("log_t_range", edges), edges, rtol=0, atol=LOG_T_TOLERANCE)
