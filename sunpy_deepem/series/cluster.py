"""Where the jobs of a series run: in this process, in threads, in processes or on a dask cluster."""

import logging
import warnings
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf

from sunpy_deepem.utils.logger import log
from sunpy_deepem.utils.parallel import background, n_cores, thread_pool

__all__ = ["JobPool", "SerialPool", "open_pool"]

# Seconds without a result after which the lack of workers is logged.
_PATIENCE = 60.0
_WORKER_ENVIRONMENT = "distributed.nanny.pre-spawn-environ"
_LOG_WARNINGS_ONLY = {"DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "warning"}


@dataclass(frozen=True)
class JobPool:
    """
    An executor that gets no more jobs than it can run at once.

    Attributes
    ----------
    executor : `~concurrent.futures.Executor`
    n_slots : callable
        Returns the number of jobs that can run at once. It may change, as workers come and go.
    """

    executor: Executor
    n_slots: Callable

    def run(self, function, jobs, prepare=None):
        """
        Call a function for each job.

        Parameters
        ----------
        function : callable
        jobs : `dict`
        prepare : callable, optional
            Not used, because the next job of a worker is not known; see `SerialPool`.

        Yields
        ------
        key, future
            Key of a job and its completed `~concurrent.futures.Future`, in order of completion.
        """
        waiting, futures, is_logged = list(reversed(jobs.items())), {}, False
        try:
            while waiting or futures:
                # dask blames all jobs that wait at a killed worker, so none wait there.
                for _ in range(min(len(waiting), max(1, self.n_slots()) - len(futures))):
                    key, job = waiting.pop()
                    futures[self._submit(function, job)] = key
                done = wait(futures, timeout=_PATIENCE, return_when=FIRST_COMPLETED).done
                if not done and not is_logged and self.n_slots() == 0:
                    is_logged = True
                    log.warning("The scheduler has no workers. The series continues when there are some.")
                for future in done:
                    yield futures.pop(future), future
        finally:
            for future in futures:
                future.cancel()

    def _submit(self, function, job):
        try:
            return self.executor.submit(function, job)
        except BrokenExecutor as error:
            failed = Future()
            failed.set_exception(error)
            return failed


class SerialPool:
    """Runs jobs one after the other in this thread, while another thread prepares the next one."""

    def run(self, function, jobs, prepare=None):
        """
        Call a function for each job.

        Parameters
        ----------
        function : callable
            Called with a job and, if ``prepare`` is given, the future of its result.
        jobs : `dict`
        prepare : callable, optional
            Called with each job in another thread, one job ahead of ``function``.

        Yields
        ------
        key, future
            Key of a job and its completed `~concurrent.futures.Future`, in the order of ``jobs``.
        """
        thread, ahead, keys = background(), {}, list(jobs)
        try:
            for index, key in enumerate(keys):
                if prepare is None:
                    yield key, _called(function, jobs[key])
                    continue
                for near in keys[index : index + 2]:
                    if near not in ahead:
                        ahead[near] = thread.submit(prepare, jobs[near])
                yield key, _called(function, jobs[key], ahead[key])
                del ahead[key]
        finally:
            thread.shutdown(cancel_futures=True)


def _called(function, *args):
    """Return a completed future."""
    future = Future()
    try:
        future.set_result(function(*args))
    except Exception as error:
        future.set_exception(error)
    return future


@contextmanager
def open_pool(scheduler):
    """
    Yield the `JobPool` or `SerialPool` of a scheduler.

    Parameters
    ----------
    scheduler : `None`, `str`, `~concurrent.futures.Executor` or ``distributed.Client``
        See `invert_series`.
    """
    if scheduler is None:
        # Its threads share the warning filters, which some of astropy's functions change and restore.
        with warnings.catch_warnings():
            yield SerialPool()
    elif scheduler == "threads":
        with thread_pool() as executor:
            yield JobPool(executor, n_cores)
    elif isinstance(scheduler, Executor):
        # Executors have no public size; they queue jobs themselves.
        yield JobPool(scheduler, lambda: inf)
    else:
        with _client(scheduler) as client:
            # Not pure: a job writes a file, so that dask must not reuse the result of an equal one.
            yield JobPool(client.get_executor(pure=False), lambda: sum(client.nthreads().values()))


@contextmanager
def _client(scheduler):
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        msg = 'scheduler needs dask, which is not installed: pip install "sunpy_deepem[dask]".'
        raise ImportError(msg) from error
    if isinstance(scheduler, Client):
        yield scheduler
    elif scheduler == "processes":
        with (
            _quiet_logs(),
            LocalCluster(n_workers=n_cores(), threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
            Client(cluster) as client,
        ):
            yield client
            # Processes with torch outlast dask's timeout for shutting down, which it would log.
            logging.getLogger("distributed").setLevel(logging.ERROR)
    elif isinstance(scheduler, str) and "://" in scheduler:
        with _quiet_logs(), _connect(scheduler) as client:
            yield client
    else:
        msg = (
            "scheduler must be None, 'threads', 'processes', the address of a dask scheduler such as "
            f"'tcp://localhost:8786', an Executor or a distributed.Client, found {scheduler!r}."
        )
        raise ValueError(msg)


def _connect(address):
    from distributed import Client

    try:
        return Client(address)
    except (OSError, ValueError) as error:
        msg = f"scheduler: there is no dask scheduler at {address} ({error})."
        raise OSError(msg) from error


@contextmanager
def _quiet_logs():
    """Silence dask's start-up and shutdown logs."""
    import dask

    logger = logging.getLogger("distributed")
    level = logger.level
    logger.setLevel(logging.WARNING)
    environment = dask.config.get(_WORKER_ENVIRONMENT) | _LOG_WARNINGS_ONLY
    try:
        # Workers configure their logging when they start, so it goes through their environment.
        with dask.config.set({_WORKER_ENVIRONMENT: environment}):
            yield
    finally:
        logger.setLevel(level)
