"""Numbers as 16-bit codes, uniform in the logarithm, so that their relative error is bounded."""

from dataclasses import dataclass
from functools import cached_property
from math import ceil, log, log1p

import numpy as np

__all__ = ["AsinhScale", "LogScale"]

# Codes with a meaning of their own; MISSING is NaN.
_MISSING, _ZERO, _FIRST = 0, 1, 2
_INFINITE_LOG = 720.0  # the exponential of it overflows
# Smaller than the bound allows, by more than the errors of single precision.
_STEP_MARGIN = 1 - 5e-3


def _step(precision):
    """Return the largest step of the logarithm that keeps a relative error."""
    return 2 * log1p(precision) * _STEP_MARGIN


@dataclass(frozen=True)
class LogScale:
    """
    Codes of numbers that are not negative: the logarithm is ``offset + step * code``.

    Attributes
    ----------
    precision : `float`
        Largest relative error.
    smallest : `float`
        Smallest number with this precision; smaller ones, except zero, become this one.
    """

    precision: float
    smallest: float

    @property
    def step(self):
        """Step of the logarithm."""
        return _step(self.precision)

    @property
    def offset(self):
        """Logarithm at code 0."""
        return log(self.smallest) - _FIRST * self.step

    @cached_property
    def table(self):
        """Number of each code, `~numpy.ndarray`: NaN, 0, then numbers that ascend to infinity."""
        last = min(ceil((_INFINITE_LOG - self.offset) / self.step), np.iinfo(np.int16).max)
        with np.errstate(over="ignore"):
            table = np.exp(self.offset + self.step * np.arange(last + 1))
        table[_MISSING], table[_ZERO] = np.nan, 0
        return table

    def encode(self, values, *, floor=0.0, log_unit=0.0):
        """
        Return the codes of numbers.

        Parameters
        ----------
        values : `~numpy.ndarray`
            Zero and more, NaN or infinity.
        floor : `float` or `~numpy.ndarray`, optional
            Smaller values, except zero, become this one.
        log_unit : `float` or `~numpy.ndarray`, optional
            Logarithm of the unit of ``values``.

        Returns
        -------
        `~numpy.ndarray`
            Of `~numpy.int16`.
        """
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            values = np.asarray(values, dtype=np.float32)
            steps = np.log(np.maximum(values, np.float32(floor)))
            steps -= log_unit
            steps -= np.float32(self.offset)
            steps *= np.float32(1 / self.step)
            np.rint(steps, out=steps)
            # NaN stays.
            np.clip(steps, _FIRST, len(self.table) - 1, out=steps)
            np.copyto(steps, _MISSING, where=np.isnan(steps))
            codes = steps.astype(np.int16)
        np.copyto(codes, _ZERO, where=values == 0)
        return codes

    def logarithm(self, codes):
        """Return the logarithm of the number of each code, `~numpy.ndarray`; that of zero is small, but finite."""
        return np.float32(self.offset) + np.float32(self.step) * np.maximum(codes, _ZERO).astype(np.float32)

    def decode(self, codes):
        """Return the numbers of codes, `~numpy.ndarray` of `float`."""
        return self.table[codes]

    @property
    def attributes(self):
        """How codes become logarithms, by the conventions of CF, `dict`."""
        return {"scale_factor": self.step, "add_offset": self.offset, "_FillValue": _MISSING}


@dataclass(frozen=True)
class AsinhScale:
    """
    Codes of numbers of either sign: arsinh(number / ``unit``) is ``step * (code - middle)``.

    The error is at most ``precision`` times the number or ``unit``, added in quadrature.

    Attributes
    ----------
    precision : `float`
    unit : `float`
    """

    precision: float
    unit: float
    middle = 2**13

    @property
    def step(self):
        """Step of the inverse hyperbolic sine."""
        return _step(self.precision)

    @cached_property
    def table(self):
        """Number of each code, `~numpy.ndarray`; the first is NaN."""
        with np.errstate(over="ignore"):
            table = self.unit * np.sinh(self.step * (np.arange(2 * self.middle) - self.middle))
        table[_MISSING] = np.nan
        return table

    def encode(self, values):
        """Return the codes of numbers, `~numpy.ndarray` of `~numpy.int16`."""
        steps = np.rint(np.arcsinh(np.asarray(values, dtype=np.float32) / self.unit) / self.step) + self.middle
        np.clip(steps, _MISSING + 1, 2 * self.middle - 1, out=steps)
        steps[np.isnan(steps)] = _MISSING
        return steps.astype(np.int16)

    def decode(self, codes):
        """Return the numbers of codes, `~numpy.ndarray` of `float`."""
        return self.table[codes]

    @property
    def attributes(self):
        """How codes become inverse hyperbolic sines, by the conventions of CF, `dict`."""
        return {"scale_factor": self.step, "add_offset": -self.middle * self.step, "_FillValue": _MISSING}
