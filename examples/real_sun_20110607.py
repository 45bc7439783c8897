"""
A real Sun: the eruption of 2011 June 7 (needs a network)
=========================================================

The six AIA images among SunPy's sample data, taken as an eruption left the south-west limb. This page was built without
a network and so shows no figures; run the script where there is one. It downloads SunPy's sample data once.

The sample images are of 1024² pixels, level 1.5, in DN.
"""

import astropy.units as u
import matplotlib.pyplot as plt
import sunpy.data.sample
import sunpy.map
from astropy.coordinates import SkyCoord

from sunpy_deepem import Quality, invert

# %%
# The six files.

channels = ("094", "131", "171", "193", "211", "335")
maps = sunpy.map.Map([getattr(sunpy.data.sample, f"AIA_{channel}_IMAGE") for channel in channels], sequence=True)

# %%
# Full disc at 512² pixels.

dem = invert(maps)
fig = dem.plot_summary()

# %%
# Compare with the observation. Cool plasma of the eruption absorbs, so that no optically thin EM explains it: such
# pixels have a high χ² and are flagged.

fig = dem.plot_roundtrip()
for flag in Quality:
    print(f"{flag.name:12s} {((dem.quality & flag) != 0).mean():.2%} of pixels")

# %%
# The south-west at the resolution of the files.

corners = SkyCoord([500, 1200] * u.arcsec, [-800, -100] * u.arcsec, frame=maps[0].coordinate_frame)
close = invert(maps, shape=None, region=corners)
fig = close.plot_bins()

# %%
# How much hot plasma there is, and how hot the region is on the whole.

fig = plt.figure(figsize=(10, 4.5), layout="constrained")
temperature = close.em_weighted_log_t()
close.plot_temperature(axes=fig.add_subplot(1, 2, 1, projection=temperature))
close.plot_profile(axes=fig.add_subplot(1, 2, 2))

# %%
# Keep it, with its uncertainty, mask, χ², flags and provenance.

close.write("dem_20110607.fits", overwrite=True)
