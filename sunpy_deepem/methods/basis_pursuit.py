"""Sparse inversion of single pixels by linear programming: `BasisPursuit`."""

from dataclasses import dataclass
from functools import partial
from multiprocessing import parent_process

import highspy
import numpy as np
from tqdm import tqdm

from sunpy_deepem.methods.base import Solution, SolveStatus, checked_pixels, used_channels
from sunpy_deepem.units import RESPONSE_UNIT
from sunpy_deepem.utils.checks import real_number, whole_number
from sunpy_deepem.utils.parallel import process_map

__all__ = ["BasisPursuit", "BasisPursuitSolution"]

# Gaussians are cut where they fall below this fraction of their peak, at 1.8 widths, as the authors' program does.
_TRUNCATION = 0.04
# Pixels solved with one solver, each starting from the basis of the pixel before. Where several EMs are optimal, the
# start decides which is found, so a fixed tile makes the answer independent of the number of processes.
_TILE = 4096
# Absolute tolerances in a program whose largest bound is one. The default, 1e-7, is noticeable in faint channels.
_SOLVER_TOLERANCE = 1e-9
# An answer that violates a bound by more than this is rejected.
_CHECK_TOLERANCE = 1e-7
# Largest plausible bound on the EM in cm-5, a million times the brightest flare; larger values overflow float32.
_ABSURD_EM = 1e36


@dataclass(frozen=True, eq=False)
class BasisPursuitSolution(Solution):
    """
    A `Solution` of `BasisPursuit`; all values are NaN where ``status`` is not zero.

    Attributes
    ----------
    tolerance : `~numpy.ndarray`
        Multiple of the uncertainty within which the channels are met, shape ``(...)``.
    objective : `~numpy.ndarray`
        Least sum of the coefficients of the basis functions in cm-5, shape ``(...)``.
    """

    tolerance: np.ndarray | None = None
    objective: np.ndarray | None = None


@dataclass(frozen=True)
class _Program:
    """
    The linear program without the bounds of its rows, as sent to worker processes.

    A row is divided by the largest response of its channel and a pixel's bounds by the largest of them, so that the
    solver works with numbers around one; K is about 1e-25 and EM up to 1e30.
    """

    matrix: np.ndarray  # scaled K B, (channels, functions)
    row_scale: np.ndarray  # (channels,)
    basis: np.ndarray  # B, (bins, functions)
    tolerances: tuple  # multiples of σ, ascending


class BasisPursuit:
    r"""
    Sparse EM of each pixel by itself: the method of Cheung et al. (2015).

    The EM is a non-negative combination of basis functions, :math:`\mathrm{EM} = B x`. Among those that meet every
    channel,

    .. math:: |(K B x)_i - g_i| \le t \, \sigma_i, \quad x \ge 0,

    linear programming finds the one with the least :math:`\sum_k x_k`. Where there is none, the tolerance *t* is
    widened in steps. A channel that is a lower limit bounds :math:`(K B x)_i` from below only. The functions are Diracs
    (one bin) and truncated Gaussians :math:`\exp(-(\log T - \log T_k)^2 / a^2)` centred on every bin.

    Parameters
    ----------
    widths : sequence of `float`, optional
        Widths *a* of the basis functions in dex; zero means Diracs.
    tolerance : `float`, optional
        Half-width *t* of the constraints as a multiple of the uncertainty.
    widenings : sequence of `float`, optional
        Factors on ``tolerance`` that are tried in turn on infeasible pixels, ascending and above one. The default is
        that of the authors' program; an empty sequence tries only ``tolerance``.
    normalize : `bool`, optional
        Give the functions unit sum rather than unit peak, so that the least total EM is sought in the strict sense.
        The Gaussians then have no effect, as each is a mixture of Diracs of the same total. With unit peak, the default
        and the authors' choice, a broad distribution costs less than the sum of its bins and is preferred.
    processes : `int`, optional
        Number of processes that share the pixels. The answer does not depend on it. They are spawned, so a script that
        uses more than one must be guarded by ``if __name__ == "__main__"``.
    progress : `bool`, optional
        Whether to show a progress bar.

    Raises
    ------
    ValueError
        If an option is out of range.

    Notes
    -----
    The solver is HiGHS. A program is built once per tile of 4096 pixels; from pixel to pixel only the bounds of its
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
    >>> solution = BasisPursuit().solve(intensity, 0.1 * intensity, response)
    >>> solution.em.shape, int(solution.status)
    ((18,), 0)
    """

    name = "basis-pursuit"

    def __init__(
        self,
        *,
        widths=(0, 0.1, 0.2, 0.6),
        tolerance=1.4,
        widenings=(1.5, 2.25),
        normalize=False,
        processes=1,
        progress=False,
    ):
        self.widths = _checked_widths(widths)
        self.tolerance = _checked_tolerance(tolerance)
        self.widenings = _checked_widenings(widenings)
        self.normalize = bool(normalize)
        self.processes, self.progress = whole_number(processes, "processes"), progress

    @property
    def provenance(self):
        """The parameters, for the provenance of a cube."""
        names = ("widths", "tolerance", "widenings", "normalize")
        options = {name: getattr(self, name) for name in names}
        return {
            "options": {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}
        }

    def basis(self, bins):
        """
        Return the basis functions B.

        Parameters
        ----------
        bins : `~sunpy_deepem.LogTBins`

        Returns
        -------
        `~numpy.ndarray`
            Shape ``(n_bins, n_functions)``, width by width.
        """
        return _basis_functions(bins.centers, self.widths, normalize=self.normalize)

    def solve(self, intensity, uncertainty, response, *, lower_limit=None):
        """
        Invert pixels.

        Parameters
        ----------
        intensity : array-like
            Intensities in DN / (s pix), shape ``(6, ...)``, channels in the order of those of ``response``. They may be
            negative. A channel is not used in a pixel where its intensity is not finite.
        uncertainty : array-like
            Their standard deviations, of the same shape.
        response : `~sunpy_deepem.TemperatureResponse`
            The response, whose bins are those of the EM. It must not be negative.
        lower_limit : array-like of `bool`, optional
            Where the intensity is a lower limit, of the same shape.

        Returns
        -------
        `BasisPursuitSolution`
            The EM is ``float32`` if both inputs are, otherwise ``float64``; ``em_std`` is `None`.

        Raises
        ------
        TypeError
            If an argument carries a unit or does not hold real numbers, or ``response`` is not a response.
        ValueError
            If the shapes do not fit, or the response has a negative value or a channel that is zero.
        """
        intensity, uncertainty = checked_pixels(intensity, uncertainty, response)
        program = self._program(response)
        shape = intensity.shape[1:]
        dtype = np.result_type(intensity, uncertainty, np.float32)
        lower_limit = np.zeros(intensity.shape) if lower_limit is None else np.asarray(lower_limit)
        em, status, tolerance, objective = map_tiles(
            partial(_solve_tile, program),
            *(array.reshape(len(array), -1) for array in (intensity, uncertainty, lower_limit)),
            tile=_TILE,
            processes=self.processes,
            progress=self.progress,
        )
        return BasisPursuitSolution(
            em=em.reshape(em.shape[0], *shape).astype(dtype),
            em_std=None,
            status=status.reshape(shape),
            tolerance=tolerance.reshape(shape).astype(dtype),
            objective=objective.reshape(shape).astype(dtype),
        )

    def _program(self, response):
        matrix = response.matrix.to_value(RESPONSE_UNIT)
        if (matrix < 0).any() or not (matrix > 0).any(axis=1).all():
            msg = (
                "response must not be negative, and every channel must respond to some bin; found a least value of "
                f"{matrix.min():.3g} cm5 DN / (pix s) and {np.count_nonzero(matrix.max(axis=1) <= 0)} dead channels. "
                "Clip it at zero, or use bins where all channels respond."
            )
            raise ValueError(msg)
        basis, row_scale = self.basis(response.bins), matrix.max(axis=1)
        return _Program(
            matrix=(matrix / row_scale[:, np.newaxis]) @ basis,
            row_scale=row_scale,
            basis=basis,
            tolerances=tuple(self.tolerance * factor for factor in (1.0, *self.widenings)),
        )

    def __repr__(self):
        return (
            f"BasisPursuit(widths={self.widths}, tolerance={self.tolerance:g}, "
            f"widenings={self.widenings}, normalize={self.normalize})"
        )


def map_tiles(function, *arrays, tile, processes=1, progress=False):
    """
    Apply ``function`` to tiles of pixels and join the results.

    Parameters
    ----------
    function : callable
        Takes ``float64`` arrays of shape ``(6, n)`` and returns a tuple of arrays whose last axis is the ``n`` pixels.
        It must be possible to pickle it if there is more than one process.
    *arrays : `~numpy.ndarray`
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
    """
    n = arrays[0].shape[1]
    # An empty image still makes one (empty) tile, so that its result has the right shape.
    slices = [slice(start, min(start + tile, n)) for start in range(0, n, tile)] or [slice(0, 0)]
    tiles = ([np.asarray(array[:, part], dtype=float) for part in slices] for array in arrays)
    parts = []
    with tqdm(total=n, unit="DEM", unit_scale=True, disable=not progress) as bar:
        for part in process_map(function, *tiles, processes=min(processes, len(slices))):
            parts.append(part)
            bar.update(part[0].shape[-1])
    return [np.concatenate(arrays, axis=-1) for arrays in zip(*parts, strict=True)]


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


def _solve_tile(program, intensity, uncertainty, lower_limit):
    """Invert pixels one after another, shape ``(channels, n)``; returns the fields of `BasisPursuitSolution`."""
    n = intensity.shape[1]
    status = np.full(n, SolveStatus.INFEASIBLE, dtype=np.int8)
    coefficients = np.full((program.basis.shape[1], n), np.nan)
    tolerance_used = np.full(n, np.nan)
    solver = _Solver(program.matrix)
    is_limit = lower_limit != 0
    used, valid = used_channels(intensity, uncertainty, is_limit)
    status[~valid] = SolveStatus.INVALID
    for tolerance in program.tolerances:
        pending = np.flatnonzero(status == SolveStatus.INFEASIBLE)
        arrays = (array[:, pending] for array in (intensity, uncertainty, used, is_limit))
        lower, upper = _row_bounds(program, *arrays, tolerance)
        # As the response is not negative, a negative upper bound cannot be met, and zero is the answer where all lower
        # bounds are zero. Neither case needs the solver.
        possible = (upper >= 0).all(axis=0)
        signal = (lower > 0).any(axis=0)
        sane = (np.where(upper == np.inf, lower, upper) < _ABSURD_EM).all(axis=0)
        status[pending[~sane]] = SolveStatus.INVALID
        status[pending[possible & sane & ~signal]] = SolveStatus.NO_SIGNAL
        chosen = possible & sane & signal
        pending = pending[chosen]
        status[pending], coefficients[:, pending] = solver.solve(lower[:, chosen], upper[:, chosen])
        tolerance_used[pending[status[pending] == SolveStatus.SOLVED]] = tolerance
    return program.basis @ coefficients, status, tolerance_used, coefficients.sum(axis=0)


def _row_bounds(program, intensity, uncertainty, used, is_limit, tolerance):
    """Bounds of the scaled rows in cm-5; the lower one at least zero, below which no row can fall."""
    # Values that overflow are recognized by their bounds afterwards.
    with np.errstate(over="ignore", invalid="ignore"):
        middle = intensity / program.row_scale[:, np.newaxis]
        half = tolerance * uncertainty / program.row_scale[:, np.newaxis]
        lower, upper = np.maximum(middle - half, 0), middle + half
    return np.where(used, lower, 0), np.where(used & ~is_limit, upper, np.inf)


class _Solver:
    """HiGHS with one program, whose row bounds change from pixel to pixel."""

    def __init__(self, matrix):
        self._matrix = matrix
        self._rows = np.arange(matrix.shape[0], dtype=np.int32)
        self._highs = highspy.Highs()
        self._highs.silent()
        for option, value in (
            # HiGHS has one thread pool per process and raises an error if a solver asks for another size than the
            # first. It is left alone in the user's process; worker processes need one thread.
            ("threads", 0 if parent_process() is None else 1),
            ("solver", "simplex"),
            # Presolve would discard the basis of the last pixel.
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
            Bounds of the rows, shape ``(channels, n)``; each pixel has a positive lower bound and a finite upper one.

        Returns
        -------
        status : `~numpy.ndarray`
            Shape ``(n,)``.
        coefficients : `~numpy.ndarray`
            Shape ``(functions, n)``, NaN where not solved.
        """
        scale = np.where(np.isfinite(upper), upper, lower).max(axis=0)
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
        """Solve one program; on failure try again without the basis of the last pixel."""
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
    """Return the program for HiGHS: least sum of non-negative columns; row bounds are set later."""
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
