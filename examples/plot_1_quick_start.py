"""
Quick start: six maps in, a cube out
====================================

From six AIA maps to the emission measure of every pixel, and a look at the answer.
"""

import matplotlib.pyplot as plt
from matplotlib.colors import LogNorm

from sunpy_deepem import invert
from sunpy_deepem.sample import sample_maps

# %%
# Six maps as level 1.5 files hold them, of 94, 131, 171, 193, 211 and 335 Å. Here they are of the synthetic Sun; your
# own come from ``sunpy.map.Map("my_files/*.fits", sequence=True)``.

maps = sample_maps((256, 256))

# %%
# `~sunpy_deepem.invert` corrects them for degradation and exposure time, aligns and bins them, and finds the emission
# measure (EM) of each pixel in 18 bins of log T.

dem = invert(maps)
print(dem.data.shape, dem.unit)

# %%
# What comes back is an `~ndcube.NDCube` with its uncertainty, mask, χ² and quality flags. One picture shows it all:
# what was observed, what the EM would give, the EM itself, its temperature, and how well it explains each pixel.

fig = dem.plot_summary()

# %%
# What follows from the cube are SunPy maps, such as the EM of plasma between log T 6.3 and 6.6, that of active regions.

hot = dem.total_em(6.3, 6.6)
fig = plt.figure(figsize=(6, 5), layout="constrained")
axes = fig.add_subplot(projection=hot)
image = hot.plot(axes=axes, norm=LogNorm(1e25, 1e28), cmap="viridis", title="EM, log T 6.3 to 6.6")
hot.draw_limb(axes=axes, color="white", linewidth=0.5)
fig.colorbar(image, ax=axes, label="EM (cm$^{-5}$)", extend="both")

# %%
# ``dem.write("dem.fits")`` keeps all of it in a file.
