"""Methods that solve each pixel by itself, which networks may learn from: `Teacher`, and how to call one safely."""

from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np

from sunpy_deepem.methods.basis_pursuit import BasisPursuit, SolveStatus, checked_pixels, map_tiles
from sunpy_deepem.response.temperature_response import TemperatureResponse
from sunpy_deepem.units import RESPONSE_UNIT

__all__ = ["BasisPursuitTeacher", "DemregTeacher", "Teacher", "get_teacher", "run_solver", "run_teacher"]

# demregpy opens a pool of processes of its own, and a progress bar, from 200 pixels on. Blocks stay below that.
_DEMREG_BLOCK = 100


@runtime_checkable
class Teacher(Protocol):
    """
    Anything that can be called as ``teacher(intensity, uncertainty, response)``; a plain function will do.

    It is given intensities and uncertainties in DN / (s pix), shape ``(6, ...)``, and a
    `~sunpy_deepem.TemperatureResponse`, and returns ``(em, status)``: EM per bin in cm-5, shape ``(n_bins, ...)``, and
    integers of shape ``(...)`` that are zero where the EM is to be learnt from. `run_teacher` calls one and checks what
    it returns.
    """

    def __call__(self, intensity, uncertainty, response):
        """Return ``(em, status)`` of the pixels."""
        ...


class BasisPursuitTeacher:
    """
    `BasisPursuit` as a teacher.

    Parameters
    ----------
    processes : `int`, optional
        Number of processes.
    progress : `bool`, optional
        Show a progress bar.
    **options
        Passed to `BasisPursuit`.
    """

    def __init__(self, *, processes=1, progress=False, **options):
        self.processes, self.progress, self.options = processes, progress, options

    def __call__(self, intensity, uncertainty, response):
        """Return ``(em, status)`` as `BasisPursuit.solve` does."""
        solver = BasisPursuit(response, **self.options)
        return solver.solve(intensity, uncertainty, processes=self.processes, progress=self.progress)


class DemregTeacher:
    """
    Regularised inversion by demregpy, an optional dependency, as a teacher.

    Pixels of which a channel is not positive, which demregpy does not treat, have the status `SolveStatus.NO_SIGNAL`;
    those where it leaves a negative EM have `SolveStatus.NEGATIVE`, and those where it raises an error or finds nothing
    `SolveStatus.SOLVER_FAILED`, without harm to others. Their EM is NaN.

    Parameters
    ----------
    max_iter : `int`, optional
        Attempts at a positive answer.
    reg_tweak : `float`, optional
        First target of the reduced χ².
    rgt_fact : `float`, optional
        Factor on the target from one attempt to the next.
    processes : `int`, optional
        Number of processes; a script that asks for more than one must guard its entry by ``if __name__ == "__main__"``.
    progress : `bool`, optional
        Show a progress bar.

    References
    ----------
    Hannah & Kontar (2012), A&A 539, A146, https://doi.org/10.1051/0004-6361/201117576

    Hannah & Kontar (2013), A&A 553, A10, https://doi.org/10.1051/0004-6361/201219727
    """

    def __init__(self, *, max_iter=10, reg_tweak=1.0, rgt_fact=1.5, processes=1, progress=False):
        self.options = {"max_iter": max_iter, "reg_tweak": reg_tweak, "rgt_fact": rgt_fact}
        self.processes, self.progress = processes, progress

    def __call__(self, intensity, uncertainty, response):
        """
        Invert pixels.

        Parameters
        ----------
        intensity, uncertainty : array-like
            In DN / (s pix), shape ``(6, ...)``.
        response : `~sunpy_deepem.TemperatureResponse`
            Its folded matrix is what demregpy inverts.

        Returns
        -------
        em : `~numpy.ndarray`
            EM per bin in cm-5, shape ``(n_bins, ...)``; NaN where ``status`` is not zero.
        status : `~numpy.ndarray`
            `SolveStatus` of each pixel, ``int8``, shape ``(...)``.

        Raises
        ------
        ImportError
            If demregpy is not installed.
        ValueError
            If the shapes do not fit.
        """
        em, status, _ = self.with_uncertainty(intensity, uncertainty, response)
        return em, status

    def with_uncertainty(self, intensity, uncertainty, response):
        """
        Invert pixels, and tell the standard deviation of the EM that follows from that of the intensities.

        Parameters and errors are those of a call.

        Returns
        -------
        em, status
            As of a call.
        em_std : `~numpy.ndarray`
            In cm-5, of the shape of ``em``; NaN where ``status`` is not zero.
        """
        _import_dn2dem()  # before any work, and not as an error of every pixel
        intensity, uncertainty = checked_pixels(intensity, uncertainty)
        shape = intensity.shape[1:]
        flat = (array.reshape(array.shape[0], -1) for array in (intensity, uncertainty))
        invert = partial(_demreg_block, response, self.options)
        em, em_std, status = map_tiles(
            invert, *flat, tile=_DEMREG_BLOCK, processes=self.processes, progress=self.progress
        )
        em, em_std = (array.reshape(len(response.bins), *shape) for array in (em, em_std))
        return em, status.reshape(shape), em_std


_TEACHERS = {"basis-pursuit": BasisPursuitTeacher, "demreg": DemregTeacher}


def get_teacher(name, **options):
    """
    Return a teacher by its name.

    Parameters
    ----------
    name : `str`
        ``"basis-pursuit"`` for `BasisPursuitTeacher`, ``"demreg"`` for `DemregTeacher`.
    **options
        Passed to it.

    Returns
    -------
    `Teacher`

    Raises
    ------
    ValueError
        If there is no teacher of that name.

    Examples
    --------
    >>> from sunpy_deepem.training import get_teacher
    >>> teacher = get_teacher("basis-pursuit", tolerance=1.0)
    """
    try:
        teacher = _TEACHERS[name]
    except (KeyError, TypeError):
        known = ", ".join(repr(key) for key in _TEACHERS)
        msg = f"name must be one of {known}, found {name!r}. A teacher of your own is passed as a callable instead."
        raise ValueError(msg) from None
    return teacher(**options)


def run_teacher(teacher, intensity, uncertainty, response):
    """
    Call a teacher and check what it returns.

    Parameters
    ----------
    teacher : `Teacher`
        Any callable of that form.
    intensity, uncertainty : array-like
        In DN / (s pix), shape ``(6, ...)``.
    response : `~sunpy_deepem.TemperatureResponse`
        Its bins are those of the EM.

    Returns
    -------
    em : `~numpy.ndarray`
        EM per bin in cm-5, shape ``(n_bins, ...)``.
    status : `~numpy.ndarray`
        Integers of shape ``(...)``, zero where the EM is to be learnt from.

    Raises
    ------
    TypeError
        If ``teacher`` is not callable or ``response`` not a response, or what the teacher returns is not a pair, or has
        the wrong kind of values.
    ValueError
        If a shape does not fit, or the EM of a pixel with status zero is negative or not finite.

    Examples
    --------
    >>> from sunpy_deepem import TemperatureResponse
    >>> from sunpy_deepem.training import run_teacher
    >>> def flat(intensity, uncertainty, response):
    ...     total = intensity.sum(axis=0) / response.matrix.value.sum()
    ...     return np.broadcast_to(total, (18, *total.shape)), np.zeros(total.shape, dtype=int)
    >>> em, status = run_teacher(flat, np.ones((6, 4)), np.ones((6, 4)), TemperatureResponse.default())
    >>> em.shape
    (18, 4)
    """
    if not callable(teacher):
        msg = f"teacher must be callable, found {type(teacher).__name__}. By name, use get_teacher({teacher!r})."
        raise TypeError(msg)
    return _run(teacher, 2, intensity, uncertainty, response)


def run_solver(solver, intensity, uncertainty, response):
    """
    Call a solver and check what it returns.

    Parameters and errors are those of `run_teacher`. A solver with a method ``with_uncertainty``, called alike, is
    asked for ``(em, status, em_std)``.

    Returns
    -------
    em, status
        As of `run_teacher`.
    em_std : `~numpy.ndarray` or `None`
        Standard deviation of the EM in cm-5, of its shape.
    """
    if hasattr(solver, "with_uncertainty"):
        return _run(solver.with_uncertainty, 3, intensity, uncertainty, response)
    return *_run(solver, 2, intensity, uncertainty, response), None


def _run(solver, n_returned, intensity, uncertainty, response):
    if not isinstance(response, TemperatureResponse):
        msg = f"response must be a TemperatureResponse, found {type(response).__name__}."
        raise TypeError(msg)
    intensity, uncertainty = checked_pixels(intensity, uncertainty)
    returned = solver(intensity, uncertainty, response)
    if not isinstance(returned, tuple | list) or len(returned) != n_returned:
        wanted = ("pair (em, status)", "triple (em, status, em_std)")[n_returned - 2]
        msg = f"teacher must return the {wanted}, found {type(returned).__name__}."
        raise TypeError(msg)
    shape = len(response.bins), *intensity.shape[1:]
    em, status = _checked_em(returned[0], shape), _checked_status(returned[1], intensity.shape[1:])
    wrong = (status == 0) & ~(np.isfinite(em) & (em >= 0)).all(axis=0)
    if wrong.any():
        msg = (
            f"teacher returned an EM that is negative or not finite in {np.count_nonzero(wrong)} of {wrong.size} "
            "pixels, with status zero. Give such pixels another status, so that nothing is learnt from them."
        )
        raise ValueError(msg)
    return em, status, *(_checked_em(std, shape) for std in returned[2:])


def _checked_em(em, shape):
    if hasattr(em, "unit"):
        msg = f"teacher must return em as a plain array in cm-5, found one in {em.unit}. Use em.to_value('cm-5')."
        raise TypeError(msg)
    em = np.asarray(em)
    if not np.issubdtype(em.dtype, np.floating):
        msg = f"teacher must return em as an array of floating-point numbers in cm-5, found dtype {em.dtype}."
        raise TypeError(msg)
    if em.shape != shape:
        msg = f"teacher must return em of shape {shape}, bins of log T first, found {em.shape}."
        raise ValueError(msg)
    return em


def _checked_status(status, shape):
    status = np.asarray(status)
    if not np.issubdtype(status.dtype, np.integer):
        msg = f"teacher must return status as integers, zero where the EM is good, found dtype {status.dtype}."
        raise TypeError(msg)
    if status.shape != shape:
        msg = f"teacher must return status of shape {shape}, one for each pixel, found {status.shape}."
        raise ValueError(msg)
    return status


def _import_dn2dem():
    try:
        from demregpy import dn2dem
    except ImportError as error:
        msg = "The teacher 'demreg' needs demregpy, which is not installed. Use: pip install 'sunpy_deepem[demregpy]'"
        raise ImportError(msg) from error
    return dn2dem


def _demreg_block(response, options, intensity, uncertainty):
    """Invert fewer than 200 pixels, shape ``(channels, n)``; returns EM and its σ ``(bins, n)`` and status ``(n,)``."""
    status = np.zeros(intensity.shape[1], dtype=np.int8)
    status[~(intensity > 0).all(axis=0)] = SolveStatus.NO_SIGNAL
    valid = np.isfinite(intensity) & np.isfinite(uncertainty) & (uncertainty > 0)
    status[~valid.all(axis=0)] = SolveStatus.INVALID
    usable = status == SolveStatus.SOLVED
    em, em_std = both = np.full((2, len(response.bins), status.size), np.nan)
    both[:, :, usable] = _demreg_em(response, options, intensity[:, usable].T, uncertainty[:, usable].T)
    # Zeros are what demregpy returns of pixels on which it did not work.
    found = np.isfinite(em).all(axis=0) & (em != 0).any(axis=0)
    status[usable & ~found] = SolveStatus.SOLVER_FAILED
    status[found & (em < 0).any(axis=0)] = SolveStatus.NEGATIVE
    both[:, :, status != SolveStatus.SOLVED] = np.nan
    return em, em_std, status


def _demreg_em(response, options, intensity, uncertainty):
    """EM and its σ, shape ``(2, bins, n)``; NaN where demregpy raises an error, the pixel being found by halving."""
    n = len(intensity)
    if n == 0:
        return np.empty((2, len(response.bins), 0))
    try:
        return _call_dn2dem(response, options, intensity, uncertainty)
    except Exception:  # whatever NumPy raises inside demregpy, of which one pixel is the cause
        if n == 1:
            return np.full((2, len(response.bins), 1), np.nan)
        halves = (slice(0, n // 2), slice(n // 2, n))
        return np.concatenate([_demreg_em(response, options, intensity[h], uncertainty[h]) for h in halves], axis=-1)


def _call_dn2dem(response, options, intensity, uncertainty):
    bins = response.bins
    with np.errstate(all="ignore"):
        dem_and_std = _import_dn2dem()(
            intensity,
            uncertainty,
            response.matrix.to_value(RESPONSE_UNIT).T,
            bins.centers,
            10**bins.edges,
            # The default, None, is compared to an array by demregpy 0.6.2, which NumPy 2 refuses. Ones mean the same.
            dem_norm0=np.ones((len(intensity), len(bins))),
            **options,
        )[:2]
    # ΔT as demregpy takes it, which is 0.2 % below the width of the bin: with it K EM is the intensity that was fitted.
    widths = bins.temperatures.to_value("K") * np.log(10) * bins.step
    return np.stack([(array.reshape(-1, len(bins)) * widths).T for array in dem_and_std])
