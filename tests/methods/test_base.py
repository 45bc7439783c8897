"""Tests of the protocol of methods, of functions as methods, and of the lookup by name."""

import numpy as np
import pytest

from sunpy_deepem import DeepEM, TemperatureResponse
from sunpy_deepem.methods import (
    BasisPursuit,
    Demreg,
    FunctionMethod,
    Method,
    Solution,
    SolveStatus,
    Teacher,
    get_method,
)

GOOD_EM, GOOD_STATUS = np.ones((18, 8)), np.zeros(8, dtype=int)


@pytest.fixture(scope="module")
def response():
    return TemperatureResponse.default()


@pytest.fixture
def pixels():
    """Intensities and σ of eight pixels, shape (6, 2, 4)."""
    intensity = np.ones((6, 2, 4))
    return intensity, 0.1 * intensity


def returning(*values):
    """Return a method that always returns these values."""
    return FunctionMethod(lambda intensity, uncertainty, response: values)


def test_methods_of_the_package_satisfy_the_protocol():
    for method in (BasisPursuit(), Demreg(), DeepEM.load(), returning(None, None)):
        assert isinstance(method, Method)
        assert isinstance(method, Teacher)
    assert isinstance(lambda *_: None, Teacher)


def test_lookup_by_name():
    assert isinstance(get_method("basis-pursuit"), BasisPursuit)
    assert get_method("basis-pursuit", tolerance=2.0).tolerance == 2
    assert get_method("demregpy", max_iter=3).options["max_iter"] == 3
    assert isinstance(get_method("network"), DeepEM)


@pytest.mark.parametrize("name", ["basis pursuit", "", None, ["demreg"], BasisPursuit])
def test_unknown_name_lists_the_known_ones(name):
    with pytest.raises(ValueError, match="'network', 'basis-pursuit', 'demregpy'"):
        get_method(name)


def test_lookup_returns_methods_and_wraps_functions():
    solver = BasisPursuit()
    assert get_method(solver) is solver

    def function(*_):
        return None

    assert get_method(function).name == "function"
    with pytest.raises(TypeError, match="tolerance can be passed with the name of a method only"):
        get_method(solver, tolerance=1.0)


def test_options_of_the_network_do_not_change_the_original(response):
    network = DeepEM.load()
    intensity = np.array([0.8, 4.5, 140.0, 170.0, 50.0, 2.7])
    other = network.with_options(device="nowhere")
    assert other.module is network.module
    assert other.provenance == network.provenance
    with pytest.raises(ValueError, match="nowhere"):
        other.solve(intensity, 0.1 * intensity, response)
    network.solve(intensity, 0.1 * intensity, response)


def test_network_solves_and_compares_channels(response):
    intensity = np.tile(np.array([0.8, 4.5, 140.0, 170.0, 50.0, 2.7])[:, None], 2)
    intensity[:4, 1] = np.nan
    solution = DeepEM.load().solve(intensity, np.full_like(intensity, 1.0), response)
    assert isinstance(solution, Solution)
    assert solution.em.shape == solution.em_std.shape == (18, 2)
    assert solution.deviation.shape == (6, 2)
    assert solution.status.tolist() == [0, SolveStatus.INVALID]


class TestFunction:
    def test_is_called_with_the_pixels_that_have_all_channels(self, response, pixels):
        calls = []

        def function(intensity, uncertainty, given_response):
            calls.append((intensity.shape, uncertainty.shape, given_response))
            status = np.zeros(intensity.shape[1], dtype=int)
            status[0] = 7
            return np.ones((18, status.size)), status

        pixels[0][3, 1, 1] = np.nan
        solution = FunctionMethod(function).solve(*pixels, response)
        assert calls == [((6, 7), (6, 7), response)]
        assert solution.em.shape == (18, 2, 4)
        assert solution.em_std is None
        assert solution.status.tolist() == [[7, 0, 0, 0], [0, SolveStatus.INVALID, 0, 0]]
        assert np.isnan(solution.em[:, solution.status != 0]).all()

    def test_may_return_an_uncertainty(self, response, pixels):
        solution = returning(GOOD_EM, GOOD_STATUS, 2 * GOOD_EM).solve(*pixels, response)
        np.testing.assert_array_equal(solution.em_std, 2)

    def test_bins_may_be_empty(self, response, pixels):
        solution = returning(np.where(np.arange(18)[:, np.newaxis] == 3, 0, GOOD_EM), GOOD_STATUS).solve(
            *pixels, response
        )
        assert (solution.status == 0).all()
        assert (solution.em[3] == 0).all()

    @pytest.mark.parametrize(
        ("em", "status", "match"),
        [
            (GOOD_EM[:17], GOOD_STATUS, r"em of shape \(18, 8\), .* found \(17, 8\)"),
            (np.moveaxis(GOOD_EM, 0, -1), GOOD_STATUS, r"found \(8, 18\)"),
            (GOOD_EM, GOOD_STATUS[:7], r"status of shape \(8,\), .* found \(7,\)"),
            (-GOOD_EM, GOOD_STATUS, "negative or not finite in 8 of 8"),
            (np.where(np.arange(8) % 4 == 1, np.nan, GOOD_EM), GOOD_STATUS, "negative or not finite in 2 of 8"),
            (np.where(np.arange(8) % 4 == 1, np.inf, GOOD_EM), GOOD_STATUS, "negative or not finite in 2 of 8"),
        ],
    )
    def test_wrong_values_raise(self, response, pixels, em, status, match):
        with pytest.raises(ValueError, match=match):
            returning(em, status).solve(*pixels, response)

    @pytest.mark.parametrize(
        ("em", "status", "match"),
        [
            (GOOD_EM.astype(int), GOOD_STATUS, "em as an array of floating-point numbers in cm-5, found dtype int64"),
            (None, GOOD_STATUS, "em as an array of floating-point numbers"),
            (GOOD_EM, GOOD_STATUS.astype(float), "status as integers, .* found dtype float64"),
            (GOOD_EM, GOOD_STATUS.astype(bool), "status as integers, .* found dtype bool"),
        ],
    )
    def test_wrong_types_raise(self, response, pixels, em, status, match):
        with pytest.raises(TypeError, match=match):
            returning(em, status).solve(*pixels, response)

    def test_em_with_a_unit_raises(self, response, pixels):
        em = GOOD_EM * (1 / response.matrix[0, 0]) * response.matrix[0, 0]
        with pytest.raises(TypeError, match="plain array in cm-5"):
            returning(em, GOOD_STATUS).solve(*pixels, response)

    def test_one_array_raises(self, response, pixels):
        with pytest.raises(TypeError, match=r"pair \(em, status\) .* found ndarray"):
            FunctionMethod(lambda *_: GOOD_EM).solve(*pixels, response)

    def test_arguments_are_checked_before_the_call(self, response, pixels):
        def never(*_):
            pytest.fail("the function was called")

        with pytest.raises(TypeError, match="response must be a TemperatureResponse"):
            FunctionMethod(never).solve(*pixels, response.matrix)
        with pytest.raises(ValueError, match="uncertainty must have the shape of intensity"):
            FunctionMethod(never).solve(pixels[0], pixels[1][:, 0], response)
