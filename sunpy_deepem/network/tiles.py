"""Arrays and tensors, devices, and threads that share out work on them."""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from threading import Barrier

import numpy as np
import torch

from sunpy_deepem.utils.checks import plain_array

__all__ = ["GPU_TILE", "check_array", "first_line", "resolve_device", "to_tensor", "workers"]

#: Pixels that are worked on at a time on a GPU, which they should fill.
GPU_TILE = 2**20
_GPU_STREAMS = 3


def check_array(values, name, **kind):
    """Return ``values`` as an array, by `plain_array`, or a tensor of real numbers."""
    if isinstance(values, torch.Tensor):
        if not values.is_complex():
            return values
        msg = f"{name} must be an array of real numbers, found {values.dtype}."
        raise TypeError(msg)
    return plain_array(values, name, **kind)


def to_tensor(values, device="cpu"):
    """
    Return an array or tensor as a tensor on a device, without a copy where there need be none.

    Arrays may be read-only or of another byte order. What is neither of single nor of double precision becomes double.
    """
    if isinstance(values, torch.Tensor):
        dtype = values.dtype if values.dtype in (torch.float32, torch.float64) else torch.float64
        return values.detach().to(device, dtype)
    kept = values.dtype.kind == "f" and values.dtype.itemsize in (4, 8)
    values = torch.from_numpy(np.require(values, values.dtype.newbyteorder("=") if kept else np.float64, ["C", "W"]))
    if torch.device(device).type == "cuda":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


@contextmanager
def workers(device):
    """
    Give a ``map`` that works on several tiles at once, one thread to a tile.

    On a CPU a tile is too small to be shared out among threads: they would mostly wait for each other, the more so
    where the machine has other work to do. On a GPU each thread has a stream of its own, so that one tile is computed
    while others are copied.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        with ThreadPoolExecutor(_GPU_STREAMS, initializer=_use_stream, initargs=(device,)) as pool:
            yield pool.map
        torch.cuda.synchronize(device)
        return
    if device.type != "cpu":
        yield map
        return
    threads = torch.get_num_threads()
    if threads == 1:
        yield map
        return
    try:
        torch.set_num_threads(1)
        yield _threads(threads).map
    finally:
        # Part of torch counts its threads for all of the process.
        torch.set_num_threads(threads)


@cache
def _threads(n):
    """Return a pool of ``n`` threads, which is kept: new threads would have to ask the system for memory again."""
    started, pool = Barrier(n), ThreadPoolExecutor(n, thread_name_prefix="sunpy_deepem")

    def start(_):
        torch.set_num_threads(1)
        started.wait()

    list(pool.map(start, range(n)))
    return pool


if hasattr(os, "register_at_fork"):
    # Threads do not live on in a process that is forked.
    os.register_at_fork(after_in_child=_threads.cache_clear)


def _use_stream(device):
    torch.cuda.set_stream(torch.cuda.Stream(device))


def first_line(error):
    """Return the kind and the first line of an error; torch's run to pages."""
    return ": ".join([type(error).__name__, *str(error).splitlines()[:1]])


def resolve_device(device) -> torch.device:
    """Return the `torch.device` of a name, ``"auto"`` being a GPU where there is one; raise if it is not to be had."""
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        # One that cannot give a number back, as torch's 'meta', is of no use.
        torch.zeros(1, device=found).item()
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        msg = (
            f"device must be 'auto', 'cpu', 'cuda' or another that torch has here, found {str(device)!r} "
            f"({first_line(error)}). Use 'auto' for a GPU where there is one."
        )
        raise ValueError(msg) from None
    return found
