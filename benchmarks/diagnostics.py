"""
Calibration of a posterior from draws: ranks, coverage, TARP, contraction and z-scores.

Draws have shape ``(draws, ..., pixels)`` and truths ``(..., pixels)``. The functions do not depend on the package.

References
----------
Talts et al. (2018), https://doi.org/10.48550/arXiv.1804.06788: simulation-based calibration.

Säilynoja et al. (2022), Stat. Comput. 32, 32, https://doi.org/10.1007/s11222-022-10090-6: bands of rank ECDFs.

Lemos et al. (2023), https://doi.org/10.48550/arXiv.2302.03026: TARP.

Schad et al. (2021), Psychol. Methods 26, 103, https://doi.org/10.1037/met0000275: contraction and z-scores.
"""

import numpy as np
from scipy import stats

LEVELS = (0.50, 0.68, 0.90, 0.95)


def probability_transform(draws, truth, rng):
    """
    Return the fraction of the posterior below the truth, which is uniform on (0, 1) if the posterior is calibrated.

    It is the rank of the truth among the draws, spread over its step; ties are ranked at random.

    Parameters
    ----------
    draws : `~numpy.ndarray`
        Shape ``(draws, ...)``.
    truth : `~numpy.ndarray`
        Shape ``(...)``.
    rng : `~numpy.random.Generator`

    Returns
    -------
    `~numpy.ndarray`
        Shape ``(...)``.
    """
    below, ties = (draws < truth).sum(axis=0), (draws == truth).sum(axis=0)
    rank = below + rng.integers(0, ties + 1)
    return (rank + rng.random(rank.shape)) / (len(draws) + 1)


def uniformity(values):
    """Return the p-value of a Kolmogorov-Smirnov test that values, shape ``(..., pixels)``, are uniform on (0, 1)."""
    flat = values.reshape(-1, values.shape[-1])
    return np.array([stats.kstest(row, "uniform").pvalue for row in flat]).reshape(values.shape[:-1])


def holm(p):
    """Return p-values adjusted for the number of tests by Holm's method, of the same shape."""
    flat = np.ravel(p)
    order = np.argsort(flat)
    adjusted = np.maximum.accumulate(np.sort(flat) * (flat.size - np.arange(flat.size)))
    result = np.empty(flat.size)
    result[order] = np.minimum(adjusted, 1)
    return result.reshape(np.shape(p))


def coverage(transform, levels=LEVELS):
    """Return the fraction of truths in the central interval of each level, shape ``(levels, ...)``; NaN is ignored."""
    distance = np.abs(transform - 0.5)
    return np.array(
        [np.nanmean(np.where(np.isnan(distance), np.nan, distance <= level / 2), axis=-1) for level in levels]
    )


def binomial_band(level, n, confidence=0.95):
    """Return the range of the fraction of ``n`` truths that a calibrated interval of a level holds."""
    low, high = stats.binom.interval(confidence, n, level)
    return low / n, high / n


def ecdf_band(n, points=99, confidence=0.95, trials=2000, seed=0):
    """
    Return points in (0, 1) and the simultaneous band of the ECDF of ``n`` uniform values there, by simulation.

    Returns
    -------
    points, low, high : `~numpy.ndarray`
    """
    z = np.arange(1, points + 1) / (points + 1)
    values = np.sort(np.random.default_rng(seed).random((trials, n)), axis=1)
    counts = np.stack([np.searchsorted(row, z, side="right") for row in values])
    tail = 2 * np.minimum(stats.binom.cdf(counts, n, z), stats.binom.sf(counts - 1, n, z)).min(axis=1)
    gamma = np.quantile(tail, 1 - confidence)
    return z, stats.binom.ppf(gamma / 2, n, z) / n, stats.binom.isf(gamma / 2, n, z) / n


def tarp(draws, truth, limits, rng):
    """
    Return the fraction of draws nearer than the truth to a random point, uniform on (0, 1) if calibrated: TARP.

    It tests the joint distribution, but does not see a shift that all pixels share.

    Parameters
    ----------
    draws : `~numpy.ndarray`
        Shape ``(draws, dimensions, pixels)``.
    truth : `~numpy.ndarray`
        Shape ``(dimensions, pixels)``.
    limits : `tuple` of two `~numpy.ndarray`
        Limits of the random points, shape ``(dimensions, 1)`` each, such as the range of all truths.
    rng : `~numpy.random.Generator`

    Returns
    -------
    `~numpy.ndarray`
        Shape ``(pixels,)``.
    """
    low, high = limits
    scale = np.where(high > low, high - low, 1)
    point = low + scale * rng.random(truth.shape)
    distance = np.square((draws - point) / scale).sum(axis=1)
    return probability_transform(distance, np.square((truth - point) / scale).sum(axis=0), rng)


def tarp_area(values, points=100):
    """Return the mean distance of the expected coverage from its level, the area between TARP's curve and diagonal."""
    levels = (np.arange(points) + 0.5) / points
    return np.abs((values[:, np.newaxis] < levels).mean(axis=0) - levels).mean()


def contraction(draws, prior_variance):
    """Return 1 - posterior / prior variance: near one the data decide, near zero the prior."""
    return 1 - draws.var(axis=0) / np.expand_dims(prior_variance, -1)


def z_score(draws, truth):
    """Return the distance of the posterior mean from the truth in posterior standard deviations."""
    std = draws.std(axis=0)
    return (draws.mean(axis=0) - truth) / np.where(std > 0, std, np.inf)
