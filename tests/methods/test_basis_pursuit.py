"""Tests of basis pursuit against SciPy's linprog, and of the status of pixels without a solution."""

import subprocess
import sys
from types import SimpleNamespace

import astropy.units as u
import highspy
import numpy as np
import pytest
from scipy.optimize import linprog

from sunpy_deepem import LogTBins, TemperatureResponse
from sunpy_deepem.methods import BasisPursuit, SolveStatus, basis_pursuit

BAD_PIXELS = {
    "absurd": (1e30, 1e29, SolveStatus.INVALID),
    "infinite when scaled": (1e300, 1e299, SolveStatus.INVALID),
    "overflowing": (-1e300, 1e300, SolveStatus.INVALID),
    "uncertainty nan": (1.0, np.nan, SolveStatus.INVALID),
    "uncertainty zero": (1.0, 0.0, SolveStatus.INVALID),
    "uncertainty negative": (1.0, -1.0, SolveStatus.INVALID),
    "zero": (0.0, 1.0, SolveStatus.NO_SIGNAL),
    "noise": (1.0, 1.0, SolveStatus.NO_SIGNAL),
    "slightly negative": (-1.0, 1.0, SolveStatus.NO_SIGNAL),
    "very negative": (-10.0, 1.0, SolveStatus.INFEASIBLE),
}


@pytest.fixture(scope="module")
def response():
    return TemperatureResponse.default()


@pytest.fixture(scope="module")
def pixels(response):
    """Intensities with 5 % noise of 60 EMs of one to three log-normal components, and σ of 10 %, shape (6, 60)."""
    rng = np.random.default_rng(94)
    log_t = response.bins.centers[:, np.newaxis]
    em = np.zeros((18, 60))
    for presence in (1, 0.7, 0.3):
        center, width = rng.uniform(5.8, 6.8, 60), rng.uniform(0.05, 0.3, 60)
        weight = 10 ** rng.uniform(25, 29, 60) * (rng.random(60) < presence)
        em += weight * np.exp(-0.5 * ((log_t - center) / width) ** 2)
    intensity = response.matrix.value @ em
    return intensity * (1 + 0.05 * rng.standard_normal(intensity.shape)), 0.1 * intensity


@pytest.fixture
def solvable(response):
    """One isothermal pixel with σ of 10 %: the EM (18,), the intensity (6,) and the uncertainty (6,)."""
    em = np.where(np.arange(18) == 8, 1e27, 0)
    intensity = response.matrix.value @ em
    return em, intensity, 0.1 * intensity


def linprog_objective(solver, response, intensity, uncertainty, tolerance):
    """Least sum of the coefficients in cm-5 of one pixel by SciPy, or None if infeasible."""
    matrix = response.matrix.value @ solver.basis(response.bins)
    row_scale = matrix.max(axis=1)
    matrix = matrix / row_scale[:, np.newaxis]
    lower, upper = ((intensity + sign * tolerance * uncertainty) / row_scale for sign in (-1, 1))
    scale = upper.max()
    bounds = np.concatenate([upper, -lower]) / scale
    answer = linprog(np.ones(matrix.shape[1]), np.vstack([matrix, -matrix]), bounds, method="highs")
    return answer.fun * scale if answer.success else None


@pytest.mark.parametrize(
    "options",
    [{}, {"tolerance": 0.5}, {"widths": (0,)}, {"widths": (0.1, 0.4)}, {"normalize": True}],
    ids=["default", "narrow", "diracs", "gaussians", "normalized"],
)
def test_objective_equals_that_of_linprog(response, pixels, options):
    solver = BasisPursuit(widenings=(), **options)
    solution = solver.solve(*pixels, response)
    expected = [
        linprog_objective(solver, response, *pixel, solver.tolerance)
        for pixel in zip(*(p.T for p in pixels), strict=True)
    ]
    infeasible = np.array([objective is None for objective in expected])
    np.testing.assert_array_equal(solution.status == SolveStatus.INFEASIBLE, infeasible)
    assert (solution.status[~infeasible] == 0).all()
    assert np.count_nonzero(~infeasible) > 20
    found, expected = solution.objective[~infeasible], np.array(expected)[~infeasible].astype(float)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_every_channel_is_met_within_the_stated_tolerance(response, pixels):
    intensity, uncertainty = pixels
    solution = BasisPursuit(tolerance=0.5, widenings=(2, 3)).solve(intensity, uncertainty, response)
    solved = solution.status == 0
    assert {0.5, 1.0} <= set(solution.tolerance[solved])
    deviation = np.abs(response.matrix.value @ solution.em - intensity) / uncertainty
    assert (deviation[:, solved] <= solution.tolerance[solved] * (1 + 1e-6)).all()
    assert (solution.em[:, solved] >= 0).all()


def test_normalized_objective_is_the_total_em(response, pixels):
    solution = BasisPursuit(normalize=True).solve(*pixels, response)
    solved = solution.status == 0
    np.testing.assert_allclose(solution.objective[solved], solution.em.sum(axis=0)[solved], rtol=1e-9)


def test_gaussians_have_no_effect_with_the_total_em_as_objective(response, pixels):
    with_gaussians = BasisPursuit(normalize=True).solve(*pixels, response)
    diracs = BasisPursuit(widths=(0,)).solve(*pixels, response)
    np.testing.assert_allclose(with_gaussians.objective, diracs.objective, rtol=1e-6)


def test_isothermal_pixel_without_noise_is_recovered(response, solvable):
    em, intensity, _ = solvable
    solution = BasisPursuit(widths=(0,), tolerance=0.01).solve(intensity, 0.1 * intensity, response)
    found, status = solution.em, solution.status
    assert status == 0
    # The least EM within 0.1 % of each channel.
    assert found.argmax() == 8
    np.testing.assert_allclose(found.sum(), em.sum(), rtol=0.02)
    np.testing.assert_allclose(found, em, atol=0.05 * em.sum())


def test_least_em_is_at_the_lower_end_of_the_tolerance(response):
    """One Dirac, one bin, all channels in proportion: the answer is 1 - t σ/g times the truth."""
    one_bin = response.with_bins(LogTBins(6.2, 0.1, 1))
    intensity = one_bin.matrix.value[:, 0] * 3e27
    solution = BasisPursuit(widths=(0,), tolerance=1.5).solve(intensity, 0.1 * intensity, one_bin)
    em, status = solution.em, solution.status
    assert status == 0
    np.testing.assert_allclose(em, [0.85 * 3e27], rtol=1e-6)


def test_basis_functions_are_peak_one_and_truncated_at_1p8_widths(response):
    basis = BasisPursuit(widths=(0, 0.2)).basis(response.bins)
    assert basis.shape == (18, 36)
    np.testing.assert_array_equal(basis[:, :18], np.eye(18))
    np.testing.assert_allclose(basis[:, 18 + 9].max(), 1)
    distance = np.abs(response.bins.centers - response.bins.centers[9])
    np.testing.assert_array_equal(basis[:, 18 + 9] > 0, distance <= 1.8 * 0.2)
    np.testing.assert_allclose(basis[10, 18 + 9], np.exp(-0.25))


@pytest.mark.parametrize(("value", "error", "expected"), BAD_PIXELS.values(), ids=BAD_PIXELS)
def test_bad_channel_gets_a_status_and_other_pixels_do_not_change(response, solvable, value, error, expected):
    _, good, good_error = solvable
    intensity, uncertainty = np.stack([good] * 3, axis=1), np.stack([good_error] * 3, axis=1)
    if expected == SolveStatus.NO_SIGNAL:
        intensity[:, 1], uncertainty[:, 1] = value, error
    else:
        intensity[4, 1], uncertainty[4, 1] = value, error
    solution = BasisPursuit().solve(intensity, uncertainty, response)
    em, status = solution.em, solution.status
    assert status.tolist() == [0, expected, 0]
    assert np.isnan(em[:, 1]).all()
    np.testing.assert_allclose(em[:, [0, 2]].sum(axis=0), em[:, 0].sum())
    assert em[:, 0].sum() > 0


def without(array, channel):
    return np.delete(array, channel, axis=0)


@pytest.mark.parametrize(("name", "value"), [("intensity", np.nan), ("intensity", np.inf), ("uncertainty", np.inf)])
def test_a_missing_channel_is_left_out(response, pixels, name, value):
    given = dict(zip(("intensity", "uncertainty"), pixels, strict=True))
    spoiled = given | {name: np.where(np.arange(6)[:, np.newaxis] == 2, value, given[name])}
    solution = BasisPursuit().solve(spoiled["intensity"], spoiled["uncertainty"], response)
    others = response.with_channels([94, 131, 193, 211, 335])
    expected = BasisPursuit().solve(*(without(array, 2) for array in pixels), others)
    np.testing.assert_array_equal(solution.status, expected.status)
    np.testing.assert_allclose(solution.objective, expected.objective, rtol=1e-6)


def test_lower_limits_bound_the_em_from_below(response, solvable):
    _, intensity, uncertainty = solvable
    saturated = np.arange(6) == 2
    for limit, status in ((0.5, 0), (1.1, 0), (30, SolveStatus.INFEASIBLE)):
        limited = np.where(saturated, limit * intensity, intensity)
        solution = BasisPursuit().solve(limited, uncertainty, response, lower_limit=saturated)
        assert solution.status == status
        if status == 0:
            synthetic = response.matrix.value @ solution.em
            assert synthetic[2] >= limited[2] - 3.2 * uncertainty[2]
            np.testing.assert_allclose(without(synthetic, 2), without(intensity, 2), rtol=0.33)


@pytest.mark.parametrize("spoil", [lambda g: g * np.nan, lambda g: np.where(np.arange(6) > 0, np.nan, g)])
def test_pixels_with_limits_only_are_invalid(response, solvable, spoil):
    _, intensity, uncertainty = solvable
    solution = BasisPursuit().solve(spoil(intensity), uncertainty, response, lower_limit=np.arange(6) == 0)
    assert solution.status == SolveStatus.INVALID


def test_contradictory_channels_are_infeasible(response, solvable):
    _, intensity, uncertainty = solvable
    intensity[2] = 0  # dark, unlike channels of similar temperature
    solution = BasisPursuit().solve(intensity, 0.01 * uncertainty, response)
    em, status = solution.em, solution.status
    assert status == SolveStatus.INFEASIBLE
    assert np.isnan(em).all()


class FailingHighs(highspy.Highs):
    """HiGHS that fails until its basis has been cleared a number of times."""

    failures = 0

    def getModelStatus(self):
        return highspy.HighsModelStatus.kUnknown if FailingHighs.failures > 0 else super().getModelStatus()

    def clearSolver(self):
        FailingHighs.failures -= 1
        return super().clearSolver()


@pytest.mark.parametrize(("failures", "expected"), [(1, 0), (2, SolveStatus.SOLVER_FAILED)])
def test_failing_solver_is_tried_once_more(response, solvable, monkeypatch, failures, expected):
    _, intensity, uncertainty = (np.stack([array] * 2, axis=1) for array in solvable)
    monkeypatch.setattr(FailingHighs, "failures", failures)
    monkeypatch.setattr(highspy, "Highs", FailingHighs)
    solution = BasisPursuit().solve(intensity, uncertainty, response)
    em, status = solution.em, solution.status
    assert status.tolist() == [expected, 0]
    np.testing.assert_array_equal(np.isfinite(em).all(axis=0), status == 0)


def test_answer_that_violates_a_constraint_is_rejected(response, solvable, monkeypatch):
    monkeypatch.setattr(basis_pursuit, "_CHECK_TOLERANCE", -1.0)
    solution = BasisPursuit().solve(*solvable[1:], response)
    em, status = solution.em, solution.status
    assert status == SolveStatus.SOLVER_FAILED
    assert np.isnan(em).all()


@pytest.mark.parametrize("factor", [0.5, 2])
def test_answer_beyond_one_of_the_bounds_is_rejected(response, solvable, monkeypatch, factor):
    class WrongHighs(highspy.Highs):
        def getSolution(self):
            return SimpleNamespace(col_value=factor * np.array(super().getSolution().col_value))

    monkeypatch.setattr(highspy, "Highs", WrongHighs)
    assert BasisPursuit().solve(*solvable[1:], response).status == SolveStatus.SOLVER_FAILED


def test_tolerance_is_widened_only_where_needed(response, solvable):
    _, intensity, uncertainty = solvable
    # Too dark by between one and two tolerances.
    dark = intensity.copy()
    dark[2] -= 3.5 * uncertainty[2]
    intensity, uncertainty = np.stack([intensity, dark], axis=1), np.stack([uncertainty] * 2, axis=1)
    narrow = BasisPursuit(widths=(0,), tolerance=0.5, widenings=()).solve(intensity, uncertainty, response)
    assert narrow.status.tolist() == [0, SolveStatus.INFEASIBLE]
    wide = BasisPursuit(widths=(0,), tolerance=0.5, widenings=(4, 8)).solve(intensity, uncertainty, response)
    assert wide.status.tolist() == [0, 0]
    assert wide.tolerance[0] == 0.5
    assert wide.tolerance[1] in (2, 4)
    np.testing.assert_allclose(wide.em[:, 0], narrow.em[:, 0])


def test_zero_em_after_widening_is_no_signal(response, solvable):
    """One channel at 1.5 σ and one at -1.5 σ: only the widened tolerance allows an EM, and that is zero."""
    uncertainty = solvable[2]
    intensity = uncertainty * [0, 0, 1.5, -1.5, 0, 0]
    solution = BasisPursuit(tolerance=1, widenings=(2,)).solve(intensity, uncertainty, response)
    em, status = solution.em, solution.status
    assert status == SolveStatus.NO_SIGNAL
    assert np.isnan(em).all()


@pytest.mark.parametrize("factor", [2, 1e-3, 1e4])
def test_em_scales_with_intensity_and_uncertainty(response, pixels, factor):
    intensity, uncertainty = pixels
    solver = BasisPursuit()
    once = solver.solve(intensity, uncertainty, response)
    scaled = solver.solve(factor * intensity, factor * uncertainty, response)
    np.testing.assert_array_equal(scaled.status, once.status)
    np.testing.assert_allclose(scaled.objective, factor * once.objective, rtol=1e-6)
    np.testing.assert_allclose(scaled.em.sum(axis=0), factor * once.em.sum(axis=0), rtol=1e-4)


@pytest.mark.parametrize("shape", [(), (1,), (60,), (6, 10), (5, 3, 4), (0,), (0, 4)])
def test_shape_of_pixels_is_kept(response, pixels, shape):
    n = int(np.prod(shape))
    intensity, uncertainty = (array[:, :n].reshape(6, *shape) for array in pixels)
    solution = BasisPursuit().solve(intensity, uncertainty, response)
    em, status = solution.em, solution.status
    assert em.shape == (18, *shape)
    assert status.shape == shape
    assert status.dtype == np.int8


def test_order_of_pixels_is_kept(response, pixels):
    solver = BasisPursuit()
    flat = solver.solve(*pixels, response).em
    image = solver.solve(*(array.reshape(6, 6, 10) for array in pixels), response).em
    np.testing.assert_array_equal(image.reshape(18, 60), flat)


@pytest.mark.parametrize(("given", "expected"), [("f4", "f4"), ("f8", "f8"), ("i8", "f8")])
def test_precision_follows_the_input(response, given, expected):
    intensity, uncertainty = (
        np.array([2, 9, 300, 400, 100, 5], dtype=given),
        np.array([1, 2, 30, 40, 10, 2], dtype=given),
    )
    solution = BasisPursuit().solve(intensity, uncertainty, response)
    em, status = solution.em, solution.status
    assert status == 0
    assert em.dtype == expected


def test_objective_does_not_depend_on_the_tiles(response, pixels, monkeypatch):
    whole = BasisPursuit().solve(*pixels, response)
    monkeypatch.setattr(basis_pursuit, "_TILE", 7)
    tiled = BasisPursuit().solve(*pixels, response)
    np.testing.assert_array_equal(tiled.status, whole.status)
    np.testing.assert_allclose(tiled.objective, whole.objective, rtol=1e-6)


@pytest.mark.slow
def test_two_processes_give_the_same_answer(response, pixels, monkeypatch):
    monkeypatch.setattr(basis_pursuit, "_TILE", 16)
    alone, shared = (BasisPursuit(processes=n).solve(*pixels, response) for n in (1, 2))
    for name in ("em", "status", "tolerance", "objective"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(shared, name))


def test_em_has_the_bins_of_the_response(response, pixels):
    bins = LogTBins(5.7, 0.1, 12)
    solution = BasisPursuit().solve(*pixels, response.with_bins(bins))
    em, status = solution.em, solution.status
    assert em.shape == (12, 60)
    assert (status == 0).any()


def test_progress_bar_is_optional(response, pixels, capsys):
    BasisPursuit().solve(*pixels, response)
    assert capsys.readouterr().err == ""
    BasisPursuit(progress=True).solve(*pixels, response)
    assert "60.0/60.0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"tolerance": 0}, "tolerance must be a positive"),
        ({"tolerance": -1}, "tolerance must be a positive"),
        ({"tolerance": np.nan}, "tolerance must be a positive"),
        ({"widths": (0, -0.1)}, "widths must be"),
        ({"widths": ()}, "widths must be"),
        ({"widths": (np.inf,)}, "widths must be"),
        ({"widenings": (1.0,)}, "widenings must be"),
        ({"widenings": (2, 1.5)}, "widenings must be"),
        ({"widenings": (np.nan,)}, "widenings must be"),
    ],
)
def test_option_out_of_range_raises(options, match):
    with pytest.raises(ValueError, match=match):
        BasisPursuit(**options)


def test_response_must_be_a_response(response, pixels):
    with pytest.raises(TypeError, match="response must be a TemperatureResponse, found Quantity"):
        BasisPursuit().solve(*pixels, response.matrix)


@pytest.mark.parametrize("factor", [-1, 0])
def test_response_must_not_be_negative_or_dead(response, pixels, factor):
    curves = response.curves.copy()
    curves[3] *= factor
    with pytest.raises(ValueError, match="response must not be negative"):
        BasisPursuit().solve(*pixels, TemperatureResponse(response.temperature, curves))


@pytest.mark.parametrize(
    ("intensity", "uncertainty", "match"),
    [
        (np.ones((5, 3)), np.ones((5, 3)), r"intensity must have shape \(6, \.\.\.\).*found \(5, 3\)"),
        (np.ones((3, 6)), np.ones((3, 6)), "moveaxis"),
        (1.0, 1.0, r"intensity must have shape"),
        (np.ones((6, 3)), np.ones(6), r"uncertainty must have the shape of intensity, \(6, 3\), found \(6,\)"),
    ],
)
def test_wrong_shape_raises(response, intensity, uncertainty, match):
    with pytest.raises(ValueError, match=match):
        BasisPursuit().solve(intensity, uncertainty, response)


@pytest.mark.parametrize(
    ("intensity", "uncertainty", "match"),
    [
        (np.ones(6, dtype=complex), np.ones(6), "intensity must be an array of real numbers .* of dtype complex"),
        (np.ones(6), np.array(["1"] * 6), "uncertainty must be an array of real numbers"),
        (np.ones(6) << u.K, np.ones(6), "intensity must be a plain array, found one in K"),
    ],
)
def test_values_that_are_not_real_numbers_raise(response, intensity, uncertainty, match):
    with pytest.raises(TypeError, match=match):
        BasisPursuit().solve(intensity, uncertainty, response)


@pytest.mark.parametrize("processes", [0, -1, 1.5])
def test_number_of_processes_must_be_positive(processes):
    with pytest.raises(ValueError, match="processes must be a positive whole number"):
        BasisPursuit(processes=processes)


def test_default_options_are_those_of_the_authors():
    assert BasisPursuit().provenance["options"] == {
        "widths": [0, 0.1, 0.2, 0.6],
        "tolerance": 1.4,
        "widenings": [1.5, 2.25],
        "normalize": False,
    }


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_of_other_users_of_highs(response, solvable, threads):
    """HiGHS has one pool of threads per process, whose size its first user chooses."""
    highspy.Highs.resetGlobalScheduler(True)
    first = highspy.Highs()
    first.silent()
    first.setOptionValue("threads", threads)
    first.run()
    try:
        assert BasisPursuit().solve(*solvable[1:], response).status == 0
    finally:
        highspy.Highs.resetGlobalScheduler(True)


def test_nothing_is_printed(tmp_path):
    # In a new process, since a banner is printed once.
    code = (
        "import numpy as np\n"
        "from sunpy_deepem import TemperatureResponse\n"
        "from sunpy_deepem.methods import BasisPursuit\n"
        "response = TemperatureResponse.default()\n"
        "intensity = response.matrix.value @ np.where(np.arange(18) == 8, 1e27, 0)\n"
        "BasisPursuit().solve(intensity, 0.1 * intensity, response)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == ""
