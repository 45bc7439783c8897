"""
The package on a real Sun: how well do the synthetic maps agree with the observed ones, and is the answer physical?

Usage: ``python benchmarks/real_sun.py PATH [--weights default] [--pixels 300] [--output benchmarks/output]``, where
PATH is a folder with six full-disc AIA maps. Prints tables and leaves a PNG summary and a FITS file in the output
folder. For some pixels it also prints what Bayes' theorem answers with the training prior: where that is off, too, it
is not the network that stands in the way.

Spectroscopy finds no emission of quiet Sun and coronal holes above log T 6.6: Brooks et al. (2009), ApJ 705, 1522,
https://doi.org/10.1088/0004-637X/705/2/1522; Hahn, Landi & Savin (2011), ApJ 736, 101,
https://doi.org/10.1088/0004-637X/736/2/101. At most 2 % of their EM is what a DEM from AIA may put there.
"""

import argparse
import time
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("agg")
from sunpy_deepem import CHANNELS, ChannelStack, Quality, invert
from sunpy_deepem.methods import Importance
from sunpy_deepem.training import DEMPrior

_HOT = 6.6


def radius(cube):
    """Distance from disc centre in solar radii, shape (ny, nx)."""
    smap = cube.synthesize()[0]
    header, (ny, nx) = cube.sky_header, cube.data.shape[1:]
    x, y = (
        header[f"crval{axis}"] + (np.arange(1, n + 1) - header[f"crpix{axis}"]) * header[f"cdelt{axis}"]
        for axis, n in (("1", nx), ("2", ny))
    )
    return np.hypot(*np.meshgrid(x, y)) / smap.rsun_obs.value


def print_ratios(cube, disc):
    """Synthetic over observed on the disc."""
    print("\nSynthetic / observed, r < 0.95 Rsun (94 and 335 where g > 3 sigma)")
    print("channel   p10    median  p90     photometric sigma / g: p10    median  p90")
    systematic = cube.meta["provenance"]["systematic"]
    observed, sigma = cube.intensity.value, cube.intensity_uncertainty.value
    for index, (channel, smap) in enumerate(zip(CHANNELS, cube.synthesize(), strict=True)):
        chosen = disc & (observed[index] > (3 * sigma[index] if channel in (94, 335) else 0))
        ratio = smap.data[chosen] / observed[index][chosen]
        noise = np.sqrt(np.maximum((sigma / observed)[index][chosen] ** 2 - systematic**2, 0))
        columns = ("".join(f"{q:8.3f}" for q in np.percentile(values, [10, 50, 90])) for values in (ratio, noise))
        print(f"{channel:5d}  " + (18 * " ").join(columns))


def print_chi2(cube, disc, limb):
    """Quantiles of chi2."""
    print(
        "\nchi2 (mean over channels)   p10    median  p90    p99    median of the reduced sum, 94 131 171 193 211 335"
    )
    residual = [
        (s.data - g) / e
        for s, g, e in zip(cube.synthesize(), cube.intensity.value, cube.intensity_uncertainty.value, strict=True)
    ]
    for name, region in (("disc, r < 0.95", disc), ("1.05 to 1.2 Rsun", limb)):
        quantiles = "".join(f"{q:8.3f}" for q in np.nanpercentile(cube.chi2[region], [10, 50, 90, 99]))
        print(f"{name:24s}{quantiles}    " + " ".join(f"{np.nanmedian(r[region] ** 2):.3f}" for r in residual))


def print_hot(cube, disc):
    """Share of the EM above log T 6.6 by region."""
    print(f"\nEM fraction above log T {_HOT}          mean    median  p90     EM-weighted log T  log total EM")
    g193 = cube.intensity.value[CHANNELS.index(193)]
    low, p40, p60, high = np.nanpercentile(g193[disc], [5, 40, 60, 97])
    regions = {
        "quiet Sun (193 p40-p60)": disc & (g193 > p40) & (g193 < p60),
        "coronal hole (193 < p5)": disc & (g193 < low),
        "active (193 > p97)": disc & (g193 > high),
    }
    em = cube.data.astype(float)
    hot = em[cube.log_t > _HOT].sum(axis=0) / em.sum(axis=0)
    for name, region in regions.items():
        q = np.nanmedian(hot[region]), np.nanpercentile(hot[region], 90)
        temperature = np.nanmedian(cube.em_weighted_log_t().data[region])
        total = np.log10(np.nanmedian(em.sum(axis=0)[region]))
        print(
            f"{name:32s}{np.nanmean(hot[region]):8.4f}{q[0]:8.4f}{q[1]:8.4f}  {temperature:8.2f}         {total:8.2f}"
        )


def print_limit(cube, disc, n_pixels, n_draws):
    """The same medians for the posterior mean that Bayes' theorem gives with the training prior, and the cube's."""
    chosen = np.random.default_rng(0).choice(np.flatnonzero(disc), n_pixels, replace=False)
    observed, sigma, network = (
        array.reshape(len(array), -1)[:, chosen].astype(float)
        for array in (cube.intensity.value, cube.intensity_uncertainty.value, cube.data)
    )
    best = Importance(DEMPrior(cube.bins), draws=n_draws).solve(observed, sigma, cube.response)
    known = best.status == 0
    matrix = cube.response.matrix.value
    print(f"\nPosterior mean of {known.sum()} of {n_pixels} pixels of the disc (the others have too few draws)")
    print("                 median of synthetic / observed, 94 131 171 193 211 335    EM above log T 6.6: mean, median")
    for name, em in (("posterior mean", best.em), ("package", network)):
        ratios = np.median((matrix @ em / observed)[:, known], axis=1)
        hot = (em[cube.log_t > _HOT].sum(axis=0) / em.sum(axis=0))[known]
        columns = "".join(f"{ratio:8.3f}" for ratio in ratios)
        print(f"{name:16s} {columns}{'':12}{hot.mean():8.4f}{np.median(hot):8.4f}")


def print_faults(cube):
    """Fractions of pixels that are negative, zero or NaN, and flagged."""
    good = ~cube.mask.any(axis=0)
    em = cube.data[:, good]
    print(f"\nunmasked pixels {good.sum()} of {good.size}")
    print(
        f"negative {(em < 0).any(axis=0).mean():.6f}  zero {(em.sum(axis=0) == 0).mean():.6f}  "
        f"NaN {np.isnan(em).any(axis=0).mean():.6f}"
    )
    for flag in Quality:
        print(f"flag {flag.name:12s} {((cube.quality & flag) != 0).mean():.4f}")


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--weights", default="default")
    parser.add_argument("--pixels", type=int, default=300, help="for the posterior mean; 0 leaves it out")
    parser.add_argument("--draws", type=int, default=1_000_000, help="of the prior, for the posterior mean")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "output")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    seconds = {}
    start = time.perf_counter()
    stack = ChannelStack.from_maps(args.path)
    seconds["read, calibrate, bin"] = time.perf_counter() - start
    start = time.perf_counter()
    cube = invert(stack, weights=args.weights)
    seconds["invert (with start-up)"] = time.perf_counter() - start
    start = time.perf_counter()
    cube = invert(stack, weights=args.weights)
    seconds["invert"] = time.perf_counter() - start
    start = time.perf_counter()
    cube.synthesize()
    seconds["synthesize"] = time.perf_counter() - start
    start = time.perf_counter()
    cube.write(args.output / "real_sun.fits", overwrite=True)
    seconds["write"] = time.perf_counter() - start
    r = radius(cube)
    disc, limb = r < 0.95, (r > 1.05) & (r < 1.2)
    print_ratios(cube, disc)
    print_chi2(cube, disc, limb)
    print_hot(cube, disc)
    if args.pixels:
        print_limit(cube, disc & ~cube.mask.any(axis=0), args.pixels, args.draws)
    print_faults(cube)
    print("\nseconds  " + "  ".join(f"{name} {value:.2f}" for name, value in seconds.items()))
    cube.plot_summary().savefig(args.output / "real_sun.png", dpi=80)


if __name__ == "__main__":
    main()
