"""
The limit: the posterior mean and interval that Bayes' theorem gives with the training prior, by importance sampling.

Usage: ``python benchmarks/limit.py [--draws 1000000] [--pixels 200] [--likelihood stated exact] [--weights default]``.
No method that learned from that prior can have a smaller mean squared error on its own pixels. Prints, for each family
of test pixels and each error level, the limit's and the network's W1 and coverage and the effective sample size. Pixels
of which fewer than 50 draws effectively explain the intensities are counted apart: their limit is not known.

The total EM of a draw is log-uniform, independently of its shape, so each shape stands for all its totals: they are
integrated over. Two likelihoods are to be had. *stated*: Gaussian, with the σ that an analyst states, which is estimated
from the noisy intensities. *exact*: with the σ that the simulation really drew from, that of the true intensities, which
depends on the EM; it is the one the network is trained on, since it sees the stated σ but knows no likelihood.
"""

import argparse
import time
from functools import cached_property
from typing import NamedTuple

import numpy as np
from families import CASES, FAMILIES, Case, chi2, covered, observe, wasserstein

from sunpy_deepem import CHANNELS, DeepEM, TemperatureResponse
from sunpy_deepem.calibration import counts_uncertainty
from sunpy_deepem.training import DEMPrior

# Unit of total EM, so that single precision is enough.
_UNIT = 1e27
# Draws and pixels that are screened at a time: arrays that stay in cache.
_DRAW_TILE, _PIXEL_TILE = 16384, 32
# χ² (sum) above the best draw's beyond which a draw is not looked at again: e^-20 of its weight, e^-30 where σ moves.
_SCREEN = {False: 40.0, True: 60.0}
# Share of the weight that may be lost by leaving out the draws of least weight.
_LEFT_OUT = 1e-3
# Nodes in ln(total EM), and how far they reach from the best total in standard deviations.
_NODES, _REACH = 16, 6.0
# Draws from the posterior from which quantiles are taken.
_RESAMPLED = 2000
_QUANTILES = (0.025, 0.16, 0.84, 0.975)
_LEAST_ESS = 50


class Draws(NamedTuple):
    """Draws of the prior, without their totals."""

    #: EM of unit total, ``float32``, shape ``(bins, n)``.
    shape: np.ndarray
    #: Intensities at a total EM of 10^27 cm^-5, ``float32``, shape ``(6, n)``.
    intensity: np.ndarray
    #: Limits of the total EM in 10^27 cm^-5, between which it is log-uniform, ``float32``, shape ``(2, n)``.
    limits: np.ndarray


class Posterior(NamedTuple):
    """What is known of the EM of each pixel."""

    #: Posterior mean in cm^-5, shape ``(bins, n)``.
    em: np.ndarray
    #: Posterior standard deviation, of the same shape.
    std: np.ndarray
    #: Quantiles 2.5, 16, 84 and 97.5 %, shape ``(4, bins, n)``.
    quantiles: np.ndarray
    #: Effective number of draws, shape ``(n,)``.
    ess: np.ndarray


class SimulatedNoise:
    """
    Standard deviation of what `~sunpy_deepem.training.simulate_observation` draws, as a function of the true intensity.

    Parameters
    ----------
    n_sample : `float`
        Native pixels averaged.
    systematic : `float`
        Systematic error as a fraction of the intensity.
    """

    # As in the simulation: usual exposure times in s, and the counts at which they are cut short.
    _TIMES = np.array([2.9, 2.9, 2.0, 2.0, 2.9, 2.9])
    _MAX_COUNTS = 10000.0

    def __init__(self, n_sample, systematic):
        self.n_sample, self.systematic = float(n_sample), float(systematic)

    @cached_property
    def _tables(self):
        """Square root of counts, on an even grid, and the variance of each channel's counts there."""
        root = np.linspace(0, np.sqrt(self._MAX_COUNTS), 4001)
        variance = [counts_uncertainty(root**2, channel, self.n_sample) ** 2 for channel in CHANNELS]
        return root, np.array(variance)

    def __call__(self, intensity):
        """Return the variance, of the shape ``(6, ...)`` of ``intensity``."""
        root, tables = self._tables
        variance = np.empty_like(intensity)
        for index, (row, time_, table) in enumerate(zip(intensity, self._TIMES, tables, strict=True)):
            times = np.minimum(time_, self._MAX_COUNTS / np.maximum(row, 1e-30))
            variance[index] = np.interp(np.sqrt(row * times), root, table) / times**2
        return variance + (self.systematic * intensity) ** 2


def draw(prior, response, n, *, seed):
    """
    Return ``n`` draws of a `~sunpy_deepem.training.DEMPrior`, as `Draws`.
    """
    shape = np.empty((len(response.bins), n), dtype=np.float32)
    limits = np.empty((2, n), dtype=np.float32)
    ranges = np.array([prior.LOG_TOTAL_EM[name] for name in prior.families]).T
    rng = np.random.default_rng(seed)
    for start in range(0, n, 2**17):
        part = slice(start, min(start + 2**17, n))
        em, family = prior.sample(part.stop - start, seed=rng, return_family=True)
        shape[:, part] = em / em.sum(axis=0)
        limits[:, part] = 10 ** ranges[:, family] / _UNIT
    matrix = (response.matrix.value * _UNIT).astype(np.float32)
    return Draws(shape, matrix @ shape, limits)


def posterior(intensity, uncertainty, draws, *, noise=None, seed=0):
    """
    Return the posterior of pixels by importance sampling.

    Parameters
    ----------
    intensity, uncertainty : `~numpy.ndarray`
        DN s^-1 pix^-1, shape ``(6, n)``.
    draws : `Draws`
        Draws of the prior.
    noise : callable, optional
        Variance of an intensity as a function of the true one, such as `SimulatedNoise`. By default ``uncertainty`` is
        taken for the standard deviation, whatever the EM.
    seed : `int`, optional
        Seed of the resampling from which the quantiles are taken.

    Returns
    -------
    `Posterior`
    """
    intensity, uncertainty = np.asarray(intensity, dtype=float), np.asarray(uncertainty, dtype=float)
    n, bins = intensity.shape[1], len(draws.shape)
    result = Posterior(
        np.empty((bins, n)), np.empty((bins, n)), np.empty((len(_QUANTILES), bins, n)), np.empty(n)
    )
    rng = np.random.default_rng(seed)
    for start in range(0, n, _PIXEL_TILE):
        pixels = range(start, min(start + _PIXEL_TILE, n))
        misfit = _screen(intensity[:, pixels], uncertainty[:, pixels], draws)
        for row, pixel in zip(misfit, pixels, strict=True):
            chosen = np.flatnonzero(row < row.min() + _SCREEN[noise is not None])
            chosen, totals, weights = _weigh(intensity[:, pixel], uncertainty[:, pixel], draws, chosen, noise)
            for array, value in zip(result, _moments(draws.shape[:, chosen], totals, weights, rng), strict=True):
                array[..., pixel] = value
    return result


def _screen(intensity, uncertainty, draws):
    """Least χ² (sum over the channels) of each draw with a total that its family allows, shape ``(n, draws)``."""
    first = np.ascontiguousarray((intensity / uncertainty**2).T, dtype=np.float32)
    second = np.ascontiguousarray((1 / uncertainty**2).T, dtype=np.float32)
    zeroth = np.sum((intensity / uncertainty) ** 2, axis=0).astype(np.float32)[:, np.newaxis]
    misfit = np.empty((intensity.shape[1], draws.intensity.shape[1]), dtype=np.float32)
    for start in range(0, misfit.shape[1], _DRAW_TILE):
        part = slice(start, start + _DRAW_TILE)
        model = draws.intensity[:, part]
        slope, curvature = first @ model, second @ np.square(model)
        total = np.clip(slope / curvature, *draws.limits[:, np.newaxis, part])
        misfit[:, part] = zeroth - total * (2 * slope - total * curvature)
    return misfit


def _weigh(intensity, uncertainty, draws, chosen, noise):
    """
    Weigh draws against one pixel at several totals.

    Returns
    -------
    chosen : `~numpy.ndarray`
        Indices of the draws that have any weight, shape ``(k,)``.
    totals, weights : `~numpy.ndarray`
        Total EM at the nodes in 10^27 cm^-5 and the weights there, which sum to one, shape ``(k, nodes)``.
    """
    model = draws.intensity[:, chosen].astype(float)
    limits = draws.limits[:, chosen].astype(float)
    variance = np.broadcast_to(uncertainty[:, np.newaxis] ** 2, model.shape)
    best, curvature, log_weight = _best_total(intensity, model, variance, limits)
    for _ in range(0 if noise is None else 3):
        variance = noise(model * best)
        best, curvature, log_weight = _best_total(intensity, model, variance, limits)
    # About the integral over ln(total); it serves to leave out what has no weight.
    log_weight -= np.log(best * np.sqrt(curvature) + 1) + np.log(np.log(limits[1] / limits[0]))
    heavy = log_weight > log_weight.max() + np.log(_LEFT_OUT * np.exp(log_weight - log_weight.max()).mean())
    chosen, model, limits = chosen[heavy], model[:, heavy], limits[:, heavy]
    totals, steps = _nodes(intensity, model, variance[:, heavy], best[heavy], curvature[heavy], limits)
    fold = model[:, :, np.newaxis] * totals
    variance = uncertainty[:, np.newaxis, np.newaxis] ** 2 if noise is None else noise(fold)
    log_weight = -0.5 * ((fold - intensity[:, np.newaxis, np.newaxis]) ** 2 / variance + np.log(variance)).sum(axis=0)
    weights = np.exp(log_weight - log_weight.max()) * steps / np.log(limits[1] / limits[0])[:, np.newaxis]
    return chosen, totals, weights / weights.sum()


def _best_total(intensity, model, variance, limits):
    """Best allowed total of each draw, the curvature of χ²/2 in it, and the log of the likelihood there."""
    curvature = (model**2 / variance).sum(axis=0)
    best = np.clip((model * intensity[:, np.newaxis] / variance).sum(axis=0) / curvature, *limits)
    misfit = (model * best - intensity[:, np.newaxis]) ** 2 / variance + np.log(variance)
    return best, curvature, -0.5 * misfit.sum(axis=0)


def _nodes(intensity, model, variance, best, curvature, limits):
    """Gauss-Legendre nodes in ln(total) where a draw has weight, as totals, and the weights of the rule."""
    center = (model * intensity[:, np.newaxis] / variance).sum(axis=0) / curvature
    # Where the likelihood has fallen by e^(-reach²/2) from its largest within the limits.
    reach = np.sqrt(_REACH**2 / curvature + (best - center) ** 2)
    low = np.maximum(limits[0], center - reach)
    high = np.minimum(limits[1], center + reach)
    points, steps = np.polynomial.legendre.leggauss(_NODES)
    low, width = np.log(low), np.log(high / low)
    return np.exp(low[:, np.newaxis] + 0.5 * width[:, np.newaxis] * (points + 1)), 0.5 * width[:, np.newaxis] * steps


def _moments(shape, totals, weights, rng):
    """Mean, standard deviation, quantiles in cm^-5 and effective number of draws of one pixel."""
    shape = shape.astype(float)
    mean = shape @ (weights * totals).sum(axis=1)
    square = np.square(shape) @ (weights * totals**2).sum(axis=1)
    cumulative = np.cumsum(weights)
    # Evenly spaced after a random start: less scatter than independent draws.
    where = (np.arange(_RESAMPLED) + rng.random()) / _RESAMPLED * cumulative[-1]
    flat = np.minimum(np.searchsorted(cumulative, where), cumulative.size - 1)
    samples = shape[:, flat // totals.shape[1]] * totals.ravel()[flat]
    quantiles = np.quantile(samples, _QUANTILES, axis=1)
    of_draws = weights.sum(axis=1)
    std = np.sqrt(np.maximum(square - mean**2, 0))
    return mean * _UNIT, std * _UNIT, quantiles * _UNIT, of_draws.sum() ** 2 / np.square(of_draws).sum()
