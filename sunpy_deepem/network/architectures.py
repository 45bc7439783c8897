"""Networks that map the six intensities of a pixel to its EM: `ScaledNetwork` and `ChapterNetwork`."""

import math

import numpy as np
import torch
from torch import nn

from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.network.inputs import n_inputs, network_inputs
from sunpy_deepem.network.layers import PointwiseLayers

__all__ = ["ARCHITECTURES", "ChapterNetwork", "ScaledNetwork"]

# Smallest output in ln; keeps the EM of every bin above zero.
_LEAST_OUTPUT = -60.0
_LOG2_E = math.log2(math.e)


class ScaledNetwork(nn.Module):
    """
    1×1 convolutions on intensities relative to each pixel's brightness.

    Intensities divided by the channels' typical response have the scale of an EM. Their absolute values plus σ,
    averaged over channels, are the brightness of a pixel. The inputs are intensity and σ divided by brightness, and the
    logarithm of the brightness, because dim and bright plasma differ: a coronal hole has no hot plasma of an active
    region. The outputs are made positive, by exp(x) below zero and x + 1 above, and multiplied by brightness. The
    spread is also multiplied by a power of the noise (mean σ divided by brightness), with which
    `~sunpy_deepem.training.fit` calibrates the intervals at all levels of noise.

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
        # log2 of a factor, and exponent of the noise.
        self.register_buffer("spread_law", torch.zeros(2))
        self.n_bins, self.hidden = int(n_bins), tuple(int(width) for width in hidden)
        self.layers = PointwiseLayers((n_inputs(scale.numel()), *self.hidden, 2 * self.n_bins))

    def forward(self, intensity, uncertainty, flags=None, *, spread=True, scale=1.0, out=(None, None), start=0):
        """
        Return mean and spread of the EM, by default in units of 10^25 cm^-5.

        Parameters
        ----------
        intensity, uncertainty : `~torch.Tensor`
            DN s^-1 pix^-1, shape ``(batch, channels, ny, nx)``.
        flags : `~torch.Tensor`, optional
            Channels that are missing or lower limits, as in ``network_inputs``.
        spread : `bool`, optional
            Whether to compute the spread, which is `None` otherwise.
        scale : `float`, optional
            Factor of the results, `EM_SCALE` for cm^-5.
        out : pair of `~torch.Tensor` or `None`, optional
            Where to write those of a single row of pixels, which saves a copy; shape ``(n_bins, n)``.
        start : `int`, optional
            The first pixel in ``out``.

        Returns
        -------
        em, spread : `~torch.Tensor`
            Shape ``(batch, n_bins, ny, nx)``.
        """
        whole = flags is None or not flags.any(dim=1).all()
        if not (whole and self._is_compiled(intensity)):
            return self._forward(intensity, uncertainty, flags, spread, scale, out, start)
        results = self._forward_compiled(intensity, uncertainty, spread, scale, out, start)
        if flags is not None:
            # A pixel's answer does not depend on whether others lack channels.
            lost = flags[0, :, 0].any(dim=0).nonzero()[:, 0]
            arrays = (values[..., lost] for values in (intensity, uncertainty, flags))
            for result, values in zip(results, self._forward(*arrays, spread, scale), strict=True):
                if result is not None:
                    result[..., lost] = values
        return results

    def _forward(self, intensity, uncertainty, flags, spread, scale, out=(None, None), start=0):
        """Return the same as `forward`, by PyTorch alone."""
        inputs, brightness, noise = network_inputs(intensity, uncertainty, self.channel_scale, flags)
        outputs = self.layers(inputs, self.n_bins * (1 + spread))
        brightness = scale * brightness
        em = _positive(outputs[:, : self.n_bins], brightness, _part(out[0], start, outputs))
        if not spread:
            return em, None
        factor = brightness * self._spread_factor(noise)
        return em, _positive(outputs[:, self.n_bins :], factor, _part(out[1], start, outputs))

    def _spread_factor(self, noise):
        return torch.exp2(self.spread_law[0] + self.spread_law[1] * torch.log2(noise))

    def _is_compiled(self, intensity):
        """Whether `_forward_compiled` is possible, for rows of pixels on processors with fast bfloat16."""
        types = intensity.dtype, self.layers[-1].weight.dtype
        if types != (torch.float32, torch.bfloat16) or not self.layers.is_fused(intensity.device.type):
            return False
        # Numba takes a while to import.
        from sunpy_deepem.network.vectors import LANES

        batch, n_channels, ny, nx = intensity.shape
        return batch == ny == 1 and nx >= LANES and 2 * n_channels + 1 <= LANES <= n_inputs(n_channels)

    def _forward_compiled(self, intensity, uncertainty, spread, scale, out, start):
        """Return the same as `_forward` for pixels with all channels, in fewer passes through memory."""
        from sunpy_deepem.network.compiled_tiles import LANES, set_em, set_inputs

        n = intensity.shape[3]
        inputs, brightness, noise = (torch.empty(shape, dtype=torch.float32) for shape in ((n, LANES), n, n))
        arrays = (intensity[0, :, 0].contiguous(), uncertainty[0, :, 0].contiguous(), self.channel_scale.flatten())
        set_inputs(*(values.numpy() for values in (*arrays, inputs, brightness, noise)))
        # The zeros to the right of the inputs are in the places of flags.
        outputs, bias = self.layers.fused(inputs, self.n_bins * (1 + spread))
        outputs, bias = outputs.view(torch.int16).unflatten(0, (-1, self.n_bins)).numpy(), bias.float().numpy()
        brightness = scale * brightness
        factors = [brightness, brightness * self._spread_factor(noise)] if spread else [brightness]
        results = []
        for values, own_bias, factor, place in zip(outputs, bias.reshape(-1, self.n_bins), factors, out, strict=False):
            first = 0 if place is None else start
            place = torch.empty(self.n_bins, n, dtype=torch.float32) if place is None else place
            set_em(values, own_bias, factor[None].numpy(), np.float32(_LEAST_OUTPUT), place.numpy(), first)
            results.append(place[None, :, None, first : first + n])
        return results[0], results[1] if spread else None

    def noise(self, intensity, uncertainty, flags=None):
        """Return the mean σ over brightness, by which the spread is corrected, shape ``(batch, 1, ny, nx)``."""
        return network_inputs(intensity, uncertainty, self.channel_scale, flags)[2]

    def architecture(self):
        """Return the arguments that rebuild the network, as a `dict` for JSON."""
        return {
            "name": self.name,
            "channel_scale": self.channel_scale.flatten().tolist(),
            "n_bins": self.n_bins,
            "hidden": list(self.hidden),
        }


class ChapterNetwork(nn.Module):
    """
    The network of the DeepEM chapter, from √intensity to √EM, without σ.

    Negative intensities count as zero, and the output is squared, as in the chapter. In training the square keeps the
    sign of the output, so that the loss on √EM equals the chapter's.

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

    def forward(self, intensity, uncertainty=None, flags=None, *, spread=False, scale=1.0, out=(None, None), start=0):
        """
        Return the EM, shape ``(batch, n_bins, ny, nx)``, as `ScaledNetwork` does, and `None` for its spread.
        """
        if flags is not None:
            intensity = intensity.masked_fill(flags.any(dim=1, keepdim=True), torch.nan)
        root = self.layers(intensity.clamp_min(0).sqrt())
        out = _part(out[0], start, root)
        return torch.mul(root * root.abs() if self.training else root**2, scale, out=out), None

    def architecture(self):
        """Return the arguments that rebuild the network, as a `dict` for JSON."""
        return {"name": self.name, "n_bins": self.n_bins, "hidden": list(self.hidden)}


#: Networks by their name in weights files.
ARCHITECTURES = {network.name: network for network in (ScaledNetwork, ChapterNetwork)}


def _part(place, start, values):
    """Return the pixels of an array ``(n_bins, n)`` that ``values`` (1, n_bins, 1, pixels) are for."""
    return None if place is None else place[None, :, None, start : start + values.shape[-1]]


def _positive(values, factor, out):
    """Return exp(x) below zero and x + 1 above, times a factor; in ``out`` unless gradients are enabled."""
    # exp2 is faster than exp.
    if torch.is_grad_enabled():
        return (nn.functional.relu(values) + torch.exp2(_LOG2_E * values.clamp(_LEAST_OUTPUT, 0))) * factor
    below = values.clamp(_LEAST_OUTPUT, 0).mul_(_LOG2_E).exp2_()
    return torch.mul(below.add_(values.clamp_min_(0)), factor, out=out)
