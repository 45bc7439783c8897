"""Sparse inversion of single pixels by linear programming: `BasisPursuit`."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from multiprocessing import get_context, parent_process
from typing import NamedTuple

import highspy
import numpy as np
from tqdm import tqdm

from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.response.temperature_response import TemperatureResponse
from sunpy_deepem.units import RESPONSE_UNIT
from sunpy_deepem.utils.checks import plain_array, real_number, whole_number

__all__ = ["BasisPursuit", "BasisPursuitSolution", "SolveStatus"]

# Gaussians are cut where they fall below this fraction of their peak, at 1.8 widths, as the authors' program does.
_TRUNCATION = 0.04
# Pixels solved with one solver, each starting from the basis of the one before. It is fixed, so that an answer does not
# depend on the number of processes: where several EMs are optimal, the start decides which one is found.
_TILE = 4096
# Absolute tolerances in a program whose largest bound is one. HiGHS's own 1e-7 would be noticeable in faint channels.
_SOLVER_TOLERANCE = 1e-9
# Violation of a bound beyond which an answer that the solver calls optimal is not believed.
_CHECK_TOLERANCE = 1e-7
# Bounds on the EM in cm-5 beyond this, a million times the brightest flare, are no measurement and overflow float32.
_ABSURD_EM = 1e36


class SolveStatus(IntEnum):
    """
    How the inversion of a pixel ended; only the EM of a pixel with status zero is meant to be used.

    The values 0, 2, 3, 10 and 11 mean what they mean in the status maps of the authors' IDL program ``aia_sparse_em``,
    which the DeepEM chapter of HelioML uses (there: 0, 2 and 3).

    Examples
    --------
    >>> from sunpy_deepem.training import SolveStatus
    >>> SolveStatus(2)
    <SolveStatus.INFEASIBLE: 2>
    """

    #: Solved, be it with a widened tolerance.
    SOLVED = 0
    #: No non-negative EM meets the constraints, however widened.
    INFEASIBLE = 2
    #: The solver gave up, or its answer did not stand up to a check.
    SOLVER_FAILED = 3
    #: The method found a negative EM; basis pursuit never does.
    NEGATIVE = 10
    #: Nothing above the noise, as an EM of zero meets the constraints as soon as any EM does.
    NO_SIGNAL = 11
    #: An intensity or uncertainty is not finite or beyond all reason, or an uncertainty is not positive.
    INVALID = 12
    #: Too few effective draws of a prior explain the pixel.
    FEW_DRAWS = 13


class BasisPursuitSolution(NamedTuple):
    """All that `BasisPursuit.solution` has to say; NaN wherever ``status`` is not zero."""

    #: EM per bin in cm-5, shape ``(n_bins, ...)``.
    em: np.ndarray
    #: `SolveStatus` of each pixel, ``int8``, shape ``(...)``.
    status: np.ndarray
    #: Multiple of the uncertainty within which the channels are met, shape ``(...)``.
    tolerance: np.ndarray
    #: Least sum of the coefficients of the basis functions in cm-5, shape ``(...)``.
    objective: np.ndarray


@dataclass(frozen=True)
class _Program:
    """
    The linear program, apart from the bounds of its rows: what a worker process is sent.

    A row is divided by the greatest response of its channel, and a pixel's bounds by the largest of them, so that the
    solver sees numbers around one although K is about 1e-25 and EM up to 1e30.
    """

    matrix: np.ndarray  # scaled K B, (channels, functions)
    row_scale: np.ndarray  # (channels,)
    basis: np.ndarray  # B, (bins, functions)
    tolerances: tuple  # multiples of σ, ascending


class BasisPursuit:
    r"""
    Sparse EM of each pixel by itself: the method of Cheung et al. (2015).

    The EM is a non-negative combination of basis functions, :math:`\mathrm{EM} = B x`, and the one with the least
    :math:`\sum_k x_k` among those that meet every channel,

    .. math:: |(K B x)_i - g_i| \le t \, \sigma_i, \quad x \ge 0,

    is found by linear programming. Where there is none, the tolerance *t* is widened in steps. The functions are
    Diracs (one bin) and truncated Gaussians :math:`\exp(-(\log T - \log T_k)^2 / a^2)` centred on every bin.

    Parameters
    ----------
    response : `~sunpy_deepem.TemperatureResponse`
        The response, whose bins are those of the EM. It must not be negative.
    widths : sequence of `float`, optional
        Widths *a* of the basis functions in dex; zero stands for the Diracs.
    tolerance : `float`, optional
        Half-width *t* of the constraints as a multiple of the uncertainty.
    widenings : sequence of `float`, optional
        Factors on ``tolerance`` to be tried in turn on pixels that are infeasible, ascending and above one. The default
        is what the authors' program does; an empty sequence tries no more than ``tolerance``.
    normalize : `bool`, optional
        Give the functions unit sum rather than unit peak, so that the least total EM is sought in the strict sense.
        The Gaussians are then of no use, as any of them is a mixture of Diracs of the same total. With unit peak, the
        default and the authors' choice, a broad distribution costs less than the sum of its bins and is preferred.

    Raises
    ------
    TypeError
        If ``response`` is not a `~sunpy_deepem.TemperatureResponse`.
    ValueError
        If the response has a negative value or a channel that is zero, or an option is out of range.

    Notes
    -----
    The solver is HiGHS. A program is built once per tile of 4096 pixels; from pixel to pixel only the bounds of its six
    rows change, and the dual simplex starts from the last basis, which stays dual feasible.

    References
    ----------
    Cheung et al. (2015), ApJ 807, 143, https://doi.org/10.1088/0004-637X/807/2/143

    Huangfu & Hall (2018), Math. Prog. Comp. 10, 119, https://doi.org/10.1007/s12532-017-0130-5

    Examples
    --------
    >>> from sunpy_deepem import TemperatureResponse
    >>> from sunpy_deepem.training import BasisPursuit
    >>> response = TemperatureResponse.default()
    >>> intensity = response.matrix.value @ np.where(np.arange(18) == 7, 1e27, 0)
    >>> em, status = BasisPursuit(response).solve(intensity, 0.1 * intensity)
    >>> em.shape, int(status)
    ((18,), 0)
    """

    def __init__(self, response, *, widths=(0, 0.1, 0.2, 0.6), tolerance=1.4, widenings=(1.5, 2.25), normalize=False):
        if not isinstance(response, TemperatureResponse):
            msg = f"response must be a TemperatureResponse, found {type(response).__name__}."
            raise TypeError(msg)
        matrix = response.matrix.to_value(RESPONSE_UNIT)
        if (matrix < 0).any() or not (matrix > 0).any(axis=1).all():
            msg = (
                "response must not be negative, and every channel must respond to some bin; found a least value of "
                f"{matrix.min():.3g} cm5 DN / (pix s) and {np.count_nonzero(matrix.max(axis=1) <= 0)} dead channels. "
                "Clip it at zero, or use bins where all channels respond."
            )
            raise ValueError(msg)
        self.response = response
        self.widths = _checked_widths(widths)
        self.tolerance = _checked_tolerance(tolerance)
        self.widenings = _checked_widenings(widenings)
        self.normalize = bool(normalize)
        basis = _basis_functions(response.bins.centers, self.widths, normalize=self.normalize)
        row_scale = matrix.max(axis=1)
        self._program = _Program(
            matrix=(matrix / row_scale[:, np.newaxis]) @ basis,
            row_scale=row_scale,
            basis=basis,
            tolerances=tuple(self.tolerance * factor for factor in (1.0, *self.widenings)),
        )

    @property
    def basis(self):
        """The basis functions B, shape ``(n_bins, n_functions)``, width by width."""
        return self._program.basis.copy()

    def solve(self, intensity, uncertainty, *, processes=1, progress=False):
        """
        Invert pixels.

        Parameters
        ----------
        intensity : array-like
            Intensities in DN / (s pix), shape ``(6, ...)``, channels in the order of `sunpy_deepem.CHANNELS`. They may
            be negative, as noise is.
        uncertainty : array-like
            Their standard deviations, of the same shape.
        processes : `int`, optional
            Number of processes among which the pixels are shared. The answer does not depend on it. A script that asks
            for more than one must guard its entry by ``if __name__ == "__main__"``, as they are spawned.
        progress : `bool`, optional
            Show a progress bar.

        Returns
        -------
        em : `~numpy.ndarray`
            EM per bin in cm-5, shape ``(n_bins, ...)``; NaN where ``status`` is not zero. It is ``float32`` if both
            inputs are, otherwise ``float64``.
        status : `~numpy.ndarray`
            `SolveStatus` of each pixel, ``int8``, shape ``(...)``.

        Raises
        ------
        TypeError
            If an argument carries a unit or holds something else than real numbers.
        ValueError
            If the shapes do not fit, or ``processes`` is less than one.
        """
        solution = self.solution(intensity, uncertainty, processes=processes, progress=progress)
        return solution.em, solution.status

    def solution(self, intensity, uncertainty, *, processes=1, progress=False):
        """
        Invert pixels, and tell with which tolerance and at what objective.

        Parameters and errors are those of `solve`.

        Returns
        -------
        `BasisPursuitSolution`
        """
        intensity, uncertainty = checked_pixels(intensity, uncertainty)
        shape = intensity.shape[1:]
        dtype = np.result_type(intensity, uncertainty, np.float32)
        intensity, uncertainty = (array.reshape(len(CHANNELS), -1) for array in (intensity, uncertainty))
        solve_tile = partial(_solve_tile, self._program)
        em, status, tolerance, objective = map_tiles(
            solve_tile, intensity, uncertainty, tile=_TILE, processes=processes, progress=progress
        )
        return BasisPursuitSolution(
            em.reshape(em.shape[0], *shape).astype(dtype),
            status.reshape(shape),
            tolerance.reshape(shape).astype(dtype),
            objective.reshape(shape).astype(dtype),
        )

    def __repr__(self):
        return (
            f"BasisPursuit({self.response!r}, widths={self.widths}, tolerance={self.tolerance:g}, "
            f"widenings={self.widenings}, normalize={self.normalize})"
        )


def checked_pixels(intensity, uncertainty):
    """Return both as arrays of real numbers of shape ``(6, ...)``, or raise saying what does not fit."""
    intensity, uncertainty = plain_array(intensity, "intensity"), plain_array(uncertainty, "uncertainty")
    if intensity.ndim == 0 or intensity.shape[0] != len(CHANNELS):
        msg = (
            f"intensity must have shape (6, ...), first the channels {CHANNELS}, found {intensity.shape}. "
            "If the channels are last, use numpy.moveaxis(intensity, -1, 0)."
        )
        raise ValueError(msg)
    if uncertainty.shape != intensity.shape:
        msg = (
            f"uncertainty must have the shape of intensity, {intensity.shape}, found {uncertainty.shape}. "
            "Use numpy.broadcast_to if one value is meant for many pixels."
        )
        raise ValueError(msg)
    return intensity, uncertainty


def map_tiles(function, intensity, uncertainty, *, tile, processes=1, progress=False):
    """
    Apply ``function`` to tiles of pixels and join what it returns.

    Parameters
    ----------
    function : callable
        Takes two ``float64`` arrays of shape ``(6, n)`` and returns a tuple of arrays whose last axis is the ``n``
        pixels. It must be possible to pickle it if there is more than one process.
    intensity, uncertainty : `~numpy.ndarray`
        Shape ``(6, n)``.
    tile : `int`
        Pixels per call.
    processes : `int`, optional
        Number of processes.
    progress : `bool`, optional
        Show a progress bar.

    Returns
    -------
    `list` of `~numpy.ndarray`

    Raises
    ------
    ValueError
        If ``processes`` is not a whole number, at least one.
    """
    processes = whole_number(processes, "processes")
    n = intensity.shape[1]
    # An empty image still makes one (empty) tile, so that its result has the right shape.
    slices = [slice(start, min(start + tile, n)) for start in range(0, n, tile)] or [slice(0, 0)]
    tiles = ([np.asarray(array[:, part], dtype=float) for part in slices] for array in (intensity, uncertainty))
    parts = []
    with tqdm(total=n, unit="DEM", unit_scale=True, disable=not progress) as bar:
        for part in _mapped(function, *tiles, processes=min(processes, len(slices))):
            parts.append(part)
            bar.update(part[0].shape[-1])
    return [np.concatenate(arrays, axis=-1) for arrays in zip(*parts, strict=True)]


def _mapped(function, *iterables, processes):
    """Like `map`, in ``processes`` processes; they are spawned, since a fork would copy the threads' locks of torch."""
    if processes == 1:
        yield from map(function, *iterables)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as executor:
        yield from executor.map(function, *iterables)


def _checked_widths(widths):
    widths = tuple(real_number(width, "widths", "widths in dex") for width in np.atleast_1d(widths))
    if not widths or not all(np.isfinite(width) and width >= 0 for width in widths):
        msg = f"widths must be one or more widths in dex that are not negative, found {widths}. Zero stands for Diracs."
        raise ValueError(msg)
    return widths


def _checked_tolerance(tolerance):
    tolerance = real_number(tolerance, "tolerance", "a positive multiple of the uncertainty")
    if not (np.isfinite(tolerance) and tolerance > 0):
        msg = f"tolerance must be a positive multiple of the uncertainty, found {tolerance}. The default is 1.4."
        raise ValueError(msg)
    return tolerance


def _checked_widenings(widenings):
    widenings = tuple(float(factor) for factor in widenings)
    if not np.isfinite(widenings).all() or not (np.diff((1.0, *widenings)) > 0).all():
        msg = (
            f"widenings must be factors on the tolerance, ascending and above 1, found {widenings}. "
            "The default is (1.5, 2.25); () tries no wider tolerance."
        )
        raise ValueError(msg)
    return widenings


def _basis_functions(centers, widths, *, normalize):
    """Return the functions as columns, shape ``(bins, functions)``: for each width, one centred on each bin."""
    distance = np.abs(centers[:, np.newaxis] - centers)
    blocks = []
    for width in widths:
        block = np.eye(centers.size) if width == 0 else np.exp(-((distance / width) ** 2))
        block[block < _TRUNCATION] = 0
        blocks.append(block / block.sum(axis=0) if normalize else block)
    return np.hstack(blocks)


def _solve_tile(program, intensity, uncertainty):
    """Invert pixels one after another, shape ``(channels, n)``; returns the fields of `BasisPursuitSolution`."""
    n = intensity.shape[1]
    status = np.full(n, SolveStatus.INFEASIBLE, dtype=np.int8)
    coefficients = np.full((program.basis.shape[1], n), np.nan)
    tolerance_used = np.full(n, np.nan)
    solver = _Solver(program.matrix)
    valid = (np.isfinite(intensity) & np.isfinite(uncertainty) & (uncertainty > 0)).all(axis=0)
    status[~valid] = SolveStatus.INVALID
    for tolerance in program.tolerances:
        pending = np.flatnonzero(status == SolveStatus.INFEASIBLE)
        lower, upper = _row_bounds(program, intensity[:, pending], uncertainty[:, pending], tolerance)
        # The response is not negative: no EM lies below a negative upper bound, and zero is the answer where all the
        # lower bounds are zero. Neither needs the solver.
        possible = (upper >= 0).all(axis=0)
        signal = (lower > 0).any(axis=0)
        sane = (upper < _ABSURD_EM).all(axis=0)
        status[pending[~sane]] = SolveStatus.INVALID
        status[pending[possible & sane & ~signal]] = SolveStatus.NO_SIGNAL
        chosen = possible & sane & signal
        pending = pending[chosen]
        status[pending], coefficients[:, pending] = solver.solve(lower[:, chosen], upper[:, chosen])
        tolerance_used[pending[status[pending] == SolveStatus.SOLVED]] = tolerance
    return program.basis @ coefficients, status, tolerance_used, coefficients.sum(axis=0)


def _row_bounds(program, intensity, uncertainty, tolerance):
    """Bounds of the scaled rows in cm-5; the lower one at least zero, below which no row can fall."""
    # Values so large that they overflow are told by their bounds afterwards.
    with np.errstate(over="ignore", invalid="ignore"):
        middle = intensity / program.row_scale[:, np.newaxis]
        half = tolerance * uncertainty / program.row_scale[:, np.newaxis]
        return np.maximum(middle - half, 0), middle + half


class _Solver:
    """HiGHS, holding one program whose row bounds are changed from pixel to pixel."""

    def __init__(self, matrix):
        self._matrix = matrix
        self._rows = np.arange(matrix.shape[0], dtype=np.int32)
        self._highs = highspy.Highs()
        self._highs.silent()
        for option, value in (
            # HiGHS keeps one thread pool per process, and refuses a solver that asks for another size than the first
            # did. In the user's own process it is left alone; workers, of which there may be many, need one thread.
            ("threads", 0 if parent_process() is None else 1),
            ("solver", "simplex"),
            # Presolve would throw the basis of the last pixel away.
            ("presolve", "off"),
            ("primal_feasibility_tolerance", _SOLVER_TOLERANCE),
            ("dual_feasibility_tolerance", _SOLVER_TOLERANCE),
        ):
            self._highs.setOptionValue(option, value)
        self._highs.passModel(_highs_model(matrix))

    def solve(self, lower, upper):
        """
        Solve one program after another.

        Parameters
        ----------
        lower, upper : `~numpy.ndarray`
            Bounds of the rows, shape ``(channels, n)``; of each pixel some lower bound is positive.

        Returns
        -------
        status : `~numpy.ndarray`
            Shape ``(n,)``.
        coefficients : `~numpy.ndarray`
            Shape ``(functions, n)``, NaN where not solved.
        """
        scale = upper.max(axis=0)
        # Rows of the transpose, as HiGHS takes contiguous arrays only.
        lower, upper = (np.ascontiguousarray((bound / scale).T) for bound in (lower, upper))
        status = np.empty(scale.size, dtype=np.int8)
        coefficients = np.full((scale.size, self._matrix.shape[1]), np.nan)
        for pixel in range(scale.size):
            status[pixel] = self._run(lower[pixel], upper[pixel])
            if status[pixel] == SolveStatus.SOLVED:
                coefficients[pixel] = self._highs.getSolution().col_value
        coefficients = np.maximum(coefficients, 0)  # HiGHS may fall short of zero by its tolerance
        rows = coefficients @ self._matrix.T
        wrong = ((rows < lower - _CHECK_TOLERANCE) | (rows > upper + _CHECK_TOLERANCE)).any(axis=1)
        status[wrong] = SolveStatus.SOLVER_FAILED
        coefficients[wrong] = np.nan
        return status, (coefficients * scale[:, np.newaxis]).T

    def _run(self, lower, upper):
        """Solve one program; if the solver stumbles over the last pixel's basis, once more without it."""
        self._highs.changeRowsBounds(self._rows.size, self._rows, lower, upper)
        for _ in range(2):
            self._highs.run()
            found = self._highs.getModelStatus()
            if found == highspy.HighsModelStatus.kOptimal:
                return SolveStatus.SOLVED
            if found == highspy.HighsModelStatus.kInfeasible:
                return SolveStatus.INFEASIBLE
            self._highs.clearSolver()
        return SolveStatus.SOLVER_FAILED


def _highs_model(matrix):
    """The program as HiGHS takes it: least sum of the columns, each at least zero; row bounds are set later."""
    n_rows, n_columns = matrix.shape
    model = highspy.HighsLp()
    model.num_row_, model.num_col_ = n_rows, n_columns
    model.col_cost_ = np.ones(n_columns)
    model.col_lower_, model.col_upper_ = np.zeros(n_columns), np.full(n_columns, highspy.kHighsInf)
    model.row_lower_, model.row_upper_ = np.zeros(n_rows), np.ones(n_rows)
    model.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    model.a_matrix_.start_ = np.arange(n_columns + 1) * n_rows
    model.a_matrix_.index_ = np.tile(np.arange(n_rows), n_columns)
    model.a_matrix_.value_ = matrix.T.ravel()
    return model
