"""
Quick start: six maps in, a cube out
====================================

Invert six AIA maps and plot the emission measure of every pixel.
"""

import matplotlib.pyplot as plt
from matplotlib.colors import LogNorm

from sunpy_deepem import invert
from sunpy_deepem.sample import real_maps

# %%
# Six level 1.5 maps, of 94, 131, 171, 193, 211 and 335 Å. The package contains those of 2014-01-01, binned to 256 × 256
# pixels; read your own maps with ``sunpy.map.Map("my_files/*.fits", sequence=True)``.

maps = real_maps()

# %%
# `~sunpy_deepem.invert` corrects them for degradation and exposure time, aligns and bins them, and finds the emission
# measure (EM) of each pixel in 18 bins of log T.

dem = invert(maps)
print(dem.data.shape, dem.unit)

# %%
# The result is an `~ndcube.NDCube` with uncertainty, mask, χ² and quality flags. The summary shows the observed and the
# synthetic intensities, the EM, its temperature, and χ² of each pixel.

fig = dem.plot_summary()

# %%
# Products of the cube are SunPy maps, such as the EM between log T 6.3 and 6.6, the range of active regions.

hot = dem.total_em(6.3, 6.6)
fig = plt.figure(figsize=(6, 5), layout="constrained")
axes = fig.add_subplot(projection=hot)
image = hot.plot(axes=axes, norm=LogNorm(1e25, 1e28), cmap="viridis", title="EM, log T 6.3 to 6.6")
hot.draw_limb(axes=axes, color="white", linewidth=0.5)
fig.colorbar(image, ax=axes, label="EM (cm$^{-5}$)", extend="both")

# %%
# ``dem.write("dem.fits")`` writes the cube with all its arrays.
