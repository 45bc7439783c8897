"""
The package on a real Sun: synthetic against observed maps, hot EM, and maps of bands with their intervals.

Usage: ``python benchmarks/real_sun.py PATH [--weights default] [--pixels 300] [--output benchmarks/output]``, where
PATH is a folder with six full-disc AIA maps. Prints tables and leaves ``real_sun.png`` (summary), ``real_sun.fits``,
``real_sun_bands.png`` (EM in four bands: 16, 50 and 84 % quantiles of the draws) and ``left_out.rst``, the table of the
documentation on channels that are left out, in the output folder. For some pixels
it also prints the exact posterior under the prior of the weights, to separate errors of the network and of the prior.
Another table predicts each channel from the other five.

Spectroscopy finds no emission of quiet Sun and coronal holes above log T 6.6: Brooks et al. (2009), ApJ 705, 1522,
https://doi.org/10.1088/0004-637X/705/2/1522; Hahn, Landi & Savin (2011), ApJ 736, 101,
https://doi.org/10.1088/0004-637X/736/2/101. Six AIA channels do not exclude a few per cent; the interval must include
none and some.
"""

import argparse
import time
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("agg")
import matplotlib.pyplot as plt
from families import BANDS, prior_of
from matplotlib.colors import LogNorm
from tables import Verdicts, list_table, print_table

from sunpy_deepem import CHANNELS, ChannelStack, DeepEM, Quality, invert
from sunpy_deepem.methods import Importance

_HOT = 6.6
_QUANTILES = (0.16, 0.5, 0.84)
_DRAWS = 64
# Enough for the ends of 95 % intervals.
_DRAWS_LEFT_OUT = 400


def radius(cube):
    """Return the distance from disc centre in solar radii, shape ``(ny, nx)``."""
    smap = cube.synthesize()[0]
    header, (ny, nx) = cube.sky_header, cube.data.shape[1:]
    x, y = (
        header[f"crval{axis}"] + (np.arange(1, n + 1) - header[f"crpix{axis}"]) * header[f"cdelt{axis}"]
        for axis, n in (("1", nx), ("2", ny))
    )
    return np.hypot(*np.meshgrid(x, y)) / smap.rsun_obs.value


def print_ratios(cube, disc, asked):
    """Print synthetic over observed on the disc."""
    print("\nSynthetic / observed, r < 0.95 Rsun (94 and 335 where g > 3 sigma)")
    print("channel   p10    median  p90     photometric sigma / g: p10    median  p90")
    systematic = cube.meta["provenance"]["systematic"]
    observed, sigma = cube.intensity.value, cube.intensity_uncertainty.value
    for index, (channel, smap) in enumerate(zip(CHANNELS, cube.synthesize(), strict=True)):
        chosen = disc & (observed[index] > (3 * sigma[index] if channel in (94, 335) else 0))
        ratio = smap.data[chosen] / observed[index][chosen]
        noise = np.sqrt(np.maximum((sigma[index][chosen] / observed[index][chosen]) ** 2 - systematic**2, 0))
        asked.ask(f"{channel} Å, synthetic / observed: median", "1 ± 0.03", {"disc": np.median(ratio)}, _within_three)
        columns = ("".join(f"{q:8.3f}" for q in np.percentile(values, [10, 50, 90])) for values in (ratio, noise))
        print(f"{channel:5d}  " + (18 * " ").join(columns))


def _within_three(ratio):
    return abs(ratio - 1) <= 0.03


def print_chi2(cube, disc, limb):
    """Print quantiles of chi2."""
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


def regions_of(cube, disc):
    """Return quiet Sun, coronal holes and active regions by name, as boolean images, from the intensity of 193 Å."""
    g193 = cube.intensity.value[CHANNELS.index(193)]
    low, p40, p60, high = np.nanpercentile(g193[disc], [5, 40, 60, 97])
    return {
        "quiet Sun (193 p40-p60)": disc & (g193 > p40) & (g193 < p60),
        "coronal hole (193 < p5)": disc & (g193 < low),
        "active (193 > p97)": disc & (g193 > high),
    }


def print_hot(cube, regions):
    """Print the fraction of the EM above log T 6.6 by region."""
    print(f"\nEM fraction above log T {_HOT}          mean    median  p90     EM-weighted log T  log total EM")
    em = cube.data.astype(float)
    hot = hot_fraction(em.reshape(len(em), -1), cube).reshape(em.shape[1:])
    for name, region in regions.items():
        q = np.nanmedian(hot[region]), np.nanpercentile(hot[region], 90)
        temperature = np.nanmedian(cube.em_weighted_log_t().data[region])
        total = np.log10(np.nanmedian(em.sum(axis=0)[region]))
        print(
            f"{name:32s}{np.nanmean(hot[region]):8.4f}{q[0]:8.4f}{q[1]:8.4f}  {temperature:8.2f}         {total:8.2f}"
        )


def chosen_pixels(cube, region, n):
    """Return intensity, uncertainty and EM of random unmasked pixels of a region, shape ``(..., n)``."""
    every = np.flatnonzero(region & ~cube.mask.any(axis=0))
    chosen = np.random.default_rng(0).choice(every, min(n, every.size), replace=False)
    arrays = (cube.intensity.value, cube.intensity_uncertainty.value, cube.data)
    return [array.reshape(len(array), -1)[:, chosen].astype(float) for array in arrays]


def hot_fraction(em, cube):
    """Return the fraction of the EM above log T 6.6; em has shape ``(..., bins, pixels)``."""
    above = ((cube.bins.edges[1:] - _HOT) / cube.bins.step).clip(0, 1)
    return np.matmul(above, em) / em.sum(axis=-2)


def print_hot_intervals(samplers, cube, regions, n, asked):
    """Print quantiles of the hot fraction over the draws, medians over the pixels of a region."""
    print(f"\nEM fraction above log T {_HOT}: 16, 50 and 84 % of the draws, medians over {n} pixels")
    for region_name, region in regions.items():
        intensity, sigma, _ = chosen_pixels(cube, region, n)
        for name, sample in samplers.items():
            fraction = hot_fraction(sample(intensity, sigma, 10 * _DRAWS), cube)
            low, middle, high = np.median(np.quantile(fraction, _QUANTILES, axis=0), axis=1)
            print(f"{region_name:32s}{name:18s}{low:8.4f}{middle:8.4f}{high:8.4f}")
            if region_name.startswith("quiet") and name == "network":
                for word, value, limit, good in (
                    ("16 %", low, "<= 0.005", low <= 0.005),
                    ("50 %", middle, "<= 0.04", middle <= 0.04),
                    ("84 %", high, ">= 0.02", high >= 0.02),
                ):
                    asked.ask(f"hot fraction, quiet Sun, {word}", limit, {"median": value}, lambda _, good=good: good)


def print_limit(exact, cube, disc, n):
    """Print medians over some pixels for the exact posterior mean and the cube."""
    observed, sigma, network = chosen_pixels(cube, disc, n)
    best = exact.solve(observed, sigma, cube.response)
    known = best.status == 0
    matrix = cube.response.matrix.value
    print(f"\nExact posterior mean of {known.sum()} of {n} pixels of the disc (the others have too few draws)")
    print("                 median of synthetic / observed, 94 131 171 193 211 335    EM above log T 6.6: mean, median")
    for name, em in (("exact mean", best.em), ("package", network)):
        ratios = np.median((matrix @ em / observed)[:, known], axis=1)
        hot = hot_fraction(em, cube)[known]
        columns = "".join(f"{ratio:8.3f}" for ratio in ratios)
        print(f"{name:16s} {columns}{'':12}{hot.mean():8.4f}{np.median(hot):8.4f}")


def left_out_line(sample, intensity, sigma, matrix, channel):
    """
    Predict a channel from draws that do not use it, and compare it with the observed one.

    Parameters
    ----------
    sample : callable
        As `DeepEM.sample`.
    intensity, sigma : `~numpy.ndarray`
        DN s^-1 pix^-1, shape ``(channels, n)``.
    matrix : `~numpy.ndarray`
        The folded response.
    channel : `int`
        Index of the channel.

    Returns
    -------
    `dict`
        Fractions of pixels whose observed intensity is in the 95 % interval of the synthetic intensity, and in that of
        the observation, to which its σ is added; the median of predicted over observed; and the median half-width of
        the 68 % interval of the synthetic intensity, relative to its median.
    """
    others = intensity.copy()
    others[channel] = np.nan
    observed, error = intensity[channel], sigma[channel]
    synthetic = np.einsum("j,kjn->kn", matrix[channel], sample(others, sigma, _DRAWS_LEFT_OUT))
    noisy = synthetic + error * np.random.default_rng(0).standard_normal(synthetic.shape)
    low, least, median, most, high = np.quantile(synthetic, (0.025, 0.16, 0.5, 0.84, 0.975), axis=0)
    lower, upper = np.quantile(noisy, (0.025, 0.975), axis=0)
    return {
        "channel": CHANNELS[channel],
        "in 95 % interval": ((lower <= observed) & (observed <= upper)).mean(),
        "without its own error": ((low <= observed) & (observed <= high)).mean(),
        "predicted / observed": np.median(median / observed),
        "half-width": np.median((most - least) / 2 / median),
    }


def print_left_out(sample, cube, disc, n, asked, path):
    """Print how well each channel is predicted by the other five on the disc, and write the table to ``path``."""
    print(f"\nEach channel predicted by the other five, {n} pixels with r < 0.95 Rsun")
    intensity, sigma, _ = chosen_pixels(cube, disc, n)
    matrix = cube.response.matrix.value
    lines = [left_out_line(sample, intensity, sigma, matrix, index) for index in range(len(CHANNELS))]
    print_table([{key: value if key == "channel" else f"{value:.3f}" for key, value in line.items()} for line in lines])
    path.write_text(list_table("", [for_pages(line) for line in lines]), encoding="utf-8")
    held = {f"{line['channel']} Å": line["in 95 % interval"] for line in lines}
    asked.ask("channel left out, in its 95 % interval", ">= 0.9", held, lambda value: value >= 0.9, min)


def for_pages(line):
    """Return a line of the table of the documentation."""
    return {
        "Channel left out": f"{line['channel']} Å",
        "In the interval": f"{line['in 95 % interval']:.2f}",
        "In the interval without σ": f"{line['without its own error']:.2f}",
        "Predicted / observed": f"{line['predicted / observed']:.2f}",
        "Half-width": f"{100 * line['half-width']:.0f} %",
    }


def plot_bands(network, cube, path):
    """Draw quantiles of the EM in bands, to be looked at for seams and speckle, and return the seconds they took."""
    edges = cube.bins.edges
    parts = (
        np.array([(np.minimum(edges[1:], b) - np.maximum(edges[:-1], a)).clip(0) for a, b in BANDS]) / cube.bins.step
    )

    def quantiles(draws):
        return np.quantile(np.matmul(parts.astype(np.float32), draws), _QUANTILES, axis=0)

    start = time.perf_counter()
    maps = network.map_draws(quantiles, cube.intensity.value, cube.intensity_uncertainty.value, _DRAWS)
    seconds = time.perf_counter() - start
    fig, panels = plt.subplots(len(BANDS), 3, figsize=(15, 20), layout="constrained")
    for row, band, images in zip(panels, BANDS, np.moveaxis(maps, 1, 0), strict=True):
        norm = LogNorm(*np.nanpercentile(images[1], [2, 99.8]))
        for axes, quantile, image in zip(row, _QUANTILES, images, strict=True):
            # Zeros are drawn as the least value.
            shown = axes.imshow(image.clip(norm.vmin), origin="lower", norm=norm, cmap="magma", interpolation="nearest")
            axes.set(title=f"log T {band[0]}-{band[1]}, {100 * quantile:.0f} %")
            axes.set_axis_off()
        fig.colorbar(shown, ax=row, label="EM (cm$^{-5}$)", shrink=0.8)
    fig.savefig(path, dpi=80)
    plt.close(fig)
    return seconds


def print_faults(cube):
    """Print the fractions of pixels that are negative, zero, NaN and flagged."""
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
    parser.add_argument("--pixels", type=int, default=300, help="of each region for the exact posterior; 0: none")
    parser.add_argument("--left-out", type=int, default=4000, help="pixels in which each channel is left out in turn")
    parser.add_argument("--draws", type=int, default=1_000_000, help="of the prior, for the exact posterior")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "output")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    seconds = {}
    start = time.perf_counter()
    stack = ChannelStack.from_maps(args.path)
    seconds["read, calibrate, bin"] = time.perf_counter() - start
    start = time.perf_counter()
    network = DeepEM.load(args.weights)
    cube = invert(stack, weights=network)
    seconds["invert (with start-up)"] = time.perf_counter() - start
    start = time.perf_counter()
    cube = invert(stack, weights=network)
    seconds["invert"] = time.perf_counter() - start
    start = time.perf_counter()
    cube.synthesize()
    seconds["synthesize"] = time.perf_counter() - start
    start = time.perf_counter()
    cube.write(args.output / "real_sun.fits", overwrite=True)
    seconds["write"] = time.perf_counter() - start
    r = radius(cube)
    disc, limb = r < 0.95, (r > 1.05) & (r < 1.2)
    asked, regions = Verdicts(), regions_of(cube, disc)
    print_ratios(cube, disc, asked)
    print_chi2(cube, disc, limb)
    print_hot(cube, regions)
    samplers = {}
    if getattr(network, "has_posterior", False):
        samplers["network"] = network.sample
        print_left_out(network.sample, cube, disc, args.left_out, asked, args.output / "left_out.rst")
        seconds[f"{_DRAWS} draws, four bands"] = plot_bands(network, cube, args.output / "real_sun_bands.png")
    if args.pixels:
        exact = Importance(prior_of(network, cube.bins), draws=args.draws, response=cube.response)
        print_limit(exact, cube, disc, args.pixels)
        samplers["exact, same prior"] = exact.sample
    print_hot_intervals(samplers, cube, regions, args.pixels or 300, asked)
    print_faults(cube)
    print("\nseconds  " + "  ".join(f"{name} {value:.2f}" for name, value in seconds.items()))
    print()
    print_table(asked.lines)
    cube.plot_summary().savefig(args.output / "real_sun.png", dpi=80)


if __name__ == "__main__":
    main()
