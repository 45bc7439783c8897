"""From six maps to a cube: `invert`."""

from collections import Counter
from difflib import get_close_matches
from functools import partial
from inspect import signature
from time import perf_counter

import astropy.units as u
import numpy as np
from astropy.time import Time
from tqdm.auto import tqdm

from sunpy_deepem.calibrate.alignment import block_mean
from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.cube.dem_cube import DEMCube
from sunpy_deepem.cube.fit import evaluate_fit
from sunpy_deepem.cube.planes import Planes
from sunpy_deepem.io.fits import import_dask_array
from sunpy_deepem.io.stream import FitsSink, lazy_planes
from sunpy_deepem.methods.base import get_method, method_bins, method_provenance, status_name
from sunpy_deepem.quality import MASKED, Quality, image_deviation, unusual_flags
from sunpy_deepem.response.temperature_response import TemperatureResponse
from sunpy_deepem.stack.channel_stack import ChannelStack, Observation
from sunpy_deepem.units import INTENSITY_UNIT
from sunpy_deepem.utils.files import atomic_path, check_distinct, check_target, checked_path
from sunpy_deepem.utils.logger import log
from sunpy_deepem.utils.parallel import thread_map

__all__ = ["check_names", "invert", "invert_part", "read_stack"]

# Misalignment is measured on images of about this size.
_ALIGNED = 512
# Rows from which the deviations of a whole image are estimated.
_SURVEYED = 16
# Degradation does not change noticeably within this time.
_SAME_EPOCH = 1 * u.day


def invert(
    maps,
    *,
    method="network",
    weights="default",
    response: TemperatureResponse | None = None,
    device: str = "auto",
    out=None,
    overwrite: bool = False,
    chunks: int | tuple[int, int] | None = None,
    progress: bool = False,
    **stack_options,
) -> DEMCube:
    """
    Return the emission measure of the corona from six AIA maps.

    Parameters
    ----------
    maps : `~sunpy.map.MapSequence`, folder, glob pattern, iterable of maps or paths, or `ChannelStack`
        One map of each of 94, 131, 171, 193, 211 and 335 Å, in any order: full discs, or cutouts, which are cut to
        their common field.
    method : {"network", "basis-pursuit", "demregpy"}, `~sunpy_deepem.methods.Method` or callable, optional
        The network; sparse inversion, which states no uncertainty; regularized inversion, which needs the extra
        ``demregpy``; an object such as ``BasisPursuit(tolerance=1.0, processes=8)``; or a function as for
        `~sunpy_deepem.methods.FunctionMethod`.
    weights : `str`, `pathlib.Path` or `DeepEM`, optional
        ``"default"``, the path of a weights file, or a network.
    response : `TemperatureResponse`, optional
        The response, by default the packaged one, or with ``degradation="response"`` that of the date of the
        observation. For the network it must be the one of its training; other methods accept any with six channels.
    device : `str`, optional
        ``"auto"`` for a GPU if there is one, otherwise the CPU.
    out : `str` or `pathlib.Path`, optional
        A ``.fits`` file that is written band by band, in single precision, for cubes larger than memory. The returned
        cube reads from it when needed.
    overwrite : `bool`, optional
        Whether to replace an existing file ``out``.
    chunks : `int` or `tuple` of two `int`, optional
        Rows and columns of the chunks of a cube with dask arrays, which are computed when needed.
    progress : `bool`, optional
        Whether to show a progress bar.
    **stack_options
        Passed to `sunpy_deepem.stack.Observation`: ``shape`` (default 512, `None` for native pixels), ``region``,
        ``systematic`` (0.1), ``pixel_error`` (0), ``degradation`` (``"data"``), ``correction_table``, ``epoch`` (by
        default the time for which the response holds), ``max_time_span``, ...

    Returns
    -------
    `DEMCube`
        EM per bin of log T in cm^-5, with uncertainty, mask, χ² and quality. Pixels with a missing or saturated channel
        or without a solution are NaN and masked.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError
        If the maps, method, weights, response or options are invalid, or ``out`` is one of the maps.
    FileExistsError
        If the file ``out`` exists and ``overwrite`` is `False`.
    ImportError
        If the method or the chunks need a package that is not installed.

    References
    ----------
    Wright et al., "DeepEM: A Deep Learning Approach for DEM Inversion", in HelioML, https://doi.org/10.5281/zenodo.3572099

    Cheung et al. (2015), ApJ 807, 143, https://doi.org/10.1088/0004-637X/807/2/143

    Hannah & Kontar (2012), A&A 539, A146, https://doi.org/10.1051/0004-6361/201117576

    Examples
    --------
    >>> from sunpy_deepem import invert
    >>> from sunpy_deepem.sample import sample_maps
    >>> maps = sample_maps((64, 64))
    >>> dem = invert(maps)
    >>> dem.shape
    (18, 64, 64)

    The same by another method, in a part of the field:

    >>> from astropy.coordinates import SkyCoord
    >>> import astropy.units as u
    >>> corners = SkyCoord([-300, 300] * u.arcsec, [-200, 200] * u.arcsec, frame=maps[0].coordinate_frame)
    >>> invert(maps, method="basis-pursuit", region=corners).shape
    (18, 12, 16)
    """
    check_names(stack_options)
    start, in_memory = perf_counter(), out is None and chunks is None
    _check_sink(maps, out, chunks, overwrite=overwrite)
    method = _configured(method, weights, device, progress=progress and in_memory)
    observation, response = _observation_and_response(maps, response, stack_options, method_bins(method))
    _check_response(method, response)
    if chunks is not None:
        return _to_dask(observation, method, response, chunks)
    if in_memory:
        cube = _to_memory(observation, method, response)
    else:
        _to_fits(observation, method, response, out, overwrite=overwrite, progress=progress)
        cube = DEMCube.read(out, chunks="auto")
    _log_inversion(cube, perf_counter() - start)
    return cube


def read_stack(maps, *, method="network", weights="default", response=None, device="auto", **stack_options):
    """
    Do the first half of `invert`: read, calibrate, align and bin maps.

    Parameters
    ----------
    maps, method, weights, response, device, **stack_options
        As for `invert`.

    Returns
    -------
    stack : `ChannelStack`
    options : `dict`
        Method and response with which to `invert` it.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError, ImportError
        As `invert`.
    """
    check_names(stack_options)
    method = _configured(method, weights, device, progress=False)
    observation, response = _observation_and_response(maps, response, stack_options, method_bins(method))
    _check_response(method, response)
    return observation.stack(), {"method": method, "response": response}


def _log_inversion(cube, seconds):
    ny, nx = cube.shape[1:]
    log.info(
        "Inverted maps of %s: %d × %d pixels by %s in %.1f s.",
        cube.date.utc.isot[:19],
        ny,
        nx,
        cube.meta["provenance"]["method"],
        seconds,
    )


def check_names(options, function="invert"):
    """
    Raise `TypeError` for the first option that neither `invert` nor `Observation` has.

    Parameters
    ----------
    options : iterable of `str`
    function : `str`, optional
        Name of the function that got them.
    """
    known = [*signature(invert).parameters, *signature(Observation).parameters]
    for name in options:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            msg = f"{function}() got an unexpected keyword argument {name!r}.{hint}"
            raise TypeError(msg)


def invert_part(observation, method, response, rows, columns, *, deviation=None):
    """
    Calibrate and invert a part of an observation.

    Parameters
    ----------
    observation : `~sunpy_deepem.stack.Observation`
    method : `~sunpy_deepem.methods.Method`
    response : `TemperatureResponse`
    rows, columns : `slice`
        The part of the sky.
    deviation : `~numpy.ndarray`, optional
        Deviation of each channel over the whole image, see `image_deviation`; by default that of the part.

    Returns
    -------
    `~sunpy_deepem.cube.Planes`
        In single precision.
    """
    return _invert_stack(observation.part(rows, columns), method, response, deviation=deviation)


def _invert_stack(stack, method, response, *, deviation=None, dtype=np.float32):
    """Return the `Planes` of a `ChannelStack`."""
    intensity, uncertainty = _unmasked(stack)
    if stack.limit is not None and "lower_limit" in signature(method.solve).parameters:
        limits, lower_limit = stack.with_limits()
        values = np.where(stack.mask, np.float32(np.nan), limits)
        solution = method.solve(values, uncertainty, response, lower_limit=lower_limit)
    else:
        solution = method.solve(intensity, uncertainty, response)
    failed = (solution.status != 0) & ~stack.mask
    quality = stack.quality | np.where(failed, Quality.UNSOLVED, 0).astype(np.uint16)
    if solution.deviation is not None:
        if deviation is None:
            deviation = image_deviation(solution.deviation, intensity, uncertainty)
        quality |= unusual_flags(solution.deviation, deviation)
    em = np.asarray(solution.em, dtype=np.float32).astype(dtype, copy=False)
    std = None if solution.em_std is None else np.asarray(solution.em_std, dtype=np.float32)
    chi2, quality = evaluate_fit(em, stack.intensity, stack.uncertainty, response, quality)
    return Planes(
        em,
        std,
        (quality & MASKED) != 0,
        stack.intensity.to_value(INTENSITY_UNIT),
        stack.uncertainty.to_value(INTENSITY_UNIT),
        chi2,
        quality,
        stack.saturation,
        limit=None if stack.limit is None else stack.limit.to_value(INTENSITY_UNIT),
        unsolved=Counter(map(status_name, solution.status[failed].tolist())),
    )


def _unmasked(stack):
    """Return intensity and uncertainty of a stack, the former NaN where it is masked."""
    return np.where(stack.mask, np.float32(np.nan), stack.intensity.value), stack.uncertainty.value


def _survey(observation, method):
    """Return the deviation of each channel over an image, from a few of its rows; `None` if the method has none."""
    if not hasattr(method, "deviation"):
        return None
    ny, nx = observation.shape
    rows = np.unique(np.linspace(0, ny - 1, min(_SURVEYED, ny)).round().astype(int)).tolist()
    stacks = [observation.part(slice(row, row + 1), slice(0, nx)) for row in rows]
    parts = zip(*map(_unmasked, stacks), strict=True)
    pixels = [np.concatenate([part.reshape(len(part), -1) for part in each], axis=1) for each in parts]
    deviation = method.deviation(*pixels)
    return None if deviation is None else image_deviation(deviation, *pixels)


# ---------------------------------------------------------------------------------------------------------------------
# Sinks
# ---------------------------------------------------------------------------------------------------------------------


def _cube(planes, observation, method, response, **facts):
    """Return the `DEMCube` of planes; ``facts`` are added to the provenance."""
    provenance = observation.meta | method_provenance(method) | {key: value for key, value in facts.items() if value}
    return DEMCube.from_planes(planes, response, observation.header, inputs=observation.inputs, provenance=provenance)


def _to_memory(observation, method, response):
    """Return the `DEMCube` of an `Observation` or a `ChannelStack`."""
    start = perf_counter()
    stack = observation if isinstance(observation, ChannelStack) else observation.stack()
    log.debug("Calibrated, aligned and binned the maps in %.1f s.", perf_counter() - start)
    # χ² is computed in double precision, like everything that is derived from the cube.
    planes = _invert_stack(stack, method, response, dtype=np.float64)
    return _cube(planes, stack, method, response, unsolved=dict(planes.unsolved))


def _to_dask(observation, method, response, chunks):
    """Return the `DEMCube` of dask arrays of an `Observation`."""
    steps = _checked_chunks(chunks)
    part = partial(invert_part, observation, method, response, deviation=_survey(observation, method))
    return _cube(lazy_planes(part, observation.shape, steps), observation, method, response)


def _to_fits(observation, method, response, path, *, overwrite, progress):
    """Invert an `Observation` into a FITS file, band by band of rows."""
    block = min(max(1, max(observation.shape) // _ALIGNED), *observation.shape)
    bands = observation.bands(multiple=block)
    part = partial(
        invert_part,
        observation,
        method,
        response,
        columns=slice(0, observation.shape[1]),
        deviation=_survey(observation, method) if len(bands) > 1 else None,
    )
    first_row = _cube(part(slice(0, 1)), observation, method, response)
    coarse, unsolved = {}, Counter()
    workers = method.workers if hasattr(method, "workers") else partial(thread_map, limit_blas=True)
    with atomic_path(path, overwrite=overwrite) as partial_path:
        with FitsSink(partial_path, first_row, observation.shape[0]) as sink:

            def invert_band(rows):
                planes = part(rows)
                sink.write(planes, rows.start)
                means = [block_mean(np.nan_to_num(image), block) for image in planes.intensity]
                return rows.start, np.array(means, dtype=np.float32), planes.unsolved

            with workers() as map_bands:
                for start, means, failed in tqdm(map_bands(invert_band, bands), total=len(bands), disable=not progress):
                    # In this thread, while others work on the next bands, as it may wait for the disk.
                    sink.release()
                    coarse[start] = means
                    unsolved += failed
        misalignment = observation.misalignment(np.concatenate([coarse[start] for start in sorted(coarse)], axis=1))
        facts = {"misalignment": misalignment, "unsolved": dict(unsolved)}
        sink.write_tables(_cube(first_row.planes, observation, method, response, **facts))


def _checked_chunks(chunks):
    steps = (chunks, chunks) if np.ndim(chunks) == 0 else tuple(chunks)
    if len(steps) != 2 or not all(isinstance(step, int | np.integer) and step > 0 for step in steps):
        msg = f"chunks must be a positive whole number or two of them, (rows, columns), found {chunks!r}."
        raise ValueError(msg)
    return steps


# ---------------------------------------------------------------------------------------------------------------------
# Arguments
# ---------------------------------------------------------------------------------------------------------------------


def _configured(method, weights, device, *, progress):
    """Return the method of inversion with the options of `invert`."""
    given = {"weights": not _is(weights, "default"), "device": not _is(device, "auto")}
    given = [name for name, is_given in given.items() if is_given]
    if isinstance(method, str) and method == "network":
        return get_method(method, weights=weights, device=device, progress=progress)
    if given:
        name = method if isinstance(method, str) else getattr(method, "__name__", type(method).__name__)
        msg = f"{', '.join(given)} is for method='network' only, found method={name!r}. Leave it out."
        raise TypeError(msg)
    return get_method(method, **({"progress": progress} if isinstance(method, str) else {}))


def _is(value, default):
    return isinstance(value, str) and value == default


def _check_response(method, response):
    if response.channels != CHANNELS:
        msg = f"response must be that of all six channels {CHANNELS}, found {response.channels}."
        raise ValueError(msg)
    if hasattr(method, "check_response"):
        method.check_response(response)


def _observation_and_response(maps, response, options, bins):
    """Return the observation and its response; degradation is corrected in exactly one of them."""
    given = isinstance(maps, ChannelStack)
    if given and options:
        msg = f"maps is a ChannelStack already; {sorted(options)} must be given to ChannelStack.from_maps instead."
        raise TypeError(msg)
    if not isinstance(response, TemperatureResponse | None):
        msg = f"response must be a TemperatureResponse or None, found {type(response).__name__}."
        raise TypeError(msg)
    degradation = (maps.meta if given else options).get("degradation")
    by_response = isinstance(degradation, str) and degradation == "response"
    if response is None and not by_response:
        response = TemperatureResponse.default(bins=bins)
    epoch = None if response is None else response.meta.get("obstime")
    options = options if by_response else {"epoch": epoch} | options
    observation = maps if given else Observation(maps, **options)
    if response is None:
        return observation, TemperatureResponse.default(bins=bins, obstime=observation.header["date-obs"])
    _check_epoch(observation, epoch)
    return observation, response


def _check_sink(maps, out, chunks, *, overwrite):
    """Check before any work where the cube is to be."""
    if out is None and chunks is None:
        return
    if isinstance(maps, ChannelStack):
        msg = "maps is a ChannelStack, which is in memory already; out and chunks need the maps themselves."
        raise TypeError(msg)
    if out is not None and chunks is not None:
        msg = "out and chunks exclude each other. Pass one of them."
        raise TypeError(msg)
    import_dask_array()
    if chunks is not None:
        _checked_chunks(chunks)
        return
    if not checked_path(out, "out").name.lower().endswith(".fits"):
        msg = f"out must end in .fits, found {out}. Other formats are written by DEMCube.write."
        raise ValueError(msg)
    check_distinct(out, maps)
    check_target(out, overwrite=overwrite)


def _check_epoch(observation, epoch):
    """Raise if degradation is corrected twice or not at all."""
    how, corrected_to = observation.meta.get("degradation"), observation.meta.get("epoch")
    if how == "data" and corrected_to != epoch:
        msg = (
            f"The intensities are corrected for degradation to {corrected_to or 'launch'}, but response holds for "
            f"{epoch or 'launch'}. Pass epoch={epoch!r} to ChannelStack.from_maps, or another response."
        )
        raise ValueError(msg)
    if how != "response":
        return
    observed = Time(observation.header["date-obs"])
    if epoch is None or abs(Time(epoch) - observed) > _SAME_EPOCH:
        msg = (
            f"With degradation='response' the intensities are not corrected, but response holds for "
            f"{epoch or 'launch'}, not for the observation of {observed.isot}. Pass "
            f"TemperatureResponse.default(obstime={observed.isot!r})."
        )
        raise ValueError(msg)
