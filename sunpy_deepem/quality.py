"""What can be wrong with a pixel: `Quality`."""

from enum import IntFlag

import numpy as np

__all__ = ["HIGH_CHI2", "MASKED", "Quality", "image_deviation", "signal_flags", "unusual_flags"]

#: χ² (mean over channels) above which a fit does not explain what was observed.
HIGH_CHI2 = 3.0
# Spreads by which a channel may be off in a pixel, and in the median over an image.
_MOST_DEVIATION, _MOST_IMAGE_DEVIATION = 3.0, 2.1


class Quality(IntFlag):
    """
    Bit flags of a pixel; zero is a pixel without complaint.

    Examples
    --------
    >>> from sunpy_deepem import Quality
    >>> Quality(6)
    <Quality.SATURATED|LOW_SIGNAL: 6>
    """

    #: A channel has no valid data here; the pixel is masked.
    MISSING = 1
    #: A native pixel under this one was saturated in some channel; the pixel is masked.
    SATURATED = 2
    #: Fewer than three channels are above 3 σ.
    LOW_SIGNAL = 4
    #: The reduced χ² of the fit is above 3.
    HIGH_CHI2 = 8
    #: More than a quarter of the EM lies in the first two or the last two bins, where the answer is an extrapolation.
    EDGE = 16
    #: Some channel is negative; it is kept, with its σ.
    NEGATIVE = 32
    #: In the detector column of many saturated pixels, into which their charge may have spilled; it is kept.
    BLOOMING = 64
    #: A channel is not what the other five foretell, here or all over the image. It is unlike what the network was
    #: trained on, as are channels that were swapped or are off by a factor.
    UNUSUAL = 128
    #: The method of inversion found no EM here, as its status tells; the pixel is masked.
    UNSOLVED = 256
    #: Outside of the region that was asked for; the pixel is masked.
    OUTSIDE = 512


#: Flags of pixels that have no EM.
MASKED = Quality.MISSING | Quality.SATURATED | Quality.UNSOLVED | Quality.OUTSIDE


def signal_flags(intensity, sigma):
    """
    Return the flags LOW_SIGNAL and NEGATIVE, which follow from intensities and their errors alone.

    Parameters
    ----------
    intensity, sigma : `~numpy.ndarray`
        Of one unit, shape ``(6, ...)``. A pixel that is not finite in all channels is not LOW_SIGNAL.

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
        few = np.isfinite(intensity).all(axis=0) & (np.count_nonzero(intensity > 3 * sigma, axis=0) < 3)
        return few * np.uint16(Quality.LOW_SIGNAL) | (intensity < 0).any(axis=0) * np.uint16(Quality.NEGATIVE)


def image_deviation(deviation, intensity, sigma):
    """
    Return the median deviation of each channel over the half of an image that has the more signal.

    Parameters
    ----------
    deviation : `~numpy.ndarray`
        As `DeepEM.deviation` gives it, shape ``(6, ...)``, NaN where there is nothing to judge.
    intensity, sigma : `~numpy.ndarray`
        Of one unit, of the same shape.

    Returns
    -------
    `~numpy.ndarray`
        Shape ``(6,)``; zero if no pixel can be judged.
    """
    valid = np.isfinite(deviation).all(axis=0)
    if not valid.any():
        return np.zeros(len(deviation))
    signal = (intensity[:, valid] / sigma[:, valid]).mean(axis=0)
    return np.median(deviation[:, valid][:, signal >= np.median(signal)], axis=1)


def unusual_flags(deviation, of_image):
    """
    Return the flag UNUSUAL where a channel does not fit the others.

    A pixel has it if a channel is more than 3 spreads from what the others foretell. If a channel is more than 2.1
    spreads off all over the image, it is the channel that is wrong, and all pixels have it.

    Parameters
    ----------
    deviation : `~numpy.ndarray`
        As `DeepEM.deviation` gives it, shape ``(6, ...)``, NaN where there is nothing to judge.
    of_image : `~numpy.ndarray`
        The `image_deviation` of the image that the pixels are of, shape ``(6,)``.

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
        unusual = (np.abs(deviation) > _MOST_DEVIATION).any(axis=0)
    unusual |= (np.abs(of_image) > _MOST_IMAGE_DEVIATION).any()
    return np.where(unusual & valid, Quality.UNUSUAL, 0).astype(np.uint16)
