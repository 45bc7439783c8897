"""
Make the figure of the README and of the first page of the documentation.

Usage: ``python tools/make_readme_figure.py [PATH]``. Inverts the packaged Sun and draws its EM in three ranges of log
T. The EM is faded and hatched where its interval reaches zero, the prior decides or the signal is low.
"""

import sys
from pathlib import Path

import matplotlib as mpl

from sunpy_deepem import invert
from sunpy_deepem.sample import real_maps

mpl.use("agg")
import matplotlib.pyplot as plt
from matplotlib.colors import LogNorm

BANDS = ((5.6, 6.0), (6.0, 6.4), (6.4, 7.0))


def draw(cube, path):
    """Draw the bands side by side."""
    frame = cube.total_em()
    fig, panels = plt.subplots(1, 3, figsize=(10, 3.9), layout="constrained", subplot_kw={"projection": frame})
    for axes, (low, high) in zip(panels, BANDS, strict=True):
        style = {"norm": LogNorm(1e25, 1e28, clip=True), "cmap": "inferno", "title": f"log T {low} to {high}"}
        image = cube.total_em(low, high).plot(axes=axes, **style)
        for coordinate in axes.coords:
            coordinate.set_ticks_visible(False)
            coordinate.set_ticklabel_visible(False)
            coordinate.set_axislabel(" ")
    fig.colorbar(image, ax=panels, label="EM (cm$^{-5}$)", extend="both", shrink=0.85)
    fig.suptitle(f"Emission measure, {frame.date.isot[:16]} UT, SDO/AIA", fontsize=11)
    fig.savefig(path, dpi=90)


if __name__ == "__main__":
    root = Path(__file__).parents[1]
    draw(invert(real_maps()), Path(sys.argv[1]) if sys.argv[1:] else root / "docs" / "images" / "sun.png")
