"""Networks that map the six intensities of a pixel to its EM: `ScaledNetwork` and `ChapterNetwork`."""

import math

import numpy as np
import torch
from torch import nn

from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.network.layers import PointwiseLayers

__all__ = ["ARCHITECTURES", "ChapterNetwork", "ScaledNetwork"]

# The shape of the EM depends on log10 of the brightness within these limits only: EM of 10^24 to 10^30 cm^-5.
_LEVELS = (-1.0, 5.0)
# Smallest output in ln; keeps the EM of every bin above zero.
_LEAST_OUTPUT = -60.0
_LOG2_E = math.log2(math.e)


class ScaledNetwork(nn.Module):
    """
    1×1 convolutions between a division by each pixel's brightness and a multiplication by it.

    Intensities over the channels' typical response are EM-like numbers. A pixel's brightness is the mean over channels
    of their moduli plus σ; the network sees intensity and σ over brightness, and what it answers is multiplied by
    brightness. It also sees the logarithm of the brightness, as dim and bright plasma are not of the same kind: the
    corona that is as dim as a coronal hole has not the hot plasma of an active region. The outputs are made positive by
    exp(x) below and x + 1 above zero. The spread is multiplied, besides, by a power of the noise, the mean σ over
    brightness, by which `~sunpy_deepem.training.fit` makes its intervals hold at every noise.

    Parameters
    ----------
    channel_scale : array-like
        Typical response of each channel, in DN s^-1 pix^-1 for 10^25 cm^-5, shape ``(6,)``.
    n_bins : `int`
        Number of log T bins.
    hidden : sequence of `int`, optional
        Widths of the hidden layers.
    """

    name = "scaled"
    needs_uncertainty = True
    has_spread = True
    usual_precision = "auto"

    def __init__(self, channel_scale, n_bins, hidden=(64, 64)):
        super().__init__()
        scale = torch.as_tensor(np.asarray(channel_scale, dtype=np.float32)).reshape(1, -1, 1, 1)
        self.register_buffer("channel_scale", scale)
        # log2 of a factor, and the exponent of the noise.
        self.register_buffer("spread_law", torch.zeros(2))
        self.n_bins, self.hidden = int(n_bins), tuple(int(width) for width in hidden)
        self.layers = PointwiseLayers((2 * scale.numel() + 1, *self.hidden, 2 * self.n_bins))

    def forward(self, intensity, uncertainty, *, spread=True):
        """
        Return mean and spread of the EM in units of 10^25 cm^-5.

        Parameters
        ----------
        intensity, uncertainty : `~torch.Tensor`
            DN s^-1 pix^-1, shape ``(batch, 6, ny, nx)``.
        spread : `bool`, optional
            Whether to compute the spread, which is `None` otherwise.

        Returns
        -------
        em, spread : `~torch.Tensor`
            Shape ``(batch, n_bins, ny, nx)``.
        """
        intensity, uncertainty, brightness = self.relative(intensity, uncertainty)
        level = 0.25 * (torch.log10(brightness).clamp(*_LEVELS) - 2)
        inputs = intensity, uncertainty, level
        # The values of a pixel beside each other in memory, as the layers want them.
        inputs = torch.cat([values.movedim(1, -1) for values in inputs], dim=-1).movedim(-1, 1)
        outputs = self.layers(inputs, None if spread else self.n_bins)
        outputs = _positive(outputs)
        em = outputs[:, : self.n_bins] * brightness
        if not spread:
            return em, None
        noise = uncertainty.mean(dim=1, keepdim=True)
        factor = torch.exp2(self.spread_law[0] + self.spread_law[1] * torch.log2(noise))
        return em, outputs[:, self.n_bins :] * (brightness * factor)

    def relative(self, intensity, uncertainty):
        """
        Return intensity and σ over brightness, shape ``(batch, 6, ny, nx)``, and brightness, ``(batch, 1, ny, nx)``.
        """
        intensity = intensity / self.channel_scale
        uncertainty = uncertainty / self.channel_scale
        brightness = (intensity.abs() + uncertainty).mean(dim=1, keepdim=True)
        return intensity / brightness, uncertainty / brightness, brightness

    def architecture(self):
        """Return what is needed to build the network again, as a `dict` for JSON."""
        return {
            "name": self.name,
            "channel_scale": self.channel_scale.flatten().tolist(),
            "n_bins": self.n_bins,
            "hidden": list(self.hidden),
        }


class ChapterNetwork(nn.Module):
    """
    The network of the DeepEM chapter: √ of the intensities in, √ of the EM out, no σ.

    Negative intensities count as zero, and the output is squared whatever its sign, as in the chapter. While training
    it keeps its sign, so that the loss on √EM sees what the chapter's saw.

    Parameters
    ----------
    n_bins : `int`, optional
        Number of log T bins.
    hidden : sequence of `int`, optional
        Widths of the hidden layers.

    References
    ----------
    Wright et al., "DeepEM: A Deep Learning Approach for DEM Inversion", in HelioML, https://doi.org/10.5281/zenodo.3572099
    """

    name = "chapter"
    needs_uncertainty = False
    has_spread = False
    usual_precision = "float32"

    def __init__(self, n_bins=18, hidden=(300, 300)):
        super().__init__()
        self.n_bins, self.hidden = int(n_bins), tuple(int(width) for width in hidden)
        self.layers = PointwiseLayers((len(CHANNELS), *self.hidden, self.n_bins))

    def forward(self, intensity, uncertainty=None, *, spread=False):
        """
        Return the EM in units of 10^25 cm^-5, shape ``(batch, n_bins, ny, nx)``, and `None` for its spread.
        """
        root = self.layers(intensity.clamp_min(0).sqrt())
        return (root * root.abs() if self.training else root**2), None

    def architecture(self):
        """Return what is needed to build the network again, as a `dict` for JSON."""
        return {"name": self.name, "n_bins": self.n_bins, "hidden": list(self.hidden)}


#: Networks by the name under which a weights file knows them.
ARCHITECTURES = {network.name: network for network in (ScaledNetwork, ChapterNetwork)}


def _positive(values):
    """Return exp(x) below and x + 1 above zero; ``values`` are overwritten where no gradient is asked for."""
    # Powers of two are quicker than those of e.
    below = values.clamp(_LEAST_OUTPUT, 0)
    if torch.is_grad_enabled():
        return nn.functional.relu(values) + torch.exp2(_LOG2_E * below)
    return values.clamp_min_(0).add_(below.mul_(_LOG2_E).exp2_())
