"""Distributions over log T of the plasma components of the synthetic Sun."""

import numpy as np

__all__ = ["AMPLITUDE_UNIT", "COMPONENTS", "INDEX", "em_per_bin"]

# EM in cm^-5 of unit amplitude.
AMPLITUDE_UNIT = 1e26
# Quiet Sun has no emission measure above this log T.
_QUIET_LIMIT = 6.5


def _normal(center, width, limit=np.inf):
    return lambda log_t: np.where(log_t < limit, np.exp(-0.5 * ((log_t - center) / width) ** 2), 0)


def _flank(slope, peak=6.6, fall=10, start=5.8):
    """EM proportional to T**slope from ``start`` up to ``peak``, T**-fall above."""
    return lambda log_t: np.where(
        log_t > start, 10 ** np.where(log_t < peak, slope * (log_t - peak), -fall * (log_t - peak)), 0
    )


# NOTE: cores of active regions have EM proportional to T^2..4 below a peak near log T 6.6, Warren et al. (2012),
# ApJ 759, 141, https://doi.org/10.1088/0004-637X/759/2/141.
COMPONENTS = {
    "transition": _normal(5.6, 0.10, _QUIET_LIMIT),
    "hole": _normal(5.95, 0.10, _QUIET_LIMIT),
    "cool": _normal(6.05, 0.08, _QUIET_LIMIT),
    "quiet": _normal(6.16, 0.08, _QUIET_LIMIT),
    "warm": _normal(6.28, 0.07, _QUIET_LIMIT),
    "loops": _normal(6.40, 0.08),
    "gentle core": _flank(2.2),
    "steep core": _flank(4.0),
    "flare": _normal(7.0, 0.08),
}
INDEX = {name: i for i, name in enumerate(COMPONENTS)}


def em_per_bin(bins):
    """EM per bin in cm^-5 of components of unit amplitude, shape (number of bins, number of components)."""
    # Sampled as finely as the response; amplitudes are normalized over the wide axis.
    wide = np.arange(5.0, 8.0, 1e-3)
    fine = bins.edges[:-1, np.newaxis] + (np.arange(100) + 0.5) / 100 * bins.step
    return AMPLITUDE_UNIT * np.stack(
        [emission(fine).mean(axis=1) * bins.step / (emission(wide).sum() * 1e-3) for emission in COMPONENTS.values()],
        axis=1,
    )
