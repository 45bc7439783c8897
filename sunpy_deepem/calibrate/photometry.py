"""AIA's degradation and photometric errors, through `aiapy.calibrate`."""

import warnings
from functools import cache
from importlib import resources
from pathlib import Path

import astropy.units as u
import numpy as np
from aiapy.calibrate import degradation, estimate_error
from astropy.table import Table
from sunpy.util.exceptions import SunpyUserWarning

from sunpy_deepem.channels import channel_quantity
from sunpy_deepem.units import NATIVE_PLATE_SCALE
from sunpy_deepem.utils.compat import get_correction_table, get_error_table

__all__ = ["correction_table", "counts_uncertainty", "degradation_factor", "error_table", "native_pixels"]

_PACKAGED_CORRECTION = "aia_v10_degradation.ecsv"
_PACKAGED_ERRORS = "aia_v3_errors.ecsv"


@cache
def _packaged(name, reader):
    with resources.as_file(resources.files("sunpy_deepem.data") / name) as path:
        return reader(path)


def correction_table(source=None):
    """
    Return a table of degradation for `aiapy.calibrate.degradation`, and a word on its origin.

    Parameters
    ----------
    source : `None`, `str`, `pathlib.Path` or `~astropy.table.Table`, optional
        `None` for the packaged table (V10, the one that aiapy pins by its hash), ``"SSW"`` or ``"JSOC"`` to have aiapy
        download one, the path of a file, or a table. Where a download fails the packaged table is used, with a warning.

    Returns
    -------
    table : `~astropy.table.QTable`
    origin : `str`

    Raises
    ------
    FileNotFoundError
        If ``source`` names a file that does not exist.
    TypeError
        If ``source`` is something else.
    """
    if source is None:
        return _packaged(_PACKAGED_CORRECTION, get_correction_table), f"packaged {_PACKAGED_CORRECTION}"
    if isinstance(source, Table):
        return source, "table given by the user"
    if isinstance(source, str) and source.lower() in ("ssw", "jsoc"):
        try:
            return get_correction_table(source), f"aiapy, from {source.upper()}"
        except Exception as error:  # aiapy lets through whatever its downloaders raise
            warnings.warn(
                f"correction_table={source!r} could not be downloaded ({type(error).__name__}: {error}); the packaged "
                "V10 table is used instead.",
                SunpyUserWarning,
                stacklevel=2,
            )
            return correction_table()
    if isinstance(source, str | Path):
        if not Path(source).is_file():
            msg = f"correction_table names a file that does not exist: {source}. Give a path, 'SSW', 'JSOC' or None."
            raise FileNotFoundError(msg)
        return get_correction_table(Path(source)), str(Path(source).name)
    msg = f"correction_table must be None, 'SSW', 'JSOC', a path or a table, found {type(source).__name__}."
    raise TypeError(msg)


def error_table():
    """Return the packaged table of photometric errors for `aiapy.calibrate.estimate_error`, `~astropy.table.QTable`."""
    return _packaged(_PACKAGED_ERRORS, get_error_table)


def degradation_factor(channel, obstime, *, epoch=None, table=None):
    """
    Effective area of a channel at ``obstime`` over that at ``epoch``.

    Parameters
    ----------
    channel : `int`
        Wavelength in Å.
    obstime, epoch : `~astropy.time.Time`
        Time of the observation, and that for which the response holds: launch if `None`.
    table : `~astropy.table.QTable`, optional
        As `correction_table` returns it.

    Returns
    -------
    `float`

    Raises
    ------
    ValueError
        If the table does not reach to a time.
    """
    table = correction_table()[0] if table is None else table
    factor = _degradation(channel, obstime, table)
    return factor if epoch is None else factor / _degradation(channel, epoch, table)


def _degradation(channel, time, table):
    try:
        return float(degradation(channel_quantity(channel), time, correction_table=table).to_value("")[0])
    except ValueError as error:
        msg = (
            f"The degradation of {channel} Å at {time.isot} is not in the table ({error}). AIA observes since 2010; "
            "check DATE-OBS of the maps, epoch and obstime, or pass another correction_table."
        )
        raise ValueError(msg) from error


def native_pixels(plate_scale):
    """
    Number of AIA's native pixels that a pixel of ``plate_scale`` covers, at least one.

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
    Instrument noise of counts, by `aiapy.calibrate.estimate_error`.

    Shot, read, dark, quantisation and compression noise. Where counts are negative the noise is that of no counts, as
    the read noise remains.

    Parameters
    ----------
    counts : array-like
        Mean counts per native pixel **before** division by the exposure time, DN / pix, any shape. NaN stays NaN.
    channel : `int`
        Wavelength in Å.
    n_sample : `float` or array-like, optional
        Native pixels that were averaged, one number or one for each of ``counts``.
    calibration_error : {None, "eve", "preflight"}, optional
        Also count the error of the photometric calibration, by EVE or from before launch.
    chianti_error : `bool`, optional
        Also count the error of the atomic data, 25 or 50 % by channel.

    Returns
    -------
    `~numpy.ndarray`
        Noise in DN / pix, of the shape of ``counts``.

    Raises
    ------
    ValueError
        If ``calibration_error`` is something else.

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
