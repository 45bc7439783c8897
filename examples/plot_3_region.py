"""
A region: EM curve, uncertainty and EM loci
===========================================

How much plasma there is at each temperature in an active region, in quiet Sun and in a coronal hole, how well that is
known, and, as this Sun is synthetic, what the truth is.
"""

import astropy.units as u
import matplotlib.pyplot as plt
from astropy.coordinates import SkyCoord
from matplotlib.colors import LogNorm
from regions import CircleSkyRegion

from sunpy_deepem import invert
from sunpy_deepem.sample import sample_cube, sample_maps

maps = sample_maps((256, 256))
dem, truth = invert(maps), sample_cube((256, 256))

# %%
# Regions on the sky, as the package ``regions`` has them (``pip install "sunpy_deepem[regions]"``).

frame = maps[0].coordinate_frame
places = {
    "active region": (SkyCoord(-470 * u.arcsec, 360 * u.arcsec, frame=frame), 90 * u.arcsec),
    "quiet Sun": (SkyCoord(-550 * u.arcsec, -450 * u.arcsec, frame=frame), 120 * u.arcsec),
    "coronal hole": (SkyCoord(40 * u.arcsec, 270 * u.arcsec, frame=frame), 70 * u.arcsec),
}
regions = {name: CircleSkyRegion(*place) for name, place in places.items()}

total = dem.total_em(6.0, 6.6)
fig = plt.figure(figsize=(6, 5), layout="constrained")
axes = fig.add_subplot(projection=total)
image = total.plot(axes=axes, norm=LogNorm(1e25, 1e28), cmap="viridis", title="EM, log T 6.0 to 6.6")
fig.colorbar(image, ax=axes, label="EM (cm$^{-5}$)", extend="both")
for name, region in regions.items():
    pixels = region.to_pixel(total.wcs)
    pixels.plot(ax=axes, color="white")
    label = (pixels.center.x, pixels.center.y + pixels.radius + 3)
    axes.annotate(name, label, color="white", ha="center", bbox={"facecolor": "black", "alpha": 0.5, "lw": 0, "pad": 1})

# %%
# The mean EM of each region, black, with the 68 % interval, grey, the truth, red, and the EM loci of the six channels:
# what each would need if all plasma were at one temperature. No EM that explains a channel rises above its curve, and
# where the lowest of them is far above, the data say little.

fig, panels = plt.subplots(3, 1, figsize=(8, 11), layout="constrained", sharex=True)
for axes, (name, region) in zip(panels, regions.items(), strict=True):
    dem.plot_profile(region, axes=axes)
    true = truth.curve(region)
    axes.stairs(true.em.value, true.bins.edges, baseline=None, color="red", label="truth")
    axes.set(title=f"{name}, mean of {true.n_pixels} pixels", ylim=(1e22, 1e29))
    axes.label_outer()
    axes.get_legend().remove()
panels[1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), title="EM and EM loci", frameon=False)

# %%
# The mean EM is inferred from the mean intensities: their noise averages out, but the ambiguity between temperatures,
# which all pixels share, remains. The values of the curves:

curve = dem.curve(regions["active region"])
print(f"{curve.n_pixels} pixels")
print(curve.to_table())
