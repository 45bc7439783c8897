"""
Posterior draws of single pixels: the package against an ensemble sampler, emcee, at equal effective sample size.

Usage: ``python benchmarks/mcmc.py [--pixels 3] [--steps 20000] [--output FOLDER]``, with emcee installed.
A Markov chain needs the density of a prior, which the package's prior has not; its chains use a normal distribution of
ln EM with the mean and covariance of the prior's draws. The pixels are draws of the prior with 10 % systematic errors.
The effective sample size of a chain is the number of its states over the longest autocorrelation time of ln EM of the
18 bins; burn-in is not counted against emcee. Draws of the package are independent. Both are timed by the processor
time of all threads. Leaves ``mcmc.json``.

References: Foreman-Mackey et al. (2013), PASP 125, 306, https://doi.org/10.1086/670067 (emcee) and Kashyap & Drake
(1998), ApJ 503, 450, https://doi.org/10.1086/305964 (Markov chains of DEMs).
"""

import argparse
import importlib.util
import json
import time
from pathlib import Path

import numpy as np
from families import CASES, observe
from machine import describe

from sunpy_deepem import DeepEM, TemperatureResponse
from sunpy_deepem.training import DEMPrior

_ASKED = 1000
_WALKERS, _PRIOR_DRAWS, _DRAWS = 64, 20_000, 64


class Density:
    """Logarithm of the posterior density of ln EM, of many states at once."""

    def __init__(self, response, prior):
        log_em = np.log(prior.sample(_PRIOR_DRAWS, seed=0, trace=True))
        self.mean, self.inverse = log_em.mean(axis=1), np.linalg.inv(np.cov(log_em))
        self.matrix, self.start = response.matrix.value, log_em.T[:_WALKERS]

    def of_pixel(self, intensity, sigma):
        """Return the function that emcee calls with states of shape ``(n, bins)``."""

        def log_density(states):
            off = states - self.mean
            residual = (np.exp(states) @ self.matrix.T - intensity) / sigma
            value = -0.5 * (np.einsum("ni,ij,nj->n", off, self.inverse, off) + (residual**2).sum(axis=1))
            return np.where(np.isfinite(value), value, -np.inf)

        return log_density


def chain(density, start, steps, seed):
    """Return processor seconds per effective draw, the effective sample size and the longest autocorrelation time."""
    import emcee

    sampler = emcee.EnsembleSampler(_WALKERS, start.shape[1], density, vectorize=True)
    random_state = np.random.RandomState(seed).get_state()
    state = sampler.run_mcmc(emcee.State(start, random_state=random_state), steps // 4)
    sampler.reset()
    before = time.process_time()
    sampler.run_mcmc(state, steps)
    seconds = time.process_time() - before
    longest = float(np.max(sampler.get_autocorr_time(quiet=True)))
    size = _WALKERS * steps / longest
    return {"seconds": seconds / size, "size": size, "autocorrelation": longest, "chain_seconds": seconds}


def package(network, intensity, sigma, n):
    """Return processor seconds per draw of an image whose pixels are like the given ones."""
    image = [np.tile(values, -(-n // values.shape[1]))[:, :n] for values in (intensity, sigma)]
    network.map_draws(_mean, *(values[:, :100] for values in image), n=_DRAWS)
    before = time.process_time()
    network.map_draws(_mean, *image, n=_DRAWS)
    return (time.process_time() - before) / (n * _DRAWS)


def _mean(draws):
    return draws.mean(axis=0)


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pixels", type=int, default=3, help="pixels with a chain")
    parser.add_argument("--steps", type=int, default=20_000, help="steps of each of the walkers after burn-in")
    parser.add_argument("--image", type=int, default=200_000, help="pixels of the image for the package's draws")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "output")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    machine, response, network = describe(), TemperatureResponse.default(), DeepEM.load()
    print("\n".join(f"{key}: {value}" for key, value in machine.items()))
    _, intensity, sigma = observe("prior", CASES[3], args.pixels, response, seed=1)
    density = Density(response, DEMPrior(response.bins))
    own = package(network, intensity, sigma, args.image)
    print(f"\n{'':24s}{'effective':>12s}{'longest auto-':>16s}{'CPU µs per':>16s}{'times the':>12s}")
    print(f"{'':24s}{'draws':>12s}{'correlation':>16s}{'effective draw':>16s}{'package':>12s}   asked")
    print(f"{'package':24s}{'':12s}{'':16s}{1e6 * own:16.3f}{1:12d}")
    rows, found = [], importlib.util.find_spec("emcee")
    if not found:
        print("emcee is not installed.")
    for index in range(args.pixels if found else 0):
        row = chain(density.of_pixel(intensity[:, index], sigma[:, index]), density.start, args.steps, index)
        row["ratio"] = row["seconds"] / own
        rows.append(row)
        numbers = f"{row['size']:12.0f}{row['autocorrelation']:16.0f}{1e6 * row['seconds']:16.0f}{row['ratio']:12.0f}"
        print(f"{f'emcee, pixel {index + 1}':24s}{numbers}   ≥ {_ASKED}: {'yes' if row['ratio'] >= _ASKED else 'NO'}")
    results = {"machine": machine, "package_seconds": own, "chains": rows}
    (args.output / "mcmc.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
