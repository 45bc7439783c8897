"""Inputs of the networks: intensities and σ relative to brightness, and flags of the channels."""

import torch

__all__ = ["LEVELS", "n_inputs", "network_inputs", "unused"]

#: The shape of the EM depends on log10 of the brightness within these limits only: EM of 10^24 to 10^30 cm^-5.
LEVELS = (-1.0, 5.0)


def n_inputs(n_channels):
    """Return the number of inputs for a number of channels: intensity, σ and two flags of each, and brightness."""
    return 4 * n_channels + 1


def network_inputs(intensity, uncertainty, scale, flags=None):
    """
    Return the inputs of a network, the brightness to which they are relative, and the noise.

    Intensities over the channels' typical response are EM-like numbers. The brightness of a pixel is the mean of their
    moduli plus σ over the channels used. The inputs are intensity and σ over brightness, the logarithm of the
    brightness, and the flags, which are zero for a channel that is used.

    Parameters
    ----------
    intensity, uncertainty : `~torch.Tensor`
        DN s^-1 pix^-1, shape ``(batch, channels, ny, nx)``.
    scale : `~torch.Tensor`
        Typical response of the channels, shape ``(1, channels, 1, 1)``.
    flags : `~torch.Tensor` of `bool`, optional
        Whether each channel is missing, then whether its intensity is a lower limit, shape
        ``(batch, 2 × channels, ny, nx)``; by default all channels are used.

    Returns
    -------
    inputs : `~torch.Tensor`
        Shape ``(batch, n_inputs(channels), ny, nx)``; without ``flags`` their places are left out.
    brightness : `~torch.Tensor`
        Shape ``(batch, 1, ny, nx)``; NaN in pixels with no channel.
    noise : `~torch.Tensor`
        Mean σ of all channels over brightness, of the same shape; σ of a missing channel counts as zero.
    """
    intensity, uncertainty = intensity / scale, uncertainty / scale
    if flags is None:
        brightness = (intensity.abs() + uncertainty).mean(dim=1, keepdim=True)
    else:
        missing = flags[:, : scale.shape[1]]
        intensity, uncertainty = intensity.masked_fill(missing, 0), uncertainty.masked_fill(missing, 0)
        used = scale.shape[1] - missing.sum(dim=1, keepdim=True)
        brightness = (intensity.abs() + uncertainty).sum(dim=1, keepdim=True) / used
    level = 0.25 * (torch.log10(brightness).clamp(*LEVELS) - 2)
    inputs = [intensity / brightness, uncertainty / brightness, level]
    if flags is not None:
        inputs.append(flags.to(level.dtype))
    # Channels last in memory, the layout of the layers.
    inputs = torch.cat([values.movedim(1, -1) for values in inputs], dim=-1).movedim(-1, 1)
    return inputs, brightness, uncertainty.mean(dim=1, keepdim=True) / brightness


def unused(flags):
    """Return where a channel is missing or its intensity is a lower limit, shape ``(batch, channels, ...)``."""
    return flags.unflatten(1, (2, -1)).any(dim=1)
