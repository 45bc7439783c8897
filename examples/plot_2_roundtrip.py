"""
There and back: synthetic maps beside the observed ones
=======================================================

An EM that does not give back what was observed is none. `DEMCube.synthesize <sunpy_deepem.DEMCube.synthesize>` folds it
with the temperature response and returns six AIA maps, to be laid over the observed ones.
"""

import matplotlib.pyplot as plt
import numpy as np

from sunpy_deepem import CHANNELS, invert
from sunpy_deepem.sample import sample_maps

dem = invert(sample_maps((256, 256)))

# %%
# Observed above, synthetic in the middle, and their ratio below. Off the limb 94 and 335 Å are mostly noise, which the
# EM does not follow.

fig = dem.plot_roundtrip()

# %%
# In units of σ: what the EM leaves of each channel, beside the standard normal distribution (dashed). Here it leaves
# less than that: σ holds a systematic tenth of the intensity, for errors of calibration and atomic data, which these
# synthetic maps do not have.

edges = np.linspace(-4, 4, 81)
fig, panels = plt.subplots(2, 3, figsize=(10, 5), sharex=True, sharey=True, layout="constrained")
for axes, channel, residual in zip(panels.flat, CHANNELS, dem.residual_maps(), strict=True):
    axes.hist(residual.data[~residual.mask], edges, density=True, color="0.6")
    axes.plot(edges, np.exp(-(edges**2) / 2) / np.sqrt(2 * np.pi), color="black", linestyle="--", linewidth=1)
    axes.set_title(f"{channel} Å", fontsize=10)
for axes in panels[1]:
    axes.set_xlabel("(observed − synthetic) / σ")

# %%
# χ², the mean of their squares over the channels, is ``dem.chi2``; :doc:`/topics/trust` says what it tells and what
# not. ``dem.synthesize(degraded=True)`` puts the degradation of the date back, for comparison with files as they are.

fig, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
axes.hist(dem.chi2.ravel(), np.geomspace(1e-3, 30, 60), color="0.6")
axes.axvline(1, color="black", linestyle="--", linewidth=1)
axes.set(xscale="log", xlabel="χ² (mean over channels)", ylabel="pixels")
