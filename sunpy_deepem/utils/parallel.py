"""The one place for thread pools, process pools and thread limits."""

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import cache
from threading import Barrier, Lock

from threadpoolctl import threadpool_limits

__all__ = [
    "background",
    "n_cores",
    "part_map",
    "process_map",
    "single_blas_thread",
    "thread_map",
    "thread_pool",
    "tile_map",
]

_GPU_STREAMS = 3


def n_cores() -> int:
    """Return the number of CPU cores."""
    return os.cpu_count() or 1


class _SingleBlasThread:
    """
    A context in which NumPy's linear algebra uses one thread per call.

    The limit belongs to the process. If several threads enter, the first one sets it and the last one removes it;
    otherwise one would restore the limit of another, for good.
    """

    def __init__(self):
        self.reset()

    def reset(self):
        """Start anew, in a forked process."""
        self._lock, self._inside, self._limits = Lock(), 0, None

    def __enter__(self):
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._limits = threadpool_limits(limits=1, user_api="blas")

    def __exit__(self, *error):
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._limits.restore_original_limits()


_BLAS = _SingleBlasThread()


def single_blas_thread():
    """Limit NumPy's linear algebra to one thread, as a context, so that it does not compete with other threads."""
    return _BLAS


@contextmanager
def thread_map(threads=None, *, limit_blas=False):
    """
    Yield a ``map`` that calls a function from several threads at once.

    Parameters
    ----------
    threads : `int`, optional
        Number of threads, by default one per core.
    limit_blas : `bool`, optional
        Whether NumPy's linear algebra uses one thread per call meanwhile.

    Examples
    --------
    >>> from sunpy_deepem.utils.parallel import thread_map
    >>> with thread_map(2) as map_parts:
    ...     list(map_parts(abs, [-1, 2]))
    [1, 2]
    """
    with single_blas_thread() if limit_blas else nullcontext(), ThreadPoolExecutor(threads or n_cores()) as pool:
        yield pool.map


def thread_pool():
    """Return an executor with one thread per core."""
    return ThreadPoolExecutor(n_cores())


def background():
    """Return an executor with one thread, for work that is prepared while other work goes on."""
    return ThreadPoolExecutor(1)


def process_map(function, *iterables, processes):
    """
    Yield what `map` yields, computed in new processes.

    Processes are spawned, since a fork would copy the locks of torch's threads.

    Parameters
    ----------
    function : callable
        A function at module level, or another that can be pickled.
    *iterables
        Its arguments.
    processes : `int`
        Number of processes; with one, this process does the work.
    """
    if processes == 1:
        yield from map(function, *iterables)
        return
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield from executor.map(function, *iterables)


@contextmanager
def tile_map(device):
    """
    Yield a ``map`` over tiles for torch, with one thread per tile.

    A CPU tile is too small to be split among threads, which would mostly wait for each other. On a GPU each thread has
    its own stream, so that one tile is computed while others are copied.

    Parameters
    ----------
    device : `torch.device`
    """
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
        with ThreadPoolExecutor(_GPU_STREAMS, initializer=_use_stream, initargs=(device,)) as pool:
            yield pool.map
        torch.cuda.synchronize(device)
        return
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        yield map
        return
    try:
        torch.set_num_threads(1)
        yield _torch_threads(threads).map
    finally:
        # Part of torch counts its threads for the whole process.
        torch.set_num_threads(threads)


@contextmanager
def part_map(device):
    """
    Yield a ``map`` over parts of an image, for functions that use torch and NumPy.

    On a CPU each part stays on one thread, in torch and in NumPy's linear algebra, so that the cores share the parts.

    Parameters
    ----------
    device : `torch.device`
        Where torch works.
    """
    with single_blas_thread(), tile_map(device) if device.type == "cpu" else thread_map() as map_parts:
        yield map_parts


@cache
def _torch_threads(n):
    """Return a pool of ``n`` threads and keep it: new threads would have to allocate their memory again."""
    import torch

    started, pool = Barrier(n), ThreadPoolExecutor(n, thread_name_prefix="sunpy_deepem")

    def start(_):
        torch.set_num_threads(1)
        started.wait()

    list(pool.map(start, range(n)))
    return pool


def _use_stream(device):
    import torch

    torch.cuda.set_stream(torch.cuda.Stream(device))


def _after_fork():
    """Make a forked process use no threads of its parent, which do not survive the fork."""
    _torch_threads.cache_clear()
    _BLAS.reset()
    # OpenMP would wait forever for the threads that the parent had, as torch's documentation of multiprocessing says.
    if (torch := sys.modules.get("torch")) is not None and "sunpy_deepem.network.tiles" in sys.modules:
        torch.set_num_threads(1)
    # dask would wait forever for its own threads.
    if (threaded := sys.modules.get("dask.threaded")) is not None:
        threaded.default_pool, threaded.pools_lock = None, Lock()
        threaded.pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
