"""
A flare: saturated channels
===========================

Invert maps with saturated pixels. The package uses the channels that are left in each pixel, and a saturated channel is
a lower limit. The flare is that of the synthetic Sun, exposed too long, so the true emission measure is known.
"""

from importlib.util import find_spec
from pathlib import Path

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np
import sunpy.map
from matplotlib.colors import LogNorm

from sunpy_deepem import CHANNELS, Quality, invert
from sunpy_deepem.sample import sample_cube, sample_maps
from sunpy_deepem.stack import combine_exposures

# %%
# Cut out the flare, and expose it 12 times as long, up to full well, 16383 DN.

low, high = [336, 164] * u.pix, [417, 245] * u.pix
short = [smap.submap(low, top_right=high) for smap in sample_maps((512, 512))]


def longer(smap, factor):
    """Return a map with a longer exposure, 13 s later."""
    start, exposure = smap.date + 13 * u.s, factor * smap.exposure_time
    cards = {"exptime": exposure.value, "date-obs": start.isot, "t_obs": (start + exposure / 2).isot}
    return sunpy.map.Map(np.minimum(factor * smap.data, 16383), dict(smap.meta) | cards)


long = [longer(smap, 12) for smap in short]
dem = invert(long, shape=None)

# %%
# The flags of the pixels, and where a saturated channel is a lower limit.

for flag in (Quality.SATURATED, Quality.BLOOMING, Quality.PARTIAL, Quality.FEW_CHANNELS):
    print(f"{flag.name:12s} {((dem.quality & flag) != 0).mean():.1%} of the pixels")
for channel, limit in zip(CHANNELS, dem.lower_limit, strict=True):
    print(f"{channel} Å is a lower limit in {limit.sum()} pixels")

# %%
# The EM above log T 6.6: three quantiles of the posterior, the truth, and the number of channels. Edges of the maps of
# quantiles follow those of the set of channels.

truth = sample_cube((512, 512))[:, 164:246, 336:418].total_em(6.6, 7.2).data


def plot_quantiles(cube, title):
    """Draw quantiles of the EM above log T 6.6, the truth and the channels used."""
    maps = cube.total_em(6.6, 7.2, quantiles=(0.16, 0.5, 0.84))
    images = {f"{title}, {100 * smap.meta['quantile']:.0f} % quantile": smap.data for smap in maps} | {"truth": truth}
    fig, panels = plt.subplots(1, 5, figsize=(15, 3.2), layout="constrained")
    for axes, (name, image) in zip(panels, images.items(), strict=False):
        shown = axes.imshow(image.clip(1e25), norm=LogNorm(1e25, 1e29), origin="lower", cmap="inferno")
        axes.set_title(name, fontsize=10)
    fig.colorbar(shown, ax=panels[:4], label="EM above log T 6.6 (cm$^{-5}$)", extend="both")
    count = np.isfinite(cube.intensity.value).sum(axis=0)
    shown = panels[4].imshow(count, origin="lower", vmin=0.5, vmax=6.5, cmap=plt.get_cmap("viridis", 6))
    panels[4].set_title("channels used")
    fig.colorbar(shown, ax=panels[4], ticks=range(1, 7))
    for axes in panels:
        axes.set_axis_off()
    return maps[0].data, maps[2].data


least, most = plot_quantiles(dem, "long exposure")
hot = (truth > 1e27) & ~dem.sky_mask
held = ((least <= truth) & (truth <= most))[hot].mean()
print(f"The 68 % interval holds the truth in {held:.0%} of {hot.sum()} pixels with hot plasma.")

# %%
# During flares AIA also takes short exposures. Of each pixel and channel, `~sunpy_deepem.stack.combine_exposures` takes
# the nearest exposure that is not saturated.

combined = combine_exposures([*long, *short], obstime=long[0].date)
print(combined[2].meta["exposure"])
plot_quantiles(invert(combined, shape=None), "combined exposures")

# %%
# Cutouts of a real flare, the X2.2 flare of 2011-02-15, come with demregpy 1.0 or later (``pip install "demregpy>=1"``,
# Python 3.12). If it is installed, this draws the onset of the flare.

spec = find_spec("demregpy")
folder = Path("." if spec is None else spec.origin).parent / "tests" / "data" / "aia_flare"
if folder.is_dir():
    real = invert(sorted(folder.glob("*T01-50*.fits")), shape=None)
    smap = real.total_em(6.75, 7.25, quantiles=0.5)[0]
    fig = plt.figure(figsize=(6, 5), layout="constrained")
    axes = fig.add_subplot(projection=smap)
    image = smap.plot(axes=axes, norm=LogNorm(1e27, 1e31), cmap="inferno", title="EM, log T 6.75 to 7.25")
    fig.colorbar(image, ax=axes, label="EM (cm$^{-5}$)")
