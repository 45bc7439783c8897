"""
Other channels: AIA and Hinode/XRT
==================================

Any instrument's channels can be used, as arrays. This example adds two filters of Hinode/XRT, which respond to hot
plasma, to AIA's six channels, and shows how the interval of the hot EM shrinks. The observations are simulated, so the
truth is known. It needs the package xrtpy (``pip install "sunpy_deepem[xrt]"``), which contains XRT's response.
"""

import matplotlib.pyplot as plt
import numpy as np
from xrtpy.response import TemperatureResponseFundamental

from sunpy_deepem import TemperatureResponse
from sunpy_deepem.methods import Importance
from sunpy_deepem.training import DEMPrior, simulate_observation

# %%
# A response of all channels. Each has a name; AIA's channels have their wavelengths.

curves = {}
for name in ("Al-poly", "Be-thin"):
    filter_response = TemperatureResponseFundamental(name, "2014-01-01T00:00:00")
    curves[f"XRT {name}"] = filter_response.temperature_response()
temperature = filter_response.CHIANTI_temperature
aia = TemperatureResponse.default()
both = aia.join(TemperatureResponse.from_curves(temperature, curves))
print(both.channels)

fig, axes = plt.subplots(figsize=(8, 4), layout="constrained")
for channel, row in zip(both.channels, both.matrix.value, strict=True):
    style = "-" if isinstance(channel, str) else "--"
    axes.semilogy(both.bins.centers, row, style, label=channel if isinstance(channel, str) else f"AIA {channel} Å")
axes.set(xlabel="log$_{10}$(T / K)", ylabel="response (cm$^5$ DN / (s pix))", ylim=(1e-29, 1e-23))
axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)

# %%
# Active regions, some with a hot component, with 10 % systematic error.

prior = DEMPrior()
em = np.concatenate([prior.sample_family(name, 8, seed=3) for name in ("active region", "hot component")], axis=1)
intensity, sigma = simulate_observation(em, both, seed=1, systematic=0.1, n_sample=16)

# %%
# `~sunpy_deepem.methods.Importance` computes the posterior exactly, without training. It leaves out a channel whose
# intensity is NaN, so the same method gives the answer with and without XRT. The calibration between the instruments is
# uncertain: a constant factor of each XRT filter, 30 % wide, is a nuisance parameter.

method = Importance(prior, draws=200_000, response=both, factors={"XRT Al-poly": 0.3, "XRT Be-thin": 0.3})
without = intensity.copy()
without[6:] = np.nan


def hot_interval(observed):
    """Return the 16, 50 and 84 % quantiles of the EM above log T 6.6 of each pixel."""
    draws = method.sample(observed, sigma, n=400)
    # The bin at 6.6 is half above 6.6.
    return np.quantile(0.5 * draws[:, 11] + draws[:, 12:].sum(axis=1), (0.16, 0.5, 0.84), axis=0)


truth = 0.5 * em[11] + em[12:].sum(axis=0)
results = {"AIA": hot_interval(without), "AIA and XRT": hot_interval(intensity)}

fig, axes = plt.subplots(figsize=(8, 4), layout="constrained")
order = np.argsort(truth)
for shift, (name, (low, median, high)) in zip((-0.15, 0.15), results.items(), strict=True):
    low, median, high = (values[order].clip(1e23) for values in (low, median, high))
    axes.errorbar(np.arange(len(order)) + shift, median, [median - low, high - median], fmt="o", capsize=3, label=name)
axes.plot(truth[order].clip(1e23), "kx", label="truth", zorder=3)
axes.set(yscale="log", xlabel="pixel", ylabel="EM above log T 6.6 (cm$^{-5}$)")
axes.legend()

for name, (low, _, high) in results.items():
    width = np.median(np.log10(high.clip(1e20) / low.clip(1e20)))
    held = np.mean((low <= truth) & (truth <= high))
    print(f"{name:12s} 68 % interval: median width {width:.2f} dex, holds the truth in {held:.0%} of the pixels")

# %%
# The factors of the two filters after the observation of the pixel with the brightest hot plasma. Before, they are 1
# with a width of 30 %. The true ones are 1.

brightest = np.argmax(truth)
factors = method.sample_factors(intensity[:, brightest], sigma[:, brightest], n=400)[:, 6:]
for name, values in zip(curves, factors.T, strict=True):
    print(f"{name}: {values.mean():.2f} ± {values.std():.2f}")
