"""
Train a network of your own
===========================

In small what the default weights are made by: draw emission measures from a prior, make observations of them, and let a
network learn the way back. Then the same with a teacher, basis pursuit, on maps.
"""

import json

import matplotlib.pyplot as plt
import numpy as np

from sunpy_deepem import TemperatureResponse, invert
from sunpy_deepem.sample import sample_cube, sample_maps, sample_regions
from sunpy_deepem.training import BasisPursuit, DEMPrior, TrainingSet, fit

response = TemperatureResponse.default()
prior = DEMPrior()

# %%
# The prior: what EM the Sun may have. Three draws of each kind of plasma.

fig, panels = plt.subplots(2, 4, figsize=(11, 5), sharex=True, sharey=True, layout="constrained")
for axes, family in zip(panels.flat, prior.families, strict=False):
    for em in prior.sample_family(family, 3, seed=1).T:
        axes.stairs(em, response.bins.edges, baseline=None)
    axes.set_title(family, fontsize=10)
axes.set(yscale="log", ylim=(1e23, 1e30))
for axes in panels.flat[len(prior.families) :]:
    axes.remove()
fig.supxlabel(r"$\log_{10}$ (T / K)")
fig.supylabel("EM per bin (cm$^{-5}$)")

# %%
# Draw pixels with AIA's noise and known EM, and train a network with them. ``deepem train --prior`` does the same in
# the shell, with new pixels in every epoch.

training = TrainingSet.from_prior(prior, response, 20_000, seed=1)
validation = TrainingSet.from_prior(prior, response, 4_000, seed=2)
network = fit(training, response, validation=validation, epochs=12, consistency_epochs=0)

# %%
# The same network taught by basis pursuit on maps: ``deepem train --maps``.

pixels = TrainingSet.from_maps([sample_maps((64, 64), seed=seed) for seed in (3, 4)], BasisPursuit(), response)
halves = pixels.split(*[[name] for name in pixels.names])
taught = fit(halves[0], response, validation=halves[1], epochs=12, batch_size=512, consistency_epochs=0)

fig, panels = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
for axes, (title, each) in zip(panels, {"prior": network, "basis pursuit": taught}.items(), strict=True):
    history = json.loads(each.meta["history"])
    for key in ("train", "validation"):
        axes.plot([row["epoch"] for row in history], [row[key] for row in history], label=key)
    axes.set(xlabel="epoch", ylabel="loss", title=f"taught by {title}")
panels[0].legend()

# %%
# Weights go to `~sunpy_deepem.invert` as an object or a file: ``network.save("weights.safetensors")``. Against the
# truth of an active region that none of them has seen:

maps, truth = sample_maps((64, 64)), sample_cube((64, 64))
region = sample_regions((64, 64))["active region"]
cubes = {
    "prior, 12 epochs": invert(maps, weights=network),
    "basis pursuit, 12 epochs": invert(maps, weights=taught),
    "default": invert(maps),
}
true = truth.curve(region)
fig, axes = plt.subplots(figsize=(7, 4), layout="constrained")
axes.stairs(true.em.value, true.bins.edges, baseline=None, color="black", linewidth=2.5, label="truth")
for (name, cube), dashes in zip(cubes.items(), ("--", ":", "-."), strict=True):
    curve = cube.curve(region)
    axes.stairs(curve.em.value, curve.bins.edges, baseline=None, label=name, linestyle=dashes, linewidth=1.5)
    print(f"{name:26s} median χ² {np.median(cube.chi2[region]):.2f}")
axes.set(yscale="log", ylim=(1e24, 1e28), xlabel=r"$\log_{10}$ (T / K)", ylabel="mean EM per bin (cm$^{-5}$)")
axes.legend()
