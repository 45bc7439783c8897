"""Grouping of maps into sets of six channels by their headers."""

from dataclasses import dataclass, replace
from glob import glob, has_magic
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import astropy.units as u
import numpy as np
from astropy.time import Time
from sunpy.map import GenericMap

from sunpy_deepem.calibrate.alignment import REFERENCE_CHANNEL
from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.stack.headers import header_channel, observation_time
from sunpy_deepem.stack.maps import checked_channels
from sunpy_deepem.utils.checks import whole_number
from sunpy_deepem.utils.files import FITS_SUFFIXES
from sunpy_deepem.utils.fits import headers

__all__ = ["ChannelSet", "ChannelSets", "Frame", "found_files", "group_maps", "make_sets", "read_frame"]

# Seconds. Maps of a channel that are closer in time are of the same exposure.
_SAME_EXPOSURE = 1.0


@dataclass(frozen=True, eq=False)
class ChannelSet:
    """
    Maps of the same time.

    Attributes
    ----------
    time : `~astropy.time.Time` or `None`
        Start of the exposure in 193 Å, or of the first exposure if there is none; `None` if the header lacks it.
    sources : `tuple` of `pathlib.Path` or `~sunpy.map.GenericMap`
        Six in the order of `sunpy_deepem.CHANNELS` if the set is complete.
    reason : `str` or `None`
        Reason why the set cannot be inverted.
    """

    time: Time | None
    sources: tuple
    reason: str | None = None


@dataclass(frozen=True, eq=False)
class ChannelSets:
    """
    Result of `group_maps`.

    Attributes
    ----------
    complete : `tuple` of `ChannelSet`
        Sets of one map of each channel, in order of time.
    failed : `tuple` of `ChannelSet`
        Sets that lack a channel, are ambiguous or cannot be read.
    ignored : `tuple` of (source, `str`)
        Maps that belong to no set, and the reason: other wavelengths, instruments, or exposures between sets.
    since : `~astropy.time.Time` or `None`
        Time from which `select` chose the sets.
    part : `tuple` of two `int` or `None`
        Part that `select` chose.
    """

    complete: tuple
    failed: tuple = ()
    ignored: tuple = ()
    since: Time | None = None
    part: tuple[int, int] | None = None

    def select(self, *, since=None, part=None):
        """
        Return the sets from a time on, or a part of the sets, as for a job array.

        Parameters
        ----------
        since : `~astropy.time.Time` or `str`, optional
            Earlier sets are left out. Sets without a time are kept.
        part : `tuple` of two `int`, optional
            ``(k, n)`` for the k-th set in order of time and every n-th after it. The n parts hold each set once, if all
            are made from the same files. Ignored maps are in the first part.

        Returns
        -------
        `ChannelSets`
            May be empty.

        Raises
        ------
        TypeError, ValueError
            If ``since`` is not a time, or ``part`` not two whole numbers ``1 <= k <= n``.

        Examples
        --------
        >>> from sunpy_deepem.series import group_maps
        >>> times = [f"2014-01-01T00:0{minute}" for minute in (0, 2, 4)]
        >>> sets = group_maps([smap for time in times for smap in sample_maps((32, 32), obstime=time)])
        >>> [each.time.isot[:16] for each in sets.select(part=(1, 2)).complete]
        ['2014-01-01T00:00', '2014-01-01T00:04']
        >>> [each.time.isot[:16] for each in sets.select(since="2014-01-01T00:01").complete]
        ['2014-01-01T00:02', '2014-01-01T00:04']
        """
        chosen = sorted((*self.complete, *self.failed), key=_order)
        ignored = self.ignored
        if since is not None:
            since = _checked_time(since)
            chosen = [each for each in chosen if each.time is None or each.time >= since]
        if part is not None:
            k, n = part = _checked_part(part)
            chosen = chosen[k - 1 :: n]
            ignored = ignored if k == 1 else ()
        return replace(
            self,
            complete=tuple(each for each in chosen if each.reason is None),
            failed=tuple(each for each in chosen if each.reason is not None),
            ignored=ignored,
            since=self.since if since is None else since,
            part=self.part if part is None else part,
        )

    def __str__(self):
        unusable = f"{len(self.failed)} incomplete or ambiguous"
        sets = "1 set" if len(self.complete) == 1 else f"{len(self.complete)} sets"
        return f"{sets} of channels, {unusable}; ignored maps: {len(self.ignored)}"

    def __repr__(self):
        return f"<ChannelSets {len(self.complete)} complete, {len(self.failed)} failed, {len(self.ignored)} ignored>"


class Frame(NamedTuple):
    """
    What the header of a map says.

    Attributes
    ----------
    item : `pathlib.Path` or `~sunpy.map.GenericMap`
    channel : `int` or `None`
        Wavelength in Å; `None` if it is not an AIA map.
    time : `~astropy.time.Time` or `None`
        Start of the exposure; `None` if the channel is not one of `sunpy_deepem.CHANNELS`.
    problem : `str` or `None`
        Reason why the header cannot be read.
    """

    item: Path | GenericMap
    channel: int | None = None
    time: Time | None = None
    problem: str | None = None


@dataclass(frozen=True, eq=False)
class _Exposures:
    """Exposures of one channel in order of time, each with a list of sources. More than one source is ambiguous."""

    seconds: np.ndarray
    sources: list

    def nearest(self, seconds):
        """Return the indices of the exposures nearest to ``seconds``."""
        after = np.searchsorted(self.seconds, seconds)
        before, after = (np.clip(index, 0, len(self.seconds) - 1) for index in (after - 1, after))
        return np.where(seconds - self.seconds[before] <= self.seconds[after] - seconds, before, after)


@u.quantity_input
def group_maps(source, *, recursive=False, max_time_span: u.s = 60 * u.s, channels=None):
    """
    Group AIA maps of many times into sets of one map per channel.

    A set has an exposure in 193 Å, or the first channel if that is not used, and the nearest exposure of each other
    channel, unless that one is nearer to another of the former. A map belongs to at most one set. Only headers are
    read.

    Parameters
    ----------
    source : path of a folder, glob pattern, or iterable of paths and `~sunpy.map.GenericMap`
        A folder stands for its FITS files.
    recursive : `bool`, optional
        Whether to search subfolders.
    max_time_span : `~astropy.units.Quantity`, optional
        Maximum time between the first and the last map of a set.
    channels : sequence of `int`, optional
        Channels of a complete set, at least three, by default all six.

    Returns
    -------
    `ChannelSets`

    Raises
    ------
    FileNotFoundError
        If a path does not exist, or a folder or pattern matches no FITS file.
    TypeError
        If ``source`` holds items other than maps and paths.

    Examples
    --------
    >>> from sunpy_deepem.series import group_maps
    >>> first, second = (sample_maps((32, 32), obstime=f"2014-01-01T00:0{minute}") for minute in (0, 2))
    >>> group_maps([*first, *second])
    <ChannelSets 2 complete, 0 failed, 0 ignored>
    >>> group_maps([*first, *second[:3]]).failed[0].reason
    'missing: 193 Å, 211 Å, 335 Å'
    """
    if not max_time_span >= 0 * u.s:
        msg = f"max_time_span must not be negative, found {max_time_span:g}. The default is 60 s."
        raise ValueError(msg)
    channels = checked_channels(channels)
    return make_sets([read_frame(item) for item in found_files(source, recursive)], channels, max_time_span)


def make_sets(frames, channels, max_time_span):
    """
    Group maps whose headers are read.

    Parameters
    ----------
    frames : iterable of `Frame`
    channels : sequence of `int`
        Channels of a complete set.
    max_time_span : `~astropy.units.Quantity`
        As for `group_maps`.

    Returns
    -------
    `ChannelSets`
    """
    used, failed, ignored = [], [], []
    for frame in frames:
        if frame.problem is not None:
            failed.append(ChannelSet(None, (frame.item,), frame.problem))
        elif frame.channel in channels:
            used.append(frame)
        else:
            ignored.append((frame.item, "not of the channels used" if frame.channel else "not an AIA map"))
    if not used:
        return ChannelSets((), tuple(failed), tuple(ignored))
    times = Time([frame.time for frame in used])
    seconds = (times - times.min()).to_value(u.s)
    exposures = {
        channel: _exposures([(at, one.item) for at, one in zip(seconds, used, strict=True) if one.channel == channel])
        for channel in channels
    }
    sets, superfluous = _sets(exposures, times.min(), max_time_span.to_value(u.s))
    complete = tuple(each for each in sets if each.reason is None)
    failed += [each for each in sets if each.reason is not None]
    return ChannelSets(complete, tuple(failed), (*ignored, *superfluous))


def describe(source):
    """Return the name of a file, or wavelength and date of a map."""
    if isinstance(source, GenericMap):
        return f"{source.wavelength:g} map of {source.date.isot}"
    return source.name


# ---------------------------------------------------------------------------------------------------------------------
# Selection
# ---------------------------------------------------------------------------------------------------------------------


def _order(each):
    """Return the key that sorts sets by time, and those without a time by name."""
    return each.time is None, "" if each.time is None else each.time.utc.isot, str(describe(each.sources[0]))


def _checked_time(since):
    try:
        return Time(since, scale="utc")
    except (ValueError, TypeError):
        msg = f"since must be a time such as '2014-01-01T00:00', found {since!r}."
        raise ValueError(msg) from None


def _checked_part(part):
    values = tuple(part) if np.ndim(part) == 1 else ()
    if len(values) == 2:
        k, n = (whole_number(value, "part") for value in values)
        if k <= n:
            return k, n
    msg = f"part must be two whole numbers (k, n) with 1 <= k <= n, such as (3, 40), found {part!r}."
    raise ValueError(msg)


# ---------------------------------------------------------------------------------------------------------------------
# Files and headers
# ---------------------------------------------------------------------------------------------------------------------


def found_files(source, recursive):
    """Return the maps and file paths of a source of `group_maps`."""
    if isinstance(source, GenericMap | str | Path):
        source = [source]
    try:
        items = list(source)
    except TypeError:
        msg = f"source must be a folder, a pattern, or an iterable of maps or paths, found {type(source).__name__}."
        raise TypeError(msg) from None
    expanded = []
    for item in items:
        if isinstance(item, GenericMap):
            expanded.append(item)
        elif isinstance(item, str | Path):
            expanded += _files(item, recursive)
        else:
            msg = f"source must hold sunpy maps or paths, found {type(item).__name__}."
            raise TypeError(msg)
    # A file may be given twice, by itself and by its folder.
    return list({id(item) if isinstance(item, GenericMap) else item.absolute(): item for item in expanded}.values())


def _files(path, recursive):
    text, path = str(path), Path(path)
    if path.is_dir():
        found = sorted(path.rglob("*") if recursive else path.iterdir())
        # Hidden files belong to the operating system or to unfinished downloads.
        found = [file for file in found if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    elif path.exists():
        return [path]
    elif has_magic(text):
        found = sorted(map(Path, glob(text, recursive=True)))
    else:
        msg = f"source: there is no file or folder {path}."
        raise FileNotFoundError(msg)
    files = [file for file in found if file.name.lower().endswith(FITS_SUFFIXES) and file.is_file()]
    if not files:
        deeper = "" if recursive or not path.is_dir() else " Pass recursive=True to search its subfolders."
        msg = f"source: {path} holds no FITS file ({', '.join(FITS_SUFFIXES)}).{deeper}"
        raise FileNotFoundError(msg)
    return files


def read_frame(item):
    """Return the `Frame` of a map or file."""
    try:
        header, name = (item.meta, "a map") if isinstance(item, GenericMap) else (_header(item), item.name)
        channel = None if header is None else header_channel(header, name)
        return Frame(item, channel, observation_time(header, name) if channel in CHANNELS else None)
    except (OSError, ValueError, TypeError) as error:
        return Frame(item, problem=f"its header cannot be read ({type(error).__name__}: {error})")


def _header(path):
    """Return the header with the wavelength, from the first HDU or, in compressed files, the second."""
    for header in islice(headers(path), 2):
        if "WAVELNTH" in header:
            return header
    return None


# ---------------------------------------------------------------------------------------------------------------------
# Sets
# ---------------------------------------------------------------------------------------------------------------------


def _exposures(frames):
    """Merge the sources of the same exposure."""
    seconds, sources = [], []
    for at, item in sorted(frames, key=lambda frame: frame[0]):
        if seconds and at - seconds[-1] < _SAME_EXPOSURE:
            sources[-1].append(item)
        else:
            seconds.append(at)
            sources.append([item])
    return _Exposures(np.array(seconds), sources)


def _sets(exposures, start, span):
    """Return the sets in order of time, and the exposures that no set needs."""
    reference_channel = REFERENCE_CHANNEL if REFERENCE_CHANNEL in exposures else next(iter(exposures))
    reference = exposures[reference_channel]
    chosen, leftover = {}, []
    for channel, of_channel in exposures.items():
        chosen[channel], unmatched = _matched(reference, of_channel, span)
        leftover += [(of_channel.seconds[index], channel, of_channel.sources[index]) for index in unmatched]
    sets = []
    for index, at in enumerate(reference.seconds):
        members = {channel: chosen[channel][index] for channel in exposures}
        sources = tuple(item for channel in exposures for item in _member(exposures, members, channel))
        reason = _problem(exposures, members, at, span)
        sets.append(ChannelSet(start + at * u.s, sources, reason))
    superfluous = []
    for group in _together(leftover, span):
        first = group[0][0]
        near = len(reference.seconds) and abs(reference.seconds[reference.nearest(first)] - first) <= span
        if near:
            why = f"another exposure is nearer to the one in {reference_channel} Å"
            superfluous += [(item, why) for _, _, items in group for item in items]
        else:
            there = {channel for _, channel, _ in group}
            items = tuple(item for _, _, items in group for item in items)
            sets.append(ChannelSet(start + first * u.s, items, _missing(c for c in exposures if c not in there)))
    return sorted(sets, key=lambda each: each.time), superfluous


def _matched(reference, of_channel, span):
    """Return the channel's index for each reference exposure, or `None`, and the unused indices."""
    if not (len(reference.seconds) and len(of_channel.seconds)):
        return [None] * len(reference.seconds), range(len(of_channel.seconds))
    nearest, back = of_channel.nearest(reference.seconds), reference.nearest(of_channel.seconds)
    mutual = back[nearest] == np.arange(len(nearest))
    close = np.abs(of_channel.seconds[nearest] - reference.seconds) <= span
    matched = [int(index) if good else None for index, good in zip(nearest, mutual & close, strict=True)]
    return matched, sorted(set(range(len(of_channel.seconds))) - set(matched))


def _together(frames, span):
    """Yield groups of frames within ``span`` of the first frame of the group."""
    group = []
    for frame in sorted(frames, key=lambda frame: frame[:2]):
        if group and frame[0] - group[0][0] > span:
            yield group
            group = []
        group.append(frame)
    if group:
        yield group


def _member(exposures, members, channel):
    return [] if members[channel] is None else exposures[channel].sources[members[channel]]


def _problem(exposures, members, at, span):
    """Return the reason why a set cannot be inverted, or `None`."""
    if missing := [channel for channel in exposures if members[channel] is None]:
        return _missing(missing)
    double = {channel: _member(exposures, members, channel) for channel in exposures}
    if double := {channel: items for channel, items in double.items() if len(items) > 1}:
        listed = "; ".join(f"{channel} Å ({', '.join(map(describe, items))})" for channel, items in double.items())
        return f"ambiguous, more than one map of the same exposure: {listed}"
    seconds = [exposures[channel].seconds[index] for channel, index in members.items()]
    if max(seconds) - min(seconds) > span:
        return f"its maps span {max(seconds) - min(seconds):.1f} s, more than max_time_span={span:g} s"
    return None


def _missing(channels):
    return f"missing: {', '.join(f'{channel} Å' for channel in channels)}"
