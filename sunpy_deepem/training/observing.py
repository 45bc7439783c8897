"""Simulated observations of emission measures: `simulate_observation`."""

import numpy as np

from sunpy_deepem.calibrate.photometry import counts_uncertainty
from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.methods.factors import checked_factors, draw_factors
from sunpy_deepem.utils.checks import plain_array

__all__ = ["generator", "simulate_observation", "usual_uncertainty"]

# NOTE: usual exposure times in s, as in the headers of quiet days; see also Lemen et al. (2012), Solar Phys. 275, 17.
_EXPOSURE_TIMES = {94: 2.9, 131: 2.9, 171: 2.0, 193: 2.0, 211: 2.9, 335: 2.9}
# Of channels of other instruments.
_OTHER_EXPOSURE_TIME = 2.0
# Automatic exposure control keeps counts below full well (16383 DN).
_MAX_COUNTS = 10000.0
# Small systematic errors are the hardest to learn, and so are drawn more often.
_TOWARDS_ZERO = 1.25


def simulate_observation(
    em,
    response,
    *,
    seed,
    systematic=(0.0, 0.3),
    n_sample=None,
    exposure_times=None,
    short_exposures=0.0,
    factors=None,
):
    """
    Return noisy AIA intensities of given emission measures, and their σ as estimated from data.

    Counts get the noise of `~sunpy_deepem.calibrate.counts_uncertainty`, and each channel a normally distributed
    relative error of width ``systematic``. σ is estimated from the noisy counts, as for real data.

    Parameters
    ----------
    em : `~numpy.ndarray`
        EM per bin in cm^-5, shape ``(number of bins, n)``.
    response : `TemperatureResponse`
        Response of the channels.
    seed : `int` or `~numpy.random.Generator`
        Source of randomness.
    systematic : `float` or pair of `float`, optional
        Systematic fraction, or the limits between which it is drawn for each pixel, small ones more often.
    n_sample : `float`, optional
        Native pixels averaged; by default drawn per pixel, log-uniform in 1 to 64.
    exposure_times : array-like, optional
        Exposure times in s, shape ``(channels,)``; by default the usual ones, shorter where counts would near full
        well.
    short_exposures : `float`, optional
        Fraction of the pixels in which the exposure is up to 300 times shorter, as during flares.
    factors : `dict`, optional
        Standard deviation of the natural logarithm of an unknown factor of a channel's response, by channel. It is
        drawn for each pixel and not part of σ, so that a network learns to average over it.

    Returns
    -------
    intensity, uncertainty : `~numpy.ndarray`
        In DN s^-1 pix^-1, shape ``(channels, n)``.
    """
    rng, em = generator(seed), plain_array(em, "em", unit="cm-5")
    if em.ndim != 2 or len(em) != len(response.bins):
        msg = f"em must have shape ({len(response.bins)}, n), bins of log T first, found {em.shape}."
        raise ValueError(msg)
    n = em.shape[1]
    low, high = systematic if np.ndim(systematic) else (systematic, systematic)
    f = low + (high - low) * rng.uniform(0, 1, n) ** _TOWARDS_ZERO
    samples = 2 ** rng.uniform(0, 6, n) if n_sample is None else np.full(n, float(n_sample))
    truth = response.matrix.value @ em
    if factors := checked_factors(factors):
        truth *= draw_factors(factors, response.channels, n, rng)
    times = _usual_times(response.channels) if exposure_times is None else np.asarray(exposure_times, dtype=float)
    times = times[:, np.newaxis]
    if short_exposures:
        times = times * np.where(rng.random(n) < short_exposures, 10 ** rng.uniform(-2.5, 0, n), 1)
    if exposure_times is None:
        with np.errstate(divide="ignore"):
            times = np.minimum(times, _MAX_COUNTS / np.maximum(truth, 0))
    counts = truth * times
    # The photometric part of the noise scales with 1/sqrt(n_sample), so that one call serves a range of n_sample.
    counts = counts + rng.normal(size=counts.shape) * _noise(counts, samples, response.channels)
    noise = _noise(counts, samples, response.channels) / times
    intensity = counts / times * np.maximum(1 + f * rng.normal(size=counts.shape), 0.05)
    return intensity, np.hypot(noise, f * intensity)


def generator(seed):
    """Return the `~numpy.random.Generator` of a seed: a whole number, a sequence of them, or a generator."""
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError):
        msg = f"seed must be a whole number that is not negative, or a sequence of them, found {seed!r}."
        raise ValueError(msg) from None


def usual_uncertainty(intensity, *, systematic=0.1, n_sample=1):
    """
    Return σ of intensities for the exposure times of quiet days.

    Parameters
    ----------
    intensity : `~numpy.ndarray`
        DN s^-1 pix^-1, shape ``(6, n)``.
    systematic : `float`, optional
        Systematic error as a fraction of the intensity.
    n_sample : `float`, optional
        Native pixels averaged.

    Returns
    -------
    `~numpy.ndarray`
        DN s^-1 pix^-1, shape ``(6, n)``.
    """
    times = _usual_times(CHANNELS)[:, np.newaxis]
    return np.hypot(_noise(intensity * times, n_sample, CHANNELS) / times, systematic * intensity)


def _usual_times(channels):
    return np.array([_EXPOSURE_TIMES.get(channel, _OTHER_EXPOSURE_TIME) for channel in channels])


def _noise(counts, n_sample, channels):
    """Noise of ``counts`` (channels, n) where each pixel has its own ``n_sample`` (n,)."""
    return np.stack([_channel_noise(*row, n_sample) for row in zip(counts, channels, strict=True)])


def _channel_noise(counts, channel, n_sample):
    if channel in CHANNELS:
        return counts_uncertainty(counts, channel, n_sample)
    # Photon noise alone, for instruments other than AIA.
    return np.sqrt(np.maximum(counts, 1) / n_sample)
