"""Combination of exposures of different lengths, for flares: `combine_exposures`."""

import astropy.units as u
import numpy as np
import sunpy.map
from astropy.nddata import StdDevUncertainty
from astropy.time import Time

from sunpy_deepem.calibrate.photometry import counts_uncertainty, native_pixels
from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.stack.counts import ChannelCounts
from sunpy_deepem.stack.maps import channel_of, describe, load_maps
from sunpy_deepem.utils.checks import one_time

__all__ = ["combine_exposures"]


@u.quantity_input
def combine_exposures(maps, *, obstime=None, max_time_span: u.s = 60 * u.s) -> sunpy.map.MapSequence:
    """
    Combine several exposures of each channel, pixel by pixel, into one map without saturation where possible.

    During flares, AIA alternates long and short exposures. Each pixel takes the exposure nearest to ``obstime`` that is
    neither missing, saturated nor bloomed there, or else the nearest that is not saturated. Where all exposures are
    saturated, it takes the shortest, the highest lower limit.

    Parameters
    ----------
    maps : `~sunpy.map.MapSequence`, path of a folder, or iterable of `~sunpy.map.GenericMap` or paths
        AIA maps of any number of times and channels. Maps of one channel must have the same pixels.
    obstime : `~astropy.time.Time` or `str`, optional
        Time of the combination, by default the median time of the maps.
    max_time_span : `~astropy.units.Quantity`, optional
        Exposures further than half of this from ``obstime`` are ignored.

    Returns
    -------
    `~sunpy.map.MapSequence`
        One map of each channel, in counts at the shortest exposure time used, with the noise of each pixel's own
        exposure as ``uncertainty``. The header has the time of the exposure nearest to ``obstime``; its card EXPOSURE
        lists the time, exposure time and fraction of pixels of each exposure.

    Raises
    ------
    TypeError
        If ``maps`` contains anything but maps and paths.
    ValueError
        If a map is of another channel, a channel has no exposure near ``obstime``, or exposures of a channel have
        different pixels.

    Examples
    --------
    >>> from sunpy_deepem.stack import combine_exposures
    >>> len(combine_exposures(sample_maps((64, 64))).maps)
    6
    """
    maps = load_maps(maps)
    if foreign := [describe(smap) for smap in maps if channel_of(smap) is None]:
        msg = f"maps must be AIA maps of {CHANNELS} Å, found {', '.join(foreign)}. Leave them out."
        raise ValueError(msg)
    if not maps:
        msg = f"maps must be AIA maps of {CHANNELS} Å, found none."
        raise ValueError(msg)
    times = Time([smap.date for smap in maps])
    obstime = Time(np.median(times.jd), format="jd") if obstime is None else one_time(obstime, "obstime")
    combined = []
    for channel in CHANNELS:
        of_channel = [smap for smap in maps if channel_of(smap) == channel]
        near = [smap for smap in of_channel if abs(smap.date - obstime) <= max_time_span / 2]
        if of_channel and not near:
            msg = (
                f"maps of {channel} Å must be within {max_time_span / 2:g} of {obstime.isot}, found "
                f"{', '.join(smap.date.isot for smap in of_channel)}. Raise max_time_span or change obstime."
            )
            raise ValueError(msg)
        if near:
            combined.append(_combined(sorted(near, key=lambda smap: abs(smap.date - obstime)), channel))
    return sunpy.map.Map(combined, sequence=True, sortby=None)


def _combined(maps, channel):
    """Return the combination of exposures that are sorted by their distance in time."""
    exposures = [ChannelCounts.unregistered(smap) for smap in maps]
    first = exposures[0]
    for exposure in exposures:
        if exposure.shape != first.shape or exposure.offset(first) != (0, 0):
            msg = (
                f"maps of {channel} Å must have the same pixels, but those of {first.smap.date.isot} and "
                f"{exposure.smap.date.isot} differ. Cut out the same field, or register the maps first."
            )
            raise ValueError(msg)
    counts = [exposure.whole() for exposure in exposures]
    chosen = _nearest_valid(counts, shortest=np.argmin([exposure.exposure for exposure in exposures]))
    used = np.unique(chosen).tolist()
    exptime = min(exposures[index].exposure for index in used)
    n_sample = native_pixels(u.Quantity(first.smap.scale))
    values, noise = np.empty(first.shape, np.float32), np.empty(first.shape, np.float32)
    facts = []
    for index in used:
        here, exposure = chosen == index, exposures[index]
        factor = np.float32(exptime / exposure.exposure)
        own = counts[index].values[here]
        values[here], noise[here] = own * factor, counts_uncertainty(own, channel, n_sample) * factor
        facts.append(f"{exposure.smap.date.isot} {exposure.exposure:g} s {here.mean():.3f}")
    middle = (first.smap.date + exptime / 2 * u.s).isot
    cards = {"exptime": exptime, "t_obs": middle, "bunit": "DN", "exposure": "; ".join(facts)}
    return sunpy.map.Map(values, dict(first.smap.meta) | cards, uncertainty=StdDevUncertainty(noise))


def _nearest_valid(counts, shortest):
    """Return for each pixel the index of the first exposure that is valid, or else of the shortest one."""
    chosen = np.full(counts[0].values.shape, shortest)
    # Later assignments take precedence: exposures without blooming, and among them the nearest.
    for bloomed_too in (True, False):
        for index, one in reversed(list(enumerate(counts))):
            valid = np.isfinite(one.values)
            for plane in [one.saturated] if bloomed_too else [one.saturated, one.bloomed]:
                if plane is not None:
                    valid &= ~plane
            chosen[valid] = index
    return chosen
