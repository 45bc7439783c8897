"""Teachers are called alike, whatever they are, and what they return is not taken on trust."""

import sys

import numpy as np
import pytest

from sunpy_deepem import TemperatureResponse
from sunpy_deepem.methods import teachers as solvers
from sunpy_deepem.methods.basis_pursuit import BasisPursuit, SolveStatus
from sunpy_deepem.methods.teachers import BasisPursuitTeacher, DemregTeacher, Teacher, get_teacher, run_teacher


@pytest.fixture(scope="module")
def response():
    return TemperatureResponse.default()


@pytest.fixture
def pixels(response):
    """Eight pixels of one log-normal component at log T 6.0 to 6.35, σ 10 %, shape (6, 2, 4)."""
    log_t = response.bins.centers[:, np.newaxis]
    em = 1e27 * np.exp(-0.5 * ((log_t - np.linspace(6.0, 6.35, 8)) / 0.15) ** 2)
    intensity = (response.matrix.value @ em).reshape(6, 2, 4)
    return intensity, 0.1 * intensity


def returning(em, status):
    """A teacher that returns just that, whatever it is asked."""
    return lambda intensity, uncertainty, response: (em, status)


def test_basis_pursuit_teacher_answers_as_basis_pursuit(response, pixels):
    em, status = run_teacher(BasisPursuitTeacher(tolerance=1.0), *pixels, response)
    expected_em, expected_status = BasisPursuit(response, tolerance=1.0).solve(*pixels)
    np.testing.assert_array_equal(em, expected_em)
    np.testing.assert_array_equal(status, expected_status)


def test_teachers_are_found_by_name():
    assert isinstance(get_teacher("basis-pursuit"), BasisPursuitTeacher)
    assert get_teacher("basis-pursuit", tolerance=2.0).options == {"tolerance": 2.0}
    assert get_teacher("demreg", max_iter=3).options["max_iter"] == 3


@pytest.mark.parametrize("name", ["basis pursuit", "", None, ["demreg"]])
def test_unknown_name_lists_the_known_ones(name):
    with pytest.raises(ValueError, match="'basis-pursuit', 'demreg'"):
        get_teacher(name)


def test_each_teacher_and_any_function_is_a_teacher():
    for teacher in (BasisPursuitTeacher(), DemregTeacher(), returning(None, None)):
        assert isinstance(teacher, Teacher)


def test_function_of_the_user_is_a_teacher(response, pixels):
    asked = []

    def teacher(intensity, uncertainty, given_response):
        asked.append((intensity.shape, uncertainty.shape, given_response))
        status = np.zeros(intensity.shape[1:], dtype=int)
        em = np.ones((18, *status.shape))
        em[:, 0, 0], status[0, 0] = np.nan, 7  # what it could not do
        return em, status

    em, status = run_teacher(teacher, *pixels, response)
    assert asked == [((6, 2, 4), (6, 2, 4), response)]
    assert em.shape == (18, 2, 4)
    assert status[0, 0] == 7


GOOD_EM, GOOD_STATUS = np.ones((18, 2, 4)), np.zeros((2, 4), dtype=int)


@pytest.mark.parametrize(
    ("em", "status", "match"),
    [
        (GOOD_EM[:17], GOOD_STATUS, r"em of shape \(18, 2, 4\), .* found \(17, 2, 4\)"),
        (np.moveaxis(GOOD_EM, 0, -1), GOOD_STATUS, r"found \(2, 4, 18\)"),
        (GOOD_EM, GOOD_STATUS.ravel(), r"status of shape \(2, 4\), .* found \(8,\)"),
        (-GOOD_EM, GOOD_STATUS, "negative or not finite in 8 of 8"),
        (np.where(np.arange(4) == 1, np.nan, GOOD_EM), GOOD_STATUS, "negative or not finite in 2 of 8"),
        (np.where(np.arange(4) == 1, np.inf, GOOD_EM), GOOD_STATUS, "negative or not finite in 2 of 8"),
    ],
)
def test_wrong_values_from_a_teacher_are_refused(response, pixels, em, status, match):
    with pytest.raises(ValueError, match=match):
        run_teacher(returning(em, status), *pixels, response)


@pytest.mark.parametrize(
    ("em", "status", "match"),
    [
        (GOOD_EM.astype(int), GOOD_STATUS, "em as an array of floating-point numbers in cm-5, found dtype int64"),
        (None, GOOD_STATUS, "em as an array of floating-point numbers"),
        (GOOD_EM, GOOD_STATUS.astype(float), "status as integers, .* found dtype float64"),
        (GOOD_EM, GOOD_STATUS.astype(bool), "status as integers, .* found dtype bool"),
    ],
)
def test_wrong_types_from_a_teacher_are_refused(response, pixels, em, status, match):
    with pytest.raises(TypeError, match=match):
        run_teacher(returning(em, status), *pixels, response)


def test_em_with_a_unit_is_refused_rather_than_stripped(response, pixels):
    em = GOOD_EM * (1 / response.matrix[0, 0]) * response.matrix[0, 0]
    with pytest.raises(TypeError, match="plain array in cm-5"):
        run_teacher(returning(em, GOOD_STATUS), *pixels, response)


def test_teacher_that_returns_no_pair_is_refused(response, pixels):
    with pytest.raises(TypeError, match=r"pair \(em, status\), found ndarray"):
        run_teacher(lambda *_: GOOD_EM, *pixels, response)


def test_name_in_place_of_a_teacher_points_to_get_teacher(response, pixels):
    with pytest.raises(TypeError, match=r"get_teacher\('demreg'\)"):
        run_teacher("demreg", *pixels, response)


def test_arguments_are_checked_before_the_teacher_is_called(response, pixels):
    def never(*_):
        pytest.fail("the teacher was called")

    with pytest.raises(TypeError, match="response must be a TemperatureResponse"):
        run_teacher(never, *pixels, response.matrix)
    with pytest.raises(ValueError, match="uncertainty must have the shape of intensity"):
        run_teacher(never, pixels[0], pixels[1][:, 0], response)


def test_missing_demregpy_names_the_extra(response, pixels, monkeypatch):
    monkeypatch.setitem(sys.modules, "demregpy", None)
    with pytest.raises(ImportError, match=r"sunpy_deepem\[demregpy\]"):
        DemregTeacher()(*pixels, response)


class TestDemreg:
    @pytest.fixture(autouse=True)
    def _needs_demregpy(self):
        pytest.importorskip("demregpy")

    def test_em_reproduces_the_intensities_that_demregpy_fitted(self, response, pixels):
        em, status = run_teacher(get_teacher("demreg"), *pixels, response)
        assert (status == 0).all()
        matrix, bins = response.matrix.value, response.bins
        channels_last = (np.moveaxis(array, 0, -1) for array in pixels)
        fitted = solvers._import_dn2dem()(
            *channels_last, matrix.T, bins.centers, 10**bins.edges, dem_norm0=np.ones((2, 4, 18))
        )[4]
        np.testing.assert_allclose(np.tensordot(matrix, em, 1), np.moveaxis(fitted, -1, 0), rtol=1e-6)

    def test_bad_pixels_have_a_status_and_harm_no_other(self, response, pixels):
        intensity, uncertainty = pixels
        expected, _ = DemregTeacher()(intensity, uncertainty, response)
        intensity[2, 0, 0] = np.nan
        uncertainty[1, 0, 1] = 0
        intensity[0, 1, 2] = -0.1
        em, status = run_teacher(DemregTeacher(), intensity, uncertainty, response)
        bad = {(0, 0): SolveStatus.INVALID, (0, 1): SolveStatus.INVALID, (1, 2): SolveStatus.NO_SIGNAL}
        assert {tuple(map(int, index)): status[tuple(index)] for index in np.argwhere(status)} == bad
        assert np.isnan(em[:, status != 0]).all()
        np.testing.assert_allclose(em[:, status == 0], expected[:, status == 0])

    def test_negative_answer_has_a_status(self, response, pixels):
        intensity, uncertainty = pixels
        intensity[2] *= 0.05  # 171 Å all but dark cannot be met with a positive EM at the first attempt
        em, status = run_teacher(DemregTeacher(max_iter=1), intensity, uncertainty, response)
        assert (status == SolveStatus.NEGATIVE).any()
        assert np.isnan(em[:, status == SolveStatus.NEGATIVE]).all()

    def test_error_is_narrowed_down_to_its_pixel(self, response, pixels, monkeypatch):
        original = solvers._call_dn2dem

        def fragile(response, options, intensity, uncertainty):
            if (intensity[:, 0] > 1e6).any():
                msg = "SVD did not converge"
                raise np.linalg.LinAlgError(msg)
            return original(response, options, intensity, uncertainty)

        monkeypatch.setattr(solvers, "_call_dn2dem", fragile)
        intensity, uncertainty = pixels
        intensity[0, 1, 1] = 1e7
        _, status = run_teacher(DemregTeacher(), intensity, uncertainty, response)
        assert status[1, 1] == SolveStatus.SOLVER_FAILED
        assert np.count_nonzero(status) == 1

    @pytest.mark.parametrize("shape", [(), (1,), (2, 4), (0,)])
    def test_any_shape_of_pixels_is_kept(self, response, pixels, shape):
        n = int(np.prod(shape))
        chosen = (array.reshape(6, -1)[:, :n].reshape(6, *shape) for array in pixels)
        em, status = run_teacher(DemregTeacher(), *chosen, response)
        assert em.shape == (18, *shape)
        assert status.shape == shape

    def test_blocks_are_joined_in_order(self, response, pixels, monkeypatch):
        whole, _ = DemregTeacher()(*pixels, response)
        monkeypatch.setattr(solvers, "_DEMREG_BLOCK", 3)
        joined, _ = DemregTeacher()(*pixels, response)
        np.testing.assert_allclose(joined, whole)
