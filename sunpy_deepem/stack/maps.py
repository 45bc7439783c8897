"""Selection of the maps of an observation: from folders, paths and sequences to one map per channel."""

from collections import Counter
from glob import glob, has_magic
from pathlib import Path

import astropy.units as u
import sunpy.map
from sunpy.map import GenericMap, MapSequence
from sunpy.map.sources import AIAMap

from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.stack.headers import check_header, checked_map
from sunpy_deepem.units import MIN_CHANNELS
from sunpy_deepem.utils.files import FITS_SUFFIXES
from sunpy_deepem.utils.fits import check_size, headers

__all__ = ["channel_of", "check_times", "checked_channels", "describe", "load_maps", "one_of_each"]


def load_maps(maps):
    """Return ``maps`` of any accepted type as a list of maps, with all header cards checked."""
    if isinstance(maps, GenericMap):
        msg = f"maps must be six maps, found a single {describe(maps)}. Pass one map of each of {CHANNELS} Å."
        raise TypeError(msg)
    if isinstance(maps, str | Path):
        maps = _files_in(Path(maps))
    try:
        items = list(maps)
    except TypeError:
        msg = f"maps must be a MapSequence, a folder, or an iterable of maps or paths, found {type(maps).__name__}."
        raise TypeError(msg) from None
    loaded = []
    for item in items:
        if isinstance(item, str | Path):
            loaded += [checked_map(smap, Path(item).name) for smap in _read(Path(item))]
        elif isinstance(item, GenericMap):
            loaded.append(checked_map(item))
        else:
            msg = f"maps must contain sunpy maps or paths of files, found {type(item).__name__}."
            raise TypeError(msg)
    return loaded


def _files_in(folder):
    if has_magic(str(folder)) and not folder.exists():
        if files := sorted(map(Path, glob(str(folder)))):
            return files
        msg = f"maps: no file matches {folder}."
        raise FileNotFoundError(msg)
    if not folder.is_dir():
        msg = f"maps must be a folder or six maps or paths, found the single path {folder}, which is not a folder."
        raise FileNotFoundError(msg)
    # Operating systems and unfinished downloads leave hidden files that are not maps.
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    files = [folder / name for name in names if name.lower().endswith(FITS_SUFFIXES)]
    if not files:
        msg = f"maps: the folder {folder} contains no FITS file ({', '.join(FITS_SUFFIXES)})."
        raise FileNotFoundError(msg)
    return files


def _read(path):
    if not path.is_file():
        msg = f"maps: the file {path} does not exist."
        raise FileNotFoundError(msg)
    try:
        check_size(path)
        read = sunpy.map.Map(path)
    except Exception as error:  # sunpy's readers raise many types
        _check_headers(path)
        msg = f"maps: {path} cannot be read as a map ({type(error).__name__}: {error}). Download it again."
        raise ValueError(msg) from error
    return read if isinstance(read, list | MapSequence) else [read]


def _check_headers(path):
    """Raise `ValueError` if a card explains why a file is no map."""
    try:
        found = list(headers(path))
    except (OSError, EOFError, ValueError):  # the file is no FITS file
        return
    for header in found:
        check_header(header, path.name)


def channel_of(smap):
    """Return the channel of a map, or `None` for any other map."""
    if not isinstance(smap, AIAMap) or smap.wavelength is None:
        return None
    value = round(smap.wavelength.to_value(u.angstrom))
    return value if value in CHANNELS else None


def describe(smap):
    """Return the instrument and wavelength of a map as text."""
    # Not by smap.instrument, which fails if the card is no text.
    instrument = str(smap.meta.get("instrume") or smap.meta.get("telescop") or type(smap).__name__).replace("_", " ")
    wavelength = "" if smap.wavelength is None else f" {smap.wavelength:g}"
    return f"{instrument}{wavelength}"


def one_of_each(maps, channels=CHANNELS):
    """Return the maps of ``channels`` in order, ignoring other channels; raise unless there is one of each."""
    maps = [smap for smap in maps if channel_of(smap) in channels or channel_of(smap) is None]
    found = Counter(channel_of(smap) for smap in maps)
    wrong = []
    if foreign := [describe(smap) for smap in maps if channel_of(smap) is None]:
        wrong.append(f"foreign: {', '.join(foreign)} (AIA's maps have INSTRUME 'AIA_…' and such a WAVELNTH)")
    if missing := [channel for channel in channels if not found[channel]]:
        wrong.append(f"missing: {', '.join(f'{channel} Å' for channel in missing)}")
    if repeated := [channel for channel in channels if found[channel] > 1]:
        wrong.append(f"more than once: {', '.join(f'{channel} Å ({found[channel]} maps)' for channel in repeated)}")
    if wrong:
        msg = (
            f"maps must be exactly one AIA map for each of {tuple(channels)} Å; found {len(maps)} maps, "
            f"{'; '.join(wrong)}."
        )
        if missing and len(channels) - len(missing) >= MIN_CHANNELS:
            msg += f" Pass channels={tuple(channel for channel in channels if found[channel])} to invert without."
        raise ValueError(msg)
    return sorted(maps, key=lambda smap: channels.index(channel_of(smap)))


def checked_channels(channels):
    """Return ``channels`` in the order of `CHANNELS`, all if `None`; raise unless there are at least three."""
    if channels is None:
        return CHANNELS
    try:
        requested = set(channels)
    except TypeError:
        requested = set()
    if len(requested) < MIN_CHANNELS or not requested <= set(CHANNELS):
        msg = f"channels must be at least {MIN_CHANNELS} of {CHANNELS} Å or None, found {channels!r}."
        raise ValueError(msg)
    return tuple(channel for channel in CHANNELS if channel in requested)


def check_times(maps, max_time_span):
    """Raise `ValueError` if the maps span more than ``max_time_span``."""
    if not max_time_span >= 0 * u.s:
        msg = f"max_time_span must be a time that is not negative, found {max_time_span:g}. The default is 60 s."
        raise ValueError(msg)
    times = [smap.date for smap in maps]
    if (span := (max(times) - min(times)).to(u.s)) > max_time_span:
        listed = ", ".join(f"{channel_of(smap)} Å {smap.date.isot}" for smap in maps)
        msg = (
            f"maps span {span:.1f}, more than max_time_span={max_time_span:g}: {listed}. Choose maps closer in time or "
            "raise max_time_span."
        )
        raise ValueError(msg)
