"""Uncertainties that are computed on first use, and errors of means."""

import copy
import pickle

import numpy as np
import pytest
from astropy.nddata import NDData, StdDevUncertainty

from sunpy_deepem.utils.uncertainty import ComputedUncertainty, common_error, sigma_of_mean

FRACTIONS = np.array([0.5, 0.25, 0.0])


@pytest.fixture
def calls():
    return []


@pytest.fixture
def uncertainty(calls):
    return ComputedUncertainty(lambda: calls.append(1) or np.array([1.0, 2.0]))


def test_computed_once_when_used(uncertainty, calls):
    data = NDData([3.0, 4.0], uncertainty=uncertainty)
    assert not calls
    for _ in range(2):
        np.testing.assert_array_equal(data.uncertainty.array, [1, 2])
    assert len(calls) == 1


@pytest.mark.parametrize(
    "use",
    [
        copy.deepcopy,
        lambda each: pickle.loads(pickle.dumps(each)),
        lambda each: each[:],
        lambda each: NDData([3.0, 4.0], uncertainty=NDData([1.0, 2.0], uncertainty=each).uncertainty).uncertainty,
        lambda each: each.represent_as(StdDevUncertainty),
    ],
    ids=["copy", "pickle", "slice", "second parent", "another class"],
)
def test_derived_uncertainties_hold_the_array(uncertainty, use):
    np.testing.assert_array_equal(use(uncertainty).array, [1, 2])


@pytest.fixture
def intensity():
    return np.random.default_rng(3).uniform(50, 150, (3, 20, 20))


def mean(image):
    return image.mean(axis=(-2, -1))


def test_common_errors_remain_and_noise_averages_out(intensity):
    noise = 8.0
    sigma = np.hypot(FRACTIONS[:, None, None] * intensity, noise)
    expected = np.hypot(FRACTIONS * mean(intensity), noise / 20)
    np.testing.assert_allclose(sigma_of_mean(intensity, sigma, FRACTIONS, mean, 400), expected)


def test_one_fraction_for_all_channels(intensity):
    sigma = 0.1 * intensity
    one = sigma_of_mean(intensity, sigma, np.array([0.1]), mean, 400)
    np.testing.assert_allclose(one, 0.1 * mean(intensity))
    np.testing.assert_allclose(sigma_of_mean(intensity, sigma, np.full(3, 0.1), mean, 400), one)


@pytest.mark.parametrize(
    ("provenance", "expected"),
    [({}, [0]), ({"systematic": None}, [0]), ({"systematic": 0.1}, [0.1]), ({"common_error": [0.1, 0.5]}, [0.1, 0.5])],
)
def test_common_error(provenance, expected):
    np.testing.assert_array_equal(common_error(provenance), expected)
