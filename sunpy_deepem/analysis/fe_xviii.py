"""The Fe XVIII line in the 94 Å channel."""

import astropy.units as u
import numpy as np
from astropy.nddata import StdDevUncertainty

from sunpy_deepem.channels import CHANNELS, check_channels
from sunpy_deepem.forward import content_cards
from sunpy_deepem.units import INTENSITY_UNIT
from sunpy_deepem.utils.product_maps import DerivedMap

__all__ = ["fe_xviii", "fe_xviii_map"]

# NOTE: the warm part of 94 Å in terms of 211 and 171 Å; Del Zanna (2013), A&A 558, A73, section 4.
_FE_XVIII_WEIGHTS = {94: 1.0, 211: -1 / 120, 171: -1 / 450}


@u.quantity_input
def fe_xviii(intensity: INTENSITY_UNIT, uncertainty: INTENSITY_UNIT = None):
    """
    Estimate the Fe XVIII line in the 94 Å channel, formed near log T 6.85, as 94 − 211/120 − 171/450.

    Parameters
    ----------
    intensity : `~astropy.units.Quantity`
        Intensities in DN s^-1 pix^-1, shape ``(6, ...)``, such as `ChannelStack.intensity` or `DEMCube.intensity`.
    uncertainty : `~astropy.units.Quantity`, optional
        σ of the intensities, same shape.

    Returns
    -------
    line, sigma : `~astropy.units.Quantity`
        The line and its σ in DN s^-1 pix^-1, shape ``(...)``; only the line if ``uncertainty`` is not given. Noise can
        make it negative.

    Raises
    ------
    ValueError
        If the first axis does not hold the six channels, or the shapes differ.

    References
    ----------
    Del Zanna (2013), A&A 558, A73, https://doi.org/10.1051/0004-6361/201321653

    Examples
    --------
    >>> from sunpy_deepem.analysis import fe_xviii
    >>> fe_xviii([10, 20, 450, 500, 120, 5] * u.DN / (u.s * u.pix))
    <Quantity 8. DN / (pix s)>
    """
    check_channels(intensity)
    terms = [(weight, CHANNELS.index(channel)) for channel, weight in _FE_XVIII_WEIGHTS.items()]
    line = sum(weight * intensity[row] for weight, row in terms)
    if uncertainty is None:
        return line
    if uncertainty.shape != intensity.shape:
        msg = f"uncertainty must have the shape of intensity, {intensity.shape}, found {uncertainty.shape}."
        raise ValueError(msg)
    return line, np.sqrt(sum((weight * uncertainty[row]) ** 2 for weight, row in terms))


def fe_xviii_map(source):
    """
    Return the estimate of `fe_xviii` as a map.

    Parameters
    ----------
    source : `ChannelStack` or `DEMCube`
        Provides the observed intensities.

    Returns
    -------
    `~sunpy.map.GenericMap`
        The line in DN / s, with its σ as ``uncertainty`` and the mask of ``source``.

    Raises
    ------
    TypeError
        If ``source`` is neither a stack nor a cube.

    Examples
    --------
    >>> from sunpy_deepem import ChannelStack
    >>> from sunpy_deepem.analysis import fe_xviii_map
    >>> fe_xviii_map(ChannelStack.from_maps(sample_maps((64, 64)))).dimensions.x
    <Quantity 64. pix>
    """
    if hasattr(source, "sky_header"):
        header, sigma, mask = source.sky_header, source.intensity_uncertainty, source.sky_mask
    elif hasattr(source, "intensity") and hasattr(source, "header"):
        header, sigma, mask = source.header, source.uncertainty, source.mask
    else:
        msg = (
            f"source must be a ChannelStack or a DEMCube, found {type(source).__name__}. Make one from the six maps "
            "with ChannelStack.from_maps or invert."
        )
        raise TypeError(msg)
    line, sigma = fe_xviii(source.intensity, sigma)
    cards = {"bunit": "DN / s", "telescop": "SDO/AIA"} | content_cards("Fe XVIII, 94 - 211/120 - 171/450")
    return DerivedMap(
        line.to_value(INTENSITY_UNIT),
        dict(header) | cards,
        mask=mask,
        uncertainty=StdDevUncertainty(sigma.to_value(INTENSITY_UNIT)),
    )
