"""Forward model: from emission measure to synthetic AIA intensities and maps."""

import astropy.units as u
import numpy as np
import sunpy.map

from sunpy_deepem.channels import SYNTHETIC
from sunpy_deepem.units import EM_UNIT, INTENSITY_UNIT
from sunpy_deepem.utils.product_maps import CREATOR, ChannelMap

__all__ = ["channel_maps", "chi_squared", "content_cards", "synthetic_intensity", "synthetic_maps"]

# NOTE: Telescope of each channel, Lemen et al. (2012), Solar Phys. 275, 17, Table 2.
_TELESCOPES = {94: 4, 131: 1, 171: 3, 193: 2, 211: 2, 335: 1}


@u.quantity_input
def synthetic_intensity(em: EM_UNIT, response):
    """
    Return the intensities of an emission measure, g_i = Σ_j K_ij EM_j.

    Parameters
    ----------
    em : `~astropy.units.Quantity`
        EM per bin in cm^-5, shape ``(number of bins, ...)``.
    response : `TemperatureResponse`
        Response with the same bins.

    Returns
    -------
    `~astropy.units.Quantity`
        DN s^-1 pix^-1, shape ``(number of channels, ...)``. NaN stays NaN.

    Raises
    ------
    ValueError
        If ``em`` does not have the bins of ``response`` along its first axis.
    """
    matrix = response.matrix
    if em.shape[:1] != matrix.shape[1:]:
        msg = f"em must have the {matrix.shape[1]} bins of response along its first axis, found shape {em.shape}."
        raise ValueError(msg)
    em = em.to_value(EM_UNIT)
    return np.tensordot(matrix.value.astype(np.result_type(em, np.float32)), em, axes=1) << INTENSITY_UNIT


@u.quantity_input
def chi_squared(em: EM_UNIT, intensity: INTENSITY_UNIT, uncertainty: INTENSITY_UNIT, response):
    """
    Return the mean over the channels used of ((synthetic − observed) / σ)².

    Parameters
    ----------
    em : `~astropy.units.Quantity`
        EM per bin in cm^-5, shape ``(number of bins, ...)``.
    intensity, uncertainty : `~astropy.units.Quantity`
        DN s^-1 pix^-1, shape ``(number of channels, ...)``. A channel is not used where one of them is not finite.
    response : `TemperatureResponse`
        Response with the same bins and channels.

    Returns
    -------
    `~numpy.ndarray`
        Shape ``(...)``; NaN where no channel is used.
    """
    synthetic = synthetic_intensity(em, response)
    for name, array in (("intensity", intensity), ("uncertainty", uncertainty)):
        if array.shape != synthetic.shape:
            msg = f"{name} must have shape {synthetic.shape}, found {array.shape}."
            raise ValueError(msg)
    # Without noise, residuals are infinite or, if zero, NaN.
    with np.errstate(divide="ignore", invalid="ignore"):
        residual = ((synthetic - intensity) / uncertainty).to_value("")
        used = np.isfinite(intensity) & np.isfinite(uncertainty)
        total = np.sum(residual**2, axis=0, where=used)
        return total / used.sum(axis=0, dtype=total.dtype)


def synthetic_maps(intensity, header, inputs, *, degradation=None, quantile=None, mask=None, uncertainty=None):
    """
    Return synthetic intensities of channels as AIA maps.

    Parameters
    ----------
    intensity : `~astropy.units.Quantity`
        DN s^-1 pix^-1, shape ``(number of inputs, ny, nx)``.
    header : `dict`
        FITS header with WCS, observer and time.
    inputs : sequence of `dict`
        ``channel``, ``date`` and ``exposure_time`` of each channel.
    degradation : sequence of `float`, optional
        Factor of each channel, by which its intensity is multiplied. It is written into the header.
    quantile : `float`, optional
        Quantile of the posterior that the intensities are, to be written into the header.
    mask : `~numpy.ndarray`, optional
        `True` for masked pixels, shape ``(ny, nx)``.
    uncertainty : sequence of `~astropy.nddata.StdDevUncertainty` or `None`, optional
        The uncertainty of each map in DN / s.

    Returns
    -------
    `~sunpy.map.MapSequence`
        Maps in DN / s, in the order of ``inputs``.
    """
    content = SYNTHETIC
    if degradation is not None:
        intensity = intensity * np.reshape(degradation, (-1, 1, 1))
        inputs = [{**one, "cards": {"degrfact": factor}} for one, factor in zip(inputs, degradation, strict=True)]
        # Another CONTENT, because ChannelStack does not correct SYNTHETIC maps for degradation.
        content = f"{SYNTHETIC}, degraded"
    cards = content_cards(content, quantile)
    return channel_maps(intensity, header, inputs, mask=mask, uncertainty=uncertainty, **cards)


def content_cards(content, quantile=None):
    """Return the header cards of a map that say what it shows, if given of which quantile of the posterior."""
    cards = {"creator": CREATOR, "content": content}
    if quantile is None:
        return cards
    return cards | {"content": f"{content}, {100 * quantile:g} % quantile", "quantile": float(quantile)}


def channel_maps(values, header, inputs, *, mask=None, uncertainty=None, **cards):
    """
    Return images of channels as AIA maps.

    Parameters
    ----------
    values : `~astropy.units.Quantity`
        DN s^-1 pix^-1 or dimensionless, shape ``(number of inputs, ny, nx)``.
    header, inputs, mask, uncertainty
        As for `synthetic_maps`.
    **cards
        Further header cards of all maps.

    Returns
    -------
    `~sunpy.map.MapSequence`
        Maps in DN / s, or dimensionless, in the order of ``inputs``.
    """
    unit = u.one if values.unit.is_equivalent(u.one) else INTENSITY_UNIT
    # A text, because the FITS standard has no unit DN; sunpy omits the pixel.
    cards = {"bunit": "" if unit == u.one else "DN / s"} | cards
    errors = uncertainty or [None] * len(inputs)
    maps = [
        ChannelMap(image, dict(header) | _channel_header(observation) | cards, mask=mask, uncertainty=error)
        for image, observation, error in zip(values.to_value(unit), inputs, errors, strict=True)
    ]
    return sunpy.map.Map(maps, sequence=True, sortby=None)


def _channel_header(observation):
    channel, exposure = observation["channel"], observation["exposure_time"]
    header = {
        "telescop": "SDO/AIA",
        "instrume": f"AIA_{_TELESCOPES[channel]}",
        "wavelnth": channel,
        "waveunit": "angstrom",
        "wave_str": f"{channel}_THIN",
        "date-obs": observation["date"],
        "t_obs": observation["date"],
        "lvl_num": 1.5,
        **observation.get("cards", {}),
    }
    # A channel that was not observed has no exposure time.
    return header | ({"exptime": exposure} if np.isfinite(exposure) else {})
