"""What each channel ought to be, given the other five: `ChannelConsistency`."""

import numpy as np
import torch
from torch import nn

from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.network.layers import PointwiseLayers

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
        # The six stand side by side in the same layers, which is faster than one after the other.
        self.layers = PointwiseLayers((2 * _N, _N * self.width, _N * self.width, 2 * _N))
        with torch.no_grad():
            for layer in self.layers[2], self.layers[4]:
                layer.weight *= _N**0.5
        self.keep_apart()

    @torch.no_grad()
    def keep_apart(self):
        """Set the weights to zero by which a network would see its own channel, or into another: after each step."""
        own = torch.eye(_N, device=self.channel_scale.device)
        others = (1 - own).repeat(1, 2)
        for layer, within in zip(list(self.layers)[::2], (others, own, own), strict=True):
            rows, columns = (size // n for size, n in zip(layer.weight.shape, within.shape, strict=False))
            mask = within.repeat_interleave(rows, dim=0).repeat_interleave(columns, dim=1)
            layer.weight *= mask[:, :, None, None]

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
        foretold, log_spread = self.layers(values[None, :, None])[0, :, 0].unflatten(0, (_N, 2)).unbind(dim=1)
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
