"""Basis pursuit gives the least objective that any solver finds, and a status to each pixel that it cannot solve."""

import astropy.units as u
import highspy
import numpy as np
import pytest
from scipy.optimize import linprog

from sunpy_deepem import LogTBins, TemperatureResponse
from sunpy_deepem.methods import basis_pursuit
from sunpy_deepem.methods.basis_pursuit import BasisPursuit, SolveStatus

BAD_PIXELS = {
    "nan": (np.nan, 1.0, SolveStatus.INVALID),
    "infinite": (np.inf, 1.0, SolveStatus.INVALID),
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


def linprog_objective(solver, intensity, uncertainty, tolerance):
    """Least sum of the coefficients in cm-5 of one pixel by SciPy, or None if infeasible."""
    matrix = solver.response.matrix.value @ solver.basis
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
def test_objective_is_that_of_linprog(response, pixels, options):
    solver = BasisPursuit(response, widenings=(), **options)
    solution = solver.solution(*pixels)
    expected = [
        linprog_objective(solver, *pixel, solver.tolerance) for pixel in zip(*(p.T for p in pixels), strict=True)
    ]
    infeasible = np.array([objective is None for objective in expected])
    np.testing.assert_array_equal(solution.status == SolveStatus.INFEASIBLE, infeasible)
    assert (solution.status[~infeasible] == 0).all()
    assert np.count_nonzero(~infeasible) > 20
    found, expected = solution.objective[~infeasible], np.array(expected)[~infeasible].astype(float)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_every_channel_is_met_within_the_tolerance_that_is_told(response, pixels):
    intensity, uncertainty = pixels
    solution = BasisPursuit(response, tolerance=0.5, widenings=(2, 3)).solution(intensity, uncertainty)
    solved = solution.status == 0
    assert {0.5, 1.0} <= set(solution.tolerance[solved])
    deviation = np.abs(response.matrix.value @ solution.em - intensity) / uncertainty
    assert (deviation[:, solved] <= solution.tolerance[solved] * (1 + 1e-6)).all()
    assert (solution.em[:, solved] >= 0).all()


def test_normalized_objective_is_the_total_em(response, pixels):
    solution = BasisPursuit(response, normalize=True).solution(*pixels)
    solved = solution.status == 0
    np.testing.assert_allclose(solution.objective[solved], solution.em.sum(axis=0)[solved], rtol=1e-9)


def test_with_total_em_as_objective_gaussians_add_nothing_to_diracs(response, pixels):
    with_gaussians = BasisPursuit(response, normalize=True).solution(*pixels)
    diracs = BasisPursuit(response, widths=(0,)).solution(*pixels)
    np.testing.assert_allclose(with_gaussians.objective, diracs.objective, rtol=1e-6)


def test_isothermal_pixel_without_noise_is_recovered(response, solvable):
    em, intensity, _ = solvable
    found, status = BasisPursuit(response, widths=(0,), tolerance=0.01).solve(intensity, 0.1 * intensity)
    assert status == 0
    # The least EM within 0.1 % of each channel: where one bin fits, the total is at most 0.1 % below the truth.
    assert found.argmax() == 8
    np.testing.assert_allclose(found.sum(), em.sum(), rtol=0.02)
    np.testing.assert_allclose(found, em, atol=0.05 * em.sum())


def test_least_em_lies_at_the_lower_end_of_the_tolerance(response):
    """One Dirac, one bin, all channels in proportion: the answer is 1 - t σ/g times the truth."""
    one_bin = response.with_bins(LogTBins(6.2, 0.1, 1))
    intensity = one_bin.matrix.value[:, 0] * 3e27
    em, status = BasisPursuit(one_bin, widths=(0,), tolerance=1.5).solve(intensity, 0.1 * intensity)
    assert status == 0
    np.testing.assert_allclose(em, [0.85 * 3e27], rtol=1e-6)


def test_basis_functions_are_peak_one_and_truncated_at_1p8_widths(response):
    basis = BasisPursuit(response, widths=(0, 0.2)).basis
    assert basis.shape == (18, 36)
    np.testing.assert_array_equal(basis[:, :18], np.eye(18))
    np.testing.assert_allclose(basis[:, 18 + 9].max(), 1)
    distance = np.abs(response.bins.centers - response.bins.centers[9])
    np.testing.assert_array_equal(basis[:, 18 + 9] > 0, distance <= 1.8 * 0.2)
    np.testing.assert_allclose(basis[10, 18 + 9], np.exp(-0.25))


@pytest.mark.parametrize(("value", "error", "expected"), BAD_PIXELS.values(), ids=BAD_PIXELS)
def test_bad_channel_has_its_status_and_harms_no_other_pixel(response, solvable, value, error, expected):
    _, good, good_error = solvable
    intensity, uncertainty = np.stack([good] * 3, axis=1), np.stack([good_error] * 3, axis=1)
    if expected == SolveStatus.NO_SIGNAL:
        intensity[:, 1], uncertainty[:, 1] = value, error
    else:
        intensity[4, 1], uncertainty[4, 1] = value, error
    em, status = BasisPursuit(response).solve(intensity, uncertainty)
    assert status.tolist() == [0, expected, 0]
    assert np.isnan(em[:, 1]).all()
    np.testing.assert_allclose(em[:, [0, 2]].sum(axis=0), em[:, 0].sum())
    assert em[:, 0].sum() > 0


def test_contradictory_channels_are_infeasible(response, solvable):
    _, intensity, uncertainty = solvable
    intensity[2] = 0  # 171 Å dark although its neighbours in temperature are bright
    em, status = BasisPursuit(response).solve(intensity, 0.01 * uncertainty)
    assert status == SolveStatus.INFEASIBLE
    assert np.isnan(em).all()


class StumblingHighs(highspy.Highs):
    """HiGHS that does not know the answer until its basis has been cleared so many times."""

    stumbles = 0

    def getModelStatus(self):
        return highspy.HighsModelStatus.kUnknown if StumblingHighs.stumbles > 0 else super().getModelStatus()

    def clearSolver(self):
        StumblingHighs.stumbles -= 1
        return super().clearSolver()


@pytest.mark.parametrize(("stumbles", "expected"), [(1, 0), (2, SolveStatus.SOLVER_FAILED)])
def test_solver_that_stumbles_is_tried_once_more_and_harms_no_other_pixel(
    response, solvable, monkeypatch, stumbles, expected
):
    _, intensity, uncertainty = (np.stack([array] * 2, axis=1) for array in solvable)
    monkeypatch.setattr(StumblingHighs, "stumbles", stumbles)
    monkeypatch.setattr(highspy, "Highs", StumblingHighs)
    em, status = BasisPursuit(response).solve(intensity, uncertainty)
    assert status.tolist() == [expected, 0]
    np.testing.assert_array_equal(np.isfinite(em).all(axis=0), status == 0)


def test_answer_that_violates_a_constraint_is_not_believed(response, solvable, monkeypatch):
    monkeypatch.setattr(basis_pursuit, "_CHECK_TOLERANCE", -1.0)
    em, status = BasisPursuit(response).solve(*solvable[1:])
    assert status == SolveStatus.SOLVER_FAILED
    assert np.isnan(em).all()


def test_tolerance_is_widened_only_where_needed(response, solvable):
    _, intensity, uncertainty = solvable
    # Between one and two tolerances too dark for what the other channels say.
    dark = intensity.copy()
    dark[2] -= 3.5 * uncertainty[2]
    intensity, uncertainty = np.stack([intensity, dark], axis=1), np.stack([uncertainty] * 2, axis=1)
    narrow = BasisPursuit(response, widths=(0,), tolerance=0.5, widenings=()).solution(intensity, uncertainty)
    assert narrow.status.tolist() == [0, SolveStatus.INFEASIBLE]
    wide = BasisPursuit(response, widths=(0,), tolerance=0.5, widenings=(4, 8)).solution(intensity, uncertainty)
    assert wide.status.tolist() == [0, 0]
    assert wide.tolerance[0] == 0.5
    assert wide.tolerance[1] in (2, 4)
    np.testing.assert_allclose(wide.em[:, 0], narrow.em[:, 0])


def test_zero_em_after_widening_is_no_signal_rather_than_a_silent_zero(response, solvable):
    """One channel at 1.5 σ and one at -1.5 σ: only the widened tolerance allows an EM, and that is zero."""
    uncertainty = solvable[2]
    intensity = uncertainty * [0, 0, 1.5, -1.5, 0, 0]
    em, status = BasisPursuit(response, tolerance=1, widenings=(2,)).solve(intensity, uncertainty)
    assert status == SolveStatus.NO_SIGNAL
    assert np.isnan(em).all()


@pytest.mark.parametrize("factor", [2, 1e-3, 1e4])
def test_em_scales_with_intensity_and_uncertainty(response, pixels, factor):
    intensity, uncertainty = pixels
    solver = BasisPursuit(response)
    once, scaled = solver.solution(intensity, uncertainty), solver.solution(factor * intensity, factor * uncertainty)
    np.testing.assert_array_equal(scaled.status, once.status)
    np.testing.assert_allclose(scaled.objective, factor * once.objective, rtol=1e-6)
    np.testing.assert_allclose(scaled.em.sum(axis=0), factor * once.em.sum(axis=0), rtol=1e-4)


@pytest.mark.parametrize("shape", [(), (1,), (60,), (6, 10), (5, 3, 4), (0,), (0, 4)])
def test_any_shape_of_pixels_is_kept(response, pixels, shape):
    n = int(np.prod(shape))
    intensity, uncertainty = (array[:, :n].reshape(6, *shape) for array in pixels)
    em, status = BasisPursuit(response).solve(intensity, uncertainty)
    assert em.shape == (18, *shape)
    assert status.shape == shape
    assert status.dtype == np.int8


def test_shape_of_solution_follows_the_pixels_in_order(response, pixels):
    solver = BasisPursuit(response)
    flat, _ = solver.solve(*pixels)
    image, _ = solver.solve(*(array.reshape(6, 6, 10) for array in pixels))
    np.testing.assert_array_equal(image.reshape(18, 60), flat)


@pytest.mark.parametrize(("given", "expected"), [("f4", "f4"), ("f8", "f8"), ("i8", "f8")])
def test_precision_follows_the_input(response, given, expected):
    intensity, uncertainty = (
        np.array([2, 9, 300, 400, 100, 5], dtype=given),
        np.array([1, 2, 30, 40, 10, 2], dtype=given),
    )
    em, status = BasisPursuit(response).solve(intensity, uncertainty)
    assert status == 0
    assert em.dtype == expected


def test_objective_does_not_depend_on_the_tiles(response, pixels, monkeypatch):
    whole = BasisPursuit(response).solution(*pixels)
    monkeypatch.setattr(basis_pursuit, "_TILE", 7)
    tiled = BasisPursuit(response).solution(*pixels)
    np.testing.assert_array_equal(tiled.status, whole.status)
    np.testing.assert_allclose(tiled.objective, whole.objective, rtol=1e-6)


def test_two_processes_answer_as_one_does(response, pixels, monkeypatch):
    monkeypatch.setattr(basis_pursuit, "_TILE", 16)
    solver = BasisPursuit(response)
    alone, shared = solver.solution(*pixels), solver.solution(*pixels, processes=2)
    for one, two in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(one, two)


def test_bins_of_the_em_are_those_of_the_response(response, pixels):
    bins = LogTBins(5.7, 0.1, 12)
    em, status = BasisPursuit(response.with_bins(bins)).solve(*pixels)
    assert em.shape == (12, 60)
    assert (status == 0).any()


def test_progress_is_shown_only_when_asked_for(response, pixels, capsys):
    BasisPursuit(response).solve(*pixels)
    assert capsys.readouterr().err == ""
    BasisPursuit(response).solve(*pixels, progress=True)
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
def test_option_out_of_range_is_refused(response, options, match):
    with pytest.raises(ValueError, match=match):
        BasisPursuit(response, **options)


def test_response_must_be_one(response):
    with pytest.raises(TypeError, match="response must be a TemperatureResponse, found Quantity"):
        BasisPursuit(response.matrix)


@pytest.mark.parametrize("factor", [-1, 0])
def test_response_must_not_be_negative_or_dead(response, factor):
    curves = response.curves.copy()
    curves[3] *= factor
    with pytest.raises(ValueError, match="response must not be negative"):
        BasisPursuit(TemperatureResponse(response.temperature, curves))


@pytest.mark.parametrize(
    ("intensity", "uncertainty", "match"),
    [
        (np.ones((5, 3)), np.ones((5, 3)), r"intensity must have shape \(6, \.\.\.\).*found \(5, 3\)"),
        (np.ones((3, 6)), np.ones((3, 6)), "moveaxis"),
        (1.0, 1.0, r"intensity must have shape"),
        (np.ones((6, 3)), np.ones(6), r"uncertainty must have the shape of intensity, \(6, 3\), found \(6,\)"),
    ],
)
def test_pixels_that_do_not_fit_are_refused(response, intensity, uncertainty, match):
    with pytest.raises(ValueError, match=match):
        BasisPursuit(response).solve(intensity, uncertainty)


@pytest.mark.parametrize(
    ("intensity", "uncertainty", "match"),
    [
        (np.ones(6, dtype=complex), np.ones(6), "intensity must be an array of real numbers .* of dtype complex"),
        (np.ones(6), np.array(["1"] * 6), "uncertainty must be an array of real numbers"),
        (np.ones(6) << u.K, np.ones(6), "intensity must be a plain array, found one in K"),
    ],
)
def test_pixels_that_are_no_plain_numbers_are_refused(response, intensity, uncertainty, match):
    with pytest.raises(TypeError, match=match):
        BasisPursuit(response).solve(intensity, uncertainty)


@pytest.mark.parametrize("processes", [0, -1, 1.5])
def test_number_of_processes_must_be_positive(response, pixels, processes):
    with pytest.raises(ValueError, match="processes must be a positive whole number"):
        BasisPursuit(response).solve(*pixels, processes=processes)
