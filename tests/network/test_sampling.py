"""Common random numbers, and intervals of draws."""

import numpy as np
import pytest
import torch
from scipy import stats

from sunpy_deepem.network.sampling import common_numbers, half_width


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_half_width_is_half_of_the_68_percent_interval(convert):
    draws = np.random.default_rng(0).permutation(np.linspace(5, 6, 101))[:, None] * [1.0, 10.0]
    np.testing.assert_allclose(half_width(convert(draws)), [0.34, 3.4])


def test_first_numbers_do_not_depend_on_how_many_there_are():
    few, many = common_numbers(5, 3, 18, 6), common_numbers(64, 3, 18, 6)
    for one, other in zip(few, many, strict=True):
        assert torch.equal(one, other[:5])
    assert not torch.equal(common_numbers(5, 4, 18, 6).deviates, few.deviates)


def test_distribution_of_the_numbers():
    numbers = common_numbers(1024, 0, 18, 6)
    assert numbers.deviates.shape == (1024, 18)
    assert numbers.noise.shape == (1024, 6)
    for values, distribution in ((numbers.deviates, stats.t(8)), (numbers.noise, stats.norm())):
        assert values.mean().item() == pytest.approx(0, abs=0.01)
        for part in (0.05, 0.16, 0.5, 0.84, 0.95):
            below = (values.numpy() < distribution.ppf(part)).mean(axis=0)
            np.testing.assert_allclose(below, part, atol=0.015)
    assert numbers.choice.mean().item() == pytest.approx(0.5, abs=0.01)
    assert numbers.bare.float().mean().item() == 0.5
    # Neither whether the trace is absent nor the noise depends on the component.
    everything = torch.hstack([numbers.choice[:, None], numbers.bare[:, None], numbers.deviates, numbers.noise])
    correlation = torch.corrcoef(everything.T).fill_diagonal_(0)
    # Of independent random numbers it would be 0.031.
    assert correlation.square().mean().sqrt() < 0.02
