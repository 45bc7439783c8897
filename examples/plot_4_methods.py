"""
Basis pursuit, demregpy and the network beside the truth
========================================================

Three ways to invert the same pixels, behind the same call, laid beside the EM from which the pixels were made.

Basis pursuit is the sparse inversion of Cheung et al. (2015), https://doi.org/10.1088/0004-637X/807/2/143, and demregpy
the regularised one of Hannah & Kontar (2012), https://doi.org/10.1051/0004-6361/201117576, which takes
``pip install "sunpy_deepem[demregpy]"``.
"""

import time

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np
from astropy.coordinates import SkyCoord
from matplotlib.colors import LogNorm

from sunpy_deepem import invert
from sunpy_deepem.sample import sample_cube, sample_maps

# %%
# ``region=`` keeps to a part of the field: the active region in the north-east, with some quiet Sun.

maps = sample_maps((256, 256))
corners = SkyCoord([-720, -240] * u.arcsec, [100, 580] * u.arcsec, frame=maps[0].coordinate_frame)
cubes = {}
for method in ("network", "basis-pursuit", "demregpy"):
    start = time.perf_counter()
    cubes[method] = invert(maps, method=method, region=corners)
    print(f"{method:14s} {time.perf_counter() - start:5.1f} s, {cubes[method].sky_mask.sum()} pixels unsolved")
truth = sample_cube((256, 256)).reproject_to(cubes["network"].total_em().wcs)

# %%
# Maps of the EM in four ranges of log T. The network's are faded and hatched where its interval reaches zero or the
# prior decides; the other methods state no such interval.

bands = ((5.6, 6.0), (6.0, 6.3), (6.3, 6.6), (6.6, 7.0))
sky = {"projection": truth.total_em()}
fig, panels = plt.subplots(4, 4, figsize=(10, 9.5), layout="constrained", subplot_kw=sky)
for row, (name, cube) in zip(panels, {"truth": truth, **cubes}.items(), strict=True):
    for axes, (low, high) in zip(row, bands, strict=True):
        title = f"{name}, log T {low} to {high}"
        image = cube.total_em(low, high).plot(axes=axes, norm=LogNorm(1e25, 1e28, clip=True), title=title)
        axes.title.set_fontsize(8)
        for coordinate in axes.coords:
            coordinate.set_ticks_visible(False)
            coordinate.set_ticklabel_visible(False)
            coordinate.set_axislabel(" ")
fig.colorbar(image, ax=panels, label="EM (cm$^{-5}$)", shrink=0.5, extend="both")

# %%
# The mean EM of the pixels that all of them solved.

solved = ~np.any([cube.sky_mask for cube in cubes.values()], axis=0)
styles = {"network": ("C0", "-"), "basis-pursuit": ("C1", "--"), "demregpy": ("C2", "-.")}
fig, axes = plt.subplots(figsize=(7, 4), layout="constrained")
true = truth.curve(solved)
axes.stairs(true.em.value, true.bins.edges, baseline=None, color="black", lw=2.5, label="truth")
for name, (color, dashes) in styles.items():
    curve = cubes[name].curve(solved)
    axes.stairs(curve.em.value, curve.bins.edges, baseline=None, color=color, linestyle=dashes, lw=1.5, label=name)
axes.set(yscale="log", ylim=(1e23, 1e28), xlabel=r"$\log_{10}$ (T / K)", ylabel="mean EM per bin (cm$^{-5}$)")
axes.legend()

# %%
# How far the EM of single pixels is from the truth: the distance between the two distributions over log T, in dex, by
# which the plasma of one would have to be moved to become the other (the Wasserstein distance W1).


def distance(cube):
    """Return W1 from the truth of each solved pixel in dex."""
    below = [np.cumsum(each.data[:, solved] / each.data[:, solved].sum(axis=0), axis=0) for each in (cube, truth)]
    return cube.bins.step * np.abs(below[0] - below[1]).sum(axis=0)


fig, axes = plt.subplots(figsize=(7, 4), layout="constrained")
for name, (color, dashes) in styles.items():
    found = distance(cubes[name])
    print(f"{name:14s} median distance {np.median(found):.3f} dex")
    axes.hist(
        found, np.linspace(0, 0.4, 81), histtype="step", color=color, linestyle=dashes, cumulative=True, density=True
    )
    axes.plot([], [], color=color, linestyle=dashes, label=name)
axes.set(xlim=(0, 0.395), xlabel="distance from the truth (dex)", ylabel="fraction of pixels below")
axes.legend(loc="lower right")

# %%
# This is one synthetic active region, made of the kinds of plasma that the network's prior knows, and so flatters the
# network. ``python benchmarks/accuracy.py`` compares on many kinds of plasma, also foreign ones, and levels of noise.
