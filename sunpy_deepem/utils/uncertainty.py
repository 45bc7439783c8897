"""Standard deviations of data and of means."""

import numpy as np
from astropy.nddata import StdDevUncertainty

__all__ = ["sigma_of_mean", "standard_deviation"]


def standard_deviation(data):
    """
    Return the standard deviation of an `~astropy.nddata.NDData` as an array in its unit, or `None`.

    The array may be the data's own; do not change it.
    """
    uncertainty = data.uncertainty
    # represent_as squares and takes the root even of a StdDevUncertainty.
    if uncertainty is not None and not isinstance(uncertainty, StdDevUncertainty):
        uncertainty = uncertainty.represent_as(StdDevUncertainty)
    return None if uncertainty is None else uncertainty.array


def sigma_of_mean(intensity, sigma, systematic, mean, n):
    """
    Return σ of the mean of intensities.

    Noise is independent from pixel to pixel; the systematic error is common to all pixels.

    Parameters
    ----------
    intensity, sigma : `~numpy.ndarray`
        Intensities and their σ, in the same unit.
    systematic : `float`
        Systematic part of ``sigma``, as a fraction of the intensity.
    mean : callable
        Function that averages an image.
    n : `int` or `~numpy.ndarray`
        Number of pixels in each mean.

    Returns
    -------
    `~numpy.ndarray`
    """
    noise = np.maximum(np.square(sigma, dtype=float) - np.square(systematic * intensity, dtype=float), 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt(mean(noise) / n + (systematic * mean(intensity)) ** 2)
