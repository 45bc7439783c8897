"""Bins of log T."""

import astropy.units as u
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sunpy_deepem import LogTBins
from sunpy_deepem.temperature import BANDS

axes = st.builds(LogTBins, st.floats(4, 7), st.floats(0.01, 0.5), st.integers(2, 60))


def test_default():
    bins = LogTBins()
    assert len(bins) == 18
    np.testing.assert_allclose(bins.centers, np.arange(55, 73) / 10, rtol=0, atol=1e-12)
    np.testing.assert_allclose(bins.edges[[0, 1, -1]], [5.45, 5.55, 7.25], rtol=0, atol=1e-12)


def test_widths():
    bins = LogTBins()
    assert bins.widths.unit == bins.temperatures.unit == u.K
    assert bins.widths.sum().value == pytest.approx(10**7.25 - 10**5.45)
    assert bins.widths[5].value == pytest.approx(10**6.05 - 10**5.95)
    assert bins.temperatures[5].value == pytest.approx(1e6)


@given(axes)
def test_from_centers(bins):
    again = LogTBins.from_centers(bins.centers)
    assert len(again) == len(bins)
    np.testing.assert_allclose(again.edges, bins.edges, rtol=0, atol=1e-6)


@given(axes, st.data())
def test_slices(bins, data):
    start = data.draw(st.integers(0, len(bins) - 1))
    stop = data.draw(st.integers(start + 1, len(bins)))
    np.testing.assert_allclose(bins[start:stop].centers, bins.centers[start:stop], rtol=0, atol=1e-8)
    np.testing.assert_allclose(bins[start:stop].edges, bins.edges[start : stop + 1], rtol=0, atol=1e-8)


def test_negative_slices():
    assert LogTBins()[-3:] == LogTBins(7.0, 0.1, 3)


@pytest.mark.parametrize("item", [3, -1, (1, 2), [1, 2], Ellipsis])
def test_other_indices(item):
    with pytest.raises(TypeError, match="LogTBins take slices only"):
        LogTBins()[item]


@pytest.mark.parametrize("item", [slice(None, None, 2), slice(None, None, -1), slice(5, 5), slice(20, None)])
def test_invalid_slices(item):
    with pytest.raises(ValueError, match="must be contiguous, ascending and not empty"):
        LogTBins()[item]


def test_equality():
    assert LogTBins() == LogTBins(5.5, 0.1, 18)
    assert hash(LogTBins()) == hash(LogTBins(5.5, 0.1, 18))
    assert LogTBins() == LogTBins.from_centers(np.linspace(5.5, 7.2, 18))
    assert LogTBins() != LogTBins(n=17)
    assert LogTBins() != LogTBins(5.6)
    assert LogTBins() != LogTBins(step=0.11)
    assert LogTBins() != 18


@pytest.mark.parametrize("shift", [1e-9, 4e-7, 6e-7, 1e-5])
@pytest.mark.parametrize("first", [5.5, 5.5000004])
def test_equal_bins_have_equal_hashes(first, shift):
    bins, others = LogTBins(first), LogTBins(first + shift)
    assert (bins == others) == (hash(bins) == hash(others))


def test_single_precision():
    assert LogTBins.from_centers(LogTBins().centers.astype(np.float32)) == LogTBins()


def test_repr():
    bins = LogTBins(5.6, 0.05, 7)
    assert eval(repr(bins)) == bins


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"first": np.nan}, "first"),
        ({"first": np.inf}, "first"),
        ({"step": 0}, "step"),
        ({"step": -0.1}, "step"),
        ({"step": np.nan}, "step"),
        ({"n": 0}, "n"),
        ({"n": 2.5}, "n"),
        ({"n": -3}, "n"),
        ({"n": 10**9}, "n"),
    ],
)
def test_invalid_arguments(arguments, name):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        LogTBins(**arguments)


@pytest.mark.parametrize(
    "centers", [[5.5], [[5.5, 5.6]], [5.5, 5.6, 5.8], [5.6, 5.5], [5.5, 5.5], [5.5, np.nan], [5.5, np.inf]]
)
def test_invalid_centers(centers):
    with pytest.raises(ValueError, match=r"^centers must"):
        LogTBins.from_centers(centers)


def test_bands_are_adjacent_and_within_the_bins():
    edges = LogTBins().edges
    limits = [edges[0], *(limit for band in BANDS for limit in band), edges[-1]]
    assert limits == sorted(limits)
    assert [low for low, _ in BANDS[1:]] == [high for _, high in BANDS[:-1]]


def test_em_and_dem():
    bins = LogTBins(6.0, 0.2, 2)
    widths = [10**6.1 - 10**5.9, 10**6.3 - 10**6.1]
    em = np.array([[1e27, 3e27, 0], [2e27, 5e27, 1e26]]) * u.cm**-5
    dem = bins.em_to_dem(em)
    assert dem.unit == u.cm**-5 / u.K
    np.testing.assert_allclose(dem.value, em.value / np.reshape(widths, (2, 1)))
    np.testing.assert_allclose(bins.dem_to_em(dem.to(u.m**-5 / u.K)), em)
    with pytest.raises(ValueError, match=r"dem must have the 2 bins along its first axis, found shape \(3, 2\)"):
        bins.dem_to_em(dem.T)
