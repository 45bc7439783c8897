"""Tests of quantiles and intervals from draws."""

import numpy as np
import pytest

from sunpy_deepem.analysis.intervals import TRACE, contraction, half_width, quantiles, quantiles_of


@pytest.fixture
def draws():
    return np.random.default_rng(0).lognormal(58, 1, (64, 18, 30)).astype(np.float32)


@pytest.mark.parametrize("q", [0.5, (0, 0.16, 0.5, 0.84, 0.995, 1), [0.3]])
def test_quantiles_equal_numpy(draws, q):
    expected = np.quantile(draws[:, 3].astype(float), q, axis=0)
    found = quantiles(draws[:, 3], q)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found.dtype == np.float32


def test_input_is_not_changed(draws):
    before = draws.copy()
    quantiles(draws, 0.5)
    quantiles(np.moveaxis(draws, 0, -1).copy().transpose(2, 0, 1), 0.5)
    np.testing.assert_array_equal(draws, before)


def test_one_draw():
    np.testing.assert_array_equal(quantiles(np.array([[1.0, 2.0]]), (0.16, 0.84)), [[1, 2], [1, 2]])
    np.testing.assert_array_equal(half_width(np.array([[1.0, 2.0]])), 0)


def test_nan_pixels(draws):
    draws[5, :, 7] = np.nan
    found = quantiles_of(lambda em: em.sum(axis=0), draws, (0.16, 0.84))
    assert np.isnan(found[:, 7]).all()
    assert np.isfinite(np.delete(found, 7, axis=1)).all()
    assert np.isnan(quantiles(draws[:, 3], 0.5)[7])
    assert np.isnan(contraction(draws, np.ones(18))[:, 7]).all()


def test_quantiles_are_over_draws(draws):
    found = quantiles_of(lambda em: em.sum(axis=0), draws, (0.16, 0.84))
    np.testing.assert_allclose(found, np.quantile(draws.sum(axis=1), (0.16, 0.84), axis=0), rtol=1e-6)


def test_tiles_equal_whole(draws):
    def total(em):
        return em.sum(axis=0)

    whole = quantiles_of(total, draws, (0.16, 0.84))
    parts = [quantiles_of(total, draws[:, :, part], (0.16, 0.84)) for part in (slice(0, 11), slice(11, None))]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


def test_half_width_of_a_gaussian():
    values = np.random.default_rng(1).normal(3, 2, (40_000, 2))
    np.testing.assert_allclose(half_width(values), 2, rtol=0.02)


def test_contraction():
    rng = np.random.default_rng(2)
    shape = rng.normal(0, [[0.1], [1.0], [1.0]], (20_000, 3, 1))
    draws = np.exp(np.concatenate([shape, np.full((20_000, 1, 1), 5.0)], axis=1))
    found = contraction(draws, [1, 2, 0.5, 1])[:, 0]
    np.testing.assert_allclose(found, [0.99, 0.75, 0, 1], atol=0.02)


def test_contraction_of_bands():
    """The standard deviation of a band over the prior is the mean of its bins'."""
    draws = np.random.default_rng(3).lognormal(0, 0.5, (1000, 3, 1))
    weights = np.array([[1.0, 1.0, 0.0], [0.0, 0.5, 0.5]])
    fractions = np.einsum("bj,njp->nbp", weights, draws) / draws.sum(axis=1, keepdims=True)
    expected = 1 - np.log(fractions + TRACE).var(axis=0) / np.array([[1.0], [1.25]]) ** 2
    np.testing.assert_allclose(contraction(draws, [0.5, 1.5, 1.0], weights), expected, rtol=1e-6)


@pytest.mark.parametrize("q", [-0.1, (0.5, 1.1), (), np.nan])
def test_invalid_quantile(q):
    with pytest.raises(ValueError, match="quantiles must be numbers between 0 and 1"):
        quantiles(np.ones((3, 2)), q)


@pytest.mark.parametrize("shape", [(), (0, 4)])
def test_no_draws(shape):
    with pytest.raises(ValueError, match="values must hold draws"):
        quantiles(np.ones(shape), 0.5)
