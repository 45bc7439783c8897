"""
Plot temperature responses for different upper limits of the wavelength integral, for the documentation.

Usage: ``python tools/make_fold_limit_figure.py SOURCE``, with the SOURCE of ``tools/make_response_table.py``.
Writes ``docs/images/fold_limit.png`` and prints the ratios.
"""

import argparse
from pathlib import Path

import astropy.units as u
import matplotlib as mpl
import numpy as np

mpl.use("agg")
import matplotlib.pyplot as plt

from sunpy_deepem import CHANNELS, TemperatureResponse

LIMITS = (413, 600, 901)
COLORS = ("black", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00")
IMAGE = Path(__file__).resolve().parents[1] / "docs" / "images" / "fold_limit.png"


def main():
    """Plot the responses and print their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    source = parser.parse_args().source
    curves = {
        limit: TemperatureResponse.from_aiapy(
            chiantifix=False,
            instrument_file=source,
            emissivity=source,
            wavelength_range=[1, limit] * u.angstrom,
        )
        for limit in LIMITS
    }
    whole = curves[LIMITS[-1]]
    log_t = np.log10(whole.temperature.value)
    fig, panels = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for limit, style in zip(LIMITS, (":", "--", "-"), strict=True):
        panels[0].plot(log_t, curves[limit].curves[-1].value, "k", linestyle=style, label=f"1 to {limit} Å")
    panels[0].set(
        yscale="log", xlim=(5, 7.5), ylim=(1e-28, 2e-26), title="335 Å", ylabel="response (cm$^5$ DN / (pix s))"
    )
    panels[0].legend()
    ratio = (curves[LIMITS[0]].curves / whole.curves).value
    for channel, curve, color in zip(CHANNELS, ratio, COLORS, strict=True):
        panels[1].plot(log_t, curve, color=color, label=f"{channel} Å")
    panels[1].set(xlim=(5, 7.5), ylim=(0, 1.05), title=f"1 to {LIMITS[0]} Å over 1 to {LIMITS[-1]} Å")
    panels[1].legend(ncols=2)
    for axes in panels:
        axes.set_xlabel(r"$\log_{10}$ (T / K)")
    fig.savefig(IMAGE, dpi=100)
    for limit in LIMITS[:-1]:
        ratios = (curves[limit].curves / whole.curves).value
        for channel, curve in zip(CHANNELS, ratios, strict=True):
            values = {t: round(float(np.interp(t, log_t, curve)), 3) for t in (5.0, 5.5, 6.0)}
            print(f"{channel} Å up to {limit} Å relative to {LIMITS[-1]} Å, by log T: {values}")


if __name__ == "__main__":
    main()
