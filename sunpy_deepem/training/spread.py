"""Calibration of intervals: `calibrate_spread`, `match_coverage` and `match_spread`."""

import numpy as np
import torch

from sunpy_deepem.network.sampling import half_width
from sunpy_deepem.units import COVERAGE, EM_SCALE

__all__ = ["calibrate_spread", "match_coverage", "match_spread"]

# Groups of pixels of similar noise in which the spread is calibrated, and how many pixels that takes.
_NOISE_GROUPS, _LEAST_PIXELS = 20, 2000
# Bins with a smaller fraction of a pixel's EM are not used for the calibration.
_LEAST_FRACTION = 0.01
# Pixels calibrated at a time.
_TILE = 65536
# Fit of the last layer to the width of the posterior: draws of each pixel, passes, pixels per step, learning rate.
_DRAWS, _EPOCHS, _BATCH, _RATE = 64, 30, 2000, 3e-3
# Calibration of the draws: pixels, draws of each, widenings tried, and adjacent bins whose summed EM is judged.
_COVERAGE_PIXELS, _COVERAGE_DRAWS, _WIDENINGS, _BAND = 4000, 128, (1.0, 1.2, 1.4, 1.7, 2.0), 3


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


def match_coverage(network, data, *, seed=0):
    """
    Widen the components of a posterior until 68 % intervals of its draws hold the truth in 68 % of the cases.

    The components alone are narrower than the posterior that they were fitted to, and the conditioning of draws on the
    data narrows them further. The intervals are those of the EM of adjacent bins, where they hold at least 1 % of the
    posterior mean EM.

    Parameters
    ----------
    network : `~sunpy_deepem.DeepEM`
        With a posterior, of which ``widening`` is set.
    data : sequence of `~torch.Tensor`
        Intensity, σ, true EM and flags as ``pixel_tensors`` returns them.
    seed : `int`, optional
        Seed of the draws.
    """
    intensity, uncertainty, truth, flags = (array[:, :_COVERAGE_PIXELS] for array in data)
    missing, limit = flags.unflatten(0, (2, -1))
    true = _bands(truth.numpy()[np.newaxis])[0] * EM_SCALE
    held = []
    for widening in _WIDENINGS:
        network.posterior.widening = widening
        inside = network.map_draws(
            lambda draws: _interval(_bands(draws)),
            intensity.masked_fill(missing, torch.nan),
            uncertainty,
            n=_COVERAGE_DRAWS,
            seed=seed,
            lower_limit=limit,
        )
        low, high, relevant = inside
        held.append(((low <= true) & (true <= high))[relevant.astype(bool)].mean())
    network.posterior.widening = float(np.interp(COVERAGE, np.maximum.accumulate(held), _WIDENINGS))


def _bands(em):
    """Return the EM of adjacent bins together, of arrays of shape ``(n, bins, pixels)``."""
    return sum(em[:, first : em.shape[1] - _BAND + 1 + first] for first in range(_BAND))


def _interval(bands):
    """Return the limits of the 68 % interval of draws, and whether the band holds at least 1 % of the EM."""
    low, high = np.quantile(bands, (0.5 - COVERAGE / 2, 0.5 + COVERAGE / 2), axis=0)
    mean = bands.mean(axis=0)
    return low, high, mean >= _LEAST_FRACTION * mean.sum(axis=0) / _BAND


def match_spread(network, data, *, seed=0):
    """
    Make the spread of a network that of its posterior: half the width of the 68 % interval of the draws.

    Only those weights of the last layer change that lead to the spread; the mean stays the same.

    Parameters
    ----------
    network : `~sunpy_deepem.DeepEM`
        With a `~sunpy_deepem.network.ScaledNetwork` and a posterior.
    data : sequence of `~torch.Tensor`
        Intensity, σ, true EM and flags as ``pixel_tensors`` returns them.
    seed : `int`, optional
        Seed of the order of pixels.
    """
    module, (intensity, uncertainty, _, flags) = network.module, data
    module.spread_law.zero_()
    missing, limit = flags.unflatten(0, (2, -1))
    observed = intensity.masked_fill(missing, torch.nan), uncertainty
    width = network.map_draws(half_width, *observed, n=_DRAWS, lower_limit=limit)
    with torch.no_grad():
        batch = (array[None, :, None, :] for array in (intensity, uncertainty, flags))
        features, brightness = module.features(*batch)
        target = torch.log(torch.from_numpy(width) / (EM_SCALE * brightness[0, 0]))
    features = features[0, :, 0]
    last = module.layers[-1]
    parameters = [
        last.weight.detach()[module.n_bins :, :, 0, 0].clone(),
        last.bias.detach()[module.n_bins :, None].clone(),
    ]
    for parameter in parameters:
        parameter.requires_grad_()
    optimizer = torch.optim.Adam(parameters, lr=_RATE)
    steps = _EPOCHS * -(-target.shape[1] // _BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    rng = np.random.default_rng(seed)
    for _ in range(_EPOCHS):
        for part in torch.from_numpy(rng.permutation(target.shape[1])).split(_BATCH):
            outputs = parameters[0] @ features[:, part] + parameters[1]
            error = torch.log(module.positive(outputs)) - target[:, part]
            optimizer.zero_grad(set_to_none=True)
            error.square().mean().backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        last.weight[module.n_bins :] = parameters[0][..., None, None]
        last.bias[module.n_bins :] = parameters[1][:, 0]
