r"""
The figures of the DeepEM chapter
=================================

Wright et al., "DeepEM: A Deep Learning Approach for DEM Inversion" (HelioML, https://doi.org/10.5281/zenodo.3572099),
trained a network of 1×1 convolutions on basis pursuit of one image of the Sun. Here are its Figures 1 to 5, A1 and A2
with this package: the chapter's scaling, √ of the intensity in and √EM out, its loss, and its three dates a solar
rotation apart, of the synthetic Sun. The network is smaller and the images coarser than the chapter's, so that it
takes seconds; ``python benchmarks/chapter.py FOLDER`` does the chapter's own training on a real disc.
:doc:`/topics/from_the_chapter` describes the differences of this package, and their reasons.
"""

import json

import matplotlib.pyplot as plt
import numpy as np

from sunpy_deepem import CHANNELS, ChannelStack, TemperatureResponse
from sunpy_deepem.network import ChapterNetwork
from sunpy_deepem.sample import sample_maps
from sunpy_deepem.training import BasisPursuit, DEMLoss, TrainingSet, fit

# %%
# Step 1: observations and basis pursuit
# --------------------------------------
# One image to train, one to validate and one to test. Basis pursuit does not widen its tolerance here. As
# in the chapter, some pixels then have no solution, and an EM of zero.

shape = (96, 96)
response = TemperatureResponse.default()
dates = ("2011-01-27", "2011-02-22", "2011-03-20")
stacks = [ChannelStack.from_maps(sample_maps(shape, seed=seed, obstime=day)) for seed, day in enumerate(dates)]
teacher = BasisPursuit(tolerance=1.0, widenings=())
taught = TrainingSet.from_maps(stacks, teacher, response)
train, validation, test = taught.split(*[[name] for name in taught.names])
for day, part in zip(dates, (train, validation, test), strict=True):
    print(f"{day}: {np.mean(part.status != 0):.1%} of pixels without a solution")

# %%
# **Figure 1.** AIA 171, 211 and 94 Å of the test image, and EM from basis pursuit in the bins near the channels' peaks.
# Pixels without a solution are dark. As in the chapter, all is shown as square roots, EM in units of 10²⁵ cm⁻⁵.

log_t_of = {171: 5.9, 211: 6.3, 94: 7.0}
intensity, measure = "√ of DN s$^{-1}$ pix$^{-1}$", "√ of EM in 10$^{25}$ cm$^{-5}$"


def em_of(part):
    """Return EM of a set on the sky in 10²⁵ cm⁻⁵, with zero where there is none, as in the chapter."""
    return np.nan_to_num(part.em).reshape(-1, *shape) / 1e25


def draw_row(row, images, brightest, cmap, label):
    """Draw the square roots of images on one scale, up to that of all but 0.5 % of the pixels of ``brightest``."""
    top = np.sqrt(np.percentile(brightest, 99.5))
    for axes, (title, image) in zip(row, images.items(), strict=True):
        shown = axes.imshow(np.sqrt(np.maximum(image, 0)), vmin=0, vmax=top, cmap=cmap, origin="lower")
        axes.set_title(title, fontsize=10)
        axes.set_axis_off()
    row[-1].figure.colorbar(shown, ax=row[-1], label=label, shrink=0.8)


def draw_em(stack, columns):
    """Draw a row per channel: the observation, and the EM of each of ``columns`` near the peak of the channel."""
    fig, panels = plt.subplots(3, 1 + len(columns), figsize=(3.6 * (1 + len(columns)), 9.6), layout="constrained")
    for row, (channel, log_t) in zip(panels, log_t_of.items(), strict=True):
        observed = stack.intensity[CHANNELS.index(channel)].value
        draw_row(row[:1], {f"AIA {channel} Å": observed}, observed, "gray", intensity)
        index = np.argmin(np.abs(response.bins.centers - log_t))
        images = {f"{name}, log T = {log_t}": em[index] for name, em in columns.items()}
        draw_row(row[1:], images, columns["basis pursuit"][index], "viridis", measure)
    return fig


fig = draw_em(stacks[2], {"basis pursuit": em_of(test)})

# %%
# Steps 2 and 3: the network, and its training
# --------------------------------------------
# Every pixel of the training image is learnt from, also those without a solution, as the chapter did; the package's own
# default leaves them out.

network = fit(
    train,
    response,
    validation=validation.filled(),
    network=ChapterNetwork(hidden=(64, 64)),
    loss=DEMLoss.from_helioml(),
    epochs=60,
    batch_size=2048,
    learning_rate=2e-3,
    keep_unsolved=True,
    consistency_epochs=0,
)

# %%
# **Figure 2.** The loss, mean squared error of √(EM / 10²⁵ cm⁻⁵), of training and validation.

history = json.loads(network.meta["history"])
fig, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
for key, color in {"train": "blue", "validation": "orange"}.items():
    axes.plot([row["epoch"] for row in history], [row[key] for row in history], color=color, label=key)
axes.set(xlabel="epoch", ylabel="MSE loss", yscale="log")
axes.legend()

# %%
# Step 4: testing
# ---------------
# **Figure 3.** Observation, basis pursuit and network. The network has an answer for every pixel.

predicted = network.predict(stacks[2].intensity.value)[0] / 1e25
fig = draw_em(stacks[2], {"basis pursuit": em_of(test), "network": predicted})

# %%
# **Figure 4.** Mean EM of the pixels that basis pursuit solved.

solved = (test.status == 0).reshape(shape)
fig, axes = plt.subplots(figsize=(6, 4), layout="constrained")
axes.plot(response.bins.centers, 1e25 * em_of(test)[:, solved].mean(axis=1), "k-", lw=3, label="basis pursuit")
axes.plot(response.bins.centers, 1e25 * predicted[:, solved].mean(axis=1), "--", color="skyblue", lw=3, label="network")
axes.set(yscale="log", ylim=(1e24, 1e27), xlabel=r"$\log_{10}$ (T / K)", ylabel="mean emission measure (cm$^{-5}$)")
axes.legend()

# %%
# Step 5: synthetic observations
# ------------------------------
# **Figure 5.** Observed intensities, and those that basis pursuit and the network would give.


def draw_synthesis(stack, columns):
    """Draw a row for each channel: observed, and synthetic from each of ``columns``."""
    fig, panels = plt.subplots(3, 1 + len(columns), figsize=(10.5, 9.6), layout="constrained")
    for row, channel in zip(panels, log_t_of, strict=True):
        index = CHANNELS.index(channel)
        observed = stack.intensity[index].value
        images = {f"{channel} Å, observed": observed}
        for name, em in columns.items():
            images[f"{channel} Å, {name}"] = 1e25 * np.tensordot(response.matrix.value[index], em, axes=1)
        draw_row(row, images, observed, "gray", intensity)
    return fig


fig = draw_synthesis(stacks[2], {"basis pursuit": em_of(test), "network": predicted})

# %%
# Appendix A: what the network learnt about its training set
# ----------------------------------------------------------
# **Figure A1.** As Figure 3, for the image that it was trained on. The pixels that its teacher left at zero it has not
# learnt by heart.

recalled = network.predict(stacks[0].intensity.value)[0] / 1e25
fig = draw_em(stacks[0], {"basis pursuit": em_of(train), "network": recalled})

# %%
# **Figure A2.** As Figure 5, for the image that it was trained on.

fig = draw_synthesis(stacks[0], {"basis pursuit": em_of(train), "network": recalled})
