"""Noise of counts, by `aiapy.calibrate.estimate_error`."""

import astropy.units as u
import numpy as np
from aiapy.calibrate import estimate_error

from sunpy_deepem.calibrate.tables import packaged_table
from sunpy_deepem.channels import channel_quantity
from sunpy_deepem.units import NATIVE_PLATE_SCALE
from sunpy_deepem.utils.compat import get_error_table

__all__ = ["common_fraction", "counts_uncertainty", "error_table", "native_pixels"]


def error_table():
    """Return the packaged table of photometric errors for `aiapy.calibrate.estimate_error`, `~astropy.table.QTable`."""
    return packaged_table("aia_v3_errors.ecsv", get_error_table)


def native_pixels(plate_scale):
    """
    Return the number of AIA's native pixels in a pixel of ``plate_scale``, at least one.

    Parameters
    ----------
    plate_scale : `~astropy.units.Quantity`
        Scales along the two axes, arcsec / pix.

    Returns
    -------
    `float`
    """
    return max(1.0, float(np.prod(np.abs((plate_scale / NATIVE_PLATE_SCALE).to_value("")))))


def counts_uncertainty(counts, channel, n_sample=1, *, calibration_error=None, chianti_error=False):
    """
    Return the instrument noise of counts: shot, read, dark, quantization and compression noise.

    Negative counts have the noise of zero counts, because the read noise remains.

    Parameters
    ----------
    counts : array-like
        Mean counts per native pixel **before** division by the exposure time, DN / pix, any shape. NaN stays NaN.
    channel : `int`
        Wavelength in Å.
    n_sample : `float` or array-like, optional
        Number of native pixels averaged, one number or one for each of ``counts``.
    calibration_error : {None, "eve", "preflight"}, optional
        Include the error of the photometric calibration, by EVE or from before launch.
    chianti_error : `bool`, optional
        Include the error of the atomic data, 25 or 50 % depending on the channel.

    Returns
    -------
    `~numpy.ndarray`
        Noise in DN / pix, of the shape of ``counts``.

    Raises
    ------
    ValueError
        If ``calibration_error`` has another value.

    References
    ----------
    Boerner et al. (2012), Solar Phys. 275, 41, https://doi.org/10.1007/s11207-011-9804-8
    """
    if calibration_error not in (None, "eve", "preflight"):
        msg = f"calibration_error must be None, 'eve' or 'preflight', found {calibration_error!r}."
        raise ValueError(msg)
    counts = np.maximum(np.asarray(counts, dtype=float), 0)
    errors = estimate_error(
        counts.ravel() * u.DN / u.pix,
        channel_quantity(channel),
        n_sample=np.ravel(n_sample),
        include_eve=calibration_error == "eve",
        include_preflight=calibration_error == "preflight",
        include_chianti=chianti_error,
        error_table=error_table(),
    )
    return errors.to_value(u.DN / u.pix).reshape(counts.shape)


def common_fraction(channel, *, calibration_error=None, chianti_error=False):
    """
    Return the part of the noise that is common to all pixels of a channel: calibration and atomic data.

    Parameters
    ----------
    channel : `int`
        Wavelength in Å.
    calibration_error, chianti_error
        As for `counts_uncertainty`.

    Returns
    -------
    `float`
        Fraction of the counts.
    """
    if calibration_error is None and not chianti_error:
        return 0.0
    counts = 1e4
    options = {"calibration_error": calibration_error, "chianti_error": chianti_error}
    total, noise = (counts_uncertainty(counts, channel, **given) for given in (options, {}))
    return float(np.sqrt(total**2 - noise**2) / counts)
