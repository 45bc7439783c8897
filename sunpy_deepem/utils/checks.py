"""What many functions ask of their arguments: numbers, times and arrays, or an error that names the argument."""

import numpy as np
from sunpy.time import parse_time

__all__ = ["one_time", "plain_array", "real_number", "whole_number"]


def whole_number(value, name, *, least=1):
    """Return a whole number that is at least ``least`` as `int`, or raise `ValueError`."""
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
    """Return a number, which may be NaN, as `float`, or raise `ValueError` saying what it means."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        msg = f"{name} must be {meaning}, found {value!r}."
        raise ValueError(msg) from None


def one_time(value, name):
    """Return a `~astropy.time.Time`, or raise `ValueError`."""
    try:
        time = parse_time(value)
    except (TypeError, ValueError):
        # astropy tells of each of its dozen formats why it is not the one.
        msg = f"{name} must be a time such as '2014-01-01T00:00:00' or an astropy Time, found {value!r}."
        raise ValueError(msg) from None
    if not time.isscalar:
        msg = f"{name} must be one time, found {time.size} of them."
        raise ValueError(msg)
    return time


def plain_array(values, name, *, unit="DN / (s pix)"):
    """Return real numbers without a unit as an array, NaN where they are masked, or raise `TypeError`."""
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
