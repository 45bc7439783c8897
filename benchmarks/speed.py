"""
Speed: the package and other codes on the same noisy pixels, in one run.

Usage: ``python benchmarks/speed.py [--shape 512] [--rounds 9] [--threads N] [--output benchmarks/output]``. Prints a
table and the requirements; leaves ``speed.json`` in the output folder. Codes that are not installed are
named and left out. The package computes in bfloat16 where the processor supports it; rows in float32 show the effect.

Pixels are draws of the training prior with the noise of 64 native pixels and 10 % systematic errors. Slow codes get
fewer of them. Rounds go through all codes in turn, so that other work on the machine affects all alike; short calls are
repeated for half a second. A rate is pixels over the median time; the best rate is over the shortest, and the rate per
core over the shortest processor time of all threads. The first call of each code, which may compile, does not count.
W1 is the median distance to the true EM distributions in dex; ``accuracy.py`` measures it in detail. "draws" are 64
draws of the posterior per pixel.
"""

import argparse
import json
import os
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accuracy import emtoolkit, utu
from device import chapters_layers
from families import CASES, observe, wasserstein
from machine import describe

from sunpy_deepem import DeepEM, TemperatureResponse
from sunpy_deepem.methods import get_method
from sunpy_deepem.network.architectures import ChapterNetwork
from sunpy_deepem.training import DEMPrior, PriorStream, TrainingSet, fit
from sunpy_deepem.units import EM_SCALE

_CASE = CASES[3]
# Seconds for waiting threads of the previous code to go to sleep.
_PAUSE = 0.3
# Shorter calls are repeated, so that the start of threads and clocks does not count.
_LEAST_TIME = 0.5
# Least rates of the package in pixels/s, and least ratios to others.
_LEAST_RATE, _GOAL, _LEAST_SAMPLED = 4e6, 10.87e6, 30_000
_DRAWS = 64
_LEAST_RATIOS = {"chapter, as it calls it": 30, "utu": 25, "demregpy": 3000}


class Code(NamedTuple):
    """A code to time."""

    #: ``(intensity, uncertainty) -> em or None``.
    call: object
    #: Largest number of pixels.
    pixels: int


class Result(NamedTuple):
    """Times of a code."""

    pixels: int
    #: Seconds of each round.
    times: list
    #: Seconds of processor time of each round, over all threads.
    cpu: list
    #: Seconds of the first call.
    first: float
    #: Median W1 in dex, `None` without an EM.
    w1: float | None

    @property
    def rate(self):
        """Pixels per second, by the median."""
        return self.pixels / float(np.median(self.times))

    @property
    def best(self):
        """Pixels per second of the fastest round."""
        return self.pixels / min(self.times)

    @property
    def per_core(self):
        """Pixels per second of processor time in the best round, which other work on the machine disturbs least."""
        return self.pixels / min(self.cpu)


def of_package(network, response):
    """Return ways to call the package."""
    folded = response.matrix.value.astype(np.float32)

    def with_chi2(intensity, uncertainty):
        em, _ = network.predict(intensity, uncertainty)
        np.mean(np.square((np.tensordot(folded, em, axes=1) - intensity) / uncertainty), axis=0)
        return em

    return {
        "package": lambda *arrays: network.predict(*arrays)[0],
        "package, mean alone": lambda *arrays: network.predict(*arrays, std=False)[0],
        "package, float32": lambda *arrays: network.predict(*arrays, precision="float32")[0],
        "package, float32, mean alone": lambda *arrays: network.predict(*arrays, precision="float32", std=False)[0],
        "package, with χ²": with_chi2,
        "package, all that invert does": lambda *arrays: network.solve(*arrays, response).em,
    }


def of_chapter(shape):
    """Return the chapter's network, called as in the chapter and in tiles by the package. Its weights do not matter."""
    module = chapters_layers("cpu", torch.float32)
    network = ChapterNetwork()
    network.layers.load_state_dict(module.state_dict())
    network = DeepEM(network, bins=TemperatureResponse.default().bins)

    def as_called(intensity, uncertainty):
        image = torch.from_numpy(np.sqrt(np.maximum(intensity, 0)).reshape(1, 6, *shape))
        with torch.no_grad():
            (EM_SCALE * module(image) ** 2).numpy()

    def in_tiles(intensity, uncertainty):
        network.predict(intensity)

    return {"chapter, as it calls it": as_called, "chapter, in tiles": in_tiles}


def codes(network, response, args):
    """Return the codes, by name."""
    everything = args.shape**2
    own = {**of_package(network, response), **of_chapter((args.shape, args.shape))}
    found = {name: Code(call, everything) for name, call in own.items()}
    if getattr(network, "has_posterior", False):
        found["package, draws"] = Code(partial(_sample, network), args.sampled)
    solver, demreg = get_method("basis-pursuit"), get_method("demregpy", nmu=40)  # fast, as by default of dn2dem
    found["basis pursuit"] = Code(lambda *arrays: solver.solve(*arrays, response).em, args.slow)
    found["demregpy"] = Code(lambda *arrays: demreg.solve(*arrays, response).em, args.slow)
    for name, call, pixels in (("utu", utu, args.compiled), ("EMToolKit", emtoolkit, args.slow)):
        found[name] = Code(lambda *arrays, call=call: call(*arrays, response)[0], pixels)
    return found


def _sample(network, intensity, uncertainty):
    network.sample(intensity, uncertainty, n=_DRAWS)


def once(code, intensity, uncertainty, least=0.0):
    """Return the mean seconds, seconds of processor time, and answer of calls that take at least so long."""
    return timed(lambda: code.call(intensity[:, : code.pixels], uncertainty[:, : code.pixels]), least)


def timed(call, least=0.0):
    """Return seconds, seconds of processor time, and what ``call`` returns."""
    time.sleep(_PAUSE)
    start, start_cpu, n = time.perf_counter(), time.process_time(), 0
    while n == 0 or time.perf_counter() - start < least:
        answer, n = call(), n + 1
    return (time.perf_counter() - start) / n, (time.process_time() - start_cpu) / n, answer


def run(found, truth, intensity, uncertainty, rounds, bins):
    """Time the codes in turn and return a `Result` for each that is installed."""
    firsts, answers = {}, {}
    for name, code in found.items():
        try:
            firsts[name], _, answers[name] = once(code, intensity, uncertainty)
        except ImportError as error:
            print(f"{name}: not installed ({error})")
    times = {name: [] for name in answers}
    for _ in range(rounds):
        for name, seconds in times.items():
            seconds.append(once(found[name], intensity, uncertainty, _LEAST_TIME)[:2])
    results = {}
    for name, em in answers.items():
        w1 = None
        if em is not None:
            with np.errstate(invalid="ignore", divide="ignore"):
                w1 = float(np.nanmedian(wasserstein(em.astype(float), truth[:, : em.shape[1]], bins)))
        results[name] = Result(min(found[name].pixels, truth.shape[1]), *_columns(times[name]), firsts[name], w1)
    return results


def training(response, n, rounds):
    """Time making training data, training steps, and both as `fit` does, on one thread."""
    torch.set_num_threads(1)
    stream = PriorStream(DEMPrior(response.bins), response, n, seed=1)
    ready = stream.epoch(0)
    options = {"epochs": 1, "consistency_epochs": 0}
    calls = {
        "training, data made": lambda: stream.epoch(1),
        "training, steps": lambda: fit(_Repeated(ready), response, **options),
        "training, both": lambda: fit(stream, response, **options),
    }
    # The first call of an optimizer takes seconds, as PyTorch imports its compiler.
    firsts = {name: timed(call)[0] for name, call in calls.items()}
    times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(timed(call)[:2])
    return {name: Result(n, *_columns(values), firsts[name], None) for name, values in times.items()}


def _columns(pairs):
    return [list(column) for column in zip(*pairs, strict=True)]


class _Repeated(TrainingSet):
    """A training set with the same object in every epoch."""

    def __init__(self, part):
        self.__dict__.update(part.__dict__)


def verdicts(results):
    """Return name, limit and measured value of each quantity that is asked of the package."""
    own = results["package"]
    rows = [("package, M pixels/s", _LEAST_RATE / 1e6, own.rate / 1e6)]
    fastest = max(result.rate for name, result in results.items() if name.startswith("package"))
    rows.append(("fastest of the package, M pixels/s (goal)", _GOAL / 1e6, fastest / 1e6))
    if "package, draws" in results:
        rows.append((f"package, {_DRAWS} draws, pixels/s", _LEAST_SAMPLED, results["package, draws"].rate))
    rows += [
        (f"package over {name}", least, own.rate / results[name].rate)
        for name, least in _LEAST_RATIOS.items()
        if name in results
    ]
    return rows


def print_results(results):
    """Print the table."""
    own = results["package"].rate
    heads = (
        f"{'pixels':>8s}{'pixels/s':>12s}{'best':>12s}{'per core':>12s}{'first (s)':>11s}{'W1':>8s}{'package is':>14s}"
    )
    print(f"\n{'':32s}{heads}")
    for name, result in results.items():
        w1 = "" if result.w1 is None else f"{result.w1:.4f}"
        ratio = "" if name.startswith(("package", "training")) else f"{own / result.rate:.3g} x"
        rates = "".join(f"{value:12.4g}" for value in (result.rate, result.best, result.per_core))
        print(f"{name:32s}{result.pixels:8d}{rates}{result.first:11.3f}{w1:>8s}{ratio:>14s}")
    print(f"\n{'':44s}{'asked':>8s}{'measured':>10s}")
    for name, asked, measured in verdicts(results):
        print(f"{name:44s}{asked:8.4g}{measured:10.4g}  {'yes' if measured >= asked else 'NO'}")


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, default=512, help="pixels along a side for the networks")
    parser.add_argument("--compiled", type=int, default=65536, help="pixels for utu")
    parser.add_argument("--sampled", type=int, default=65536, help="pixels for draws of the posterior")
    parser.add_argument("--slow", type=int, default=1000, help="pixels for demregpy, basis pursuit and EMToolKit")
    parser.add_argument("--training", type=int, default=100_000, help="pixels of an epoch of training")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--weights", default="default")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "output")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    before = describe()
    response = TemperatureResponse.default()
    network = DeepEM.load(args.weights)
    truth, intensity, uncertainty = observe("prior", _CASE, args.shape**2, response, seed=args.seed)
    intensity, uncertainty = intensity.astype(np.float32), uncertainty.astype(np.float32)
    results = run(codes(network, response, args), truth, intensity, uncertainty, args.rounds, response.bins)
    results |= training(response, args.training, min(args.rounds, 3))
    print(f"{network!r}\n{args.shape} x {args.shape} pixels, {args.threads} threads, load {before['load']} before")
    print_results(results)
    content = {
        "machine": before | {"load": [before["load"], describe()["load"]]},
        "network": repr(network),
        "threads": args.threads,
        "shape": args.shape,
        "results": {
            name: result._asdict() | {key: getattr(result, key) for key in ("rate", "best", "per_core")}
            for name, result in results.items()
        },
        "asked": [dict(zip(("what", "asked", "measured"), row, strict=True)) for row in verdicts(results)],
    }
    (args.output / "speed.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
