"""What analysts derive from the channels without an inversion: Fe XVIII and EM loci."""

import astropy.units as u
import numpy as np
import sunpy.map
from astropy.nddata import StdDevUncertainty

from sunpy_deepem.channels import CHANNELS, INTENSITY_UNIT
from sunpy_deepem.cube import DEMCube
from sunpy_deepem.stack import ChannelStack

__all__ = ["em_loci", "fe_xviii", "fe_xviii_map"]

# NOTE: the share of 94 Å that is not Fe XVIII, in terms of 211 and 171 Å; Del Zanna (2013), A&A 558, A73, section 4.
_FE_XVIII_WEIGHTS = {94: 1.0, 211: -1 / 120, 171: -1 / 450}


@u.quantity_input
def fe_xviii(intensity: INTENSITY_UNIT, uncertainty: INTENSITY_UNIT = None):
    """
    Estimate the Fe XVIII line in the 94 Å channel, which shows plasma near log T 6.85: 94 − 211/120 − 171/450.

    Parameters
    ----------
    intensity : `~astropy.units.Quantity`
        DN s^-1 pix^-1, shape ``(6, ...)``, as `ChannelStack.intensity` or `DEMCube.intensity`.
    uncertainty : `~astropy.units.Quantity`, optional
        σ of the intensity, of the same shape.

    Returns
    -------
    intensity, uncertainty : `~astropy.units.Quantity`
        DN s^-1 pix^-1, shape ``(...)``; without ``uncertainty`` the former alone. It is negative where noise is.

    Raises
    ------
    ValueError
        If the six channels are not along the first axis.

    References
    ----------
    Del Zanna (2013), A&A 558, A73, https://doi.org/10.1051/0004-6361/201321653

    Examples
    --------
    >>> import astropy.units as u
    >>> from sunpy_deepem.products import fe_xviii
    >>> fe_xviii([10, 20, 450, 500, 120, 5] * u.DN / (u.s * u.pix))
    <Quantity 8. DN / (pix s)>
    """
    _require_channels(intensity)
    terms = [(weight, CHANNELS.index(channel)) for channel, weight in _FE_XVIII_WEIGHTS.items()]
    line = sum(weight * intensity[row] for weight, row in terms)
    if uncertainty is None:
        return line
    return line, np.sqrt(sum((weight * uncertainty[row]) ** 2 for weight, row in terms))


def fe_xviii_map(source):
    """
    Return the Fe XVIII estimate of `fe_xviii` as a map.

    Parameters
    ----------
    source : `ChannelStack` or `DEMCube`
        Whose observed intensities are taken.

    Returns
    -------
    `~sunpy.map.GenericMap`
        In DN / s, with the estimate's σ as ``uncertainty`` and the mask of ``source``.

    Raises
    ------
    TypeError
        If ``source`` is something else.

    Examples
    --------
    >>> from sunpy_deepem import ChannelStack
    >>> from sunpy_deepem.products import fe_xviii_map
    >>> from sunpy_deepem.sample import sample_maps
    >>> fe_xviii_map(ChannelStack.from_maps(sample_maps((64, 64)))).dimensions.x
    <Quantity 64. pix>
    """
    if isinstance(source, ChannelStack):
        header, sigma, mask = source.header, source.uncertainty, source.mask
    elif isinstance(source, DEMCube):
        header, sigma, mask = source.sky_header, source.intensity_uncertainty, source.mask.any(axis=0)
    else:
        msg = f"source must be a ChannelStack or a DEMCube, found {type(source).__name__}. Make one of the six maps."
        raise TypeError(msg)
    line, sigma = fe_xviii(source.intensity, sigma)
    cards = {"bunit": "DN / s", "telescop": "SDO/AIA", "content": "Fe XVIII, 94 - 211/120 - 171/450"}
    return sunpy.map.Map(
        line.to_value(INTENSITY_UNIT),
        dict(header) | cards,
        mask=mask,
        uncertainty=StdDevUncertainty(sigma.to_value(INTENSITY_UNIT)),
    )


@u.quantity_input
def em_loci(intensity: INTENSITY_UNIT, response):
    """
    Return the EM loci: for each channel and temperature the EM of isothermal plasma that would give the intensity.

    No EM distribution rises above the lowest of the curves, and isothermal plasma lies where they cross.

    Parameters
    ----------
    intensity : `~astropy.units.Quantity`
        Of a pixel or the mean of a region, DN s^-1 pix^-1, shape ``(6,)``.
    response : `TemperatureResponse`

    Returns
    -------
    `~astropy.units.Quantity`
        EM in cm^-5 at ``response.temperature``, shape ``(6, n)``; infinite where the response is not positive, and NaN
        where the intensity is not.

    Raises
    ------
    ValueError
        If ``intensity`` is not that of six channels.

    Examples
    --------
    >>> import astropy.units as u
    >>> from sunpy_deepem import TemperatureResponse
    >>> from sunpy_deepem.products import em_loci
    >>> response = TemperatureResponse.default()
    >>> em_loci([0.8, 4.5, 140, 170, 50, 2.7] * u.DN / (u.s * u.pix), response).shape
    (6, 101)
    """
    _require_channels(intensity)
    if intensity.ndim != 1:
        msg = f"intensity must be of one pixel or the mean of a region, shape (6,), found {intensity.shape}."
        raise ValueError(msg)
    positive = np.where(intensity.to_value(INTENSITY_UNIT) > 0, intensity.to_value(INTENSITY_UNIT), np.nan)
    with np.errstate(divide="ignore"):
        loci = positive[:, np.newaxis] / np.maximum(response.response.value, 0)
    return loci * u.cm**-5


def _require_channels(intensity):
    if intensity.ndim < 1 or intensity.shape[0] != len(CHANNELS):
        msg = f"intensity must have the six channels {CHANNELS} along its first axis, found shape {intensity.shape}."
        raise ValueError(msg)
