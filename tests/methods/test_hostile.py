"""Bad pixels and options for the methods that solve single pixels."""

import numpy as np
from hostile import INTENSITIES, QUICK, Table, pixels, response
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sunpy_deepem.methods import get_method
from sunpy_deepem.training import BasisPursuit, SolveStatus

pixels_table = Table("Pixels")
training_table = Table("Training")


@pixels_table("BasisPursuit.solve(intensity, σ)", *INTENSITIES)
def test_intensity(value, expected):
    with expected:
        BasisPursuit().solve(value, np.ones((6, 4)), response())


@pixels_table("BasisPursuit.solve(intensity, σ)", ("σ of 0", "NaN, with the status INVALID."))
def test_uncertainty_of_zero():
    solution = BasisPursuit().solve(pixels(), 0 * pixels(), response())
    assert (solution.status == SolveStatus.INVALID).all()


@training_table("get_method(method)", ("unknown", ValueError("method must be one of 'network'")))
def test_get_method(expected):
    with expected:
        get_method("x")


@training_table("BasisPursuit.solve(…, response)", ("a number", TypeError("response must be a TemperatureResponse")))
def test_response(expected):
    with expected:
        BasisPursuit().solve(pixels(), pixels(), 3)


@training_table("BasisPursuit(tolerance=)", ("a string", ValueError("tolerance must")))
def test_tolerance(expected):
    with expected:
        BasisPursuit(tolerance="a")


@QUICK
@given(intensity=arrays(float, (6, 2), elements=st.floats()), sigma=arrays(float, (6, 2), elements=st.floats()))
def test_any_pixel_is_solved_or_has_a_status(intensity, sigma):
    solution = BasisPursuit().solve(intensity, sigma, response())
    em, status = solution.em, solution.status
    assert np.isin(status, list(SolveStatus)).all()
    assert (em[:, status == 0] >= 0).all()
    assert np.isnan(em[:, status != 0]).all()
