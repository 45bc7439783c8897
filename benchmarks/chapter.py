"""
The DeepEM chapter, reproduced: its network, scaling and optimiser, basis-pursuit targets, 500 epochs on one image.

Usage: ``python benchmarks/chapter.py PATH [--epochs 500] [--output benchmarks/output]``, where PATH is a folder with
six full-disc AIA maps. The chapter trained on one day, validated and tested on two others; here the west half of one
disc is the training set and the east half, beyond a strip, validates and tests. Prints a table; leaves the loss curve
(the chapter's Figure 2), maps (Figures 1 and 3), mean EM (Figure 4) and re-synthesis (Figure 5) as PNGs. Their west
half is the prediction of the training set (Appendix A). The run can be stopped and resumed.
"""

import argparse
import json
import time
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("agg")
import matplotlib.pyplot as plt

from sunpy_deepem import CHANNELS, ChannelStack, TemperatureResponse
from sunpy_deepem.network.architectures import ChapterNetwork
from sunpy_deepem.training import BasisPursuit, Checkpoint, DEMLoss, TrainingSet, fit

# The chapter's values, from its printed output: MSE of √(EM / 10²⁵ cm⁻⁵) at epoch 490.
PUBLISHED = {"train": 0.17292694747447968, "validation": 0.22251540422439575}
STRIP = 16
PANELS = ((171, 5.9), (211, 6.3), (94, 7.0))


def half(stack, em, status, columns, name):
    """Return the training set of some columns of the image."""
    arrays = (stack.intensity.value, stack.uncertainty.value, em)
    intensity, uncertainty, em = (array[..., columns].reshape(len(array), -1) for array in arrays)
    return TrainingSet(intensity, uncertainty, em, status=status[:, columns].ravel(), names=(name,))


def mse(network, part):
    """Return the chapter's loss of a network on a set."""
    em, _ = network.predict(part.intensity)
    return float(np.mean((np.sqrt(em / 1e25) - np.sqrt(np.nan_to_num(part.em) / 1e25)) ** 2))


def plot_loss(history, path):
    """Plot the chapter's Figure 2."""
    fig, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    epochs = [row["epoch"] for row in history]
    axes.plot(epochs, [row["train"] for row in history], color="#0072B2", label="train (west half)")
    axes.plot(epochs, [row["validation"] for row in history], color="#E69F00", label="validation (east half)")
    for name, color in (("train", "#0072B2"), ("validation", "#E69F00")):
        axes.plot(490, PUBLISHED[name], "o", mfc="none", color=color, label=f"chapter, {name}, epoch 490")
    axes.set(xlabel="epoch", ylabel="MSE of √(EM / 10$^{25}$ cm$^{-5}$)", yscale="log")
    axes.legend()
    fig.savefig(path, dpi=100)


def plot_maps(stack, teacher, network, bins, path):
    """Plot the chapter's Figures 1 and 3: observed, teacher, network."""
    fig, panels = plt.subplots(3, 3, figsize=(11, 11), layout="constrained")
    for row, (channel, log_t) in zip(panels, PANELS, strict=True):
        index = int(np.argmin(abs(bins.centers - log_t)))
        observed = stack.intensity[CHANNELS.index(channel)].value
        top = np.nanpercentile(teacher[index], 99.5) / 1e25
        show(
            row[0],
            np.sqrt(np.maximum(observed, 0)),
            f"AIA {channel} Å",
            "Greys_r",
            np.nanpercentile(observed, 99.5) ** 0.5,
        )
        show(
            row[1],
            np.sqrt(np.nan_to_num(teacher[index]) / 1e25),
            f"basis pursuit, log T = {log_t}",
            "viridis",
            top**0.5,
        )
        show(row[2], np.sqrt(network[index] / 1e25), f"network, log T = {log_t}", "viridis", top**0.5)
    fig.savefig(path, dpi=70)


def plot_mean(teacher, network, solved, bins, path):
    """Plot the chapter's Figure 4: mean EM of the pixels that the teacher solved."""
    fig, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    curves = [em[:, solved].mean(axis=1) for em in (teacher, network)]
    axes.step(bins.centers, curves[0], where="mid", color="black", lw=2.5, label="basis pursuit")
    axes.step(bins.centers, curves[1], where="mid", color="#56B4E9", lw=2.5, ls="--", label="network")
    axes.set(xlabel=r"$\log_{10}$ (T / K)", ylabel="mean EM per bin (cm$^{-5}$)", yscale="log", ylim=(1e24, 1e27))
    axes.legend()
    fig.savefig(path, dpi=100)
    return curves


def plot_synthesis(stack, teacher, network, matrix, path):
    """Plot the chapter's Figure 5: re-synthesis from both."""
    fig, panels = plt.subplots(3, 3, figsize=(11, 11), layout="constrained")
    for row, (channel, _) in zip(panels, PANELS, strict=True):
        index = CHANNELS.index(channel)
        images = (
            stack.intensity[index].value,
            *(np.tensordot(matrix[index], np.nan_to_num(em), axes=1) for em in (teacher, network)),
        )
        top = np.nanpercentile(images[0], 99.5) ** 0.5
        for axes, image, word in zip(row, images, ("observed", "from basis pursuit", "from network"), strict=True):
            show(axes, np.sqrt(np.maximum(image, 0)), f"{channel} Å {word}", "Greys_r", top)
    fig.savefig(path, dpi=70)


def show(axes, image, title, cmap, top):
    """Show an image."""
    axes.imshow(image, origin="lower", cmap=cmap, vmin=0, vmax=top, interpolation="nearest")
    axes.set_title(title, fontsize=10)
    axes.set_axis_off()


def print_synthesis(name, part, em, matrix, solved):
    """Print the median of synthetic over observed where the teacher has solved."""
    solved = solved & (part.intensity > 0).all(axis=0)
    ratio = (matrix @ em[:, solved]) / part.intensity[:, solved]
    print(f"{name:34s}" + "".join(f"{value:8.3f}" for value in np.nanmedian(ratio, axis=1)))


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--epochs", type=int, default=500)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "output")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    response = TemperatureResponse.default()
    matrix, bins = response.matrix.value, response.bins
    stack = ChannelStack.from_maps(args.path)
    start = time.perf_counter()
    solution = BasisPursuit(progress=True).solve(stack.intensity.value, stack.uncertainty.value, response)
    em, status = solution.em, solution.status
    print(f"basis pursuit of {status.size} pixels: {time.perf_counter() - start:.0f} s, statuses", end=" ")
    print({int(value): int(count) for value, count in zip(*np.unique(status, return_counts=True), strict=True)})
    middle = status.shape[1] // 2
    west = half(stack, em, status, np.s_[middle + STRIP :], "west half")
    east = half(stack, em, status, np.s_[: middle - STRIP], "east half")
    start = time.perf_counter()
    network = fit(
        west,
        response,
        validation=east.filled(),
        network=ChapterNetwork(),
        loss=DEMLoss.from_helioml(),
        epochs=args.epochs,
        batch_size=None,
        learning_rate=1e-4,
        weight_decay=1e-9,
        schedule="constant",
        max_gradient=None,
        keep_unsolved=True,
        checkpoint=Checkpoint(args.output / "chapter.checkpoint", resume=True),
        progress=True,
    )
    print(f"training (this call): {time.perf_counter() - start:.0f} s")
    network.save(args.output / "chapter.safetensors", overwrite=True)
    history = json.loads(network.meta["history"])
    at = min(490, len(history) - 1)
    print("\nMSE of sqrt(EM / 1e25)      here     chapter")
    for name, published in PUBLISHED.items():
        print(f"{name:12s} epoch {at:4d}   {history[at][name]:8.4f}  {published:8.4f} (epoch 490)")
    print(f"train set predicted again (Appendix A) {mse(network, west):.4f}, east half {mse(network, east):.4f}")
    print("Differences: one disc of 2014-01-01 cut in two instead of three days of 2011; V10 response with EVE and")
    print("chiantifix instead of the chapter's; this package's basis pursuit; sigma with 10 % systematic.")
    predicted, _ = network.predict(stack.intensity.value)
    print("\nsynthetic / observed, median    " + "".join(f"{channel:8d}" for channel in CHANNELS))
    for part, columns in ((west, np.s_[middle + STRIP :]), (east, np.s_[: middle - STRIP])):
        solved = part.status == 0
        for word, cube in (("basis pursuit", em), ("network", predicted)):
            flat = cube[..., columns].reshape(len(cube), -1)
            print_synthesis(f"{part.names[0]}, {word}", part, flat, matrix, solved)
    plot_loss(history, args.output / "chapter_loss.png")
    plot_maps(stack, em, predicted, bins, args.output / "chapter_maps.png")
    solved = (status == 0) & (np.arange(status.shape[1]) < middle - STRIP)
    curves = plot_mean(em, predicted, solved, bins, args.output / "chapter_mean_em.png")
    print("\nlog T, mean EM of teacher and network over solved pixels of the east half (Figure 4)")
    for log_t, teacher, ours in zip(bins.centers, *curves, strict=True):
        print(f"{log_t:5.1f} {teacher:10.3e} {ours:10.3e} {ours / teacher:7.3f}")
    plot_synthesis(stack, em, predicted, matrix, args.output / "chapter_synthesis.png")


if __name__ == "__main__":
    main()
