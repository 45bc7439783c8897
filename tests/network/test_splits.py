"""Coordinates of the EM: there and back, and what they mean."""

import numpy as np
import pytest
import torch

from sunpy_deepem.network.conditioning import Extra, _derivative
from sunpy_deepem.network.splits import children, coordinates, fractions, log_em, splits


@pytest.mark.parametrize("bins", [1, 2, 5, 18, 22])
def test_there_and_back(bins):
    torch.manual_seed(0)
    em = (5 * torch.randn(7, bins)).exp()
    np.testing.assert_allclose(log_em(coordinates(em)).numpy(), em.log().numpy(), atol=2e-5)


def test_coordinates_are_the_total_and_ratios_of_halves():
    em = torch.tensor([1.0, 2, 3, 4, 5])
    assert splits(5) == ((0, 3, 5), (0, 2, 3), (3, 4, 5), (0, 1, 2))
    expected = np.log([15, 6 / 9, 3 / 3, 4 / 5, 1 / 2])
    np.testing.assert_allclose(coordinates(em).numpy(), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fractions(coordinates(em)).numpy(), [6 / 15, 3 / 6, 4 / 9, 1 / 3], rtol=1e-5)


@pytest.mark.parametrize("bins", [2, 5, 18])
def test_each_range_and_bin_is_half_of_another_one(bins):
    assert sorted(child for pair in children(bins) for child in pair) == list(range(1, 2 * bins - 1))


def test_densities_of_coordinates_and_of_ln_em_are_equal():
    """The volume of both is the same, so that densities need no factor."""
    y = torch.randn(18, dtype=torch.float64)
    assert torch.linalg.det(torch.func.jacrev(log_em)(y)).abs().item() == pytest.approx(1)


def test_derivative_of_intensities():
    torch.manual_seed(0)
    y, matrix = torch.randn(1, 1, 18), torch.rand(1, 6, 18)
    extra = Extra(torch.zeros(1, 6), matrix, torch.full((1, 18), 3000.0))
    expected = torch.func.jacrev(lambda y: matrix[0] @ log_em(y).exp())(y[0, 0])
    np.testing.assert_allclose(_derivative(y, extra)[0, 0].numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)
