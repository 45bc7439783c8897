"""From six maps to a cube: `invert`."""

import astropy.units as u
from astropy.time import Time

from sunpy_deepem.cube.dem_cube import DEMCube
from sunpy_deepem.methods.base import get_engine
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
    method : {"network", "basis-pursuit", "demregpy"} or callable, optional
        How to invert: by the network; by sparse inversion, which states no uncertainty; by regularised inversion, which
        needs the extra ``demregpy``; or by any `sunpy_deepem.training.Teacher`, such as
        ``BasisPursuitTeacher(tolerance=1.0, processes=8)`` to give options to a method.
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
    engine = get_engine(method, weights=weights, device=device, refine=refine, progress=progress and whole)
    observation, response = _observation_and_response(maps, response, stack_options, engine.bins)
    engine.check_response(response)
    if whole:
        stack = observation if isinstance(observation, ChannelStack) else observation.stack()
        return inverted(stack, engine, response)
    _check_streaming(observation, out, chunks)
    from sunpy_deepem.io import stream as _streaming  # it is needed for large cubes alone

    if chunks is not None:
        return _streaming.lazy_cube(observation, engine, response, chunks)
    _streaming.write_bands(observation, engine, response, out, overwrite=overwrite, progress=progress)
    return DEMCube.read(out, chunks="auto")


def inverted(stack, engine, response):
    """Return the `DEMCube` of a `ChannelStack` by one of `sunpy_deepem.methods`."""
    solution = engine.solve(stack, response)
    return DEMCube.from_arrays(
        solution.em,
        solution.em_std,
        response,
        stack.header,
        stack.inputs,
        intensity=stack.intensity,
        uncertainty=stack.uncertainty,
        quality=stack.quality | solution.quality,
        saturation=stack.saturation,
        meta=stack.meta | engine.meta | ({"unsolved": dict(solution.unsolved)} if solution.unsolved else {}),
    )


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
