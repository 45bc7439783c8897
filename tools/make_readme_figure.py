"""
Make the figure of the README and of the first page of the documentation.

Usage: ``python tools/make_readme_figure.py [PATH]``. Inverts the packaged Sun and draws its EM in three ranges of log
T. Pixels with a low signal are gray.
"""

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np

from sunpy_deepem import Quality, invert
from sunpy_deepem.sample import real_maps

mpl.use("agg")
import matplotlib.pyplot as plt
from matplotlib.colors import LogNorm

BANDS = ((5.6, 6.0), (6.0, 6.4), (6.4, 7.0))


def draw(cube, path):
    """Draw the bands side by side."""
    frame = cube.total_em()
    faint = (cube.quality & np.uint16(Quality.LOW_SIGNAL)) != 0
    fig, panels = plt.subplots(1, 3, figsize=(10, 3.9), layout="constrained", subplot_kw={"projection": frame})
    colors = mpl.colormaps["inferno"].with_extremes(bad="0.4")
    for axes, (low, high) in zip(panels, BANDS, strict=True):
        em = np.ma.masked_array(cube.total_em(low, high).data, faint | cube.sky_mask)
        image = axes.imshow(em, norm=LogNorm(1e25, 1e28), cmap=colors, origin="lower")
        axes.set_title(f"log T {low} to {high}", fontsize=11)
        for coordinate in axes.coords:
            coordinate.set_ticks_visible(False)
            coordinate.set_ticklabel_visible(False)
            coordinate.set_axislabel("")
    fig.colorbar(image, ax=panels, label="EM (cm$^{-5}$)", extend="both", shrink=0.85)
    fig.suptitle(f"Emission measure, {frame.date.isot[:16]} UT, SDO/AIA", fontsize=11)
    fig.savefig(path, dpi=90)


if __name__ == "__main__":
    root = Path(__file__).parents[1]
    draw(invert(real_maps()), Path(sys.argv[1]) if sys.argv[1:] else root / "docs" / "images" / "sun.png")
