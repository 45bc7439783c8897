"""Uncertainties that are computed on first use."""

import copy
import pickle

import numpy as np
import pytest
from astropy.nddata import NDData, StdDevUncertainty

from sunpy_deepem.utils.uncertainty import ComputedUncertainty


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
