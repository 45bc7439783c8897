"""
Compare synthetic maps with the observed ones
=============================================

A valid EM reproduces the observed intensities. `DEMCube.synthesize <sunpy_deepem.DEMCube.synthesize>` folds the EM with
the temperature response and returns six AIA maps for comparison.
"""

import matplotlib.pyplot as plt
import numpy as np

from sunpy_deepem import CHANNELS, invert
from sunpy_deepem.sample import sample_maps

dem = invert(sample_maps((256, 256)))

# %%
# Observed (top), synthetic (middle), and their ratio (bottom). Off the limb, 94 and 335 Å are mostly noise, which the
# EM does not reproduce; there the ratio is faded.

fig = dem.plot_roundtrip()

# %%
# Residuals of each channel in units of σ, and the standard normal distribution (dashed). Here the residuals are
# smaller: σ includes 10 % of the intensity for errors of calibration and atomic data, which synthetic maps do not have.

edges = np.linspace(-4, 4, 81)
fig, panels = plt.subplots(2, 3, figsize=(10, 5), sharex=True, sharey=True, layout="constrained")
for axes, channel, residual in zip(panels.flat, CHANNELS, dem.residual_maps(), strict=True):
    axes.hist(residual.data[~residual.mask], edges, density=True, color="0.6", label="pixels")
    normal = np.exp(-(edges**2) / 2) / np.sqrt(2 * np.pi)
    axes.plot(edges, normal, color="black", linestyle="--", linewidth=1, label="normal distribution")
    axes.set_title(f"{channel} Å", fontsize=10)
for axes in panels[1]:
    axes.set_xlabel("(observed − synthetic) / σ")
for axes in panels[:, 0]:
    axes.set_ylabel("probability density")
panels[0, 0].legend(fontsize=8)

# %%
# Their mean square over the channels is χ², ``dem.chi2``; see :doc:`/topics/trust` for its interpretation.
# ``dem.synthesize(degraded=True)`` applies the degradation of the date, for comparison with uncorrected files.

fig, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
axes.hist(dem.chi2.ravel(), np.geomspace(1e-3, 30, 60), color="0.6")
axes.axvline(1, color="black", linestyle="--", linewidth=1)
axes.set(xscale="log", xlabel="χ² (mean over channels)", ylabel="pixels")
