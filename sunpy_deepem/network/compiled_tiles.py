"""What surrounds the layers of `~sunpy_deepem.network.ScaledNetwork` on a CPU, compiled: `set_inputs`, `set_em`."""

import numpy as np

from sunpy_deepem.network.inputs import LEVELS
from sunpy_deepem.network.vector_math import compiled
from sunpy_deepem.network.vectors import LANES, clip, exp, load, load_bfloat16, log, maximum, spread, store, transpose

__all__ = ["LANES", "set_em", "set_inputs"]

# Numbers of type float64 would make all arithmetic slower.
_F = np.float32
_ZERO, _ONE, _LOG10_E = _F(0), _F(1), _F(np.log10(np.e))
_LEAST_LEVEL, _MOST_LEVEL = _F(LEVELS[0]), _F(LEVELS[1])


@compiled
def set_inputs(intensity, uncertainty, scale, inputs, brightness, noise):
    """
    Compute what `~sunpy_deepem.network.inputs.network_inputs` returns, where all channels are used.

    Parameters
    ----------
    intensity, uncertainty : `~numpy.ndarray`
        Shape ``(channels, n)``, at most seven channels and at least 16 pixels.
    scale : `~numpy.ndarray`
        Typical response of the channels, shape ``(channels,)``.
    inputs : `~numpy.ndarray`
        Receives the inputs, and zeros to the right of them, shape ``(n, 16)``.
    brightness, noise : `~numpy.ndarray`
        Receive these, shape ``(n,)``.
    """
    n_channels, n = intensity.shape
    columns, square, row = np.zeros((LANES, 1, LANES), _F), np.zeros((LANES, LANES), _F), np.zeros((2, LANES), _F)
    for start in range(0, n, LANES):
        # The last pixels are computed with some before them.
        p = min(start, n - LANES)
        part, part_uncertainty = intensity[:, p:], uncertainty[:, p:]
        total = total_uncertainty = spread(_ZERO)
        for c in range(n_channels):
            value, sigma = load(part, c) / spread(scale[c]), load(part_uncertainty, c) / spread(scale[c])
            store(columns, (c, 0), value)
            store(columns, (n_channels + c, 0), sigma)
            total = total + maximum(value, _ZERO - value) + sigma
            total_uncertainty = total_uncertainty + sigma
        mean = total / spread(_F(n_channels))
        for k in range(2 * n_channels):
            store(columns, (k, 0), load(columns, (k, 0)) / mean)
        level = clip(_LOG10_E * log(mean), _LEAST_LEVEL, _MOST_LEVEL)
        store(columns, (2 * n_channels, 0), _F(0.25) * (level - _F(2)))
        transpose(columns, (0,), square)
        for d in range(LANES):
            store(inputs, p + d, load(square, d))
        store(row, 0, mean)
        store(row, 1, total_uncertainty / total)
        brightness[p : p + LANES], noise[p : p + LANES] = row[0], row[1]


@compiled
def set_em(outputs, bias, factors, least, out, start):
    """
    Store exp(x) below zero and x + 1 above, times a factor.

    Parameters
    ----------
    outputs : `~numpy.ndarray`
        x without bias, bits of bfloat16 as `~numpy.int16`, shape ``(bins, n)`` with at least 16 pixels.
    bias : `~numpy.ndarray`
        Shape ``(bins,)``.
    factors : `~numpy.ndarray`
        Shape ``(1, n)``.
    least : `float`
        Smallest x.
    out : `~numpy.ndarray`
        Receives the results from pixel ``start`` on, shape ``(bins, pixels)``.
    start : `int`
    """
    n_bins, n = outputs.shape
    for first in range(0, n, LANES):
        # The last pixels are computed with some before them.
        p = min(first, n - LANES)
        values, target, factor = outputs[:, p:], out[:, start + p :], load(factors[:, p:], 0)
        for b in range(n_bins):
            x = load_bfloat16(values, b) + spread(bias[b])
            value = exp(clip(x, least, _ZERO)) + maximum(x, spread(_ZERO))
            store(target, b, value * factor)
