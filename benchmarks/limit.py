"""
The limit: the posterior mean and interval that Bayes' theorem gives with the training prior, by importance sampling.

Usage: ``python benchmarks/limit.py [--draws 1000000] [--pixels 200] [--likelihood stated exact] [--weights default]``.
No method that learned from that prior can have a smaller mean squared error on its own pixels. Prints, for each family
of test pixels and each error level, the limit's and the network's W1 and coverage and the effective sample size. Pixels
of which fewer than 50 draws effectively explain the intensities are counted apart: their limit is not known.

The total EM of a draw is log-uniform, independently of its shape, so each shape stands for all its totals: they are
integrated over. There are two likelihoods, both Gaussian. *stated*: with the σ that an analyst states, estimated from
the noisy intensities. *exact*: with the σ from which the simulation drew the noise, that of the true intensities, which
depends on the EM; a network that learns from simulations learns this one. They differ by a few per cent in W1.
"""

import argparse
import time
from functools import cached_property
from typing import NamedTuple

import numpy as np
from families import CASES, FAMILIES, covered, observe, wasserstein

from sunpy_deepem import CHANNELS, DeepEM, TemperatureResponse
from sunpy_deepem.calibrate.photometry import counts_uncertainty
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
_NODES, _REACH = 32, 6.0
# Most draws that are followed up; of more, this many are drawn in proportion to their weights.
_FOLLOWED = 4096
# Draws from the posterior from which quantiles are taken.
_RESAMPLED = 2000
_QUANTILES = (0.025, 0.16, 0.84, 0.975)
#: Effective number of draws below which the limit of a pixel is not known.
LEAST_ESS = 50


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
    rng = np.random.default_rng(seed)
    for start in range(0, n, 2**17):
        part = slice(start, min(start + 2**17, n))
        em, family = prior.sample(part.stop - start, seed=rng, return_family=True)
        shape[:, part] = em / em.sum(axis=0)
        for index, name in enumerate(prior.families):
            chosen = np.flatnonzero(family == index)
            limits[:, start + chosen] = 10 ** np.array(prior.log_total_em(name, em[:, chosen])) / _UNIT
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
    result = Posterior(np.empty((bins, n)), np.empty((bins, n)), np.empty((len(_QUANTILES), bins, n)), np.empty(n))
    rng = np.random.default_rng(seed)
    for start in range(0, n, _PIXEL_TILE):
        pixels = range(start, min(start + _PIXEL_TILE, n))
        misfit = _screen(intensity[:, pixels], uncertainty[:, pixels], draws)
        for row, pixel in zip(misfit, pixels, strict=True):
            chosen = np.flatnonzero(row < row.min() + _SCREEN[noise is not None])
            chosen, *nodes, ess = _weigh(
                intensity[:, pixel, np.newaxis], uncertainty[:, pixel, np.newaxis] ** 2, draws, chosen, noise, rng
            )
            moments = _moments(draws.shape[:, chosen], *nodes, rng)
            for array, value in zip(result, (*moments, ess), strict=True):
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


def _weigh(intensity, variance, draws, chosen, noise, rng):
    """
    Weigh draws against one pixel, whose arrays have shape ``(6, 1)``, at several totals.

    Returns
    -------
    chosen : `~numpy.ndarray`
        Indices of draws, shape ``(k,)``; one may come more than once.
    totals, steps, weights : `~numpy.ndarray`
        Total EM at the nodes in 10^27 cm^-5, their spacing in ln(total), and the weights there, which sum to one, shape
        ``(k, nodes)``.
    ess : `float`
        Effective number of draws.
    """
    model = draws.intensity[:, chosen].astype(float)
    limits = draws.limits[:, chosen].astype(float)
    fit = _best_total(intensity, model, variance, limits)
    for _ in range(0 if noise is None else 3):
        fit = _best_total(intensity, model, noise(model * fit.best), limits)
    # About the integral over ln(total), times the prior: it serves to leave out what has no weight.
    log_weight = fit.log_likelihood - np.log((fit.best * np.sqrt(fit.curvature) + 1) * np.log(limits[1] / limits[0]))
    weight = np.exp(log_weight - log_weight.max())
    ess = _effective(weight)
    kept = np.flatnonzero(weight > _LEFT_OUT * weight.mean())
    if thinned := kept.size > _FOLLOWED:
        kept = _resample(weight, _FOLLOWED, rng)
    totals, steps = _nodes(fit.center[kept], fit.best[kept], fit.curvature[kept], limits[:, kept])
    fold = model[:, kept, np.newaxis] * totals
    variance = variance[:, :, np.newaxis] if noise is None else noise(fold)
    log_weight = _log_likelihood(fold, intensity[:, :, np.newaxis], variance)
    log_weight -= log_weight.max()
    weights = np.exp(log_weight) * steps / np.log(limits[1, kept] / limits[0, kept])[:, np.newaxis]
    if thinned:
        weights /= weight[kept, np.newaxis]
    else:
        ess = _effective(weights.sum(axis=1))
    return chosen[kept], totals, steps, weights / weights.sum(), ess


class _Fit(NamedTuple):
    """Best total of each draw, without and with its limits, curvature of χ²/2 in it, and log of the likelihood."""

    center: np.ndarray
    best: np.ndarray
    curvature: np.ndarray
    log_likelihood: np.ndarray


def _best_total(intensity, model, variance, limits):
    curvature = (model**2 / variance).sum(axis=0)
    center = (model * intensity / variance).sum(axis=0) / curvature
    best = np.clip(center, *limits)
    return _Fit(center, best, curvature, _log_likelihood(model * best, intensity, variance))


def _log_likelihood(model, intensity, variance):
    return -0.5 * ((model - intensity) ** 2 / variance + np.log(variance)).sum(axis=0)


def _effective(weight):
    return weight.sum() ** 2 / np.square(weight).sum()


def _resample(weight, n, rng):
    """Draw ``n`` indices in proportion to ``weight``: evenly spaced after a random start, which scatters less."""
    cumulative = np.cumsum(weight)
    where = (np.arange(n) + rng.random()) / n * cumulative[-1]
    return np.minimum(np.searchsorted(cumulative, where), cumulative.size - 1)


def _nodes(center, best, curvature, limits):
    """Gauss-Legendre nodes in ln(total) where a draw has weight, as totals, and the weights of the rule."""
    # Where the likelihood has fallen by e^(-reach²/2) from its largest within the limits.
    reach = np.sqrt(_REACH**2 / curvature + (best - center) ** 2)
    low = np.maximum(limits[0], center - reach)
    width = np.log(np.minimum(limits[1], center + reach) / low)[:, np.newaxis]
    points, steps = np.polynomial.legendre.leggauss(_NODES)
    return low[:, np.newaxis] * np.exp(0.5 * width * (points + 1)), 0.5 * width * steps


def _moments(shape, totals, steps, weights, rng):
    """Mean, standard deviation and quantiles in cm^-5 of one pixel."""
    shape = shape.astype(float)
    mean = shape @ (weights * totals).sum(axis=1)
    square = np.square(shape) @ (weights * totals**2).sum(axis=1)
    flat = _resample(weights, _RESAMPLED, rng)
    # Spread over the space between nodes, lest the quantiles fall on nodes where few draws have weight.
    spread = np.exp((rng.random(_RESAMPLED) - 0.5) * steps.ravel()[flat])
    samples = shape[:, flat // _NODES] * totals.ravel()[flat] * spread
    std = np.sqrt(np.maximum(square - mean**2, 0))
    return mean * _UNIT, std * _UNIT, np.quantile(samples, _QUANTILES, axis=1) * _UNIT


def print_row(name, case, result, network, truth, response):
    """One family at one error level: only pixels count whose limit is known."""
    known = result.ess >= LEAST_ESS
    low, median, high = np.percentile(result.ess, [10, 50, 90])
    row = (
        f"{name:22s}{case.name:12s}{low:8.0f}{median:8.0f}{high:8.0f}{np.count_nonzero(~known):6d} of {known.size:<6d}"
    )
    if not known.any():
        print(row)
        return
    em, std = (array[:, known].astype(float) for array in network)
    best, truth = result.em[:, known], truth[:, known]
    w1 = [wasserstein(values, truth, response.bins) for values in (best, em)]
    intervals = (result.quantiles[1][:, known], result.quantiles[2][:, known]), (em - std, em + std)
    coverage = [covered(*interval, values, truth) for interval, values in zip(intervals, (best, em), strict=True)]
    print(
        row
        + "".join(f"{np.median(values):9.4f}" for values in w1)
        + f"{np.median(w1[1]) / np.median(w1[0]):8.2f}{w1[1].mean() / w1[0].mean():8.2f}"
        + "".join(f"{100 * value:8.1f}" for value in coverage)
    )


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1_000_000)
    parser.add_argument("--pixels", type=int, default=200, help="of each family at each error level")
    parser.add_argument("--likelihood", nargs="+", choices=("stated", "exact"), default=["stated"])
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--cases", nargs="+", type=int, choices=range(len(CASES)), default=range(len(CASES)))
    parser.add_argument("--weights", default="default")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    response, network = TemperatureResponse.default(), DeepEM.load(args.weights)
    start = time.perf_counter()
    # Another seed than the pixels', so that no pixel is among the draws.
    draws = draw(DEMPrior(response.bins), response, args.draws, seed=[args.seed, 2**20])
    print(f"{args.draws} draws in {time.perf_counter() - start:.0f} s")
    for likelihood in args.likelihood:
        start = time.perf_counter()
        print(
            f"\n{likelihood} likelihood; W1 (dex) and coverage where the effective sample size is {LEAST_ESS} or more\n"
        )
        print(
            f"{'family':22s}{'errors':12s}{'effective sample size':^24s}{'below ' + str(LEAST_ESS):^16s}"
            f"{'median W1':^18s}{'network / limit':^16s}{'in 68 % (%)':^16s}\n"
            f"{'':34s}{'p10':>8s}{'p50':>8s}{'p90':>8s}{'':16s}{'limit':>9s}{'network':>9s}{'median':>8s}{'mean':>8s}"
            f"{'limit':>8s}{'network':>8s}"
        )
        for name in args.families:
            for case in (CASES[index] for index in args.cases):
                truth, intensity, uncertainty = observe(name, case, args.pixels, response, seed=args.seed)
                noise = SimulatedNoise(*case) if likelihood == "exact" else None
                result = posterior(intensity, uncertainty, draws, noise=noise)
                print_row(name, case, result, network.predict(intensity, uncertainty), truth, response)
        print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
