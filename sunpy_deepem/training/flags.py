"""Channels left out at random, so that a network learns to do without them: `drop_channels`."""

import numpy as np

__all__ = ["drop_channels"]

# Channels that are always left.
_LEAST_LEFT = 3
# Fraction of the other pixels in which the bright channels are lost, and of these channels that are lower limits.
_SATURATED, _LIMITS = 0.35, 0.8
# A lower limit is as low as the intensity over this power of ten.
_DEPTH = 1.5


def drop_channels(intensity, uncertainty, scale, *, rng, complete=0.6):
    """
    Leave out channels of some pixels, or replace them by lower limits, as saturation does.

    In some of the pixels all channels stay. In the others one to three are lost, but at least three stay: channels at
    random, or those that are brightest relative to their response. Most of the latter become lower limits below the
    intensity; their σ keeps its ratio to it.

    Parameters
    ----------
    intensity, uncertainty : `~numpy.ndarray`
        DN s^-1 pix^-1, shape ``(channels, n)``.
    scale : `~numpy.ndarray`
        Typical response of the channels, shape ``(channels,)``.
    rng : `~numpy.random.Generator`
        Source of randomness.
    complete : `float`, optional
        Fraction of the pixels in which all channels stay.

    Returns
    -------
    intensity, uncertainty : `~numpy.ndarray`
        With lower limits in place of the intensities above them.
    flags : `~numpy.ndarray` of `bool`
        Whether each channel is missing, then whether it is a lower limit, shape ``(2 × channels, n)``.
    """
    channels, n = intensity.shape
    most = max(0, min(3, channels - _LEAST_LEFT))
    lost = rng.integers(1, most + 1, n) if most else np.zeros(n, dtype=int)
    lost[rng.random(n) < complete] = 0
    saturated = rng.random(n) < _SATURATED
    # Not strictly the brightest, since exposure times and spikes differ.
    brightness = intensity / scale[:, np.newaxis] * rng.exponential(size=intensity.shape)
    order = np.where(saturated, -brightness, rng.random(intensity.shape))
    lost = order.argsort(axis=0).argsort(axis=0) < lost
    limit = lost & saturated & (rng.random(intensity.shape) < _LIMITS) & (intensity > 0)
    factor = np.where(limit, 10 ** -rng.uniform(0, _DEPTH, intensity.shape), 1).astype(intensity.dtype)
    return intensity * factor, uncertainty * factor, np.concatenate([lost & ~limit, limit])
