"""Flags that follow from EM and χ²."""

import numpy as np
import pytest

from sunpy_deepem import LogTBins, Quality
from sunpy_deepem.cube.fit import fit_flags


def flags(fraction, index, bins=None, chi2=1.0):
    """Return the flags of an EM of which one bin has a fraction, and the middle bin the rest."""
    bins = LogTBins() if bins is None else bins
    em = np.zeros((len(bins), 1))
    em[len(bins) // 2], em[index] = 1 - fraction, fraction
    return Quality(int(fit_flags(em * 1e27, np.array([chi2]), bins)[0]))


@pytest.mark.parametrize("index", [0, 1, -2, -1])
def test_edge_is_a_quarter_of_the_em_in_the_first_or_last_0p2_dex(index):
    assert flags(0.26, index) == Quality.EDGE
    assert flags(0.24, index) == Quality(0)


@pytest.mark.parametrize("index", [2, -3])
def test_other_bins_are_no_edge(index):
    assert flags(0.4, index) == Quality(0)


@pytest.mark.parametrize(("step", "n"), [(0.05, 4), (0.1, 2), (0.2, 1), (0.5, 1)])
def test_edge_of_other_bins(step, n):
    bins = LogTBins(step=step, n=11)
    assert flags(0.4, n - 1, bins) == flags(0.4, -n, bins) == Quality.EDGE
    assert flags(0.4, n, bins) == flags(0.4, -n - 1, bins) == Quality(0)


def test_both_edges_do_not_add_up():
    em = np.zeros((18, 1))
    em[[0, 9, -1]] = [[0.2], [0.6], [0.2]]
    assert not fit_flags(em, np.ones(1), LogTBins()).any()


@pytest.mark.parametrize(("chi2", "expected"), [(2.9, Quality(0)), (3.1, Quality.HIGH_CHI2), (np.nan, Quality(0))])
def test_high_chi2(chi2, expected):
    assert flags(0, 0, chi2=chi2) == expected
    assert flags(0.5, 0, chi2=chi2) == expected | Quality.EDGE
