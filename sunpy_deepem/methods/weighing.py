"""Weights of prior draws for single pixels, for `sunpy_deepem.methods.Importance`."""

from typing import NamedTuple

import numpy as np
from scipy.special import log_ndtr

from sunpy_deepem.methods.base import checked_pixels

__all__ = [
    "QUANTILES",
    "UNIT",
    "PriorDraws",
    "draw",
    "pixels_of",
    "resampled",
    "resampled_factors",
    "summary",
    "weigh_all",
]

#: Quantiles that `Importance.solve` returns.
QUANTILES = (0.025, 0.16, 0.5, 0.84, 0.975)
#: Unit of the total EM in cm^-5, so that single precision suffices.
UNIT = 1e27
# Draws of one call of the prior.
_BATCH = 2**17
# Draws and pixels screened at a time: the arrays stay in cache.
_DRAW_TILE, _PIXEL_TILE = 16384, 32
# Draws whose summed χ² exceeds the best by more than this are dropped: e^-20 of its weight, or e^-30 where σ depends on
# the EM.
_SCREEN = {False: 40.0, True: 60.0}
# Fraction of the weight that dropping the lightest draws may lose.
_DROPPED = 1e-3
# Nodes of the integral over ln(total EM), and their reach from the best total in standard deviations.
_NODES, _REACH = 20, 5.0
# At most this many draws are weighed at all nodes; more are thinned in proportion to their weights.
_FOLLOWED = 4096
# Least curvature of χ² in the total, which avoids dividing by zero.
_TINY = np.float32(1e-30)
# Posterior draws from which quantiles are taken.
_RESAMPLED = 2000
# Steps towards the best total where lower limits matter. Each can switch off one channel; most pixels need two.
_STEPS = 4


class PriorDraws(NamedTuple):
    """Draws of the prior, without their totals."""

    #: EM of unit total, ``float32``, shape ``(bins, n)``.
    shape: np.ndarray
    #: Intensities at a total EM of 10^27 cm^-5, ``float32``, shape ``(channels, n)``.
    intensity: np.ndarray
    #: Limits of the total EM in 10^27 cm^-5, shape ``(2, n)``, between which it is log-uniform; equal if it is fixed.
    limits: np.ndarray
    #: Factors of the channels, ``float32``, shape ``(channels, n)``; one without uncertainty of the calibration.
    factor: np.ndarray


class _Pixel(NamedTuple):
    """The usable channels of one pixel; arrays have shape ``(channels used, 1)``."""

    used: np.ndarray
    intensity: np.ndarray
    variance: np.ndarray
    #: Whether the intensity is a lower limit.
    lower: np.ndarray


class _Weighted(NamedTuple):
    """Draws weighted by one pixel's likelihood."""

    #: Indices of draws, shape ``(k,)``; an index may occur more than once.
    chosen: np.ndarray
    #: Total EM at the nodes in 10^27 cm^-5, their spacing in ln(total), and normalized weights, shape ``(k, nodes)``.
    totals: np.ndarray
    steps: np.ndarray
    weights: np.ndarray
    ess: float


def draw(prior, bins, n, seed):
    """Return shapes ``(bins, n)`` and limits of the total ``(2, n)`` of ``n`` draws."""
    shape, limits = np.empty((bins, n), dtype=np.float32), np.empty((2, n), dtype=np.float32)
    rng = np.random.default_rng(seed)
    for start in range(0, n, _BATCH):
        part = slice(start, min(start + _BATCH, n))
        em, ranges = _batch(prior, part.stop - start, int(rng.integers(2**63)))
        em = np.asarray(em)
        if em.shape != (bins, part.stop - start) or not (np.isfinite(em).all() and (em >= 0).all()):
            msg = (
                f"prior must return finite, non-negative EM of shape {(bins, part.stop - start)}, bins first, "
                f"found shape {em.shape}."
            )
            raise ValueError(msg)
        total = em.sum(axis=0)
        if not (total > 0).all():
            msg = f"prior returned {np.count_nonzero(total <= 0)} distributions without EM. Give each a positive total."
            raise ValueError(msg)
        shape[:, part] = em / total
        limits[:, part] = total / UNIT if ranges is None else 10**ranges / UNIT
    return shape, limits


def _batch(prior, n, seed):
    """Return ``n`` draws and, if the prior knows it, the range of log10 of the total EM of each shape, ``(2, n)``."""
    if not hasattr(prior, "sample"):
        return prior(n, seed), None
    if not hasattr(prior, "log_total_em"):
        return prior.sample(n, seed=seed), None
    em, family = prior.sample(n, seed=seed, return_family=True)
    ranges = np.empty((2, n))
    for index, name in enumerate(prior.families):
        chosen = np.flatnonzero(family == index)
        ranges[:, chosen] = prior.log_total_em(name, em[:, chosen])
    return em, ranges


def pixels_of(intensity, uncertainty, lower_limit, response):
    """Return a list of `_Pixel`, `None` without a usable channel, and the shape of the sky."""
    intensity, uncertainty = checked_pixels(intensity, uncertainty, response)
    lower_limit = np.asarray(np.zeros(intensity.shape) if lower_limit is None else lower_limit, dtype=bool)
    if lower_limit.shape != intensity.shape:
        msg = f"lower_limit must have the shape of intensity, {intensity.shape}, found {lower_limit.shape}."
        raise ValueError(msg)
    shape = intensity.shape[1:]
    g, sigma, lower = (array.reshape(len(intensity), -1) for array in (intensity, uncertainty, lower_limit))
    usable = np.isfinite(g) & np.isfinite(sigma) & (sigma > 0)
    pixels = []
    for index in range(g.shape[1]):
        used = np.flatnonzero(usable[:, index])
        values = (g[used, index, np.newaxis], sigma[used, index, np.newaxis], lower[used, index, np.newaxis])
        pixels.append(_Pixel(used, values[0].astype(float), values[1].astype(float) ** 2, values[2]))
    return [pixel if pixel.used.size else None for pixel in pixels], shape


def weigh_all(pixels, draws, noise, seed):
    """Yield the index and the `_Weighted` draws of each usable pixel."""
    indices = [index for index, pixel in enumerate(pixels) if pixel is not None]
    for start in range(0, len(indices), _PIXEL_TILE):
        part = indices[start : start + _PIXEL_TILE]
        misfit = _screen([pixels[index] for index in part], draws)
        for row, index in zip(misfit, part, strict=True):
            pixel = pixels[index]
            least = row.min() if not pixel.lower.any() else _least_misfit(pixel, draws, row)
            # At huge χ² single precision does not resolve the margin, so equality counts.
            chosen = np.flatnonzero(row <= least + _SCREEN[noise is not None])
            yield index, _weigh(pixel, draws, chosen, noise, np.random.default_rng(seed))


def _screen(pixels, draws):
    """
    Return the least summed χ² of each draw with a total that its limits allow, shape ``(pixels, draws)``.

    Channels with lower limits are left out, so the result is a lower bound.
    """
    channels, n = draws.intensity.shape
    intensity, weight = np.zeros((2, len(pixels), channels), dtype=np.float32)
    for row, pixel in enumerate(pixels):
        intensity[row, pixel.used] = pixel.intensity[:, 0]
        weight[row, pixel.used] = (~pixel.lower / pixel.variance)[:, 0]
    first, zeroth = weight * intensity, np.sum(weight * intensity**2, axis=1, keepdims=True)
    misfit = np.empty((len(pixels), n), dtype=np.float32)
    for start in range(0, n, _DRAW_TILE):
        part = slice(start, start + _DRAW_TILE)
        model = draws.intensity[:, part]
        slope, curvature = first @ model, weight @ np.square(model)
        total = np.clip(slope / np.maximum(curvature, _TINY), *draws.limits[:, np.newaxis, part])
        misfit[:, part] = zeroth - total * (2 * slope - total * curvature)
    return misfit


def _least_misfit(pixel, draws, misfit):
    """Return the least summed χ², lower limits included, among the draws that fit the measured channels best."""
    few = np.argpartition(misfit, min(_FOLLOWED, misfit.size - 1))[:_FOLLOWED]
    model = draws.intensity[np.ix_(pixel.used, few)].astype(float)
    fit = _best_total(pixel, model, pixel.variance, draws.limits[:, few].astype(float))
    return -2 * fit.log_likelihood.max() - np.sum(np.log(pixel.variance), where=~pixel.lower)


def _weigh(pixel, draws, chosen, noise, rng):
    """Weight the chosen draws at several totals by the likelihood of one pixel."""
    model = draws.intensity[np.ix_(pixel.used, chosen)].astype(float)
    limits = draws.limits[:, chosen].astype(float)

    def variance_of(intensity):
        if noise is None:
            return pixel.variance.reshape(-1, *[1] * (intensity.ndim - 1))
        every = np.zeros((len(draws.intensity), *intensity.shape[1:]))
        every[pixel.used] = intensity
        return noise(every)[pixel.used]

    fit = _best_total(pixel, model, pixel.variance, limits)
    for _ in range(0 if noise is None else 2):
        fit = _best_total(pixel, model, variance_of(model * fit.best), limits)
    span = np.log(limits[1] / limits[0])
    fixed = span == 0
    prior = np.where(fixed, 1, 1 / np.where(fixed, 1, span))
    # Approximate integral over ln(total), times the prior: good enough to drop draws without weight.
    log_weight = fit.log_likelihood + np.log(prior)
    log_weight -= np.where(fixed, 0, np.log(fit.best * np.sqrt(fit.curvature) + 1))
    weight = np.exp(log_weight - log_weight.max())
    ess = _effective(weight)
    kept = np.flatnonzero(weight > _DROPPED * weight.mean())
    if thinned := kept.size > _FOLLOWED:
        kept = _systematic(weight, _FOLLOWED, rng)
    totals, steps = _nodes(_Fit(*(values[kept] for values in fit)), limits[:, kept])
    folded = model[:, kept, np.newaxis] * totals
    log_weight = _log_likelihood(pixel, folded, variance_of(folded))
    weights = np.exp(log_weight - log_weight.max()) * steps * prior[kept, np.newaxis]
    if thinned:
        weights /= weight[kept, np.newaxis]
    else:
        ess = _effective(weights.sum(axis=1))
    return _Weighted(chosen[kept], totals, np.where(fixed[kept, np.newaxis], 0, steps), weights / weights.sum(), ess)


class _Fit(NamedTuple):
    """Best total of each draw by the measured channels alone and within all limits, with its likelihood."""

    center: np.ndarray
    best: np.ndarray
    #: Curvature of χ²/2 of the measured channels in the total.
    curvature: np.ndarray
    log_likelihood: np.ndarray
    #: Part of ``log_likelihood`` due to lower limits.
    log_limited: np.ndarray


def _best_total(pixel, model, variance, limits):
    weight = ~pixel.lower / variance
    curvature = (weight * model**2).sum(axis=0)
    slope = (weight * model * pixel.intensity).sum(axis=0)
    center = slope / np.where(curvature > 0, curvature, 1)
    best = np.clip(center, *limits)
    # A lower limit acts as a measurement as long as the model is below it. These are Newton's steps, from below.
    for _ in range(_STEPS if pixel.lower.any() else 0):
        active = weight + (pixel.lower & (model * best < pixel.intensity)) / variance
        curved = (active * model**2).sum(axis=0)
        moved = (active * model * pixel.intensity).sum(axis=0) / np.where(curved > 0, curved, 1)
        best = np.where(curved > 0, np.clip(moved, *limits), best)
    folded = model * best
    log_limited = _log_limited(pixel, folded, variance)
    return _Fit(center, best, curvature, _log_measured(pixel, folded, variance) + log_limited, log_limited)


def _log_likelihood(pixel, folded, variance):
    return _log_measured(pixel, folded, variance) + _log_limited(pixel, folded, variance)


def _log_measured(pixel, folded, variance):
    shape = -1, *[1] * (folded.ndim - 1)
    misfit = (folded - pixel.intensity.reshape(shape)) ** 2 / variance + np.log(variance)
    return -0.5 * np.sum(misfit, axis=0, where=~pixel.lower.reshape(shape))


def _log_limited(pixel, folded, variance):
    """Log of the probability that saturated channels exceed their limits."""
    if not pixel.lower.any():
        return np.zeros(folded.shape[1:])
    shape = -1, *[1] * (folded.ndim - 1)
    excess = (folded - pixel.intensity.reshape(shape)) / np.sqrt(variance)
    return np.sum(log_ndtr(excess), axis=0, where=pixel.lower.reshape(shape))


def _nodes(fit, limits):
    """Return Gauss-Legendre nodes in ln(total) where a draw has weight, as totals, and the weights of the rule."""
    # The measured channels' likelihood falls by e^(-reach²/2) from the largest total likelihood.
    excess = _REACH**2 - 2 * fit.log_limited
    bounded = fit.curvature > 0
    reach = np.sqrt(excess / np.where(bounded, fit.curvature, 1) + (fit.best - fit.center) ** 2)
    reach = np.where(bounded, reach, np.inf)
    low = np.maximum(limits[0], fit.center - reach)
    width = np.log(np.minimum(limits[1], fit.center + reach) / low)
    fixed = limits[0] == limits[1]
    points, steps = np.polynomial.legendre.leggauss(_NODES)
    totals = low[:, np.newaxis] * np.exp(0.5 * width[:, np.newaxis] * (points + 1))
    # A fixed total has all nodes in one place, whose weights sum to one.
    return totals, 0.5 * np.where(fixed, 1, width)[:, np.newaxis] * steps


def _effective(weight):
    return weight.sum() ** 2 / np.square(weight).sum()


def _systematic(weight, n, rng):
    """Draw ``n`` indices in proportion to ``weight``, evenly spaced after a random start."""
    cumulative = np.cumsum(weight)
    where = (np.arange(n) + rng.random()) / n * cumulative[-1]
    return np.minimum(np.searchsorted(cumulative, where), cumulative.size - 1)


def resampled(draws, weighted, where, within):
    """Return draws in cm^-5, shape ``(bins, n)``, at quantiles ``where`` of the weights and ``within`` the nodes."""
    flat = _at_quantiles(weighted, where)
    # Spread over the space between nodes: few draws of great weight would leave gaps.
    totals = weighted.totals.ravel()[flat] * np.exp((within - 0.5) * weighted.steps.ravel()[flat])
    return draws.shape[:, weighted.chosen[flat // _NODES]] * (totals * UNIT)


def resampled_factors(draws, weighted, where, within):
    """Return the factors of the draws that `resampled` returns, shape ``(channels, n)``."""
    return draws.factor[:, weighted.chosen[_at_quantiles(weighted, where) // _NODES]]


def _at_quantiles(weighted, where):
    """Return indices into the flattened weights at quantiles ``where``."""
    cumulative = np.cumsum(weighted.weights)
    return np.minimum(np.searchsorted(cumulative, where * cumulative[-1]), cumulative.size - 1)


def summary(draws, weighted, rng):
    """Return the mean ``(bins,)`` and the quantiles ``(5, bins)`` of one pixel in cm^-5."""
    mean = draws.shape[:, weighted.chosen].astype(float) @ (weighted.weights * weighted.totals).sum(axis=1) * UNIT
    where = (np.arange(_RESAMPLED) + rng.random()) / _RESAMPLED
    sample = resampled(draws, weighted, where, rng.random(_RESAMPLED))
    return mean, np.quantile(sample, QUANTILES, axis=1)
