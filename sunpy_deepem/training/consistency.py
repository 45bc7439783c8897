"""Training the network that finds inconsistent channels: `fit_consistency`."""

import math

import numpy as np
import torch
from tqdm.auto import tqdm

from sunpy_deepem.network.consistency import ChannelConsistency
from sunpy_deepem.network.tiles import resolve_device
from sunpy_deepem.units import EM_SCALE

__all__ = ["fit_consistency"]

_BATCH_SIZE = 2048
# Learning rate of the Adam optimizer at the start; it falls to zero as a cosine.
_LEARNING_RATE = 4e-3


def fit_consistency(training, response, *, epochs=12, keep_unsolved=False, seed=0, device="auto", progress=False):
    """
    Train a `~sunpy_deepem.network.ChannelConsistency`.

    Parameters
    ----------
    training : `TrainingSet` or `PriorStream`
        Pixels to learn from; their EM is not used.
    response : `TemperatureResponse`
        Its sums over log T scale the channels.
    epochs : `int`, optional
        Passes over ``training``.
    keep_unsolved : `bool`, optional
        Also use pixels that the teacher did not solve.
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
        If the set does not fit the response, or no pixel is usable.
    """
    device = resolve_device(device)
    torch.manual_seed(seed)
    module = ChannelConsistency(response.matrix.value.sum(axis=1) * EM_SCALE).to(device)
    optimizer = torch.optim.Adam(module.parameters(), lr=_LEARNING_RATE)
    bar = tqdm(range(epochs), desc="consistency", unit="epoch", disable=not progress)
    for epoch in bar:
        pixels = training.epoch(epoch).usable(response, keep_unsolved=keep_unsolved)
        order = np.random.default_rng([seed, epoch]).permutation(len(pixels))
        intensity, uncertainty = (
            torch.as_tensor(array[:, order], device=device) for array in (pixels.intensity, pixels.uncertainty)
        )
        for start in range(0, len(pixels), _BATCH_SIZE):
            done = (epoch + start / len(pixels)) / epochs
            for group in optimizer.param_groups:
                group["lr"] = _LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * done))
            part = slice(start, start + _BATCH_SIZE)
            optimizer.zero_grad(set_to_none=True)
            loss = module.loss(intensity[:, part], uncertainty[:, part])
            loss.backward()
            optimizer.step()
            module.separate()
        bar.set_postfix(loss=f"{float(loss.detach()):.4g}")
    return module.cpu().eval()
