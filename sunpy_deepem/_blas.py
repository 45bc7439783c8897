"""One thread to a caller in NumPy's linear algebra, where several work side by side: `single_threaded_blas`."""

from threading import Lock

from threadpoolctl import threadpool_limits

__all__ = ["single_threaded_blas"]


class _SingleThreadedBlas:
    """
    A context within which linear algebra keeps to the thread that asks for it.

    Threads that wait for their share of a small product take the processor from those that have work to do. How many
    there are is a setting of the whole process, so that it is given back when the last context ends.
    """

    def __init__(self):
        self._lock, self._users, self._limits = Lock(), 0, None

    def __enter__(self):
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._limits = threadpool_limits(limits=1, user_api="blas")

    def __exit__(self, kind, error, traceback):
        with self._lock:
            self._users -= 1
            if not self._users:
                self._limits.restore_original_limits()


single_threaded_blas = _SingleThreadedBlas()
