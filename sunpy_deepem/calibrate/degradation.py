"""Degradation of AIA's channels, by `aiapy.calibrate.degradation`."""

from pathlib import Path

from aiapy.calibrate import degradation
from astropy.table import Table
from astropy.time import Time

from sunpy_deepem.calibrate.tables import packaged_table
from sunpy_deepem.channels import channel_quantity
from sunpy_deepem.utils.compat import get_correction_table
from sunpy_deepem.utils.messages import warn_user

__all__ = ["correction_table", "degradation_factor", "known_until"]

_PACKAGED = "aia_v10_degradation.ecsv"


def correction_table(source=None):
    """
    Return a degradation table for `aiapy.calibrate.degradation` and its origin.

    Parameters
    ----------
    source : `None`, `str`, `pathlib.Path` or `~astropy.table.Table`, optional
        `None` for the packaged table (V10, the version that aiapy pins), ``"SSW"`` or ``"JSOC"`` for a download by
        aiapy, the path of a file, or a table. If a download fails, the packaged table is used with a warning.

    Returns
    -------
    table : `~astropy.table.QTable`
    origin : `str`

    Raises
    ------
    FileNotFoundError
        If ``source`` is the path of a file that does not exist.
    TypeError
        If ``source`` has another type.

    Warns
    -----
    sunpy.util.exceptions.SunpyUserWarning
        If a download fails.
    """
    if source is None:
        return packaged_table(_PACKAGED, get_correction_table), f"packaged {_PACKAGED}"
    if isinstance(source, Table):
        return source, "table given by the user"
    if isinstance(source, str) and source.lower() in ("ssw", "jsoc"):
        try:
            return get_correction_table(source), f"aiapy, from {source.upper()}"
        except Exception as error:  # aiapy's downloaders raise many types
            warn_user(
                f"correction_table={source!r} could not be downloaded ({type(error).__name__}: {error}); the packaged "
                "V10 table is used instead."
            )
            return correction_table()
    if isinstance(source, str | Path):
        if not Path(source).is_file():
            msg = f"correction_table names a file that does not exist: {source}. Give a path, 'SSW', 'JSOC' or None."
            raise FileNotFoundError(msg)
        return get_correction_table(Path(source)), str(Path(source).name)
    msg = f"correction_table must be None, 'SSW', 'JSOC', a path or a table, found {type(source).__name__}."
    raise TypeError(msg)


def known_until(table, obstime=None):
    """
    Return the time up to which a table is based on measurements; warn if an observation is later.

    The last epoch of a table is open: it extrapolates from its start, in V10 by the constant of 2020-06-01.

    Parameters
    ----------
    table : `~astropy.table.QTable`
        As returned by `correction_table`.
    obstime : `~astropy.time.Time`, optional
        Time of an observation.

    Returns
    -------
    `~astropy.time.Time`

    Warns
    -----
    sunpy.util.exceptions.SunpyUserWarning
        If ``obstime`` is later.
    """
    last = Time(table["T_START"]).max()
    if obstime is not None and obstime > last:
        warn_user(
            f"The degradation at {obstime.utc.isot[:10]} is an extrapolation: the table of degradation ends at "
            f"{last.utc.isot[:10]}. Pass a newer one, such as correction_table='JSOC', or its path."
        )
    return last


def degradation_factor(channel, obstime, *, epoch=None, table=None):
    """
    Return the effective area of a channel at ``obstime`` relative to that at ``epoch``.

    Parameters
    ----------
    channel : `int`
        Wavelength in Å.
    obstime : `~astropy.time.Time`
        Time of the observation.
    epoch : `~astropy.time.Time`, optional
        Time of the response, by default launch.
    table : `~astropy.table.QTable`, optional
        As returned by `correction_table`.

    Returns
    -------
    `float`

    Raises
    ------
    ValueError
        If the table does not cover one of the times.
    """
    table = correction_table()[0] if table is None else table
    factor = _factor_since_launch(channel, obstime, table)
    return factor if epoch is None else factor / _factor_since_launch(channel, epoch, table)


def _factor_since_launch(channel, time, table):
    try:
        return float(degradation(channel_quantity(channel), time.utc, correction_table=table).to_value("")[0])
    except ValueError as error:
        msg = (
            f"The degradation of {channel} Å at {time.isot} is not in the table ({error}). AIA observes since 2010; "
            "check DATE-OBS of the maps, epoch and obstime, or pass another correction_table."
        )
        raise ValueError(msg) from error
