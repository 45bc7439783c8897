"""Joint draws from the posterior of many pixels with common random numbers: `CommonNumbers` and `draw_tile`."""

from contextlib import nullcontext
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import gammaincinv, ndtri
from scipy.stats import qmc

from sunpy_deepem.network.conditioning import (
    LARGEST_EM,
    LEAST_RESPONSE,
    Data,
    Extra,
    Gaussians,
    Limits,
    condition_components,
    condition_draws,
    split_uncertainty,
    take,
    to_em,
)
from sunpy_deepem.network.inputs import unused
from sunpy_deepem.network.splits import children
from sunpy_deepem.units import COVERAGE, EM_SCALE, TRACE
from sunpy_deepem.utils.logger import explained_wait

__all__ = ["CommonNumbers", "common_numbers", "draw_tile", "half_width"]

_COMPILING = "Compiling the posterior draws, which is done once after an installation and takes about half a minute."
# Degrees of freedom of Student's t distribution. With Gaussian tails, 95 % intervals of draws are too narrow.
_FREEDOM = 8
# Multiple of σ by which a channel may be fainter than what is behind it.
_CERTAIN = 4.0
# Largest root of a weight, relative to brightness.
_LARGEST_WEIGHT = 1e7


class CommonNumbers(NamedTuple):
    """Quasi-random numbers of ``n`` draws, the same for all pixels."""

    #: Uniform, choose the component, shape ``(n,)``.
    choice: torch.Tensor
    #: Whether the trace of plasma that no channel can see is absent, shape ``(n,)``.
    bare: torch.Tensor
    #: From Student's t distribution, one per bin, shape ``(n, bins)``.
    deviates: torch.Tensor
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
    points = qmc.Sobol(3 + bins + channels, rng=np.random.default_rng(seed)).random_base2((n - 1).bit_length())[:n]
    points = np.clip(points, 1e-7, 1 - 1e-7)
    normal = ndtri(points[:, 3:])
    chi2 = 2 * gammaincinv(_FREEDOM / 2, points[:, 2:3])
    deviates = normal[:, :bins] * np.sqrt(_FREEDOM / chi2)
    choice, deviates, noise = (
        torch.from_numpy(np.ascontiguousarray(values, np.float32))
        for values in (points[:, 0], deviates, normal[:, bins:])
    )
    return CommonNumbers(choice, torch.from_numpy(points[:, 1] < 0.5), deviates, noise)


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
    outputs, brightness = network.outputs(intensity, coarse, flags)
    root_weight = fraction * (brightness / uncertainty).clamp_max(_LARGEST_WEIGHT)
    target = root_weight * (intensity / brightness)
    # No bin can have more EM than explains a channel alone, with some noise.
    most = (intensity.clamp_min(0) + _CERTAIN * uncertainty) / brightness
    widening = torch.tensor(network.widening, dtype=torch.float32, device=intensity.device)
    limits = None
    if flags is None:
        widening = widening[:1].expand(intensity.shape[3])
    else:
        limits = _limits(intensity, uncertainty, flags, matrix, brightness)
        # Channels that are missing or saturated have no weight.
        lost = unused(flags)
        widening = widening[lost.sum(dim=1)[0, 0].clamp_max(len(widening) - 1)]
        root_weight, target = root_weight.masked_fill(lost, 0), target.masked_fill(lost, 0)
        most = most.masked_fill(lost, torch.inf)
    # Contiguous arrays make the conditioning several times as fast.
    target, root_weight, most = (values[0, :, 0].T.contiguous() for values in (target, root_weight, most))
    scale = brightness * EM_SCALE
    arrays = outputs, widening, Data(target, root_weight, most), scale
    if matrix.device.type != "cpu":
        return _draw(network, *arrays, matrix, numbers, limits)
    em = _draw_compiled(network, *arrays, matrix, numbers)
    if limits is not None:
        low = limits.below((em / scale).movedim(2, 0)).flatten(1).any(dim=1).nonzero()[:, 0]
        if len(low):
            chosen, below = _pixels((arrays, limits), low)
            em[..., low] = _draw(network, *chosen, matrix, numbers, below)
    return em


def _limits(intensity, uncertainty, flags, matrix, brightness):
    """Return the `Limits` of the pixels of a tile, or `None` if no channel is saturated."""
    saturated = flags.unflatten(1, (2, -1))[:, 1]
    if not saturated.any():
        return None
    intensity, per_sigma = (
        values.masked_fill(~saturated, 0)[0, :, 0].T.contiguous()
        for values in (intensity / uncertainty, brightness / uncertainty)
    )
    return Limits(intensity, per_sigma[..., None] * matrix)


def _pixels(values, index):
    """Return a tensor, or nested tuples of tensors, at some pixels along the first axis."""
    if isinstance(values, torch.Tensor):
        return values[index]
    parts = [_pixels(part, index) for part in values]
    return type(values)(*parts) if hasattr(values, "_fields") else parts


def _draw(network, outputs, widening, data, scale, matrix, numbers, limits=None):
    """Return the draws, shape ``(draws, bins, pixels)``."""
    most = (data.most[..., None] / matrix.clamp_min(LEAST_RESPONSE)).amin(dim=1).clamp_max(LARGEST_EM)
    extra = Extra(data.target, data.root_weight[..., None] * matrix, most)
    mixture = network.mixture(outputs)
    gaussians = Gaussians(mixture.means, widening[:, None, None] * mixture.log_scales.exp(), mixture.factor())
    y, log_evidence = condition_components(gaussians, extra)
    weights = torch.softmax(mixture.log_weights + log_evidence, 1)
    index = _choose(to_em(y, extra), weights, numbers.choice)
    shift = take(y - gaussians.mean, index)
    gaussians = gaussians.take(index)
    anchor = gaussians.draw(numbers.deviates)
    em = condition_draws(anchor, anchor + shift, numbers.noise, gaussians, extra, limits)
    em *= scale[:, None, None]
    least = TRACE * em.sum(dim=2, keepdim=True)
    return torch.where(numbers.bare[:, None], (em - least).clamp_min(0), em).movedim(0, 2)


def _draw_compiled(network, outputs, widening, data, scale, matrix, numbers):
    """Return the same, much faster on a CPU."""
    # Numba takes a while to import.
    from sunpy_deepem.network.compiled_draws import LANES, draw_pixels

    data, numbers = (tuple(np.ascontiguousarray(values.numpy()) for values in part) for part in (data, numbers))
    # An odd number of parts: rows that are powers of two apart would share few lines of the processor's cache.
    em = np.empty((len(numbers[0]), matrix.shape[1], -(-len(scale) // LANES) | 1, LANES), np.float32)
    arrays = (matrix.numpy(), np.array(children(matrix.shape[1])).reshape(-1, 2), numbers, scale.numpy(), em)
    with nullcontext() if draw_pixels.signatures else explained_wait(_COMPILING):
        draw_pixels(outputs.numpy(), network.components, widening.numpy(), data, *arrays)
    return torch.from_numpy(em).flatten(2)[..., : len(scale)]


def half_width(draws):
    """Return half the width of the 68 % interval of draws, an array or tensor with the draws along the first axis."""
    draws = torch.as_tensor(draws).movedim(0, -1).contiguous()
    # NumPy sorts short rows ten times as fast as PyTorch on a CPU.
    draws = draws.sort().values if draws.is_cuda else torch.from_numpy(np.sort(draws.numpy()))
    low, high = (draws[..., round(part * (draws.shape[-1] - 1))] for part in (0.5 - COVERAGE / 2, 0.5 + COVERAGE / 2))
    return 0.5 * (high - low)


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
