"""EM loci curves."""

import astropy.units as u
import numpy as np

from sunpy_deepem.channels import check_channels
from sunpy_deepem.units import INTENSITY_UNIT

__all__ = ["em_loci"]


@u.quantity_input
def em_loci(intensity: INTENSITY_UNIT, response):
    """
    Return the EM loci: for each channel, the EM of isothermal plasma that gives the intensity, against temperature.

    The curves are upper limits of any EM distribution. For isothermal plasma they cross at its temperature.

    Parameters
    ----------
    intensity : `~astropy.units.Quantity`
        Intensity of a pixel or mean of a region in the channels of the response, DN s^-1 pix^-1, shape ``(6,)``.
    response : `TemperatureResponse`

    Returns
    -------
    `~astropy.units.Quantity`
        EM in cm^-5 at ``response.temperature``, shape ``(6, n)``; infinite where the response is not positive, NaN
        where the intensity is not positive.

    Raises
    ------
    ValueError
        If ``intensity`` does not have shape ``(6,)``.

    Examples
    --------
    >>> from sunpy_deepem import TemperatureResponse
    >>> from sunpy_deepem.analysis import em_loci
    >>> response = TemperatureResponse.default()
    >>> em_loci([0.8, 4.5, 140, 170, 50, 2.7] * u.DN / (u.s * u.pix), response).shape
    (6, 101)
    """
    check_channels(intensity, channels=response.channels)
    if intensity.ndim != 1:
        msg = f"intensity must be of one pixel or the mean of a region, shape (6,), found {intensity.shape}."
        raise ValueError(msg)
    intensity = intensity.to_value(INTENSITY_UNIT)
    positive = np.where(intensity > 0, intensity, np.nan)
    with np.errstate(divide="ignore"):
        loci = positive[:, np.newaxis] / np.maximum(response.curves.value, 0)
    return loci * u.cm**-5
