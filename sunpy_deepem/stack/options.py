"""Checks of the options of an `~sunpy_deepem.stack.Observation`."""

from sunpy_deepem.calibrate.degradation import correction_table
from sunpy_deepem.channels import SYNTHETIC
from sunpy_deepem.utils.checks import whole_number

__all__ = ["check_synthetic", "checked_degradation", "checked_min_channels", "degradation_table"]


def check_synthetic(maps, degradation):
    """Raise `ValueError` if synthetic maps would be corrected for degradation."""
    if degradation == "data" and any(smap.meta.get("content") == SYNTHETIC for smap in maps):
        msg = "maps are synthetic, from DEMCube.synthesize, and not degraded. Pass degradation=None."
        raise ValueError(msg)


def checked_degradation(degradation):
    """Return ``"data"``, ``"response"`` or `None`; raise for other values."""
    if not isinstance(degradation, str | bool | None) or degradation not in ("data", "response", None, True, False):
        msg = f"degradation must be 'data', 'response' or None, found {degradation!r}."
        raise ValueError(msg)
    return {True: "data", False: None}.get(degradation, degradation)


def degradation_table(degradation, given):
    """Return the table of degradation and its origin, `None` if there is nothing to correct."""
    if degradation == "response" and given is not None:
        msg = (
            "correction_table is for the data, but degradation='response'. Pass "
            "response=TemperatureResponse.default(obstime=..., correction_table=...) instead."
        )
        raise ValueError(msg)
    return (None, None) if degradation != "data" and given is None else correction_table(given)


def checked_min_channels(min_channels, channels):
    """Return the number of channels that a pixel needs; raise if it exceeds that of ``channels``."""
    number = whole_number(min_channels, "min_channels")
    if number > len(channels):
        msg = f"min_channels must be at most the number of channels, {len(channels)}, found {number}. The default is 3."
        raise ValueError(msg)
    return number
