"""What a series is made of: one job for each set of six channels, and where the jobs run."""

import hashlib
import json
import logging
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from inspect import Parameter, signature
from pathlib import Path
from threading import Lock

import astropy.units as u
import numpy as np
from astropy.time import Time
from sunpy.map import GenericMap

from sunpy_deepem.cube.dem_cube import DEMCube
from sunpy_deepem.inversion import invert
from sunpy_deepem.response.temperature_response import TemperatureResponse
from sunpy_deepem.series.grouping import describe
from sunpy_deepem.stack.channel_stack import Observation

__all__ = ["Job", "SetResult", "check", "make", "make_jobs", "names", "runner"]

# Options that say where and how to compute, but not what.
_HOW = ("chunks", "device", "out", "overwrite", "progress")
_WORKERS_ENVIRONMENT = "distributed.nanny.pre-spawn-environ"
_WARNINGS_ONLY = {"DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "warning"}
# Checking a file changes Python's warning filters for a moment, which are the same for all threads.
_CHECKING = Lock()


@dataclass(frozen=True, eq=False)
class SetResult:
    """
    What became of a set of six channels.

    Attributes
    ----------
    status : {"done", "skipped", "failed"}
        Whether it was inverted, was there already, or could not be inverted.
    time : `~astropy.time.Time` or `None`
        As of the `ChannelSet`.
    inputs : `tuple` of `str`
        Its files, or what its maps are of.
    path : `pathlib.Path` or `None`
        The file that holds its cube.
    reason : `str` or `None`
        Why it failed.
    """

    status: str
    time: Time | None
    inputs: tuple
    path: Path | None = None
    reason: str | None = None


def names(sources):
    """Return the names of maps or files."""
    return tuple(describe(item) if isinstance(item, GenericMap) else str(item) for item in sources)


@dataclass(frozen=True, eq=False)
class Job:
    """A set, what to do with it, and the record by which its file is known again."""

    time: Time
    sources: tuple
    options: dict
    record: dict
    path: Path | None

    def done(self, status):
        """Return the result of a set that was inverted or skipped."""
        return SetResult(status, self.time, names(self.sources), self.path)

    def failed(self, reason):
        """Return the result of a set that could not be inverted."""
        return SetResult("failed", self.time, names(self.sources), reason=reason)


def make_jobs(sets, folder, options):
    """Return a job for each complete set."""
    options = _portable(options)
    recipe = _recipe(options)
    jobs = []
    for each in sets.complete:
        # Workers may stand in another folder.
        sources = tuple(item if isinstance(item, GenericMap) else item.absolute() for item in each.sources)
        record = {"inputs": [_identity(item) for item in sources], "options": recipe}
        name = f"deepem_{each.time.utc.isot[:19].replace(':', '')}.fits"
        jobs.append(Job(each.time, sources, options, record, None if folder is None else folder / name))
    return jobs


def check(job):
    """Return the result of a set whose file is there; `None` where it is damaged and has to be made again."""
    try:
        with _CHECKING:
            made = DEMCube.read(job.path).meta["provenance"].get("series", {})
    except (ValueError, OSError):
        return None, None
    if made == job.record:
        return job.done("skipped"), None
    differ = [name for name in ("inputs", "options") if made.get(name) != job.record[name]]
    if differ == ["options"]:
        then, now = made["options"], job.record["options"]
        differ = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
    reason = (
        f"{job.path.name} is there, made with other {', '.join(differ)}. Pass overwrite=True to replace it, or write "
        "to another folder."
    )
    return job.failed(reason), None


def make(job):
    """Invert a set; return its result, and its cube unless that is written to a file."""
    try:
        cube = invert(list(job.sources), **_with_network(job))
        cube.meta["provenance"]["series"] = job.record
        if job.path is None:
            return job.done("done"), cube
        cube.write(job.path, overwrite=True)
        return job.done("done"), None
    except Exception as error:  # Whatever is wrong with one set, the others go on
        return job.failed(_reason(error)), None


def _reason(error):
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _with_network(job):
    """Return the options with the network in place of the name of its weights, read once in each process."""
    weights = job.options.get("weights", "default")
    if not (_uses_network(job.options) and isinstance(weights, str | Path)):
        return job.options
    return job.options | {"weights": _network(weights, job.record["options"]["weights"])}


@lru_cache(maxsize=2)
def _network(weights, expected):
    from sunpy_deepem.network.model import DeepEM

    network = DeepEM.load(weights)
    if expected != (found := _fingerprint(network)):
        msg = f"the weights {weights} are others here ({found}) than where the series was started ({expected})."
        raise ValueError(msg)
    return network


def _fingerprint(network):
    digest = hashlib.sha256()
    for name, tensor in network.module.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
    return f"sha256:{digest.hexdigest()[:16]}"


def _uses_network(options):
    return options.get("method", "network") == "network"


def _portable(options):
    """Return the options with the path of weights absolute, as workers may stand in another folder."""
    weights = options.get("weights", "default")
    if isinstance(weights, str | Path) and str(weights) != "default":
        return options | {"weights": Path(weights).absolute()}
    return options


def _recipe(options):
    """Return all options that decide on the cube, also those left at their default, as JSON has them."""
    defaults = {
        name: parameter.default
        for function in (Observation, invert)
        for name, parameter in signature(function).parameters.items()
        if parameter.default is not Parameter.empty
    }
    recipe = {name: value for name, value in (defaults | options).items() if name not in _HOW}
    if _uses_network(options):
        from sunpy_deepem.network.model import DeepEM

        weights = options.get("weights", "default")
        recipe["weights"] = _fingerprint(weights if isinstance(weights, DeepEM) else DeepEM.load(weights))
    return json.loads(json.dumps(recipe, default=_plain, sort_keys=True))


def _plain(value):
    """Return what tells a value from others, for JSON."""
    if isinstance(value, TemperatureResponse):
        return value.fingerprint
    if isinstance(value, np.ndarray) and not isinstance(value, u.Quantity):
        return f"sha256:{hashlib.sha256(value.tobytes()).hexdigest()[:16]} {value.shape}"
    if callable(value):
        return f"{value.__module__}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    return str(value)


def _identity(item):
    """Return what tells an input from others, without reading its data where it is a file."""
    if isinstance(item, GenericMap):
        return {"map": describe(item), "sha256": hashlib.sha256(np.ascontiguousarray(item.data)).hexdigest()}
    about = item.stat()
    return {"file": item.name, "bytes": about.st_size, "modified": about.st_mtime_ns}


# ---------------------------------------------------------------------------------------------------------------------
# Where it runs
# ---------------------------------------------------------------------------------------------------------------------


@contextmanager
def runner(scheduler):
    """Give what calls a function on each of the jobs, ``{index: job}``, and yields ``(index, (result, cube))``."""
    if scheduler is None:
        yield lambda function, jobs: ((index, function(job)) for index, job in jobs.items())
        return
    with _client(scheduler) as client:
        yield lambda function, jobs: _on_cluster(client, function, jobs)


def _on_cluster(client, function, jobs):
    from distributed import as_completed

    waiting, futures, completed = list(reversed(jobs.items())), {}, as_completed()
    try:
        while waiting or futures:
            # As many as can run at once: where a set kills its worker, dask suspects all that wait there, too.
            for _ in range(min(len(waiting), max(1, sum(client.nthreads().values())) - len(futures))):
                index, job = waiting.pop()
                future = client.submit(function, job, pure=False)
                futures[future] = index
                completed.add(future)
            future = next(completed)
            index, error = futures.pop(future), future.exception()
            # A job whose worker died is given to another; what reaches us is that it went on dying.
            yield index, future.result() if error is None else (jobs[index].failed(_reason(error)), None)
    finally:
        client.cancel(list(futures))


@contextmanager
def _client(scheduler):
    try:
        from dask.system import CPU_COUNT
        from distributed import Client, LocalCluster
    except ImportError as error:
        msg = 'scheduler needs dask, which is not installed: pip install "sunpy_deepem[dask]".'
        raise ImportError(msg) from error
    if isinstance(scheduler, Client):
        yield scheduler
    elif scheduler in ("threads", "processes"):
        many = scheduler == "processes"
        size = {"n_workers": CPU_COUNT if many else 1, "threads_per_worker": 1 if many else CPU_COUNT}
        with (
            _quiet(),
            LocalCluster(processes=many, dashboard_address="127.0.0.1:0", **size) as cluster,
            Client(cluster) as client,
        ):
            yield client
            # The work is done, and a process that has torch takes longer to end than dask waits before it tells of it.
            logging.getLogger("distributed").setLevel(logging.ERROR)
    elif isinstance(scheduler, str) and "://" in scheduler:
        with _quiet(), _connected(scheduler) as client:
            yield client
    else:
        msg = (
            "scheduler must be None, 'threads', 'processes', the address of a dask scheduler such as "
            f"'tcp://localhost:8786', or a distributed.Client, found {scheduler!r}."
        )
        raise ValueError(msg)


def _connected(address):
    from distributed import Client

    try:
        return Client(address)
    except (OSError, ValueError) as error:
        msg = f"scheduler: there is no dask scheduler at {address} ({error})."
        raise OSError(msg) from error


@contextmanager
def _quiet():
    """Hold back what dask says of its comings and goings, which other packages' logging would let through."""
    import dask

    logger = logging.getLogger("distributed")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        # Of workers as well, which set up their logging before anything can be told to them otherwise.
        with dask.config.set({_WORKERS_ENVIRONMENT: dask.config.get(_WORKERS_ENVIRONMENT) | _WARNINGS_ONLY}):
            yield
    finally:
        logger.setLevel(level)
