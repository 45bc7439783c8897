"""Joint draws from the posterior of many pixels with common random numbers: `CommonNumbers` and `draw_tile`."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import ndtri
from scipy.stats import qmc

from sunpy_deepem.network.conditioning import (
    Extra,
    Gaussians,
    condition_components,
    condition_draws,
    split_uncertainty,
    take,
    to_em,
)
from sunpy_deepem.units import COVERAGE, EM_SCALE, TRACE

__all__ = ["CommonNumbers", "common_numbers", "draw_tile", "half_width"]

# Components followed up in each pixel, those of the largest weights.
_FOLLOWED = 16
# Multiple of σ by which a channel may be fainter than what is behind it, and largest ln(EM / brightness) anyway.
_CERTAIN, _LARGEST_LOG_EM = 4.0, 8.0
# Largest root of a weight, relative to brightness.
_LARGEST_WEIGHT = 1e7


class CommonNumbers(NamedTuple):
    """Quasi-random numbers of ``n`` draws, the same for all pixels."""

    #: Uniform, choose the component, shape ``(n,)``.
    choice: torch.Tensor
    #: Whether the trace of plasma that no channel can see is absent, shape ``(n,)``.
    bare: torch.Tensor
    #: Standard normal, one per bin, shape ``(n, bins)``.
    normal: torch.Tensor
    #: Standard normal, one per channel, shape ``(n, channels)``.
    noise: torch.Tensor

    def to(self, device):
        """Return the numbers on a device."""
        return CommonNumbers(*(array.to(device) for array in self))


@lru_cache(maxsize=8)
def common_numbers(n, seed, bins, channels):
    """
    Return the `CommonNumbers` of a seed; the first m of n draws are those of n = m.

    References
    ----------
    Owen (1998), ACM TOMACS 8, 71, https://doi.org/10.1145/272991.273010: scrambled Sobol points.
    """
    points = qmc.Sobol(2 + bins + channels, rng=np.random.default_rng(seed)).random_base2((n - 1).bit_length())[:n]
    points = torch.from_numpy(np.clip(points, 1e-7, 1 - 1e-7))
    normal = torch.from_numpy(ndtri(points[:, 2:].numpy())).float()
    return CommonNumbers(points[:, 0].float(), points[:, 1] < 0.5, normal[:, :bins], normal[:, bins:])


def draw_tile(network, intensity, uncertainty, flags, matrix, numbers):
    """
    Draw from the posterior of the pixels of a tile.

    Parameters
    ----------
    network : `~sunpy_deepem.network.PosteriorNetwork`
    intensity, uncertainty : `~torch.Tensor`
        DN s^-1 pix^-1, shape ``(1, channels, 1, pixels)``.
    flags : `~torch.Tensor` or `None`
        As in ``network_inputs``.
    matrix : `~torch.Tensor`
        Response in DN s^-1 pix^-1 for 10^25 cm^-5, shape ``(channels, bins)``.
    numbers : `CommonNumbers`

    Returns
    -------
    `~torch.Tensor`
        EM in cm^-5, shape ``(draws, bins, pixels)``.
    """
    coarse, fraction = split_uncertainty(intensity, uncertainty)
    mixture, brightness = network(intensity, coarse, flags)
    root_weight = fraction * (brightness / uncertainty).clamp_max(_LARGEST_WEIGHT)
    target = root_weight * (intensity / brightness)
    # No bin can have more EM than explains a channel alone, with some noise.
    most = (intensity.clamp_min(0) + _CERTAIN * uncertainty) / brightness
    if flags is not None:
        # Missing channels have no weight, and only the network takes account of lower limits.
        unused = flags.unflatten(1, (2, -1)).any(dim=1)
        root_weight, target = root_weight.masked_fill(unused, 0), target.masked_fill(unused, 0)
        most = most.masked_fill(unused, torch.inf)
    most = (most[0, :, 0].T.contiguous()[..., None] / matrix.clamp_min(1e-30)).amin(dim=1)
    # Contiguous arrays make the conditioning several times as fast.
    root_weight = root_weight[0, :, 0].T.contiguous()
    extra = Extra(
        target[0, :, 0].T.contiguous(), root_weight[..., None] * matrix, torch.log(most).clamp_max(_LARGEST_LOG_EM)
    )
    gaussians, log_weights = _followed(mixture, network.widening)
    log_em, log_evidence = condition_components(gaussians, extra)
    weights = torch.softmax(log_weights + log_evidence, 1)
    index = _choose(to_em(log_em, extra), weights, numbers.choice)
    shift = take(log_em - gaussians.mean, index)
    gaussians = gaussians.take(index)
    anchor = gaussians.log_em(numbers.normal)
    em = condition_draws(anchor, anchor + shift, numbers.noise, gaussians, extra)
    em *= (brightness * EM_SCALE)[:, None, None]
    least = TRACE * em.sum(dim=2, keepdim=True)
    em = torch.where(numbers.bare[:, None], (em - least).clamp_min(0), em)
    return em.permute(1, 2, 0)


def half_width(draws):
    """Return half the width of the 68 % interval of draws, an array or tensor with the draws along the first axis."""
    draws = torch.as_tensor(draws).sort(dim=0).values
    low, high = (draws[round(part * (len(draws) - 1))] for part in (0.5 - COVERAGE / 2, 0.5 + COVERAGE / 2))
    return 0.5 * (high - low)


def _followed(mixture, widening):
    """Return the most likely components of each pixel, and the logarithm of their weights."""
    n = min(_FOLLOWED, mixture.log_weights.shape[1])
    log_weights, index = torch.log_softmax(mixture.log_weights, 1).topk(n, dim=1)
    scales = widening * torch.exp(mixture.log_scales)
    return Gaussians(mixture.means, scales, mixture.factor()).take(index), log_weights


def _choose(em, weights, choice):
    """
    Return the component of each draw, shape ``(pixels, draws)``, by the inverse of the cumulative weights.

    Components are in order of mean log T, so that the same random number means a like component in like pixels.
    """
    position = torch.arange(em.shape[2], dtype=em.dtype, device=em.device)
    order = ((em @ position) / em.sum(2)).argsort(1)
    cumulative = weights.gather(1, order).cumsum(1)
    chosen = torch.searchsorted(cumulative, choice.expand(len(order), -1).contiguous())
    return order.gather(1, chosen.clamp_max(order.shape[1] - 1))
