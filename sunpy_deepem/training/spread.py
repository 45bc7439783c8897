"""Calibration of the spread of a `~sunpy_deepem.network.ScaledNetwork`: `calibrate_spread`."""

import numpy as np
import torch

from sunpy_deepem.units import COVERAGE

__all__ = ["calibrate_spread"]

# Groups of pixels of similar noise in which the spread is calibrated, and how many pixels that takes.
_NOISE_GROUPS, _LEAST_PIXELS = 20, 2000
# Bins with a smaller fraction of a pixel's EM are not used for the calibration.
_LEAST_FRACTION = 0.01
# Pixels calibrated at a time.
_TILE = 65536


@torch.no_grad()
def calibrate_spread(module, data):
    """
    Set how the spread of a `~sunpy_deepem.network.ScaledNetwork` depends on the noise.

    Averaged over all pixels, the loss makes EM ± spread hold the truth in 68 % of all cases. In groups of pixels of
    similar noise the interval may be too wide or too narrow; a power law of the noise corrects that.

    Parameters
    ----------
    module : `~sunpy_deepem.network.ScaledNetwork`
    data : sequence of `~torch.Tensor`
        Intensity, σ and true EM, channels or bins first.
    """
    module.eval()
    module.spread_law.zero_()
    if data[0].shape[1] < _LEAST_PIXELS:
        return
    noises, errors = [], []
    for start in range(0, data[0].shape[1], _TILE):
        intensity, uncertainty, truth, flags = (array[None, :, None, start : start + _TILE] for array in data)
        em, spread = module(intensity, uncertainty, flags)
        relevant = em > _LEAST_FRACTION * em.sum(dim=1, keepdim=True)
        errors.append(torch.where(relevant, (em - truth).abs() / spread, torch.nan)[0, :, 0].cpu().numpy())
        noises.append(module.noise(intensity, uncertainty, flags).flatten().cpu().numpy())
    noise, error = np.concatenate(noises), np.concatenate(errors, axis=1)
    groups = np.array_split(np.argsort(noise), _NOISE_GROUPS)
    width = [np.nanquantile(error[:, group], COVERAGE) for group in groups]
    slope, constant = np.polyfit(np.log2([np.median(noise[group]) for group in groups]), np.log2(width), 1)
    module.spread_law.copy_(torch.tensor([constant, slope]))
