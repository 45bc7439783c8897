"""Preparation of level 1 maps: `prepare`."""

from collections.abc import Iterable

import numpy as np
from aiapy import calibrate
from astropy.table import Table
from sunpy.map import GenericMap, Map, MapSequence, contains_full_disk
from sunpy.map.sources import AIAMap

from sunpy_deepem.utils.compat import get_pointing_table
from sunpy_deepem.utils.messages import warn_user

__all__ = ["prepare"]

_NATIVE_SHAPE = (4096, 4096)


def prepare(
    maps,
    *,
    pointing: bool | str | Table = False,
    spikes: bool | str = False,
    psf=False,
    register: bool = False,
) -> list[AIAMap]:
    """
    Prepare level 1 AIA maps: pointing, spikes, point spread function, registration, in aiapy's order.

    `ChannelStack.from_maps`, and so `sunpy_deepem.invert`, does the remaining steps: registration, degradation and
    exposure. It finds saturated pixels before registration and estimates noise before the other steps. Level 1.5 maps
    are returned unchanged, with a warning if a requested step needs level 1.

    Parameters
    ----------
    maps : iterable of `~sunpy.map.sources.AIAMap`
        Any number of maps.
    pointing : `bool`, ``"lmsal"``, ``"jsoc"`` or `~astropy.table.Table`, optional
        Update the pointing from the master pointing table. `True` downloads LMSAL's table.
    spikes : `bool` or ``"mask"``, optional
        `True` restores the pixels that the pipeline replaced as cosmic rays. Use it in flares, whose bright kernels the
        pipeline may take for cosmic rays. ``"mask"`` masks these pixels instead, so that an inversion leaves the
        channel out there. Both download the spikes of each map from the JSOC.
    psf : `bool` or `dict`, optional
        Deconvolve the point spread function, or those given as ``{channel: array}``. Needs 4096² maps, and minutes
        per map on a CPU.
    register : `bool`, optional
        Register full disks to level 1.5, for uses other than `sunpy_deepem.invert`, which could no longer find all
        saturated pixels.

    Returns
    -------
    `list` of `~sunpy.map.sources.AIAMap`
        In the order of ``maps``.

    Raises
    ------
    ConnectionError
        If a download fails; the message names an alternative.
    TypeError
        If ``maps`` contains anything but AIA maps.
    ValueError
        If an option is invalid, or a map's size does not suit a step.

    See Also
    --------
    aiapy.calibrate.update_pointing, aiapy.calibrate.respike, aiapy.psf.deconvolve, aiapy.calibrate.register
    """
    maps = [maps] if isinstance(maps, GenericMap) else maps
    maps = maps.maps if isinstance(maps, MapSequence) else maps
    if not isinstance(maps, Iterable):
        msg = f"maps must be AIA maps, found {type(maps).__name__}. Read files with sunpy.map.Map first."
        raise TypeError(msg)
    maps = list(maps)
    for smap in maps:
        if not isinstance(smap, AIAMap):
            msg = f"maps must contain AIA maps, found {type(smap).__name__}. Read files with sunpy.map.Map first."
            raise TypeError(msg)
    _check_spikes(spikes, register)
    steps = {"pointing": pointing is not False, "spikes": bool(spikes), "psf": psf is not False}
    table = _pointing_table(pointing, maps) if maps and steps["pointing"] else None
    return [_prepare_one(smap, table, spikes, psf, register, steps) for smap in maps]


def is_level_1(smap):
    """Whether a map is below level 1.5."""
    return smap.processing_level is not None and float(smap.processing_level) < 1.5


def _prepare_one(smap, pointing_table, spikes, psf, to_register, steps):
    channel = round(smap.wavelength.to_value("angstrom"))
    if not is_level_1(smap):
        if skipped := [name for name, requested in steps.items() if requested]:
            warn_user(f"The {channel} Å map is level {smap.processing_level}; skipping {', '.join(skipped)}.")
        return smap
    if steps["pointing"]:
        smap = calibrate.update_pointing(smap, pointing_table=pointing_table)
    if spikes:
        found = _downloaded(lambda: calibrate.fetch_spikes(smap), "spikes=False")
    if spikes is True:
        smap = calibrate.respike(smap, spikes=found)
    if steps["psf"]:
        smap = _deconvolved(smap, channel, psf)
    if spikes == "mask":
        smap = _masked(smap, found[0])
    if to_register and contains_full_disk(smap):
        smap = calibrate.register(smap, missing=np.nan)
    return smap


def _check_spikes(spikes, register):
    if not isinstance(spikes, bool) and spikes != "mask":
        msg = f"spikes must be True, False or 'mask', found {spikes!r}."
        raise ValueError(msg)
    if spikes == "mask" and register:
        msg = "spikes='mask' and register=True exclude each other, as aiapy's register drops masks; invert registers."
        raise ValueError(msg)


def _masked(smap, pixels):
    """Return a map with its spikes masked, in addition to its own mask."""
    mask = np.zeros(smap.data.shape, dtype=bool) if smap.mask is None else np.array(smap.mask)
    # Positions in cutouts are results of coordinate transformations, so rounding is needed.
    mask[tuple(axis.value.round().astype(int) for axis in (pixels.y, pixels.x))] = True
    return Map(smap.data, smap.meta, mask=mask, uncertainty=smap.uncertainty)


def _pointing_table(pointing, maps):
    if isinstance(pointing, Table):
        return pointing
    source = "lmsal" if pointing is True else pointing
    if not (isinstance(source, str) and source.lower() in ("lmsal", "jsoc")):
        msg = f"pointing must be True, False, 'lmsal', 'jsoc' or a table, found {pointing!r}."
        raise ValueError(msg)
    times = [smap.date for smap in maps]
    return _downloaded(
        lambda: get_pointing_table(source, time_range=(min(times), max(times))),
        "a table as pointing=, such as the result of aiapy's get_pointing_table",
    )


def _downloaded(fetch, alternative):
    try:
        return fetch()
    except Exception as error:  # aiapy's downloaders raise many types
        msg = f"A download failed ({type(error).__name__}: {error}). Without a network pass {alternative}."
        raise ConnectionError(msg) from error


def _deconvolved(smap, channel, psf):
    if smap.data.shape != _NATIVE_SHAPE:
        msg = (
            f"psf needs a full frame of {_NATIVE_SHAPE} pixels; the {channel} Å map has {smap.data.shape}. Deconvolve "
            "before cropping or binning, or pass psf=False."
        )
        raise ValueError(msg)
    # Imported late, because aiapy.psf looks for GPUs.
    from aiapy.psf import deconvolve

    from sunpy_deepem.utils.compat import calculate_psf

    if psf is True:
        return deconvolve(smap, psf=calculate_psf(smap.wavelength))
    if not isinstance(psf, dict) or channel not in psf:
        found = sorted(psf) if isinstance(psf, dict) else type(psf).__name__
        msg = f"psf must be True, False or a dict with the point spread function of {channel} Å, found {found}."
        raise ValueError(msg)
    return deconvolve(smap, psf=psf[channel])
