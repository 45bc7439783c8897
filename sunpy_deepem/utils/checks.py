"""Checks of arguments, with errors that name the argument."""

import numpy as np
from sunpy.time import parse_time

__all__ = ["fraction_of_one", "one_time", "plain_array", "real_number", "whole_number"]


def whole_number(value, name, *, least=1):
    """Return ``value`` as `int`; raise `ValueError` unless it is a whole number of at least ``least``."""
    try:
        whole = int(value)
        good = bool(whole == value) and whole >= least
    except (TypeError, ValueError, OverflowError):
        good = False
    if not good:
        kind = {0: "a whole number, not negative", 1: "a positive whole number"}[least]
        msg = f"{name} must be {kind}, found {value!r}."
        raise ValueError(msg)
    return whole


def real_number(value, name, meaning="a number"):
    """Return ``value``, possibly NaN, as `float`; raise `ValueError` with its ``meaning`` if it is no number."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        msg = f"{name} must be {meaning}, found {value!r}."
        raise ValueError(msg) from None


def fraction_of_one(value, name):
    """Return ``value`` as `float`; raise `ValueError` unless it is at least 0 and less than 1."""
    try:
        fraction = float(value)
    except (TypeError, ValueError):
        fraction = np.nan
    if not 0 <= fraction < 1:
        msg = f"{name} must be a fraction from 0 up to 1, such as 0.1 for 10 %, found {value!r}."
        raise ValueError(msg)
    return fraction


def one_time(value, name):
    """Return a single `~astropy.time.Time`, or raise `ValueError`."""
    try:
        time = parse_time(value)
    except (TypeError, ValueError):
        # astropy's own message lists all its formats.
        msg = f"{name} must be a time such as '2014-01-01T00:00:00' or an astropy Time, found {value!r}."
        raise ValueError(msg) from None
    if not time.isscalar:
        msg = f"{name} must be one time, found {time.size} of them."
        raise ValueError(msg)
    return time


def plain_array(values, name, *, unit="DN / (s pix)"):
    """Return real numbers as an array, NaN where masked; raise `TypeError` if they have a unit or another type."""
    if getattr(values, "unit", None) is not None:
        msg = f"{name} must be a plain array, found one in {values.unit}. Pass .to_value({unit!r})."
        raise TypeError(msg)
    kind = type(values).__name__
    if isinstance(values, np.ma.MaskedArray) and values.dtype.kind in "biuf":
        values = values.astype(np.result_type(values, np.float32)).filled(np.nan)
    try:
        array = np.asarray(values)
    except ValueError:  # a list of rows of different lengths
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "biuf":
        kind = f"{kind} of dtype {values.dtype}" if hasattr(values, "dtype") else kind
        msg = f"{name} must be an array of real numbers in {unit}, found {kind}."
        raise TypeError(msg)
    return array
