"""
Temperature responses and degradation
=====================================

The response of each channel to plasma of a temperature, its corrections, and the degradation since launch.
"""

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np
from astropy.time import Time

from sunpy_deepem import CHANNELS, TemperatureResponse
from sunpy_deepem.calibrate import degradation_factor
from sunpy_deepem.visualization import plot_response

# %%
# The default: SolarSoft's V10, normalised to SDO/EVE, with the empirical correction of 94 Å, "chiantifix".

response = TemperatureResponse.default()
fig, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
plot_response(response, axes=axes)
styles = [{"color": line.get_color(), "linestyle": line.get_linestyle()} for line in axes.lines]

# %%
# Ratio to the response without the two corrections. Chiantifix adds lines that CHIANTI lacks in the 94 Å band, at the
# temperatures of the quiet corona; without it, their emission would be attributed to hot plasma.

plain = TemperatureResponse.default(eve=False, chiantifix=False)
log_t = np.log10(response.temperature.value)
fig, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
for channel, with_them, without, style in zip(CHANNELS, response.curves, plain.curves, styles, strict=True):
    axes.plot(log_t, with_them / without, label=f"{channel} Å", **style)
axes.set(xlim=(5.2, 7.6), ylim=(0, 3), xlabel=r"$\log_{10}$ (T / K)", ylabel="corrected / as computed")
axes.legend(ncols=2)

# %%
# Degradation is the effective area of each channel relative to launch, from the packaged table. `~sunpy_deepem.invert`
# divides the intensities by it; ``TemperatureResponse.default(obstime=...)`` multiplies the response by it.

times = Time("2010-06-01") + np.arange(0, 120) * 30 * u.day
fig, axes = plt.subplots(figsize=(8, 4), layout="constrained")
for channel, style in zip(CHANNELS, styles, strict=True):
    axes.plot(times.decimalyear, [degradation_factor(channel, time) for time in times], label=f"{channel} Å", **style)
axes.set(xlabel="year", ylabel="effective area / that at launch", ylim=(0, 1.3))
axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))

# %%
# Responses of two dates.

fig, panels = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
for axes, date in zip(panels, ("2010-06-01", "2019-06-01"), strict=True):
    plot_response(TemperatureResponse.default(obstime=date), axes=axes)
    axes.set_title(date)
panels[1].set_ylabel("")
