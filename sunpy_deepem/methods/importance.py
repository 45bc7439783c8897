"""The exact posterior of single pixels by importance sampling of a prior: `Importance`."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import log_ndtr

from sunpy_deepem.methods.base import Solution, SolveStatus, checked_pixels
from sunpy_deepem.temperature import LogTBins
from sunpy_deepem.units import RESPONSE_UNIT, TRACE
from sunpy_deepem.utils.checks import whole_number

__all__ = ["QUANTILES", "Importance", "Posterior"]

#: Quantiles that `Importance.solve` returns.
QUANTILES = (0.025, 0.16, 0.5, 0.84, 0.975)
# Unit of the total EM in cm^-5, so that single precision suffices.
_UNIT = 1e27
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


@dataclass(frozen=True, eq=False)
class Posterior(Solution):
    """
    The `Solution` of `Importance.solve`: posterior mean and half the 68 % interval of the EM.

    Attributes
    ----------
    quantiles : `~numpy.ndarray`
        `QUANTILES` of the EM in cm^-5, shape ``(5, bins, ...)``.
    ess : `~numpy.ndarray`
        Effective number of prior draws that explain the pixel, shape ``(...)``.
    """

    quantiles: np.ndarray | None = None
    ess: np.ndarray | None = None


class Importance:
    """
    Exact posterior of each pixel under any prior, without training.

    Every draw of the prior is weighted by its likelihood. The cost per pixel grows with the number of draws (about
    50 ms for a million), so this is a yardstick for networks and a method for single pixels and regions. A region's
    mean intensity is one pixel with the uncertainty of the mean.

    Parameters
    ----------
    prior : callable or object
        ``prior(n, seed)`` returns ``n`` EM distributions in cm^-5, shape ``(bins, n)``; an object has such a method
        ``sample(n, seed=seed)``. The total EM of a `~sunpy_deepem.training.DEMPrior` is log-uniform and independent of
        the shape; it is integrated over, which makes the effective number of draws much larger.
    draws : `int`, optional
        Number of draws of the prior. A million take 100 MB.
    seed : `int`, optional
        Seed of these draws.
    response : `TemperatureResponse`, optional
        Response for calls that pass none. `sunpy_deepem.invert` passes its own.
    min_ess : `float`, optional
        Pixels with fewer effective draws get the status `SolveStatus.FEW_DRAWS`.
    noise : callable, optional
        Variance of an intensity as a function of the true intensity, ``(channels, ...)`` to the same shape. By default
        the stated uncertainty holds for every EM.

    Raises
    ------
    TypeError
        If ``prior`` is neither callable nor has a method ``sample``.
    ValueError
        If ``draws`` is not a positive integer.

    References
    ----------
    Tokdar & Kass (2010), WIREs Comp. Stat. 2, 54, https://doi.org/10.1002/wics.56

    Examples
    --------
    >>> from sunpy_deepem import TemperatureResponse
    >>> from sunpy_deepem.methods import Importance
    >>> from sunpy_deepem.training import DEMPrior
    >>> prior, response = DEMPrior(), TemperatureResponse.default()
    >>> method = Importance(prior, draws=20_000, response=response)
    >>> g = response.matrix.value @ prior.sample(4, seed=1)
    >>> method.sample(g, 0.2 * g, n=100).shape
    (100, 18, 4)
    """

    name = "importance"

    def __init__(self, prior, *, draws=1_000_000, seed=0, response=None, min_ess=50, noise=None):
        if not callable(prior) and not hasattr(prior, "sample"):
            msg = (
                f"prior must be callable as prior(n, seed) or have a method sample(n, seed=seed), found "
                f"{type(prior).__name__}. Pass DEMPrior() for the default prior."
            )
            raise TypeError(msg)
        self.prior, self.seed, self.min_ess, self.noise = prior, seed, min_ess, noise
        self.draws = whole_number(draws, "draws")
        self.response = response
        self.bins = getattr(prior, "bins", None) or (LogTBins() if response is None else response.bins)
        self._shapes = self._folded = None

    @property
    def provenance(self):
        """Parameters, for the provenance of a cube."""
        return {"prior": type(self.prior).__name__, "draws": self.draws, "seed": self.seed}

    @property
    def prior_log_std(self):
        """Standard deviation of ln(EM of a bin / total EM + `TRACE`) over the prior, shape ``(bins,)``."""
        return np.log(self._prior_draws()[0] + np.float32(TRACE)).std(axis=1)

    def solve(self, intensity, uncertainty, response=None, *, lower_limit=None):
        """
        Return the `Posterior` of pixels.

        Parameters
        ----------
        intensity, uncertainty : array-like
            DN s^-1 pix^-1, shape ``(channels, ...)``. A channel is not used in a pixel where its intensity is NaN or
            its uncertainty is not finite.
        response : `TemperatureResponse`, optional
            By default the one given to `Importance`. Its bins are the prior's.
        lower_limit : array-like of `bool`, optional
            Where `True`, the channel is saturated and its intensity a lower limit; shape of ``intensity``.

        Returns
        -------
        `Posterior`

        Raises
        ------
        ValueError
            If there is no response, shapes do not match, or the prior returns something other than positive EM on the
            response's bins.
        """
        response = self._checked(response)
        draws = self._draws_for(response)
        pixels, shape = _pixels(intensity, uncertainty, lower_limit, response)
        bins, n = len(response.bins), len(pixels)
        em, quantiles = np.full((bins, n), np.nan), np.full((len(QUANTILES), bins, n), np.nan)
        ess = np.zeros(n)
        for index, weighted in _weigh_all(pixels, draws, self.noise, self.seed):
            em[:, index], quantiles[:, :, index] = _summary(draws, weighted, np.random.default_rng(self.seed))
            ess[index] = weighted.ess
        usable = np.array([pixel is not None for pixel in pixels], dtype=bool)
        status = np.where(ess >= self.min_ess, SolveStatus.SOLVED, SolveStatus.FEW_DRAWS).astype(np.int8)
        status[~usable] = SolveStatus.INVALID
        em[:, status != 0] = quantiles[:, :, status != 0] = np.nan
        em_std = (quantiles[3] - quantiles[1]) / 2
        return Posterior(
            em.reshape(bins, *shape),
            em_std.reshape(bins, *shape),
            status.reshape(shape),
            quantiles=quantiles.reshape(len(QUANTILES), bins, *shape),
            ess=ess.reshape(shape),
        )

    def sample(self, intensity, uncertainty, n=64, seed=0, *, response=None, lower_limit=None):
        """
        Draw EM distributions from the posterior of each pixel.

        Parameters
        ----------
        intensity, uncertainty, response, lower_limit
            As for `solve`.
        n : `int`, optional
            Draws per pixel.
        seed : `int`, optional
            All pixels use the same random numbers, so that slices of an image give the same draws as the whole. The
            first draws do not depend on ``n``.

        Returns
        -------
        `~numpy.ndarray`
            EM in cm^-5, ``float32``, shape ``(n, bins, ...)``; NaN where no channel is usable. Pixels with few
            effective draws are sampled all the same, so many of their draws share one shape.
        """
        n, response = whole_number(n, "n"), self._checked(response)
        draws = self._draws_for(response)
        pixels, shape = _pixels(intensity, uncertainty, lower_limit, response)
        result = np.full((n, len(self.bins), len(pixels)), np.nan, dtype=np.float32)
        uniform = np.random.default_rng(seed).random((n, 2))
        for index, weighted in _weigh_all(pixels, draws, self.noise, self.seed):
            result[:, :, index] = _resampled(draws, weighted, *uniform.T).T
        return result.reshape(n, len(self.bins), *shape)

    def _checked(self, response):
        response = self.response if response is None else response
        if response is None:
            msg = "response is missing. Pass it here or to Importance(prior, response=TemperatureResponse.default())."
            raise ValueError(msg)
        if response.bins != self.bins:
            msg = f"response must have the bins of the prior, {self.bins!r}, found {response.bins!r}."
            raise ValueError(msg)
        return response

    def _draws_for(self, response):
        """Return the prior's draws with their intensities for a response; the last response's are kept."""
        if self._folded is None or self._folded[0] != response.fingerprint:
            matrix = (response.matrix.to_value(RESPONSE_UNIT) * _UNIT).astype(np.float32)
            shape, limits = self._prior_draws()
            self._folded = response.fingerprint, _Draws(shape, matrix @ shape, limits)
        return self._folded[1]

    def _prior_draws(self):
        """Return shapes ``(bins, draws)`` and limits of the total of the prior's draws, which are kept."""
        if self._shapes is None:
            self._shapes = _draw(self.prior, len(self.bins), self.draws, self.seed)
        return self._shapes

    def __repr__(self):
        return f"Importance({self.prior!r}, draws={self.draws}, seed={self.seed}, min_ess={self.min_ess:g})"


class _Draws(NamedTuple):
    """Draws of the prior, without their totals."""

    #: EM of unit total, ``float32``, shape ``(bins, n)``.
    shape: np.ndarray
    #: Intensities at a total EM of 10^27 cm^-5, ``float32``, shape ``(channels, n)``.
    intensity: np.ndarray
    #: Limits of the total EM in 10^27 cm^-5, shape ``(2, n)``, between which it is log-uniform; equal if it is fixed.
    limits: np.ndarray


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


def _draw(prior, bins, n, seed):
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
        limits[:, part] = total / _UNIT if ranges is None else 10**ranges / _UNIT
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


def _pixels(intensity, uncertainty, lower_limit, response):
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


def _weigh_all(pixels, draws, noise, seed):
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


def _resampled(draws, weighted, where, within):
    """Return draws in cm^-5, shape ``(bins, n)``, at quantiles ``where`` of the weights and ``within`` the nodes."""
    cumulative = np.cumsum(weighted.weights)
    flat = np.minimum(np.searchsorted(cumulative, where * cumulative[-1]), cumulative.size - 1)
    # Spread over the space between nodes: few draws of great weight would leave gaps.
    totals = weighted.totals.ravel()[flat] * np.exp((within - 0.5) * weighted.steps.ravel()[flat])
    return draws.shape[:, weighted.chosen[flat // _NODES]] * (totals * _UNIT)


def _summary(draws, weighted, rng):
    """Return the mean ``(bins,)`` and the quantiles ``(5, bins)`` of one pixel in cm^-5."""
    mean = draws.shape[:, weighted.chosen].astype(float) @ (weighted.weights * weighted.totals).sum(axis=1) * _UNIT
    where = (np.arange(_RESAMPLED) + rng.random()) / _RESAMPLED
    sample = _resampled(draws, weighted, where, rng.random(_RESAMPLED))
    return mean, np.quantile(sample, QUANTILES, axis=1)
