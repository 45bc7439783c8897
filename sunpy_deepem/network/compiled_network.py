"""What is done before and after the layers of `ScaledNetwork`, compiled for a CPU: each array is read once."""

import numpy as np

from sunpy_deepem.network.inputs import LEVELS
from sunpy_deepem.network.vector_math import compiled, exp, log

__all__ = ["positive_outputs", "positive_outputs_bfloat16", "scaled_inputs"]

_F = np.float32
_ZERO, _ONE, _LN2, _LOG10_E = _F(0), _F(1), _F(0.69314718), _F(0.43429448)
_LOWEST, _HIGHEST, _QUARTER, _TWO = _F(LEVELS[0]), _F(LEVELS[1]), _F(0.25), _F(2)
# Pixels whose numbers stay in the processor's first cache.
_BLOCK = 256


@compiled
def scaled_inputs(intensity, uncertainty, used, channel_scale, spread_law, scale, inputs, factors):
    """
    Set the inputs of the layers, see ``network_inputs``, and the factors of their outputs.

    Parameters
    ----------
    intensity, uncertainty : `~numpy.ndarray`
        Shape ``(channels, n)``; zero where a channel is missing.
    used : `~numpy.ndarray`
        Number of channels that are not missing, shape ``(n,)``.
    channel_scale : `~numpy.ndarray`
        Typical response of the channels.
    spread_law : `~numpy.ndarray`
        Logarithm to base 2 of a factor, and exponent of the noise.
    scale : `float`
        Factor of the results.
    inputs : `~numpy.ndarray`
        Receives the inputs but the flags, which come last, shape ``(n, 2 * channels + 1)`` or more.
    factors : `~numpy.ndarray`
        Receives the factors of mean and spread, shape ``(2, n)``.
    """
    n_channels, n = intensity.shape
    brightness, noise = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    for start in range(0, n, _BLOCK):
        m = min(_BLOCK, n - start)
        for x in range(m):
            brightness[x] = noise[x] = _ZERO
        for c in range(n_channels):
            weight = _ONE / channel_scale[c]
            for x in range(m):
                sigma = uncertainty[c, start + x] * weight
                brightness[x] += abs(intensity[c, start + x] * weight) + sigma
                noise[x] += sigma
        for x in range(m):
            mean = brightness[x] / used[start + x]
            level = min(max(_LOG10_E * log(mean), _LOWEST), _HIGHEST)
            inputs[start + x, 2 * n_channels] = _QUARTER * (level - _TWO)
            law = spread_law[0] * _LN2 + spread_law[1] * log(noise[x] / (mean * np.float32(n_channels)))
            factors[0, start + x] = mean * scale
            factors[1, start + x] = mean * scale * exp(law)
            brightness[x] = _ONE / mean
        for c in range(n_channels):
            weight = _ONE / channel_scale[c]
            for x in range(m):
                inputs[start + x, c] = intensity[c, start + x] * weight * brightness[x]
                inputs[start + x, n_channels + c] = uncertainty[c, start + x] * weight * brightness[x]


@compiled
def positive_outputs(outputs, bias, factors, least, em, start):
    """
    Set the EM of a tile: exp(x) below zero and x + 1 above, times a factor.

    Parameters
    ----------
    outputs : `~numpy.ndarray`
        Output of the last layer without bias, shape ``(bins, n)``.
    bias : `~numpy.ndarray`
        Shape ``(bins,)``.
    factors : `~numpy.ndarray`
        Shape ``(n,)``.
    least : `float`
        Least logarithm.
    em : `~numpy.ndarray`
        Receives the result in the pixels from ``start`` on, shape ``(bins, pixels)``.
    start : `int`
    """
    for b in range(len(outputs)):
        row, shift, result = outputs[b], bias[b], em[b, start : start + len(factors)]
        for x in range(len(factors)):
            value = row[x] + shift
            result[x] = (max(value, _ZERO) + exp(max(min(value, _ZERO), least))) * factors[x]


@compiled
def positive_outputs_bfloat16(outputs, bias, factors, least, em, start):
    """Set the EM like `positive_outputs`; ``outputs`` are bfloat16 numbers as `~numpy.uint16`."""
    for b in range(len(outputs)):
        row, shift, result = outputs[b], bias[b], em[b, start : start + len(factors)]
        for x in range(len(factors)):
            value = np.uint32(np.uint32(row[x]) << np.uint32(16)).view(np.float32) + shift
            result[x] = (max(value, _ZERO) + exp(max(min(value, _ZERO), least))) * factors[x]
