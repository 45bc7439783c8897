"""1×1 convolutions, as fast as the processor has them: `PointwiseLayers`."""

from functools import cache
from itertools import pairwise

import torch
from torch import nn

__all__ = ["PRECISIONS", "PointwiseConvolution", "PointwiseLayers", "dtype_of"]

#: What layers can be computed in, ``"auto"`` being the fastest that the processor has.
PRECISIONS = ("auto", "float32", "bfloat16")


class PointwiseConvolution(nn.Conv2d):
    """
    A 1×1 convolution computed as the matrix product that it is, which is faster on a CPU.

    Parameters
    ----------
    in_channels, out_channels : `int`
        As for `torch.nn.Conv2d`, whose weights it has.
    """

    def __init__(self, in_channels, out_channels):
        super().__init__(in_channels, out_channels, kernel_size=1)

    def forward(self, values):
        """Return the convolution of ``values``, shape ``(batch, out_channels, ny, nx)``."""
        values = values.to(self.weight.dtype)
        weight = self.weight.flatten(1).expand(values.shape[0], -1, -1)
        return torch.baddbmm(self.bias[None, :, None], weight, values.flatten(2)).unflatten(2, values.shape[2:])


class PointwiseLayers(nn.Sequential):
    """
    1×1 convolutions with leaky ReLUs between them.

    Where no gradient is asked for, the layers are computed by oneDNN on processors for which it has kernels; the matrix
    product that PyTorch takes otherwise comes from another library, which on AMD's processors is half as fast.

    Parameters
    ----------
    widths : sequence of `int`
        Number of values per pixel: of the input, after each layer, and of the output.
    """

    def __init__(self, widths):
        layers = []
        for width, next_width in pairwise(widths):
            layers += [PointwiseConvolution(width, next_width), nn.LeakyReLU(inplace=True)]
        super().__init__(*layers[:-1])

    def forward(self, values, n_outputs=None):
        """
        Return the outputs of each pixel.

        Parameters
        ----------
        values : `~torch.Tensor`
            Shape ``(batch, widths[0], ny, nx)``.
        n_outputs : `int`, optional
            How many of the outputs are wanted, the first ones; by default all.

        Returns
        -------
        `~torch.Tensor`
            Shape ``(batch, n_outputs, ny, nx)``.
        """
        if torch.is_grad_enabled() or not _has_onednn_layers(values.device.type, self[-1].weight.dtype):
            return super().forward(values)[:, :n_outputs].to(values.dtype)
        return self._fused(values, n_outputs)

    def _fused(self, values, n_outputs):
        """Each layer with its bias and leaky ReLU in one pass."""
        layer = torch.ops.mkldnn._linear_pointwise
        *hidden, last = self
        pixels = values.movedim(1, -1).flatten(0, -2).contiguous()
        for convolution, activation in zip(hidden[::2], hidden[1::2], strict=True):
            weight, slope = convolution.weight.flatten(1), [activation.negative_slope]
            pixels = layer(pixels.to(weight.dtype), weight, convolution.bias, "leaky_relu", slope, "")
        # With weights and pixels exchanged the product comes out channels first, as it is wanted.
        weight = last.weight[:n_outputs].flatten(1)
        outputs = layer(weight, pixels.to(weight.dtype), None, "none", [], "").to(values.dtype)
        outputs += last.bias[:n_outputs, None]
        return outputs.unflatten(1, (values.shape[0], *values.shape[2:])).movedim(1, 0)


def dtype_of(precision, device):
    """
    Return the type of numbers of one of `PRECISIONS` on a device.

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

    It is not of PyTorch's public interface, though what `torch.compile` makes rests on it.
    """
    if device_type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if "AVX" not in torch.backends.cpu.get_cpu_capability() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


@cache
def _has_fast_bfloat16(device_type):
    """Whether the processor multiplies numbers of type bfloat16, rather than turn them into others first."""
    if device_type == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    has_instructions = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return _has_onednn_layers(device_type, torch.bfloat16) and has_instructions()
