"""
Quantiles and intervals of derived quantities from posterior draws of EM, on plain arrays.

Draws have shape ``(n, n_bins, pixels)``. A quantity is a function of an EM array with bins along the first axis, as in
`sunpy_deepem.analysis.derived`. The functions keep the precision of the draws and treat each pixel by itself, so that
an image can be processed in tiles.
"""

import numpy as np

from sunpy_deepem.analysis.derived import weighted_sum
from sunpy_deepem.units import COVERAGE, TRACE

__all__ = ["contraction", "half_width", "quantiles", "quantiles_of"]


def quantiles(values, q):
    """
    Return quantiles along the first axis, as `numpy.quantile` does, but faster for images.

    Parameters
    ----------
    values : `~numpy.ndarray`
        Draws of a quantity, shape ``(n, ...)``.
    q : `float` or sequence of `float`
        Quantiles between 0 and 1.

    Returns
    -------
    `~numpy.ndarray`
        Shape ``(...)`` for one quantile, ``(len(q), ...)`` for several; NaN where a draw is NaN.

    Raises
    ------
    ValueError
        If a quantile is not between 0 and 1, or there are no draws.

    Examples
    --------
    >>> from sunpy_deepem.analysis.intervals import quantiles
    >>> quantiles(np.array([3.0, 1.0, 2.0]), (0.25, 0.5))
    array([1.5, 2. ])
    """
    values, q = np.asarray(values), np.asarray(q, dtype=float)
    if not (q.size and ((q >= 0) & (q <= 1)).all()):
        msg = f"quantiles must be numbers between 0 and 1, found {q.tolist()}."
        raise ValueError(msg)
    if values.ndim == 0 or len(values) == 0:
        msg = f"values must hold draws along the first axis, found shape {values.shape}."
        raise ValueError(msg)
    # Sorting along a contiguous axis is ten times faster.
    ordered = np.ascontiguousarray(np.moveaxis(values, 0, -1))
    ordered.sort(axis=-1)
    position = q * (len(values) - 1)
    below = np.floor(position).astype(int)
    weight = (position - below).astype(ordered.dtype)
    above = np.minimum(below + 1, len(values) - 1)
    low, high = ordered[..., below], ordered[..., above]
    with np.errstate(invalid="ignore"):
        found = low + (high - low) * weight
    # NaN is sorted to the end.
    unknown = np.isnan(ordered[..., -1:] if q.ndim else ordered[..., -1])
    found = np.where(unknown, np.asarray(np.nan, found.dtype), found)
    return np.moveaxis(found, -1, 0) if q.ndim else found[()]


def quantiles_of(function, draws, q):
    """
    Return quantiles of a quantity over posterior draws.

    Parameters
    ----------
    function : callable
        Takes EM of shape ``(n_bins, ...)`` and returns the quantity, shape ``(...)``.
    draws : `~numpy.ndarray`
        EM per bin, shape ``(n, n_bins, ...)``.
    q : `float` or sequence of `float`
        Quantiles between 0 and 1.

    Returns
    -------
    `~numpy.ndarray`
        As `quantiles`, in the unit of the quantity.

    Examples
    --------
    >>> from sunpy_deepem.analysis.intervals import quantiles_of
    >>> draws = np.array([[1.0, 2.0], [2.0, 3.0], [3.0, 4.0]])
    >>> float(quantiles_of(lambda em: em.sum(axis=0), draws, 0.5))
    5.0
    """
    return quantiles(function(np.swapaxes(draws, 0, 1)), q)


def half_width(values):
    """
    Return half the width of the central 68 % interval of draws, along the first axis.

    Parameters
    ----------
    values : `~numpy.ndarray`
        Draws of a quantity, shape ``(n, ...)``.

    Returns
    -------
    `~numpy.ndarray`
        Shape ``(...)``; NaN where a draw is NaN.
    """
    low, high = quantiles(values, ((1 - COVERAGE) / 2, (1 + COVERAGE) / 2))
    return (high - low) / 2


def contraction(draws, prior_log_std, weights=None):
    """
    Return how much the data narrow an EM: 1 − posterior variance / prior variance of ln(EM / total EM + `TRACE`).

    Near 1 the data determine the EM; near 0 the answer is the prior.

    Parameters
    ----------
    draws : `~numpy.ndarray`
        EM per bin, shape ``(n, n_bins, ...)``.
    prior_log_std : `~numpy.ndarray`
        Standard deviation of ln(EM / total EM + `TRACE`) of each bin over the prior, shape ``(n_bins,)``.
    weights : `~numpy.ndarray`, optional
        Fraction of each bin that belongs to each of several bands, shape ``(n_bands, n_bins)``; by default the bins
        themselves. The standard deviation of a band over the prior is taken to be the mean of its bins', as they vary
        together; in bands of 0.4 dex it is within 20 %.

    Returns
    -------
    `~numpy.ndarray`
        Between 0 and 1, shape ``(n_bands, ...)``; NaN where a draw is NaN.

    Examples
    --------
    >>> from sunpy_deepem.analysis.intervals import contraction
    >>> draws = np.array([[1.0, 2.0], [1.0, 2.0]])
    >>> contraction(draws, np.ones(2))
    array([1., 1.])
    """
    draws = np.asarray(draws)
    weights = np.eye(len(prior_log_std)) if weights is None else weights
    stds = weights @ prior_log_std / weights.sum(axis=1)
    result = np.empty((len(weights), *draws.shape[2:]), dtype=draws.dtype)
    em = np.swapaxes(draws, 0, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        total = draws.sum(axis=1)
        # Band by band, which stays in the cache.
        for index, (weight, std) in enumerate(zip(weights, stds, strict=True)):
            result[index] = 1 - np.log(weighted_sum(weight, em) / total + np.float32(TRACE)).var(axis=0) / std**2
    return np.maximum(result, 0)
