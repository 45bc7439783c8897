"""The protocol of methods of inversion: `Method`, its `Solution`, and lookup by name."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from importlib import import_module
from typing import Protocol, runtime_checkable

import numpy as np

from sunpy_deepem.temperature import LogTBins
from sunpy_deepem.utils.checks import plain_array

__all__ = [
    "METHODS",
    "FunctionMethod",
    "Method",
    "Solution",
    "SolveStatus",
    "Teacher",
    "checked_pixels",
    "get_method",
    "method_bins",
    "method_provenance",
    "status_name",
    "used_channels",
]

# Where each method is defined. They are imported on lookup, as torch and demregpy are slow or optional.
_REGISTRY = {
    "network": ("sunpy_deepem.network.model", "DeepEM"),
    "basis-pursuit": ("sunpy_deepem.methods.basis_pursuit", "BasisPursuit"),
    "demregpy": ("sunpy_deepem.methods.demreg", "Demreg"),
}

#: Names of the methods that come with the package.
METHODS = tuple(_REGISTRY)


class SolveStatus(IntEnum):
    """
    How the inversion of a pixel ended; zero means solved.

    The values 0, 2, 3, 10 and 11 have the same meaning as in the status maps of the IDL program ``aia_sparse_em``,
    which the DeepEM chapter of HelioML uses (there: 0, 2 and 3).

    Examples
    --------
    >>> from sunpy_deepem.methods import SolveStatus
    >>> SolveStatus(2)
    <SolveStatus.INFEASIBLE: 2>
    """

    #: Solved, possibly with a widened tolerance.
    SOLVED = 0
    #: No non-negative EM meets the constraints, even with the widest tolerance.
    INFEASIBLE = 2
    #: The solver gave up, or its answer failed a check.
    SOLVER_FAILED = 3
    #: The method found a negative EM. Basis pursuit never does.
    NEGATIVE = 10
    #: There is no signal above the noise; an EM of zero meets the constraints.
    NO_SIGNAL = 11
    #: An intensity or uncertainty is not finite or not plausible, or an uncertainty is not positive.
    INVALID = 12
    #: Too few effective draws of a prior explain the pixel.
    FEW_DRAWS = 13


@dataclass(frozen=True, eq=False)
class Solution:
    """
    The result of a method of inversion.

    Attributes
    ----------
    em : `~numpy.ndarray`
        EM per bin in cm^-5, shape ``(number of bins, ...)``; NaN where ``status`` is not zero.
    em_std : `~numpy.ndarray` or `None`
        Uncertainty of ``em`` in cm^-5, of the same shape; `None` if the method states none.
    status : `~numpy.ndarray`
        Integers, shape ``(...)``; zero where the pixel is solved, otherwise usually a `SolveStatus`.
    deviation : `~numpy.ndarray` or `None`
        Deviation of each channel from the value predicted by the others, in units of its spread, shape
        ``(number of channels, ...)``; `None` if the method does not compare channels.
    """

    em: np.ndarray
    em_std: np.ndarray | None
    status: np.ndarray
    deviation: np.ndarray | None = None


@runtime_checkable
class Method(Protocol):
    """
    A method of inversion: any object with a method ``solve``.

    A method may also have

    - ``name``: its name in the provenance of a cube, by default that of its class;
    - ``bins``: the `LogTBins` of its EM, by default those of the packaged response;
    - ``provenance``: a `dict` with its parameters, added to the provenance of a cube;
    - ``check_response(response)``: raises `ValueError` if the method cannot be used with a response;
    - ``deviation(intensity, uncertainty)``: as `Solution.deviation`, without an inversion;
    - ``workers()``: a context manager that gives a ``map`` over parts of an image;
    - ``sample(intensity, uncertainty, n, seed)``: draws from the posterior.
    """

    def solve(self, intensity, uncertainty, response):
        """
        Invert pixels.

        Parameters
        ----------
        intensity, uncertainty : array-like
            In DN / (s pix), shape ``(number of channels, ...)``. A channel is not used where its intensity is NaN. A
            method with the argument ``lower_limit``, a boolean array of the same shape, also gets intensities that are
            lower limits.
        response : `~sunpy_deepem.TemperatureResponse`
            The response, folded onto the bins of the EM.

        Returns
        -------
        `Solution`
            With new arrays, which the caller may change.
        """
        ...


#: A method, or a function that `FunctionMethod` makes one.
Teacher = Method | Callable


class FunctionMethod:
    """
    A function as a `Method`.

    Parameters
    ----------
    function : callable
        Called as ``function(intensity, uncertainty, response)`` with the pixels that have all channels, arrays of shape
        ``(6, n)`` in DN / (s pix). It returns ``(em, status)`` or ``(em, status, em_std)``: EM per bin in cm^-5, shape
        ``(number of bins, n)``, and integers of shape ``(n,)``, zero where a pixel is solved.

    Examples
    --------
    >>> from sunpy_deepem import TemperatureResponse
    >>> from sunpy_deepem.methods import FunctionMethod
    >>> def flat(intensity, uncertainty, response):
    ...     total = intensity.sum(axis=0) / response.matrix.value.sum()
    ...     return np.tile(total, (18, 1)), np.zeros(total.shape, dtype=int)
    >>> FunctionMethod(flat).solve(np.ones((6, 4)), np.ones((6, 4)), TemperatureResponse.default()).em.shape
    (18, 4)
    """

    def __init__(self, function):
        self.function = function
        self.name = getattr(function, "__name__", type(function).__name__)

    def solve(self, intensity, uncertainty, response):
        """
        Call the function and check its results.

        Parameters
        ----------
        intensity, uncertainty : array-like
            In DN / (s pix), shape ``(6, ...)``. Pixels that lack a channel have the status `SolveStatus.INVALID`.
        response : `~sunpy_deepem.TemperatureResponse`

        Returns
        -------
        `Solution`

        Raises
        ------
        TypeError
            If the function returns neither a pair nor a triple, or values of the wrong kind.
        ValueError
            If a shape is wrong, or the EM of a pixel with status zero is negative or not finite.
        """
        intensity, uncertainty = checked_pixels(intensity, uncertainty, response)
        valid = (np.isfinite(intensity) & np.isfinite(uncertainty)).all(axis=0)
        returned = self.function(intensity[:, valid], uncertainty[:, valid], response)
        if not isinstance(returned, tuple | list) or len(returned) not in (2, 3):
            msg = (
                f"method {self.name!r} must return the pair (em, status) or the triple (em, status, em_std), found "
                f"{type(returned).__name__}."
            )
            raise TypeError(msg)
        n = int(valid.sum())
        em = self._checked_em(returned[0], (len(response.bins), n))
        std = self._checked_em(returned[2], em.shape) if len(returned) == 3 else None
        found_status = self._checked_status(returned[1], (n,))
        wrong = (found_status == 0) & ~(np.isfinite(em) & (em >= 0)).all(axis=0)
        if wrong.any():
            msg = (
                f"method {self.name!r} returned an EM that is negative or not finite in {np.count_nonzero(wrong)} of "
                f"{n} pixels with status zero. Give such pixels another status."
            )
            raise ValueError(msg)
        status = np.full(valid.shape, SolveStatus.INVALID, dtype=found_status.dtype)
        status[valid] = found_status

        def expanded(values):
            image = np.full((len(values), *valid.shape), np.nan, dtype=values.dtype)
            image[:, valid] = np.where(found_status == 0, values, np.nan)
            return image

        return Solution(expanded(em), None if std is None else expanded(std), status)

    def _checked_em(self, em, shape):
        if hasattr(em, "unit"):
            msg = (
                f"method {self.name!r} must return em as a plain array in cm-5, found one in {em.unit}. Use "
                "em.to_value('cm-5')."
            )
            raise TypeError(msg)
        em = np.asarray(em)
        if not np.issubdtype(em.dtype, np.floating):
            msg = (
                f"method {self.name!r} must return em as an array of floating-point numbers in cm-5, found dtype "
                f"{em.dtype}."
            )
            raise TypeError(msg)
        if em.shape != shape:
            msg = f"method {self.name!r} must return em of shape {shape}, bins of log T first, found {em.shape}."
            raise ValueError(msg)
        return em

    def _checked_status(self, status, shape):
        status = np.asarray(status)
        if not np.issubdtype(status.dtype, np.integer):
            msg = f"method {self.name!r} must return status as integers, zero where solved, found dtype {status.dtype}."
            raise TypeError(msg)
        if status.shape != shape:
            msg = f"method {self.name!r} must return status of shape {shape}, one for each pixel, found {status.shape}."
            raise ValueError(msg)
        return status


def get_method(method="network", **options):
    """
    Return a method of inversion.

    Parameters
    ----------
    method : `str`, `Method` or callable, optional
        One of `METHODS`; an object with ``solve``, which is returned as it is; or a function as for `FunctionMethod`.
    **options
        For a method given by name: for ``"network"`` the ``weights`` and the options of `DeepEM.with_options`,
        otherwise the arguments of `BasisPursuit` or `Demreg`.

    Returns
    -------
    `Method`

    Raises
    ------
    TypeError
        If there are options and ``method`` is not a name.
    ValueError
        If there is no such method.

    Examples
    --------
    >>> from sunpy_deepem.methods import get_method
    >>> get_method("basis-pursuit", tolerance=1.0)
    BasisPursuit(widths=(0.0, 0.1, 0.2, 0.6), tolerance=1, widenings=(1.5, 2.25), normalize=False)
    """
    if isinstance(method, str) and method in METHODS:
        module, name = _REGISTRY[method]
        found = getattr(import_module(module), name)
        if method != "network":
            return found(**options)
        weights = options.pop("weights", "default")
        network = weights if isinstance(weights, found) else found.load(weights)
        return network.with_options(**options)
    if isinstance(method, type) or not isinstance(method, Method | Callable):
        msg = (
            f"method must be one of {', '.join(map(repr, METHODS))}, an object with a method solve, or a callable that "
            f"takes intensity, uncertainty and response and returns (em, status), found {method!r}."
        )
        raise ValueError(msg)
    if options:
        msg = f"{', '.join(options)} can be passed with the name of a method only, found method={method!r}."
        raise TypeError(msg)
    return method if isinstance(method, Method) else FunctionMethod(method)


def method_bins(method):
    """Return the bins of a method's EM, by default those of the packaged response."""
    return getattr(method, "bins", LogTBins())


def method_provenance(method):
    """Return what the provenance of a cube says of its method, as a `dict`."""
    name = getattr(method, "name", type(method).__name__)
    return {"method": name} | getattr(method, "provenance", {})


def status_name(status):
    """Return the name of a status, or the number as text if it is not a `SolveStatus`."""
    return SolveStatus(status).name if status in list(SolveStatus) else str(status)


def used_channels(intensity, uncertainty, lower_limit=None):
    """
    Return which channels are used in each pixel, and which pixels can be solved.

    Parameters
    ----------
    intensity, uncertainty : `~numpy.ndarray`
        Shape ``(channels, n)``. A channel is not used where its intensity is not finite or its uncertainty infinite.
    lower_limit : `~numpy.ndarray` of `bool`, optional
        Where the intensity is a lower limit, of the same shape.

    Returns
    -------
    used : `~numpy.ndarray` of `bool`
        Shape ``(channels, n)``.
    valid : `~numpy.ndarray` of `bool`
        Pixels with a measured channel and a positive uncertainty in all channels used, shape ``(n,)``.
    """
    used = np.isfinite(intensity) & (uncertainty != np.inf)
    measured = used if lower_limit is None else used & ~lower_limit
    return used, measured.any(axis=0) & (~used | (uncertainty > 0)).all(axis=0)


def checked_pixels(intensity, uncertainty, response):
    """
    Check the arguments of `Method.solve`.

    Parameters
    ----------
    intensity, uncertainty : array-like
        In DN / (s pix), shape ``(6, ...)``.
    response : `~sunpy_deepem.TemperatureResponse`

    Returns
    -------
    intensity, uncertainty : `~numpy.ndarray`

    Raises
    ------
    TypeError
        If an argument carries a unit or does not hold real numbers, or ``response`` is not a response.
    ValueError
        If the shapes do not fit.
    """
    if not (hasattr(response, "matrix") and hasattr(response, "channels")):
        msg = f"response must be a TemperatureResponse, found {type(response).__name__}."
        raise TypeError(msg)
    intensity, uncertainty = plain_array(intensity, "intensity"), plain_array(uncertainty, "uncertainty")
    if intensity.ndim == 0 or intensity.shape[0] != len(response.channels):
        msg = (
            f"intensity must have shape ({len(response.channels)}, ...), first the channels {response.channels}, found "
            f"{intensity.shape}. If the channels are last, use numpy.moveaxis(intensity, -1, 0)."
        )
        raise ValueError(msg)
    if uncertainty.shape != intensity.shape:
        msg = (
            f"uncertainty must have the shape of intensity, {intensity.shape}, found {uncertainty.shape}. "
            "Use numpy.broadcast_to if one value is meant for many pixels."
        )
        raise ValueError(msg)
    return intensity, uncertainty
