"""From six maps to a cube: `invert`."""

from collections import Counter

import astropy.units as u
import numpy as np
from astropy.time import Time

from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.cube.dem_cube import DEMCube
from sunpy_deepem.methods.base import get_method, method_bins, method_provenance, status_name
from sunpy_deepem.quality import Quality, image_deviation, unusual_flags
from sunpy_deepem.response.temperature_response import TemperatureResponse
from sunpy_deepem.stack.channel_stack import ChannelStack, Observation

__all__ = ["invert"]

# Degradation does not change noticeably within this time.
_SAME_EPOCH = 1 * u.day


def invert(
    maps,
    *,
    method="network",
    weights="default",
    response: TemperatureResponse | None = None,
    device: str = "auto",
    refine: int | None = None,
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
    maps : `~sunpy.map.MapSequence`, path of a folder, iterable of `~sunpy.map.GenericMap` or paths, or `ChannelStack`
        One map of each of 94, 131, 171, 193, 211 and 335 Å, in any order: full discs, or cutouts, of which the common
        field is taken.
    method : {"network", "basis-pursuit", "demregpy"}, `~sunpy_deepem.methods.Method` or callable, optional
        The network; sparse inversion, which states no uncertainty; regularized inversion, which needs the extra
        ``demregpy``; an object such as ``BasisPursuit(tolerance=1.0, processes=8)``; or a function as for
        `~sunpy_deepem.methods.FunctionMethod`.
    weights : `str`, `pathlib.Path` or `DeepEM`, optional
        ``"default"``, the path of a weights file, or a network.
    response : `TemperatureResponse`, optional
        The response that the network was trained for, by default the packaged one; with ``degradation="response"`` that
        of the date of the observation. Other methods take any that has the six channels.
    device : `str`, optional
        ``"auto"`` for a GPU where there is one, else the CPU.
    refine : `int`, optional
        The most updates by which `sunpy_deepem.network.refine` may move the network's answer towards what was
        observed; zero leaves it as it is. If given, ``response`` may differ from the network's own.
    out : `str` or `pathlib.Path`, optional
        A ``.fits`` file to write band by band, in single precision, so that the cube need not fit in memory. The cube
        returned is read from it as it is needed.
    overwrite : `bool`, optional
        Whether ``out`` may be replaced.
    chunks : `int` or `tuple` of two `int`, optional
        Rows and columns of the chunks of a cube that is computed as it is needed, and of which the arrays are dask's.
    progress : `bool`, optional
        Whether to show a progress bar.
    **stack_options
        Passed to `sunpy_deepem.stack.Observation`: ``shape`` (default 512, `None` for native pixels), ``region``,
        ``systematic`` (0.1), ``degradation`` (``"data"``), ``correction_table``, ``epoch`` (by default the time for
        which the response holds), ``max_time_span``, ...

    Returns
    -------
    `DEMCube`
        EM per bin of log T in cm^-5, with uncertainty, mask, χ² and quality. Pixels that miss a channel, are saturated
        or have no solution are NaN and masked.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError
        If the maps, method, weights, response or options do not fit; the message says what was found and expected.
    FileExistsError
        If there is a file ``out`` and ``overwrite`` is `False`.
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
    whole = out is None and chunks is None
    method = _configured(method, weights, device, refine, progress=progress and whole)
    observation, response = _observation_and_response(maps, response, stack_options, method_bins(method))
    _check_response(method, response)
    if whole:
        stack = observation if isinstance(observation, ChannelStack) else observation.stack()
        return _inverted(stack, method, response)
    _check_streaming(observation, out, chunks)
    from sunpy_deepem.io import stream as _streaming  # it is needed for large cubes alone

    if chunks is not None:
        return _streaming.lazy_cube(observation, method, response, chunks)
    _streaming.write_bands(observation, method, response, out, overwrite=overwrite, progress=progress)
    return DEMCube.read(out, chunks="auto")


def _inverted(stack, method, response):
    """Return the `DEMCube` of a `ChannelStack`."""
    em, em_std, quality, unsolved = solve_stack(stack, method, response)
    return DEMCube.from_arrays(
        em,
        em_std,
        response,
        stack.header,
        stack.inputs,
        intensity=stack.intensity,
        uncertainty=stack.uncertainty,
        quality=quality,
        saturation=stack.saturation,
        meta=stack.meta | method_provenance(method) | ({"unsolved": dict(unsolved)} if unsolved else {}),
    )


def solve_stack(stack, method, response, deviation_of_image=None):
    """
    Invert a `ChannelStack`.

    Parameters
    ----------
    stack : `ChannelStack`
    method : `Method`
    response : `TemperatureResponse`
    deviation_of_image : `~numpy.ndarray`, optional
        As of `survey`, if the stack is a part of an image.

    Returns
    -------
    em, em_std : `~numpy.ndarray`
        In cm^-5, `~numpy.float32`; the latter may be `None`.
    quality : `~numpy.ndarray`
        Flags of the stack, UNSOLVED and UNUSUAL.
    unsolved : `~collections.Counter`
        Number of unsolved pixels by the name of their status.
    """
    intensity, uncertainty = _unmasked(stack)
    solution = method.solve(intensity, uncertainty, response)
    failed = (solution.status != 0) & ~stack.mask
    quality = stack.quality | np.where(failed, Quality.UNSOLVED, 0).astype(np.uint16)
    if solution.deviation is not None:
        if deviation_of_image is None:
            deviation_of_image = image_deviation(solution.deviation, intensity, uncertainty)
        quality |= unusual_flags(solution.deviation, deviation_of_image)
    em, em_std = (
        None if values is None else np.asarray(values, dtype=np.float32) for values in (solution.em, solution.em_std)
    )
    return em, em_std, quality, Counter(map(status_name, solution.status[failed].tolist()))


def survey(stacks, method):
    """Return the deviation of each channel over an image, from a few parts of it, or `None` if a method has none."""
    if not hasattr(method, "deviation"):
        return None
    parts = zip(*map(_unmasked, stacks), strict=True)
    pixels = [np.concatenate([part.reshape(len(part), -1) for part in each], axis=1) for each in parts]
    deviation = method.deviation(*pixels)
    return None if deviation is None else image_deviation(deviation, *pixels)


def _unmasked(stack):
    """Return intensity and uncertainty of a stack, the former NaN where it is masked."""
    return np.where(stack.mask, np.float32(np.nan), stack.intensity.value), stack.uncertainty.value


def _configured(method, weights, device, refine, *, progress):
    """Return the method of inversion with the options of `invert`."""
    given = {"weights": not _is(weights, "default"), "device": not _is(device, "auto"), "refine": refine is not None}
    given = [name for name, is_given in given.items() if is_given]
    if isinstance(method, str) and method == "network":
        return get_method(method, weights=weights, device=device, refine=refine, progress=progress)
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
    """Return what is observed and the response that holds for it: degradation is corrected in one of the two, once."""
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


def _check_streaming(observation, out, chunks):
    if isinstance(observation, ChannelStack):
        msg = "maps is a ChannelStack, which is in memory already; out and chunks need the maps themselves."
        raise TypeError(msg)
    if out is not None and chunks is not None:
        msg = "out and chunks are two ways to the same end. Pass one of them."
        raise TypeError(msg)


def _check_epoch(observation, epoch):
    """Raise if degradation is corrected twice, or not at all."""
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
