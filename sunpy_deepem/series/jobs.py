"""Jobs of a series: the inversion of one set of six channels and the record of its inputs and options."""

import hashlib
import json
from dataclasses import dataclass, field
from functools import lru_cache
from inspect import Parameter, signature
from pathlib import Path
from threading import Lock

import astropy.units as u
import numpy as np
from astropy.time import Time
from sunpy.map import GenericMap

from sunpy_deepem.inversion import invert, read_stack
from sunpy_deepem.io.fits import read_provenance
from sunpy_deepem.response.temperature_response import TemperatureResponse
from sunpy_deepem.series.archives import write_to_archive
from sunpy_deepem.series.grouping import describe
from sunpy_deepem.series.report import SetResult, input_names
from sunpy_deepem.stack.channel_stack import Observation
from sunpy_deepem.utils.files import cube_name, is_archive
from sunpy_deepem.utils.logger import log

__all__ = ["Job", "check_file", "error_reason", "invert_set", "make_jobs", "read_set"]

# Options without influence on the result.
_NOT_RECORDED = ("chunks", "device", "out", "overwrite", "progress")
# Reading a file changes the warning filters, which all threads share.
_READ_LOCK = Lock()


@dataclass(frozen=True, eq=False)
class Job:
    """
    Inversion of one set.

    Attributes
    ----------
    time : `~astropy.time.Time`
    sources : `tuple`
        Six maps or paths.
    options : `dict`
        Options of `invert`.
    record : `dict`
        Identity of inputs and options, stored in the file to recognize it.
    path : `pathlib.Path` or `None`
        File or archive to write.
    log_level : `int`
        Level of the package's logger in the process that made the job, for those that run it.
    """

    time: Time
    sources: tuple
    options: dict
    record: dict
    path: Path | None
    log_level: int = field(default_factory=lambda: log.level)

    def done(self, status):
        """Return the result of a set that was inverted or skipped."""
        return SetResult(status, self.time, input_names(self.sources), self.path)

    def failed(self, reason):
        """Return the result of a set that could not be inverted."""
        return SetResult("failed", self.time, input_names(self.sources), reason=reason)

    def compared(self, made):
        """Return the result of a set whose cube exists, by the record that is stored with the cube."""
        if made == self.record:
            return self.done("skipped")
        differ = [name for name in ("inputs", "options") if made.get(name) != self.record[name]]
        if differ == ["options"]:
            then, now = made["options"], self.record["options"]
            differ = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
        found, other = (self.path.name, "folder") if not is_archive(self.path) else ("This time", "archive")
        return self.failed(
            f"{found} exists, made with other {', '.join(differ)}. Pass overwrite=True to replace it, or write to "
            f"another {other}."
        )


def make_jobs(sets, target, options):
    """
    Return the jobs of the complete sets.

    Parameters
    ----------
    sets : `ChannelSets`
    target : `pathlib.Path` or `None`
        Folder or archive to write to.
    options : `dict`
        Options of `invert`.

    Returns
    -------
    `list` of `Job`
    """
    options = _portable(options)
    recipe = _recipe(options)
    jobs = []
    for each in sets.complete:
        # Workers may have another working directory.
        sources = tuple(item if isinstance(item, GenericMap) else item.absolute() for item in each.sources)
        record = {"inputs": [_identity(item) for item in sources], "options": recipe}
        path = target if target is None or is_archive(target) else target / cube_name(each.time)
        jobs.append(Job(each.time, sources, options, record, path))
    return jobs


def check_file(job):
    """Return the result of a job whose file exists, and `None` for its cube; two `None` if the file is damaged."""
    try:
        with _READ_LOCK:
            made = read_provenance(job.path).get("series", {})
    except (ValueError, OSError, LookupError, TypeError):
        return None, None
    return job.compared(made), None


def read_set(job):
    """Return the arguments of `invert` for a set: its calibrated maps, and options."""
    log.setLevel(job.log_level)
    options = _with_network(job)
    if options.get("chunks") is not None:  # maps are read when chunks are computed
        return list(job.sources), options
    return read_stack(list(job.sources), **{name: value for name, value in options.items() if name != "chunks"})


def invert_set(job, ahead=None):
    """
    Invert a set and return its result, and its cube unless it was written to a file or archive.

    Parameters
    ----------
    job : `Job`
    ahead : `~concurrent.futures.Future`, optional
        Future of `read_set`; by default the maps are read now.
    """
    log.setLevel(job.log_level)
    try:
        maps, options = read_set(job) if ahead is None else ahead.result()
        cube = invert(maps, **options)
        cube.meta["provenance"]["series"] = job.record
        if job.path is None:
            return job.done("done"), cube
        if is_archive(job.path):
            write_to_archive(job.path, cube, job.time)
        else:
            cube.write(job.path, overwrite=True)
        return job.done("done"), None
    except Exception as error:  # one bad set must not stop the others
        return job.failed(error_reason(error)), None


def error_reason(error):
    """Return type and message of an error on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _with_network(job):
    """Return the options with the weights loaded, once per process."""
    weights = job.options.get("weights", "default")
    if not (_uses_network(job.options) and isinstance(weights, str | Path)):
        return job.options
    return job.options | {"weights": _network(weights, job.record["options"]["weights"])}


@lru_cache(maxsize=2)
def _network(weights, expected):
    from sunpy_deepem.network.model import DeepEM

    network = DeepEM.load(weights)
    if expected != (found := _fingerprint(network)):
        msg = f"the weights {weights} differ from those of the process that started the series ({found}, {expected})."
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
    """Return the options with an absolute path of the weights, as workers may have another working directory."""
    weights = options.get("weights", "default")
    from sunpy_deepem.network.weights import PACKAGED

    if isinstance(weights, str | Path) and str(weights) not in PACKAGED:
        return options | {"weights": Path(weights).absolute()}
    return options


def _recipe(options):
    """Return all options that influence the cube, including defaults, as they are read back from JSON."""
    defaults = {
        name: parameter.default
        for function in (Observation, invert)
        for name, parameter in signature(function).parameters.items()
        if parameter.default is not Parameter.empty
    }
    recipe = {name: value for name, value in (defaults | options).items() if name not in _NOT_RECORDED}
    if _uses_network(options):
        from sunpy_deepem.network.model import DeepEM

        weights = options.get("weights", "default")
        recipe["weights"] = _fingerprint(weights if isinstance(weights, DeepEM) else DeepEM.load(weights))
    return json.loads(json.dumps(recipe, default=_identify, sort_keys=True))


def _identify(value):
    """Return a JSON value that identifies an option."""
    if isinstance(value, TemperatureResponse):
        return value.fingerprint
    if isinstance(value, np.ndarray) and not isinstance(value, u.Quantity):
        return f"sha256:{hashlib.sha256(value.tobytes()).hexdigest()[:16]} {value.shape}"
    if callable(value):
        return f"{value.__module__}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    return str(value)


def _identity(item):
    """Return a `dict` that identifies an input, without reading the data of files."""
    if isinstance(item, GenericMap):
        return {"map": describe(item), "sha256": hashlib.sha256(np.ascontiguousarray(item.data)).hexdigest()}
    about = item.stat()
    return {"file": item.name, "bytes": about.st_size, "modified": about.st_mtime_ns}
