"""The methods that `sunpy_deepem.invert` offers, behind one call: `get_engine`."""

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.quality import Quality, image_deviation, unusual_flags
from sunpy_deepem.temperature import LogTBins
from sunpy_deepem.utils.checks import whole_number

__all__ = ["METHODS", "NetworkEngine", "Solution", "SolverEngine", "get_engine"]

#: Methods that are known by name.
METHODS = ("network", "basis-pursuit", "demregpy")


class Solution(NamedTuple):
    """What an engine finds."""

    #: EM per bin in cm^-5, `~numpy.float32`, shape ``(number of bins, ny, nx)``; NaN where there is none.
    em: np.ndarray
    #: Its standard deviation, of the same shape, or `None` if the method states none.
    em_std: np.ndarray | None
    #: `Quality` flags that the engine adds, shape ``(ny, nx)``.
    quality: np.ndarray
    #: How many pixels there are of each status that is no success, by its name.
    unsolved: Counter


class NetworkEngine:
    """
    A network, and the refinement of what it answers.

    Parameters
    ----------
    network : `DeepEM`
    device : `str`, optional
        As for `DeepEM.predict`.
    refine : `int`, optional
        The most updates of `sunpy_deepem.network.refine`, by default as many as that asks for.
    progress : `bool`, optional
        Whether to show a progress bar.
    """

    def __init__(self, network, *, device="auto", refine=None, progress=False):
        from sunpy_deepem.network.refinement import UPDATES  # torch is imported when it is needed

        self.network, self.device, self.progress = network, device, progress
        self.exact = not refine
        self.updates = UPDATES if refine is None else whole_number(refine, "refine", least=0)
        self.bins = network.bins
        # The losses of each epoch are found with the weights.
        origin = {key: value for key, value in network.meta.items() if key != "history"}
        self.meta = {"method": "network", "network": origin, "refine": self.updates}
        self.states_std = network.module.has_spread
        self._of_image = None

    def check_response(self, response):
        """Raise `ValueError` unless ``response`` is the one for which the network was trained, or may be another."""
        self.network.check_response(response, exact=self.exact)

    def survey(self, stacks):
        """Learn from a few parts of an image, each a `ChannelStack`, what is to be said of all of it."""
        pairs = [(_valid(stack), stack.uncertainty.value) for stack in stacks]
        pixels = [
            np.concatenate([part.reshape(len(CHANNELS), -1) for part in parts], axis=1)
            for parts in zip(*pairs, strict=True)
        ]
        deviation = self.network.deviation(*pixels)
        self._of_image = None if deviation is None else image_deviation(deviation, *pixels)

    def workers(self):
        """Give, as a context, a ``map`` that solves several parts at once."""
        return self.network.workers(self.device)

    def solve(self, stack, response):
        """Return the `Solution` of the valid pixels of a `ChannelStack`: of an image, or of a part after a `survey`."""
        from sunpy_deepem.network.refinement import refine
        from sunpy_deepem.network.tiles import resolve_device, to_tensor

        device = resolve_device(self.device)
        observed = _valid(stack), stack.uncertainty.value
        # They go to the device of the network once, and what is found there comes back once.
        intensity, uncertainty = (to_tensor(values, device) for values in observed)
        em, em_std = self.network.predict(intensity, uncertainty, progress=self.progress)
        deviation = self.network.deviation(intensity, uncertainty)
        refine(em, intensity, uncertainty, response.matrix.value, em_std=em_std, updates=self.updates, out=em)
        em, em_std, deviation = (None if values is None else values.cpu().numpy() for values in (em, em_std, deviation))
        return Solution(em, em_std, self._unusual(deviation, *observed), Counter())

    def _unusual(self, deviation, intensity, uncertainty):
        if deviation is None:
            return np.zeros(intensity.shape[1:], dtype=np.uint16)
        of_image = self._of_image
        if of_image is None:
            of_image = image_deviation(deviation, intensity, uncertainty)
        return unusual_flags(deviation, of_image)


class SolverEngine:
    """
    A method that solves each pixel by itself.

    Parameters
    ----------
    solver : `sunpy_deepem.training.Teacher`
        Called as ``solver(intensity, uncertainty, response)``, it returns ``(em, status)``. One that has a method
        ``with_uncertainty``, called alike, is asked for ``(em, status, em_std)``.
    name : `str`
        What to call it in the provenance.
    """

    bins = LogTBins()

    def __init__(self, solver, name):
        self.solver = solver
        self.states_std = hasattr(solver, "with_uncertainty")
        self.meta = {"method": name}

    def check_response(self, response):
        """Raise `ValueError` unless ``response`` has all six channels."""
        if response.channels != CHANNELS:
            msg = f"response must be that of all six channels {CHANNELS}, found {response.channels}."
            raise ValueError(msg)

    def survey(self, stacks):
        """Do nothing: each pixel is judged by itself."""

    @contextmanager
    def workers(self):
        """Give, as a context, a ``map`` that solves several parts at once."""
        with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
            yield pool.map

    def solve(self, stack, response):
        """Return the `Solution` of the valid pixels of a `ChannelStack`; those without one are flagged UNSOLVED."""
        from sunpy_deepem.methods.teachers import run_solver  # its linear programs are imported when they are needed

        valid = ~stack.mask
        pixels = (array.value[:, valid] for array in (stack.intensity, stack.uncertainty))
        found, status, found_std = run_solver(self.solver, *pixels, response)
        failed = status != 0

        def on_sky(values):
            image = np.full((len(response.bins), *valid.shape), np.nan, dtype=np.float32)
            image[:, valid] = np.where(failed, np.nan, values)
            return image

        quality = np.zeros(valid.shape, dtype=np.uint16)
        quality[valid] = np.where(failed, Quality.UNSOLVED, 0)
        em_std = None if found_std is None else on_sky(found_std)
        return Solution(on_sky(found), em_std, quality, Counter(map(_status_name, status[failed].tolist())))


def _status_name(status):
    from sunpy_deepem.methods.basis_pursuit import SolveStatus

    return SolveStatus(status).name if status in list(SolveStatus) else str(status)


def get_engine(method, *, weights="default", device="auto", refine=None, progress=False):
    """
    Return the engine of a method.

    Parameters
    ----------
    method : `str` or callable
        One of `METHODS`, or a solver as `SolverEngine` takes it.
    weights, device, refine, progress
        As for `sunpy_deepem.invert`.

    Returns
    -------
    `NetworkEngine` or `SolverEngine`

    Raises
    ------
    TypeError
        If an option is of the network and the method another.
    ValueError
        If there is no such method.

    Examples
    --------
    >>> from sunpy_deepem.methods import get_engine
    >>> get_engine("basis-pursuit").meta
    {'method': 'basis-pursuit'}
    """
    if method == "network":
        from sunpy_deepem.network.model import DeepEM  # torch is imported when it is needed

        network = weights if isinstance(weights, DeepEM) else DeepEM.load(weights)
        return NetworkEngine(network, device=device, refine=refine, progress=progress)
    given = {"weights": not _is(weights, "default"), "device": not _is(device, "auto"), "refine": refine is not None}
    if foreign := [name for name, is_given in given.items() if is_given]:
        msg = f"{', '.join(foreign)} is for method='network' only, found method={_name(method)!r}. Leave it out."
        raise TypeError(msg)
    return SolverEngine(_solver(method, progress), _name(method))


def _solver(method, progress):
    if callable(method) and not isinstance(method, type):
        return method
    from sunpy_deepem.methods.teachers import BasisPursuitTeacher, DemregTeacher

    by_name = {"basis-pursuit": BasisPursuitTeacher, "demregpy": DemregTeacher}
    if not isinstance(method, str) or method not in by_name:
        msg = (
            f"method must be one of {', '.join(map(repr, METHODS))}, or a callable that takes intensity, "
            f"uncertainty and response and returns (em, status), found {method!r}."
        )
        raise ValueError(msg)
    return by_name[method](progress=progress)


def _name(method):
    return method if isinstance(method, str) else getattr(method, "__name__", type(method).__name__)


def _is(value, default):
    return isinstance(value, str) and value == default


def _valid(stack):
    """Return the intensities of a stack, NaN where it is masked."""
    return np.where(stack.mask, np.float32(np.nan), stack.intensity.value)
