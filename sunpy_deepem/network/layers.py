"""Fast 1×1 convolutions: `PointwiseLayers`."""

from functools import cache
from itertools import pairwise

import torch
from torch import nn

__all__ = ["PRECISIONS", "PointwiseConvolution", "PointwiseLayers", "dtype_of"]

#: Precisions of the layers; ``"auto"`` is the fastest on this processor.
PRECISIONS = ("auto", "float32", "bfloat16")


class PointwiseConvolution(nn.Conv2d):
    """
    A 1×1 convolution computed as a matrix product, which is faster on a CPU.

    Parameters
    ----------
    in_channels, out_channels : `int`
        As for `torch.nn.Conv2d`, with the same weights.
    """

    def __init__(self, in_channels, out_channels):
        super().__init__(in_channels, out_channels, kernel_size=1)

    def forward(self, values):
        """Return the convolution of ``values``, shape ``(batch, out_channels, ny, nx)``."""
        return self.of_pixels(values.movedim(1, -1)).movedim(-1, 1)

    def of_pixels(self, pixels):
        """Return the convolution of ``pixels``, shape ``(..., in_channels)`` or fewer of the first channels."""
        weight = self.weight.flatten(1)[:, : pixels.shape[-1]]
        return nn.functional.linear(pixels.to(weight.dtype), weight, self.bias)


class PointwiseLayers(nn.Sequential):
    """
    1×1 convolutions with leaky ReLUs in between.

    Without gradients, oneDNN computes the layers on processors that it supports. PyTorch's matrix product otherwise
    comes from another library, which is half as fast on AMD's processors.

    Parameters
    ----------
    widths : sequence of `int`
        Number of values per pixel: input, after each hidden layer, output.
    """

    def __init__(self, widths):
        layers = []
        for width, next_width in pairwise(widths):
            layers += [PointwiseConvolution(width, next_width), nn.LeakyReLU(inplace=True)]
        super().__init__(*layers[:-1])

    def forward(self, values, n_outputs=None, *, channels_last=False):
        """
        Return the outputs of each pixel.

        Parameters
        ----------
        values : `~torch.Tensor`
            Shape ``(batch, widths[0], ny, nx)``, or fewer inputs: the last ones, left out, count as zero.
        n_outputs : `int`, optional
            Number of outputs, counted from the first; by default all.
        channels_last : `bool`, optional
            Whether the outputs of a pixel are next to each other in memory.

        Returns
        -------
        `~torch.Tensor`
            Shape ``(batch, n_outputs, ny, nx)``.
        """
        pixels, sky = values.movedim(1, -1).flatten(0, -2).contiguous(), (values.shape[0], *values.shape[2:])
        if self.is_fused(values.device.type):
            outputs, bias = self.fused(pixels, n_outputs, channels_last=channels_last)
            outputs = outputs.to(values.dtype)
            if not channels_last:
                outputs += bias[:, None]
        else:
            # Pixels in rows throughout make gradients faster.
            for layer in self:
                pixels = layer.of_pixels(pixels) if isinstance(layer, PointwiseConvolution) else layer(pixels)
            outputs = pixels[:, :n_outputs].to(values.dtype)
            outputs = outputs if channels_last else outputs.T.contiguous()
        if channels_last:
            return outputs.unflatten(0, sky).movedim(-1, 1)
        return outputs.unflatten(1, sky).movedim(1, 0)

    def is_fused(self, device_type):
        """Whether `fused` is possible: on CPUs that oneDNN supports, without gradients."""
        return not torch.is_grad_enabled() and _has_onednn_layers(device_type, self[-1].weight.dtype)

    def fused(self, pixels, n_outputs=None, *, channels_last=False):
        """
        Compute each layer with its bias and leaky ReLU in one pass.

        Parameters
        ----------
        pixels : `~torch.Tensor`
            Inputs of pixels, shape ``(n, widths[0])``, or fewer inputs.
        n_outputs, channels_last
            As for `forward`.

        Returns
        -------
        outputs : `~torch.Tensor`
            Outputs without bias in the type of the weights, shape ``(n_outputs, n)``; with ``channels_last`` transposed
            and with bias.
        bias : `~torch.Tensor`
            The bias.
        """
        layer = torch.ops.mkldnn._linear_pointwise
        *hidden, last = self
        for convolution, activation in zip(hidden[::2], hidden[1::2], strict=True):
            weight = convolution.weight.flatten(1)[:, : pixels.shape[1]].contiguous()
            slope = [activation.negative_slope]
            pixels = layer(pixels.to(weight.dtype), weight, convolution.bias, "leaky_relu", slope, "")
        weight, bias = last.weight[:n_outputs].flatten(1), last.bias[:n_outputs]
        pixels = pixels.to(weight.dtype)
        if channels_last:
            return layer(pixels, weight, bias, "none", [], ""), bias
        # Exchanging weights and pixels gives a product with channels first.
        return layer(weight, pixels, None, "none", [], ""), bias


def dtype_of(precision, device):
    """
    Return the dtype of one of `PRECISIONS` on a device.

    Examples
    --------
    >>> import torch
    >>> from sunpy_deepem.network import dtype_of
    >>> dtype_of("float32", torch.device("cpu"))
    torch.float32
    """
    if precision == "auto":
        precision = "bfloat16" if _has_fast_bfloat16(device.type) else "float32"
    return getattr(torch, precision)


@cache
def _has_onednn_layers(device_type, dtype):
    """
    Whether PyTorch has oneDNN's linear layer with bias and activation for this processor.

    The layer is private, but the code that `torch.compile` generates depends on it.
    """
    if device_type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if "AVX" not in torch.backends.cpu.get_cpu_capability() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


@cache
def _has_fast_bfloat16(device_type):
    """Whether the processor multiplies bfloat16 natively, without conversion."""
    if device_type == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    has_instructions = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return _has_onednn_layers(device_type, torch.bfloat16) and has_instructions()
