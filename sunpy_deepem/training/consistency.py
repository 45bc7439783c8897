"""Training what tells a channel that does not fit the others: `fit_consistency`."""

import math

import numpy as np
import torch
from tqdm.auto import tqdm

from sunpy_deepem.network.consistency import ChannelConsistency
from sunpy_deepem.network.tiles import resolve_device
from sunpy_deepem.units import EM_SCALE

__all__ = ["fit_consistency"]


def fit_consistency(
    training,
    response,
    *,
    epochs=12,
    batch_size=2048,
    learning_rate=4e-3,
    keep_unsolved=False,
    seed=0,
    device="auto",
    progress=False,
):
    """
    Train a `~sunpy_deepem.network.ChannelConsistency`.

    Parameters
    ----------
    training : `TrainingSet` or `PriorStream`
        Of which the intensities and their σ are looked at.
    response : `TemperatureResponse`
        Whose totals are the scale of the channels.
    epochs : `int`, optional
        Passes over ``training``.
    batch_size : `int`, optional
        Pixels in a step.
    learning_rate : `float`, optional
        Of the Adam optimiser, at the start; it falls to zero as a cosine.
    keep_unsolved : `bool`, optional
        Look also at pixels that the teacher did not solve.
    seed : `int`, optional
        Seed of the initial weights and of the order of pixels.
    device : `str`, optional
        As in `DeepEM.predict`.
    progress : `bool`, optional
        Whether to show a progress bar.

    Returns
    -------
    `~sunpy_deepem.network.ChannelConsistency`

    Raises
    ------
    ValueError
        If the set does not fit the response, or no pixel is left to learn from.
    """
    device = resolve_device(device)
    torch.manual_seed(seed)
    module = ChannelConsistency(response.matrix.value.sum(axis=1) * EM_SCALE).to(device)
    optimizer = torch.optim.Adam(module.parameters(), lr=learning_rate)
    bar = tqdm(range(epochs), desc="consistency", unit="epoch", disable=not progress)
    for epoch in bar:
        pixels = training.epoch(epoch).usable(response, keep_unsolved=keep_unsolved)
        order = np.random.default_rng([seed, epoch]).permutation(len(pixels))
        intensity, uncertainty = (
            torch.as_tensor(array[:, order], device=device) for array in (pixels.intensity, pixels.uncertainty)
        )
        for start in range(0, len(pixels), batch_size):
            done = (epoch + start / len(pixels)) / epochs
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * done))
            part = slice(start, start + batch_size)
            optimizer.zero_grad(set_to_none=True)
            loss = module.loss(intensity[:, part], uncertainty[:, part])
            loss.backward()
            optimizer.step()
            module.keep_apart()
        bar.set_postfix(loss=f"{float(loss.detach()):.4g}")
    return module.cpu().eval()
