"""Checks of what a file of a cube holds, with errors that name the card or array."""

from numbers import Real

import astropy.units as u
import numpy as np

from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.units import EM_UNIT
from sunpy_deepem.utils.checks import one_time

__all__ = ["check_em_header", "check_hdus", "check_inputs", "check_shapes", "checked_unit"]

_HDUS = ("EM", "MASK", "RESPONSE", "INPUTS", "PROVENANCE")


def check_hdus(names):
    """Raise `ValueError` unless a FITS file has the HDUs that every cube has."""
    if missing := [name for name in _HDUS if name not in names]:
        msg = f"it lacks the HDUs {missing}, found {sorted(names)}"
        raise ValueError(msg)


def check_em_header(header):
    """Raise `ValueError` unless the header of the EM has an axis of log T and a date."""
    expected = {"NAXIS": 3, "CTYPE3": "LOGT", "CUNIT3": ""}
    for card, value in expected.items():
        if (found := header.get(card, "")) != value:
            msg = f"{card} of the HDU EM must be {value!r}, found {found!r}"
            raise ValueError(msg)
    for card in ("CRPIX3", "CRVAL3", "CDELT3"):
        value = header.get(card)
        is_number = isinstance(value, Real) and not isinstance(value, bool) and np.isfinite(float(value))
        if not is_number or (card == "CDELT3" and value <= 0):
            msg = f"{card} of the HDU EM must be a number, positive for CDELT3, found {value!r}"
            raise ValueError(msg)
    one_time(header.get("DATE-OBS"), "DATE-OBS of the HDU EM")


def checked_unit(text, provenance):
    """Return a unit of EM; other units are valid after arithmetic."""
    try:
        unit = u.Unit(text)
    except (TypeError, ValueError):
        unit = None
    if unit is None or not (unit.is_equivalent(EM_UNIT) or provenance.get("history")):
        msg = f"BUNIT must be a unit of EM such as 'cm-5', found {str(text)!r}"
        raise ValueError(msg)
    return unit


def check_shapes(planes):
    """Raise `ValueError` unless all arrays of `Planes` have the same pixels as the EM."""
    arrays = {name.upper(): (image, planes.em.shape[1:]) for name, image in planes.images.items()}
    arrays |= {"UNCERT": (planes.std, planes.em.shape), "MASK": (planes.mask, planes.em.shape)}
    for name, (array, shape) in arrays.items():
        if array is not None and array.shape != shape:
            msg = f"{name} must have the shape {shape}, as EM has {planes.em.shape}, found {array.shape}"
            raise ValueError(msg)


def check_inputs(inputs):
    """Raise `ValueError` unless there are facts about the observation of each channel."""
    found = [facts.get("channel") for facts in inputs]
    if found != list(CHANNELS):
        msg = f"INPUTS must have one row for each channel {CHANNELS}, in this order, found {found}"
        raise ValueError(msg)
    for facts in inputs:
        one_time(facts.get("date"), f"the date of {facts['channel']} Å in INPUTS")
