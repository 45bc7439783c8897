"""
The posterior of the network against the exact one, `Importance` under the same prior and noise, on the same pixels.

Usage: ``python benchmarks/exact.py [--pixels 400] [--weights default] [--draws 1000] [--prior-draws 1000000]
[--output benchmarks/output]``. Prints tables and leaves ``exact.rst`` and ``exact.json``. Pixels are those of
`calibration`, at 10 % systematic error; less noise needs too many draws. Pixels in which the exact posterior has too
few effective draws are left out. With 100 pixels the percentages are too uncertain to be compared.

The table gives the percentage of truths in 68 % intervals of the network and of the exact posterior; the hot EM of the
posterior mean over the true one, where that has at least 5 % of the EM; χ² of draws; and the absolute differences of
16, 50 and 84 % quantiles in dex, for bands with more than 5 % of the exact EM. A wrong prior cannot be calibrated:
where the exact posterior holds less than 68 %, so may the network.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from calibration import UNLIKE, evaluate, judged, known, sampler, select
from conditions import MAIN, Condition, pixels
from diagnostics import coverage
from families import BANDS, DERIVED, Case, prior_of
from machine import origin
from tables import Verdicts, list_table, print_table

from sunpy_deepem import DeepEM, TemperatureResponse
from sunpy_deepem.methods import Importance

_MAJOR = 0.05  # of the EM, for bands whose quantiles are compared
_LEAST_COMPARED = 50  # pixels for a requirement on percentages
_CASES = (MAIN, Case(1, 0.1))


def differences(result, exact):
    """
    Return the absolute differences of the quantiles from the exact ones, in dex, of the bands and of log T.

    Only bands with more than 5 % of the exact EM count.
    """
    first = len(result.names) - len(DERIVED)
    difference = np.abs(result.quantiles[:, first:] - exact.quantiles[:, first:])
    major = exact.fraction[first : first + len(BANDS)] > _MAJOR
    return difference[:, : len(BANDS)][:, major].ravel(), difference[:, DERIVED.index("log T")].ravel()


def held(result):
    """Return the percentage of truths in the 68 % interval of each derived quantity."""
    return 100 * coverage(judged(result), (0.68,))[0]


def summary(condition, result, exact):
    """Return the line of a condition in the table."""
    line = {"pixels": condition.name, "compared": exact.joint.size}
    both = zip(DERIVED, held(result), held(exact), strict=True)
    line |= {name: f"{own:.0f} / {best:.0f}" for name, own, best in both}
    hot = [np.nan if np.isnan(each.hot).all() else np.nanmedian(each.hot) for each in (result, exact)]
    line["hot EM"] = "" if np.isnan(hot).all() else f"{hot[0]:.2f} / {hot[1]:.2f}"
    line["χ²"] = f"{np.median(result.chi2):.2f} / {np.median(exact.chi2):.2f}"
    band, log_t = differences(result, exact)
    line["bands (dex)"] = f"{np.median(band):.3f} ({np.quantile(band, 0.9):.3f})"
    line["log T (dex)"] = f"{np.median(log_t):.3f}"
    return line


def verdicts(pairs):
    """Return the requirements and whether they are met, `Verdicts`."""
    asked = Verdicts()
    quantiles = {c.name: differences(*pair) for c, pair in pairs.items() if c.case == MAIN}
    for what, most, of in (
        ("median", 0.02, lambda pair: np.median(pair[0])),
        ("90 %", 0.08, lambda pair: np.quantile(pair[0], 0.9)),
        ("median, log T", 0.015, lambda pair: np.median(pair[1])),
    ):
        values = {name: of(pair) for name, pair in quantiles.items()}
        asked.ask(f"quantiles, dex: {what}", f"<= {most}", values, lambda value, most=most: value <= most)
    near = {
        f"{condition.family}, {name}": value
        for condition, (own, best) in pairs.items()
        if condition.family != "prior" and condition.case != MAIN and best.joint.size >= _LEAST_COMPARED
        for name, value in zip(DERIVED, np.abs(held(own) - held(best)), strict=True)
    }
    asked.ask("families, 1 px, in 68 %: farthest from the exact, points", "<= 8", near, lambda value: value <= 8)
    chi2 = {c.name: np.median(own.chi2) / np.median(best.chi2) for c, (own, best) in pairs.items()}
    asked.ask("χ² of draws over that of exact ones", "<= 1.3", chi2, lambda value: value <= 1.3)
    return asked


def run(network, exact, response, args):
    """Return pairs of results, of the network and exact, by `Condition`."""
    pairs = {}
    for condition in (Condition(family, case) for case in _CASES for family in ("prior", *args.families)):
        start = time.perf_counter()
        observed = pixels(condition, args.pixels, exact.prior, response, args.seed)
        observed = select(observed, known(exact, condition.case, observed))
        if not observed.truth.size:
            print(f"{condition.name}: left out, too few effective draws")
            continue
        methods = (network.sample, sampler(exact, condition.case))
        pairs[condition] = tuple(
            evaluate(sample, observed, response, draws=args.draws, seed=args.seed) for sample in methods
        )
        seconds = time.perf_counter() - start
        print(f"{condition.name}: {observed.truth.shape[1]} pixels, {seconds:.0f} s", flush=True)
    return pairs


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pixels", type=int, default=400, help="of each family at each noise")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--draws", type=int, default=1000, help="of each posterior")
    parser.add_argument("--prior-draws", type=int, default=1_000_000)
    parser.add_argument("--families", nargs="*", choices=UNLIKE, default=list(UNLIKE))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "output")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    response, network = TemperatureResponse.default(), DeepEM.load(args.weights)
    # Another seed than the pixels', so that no pixel is among the draws.
    prior = prior_of(network, response.bins)
    exact = Importance(prior, draws=args.prior_draws, seed=[args.seed, 2**20], response=response)
    pairs = run(network, exact, response, args)
    lines, asked = [summary(c, *pair) for c, pair in pairs.items()], verdicts(pairs).lines
    card = {"weights": str(args.weights), "draws": args.draws} | origin(network) | {"asked": asked, "table": lines}
    (args.output / "exact.json").write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    text = list_table("Network / exact posterior", lines) + "\n" + list_table("Asked and measured", asked)
    (args.output / "exact.rst").write_text(text, encoding="utf-8")
    print()
    print_table(lines)
    print()
    print_table(asked)


if __name__ == "__main__":
    main()
