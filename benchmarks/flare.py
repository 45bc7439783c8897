"""
A flare with saturated channels: answered pixels, re-synthesis, lower limits, and hot EM against Fe XVIII.

Usage: ``python benchmarks/flare.py FOLDER [--weights default] [--draws 64] [--drawn 01:46 01:50 01:54 02:00]``, where
FOLDER holds AIA maps of one or more times. The asked values are those for the X2.2 flare of 2011-02-15, whose cutouts
come with the Python package demregpy 1.0.0 in ``demregpy/tests/data/aia_flare``: ten times from 01:44 to 02:02 UT,
67×67 native pixels of level 1, exposed for 0.005 to 2.9 s. Prints tables and leaves ``flare.csv``, ``flare.rst``, the
table of the documentation, and ``flare.png``, maps of the times that ``--drawn`` names, in the output folder.

Columns of the tables:

- six, three: percentage of pixels with six channels, or at least three, that are neither saturated nor bloomed;
- answered: percentage of pixels with an EM, which exceeds ``three`` where bloomed channels are used as a last resort;
- 94 to 335: synthetic over observed intensity, median over the pixels that use the channel;
- chi2: median over the pixels of the mean over their channels;
- above limit: percentage of the draws whose synthetic intensity is above the lower limit of a saturated channel;
- Fe XVIII: Spearman's rank correlation of the EM in the bins from log T 6.8 on and 94 − 211/120 − 171/450, where the
  latter is known.

At the peak of a large flare part of the plasma is beyond the last bin (log T 7.25): Fe XXIV in 193 Å. At 01:58 no EM in
the default bins explains the median pixel. Limits are contradicted by other channels in many pixels of a real flare,
under the exact posterior, too: charge spills, and the flare changes between exposures.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("agg")
import matplotlib.pyplot as plt
from matplotlib.colors import LogNorm
from scipy.stats import spearmanr
from tables import Verdicts, list_table, print_table, write_csv

from sunpy_deepem import CHANNELS, ChannelStack, DeepEM, invert
from sunpy_deepem.analysis import fe_xviii
from sunpy_deepem.series import group_maps
from sunpy_deepem.units import MIN_CHANNELS

# Lower edge of the bin at 6.8.
_HOT = 6.75
_QUANTILES = (0.16, 0.5, 0.84)


def unspoiled_channels(maps):
    """Return the number of channels of each pixel that are neither saturated nor bloomed, shape ``(ny, nx)``."""
    # A bloomed channel is used where fewer than min_channels others remain: here, where there is no other.
    return np.count_nonzero(ChannelStack.from_maps(maps, shape=None, min_channels=1).usable, axis=0)


def synthetic_draws(cube, n):
    """Return the synthetic intensity of ``n`` draws, shape ``(n, channels, ny, nx)``."""
    matrix = cube.response.matrix.value.astype(np.float32)
    return cube.map_draws(lambda draws: np.einsum("ij,njp->nip", matrix, draws), n=n)


def above_limit(cube, n):
    """Return the fraction of draws above the lower limits of saturated channels; NaN if there are no limits."""
    limit, limited = cube.with_limits()
    if limited is None:
        return np.nan
    limited = limited & ~cube.sky_mask
    return float((synthetic_draws(cube, n)[:, limited] >= limit[limited]).mean())


def correlation(cube):
    """Return Spearman's correlation of hot EM and Fe XVIII over the pixels where both are known."""
    line, hot = fe_xviii(cube.intensity).value, cube.total_em(_HOT).data
    known = np.isfinite(line) & np.isfinite(hot)
    return float(spearmanr(line[known], hot[known]).statistic)


def measure(maps, cube, n):
    """Return the columns of the table for one time, fractions as numbers from 0 to 1."""
    unspoiled = unspoiled_channels(maps)
    synthetic = np.stack([smap.data for smap in cube.synthesize()])
    ratios = synthetic / cube.intensity.value
    return {
        "time": cube.sky_header["date-obs"][11:16],
        "six": float((unspoiled == len(CHANNELS)).mean()),
        "three": float((unspoiled >= MIN_CHANNELS).mean()),
        "answered": float(np.isfinite(cube.data).all(axis=0).mean()),
        **{str(channel): float(np.nanmedian(ratio)) for channel, ratio in zip(CHANNELS, ratios, strict=True)},
        "chi2": float(np.nanmedian(cube.chi2)),
        "above limit": above_limit(cube, n),
        "Fe XVIII": correlation(cube),
    }


def shown(line):
    """Return a line of the table as text."""
    percent = ("six", "three", "answered", "above limit")
    return {
        key: value if key == "time" else f"{100 * value:.1f}" if key in percent else f"{value:.2f}"
        for key, value in line.items()
    }


def for_pages(line):
    """Return a line of the table of the documentation; the re-synthesis is that of the channel furthest from 1."""
    furthest = max(CHANNELS, key=lambda channel: abs(line[str(channel)] - 1))
    cells = shown(line)
    limits = "–" if np.isnan(line["above limit"]) else f"{cells['above limit']} %"
    return {
        "Time (UT)": cells["time"],
        "Six channels": f"{cells['six']} %",
        "Three channels": f"{cells['three']} %",
        "Answered": f"{cells['answered']} %",
        "Re-synthesis": f"{cells[str(furthest)]} ({furthest} Å)",
        "χ²": cells["chi2"],
        "Above limits": limits,
        "Fe XVIII": cells["Fe XVIII"],
    }


def verdicts(lines):
    """Return the `Verdicts` on the lines of the flare of 2011-02-15."""
    asked = Verdicts()

    def ask(what, limit, key, good, until="23:59", worst=max):
        values = {line["time"]: key(line) for line in lines if line["time"] < until}
        asked.ask(what, limit, values, good, worst)

    def answered(line):
        return line["answered"] - line["three"]

    def offset(line):
        return max(abs(line[str(channel)] - 1) for channel in CHANNELS)

    ask("answered minus three usable channels", ">= 0", answered, lambda value: value >= 0, worst=min)
    ask("re-synthesis, any channel, to 01:48: offset from 1", "<= 0.05", offset, lambda value: value <= 0.05, "01:49")
    ask("re-synthesis, any channel, to 01:54: offset from 1", "<= 0.10", offset, lambda value: value <= 0.10, "01:55")
    ask("chi2, median, to 01:54", "<= 1", lambda line: line["chi2"], lambda value: value <= 1, "01:55")
    ask("draws above lower limits", ">= 0.84", lambda line: line["above limit"], lambda value: value >= 0.84, worst=min)
    ask(
        "hot EM and Fe XVIII, to 01:50: Spearman",
        ">= 0.9",
        lambda line: line["Fe XVIII"],
        lambda value: value >= 0.9,
        "01:51",
        min,
    )
    return asked


def plot(cubes, n, path):
    """Draw quantiles of the hot EM, the number of channels used and χ² of each cube in a row."""
    fig, rows = plt.subplots(len(cubes), 5, figsize=(17, 3.2 * len(cubes)), layout="constrained", squeeze=False)
    norm = LogNorm(1e26, 1e31)
    for row, cube in zip(rows, cubes, strict=True):
        time = cube.sky_header["date-obs"][11:16]
        for axes, smap in zip(row, cube.total_em(_HOT, quantiles=_QUANTILES, n=n), strict=False):
            # Zeros are drawn as the least value; masked pixels stay empty.
            em = axes.imshow(smap.data.clip(norm.vmin), norm=norm, origin="lower", cmap="inferno")
            axes.set_title(f"{time} UT, hot EM, {100 * smap.meta['quantile']:.0f} %")
        fig.colorbar(em, ax=row[:3], label="EM above log T 6.75 (cm$^{-5}$)")
        used = np.where(cube.sky_mask, np.nan, np.isfinite(cube.intensity.value).sum(axis=0))
        image = row[3].imshow(used, origin="lower", cmap=mpl.colormaps["viridis"].resampled(6), vmin=0.5, vmax=6.5)
        row[3].set_title("channels used")
        fig.colorbar(image, ax=row[3], ticks=range(1, 7))
        image = row[4].imshow(cube.chi2, norm=LogNorm(0.01, 100), origin="lower", cmap="magma")
        row[4].set_title("χ²")
        fig.colorbar(image, ax=row[4])
        for axes in row:
            axes.set_axis_off()
    fig.savefig(path, dpi=80)
    plt.close(fig)


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", default="default")
    parser.add_argument("--draws", type=int, default=64)
    parser.add_argument("--drawn", nargs="*", default=["01:46", "01:50", "01:54", "02:00"], help="times in the figure")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "output")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    network, lines, drawn = DeepEM.load(args.weights), [], []
    for group in group_maps(args.folder).complete:
        cube = invert(group.sources, weights=network, shape=None)
        lines.append(measure(group.sources, cube, args.draws))
        if lines[-1]["time"] in args.drawn:
            drawn.append(cube)
    print_table([shown(line) for line in lines])
    print()
    print_table(verdicts(lines).lines)
    write_csv(lines, args.output / "flare.csv")
    (args.output / "flare.rst").write_text(list_table("", [for_pages(line) for line in lines]), encoding="utf-8")
    if drawn:
        plot(drawn, args.draws, args.output / "flare.png")


if __name__ == "__main__":
    main()
