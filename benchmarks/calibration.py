"""
Calibration of a posterior: do 68 % intervals hold the truth in 68 % of cases, and are they as narrow as they can be?

Usage: ``python benchmarks/calibration.py [--method network] [--weights default] [--truths 2000] [--draws 1000]
[--instrument FILE] [--quick] [--output benchmarks/output]``. ``--method importance`` tests `Importance` under the
training prior, which must be calibrated, so that the test itself is tested.

- *Simulation-based calibration*: truths are drawn from the prior, observed with noise, and ranked among draws of their
  posterior, for the EM of every bin and for eight derived quantities. Ranks must be uniform (Kolmogorov-Smirnov, Holm's
  correction), intervals must hold as much as they state, and TARP tests the joint distribution of the bins. This is
  repeated for levels of noise and of brightness.
- *Missing and saturated channels*: the same with random channels left out, or saturated above a random threshold, on
  pixels of the prior and of two families.
- *A wrong response*: one channel is 25 % off, which is more than the systematic error that is stated, or the plasma has
  photospheric abundances. FILE is an instrument file as for `TemperatureResponse.from_aiapy`; the abundances also
  need xrtpy.
- *Families unlike the prior*: coverage, hot EM and χ². A wrong prior cannot be calibrated; ``exact.py``
  shows what the exact posterior under the same prior holds.
- *Contraction* (1 - posterior/prior variance) shows what the data constrain.

EM below a thousandth of the pixel's mean total counts as equal: nothing of it is visible, and networks do not resolve
it. Bands of the families are judged where the posterior mean holds at least 1 % of the EM in them. Electron density has
the ranks of the total EM. Every 50 pixels have their own random numbers; with common ones the ranks of all pixels would
share the scatter of the draws.

Leaves ``calibration.csv``, ``calibration.json``, ``calibration.rst`` and three figures.
"""

import argparse
import json
import time
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from conditions import MAIN, Condition, pixels, wrong_responses
from diagnostics import (
    LEVELS,
    binomial_band,
    coverage,
    ecdf_band,
    holm,
    probability_transform,
    tarp,
    tarp_area,
    uniformity,
    z_score,
)
from families import BANDS, DERIVED, Case, SimulatedNoise, names_of, prior_of, quantities, relative
from machine import origin
from tables import Verdicts, list_table, print_table, write_csv

from sunpy_deepem import DeepEM, TemperatureResponse
from sunpy_deepem.methods import Importance

mpl.use("agg")
import matplotlib.pyplot as plt

_HOT = DERIVED.index("6.6-7.0")
#: Families that the prior does not contain.
UNLIKE = ("Gaussian", "two components", "cool and hot", "hot minority", "top hat", "loop strands", "loop corona")
#: Families whose channels are left out, too: loops, and flares, which saturate.
_FEWER = ("loop strands", "flare")
_NOISE = tuple(Case(n_sample, systematic) for systematic in (0.1, 0.05, 0.02, 0.0) for n_sample in (64, 1))
_FLOOR = 1e-3  # of the mean total EM
_LEAST = 0.01  # of the mean total EM, for a band to be judged
_MAJOR = 0.05  # of the EM, for bands whose quantiles or hot EM are compared
_QUANTILES = (0.16, 0.5, 0.84)
#: Derived quantities in words, and colors that differ from the grey of single bins.
_WORDS = {"total": "total EM", "log T": "EM-weighted log T", "width": "thermal width", "energy": "thermal energy"}
_COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8C564B", "#000000")
_BATCH = 50
_LEAST_KNOWN = 20  # pixels with enough effective draws of the exact posterior


class Result(NamedTuple):
    """A posterior on the pixels of a family."""

    #: Quantities' names.
    names: tuple
    #: Truth and posterior mean, shape ``(quantities, n)``; quantities are logarithms where they are EM or energy.
    truth: np.ndarray
    mean: np.ndarray
    #: `probability_transform`, shape ``(quantities, n)``, and of TARP, shape ``(n,)``.
    transform: np.ndarray
    joint: np.ndarray
    #: Quantiles of `_QUANTILES`, shape ``(3, quantities, n)``.
    quantiles: np.ndarray
    #: Posterior variance of `relative` quantities and z-score, shape ``(quantities, n)``.
    variance: np.ndarray
    z: np.ndarray
    #: Fraction of the posterior mean EM in each quantity, one for those that are no EM, shape ``(quantities, n)``.
    fraction: np.ndarray
    #: Hot EM of the posterior mean over the true one, NaN where that is minor, shape ``(n,)``.
    hot: np.ndarray
    #: Median over the draws of χ² per channel, shape ``(n,)``.
    chi2: np.ndarray
    #: Fraction of the draws above the lower limits of saturated channels, NaN where there are none, shape ``(n,)``.
    above: np.ndarray


def select(record, chosen):
    """Return a `Result` or `Observed` of some of the pixels."""
    return type(record)(*(value if isinstance(value, tuple) else value[..., chosen] for value in record))


def evaluate(sample, observed, response, *, draws, seed=0):
    """
    Compare a posterior with the truth.

    Parameters
    ----------
    sample : callable
        ``sample(intensity, uncertainty, n, seed, lower_limit=...)`` to draws, shape ``(n, bins, pixels)``.
    observed : `Observed`
    response : `TemperatureResponse`
    draws : `int`
        Draws per pixel.
    seed : `int`, optional

    Returns
    -------
    `Result`
    """
    truth = observed.truth
    rng, parts = np.random.default_rng([seed, 77]), []
    every = quantities(truth, response.bins, _FLOOR * truth.sum(axis=0))[: len(response.bins)]
    limits = every.min(axis=1, keepdims=True), every.max(axis=1, keepdims=True)
    for start in range(0, truth.shape[1], _BATCH):
        true, g, sigma, lower = select(observed, slice(start, start + _BATCH))
        em = np.asarray(sample(g, sigma, draws, seed + start, lower_limit=lower))
        mean_em = em.mean(axis=0, dtype=float)
        total = mean_em.sum(axis=0)
        drawn, mean = quantities(em, response.bins, _FLOOR * total), quantities(mean_em, response.bins, _FLOOR * total)
        known = quantities(true, response.bins, _FLOOR * total)
        bins = len(response.bins)
        linear = np.concatenate([10 ** mean[: bins + 5] / total, np.ones((3, total.size))])
        measured = np.isfinite(g) & np.isfinite(sigma) & ~lower
        with np.errstate(invalid="ignore"):
            synthetic = np.matmul(response.matrix.value.astype(np.float32), em)
            misfit = np.square((synthetic - g) / sigma)
            hot = 10 ** (mean - known)[bins + _HOT]
            above = (lower & (synthetic >= g)).mean(axis=0).sum(axis=0) / lower.sum(axis=0)
        chi2 = np.where(measured, misfit, 0).sum(axis=1) / measured.sum(axis=0)
        hot[10 ** (known[bins + _HOT] - known[bins + 4]) < _MAJOR] = np.nan
        parts.append(
            (
                known,
                mean,
                probability_transform(drawn, known, rng),
                tarp(drawn[:, :bins], known[:bins], limits, rng),
                np.quantile(drawn, _QUANTILES, axis=0),
                relative(drawn, response.bins).var(axis=0),
                z_score(drawn, known),
                linear,
                hot,
                np.median(chi2, axis=0),
                above,
            )
        )
    return Result(names_of(response.bins), *(np.concatenate(column, axis=-1) for column in zip(*parts, strict=True)))


def run(method, exact, prior, response, args):
    """Return the results of the method by `Condition`."""
    few = max(args.truths // 4, _BATCH)
    wanted = {Condition("prior", case): args.truths if case == MAIN else few for case in _NOISE}
    for case in (MAIN, Case(1, 0.1), Case(64, 0.02), Case(64, 0.0)):
        wanted |= {Condition(family, case): few for family in args.families}
    for family in ("prior", *_FEWER):
        channels = [{"missing": missing} for missing in (1, 2, 3)] + [{"saturated": 2}]
        wanted |= {Condition(family, **each): args.truths if family == "prior" else few for each in channels}
    observing = {"": response} | ({} if method is exact else wrong_responses(response, args.instrument))
    wanted |= {Condition("prior", response=name): few for name in observing if name}
    results = {}
    options = {"draws": args.draws, "seed": args.seed}
    for condition, n in wanted.items():
        start = time.perf_counter()
        observed = pixels(condition, n, prior, observing[condition.response], args.seed)
        if method is exact:
            observed = select(observed, known(exact, condition.case, observed))
            if observed.truth.shape[1] < _LEAST_KNOWN:
                print(f"{condition.name}: left out, too few effective draws")
                continue
        results[condition] = evaluate(sampler(method, condition.case), observed, response, **options)
        print(f"{condition.name}: {observed.truth.shape[1]} pixels, {time.perf_counter() - start:.0f} s", flush=True)
    return results


def sampler(method, case):
    """Return the function that draws from a method's posterior; the exact one knows the noise of the simulation."""
    if isinstance(method, Importance):
        # The likelihood that a network learns: σ depends on the true intensity.
        method.noise = SimulatedNoise(*case)
    return method.sample


def known(exact, case, observed):
    """Return where `Importance` has enough effective draws, shape ``(n,)``."""
    sampler(exact, case)
    return exact.solve(observed.intensity, observed.uncertainty, lower_limit=observed.lower_limit).status == 0


def judged(result):
    """Return the transform of the eight derived quantities, NaN where a band holds less than 1 % of the EM."""
    first = len(result.names) - len(DERIVED)
    return np.where(result.fraction[first:] >= _LEAST, result.transform[first:], np.nan)


def table_rows(condition, result, prior_variance):
    """Return the lines of the CSV file of a condition: one per quantity and range of brightness."""
    first = len(result.names) - len(DERIVED)
    total = result.mean[first + DERIVED.index("total")]
    edges = np.quantile(total, [0, 1 / 3, 2 / 3, 1])
    groups = {"all": np.ones(total.size, dtype=bool)}
    if condition == Condition("prior"):
        for word, low, high in zip(("dim", "medium", "bright"), edges[:-1], edges[1:], strict=True):
            groups[f"{word} (log EM {low:.1f}-{high:.1f})"] = (total >= low) & (total <= high)
    lines = []
    for group, chosen in groups.items():
        transform = result.transform[:, chosen]
        held, p = coverage(transform), holm(uniformity(transform))
        shrunk = 1 - result.variance[:, chosen].mean(axis=1) / prior_variance
        for index, name in enumerate(result.names):
            line = {"family": condition.family, "errors": condition.case.name, "channels": condition.channels}
            line |= {"response": condition.response, "brightness": group, "quantity": name}
            line |= {"pixels": int(chosen.sum())}
            line |= {
                f"in {100 * level:.0f} %": 100 * value for level, value in zip(LEVELS, held[:, index], strict=True)
            }
            line |= {"Holm p": p[index], "contraction": shrunk[index]}
            line |= {"z mean": result.z[index, chosen].mean(), "z std": result.z[index, chosen].std()}
            lines.append(
                {key: value if isinstance(value, str | int) else float(f"{value:.4g}") for key, value in line.items()}
            )
    return lines


def summary(condition, result):
    """Return the line of a condition in the table of the documentation."""
    held = 100 * coverage(judged(result), (0.68,))[0]
    line = {"pixels": condition.name} | {f"{name}": f"{value:.0f}" for name, value in zip(DERIVED, held, strict=True)}
    every = 100 * coverage(result.transform, (0.68, 0.95))
    line["all, 68 %"], line["all, 95 %"] = (f"{row.min():.0f}-{row.max():.0f}" for row in every)
    line["Holm p"], line["TARP"] = f"{holm(uniformity(result.transform)).min():.2g}", f"{tarp_area(result.joint):.3f}"
    line["above limits"] = "" if np.isnan(result.above).all() else f"{100 * np.nanmean(result.above):.0f} %"
    line["hot EM"] = "" if np.isnan(result.hot).all() else f"{np.nanmedian(result.hot):.2f}"
    line["χ²"] = f"{np.median(result.chi2):.2f}"
    return line


def tables(results, lines, asked):
    """Return the tables of the documentation; columns without a value are left out."""
    kinds = {
        "The prior's own pixels": lambda c: c.plain and c.family == "prior",
        "Families unlike the prior": lambda c: c.plain and c.family != "prior",
        "Random channels left out or saturated": lambda c: not c.response and not c.plain,
        "Pixels of the prior, observed with another response": lambda c: c.response,
    }
    text = []
    for title, belongs in kinds.items():
        part = [line for c, line in zip(results, lines, strict=True) if belongs(c)]
        if part:
            filled = [key for key in part[0] if any(line[key] for line in part)]
            text.append(list_table(title, [{key: line[key] for key in filled} for line in part]))
    return "\n".join([*text, list_table("Asked and measured", asked)])


def verdicts(results):
    """Return the requirements and whether they are met, `Verdicts`."""
    asked = Verdicts()
    own = results[Condition("prior")]
    for level, margin in ((0.68, 3), (0.95, 1.5)):
        held = dict(zip(own.names, 100 * (coverage(own.transform, (level,))[0] - level), strict=True))
        asked.ask(
            f"own pixels, in {100 * level:.0f} %: farthest from it, points",
            f"<= {margin}",
            {key: abs(value) for key, value in held.items()},
            lambda value, margin=margin: value <= margin,
        )
    p = dict(zip(own.names, holm(uniformity(own.transform)), strict=True))
    asked.ask("own pixels, Holm's p of uniform ranks, least", "> 0.05", p, lambda value: value > 0.05, min)
    asked.ask("own pixels, TARP area", "<= 0.03", {"18 bins": tarp_area(own.joint)}, lambda value: value <= 0.03)
    fewer = {
        f"{c.channels}, {name}": abs(100 * value - 68)
        for c, result in results.items()
        if c.family == "prior" and (c.missing or c.saturated)
        for name, value in zip(result.names, coverage(result.transform, (0.68,))[0], strict=True)
        if name not in ("total", "energy")
    }
    asked.ask("own pixels, channels left out, in 68 %: points from it", "<= 5", fewer, lambda value: value <= 5)
    above = {c.name: np.nanmean(r.above) for c, r in results.items() if c.saturated}
    asked.ask("draws above the limits of saturated channels", ">= 0.84", above, lambda value: value >= 0.84, min)
    far = {
        f"{c.family}, {name}": 100 * value
        for c, result in results.items()
        if c.family in UNLIKE and c == Condition(c.family)
        for name, value in zip(DERIVED, coverage(judged(result), (0.68,))[0], strict=True)
    }
    asked.ask("families, 64 px, in 68 %: least", ">= 42", far, lambda value: value >= 42, min)
    asked.ask("families, 64 px, in 68 %: most", "<= 88", far, lambda value: value <= 88)
    hot = {
        c.name: np.nanmedian(r.hot)
        for c, r in results.items()
        if c.case == MAIN and c.plain and np.isfinite(r.hot).sum() > 10
    }
    asked.ask("hot EM over the true one, 64 px: least", ">= 0.8", hot, lambda value: value >= 0.8, min)
    asked.ask("hot EM over the true one, 64 px: most", "<= 1.25", hot, lambda value: value <= 1.25)
    low = {c.name: np.median(r.chi2) for c, r in results.items() if c.case.systematic in (0.0, 0.02)}
    asked.ask("χ² of draws at 0 and 2 %", "<= 3", low, lambda value: value <= 3)
    return asked


def plot_ecdf(result, path):
    """ECDF of the ranks of every quantity minus the diagonal, with the band of a calibrated posterior."""
    z, low, high = ecdf_band(result.truth.shape[1])
    fig, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    axes.fill_between(z, low - z, high - z, color="0.85", label="calibrated (95 %)")
    first = len(result.names) - len(DERIVED)
    for index, (name, values) in enumerate(zip(result.names, result.transform, strict=True)):
        ecdf = np.searchsorted(np.sort(values), z, side="right") / values.size
        style = {"color": "0.5", "lw": 0.5, "label": "single bins" if index == 0 else None}
        if index >= first:
            band = index - first < len(BANDS)
            style = {"color": _COLORS[index - first], "label": f"EM, log T {name}" if band else _WORDS[name]}
        axes.plot(z, ecdf - z, **style)
    axes.set(xlabel="fraction of the posterior below the truth", ylabel="observed - expected fraction of truths")
    axes.set_title(f"Ranks of the truth: pixels of the prior, {_words(MAIN)}", fontsize=10)
    fig.legend(loc="outside right upper", fontsize=8)
    fig.savefig(path, dpi=120)


def plot_coverage(results, path):
    """Coverage of the derived quantities at each level: the prior's own pixels, and other families."""
    fig, axes = plt.subplots(1, 2, figsize=(10, 5), layout="constrained", sharey=True)
    levels = np.linspace(0.05, 0.99, 48)
    noise = [c for c in results if c == Condition("prior", c.case) and c.case.n_sample == MAIN.n_sample]
    others = [c for c in map(Condition, UNLIKE) if c in results]
    for panel, chosen in zip(axes, (noise, others), strict=True):
        for color, condition in zip(_COLORS, chosen, strict=False):
            held = 100 * coverage(judged(results[condition]), levels)
            own = condition.family == "prior"
            label = f"{100 * condition.case.systematic:g} % systematic error" if own else condition.family
            panel.plot(100 * levels, np.nanmean(held, axis=1), color=color, label=label)
            # The ranges of many families would hide each other.
            for edge in (np.nanmin, np.nanmax):
                panel.plot(100 * levels, edge(held, axis=1), color=color, lw=0.7, ls=":")
        low, high = binomial_band(levels, min(results[condition].joint.size for condition in chosen))
        panel.fill_between(100 * levels, 100 * low, 100 * high, color="0.85", label="calibrated (95 %)")
        panel.plot(100 * levels, 100 * levels, "k", lw=0.5)
        panel.set_xlabel("stated level of the interval (%)")
        panel.legend(fontsize=8)
    axes[0].set_ylabel("truths in the interval (%): mean and range of 8 quantities")
    axes[0].set_title(f"pixels of the prior, {MAIN.n_sample:g} native pixels", fontsize=10)
    axes[1].set_title(f"other families, {_words(MAIN)}", fontsize=10)
    fig.savefig(path, dpi=120)


def plot_contraction(results, prior_variance, path):
    """Contraction of each bin at several levels of noise and with fewer channels."""
    fig, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    n_bins = len(prior_variance) - len(DERIVED)
    for condition, result in results.items():
        own = condition.family == "prior" and condition.case.n_sample == MAIN.n_sample
        if own and not condition.saturated and not condition.response:
            shrunk = 1 - result.variance[:n_bins].mean(axis=1) / prior_variance[:n_bins]
            label = f"{condition.channels}, {100 * condition.case.systematic:g} % error"
            axes.plot(range(n_bins), shrunk, marker="o", ms=3, ls="--" if condition.missing else "-", label=label)
    axes.set_xticks(range(n_bins), [name.removeprefix("EM ") for name in result.names[:n_bins]], fontsize=8)
    axes.set(xlabel="log T of the bin", ylabel="1 - posterior / prior variance of log EM fraction")
    axes.set_ylim(min(0, axes.get_ylim()[0]), 1)
    axes.set_title("Contraction of pixels of the prior: 1 = the data decide, 0 = the prior decides", fontsize=10)
    fig.legend(loc="outside right upper", fontsize=8)
    fig.savefig(path, dpi=120)


def _words(case):
    """Return the measurement errors in words, for titles."""
    return f"{100 * case.systematic:g} % systematic error, {case.n_sample:g} native pixels"


def methods(args, response):
    """Return the method, the exact posterior and the prior."""
    network = DeepEM.load(args.weights) if args.method == "network" else None
    prior = prior_of(network, response.bins)
    importance = Importance(prior, draws=args.prior_draws, seed=[args.seed, 2**20], response=response)

    if network is None:
        return importance, importance, prior
    if not getattr(network, "has_posterior", False):
        raise SystemExit(f"The weights {args.weights!r} state no posterior. Use --method importance.")
    return network, importance, prior


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=("network", "importance"), default="network")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--truths", type=int, default=2000, help="of the prior at 10 %% errors; a quarter elsewhere")
    parser.add_argument("--draws", type=int, default=1000, help="of each posterior")
    parser.add_argument("--prior-draws", type=int, default=1_000_000, help="of the prior, for --method importance")
    parser.add_argument("--instrument", type=Path, help="instrument file, for a response of other abundances")
    parser.add_argument("--families", nargs="*", choices=UNLIKE, default=list(UNLIKE))
    parser.add_argument("--quick", action="store_true", help="few pixels and draws: shows that it works")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "output")
    args = parser.parse_args()
    if args.quick:
        args.truths, args.draws, args.prior_draws = 200, 200, 50_000
        args.families = ["hot minority", "loop strands"]
    args.output.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    response = TemperatureResponse.default()
    method, exact, prior = methods(args, response)
    results = run(method, exact, prior, response, args)
    ensemble = prior.sample(20_000, seed=[args.seed, 13])
    values = quantities(ensemble, response.bins, _FLOOR * ensemble.sum(axis=0))
    prior_variance = relative(values, response.bins).var(axis=1)
    lines = [summary(c, result) for c, result in results.items()]
    asked = verdicts(results).lines
    rows = [row for c, result in results.items() for row in table_rows(c, result, prior_variance)]
    write_csv(rows, args.output / "calibration.csv")
    card = {"method": args.method, "weights": str(args.weights), "truths": args.truths, "draws": args.draws}
    card |= origin(method) | {"asked": asked, "table": lines}
    (args.output / "calibration.json").write_text(
        json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    (args.output / "calibration.rst").write_text(tables(results, lines, asked), encoding="utf-8")
    plot_ecdf(results[Condition("prior")], args.output / "calibration_ecdf.png")
    plot_coverage(results, args.output / "calibration_coverage.png")
    plot_contraction(results, prior_variance, args.output / "calibration_contraction.png")
    print()
    print_table(lines)
    print()
    print_table(asked)
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
