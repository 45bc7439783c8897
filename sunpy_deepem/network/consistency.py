"""Prediction of each channel from the others: `ChannelConsistency`."""

import numpy as np
import torch
from torch import nn

from sunpy_deepem.network.layers import PointwiseLayers

__all__ = ["ChannelConsistency"]

# Limits of ln of the spread of a prediction, in ln(intensity).
_LOG_SPREAD = (-4.0, 3.0)
# Center and width of the inputs: ln(EM / 10^25 cm^-5) of the corona is between 0 and 10.
_TYPICAL, _RANGE = 5.0, 3.0


class ChannelConsistency(nn.Module):
    """
    Small networks, one per channel, which predict the logarithm of the channel and its spread from the other channels.

    Not all intensities that some DEM explains occur on the Sun. A channel that is off by a factor of three, or two
    swapped channels, can often be fitted, but they are inconsistent with the other channels.

    Parameters
    ----------
    channel_scale : array-like
        Typical response of each channel, in DN s^-1 pix^-1 for 10^25 cm^-5, shape ``(channels,)``.
    width : `int`, optional
        Width of the two hidden layers.
    """

    def __init__(self, channel_scale, width=16):
        super().__init__()
        scale = torch.as_tensor(np.asarray(channel_scale, dtype=np.float32)).reshape(-1, 1)
        self.register_buffer("channel_scale", scale)
        self.width = int(width)
        # The networks share the same layers, which is faster than one module each.
        n = len(scale)
        self.layers = PointwiseLayers((2 * n, n * self.width, n * self.width, 2 * n))
        with torch.no_grad():
            for layer in self.layers[2], self.layers[4]:
                layer.weight *= n**0.5
        self.separate()

    @torch.no_grad()
    def separate(self):
        """Zero the weights that connect a network to its own channel or to another network. Call after each step."""
        own = torch.eye(len(self.channel_scale), dtype=self.channel_scale.dtype, device=self.channel_scale.device)
        others = (1 - own).repeat(1, 2)
        for layer, within in zip(list(self.layers)[::2], (others, own, own), strict=True):
            rows, columns = (size // n for size, n in zip(layer.weight.shape, within.shape, strict=False))
            mask = within.repeat_interleave(rows, dim=0).repeat_interleave(columns, dim=1)
            layer.weight *= mask[:, :, None, None]

    def forward(self, intensity, uncertainty):
        """
        Return the prediction of the other channels, and the observation.

        Parameters
        ----------
        intensity, uncertainty : `~torch.Tensor`
            DN s^-1 pix^-1, shape ``(channels, n)``.

        Returns
        -------
        predicted, log_spread, observed, noise : `~torch.Tensor`
            Predicted ln(intensity), logarithm of its spread, observed ln(intensity) and its σ, shape ``(channels, n)``.
            Intensities below σ count as σ.
        """
        signal = torch.hypot(intensity.clamp_min(0), uncertainty)
        observed, noise = torch.log(signal / self.channel_scale), uncertainty / signal
        values = torch.cat([(observed - _TYPICAL) / _RANGE, torch.log(noise) / _RANGE])
        predicted, log_spread = self.layers(values[None, :, None])[0, :, 0].unflatten(0, (-1, 2)).unbind(dim=1)
        return _RANGE * predicted + _TYPICAL, log_spread.clamp(*_LOG_SPREAD), observed, noise

    def deviation(self, intensity, uncertainty):
        """
        Return the deviation of each channel from its prediction, in units of their combined spread.

        Parameters
        ----------
        intensity, uncertainty : `~torch.Tensor`
            DN s^-1 pix^-1, shape ``(channels, n)``.

        Returns
        -------
        `~torch.Tensor`
            Shape ``(channels, n)``; positive where a channel is brighter than predicted.
        """
        predicted, log_spread, observed, noise = self(intensity, uncertainty)
        return (observed - predicted) / torch.hypot(log_spread.exp(), noise)

    def loss(self, intensity, uncertainty):
        """
        Return the mean negative log-likelihood of a Laplace distribution, which is robust to outliers.
        """
        predicted, log_spread, observed, _ = self(intensity, uncertainty)
        return ((observed - predicted).abs() / log_spread.exp() + log_spread).mean()
