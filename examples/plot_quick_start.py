"""
Six maps in, a cube out
=======================

The quickest way from six AIA maps to the emission measure of every pixel, and a look at the answer.
"""

from sunpy_deepem import invert
from sunpy_deepem.sample import sample_maps

# %%
# Six maps as level 1.5 files hold them, of 94, 131, 171, 193, 211 and 335 Å. Here they are of the synthetic Sun; your own
# come from ``sunpy.map.Map("my_files/*.fits", sequence=True)``.

maps = sample_maps((256, 256))

# %%
# `~sunpy_deepem.invert` corrects them for degradation and exposure time, aligns and bins them, and finds the emission
# measure (EM) of each pixel in 18 bins of log T.

dem = invert(maps, shape=256)
print(dem.data.shape, dem.unit)

# %%
# What comes back is an `ndcube.NDCube` with its uncertainty, mask, χ² and quality flags, and all of it in one picture:
# what was observed, what the EM found would give, the EM itself, its temperature, and how well it explains the pixels.

fig = dem.plot_summary()

# %%
# Maps that follow from the cube are SunPy maps. The plasma between log T 6.3 and 6.6, that of active regions:

hot = dem.total_em(6.3, 6.6)
print(hot.unit, hot.meta["content"])

# %%
# Coronal images are best seen on a logarithmic scale.

import matplotlib.pyplot as plt
from matplotlib.colors import LogNorm

fig = plt.figure(figsize=(6, 5), layout="constrained")
axes = fig.add_subplot(projection=hot)
image = hot.plot(axes=axes, norm=LogNorm(1e25, 1e28), cmap="viridis", title="EM, log T 6.3 to 6.6")
hot.draw_limb(axes=axes, color="white", linewidth=0.5)
fig.colorbar(image, ax=axes, label="EM (cm$^{-5}$)")

# %%
# ``dem.write("dem.fits")`` keeps it.
