"""Tiles of pixels, the devices that compute them, and reduced precision."""

import copy
import math
from contextlib import contextmanager, nullcontext
from functools import wraps
from weakref import WeakKeyDictionary

import numpy as np
import torch

from sunpy_deepem.utils.checks import plain_array

__all__ = [
    "CPU_TILE",
    "GPU_TILE",
    "LEAST_CHANNELS",
    "check_array",
    "empty_array",
    "first_line",
    "in_precision",
    "own_settings",
    "pixel_tile",
    "resolve_device",
    "tile_of",
    "to_tensor",
    "with_own_settings",
]

#: Pixels per tile on a CPU; they stay in its cache.
CPU_TILE = 24576
#: Pixels per tile on a GPU; they fill it.
GPU_TILE = 2**20
#: Measured channels that a pixel needs, lower limits not counted.
LEAST_CHANNELS = 3
# After a block of this size was freed, the C library keeps freed memory for the next tile (mallopt(3), "dynamic mmap
# threshold"). Otherwise new pages from the system take longer than the arithmetic of a tile.
torch.empty(2**25 - 2**16, dtype=torch.uint8)
# By module: its tensors, the precision and state they were last copied in, and that copy.
_COPIES: WeakKeyDictionary = WeakKeyDictionary()


@contextmanager
def own_settings():
    """
    Ignore the caller's autocast, inference mode and default device, so that they do not change answers, as a context.

    They belong to the thread, and the caller's thread is not the only one that works. The default type of numbers
    belongs to the process, so all tensors of the package state their own.
    """
    # Setting a default device makes every operation slower, so it is done only if the caller has set another.
    on_cpu = torch.empty(0).device.type == "cpu"
    with (
        nullcontext() if on_cpu else torch.device("cpu"),
        torch.autocast("cpu", enabled=False),
        torch.autocast("cuda", enabled=False),
        # Other threads may not write to tensors that were made in this mode.
        torch.inference_mode(False),
        torch.no_grad(),
    ):
        yield


def with_own_settings(function):
    """Decorate a function so that it runs with `own_settings`."""

    @wraps(function)
    def run(*args, **kwargs):
        with own_settings():
            return function(*args, **kwargs)

    return run


def check_array(values, name, **kind):
    """Return ``values`` as an array, by `plain_array`, or as the real tensor that it is."""
    if isinstance(values, torch.Tensor):
        if not values.is_complex():
            return values
        msg = f"{name} must be an array of real numbers, found {values.dtype}."
        raise TypeError(msg)
    return plain_array(values, name, **kind)


def to_tensor(values, device="cpu"):
    """
    Return an array or tensor as a tensor on a device, without a copy where possible.

    Arrays may be read-only or of another byte order. Types other than single and double precision become double.
    """
    if isinstance(values, torch.Tensor):
        dtype = values.dtype if values.dtype in (torch.float32, torch.float64) else torch.float64
        return values.detach().to(device, dtype)
    kept = values.dtype.kind == "f" and values.dtype.itemsize in (4, 8)
    values = torch.from_numpy(np.require(values, values.dtype.newbyteorder("=") if kept else np.float64, ["C", "W"]))
    if torch.device(device).type == "cuda":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def empty_array(shape, device):
    """Return an uninitialized float32 tensor; on a CPU NumPy's allocator uses huge pages, which is faster."""
    if torch.device(device).type == "cpu":
        return torch.from_numpy(np.empty(shape, np.float32))
    return torch.empty(shape, device=device)


def tile_of(values, part, device):
    """Return pixels of an array or tensor ``(channels, n)`` as a batch of one row, ``(1, channels, 1, pixels)``."""
    if values is None:
        return None
    if not isinstance(values, torch.Tensor):
        # A copy, since arrays may be read-only, of another byte order, or on disk.
        # Overflow in single precision gives infinity, which is treated as a missing channel.
        with np.errstate(over="ignore"):
            values = torch.from_numpy(np.array(values[:, part], dtype=np.float32, order="C"))
        part = slice(None)
        if device.type == "cuda":
            values = values.pin_memory()
    return values[None, :, None, part].to(device, torch.float32, non_blocking=True)


def pixel_tile(arrays, part, device):
    """
    Return a tile of pixels with the flags of its channels.

    Parameters
    ----------
    arrays : sequence of `~numpy.ndarray`, `~torch.Tensor` or `None`
        Intensity, σ and whether intensities are lower limits, shape ``(channels, n)``; the last two may be `None`.
    part : `slice`
        Pixels of the tile.
    device : `torch.device`

    Returns
    -------
    intensity, uncertainty : `~torch.Tensor`
        Shape ``(1, channels, 1, pixels)``.
    flags : `~torch.Tensor` or `None`
        As in ``network_inputs``; `None` if all channels of all pixels are used. All channels
        are missing in pixels with fewer than three measured ones.

    Raises
    ------
    ValueError
        If σ is not positive where the intensity is finite.
    """
    intensity, uncertainty, limit = (tile_of(values, part, device) for values in arrays)
    # Sums and the smallest σ are fast to compute and reveal values that are not finite.
    if not intensity.numel() or (
        limit is None
        and math.isfinite(intensity.sum())
        and (uncertainty is None or (math.isfinite(uncertainty.sum()) and uncertainty.amin().item() > 0))
    ):
        return intensity, uncertainty, None
    missing = ~torch.isfinite(intensity)
    if uncertainty is not None:
        if (~missing & ~(uncertainty > 0)).any():
            raise ValueError(_not_positive(*arrays[:2]))
        missing |= torch.isinf(uncertainty)
    limit = torch.zeros_like(missing) if limit is None else (limit > 0) & ~missing
    measured = (~missing & ~limit).sum(dim=1, keepdim=True)
    missing = missing | (measured < min(LEAST_CHANNELS, missing.shape[1]))
    flags = torch.cat([missing, limit & ~missing], dim=1)
    return intensity, uncertainty, flags if flags.any() else None


def _not_positive(intensity, uncertainty):
    """Return the message for σ that are not positive, counted over all pixels."""
    intensity, uncertainty = (torch.as_tensor(np.asarray(values)) for values in (intensity, uncertainty))
    wrong = int((torch.isfinite(intensity) & ~(uncertainty > 0)).sum())
    return (
        f"uncertainty must be positive wherever intensity is finite; it is not in {wrong} of {intensity.numel()} "
        "values. ChannelStack gives a σ for every pixel; leave out a channel of a pixel by making its intensity NaN."
    )


def in_precision(module, dtype):
    """
    Return a module with all of its layers but the first in ``dtype``.

    The copy is kept until the weights change, since copying takes as long as inverting thousands of pixels.
    """
    if dtype == torch.float32:
        return module
    tensors = [*module.parameters(), *module.buffers()]
    versions = [dtype, *(None if tensor.is_inference() else tensor._version for tensor in tensors)]
    known = _COPIES.get(module)
    # Compare the tensors themselves, since a new one may reuse the address of an old one.
    if known is None or known[1] != versions or any(a is not b for a, b in zip(known[0], tensors, strict=True)):
        reduced = copy.deepcopy(module)
        for layer in list(reduced.layers)[1:]:
            layer.to(dtype)
        known = _COPIES[module] = tensors, versions, reduced
    return known[-1]


def first_line(error):
    """Return the type and the first line of an error; torch's messages can fill pages."""
    return ": ".join([type(error).__name__, *str(error).splitlines()[:1]])


def resolve_device(device) -> torch.device:
    """Return the `torch.device` of a name, ``"auto"`` being a GPU where there is one; raise if it is unavailable."""
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        # Devices without storage, such as torch's 'meta', cannot return a number.
        torch.zeros(1, device=found).item()
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        msg = (
            f"device must be 'auto', 'cpu', 'cuda' or another that torch has here, found {str(device)!r} "
            f"({first_line(error)}). Use 'auto' for a GPU where there is one."
        )
        raise ValueError(msg) from None
    return found
