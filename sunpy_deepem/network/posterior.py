"""The posterior of the EM of a pixel as a mixture of Gaussians: `PosteriorNetwork` and `Mixture`."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from sunpy_deepem.network.inputs import n_inputs, network_inputs
from sunpy_deepem.network.layers import PointwiseLayers

__all__ = ["LARGEST_ELEMENT", "LOG_SCALES", "Mixture", "PosteriorNetwork"]

#: Range of the standard deviations of coordinates along the axes of a component, in ln.
LOG_SCALES = (-4.5, 3.0)
#: Largest element of L; up to 5 occurs in pixels of the prior.
LARGEST_ELEMENT = 20.0


class Mixture(NamedTuple):
    """
    Mixture of Gaussians in y, the coordinates of EM / brightness as of ``network.splits.coordinates``, of ``n`` pixels.

    Component k has mean μ_k and covariance L diag(s_k²) Lᵀ, where L is the inverse of a lower triangle with a unit
    diagonal that is common to all components of a pixel.
    """

    #: Logarithm of the weights, not normalized, shape ``(n, components)``.
    log_weights: torch.Tensor
    #: Means, shape ``(n, components, bins)``.
    means: torch.Tensor
    #: Logarithm of the scales s, shape ``(n, components, bins)``.
    log_scales: torch.Tensor
    #: Inverse of L, shape ``(n, bins, bins)``.
    inverse_factor: torch.Tensor

    def log_density(self, y):
        """Return the logarithm of the density at ``y`` (n, bins), shape ``(n,)``."""
        z = (y[:, None] - self.means) @ self.inverse_factor.mT * torch.exp(-self.log_scales)
        log_density = torch.log_softmax(self.log_weights, 1) - 0.5 * z.square().sum(2) - self.log_scales.sum(2)
        return torch.logsumexp(log_density, 1) - 0.5 * y.shape[1] * math.log(2 * math.pi)

    def factor(self):
        """Return L, shape ``(n, bins, bins)``; its elements are limited where the intensities contradict each other."""
        unit = torch.eye(self.means.shape[2], dtype=self.means.dtype, device=self.means.device).expand_as(
            self.inverse_factor
        )
        factor = torch.linalg.solve_triangular(self.inverse_factor, unit, upper=False, unitriangular=True)
        return factor.contiguous().nan_to_num_(0.0, 0.0, 0.0).clamp_(-LARGEST_ELEMENT, LARGEST_ELEMENT)


class PosteriorNetwork(nn.Module):
    """
    A mixture density network: 1×1 convolutions from intensities and σ to a `Mixture`.

    Parameters
    ----------
    channel_scale : array-like
        Typical response of each channel, in DN s^-1 pix^-1 for 10^25 cm^-5, shape ``(channels,)``.
    n_bins : `int`
        Number of log T bins.
    hidden : sequence of `int`, optional
        Widths of the hidden layers.
    components : `int`, optional
        Number of Gaussians.

    References
    ----------
    Bishop (1994), "Mixture Density Networks", NCRG/94/004, https://publications.aston.ac.uk/id/eprint/373
    """

    #: Factor of the widths of the components in draws, by the number of channels that a pixel lacks. The last one is
    #: for all larger numbers. See `~sunpy_deepem.training.match_coverage`.
    widening: tuple[float, ...] = (1.0,)

    def __init__(self, channel_scale, n_bins, hidden=(192, 192, 192), components=32):
        super().__init__()
        scale = torch.as_tensor(np.asarray(channel_scale, dtype=np.float32)).reshape(1, -1, 1, 1)
        self.register_buffer("channel_scale", scale)
        self.n_bins, self.hidden, self.components = int(n_bins), tuple(int(width) for width in hidden), int(components)
        self.register_buffer("triangle", torch.tril_indices(self.n_bins, self.n_bins, -1), persistent=False)
        self.sizes = [self.components, *[self.components * self.n_bins] * 2, self.triangle.shape[1]]
        self.layers = PointwiseLayers((n_inputs(scale.numel()), *self.hidden, sum(self.sizes)))

    @torch.no_grad()
    def start_from(self, y):
        """
        Start with components around examples.

        Parameters
        ----------
        y : `~torch.Tensor`
            Coordinates of EM / brightness of draws from the prior, shape ``(components, bins)``.
        """
        last = self.layers[-1]
        last.weight *= 0.3
        _, means, log_scales, _ = last.bias.zero_().split(self.sizes)
        means += y.flatten()
        log_scales += 0.7

    def forward(self, intensity, uncertainty, flags=None):
        """
        Return the posterior of each pixel.

        Parameters
        ----------
        intensity, uncertainty : `~torch.Tensor`
            DN s^-1 pix^-1, shape ``(1, channels, 1, n)``.
        flags : `~torch.Tensor`, optional
            As in ``network_inputs``.

        Returns
        -------
        mixture : `Mixture`
        brightness : `~torch.Tensor`
            In units of 10^25 cm^-5, shape ``(n,)``.
        """
        outputs, brightness = self.outputs(intensity, uncertainty, flags)
        return self.mixture(outputs), brightness

    def mixture(self, outputs):
        """Return the `Mixture` of the outputs of the layers."""
        log_weights, means, log_scales, triangle = outputs.split(self.sizes, dim=1)
        inverse_factor = torch.eye(self.n_bins, dtype=outputs.dtype, device=outputs.device).repeat(len(outputs), 1, 1)
        inverse_factor[:, self.triangle[0], self.triangle[1]] = triangle
        shape = (-1, self.components, self.n_bins)
        return Mixture(log_weights, means.reshape(shape), log_scales.reshape(shape).clamp(*LOG_SCALES), inverse_factor)

    def outputs(self, intensity, uncertainty, flags=None):
        """
        Return the outputs of the layers, of which `forward` makes a mixture.

        Returns
        -------
        outputs : `~torch.Tensor`
            Logarithms of the weights, means and logarithms of the scales of the components, and the elements of the
            triangle below its diagonal, shape ``(n, sum(sizes))``.
        brightness : `~torch.Tensor`
            Shape ``(n,)``.
        """
        inputs, brightness, _ = network_inputs(intensity, uncertainty, self.channel_scale, flags)
        return self.layers(inputs, channels_last=True)[0, :, 0].T.contiguous(), brightness[0, 0, 0]

    def architecture(self):
        """Return the arguments that build the network again, as a `dict` for JSON."""
        return {
            "channel_scale": self.channel_scale.flatten().tolist(),
            "n_bins": self.n_bins,
            "hidden": list(self.hidden),
            "components": self.components,
        }
