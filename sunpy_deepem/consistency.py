"""What each channel ought to be, given the other five: `ChannelConsistency`."""

import numpy as np
import torch
from torch import nn

from sunpy_deepem.channels import CHANNELS

__all__ = ["ChannelConsistency"]

_N = len(CHANNELS)
# No channel is foretold better or worse than this, in ln(intensity).
_LOG_SPREAD = (-4.0, 3.0)
# ln of 10^25 cm^-5 of EM is zero, and of most that is seen, below ten.
_TYPICAL, _RANGE = 5.0, 3.0


class ChannelConsistency(nn.Module):
    """
    Six small networks, each of which foretells the logarithm of one channel, and its spread, from the other five.

    Six intensities that a DEM explains may still be such as the Sun does not show: a channel that is off by a factor
    of three, or two that were swapped, can often be fitted. What the other channels say of it tells.

    Parameters
    ----------
    channel_scale : array-like
        Typical response of each channel, in DN s^-1 pix^-1 for 10^25 cm^-5, shape ``(6,)``.
    width : `int`, optional
        Width of the two hidden layers.
    """

    def __init__(self, channel_scale, width=16):
        super().__init__()
        scale = torch.as_tensor(np.asarray(channel_scale, dtype=np.float32)).reshape(-1, 1)
        self.register_buffer("channel_scale", scale)
        self.width = int(width)
        self.first = nn.Linear(2 * _N, _N * self.width)
        self.layers = nn.ModuleList(_SixLinear(self.width, next_width) for next_width in (self.width, 2))
        own = torch.eye(_N).repeat_interleave(self.width, dim=0)
        self.register_buffer("others", 1 - torch.cat([own, own], dim=1), persistent=False)

    def forward(self, intensity, uncertainty):
        """
        Return what the other channels foretell, and what was observed.

        Parameters
        ----------
        intensity, uncertainty : `~torch.Tensor`
            DN s^-1 pix^-1, shape ``(6, n)``.

        Returns
        -------
        foretold, log_spread, observed, noise : `~torch.Tensor`
            Of ln(intensity), where one below σ counts as σ, shape ``(6, n)``: its expectation, the logarithm of the
            spread of that, its observed value, and its σ.
        """
        signal = torch.hypot(intensity.clamp_min(0), uncertainty)
        observed, noise = torch.log(signal / self.channel_scale), uncertainty / signal
        values = torch.cat([(observed - _TYPICAL) / _RANGE, torch.log(noise) / _RANGE])
        values = torch.addmm(self.first.bias[:, None], self.first.weight * self.others, values)
        values = values.unflatten(0, (_N, self.width))
        for layer in self.layers:
            values = layer(nn.functional.leaky_relu(values, inplace=True))
        foretold, log_spread = values.unbind(dim=1)
        return _RANGE * foretold + _TYPICAL, log_spread.clamp(*_LOG_SPREAD), observed, noise

    def deviation(self, intensity, uncertainty):
        """
        Return how far each channel is from what the others foretell, in units of the spread of both.

        Parameters
        ----------
        intensity, uncertainty : `~torch.Tensor`
            DN s^-1 pix^-1, shape ``(6, n)``.

        Returns
        -------
        `~torch.Tensor`
            Shape ``(6, n)``; positive where a channel is brighter than foretold.
        """
        foretold, log_spread, observed, noise = self(intensity, uncertainty)
        return (observed - foretold) / torch.hypot(log_spread.exp(), noise)

    def loss(self, intensity, uncertainty):
        """
        Return the mean negative log-likelihood of a Laplace distribution, which wild pixels do not lead.
        """
        foretold, log_spread, observed, _ = self(intensity, uncertainty)
        return ((observed - foretold).abs() / log_spread.exp() + log_spread).mean()


class _SixLinear(nn.Module):
    """A linear layer for each channel."""

    def __init__(self, size, next_size):
        super().__init__()
        self.weight = nn.Parameter((2 * torch.rand(_N, next_size, size) - 1) / size**0.5)
        self.bias = nn.Parameter(torch.zeros(_N, next_size, 1))

    def forward(self, values):
        """Return the product for ``values``, shape ``(6, size, n)``."""
        return torch.baddbmm(self.bias, self.weight, values)
