"""AIA's response from `aiapy.response.Channel`, with or without a network."""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import aiapy
import astropy.units as u
from aiapy.response import Channel

from sunpy_deepem.channels import CHANNELS, channel_quantity
from sunpy_deepem.response.emissivity import Emissivity, existing_file, read_genx_file, read_idl_save, wavelength_limits
from sunpy_deepem.units import RESPONSE_UNIT
from sunpy_deepem.utils.messages import warn_user

__all__ = ["aiapy_response", "eve_factor", "instrument_channels", "wavelength_response"]

# Crosstalk in 94 Å needs the data of 304 Å, which shares its telescope.
_REQUIRED = (*CHANNELS, 304)


def aiapy_response(emissivity, instrument_file, table, *, obstime, eve, crosstalk, wavelength_range):
    """
    Compute the temperature response of the channels without chiantifix.

    Parameters
    ----------
    emissivity, instrument_file, obstime, eve, crosstalk, wavelength_range
        As in `sunpy_deepem.TemperatureResponse.from_aiapy`.
    table : `~astropy.table.QTable`
        As returned by `sunpy_deepem.calibrate.correction_table`.

    Returns
    -------
    temperature : `~astropy.units.Quantity`
        Temperatures of the emissivity, shape ``(n,)``.
    curves : `~astropy.units.Quantity`
        In cm5 DN / (pix s), shape ``(6, n)``.
    meta : `dict`
        Origin of the response.
    """
    emissivity = _emissivity(emissivity)
    channels, origin = instrument_channels(instrument_file)
    limits = _integration_limits(emissivity, channels, wavelength_range)
    curves = [
        channel.plate_scale
        * emissivity.integrate(
            channel.wavelength,
            wavelength_response(channel, table, obstime=obstime, eve=eve, crosstalk=crosstalk),
            wavelength_range=wavelength_range,
        )
        for channel in channels
    ]
    meta = {
        "origin": f"aiapy {aiapy.__version__}",
        "source": f"emissivity {emissivity.meta.get('source', 'given by the user')}; instrument {origin}",
        "version": emissivity.meta.get("version", "unknown"),
        "eve": bool(eve),
        "crosstalk": bool(crosstalk),
        # In Å
        "wavelength_range": [float(limit) for limit in limits.to_value(u.angstrom)],
    }
    return emissivity.temperature, u.Quantity(curves).to(RESPONSE_UNIT), meta


def instrument_channels(source):
    """
    Return the channels and the origin of their data.

    Parameters
    ----------
    source : `None`, `str`, `pathlib.Path` or `dict`
        `None` for a download of SolarSoft's V8, which equals V9, by aiapy; the path of an
        ``aia_V*_all_fullinst.genx`` or of an IDL save of its parts; or their contents,
        ``{"A94_FULL": {"WAVE": …, "PRIMARY": …, …}, …}``.

    Returns
    -------
    channels : `list` of `~aiapy.response.Channel`
    origin : `str`

    Raises
    ------
    ConnectionError
        If the download fails.
    FileNotFoundError
        If the file does not exist.
    ValueError
        If channels are missing.
    """
    if source is None:
        return _downloaded_channels(), "V8, downloaded by aiapy"
    data, origin = _instrument_data(source)
    missing = [f"A{channel}_FULL" for channel in _REQUIRED if f"A{channel}_FULL" not in data]
    if missing:
        msg = (
            f"instrument_file ({origin}) has no {', '.join(missing)}. Give SolarSoft's aia_V9_all_fullinst.genx, an "
            "IDL save of its parts, or None to download it."
        )
        raise ValueError(msg)
    # aiapy accepts contents instead of a path if they are an OrderedDict.
    data = OrderedDict(data)
    return [Channel(channel_quantity(channel), instrument_file=data) for channel in CHANNELS], origin


def wavelength_response(channel, table, *, obstime=None, eve=True, crosstalk=True):
    """
    Return the wavelength response of a channel.

    Parameters
    ----------
    channel : `~aiapy.response.Channel`
    table : `~astropy.table.QTable`
        As returned by `sunpy_deepem.calibrate.correction_table`.
    obstime : `~astropy.time.Time`, optional
        Time of the response, by default launch.
    eve, crosstalk : `bool`, optional
        Whether to scale to SDO/EVE, and to add crosstalk from the channel that shares the telescope.

    Returns
    -------
    `~astropy.units.Quantity`
        Response in cm2 DN / photon at ``channel.wavelength``.
    """
    if obstime is not None:
        return channel.wavelength_response(
            obstime=obstime, include_eve_correction=eve, include_crosstalk=crosstalk, correction_table=table
        )
    # Without a time, aiapy omits the factor of EVE.
    response = channel.wavelength_response(include_crosstalk=crosstalk, correction_table=table)
    return response * eve_factor(channel, table) if eve else response


def eve_factor(channel, table):
    """Return the factor (`~astropy.units.Quantity`) that scales a channel to SDO/EVE at launch."""
    return channel.eve_correction(table["T_START"].min(), table)


def _emissivity(source):
    if source is None:
        return Emissivity.download()
    if isinstance(source, str | Path):
        return Emissivity.read(source)
    if isinstance(source, Emissivity):
        return source
    msg = f"emissivity must be an Emissivity, the path of one or None, found {type(source).__name__}."
    raise TypeError(msg)


def _integration_limits(emissivity, channels, wavelength_range):
    """Return the limits of the integral; warn if the emissivity ends before the requested range does."""
    known = emissivity.wavelength[[0, -1]]
    needed = u.Quantity([min(channel.wavelength[0] for channel in channels), max(c.wavelength[-1] for c in channels)])
    if wavelength_range is not None:
        limits = wavelength_limits(wavelength_range)
        needed = u.Quantity([max(needed[0], limits[0]), min(needed[1], limits[1])])
        known = u.Quantity([max(known[0], limits[0]), min(known[1], limits[1])])
    edges = emissivity.edges
    if needed[0] < edges[0] or needed[1] > edges[-1]:
        warn_user(
            f"The emissivity is known from {edges[0]:g} to {edges[-1]:g} only, but the channels respond from "
            f"{needed[0]:g} to {needed[1]:g}; the rest is omitted. Without wavelengths above 400 Å, 335 Å loses two "
            "thirds of its response at log T 5.5. Pass wavelength_range= to accept this."
        )
    return known


def _downloaded_channels():
    try:
        return [Channel(channel_quantity(channel)) for channel in CHANNELS]
    except Exception as error:  # aiapy's downloaders raise many types
        msg = (
            f"AIA's instrument data could not be downloaded ({type(error).__name__}: {error}). Pass as "
            "instrument_file= the path of SolarSoft's aia_V9_all_fullinst.genx or the save in the package pyeuvtools. "
            "TemperatureResponse.default() needs no download."
        )
        raise ConnectionError(msg) from error


def _instrument_data(source):
    if isinstance(source, Mapping):
        return source, "instrument data given by the user"
    path = existing_file(source, "instrument_file")
    if path.suffix.lower() == ".genx":
        return read_genx_file(path), path.name
    return _from_structure(read_idl_save(path)), path.name


def _from_structure(structure):
    """Arrange an IDL save of the parts like the genx file."""
    parts = {name: structure[name] for name in structure.dtype.names}
    return {
        f"{name}_FULL": {field: part[field][0] for field in part.dtype.names}
        for name, part in parts.items()
        if getattr(getattr(part, "dtype", None), "names", None)
    }
