"""Standard deviations of data and of means."""

import numpy as np
from astropy.nddata import StdDevUncertainty

__all__ = ["ComputedUncertainty", "common_error", "sigma_of_mean", "standard_deviation"]


class ComputedUncertainty(StdDevUncertainty):
    """
    A standard deviation that is computed when it is first used.

    Parameters
    ----------
    array : callable or array-like
        Called without arguments for the array; or the array, as for `~astropy.nddata.StdDevUncertainty`.
    copy, unit : optional
        As for `~astropy.nddata.StdDevUncertainty`.

    Examples
    --------
    >>> from sunpy_deepem.utils.uncertainty import ComputedUncertainty
    >>> ComputedUncertainty(lambda: np.array([1.0, 2.0])).array
    array([1., 2.])
    """

    _compute = None

    def __init__(self, array=None, copy=True, unit=None):
        is_pending = callable(array)
        super().__init__(None if is_pending else array, copy=copy, unit=unit)
        self._compute = array if is_pending else None

    @property
    def array(self):
        """The standard deviation, `~numpy.ndarray`."""
        if self._compute is not None:
            self.array = self._compute()
        return super().array

    @array.setter
    def array(self, array):
        self._compute = None
        StdDevUncertainty.array.fset(self, array)

    def __getstate__(self):
        # Copies and pickles hold the array.
        return StdDevUncertainty(self.array, unit=self.unit, copy=False).__getstate__()


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


def common_error(provenance):
    """
    Return the error of intensities that is common to all pixels of a channel, as a fraction of the intensity.

    Parameters
    ----------
    provenance : `dict`
        That of a cube or stack, with ``"common_error"`` of each channel, or ``"systematic"`` for all.

    Returns
    -------
    `~numpy.ndarray`
        One number for each channel, or a single one for all; 0 if unknown.
    """
    return np.atleast_1d(np.asarray(provenance.get("common_error", provenance.get("systematic") or 0.0), dtype=float))


def sigma_of_mean(intensity, sigma, common, mean, n):
    """
    Return σ of the mean of intensities.

    Noise is independent from pixel to pixel; errors of calibration and atomic data are common to all pixels.

    Parameters
    ----------
    intensity, sigma : `~numpy.ndarray`
        Intensities and their σ, in the same unit, channels along the first axis.
    common : `~numpy.ndarray`
        Common part of ``sigma``, as a fraction of the intensity, see `common_error`.
    mean : callable
        Function that averages an image.
    n : `int` or `~numpy.ndarray`
        Number of pixels in each mean.

    Returns
    -------
    `~numpy.ndarray`
    """

    def in_common(image):
        fraction = common.astype(image.dtype).reshape(-1, *[1] * (image.ndim - 1))
        return np.square(fraction * image, dtype=float)

    noise = np.maximum(np.square(sigma, dtype=float) - in_common(intensity), 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt(mean(noise) / n + in_common(mean(intensity)))
