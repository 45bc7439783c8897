"""
Follow a flare through time
===========================

Maps of many times become sets of six channels, each of which is inverted; the EM of a region at each time is a light
curve.
"""

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np
from astropy.time import Time
from matplotlib.colors import LogNorm

from sunpy_deepem.sample import sample_cube, sample_regions
from sunpy_deepem.series import invert_series

# %%
# A flare, made of the synthetic Sun: one place of an active region gets more and more plasma about log T 6.9, which
# then decays. ``synthesize(degraded=True)`` gives maps as AIA would have taken them.

shape = (96, 96)
times = Time("2014-01-01T00:00:00") + np.arange(0, 40, 5) * u.min
strength = np.interp(np.arange(times.size), [0, 1, 3, 7], [0, 0, 1, 0.05])
regions = sample_regions(shape)
flare = regions["flare"]

maps, truths = [], []
for time, part in zip(times, strength, strict=True):
    truth = sample_cube(shape, obstime=time)
    quiet = truth.data[:, regions["active region"]].mean(axis=1)
    hot = 3e28 * np.exp(-0.5 * ((truth.log_t - 6.9) / 0.12) ** 2)
    truth.data[:, flare] = (quiet + part * hot)[:, np.newaxis]
    truths.append(truth)
    maps += truth.synthesize(degraded=True)

# %%
# `~sunpy_deepem.invert_series` groups maps, or a folder of files, by their headers. With a folder to write to it
# resumes where it was stopped; here it returns a `~sunpy_deepem.DEMCubeSequence`.

sequence = invert_series(maps)
print(sequence.shape)

# %%
# The light curve of the region is an `~astropy.timeseries.TimeSeries`, which also holds the uncertainties.

curve = sequence.light_curve(flare)
print(", ".join(name for name in curve.colnames if not name.endswith("_uncertainty")))

fig, (upper, lower) = plt.subplots(2, 1, figsize=(7, 6), sharex=True, layout="constrained")
minutes = (curve.time - times[0]).to_value("min")
for band, style in {"6.0_6.3": "C0s", "6.6_7.0": "C3o"}.items():
    value, sigma = curve[f"em_{band}"].value, curve[f"em_{band}_uncertainty"].value
    upper.errorbar(minutes, value, sigma, fmt=style, capsize=2, label=f"log T {band.replace('_', ' to ')}")
    limits = [float(limit) for limit in band.split("_")]
    true = [np.mean(truth.total_em(*limits).data[flare]) for truth in truths]
    upper.plot(minutes, true, color=style[:2], linewidth=1)
upper.set(yscale="log", ylim=(1e26, 1e30), ylabel="mean EM (cm$^{-5}$)", title="points: inverted, lines: truth")
upper.legend()
lower.errorbar(minutes, curve["log_t"], curve["log_t_uncertainty"], fmt="ko", capsize=2)
lower.plot(minutes, [np.mean(truth.em_weighted_log_t().data[flare]) for truth in truths], color="black", linewidth=1)
lower.set(xlabel="minutes", ylabel="EM-weighted log T")

# %%
# The hot plasma about it at four times. It is faded and hatched where the interval of the EM reaches zero or the prior
# decides.

y, x = (int(index.mean()) for index in np.nonzero(flare))
fig = plt.figure(figsize=(11, 3.6), layout="constrained")
for place, index in enumerate((0, 2, 3, 6), start=1):
    hot = sequence[index][:, y - 12 : y + 13, x - 12 : x + 13].total_em(6.6, 7.0)
    axes = fig.add_subplot(1, 4, place, projection=hot)
    image = hot.plot(axes=axes, norm=LogNorm(1e25, 1e29, clip=True), cmap="inferno", title=f"{5 * index} min")
    for coordinate, label in zip(axes.coords, ("x", "y"), strict=True):
        coordinate.set_ticks(number=3)
        coordinate.set_axislabel(label if place == 1 or label == "x" else " ")
        coordinate.set_ticklabel_visible(place == 1 or label == "x")
fig.colorbar(image, ax=fig.axes, label="EM, log T 6.6 to 7.0 (cm$^{-5}$)", extend="both")
