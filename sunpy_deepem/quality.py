"""Quality flags of pixels: `Quality`."""

from enum import IntFlag

import numpy as np

__all__ = [
    "HIGH_CHI2",
    "MASKED",
    "NO_DATA",
    "PRIOR_DOMINATES",
    "Quality",
    "image_deviation",
    "signal_flags",
    "unusual_flags",
]

#: χ² (mean over channels) above which a fit does not explain the observation.
HIGH_CHI2 = 3.0

#: Contraction of a band below which the prior determines its EM: more than half of the prior's variance is left.
PRIOR_DOMINATES = 0.5
# Limits of a channel's deviation from the other channels, in spreads: in a pixel, and in the median over an image.
_MAX_DEVIATION, _MAX_IMAGE_DEVIATION = 3.0, 2.1


class Quality(IntFlag):
    """
    Bit flags of a pixel; zero means no flag.

    Examples
    --------
    >>> from sunpy_deepem import Quality
    >>> Quality(6)
    <Quality.SATURATED|LOW_SIGNAL: 6>
    """

    #: A channel has no valid data and is not used.
    MISSING = 1
    #: A channel has a saturated native pixel. It is not used, or used as a lower limit if not also BLOOMING.
    SATURATED = 2
    #: Fewer than three channels are above 3 σ.
    LOW_SIGNAL = 4
    #: χ² of the fit is above 3.
    HIGH_CHI2 = 8
    #: More than a quarter of the EM is in the first two or last two bins, where the result is an extrapolation.
    EDGE = 16
    #: A channel is negative. The pixel is not masked.
    NEGATIVE = 32
    #: A channel is in or near many saturated pixels of a detector column, whose charge may have spilled. It is used
    #: only if it is not saturated and fewer channels than required remain without it.
    BLOOMING = 64
    #: A channel is inconsistent with the other channels, in this pixel or in the whole image. The network was not
    #: trained on such input. Swapped or rescaled channels are typical causes.
    UNUSUAL = 128
    #: The method found no EM; the pixel is masked.
    UNSOLVED = 256
    #: Outside the requested region; the pixel is masked.
    OUTSIDE = 512
    #: A channel is missing, saturated or bloomed. The other channels determine the EM, with a larger uncertainty.
    PARTIAL = 1024
    #: In a band of log T the prior determines the EM, not the data, see `DEMCube.with_prior_flags`.
    PRIOR = 2048
    #: Fewer channels can be used than required; the pixel is masked.
    FEW_CHANNELS = 4096


#: Flags of pixels without EM.
MASKED = Quality.FEW_CHANNELS | Quality.UNSOLVED | Quality.OUTSIDE

#: Flags of pixels without any data.
NO_DATA = Quality.MISSING | Quality.FEW_CHANNELS


def signal_flags(intensity, sigma):
    """
    Return the flags LOW_SIGNAL and NEGATIVE.

    Parameters
    ----------
    intensity, sigma : `~numpy.ndarray`
        Intensity and its σ in the same unit, shape ``(channels, ...)``. Channels that are not finite do not count; a
        pixel with fewer than three others is not flagged as LOW_SIGNAL.

    Returns
    -------
    `~numpy.ndarray`
        `numpy.uint16`, shape ``(...)``.

    Examples
    --------
    >>> from sunpy_deepem.quality import Quality, signal_flags
    >>> Quality(int(signal_flags(np.array([1, 5, 200, 150, 70, -1]), np.full(6, 20.0))))
    <Quality.NEGATIVE: 32>
    """
    intensity, sigma = np.asarray(intensity), np.asarray(sigma)
    with np.errstate(invalid="ignore"):
        few = (np.isfinite(intensity).sum(axis=0) >= 3) & (np.count_nonzero(intensity > 3 * sigma, axis=0) < 3)
        return few * np.uint16(Quality.LOW_SIGNAL) | (intensity < 0).any(axis=0) * np.uint16(Quality.NEGATIVE)


def image_deviation(deviation, intensity, sigma):
    """
    Return the median deviation of each channel over the brighter half of an image.

    Parameters
    ----------
    deviation : `~numpy.ndarray`
        Deviation of each channel from its prediction by the others, in spreads, as `DeepEM.deviation` returns it,
        shape ``(channels, ...)``. NaN where unknown.
    intensity, sigma : `~numpy.ndarray`
        Intensity and its σ in the same unit, of the same shape.

    Returns
    -------
    `~numpy.ndarray`
        Shape ``(channels,)``; zero if the deviation is unknown everywhere.
    """
    valid = np.isfinite(deviation).all(axis=0)
    if not valid.any():
        return np.zeros(len(deviation))
    with np.errstate(divide="ignore", invalid="ignore"):
        signal = (intensity / sigma).mean(axis=0)
        bright = valid & (signal >= np.median(signal[valid]))
    return np.array([np.median(channel[bright]) for channel in deviation])


def unusual_flags(deviation, of_image):
    """
    Return the flag UNUSUAL where a channel is inconsistent with the others.

    A pixel is flagged if a channel deviates by more than 3 spreads from its prediction by the others. All pixels are
    flagged if the median deviation of a channel over the image exceeds 2.1 spreads.

    Parameters
    ----------
    deviation : `~numpy.ndarray`
        As for `image_deviation`.
    of_image : `~numpy.ndarray`
        The `image_deviation` of the whole image, shape ``(channels,)``.

    Returns
    -------
    `~numpy.ndarray`
        `numpy.uint16`, shape ``(...)``.

    Examples
    --------
    >>> from sunpy_deepem.quality import Quality, unusual_flags
    >>> Quality(int(unusual_flags(np.array([0.3, -0.5, 1.1, 4.2, 0.0, -0.2]), np.zeros(6))))
    <Quality.UNUSUAL: 128>
    """
    valid = np.isfinite(deviation).all(axis=0)
    with np.errstate(invalid="ignore"):
        unusual = (np.abs(deviation) > _MAX_DEVIATION).any(axis=0)
    unusual |= (np.abs(of_image) > _MAX_IMAGE_DEVIATION).any()
    return np.where(unusual & valid, Quality.UNUSUAL, 0).astype(np.uint16)
