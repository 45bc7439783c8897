"""
Tutorial: from a date to a figure
=================================

Download six AIA images, invert them, and make a figure for a paper: the emission measure (EM) of an active region, its
temperature, and how well both are known.

Download
--------

`~sunpy_deepem.fetch.fetch` finds and downloads the six images that are nearest to a date, here JSOC's synoptic
images of level 1.5, with 1024 × 1024 pixels:

.. code-block:: python

    import sunpy.map
    from sunpy_deepem.fetch import fetch

    files = fetch("2014-01-01T00:00")
    maps = sunpy.map.Map(files, sequence=True)

This page was made without a network. It uses the same images, binned to 256 × 256 pixels, which the package contains.
The rest is the same for both. Regions need an extra: ``pip install "sunpy_deepem[regions]"``, or
``pip install ".[regions]"`` in a checkout.
"""

import astropy.units as u
import matplotlib.pyplot as plt
from astropy.coordinates import SkyCoord
from matplotlib.colors import LogNorm
from regions import CircleSkyRegion

from sunpy_deepem import Quality, invert
from sunpy_deepem.sample import real_maps

maps = real_maps()

# %%
# Invert
# ------
# `~sunpy_deepem.invert` corrects the maps for exposure time and degradation, aligns them, averages native pixels,
# estimates the noise, and infers the EM of each pixel in 18 bins of log T from 5.5 to 7.2. Images of level 1 are
# registered first.

dem = invert(maps)
print(dem.data.shape, dem.unit)
for key in ("method", "degradation", "systematic"):
    print(f"{key}: {dem.meta['provenance'][key]}")

# %%
# Check the fit
# -------------
# The two upper rows show the observed intensities and those of the EM: they should look alike. χ² should be about 1 or
# less wherever the EM is used.

fig = dem.plot_summary()

# %%
# Flags mark pixels that need care; :doc:`/topics/trust` explains them.

for flag in Quality:
    fraction = ((dem.quality & flag) != 0).mean()
    if fraction:
        print(f"{flag.name}: {fraction:.1%} of the pixels")

# %%
# An active region
# ----------------
# Invert AR 11936 alone, with the pixels of the files:

frame = maps[0].coordinate_frame
corners = SkyCoord([350, 850] * u.arcsec, [-500, -80] * u.arcsec, frame=frame)
region = invert(maps, region=corners, shape=None)
print(region.data.shape)

# %%
# The mean EM of its core, with the 68 % interval of the total EM, of the EM between log T 6.6 and 7.0 in cm⁻⁵, and of
# the EM-weighted log T.

core = CircleSkyRegion(SkyCoord(600 * u.arcsec, -290 * u.arcsec, frame=frame), 50 * u.arcsec)
curve = region.curve(core)
print(f"{curve.n_pixels} pixels")
for name, limits in curve.products([(6.6, 7.0)]).items():
    value, lower, upper = u.Quantity(limits).value
    print(f"{name}: {value:.3g} ({lower:.3g} to {upper:.3g})")

# %%
# Does the prior determine this? The second row is the answer of weights that know nothing of the Sun. Where its
# intervals agree with those of the first, the data determine the answer. :doc:`/topics/intervals` says more.

table = region.prior_sensitivity(core, bands=[(6.6, 7.0)])
for row in table:
    print(f"{row['method']}: log T {row['log_t_lower']:.2f} to {row['log_t_upper']:.2f}")

# %%
# The figure
# ----------
# The EM in two ranges of log T, its mean temperature, and the curve of the core (circle) with its interval and the EM
# loci.

fig = plt.figure(figsize=(11, 7.8), layout="constrained")
scale = LogNorm(1e26, 3e28)
panels = {
    "EM, log T 5.8 to 6.2": (region.total_em(5.8, 6.2), {"norm": scale}),
    "EM, log T 6.4 to 6.8": (region.total_em(6.4, 6.8), {"norm": scale}),
    "EM-weighted log T": (region.em_weighted_log_t(), {}),
}
for place, (title, (smap, style)) in enumerate(panels.items(), start=1):
    axes = fig.add_subplot(2, 2, place, projection=smap)
    image = smap.plot(axes=axes, title=title, **style)
    fig.colorbar(image, ax=axes, label=smap.color_bar_label, extend="both")
    core.to_pixel(smap.wcs).plot(ax=axes, color="white")
axes = region.plot_profile(core, axes=fig.add_subplot(2, 2, 4))
axes.set_title("EM of the core")
axes.legend(fontsize=7, ncols=2, loc="lower center")
fig.suptitle(f"AR 11936, {region.date.isot[:19]}")
fig.savefig("active_region.pdf", dpi=300)

# %%
# Save the cube
# -------------
# The file contains the EM, its uncertainty, mask, χ² and flags, the observed intensities, the response, and how the
# cube was made.

region.write("active_region.fits", overwrite=True)

# %%
# ``DEMCube.read("active_region.fits")`` reads it again. :doc:`/topics/file_format` describes the file for other
# programs, and :doc:`/citing` lists what to cite.
