"""From a date to six AIA files: `fetch`."""

import asyncio
import signal
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import astropy.units as u
import sunpy
from astropy.time import Time
from sunpy.net import Fido
from sunpy.util.parfive_helpers import Downloader, SessionConfig
from sunpy.util.parfive_helpers import config as sunpy_session

from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.fetch.archives import ARCHIVES, Archive, Record, iso
from sunpy_deepem.utils.checks import one_time, whole_number
from sunpy_deepem.utils.files import checked_path, remove_orphans, temporary_folder
from sunpy_deepem.utils.logger import log
from sunpy_deepem.utils.messages import warn_user

__all__ = ["fetch"]

# Seconds. Exposures of one set lie within AIA's cadence.
_SPAN = 12.0
# Times that are closer than this are looked up by one query, of no more than the second number of seconds.
_QUERY_GAP, _QUERY_LENGTH = 3600.0, 7200.0
# Seconds around a gap that are searched for the nearest files.
_NEIGHBORHOOD = 3600.0
# Seconds before the second attempt; each further one waits twice as long.
_PAUSE = 2.0
# Name of the folders of unfinished files.
_PARTIAL = "fetch"


def fetch(
    start,
    end=None,
    *,
    cadence: u.Quantity | None = None,
    level: str = "1.5s",
    folder=None,
    attempts: int = 4,
    timeout: u.Quantity = 60 * u.s,
    progress: bool = True,
) -> list[Path]:
    """
    Download the six AIA files nearest to a time, or those of a series of times.

    The six files of a time are of the same 12 s, and are checked to be readable, one of each channel. Files that are in
    the folder already are not downloaded again, so that a stopped download continues when it is started again, and a
    finished one needs no network. Downloads go through `sunpy.net.Fido`.

    Parameters
    ----------
    start : `~astropy.time.Time` or `str`
        The time, or the first of a series.
    end : `~astropy.time.Time` or `str`, optional
        Last time of a series.
    cadence : `~astropy.units.Quantity`, optional
        Step of the series, by default the cadence of the archive.
    level : {"1.5s", "1"}, optional
        ``"1.5s"`` for JSOC's synoptic images: level 1.5, 1024 × 1024 pixels, every 2 minutes, 1 MB each. ``"1"`` for
        level 1 by the Virtual Solar Observatory: 4096 × 4096 pixels, every 12 s, 12 MB each.
    folder : `str` or `pathlib.Path`, optional
        Where to keep the files, by default the folder ``aia`` in sunpy's download folder.
    attempts : `int`, optional
        How often a search or a download is tried.
    timeout : `~astropy.units.Quantity`, optional
        Time without data after which a connection is given up.
    progress : `bool`, optional
        Whether to show a progress bar.

    Returns
    -------
    `list` of `pathlib.Path`
        Files in order of time, and of the channels within each time. Six for one time.

    Raises
    ------
    ConnectionError
        If the archive does not answer, or files do not arrive complete. Files that did are kept.
    FileNotFoundError
        If the archive lacks a channel near the time, or near all times of a series. Other gaps of a series cause a
        warning. The message names the missing channels and the nearest complete set.
    ValueError
        If an argument is invalid.

    See Also
    --------
    sunpy_deepem.invert, sunpy_deepem.series.invert_series

    Examples
    --------
    >>> from sunpy_deepem.fetch import fetch
    >>> files = fetch("2014-01-01T00:00")  # doctest: +SKIP
    >>> len(files)  # doctest: +SKIP
    6
    """
    if str(level) not in ARCHIVES:
        msg = f"level must be one of {', '.join(map(repr, ARCHIVES))}, found {level!r}."
        raise ValueError(msg)
    archive = ARCHIVES[str(level)]
    times = _times(start, end, cadence, archive.cadence)
    attempts, timeout = whole_number(attempts, "attempts"), _seconds(timeout, "timeout")
    return _Session(archive, _prepared(folder), attempts, timeout, progress).fetch(times)


# ---------------------------------------------------------------------------------------------------------------------
# Search and download
# ---------------------------------------------------------------------------------------------------------------------


@dataclass
class _Session:
    """One call of `fetch`. ``complete`` holds the paths of checked files, ``errors`` the last error of each URL."""

    archive: Archive
    folder: Path
    attempts: int
    timeout: float
    progress: bool
    complete: set = field(default_factory=set)
    errors: dict = field(default_factory=dict)

    def fetch(self, times):
        """Return the paths of the files of ``times``, in seconds."""
        on_disk, reach = self.archive.files(self.folder), self.archive.cadence
        # Nothing can be nearer than a set on disk within half a cadence.
        sets = {at: _nearest_set(on_disk, at, reach / 2) for at in times}
        sets = {at: members for at, members in sets.items() if members and all(map(self._is_complete, members))}
        gaps = []
        for query in _queries([at for at in times if at not in sets]):
            records = self._search(min(query) - reach, max(query) + reach)
            for at in query:
                if members := _nearest_set(records, at, reach):
                    sets[at] = members
                else:
                    gaps.append(at)
        if gaps:
            self._report(gaps, warn=bool(sets))
        records = {self._path(record): record for at in times for record in sets.get(at, ())}
        missing = {path: record for path, record in records.items() if not self._is_complete(record)}
        if missing:
            log.info("Downloading %d of %d files to %s.", len(missing), len(records), self.folder)
        self._download(missing)
        return list(records)

    def _path(self, record):
        return self.archive.path(self.folder, record)

    def _is_complete(self, record):
        """Whether the file of a record is on disk and readable."""
        path = self._path(record)
        if path not in self.complete and path.is_file():
            try:
                self.archive.check(path, [record])
            except (ValueError, OSError):
                return False
            self.complete.add(path)
        return path in self.complete

    def _search(self, start, end):
        log.debug("Searching %s from %s to %s.", self.archive.name, iso(start), iso(end))
        for pause in self._pauses():
            time.sleep(pause)
            try:
                with _socket_timeout(self.timeout):
                    rows = self.archive.search(*(Time(at, format="unix") for at in (start, end)))
            except OSError as error:
                last = error
                log.info("Searching %s failed: %s", self.archive.name, _one_line(error))
            else:
                return [
                    Record(channel, Time(row["Start Time"]).unix, row) for channel, row in rows if channel in CHANNELS
                ]
        msg = (
            f"Searching {self.archive.name} failed {self.attempts} times ({type(last).__name__}: {last}). Check the "
            "network and try again later. sunpy_deepem.sample.real_maps() needs no network."
        )
        raise ConnectionError(msg) from last

    def _pauses(self):
        """Return the seconds to wait before each attempt."""
        return [0.0, *(_PAUSE * 2**attempt for attempt in range(self.attempts - 1))]

    def _report(self, gaps, *, warn):
        """Raise for the first gap, or warn if there are other sets."""
        around = self._search(gaps[0] - _NEIGHBORHOOD, gaps[0] + _NEIGHBORHOOD)
        message = _gap_message(self.archive, around, gaps[0])
        if not warn:
            raise FileNotFoundError(message)
        if others := len(gaps) - 1:
            message += f" Sets of {others} other times of the series are missing, too."
        warn_user(message)

    def _download(self, records):
        """Download records, given by their paths; a file gets its name when it is complete."""
        if not records:
            remove_orphans(self.folder, _PARTIAL)
            return
        with temporary_folder(self.folder, _PARTIAL) as partial:
            for pause in self._pauses():
                time.sleep(pause)
                pending = [record for path, record in records.items() if path not in self.complete]
                if not pending:
                    return
                self._download_once(pending, partial)
        if missing := sorted(path.name for path in records if path not in self.complete):
            problems = "; ".join(f"{url}: {error}" for url, error in self.errors.items())
            msg = (
                f"{len(missing)} of {len(records)} files did not arrive in {self.attempts} attempts: "
                f"{', '.join(missing)} ({problems}). The others are kept in {self.folder}; run again to continue."
            )
            raise ConnectionError(msg)

    def _download_once(self, records, partial):
        def keep(filepath, url, error):
            # An exception here makes the download fail.
            if error is None:
                path = self._path(self.archive.check(Path(filepath), records))
                Path(filepath).replace(path)
                self.complete.add(path)

        timeouts = aiohttp.ClientTimeout(total=None, sock_connect=self.timeout, sock_read=self.timeout)
        config = SessionConfig(
            headers=sunpy_session.headers, timeouts=timeouts, done_callbacks=(keep,), file_progress=False
        )
        # One connection per file: servers that ignore ranges damage files that are downloaded in parts.
        downloader = Downloader(max_splits=1, progress=self.progress, overwrite=True, config=config)
        with _restored_signals():
            results = Fido.fetch(*(record.row for record in records), path=partial / "{file}", downloader=downloader)
        # parfive ends quietly after Ctrl-C.
        if any(isinstance(failed.exception, asyncio.CancelledError) for failed in results.errors):
            raise KeyboardInterrupt
        self.errors = {failed.url: _one_line(failed.exception) for failed in results.errors}
        for url, error in self.errors.items():
            log.info("%s did not arrive: %s", url, error)


def _nearest_set(records, at, limit):
    """Return the six records nearest to ``at`` that lie within the same `_SPAN`, or `None`."""
    near = [record for record in records if abs(record.seconds - at) <= limit + _SPAN]
    for anchor in sorted(near, key=lambda record: (abs(record.seconds - at), record.seconds)):
        if abs(anchor.seconds - at) > limit:
            return None
        members = [_nearest(near, channel, anchor.seconds) for channel in CHANNELS]
        if all(member is not None and abs(member.seconds - anchor.seconds) <= _SPAN for member in members):
            return tuple(members)
    return None


def _nearest(records, channel, at):
    of_channel = [record for record in records if record.channel == channel]
    return min(of_channel, key=lambda record: abs(record.seconds - at), default=None)


def _queries(times):
    """Return lists of times that are looked up together."""
    queries = []
    for at in times:
        if queries and at - queries[-1][-1] <= _QUERY_GAP and at - queries[-1][0] <= _QUERY_LENGTH:
            queries[-1].append(at)
        else:
            queries.append([at])
    return queries


def _gap_message(archive, records, at):
    """Return what is missing at a time, and what is near."""
    nearest = {channel: _nearest(records, channel, at) for channel in CHANNELS}
    missing = [
        channel for channel, record in nearest.items() if record is None or abs(record.seconds - at) > archive.cadence
    ]
    listed = ", ".join(
        f"{channel} Å ({'none within 1 h' if nearest[channel] is None else iso(nearest[channel].seconds)})"
        for channel in missing or CHANNELS
    )
    if missing:
        problem = f"lacks channels within {archive.cadence:g} s of {iso(at)}; their nearest files: {listed}."
    else:
        problem = f"has no six channels of the same {_SPAN:g} s near {iso(at)}; the nearest files: {listed}."
    if complete := _nearest_set(records, at, _NEIGHBORHOOD):
        advice = f"The nearest complete set is that of {iso(complete[0].seconds)}."
    else:
        advice = (
            "There is no complete set within 1 h. AIA data begin in May 2010, and synoptic images appear about a week "
            "after the observation."
        )
    return f"{archive.name[0].upper()}{archive.name[1:]} {problem} {advice}"


def _one_line(error):
    return " ".join(f"{type(error).__name__}: {error}".split())


# ---------------------------------------------------------------------------------------------------------------------
# Arguments and surroundings
# ---------------------------------------------------------------------------------------------------------------------


def _times(start, end, cadence, default):
    """Return the times in seconds."""
    first = float(one_time(start, "start").unix)
    if end is None:
        if cadence is not None:
            msg = f"cadence is for a series, found {cadence} without end. Pass the last time as end."
            raise ValueError(msg)
        return [first]
    last, step = float(one_time(end, "end").unix), default if cadence is None else _seconds(cadence, "cadence")
    if last < first:
        msg = f"end must not be before start, found {iso(last)} before {iso(first)}."
        raise ValueError(msg)
    return [first + index * step for index in range(int((last - first) / step + 1e-6) + 1)]


def _seconds(value, name):
    try:
        seconds = u.Quantity(value).to_value(u.s)
    except (TypeError, ValueError):  # UnitConversionError is both
        seconds = 0
    if not seconds > 0:
        msg = f"{name} must be a positive time such as 60 * u.s, found {value!r}."
        raise ValueError(msg)
    return float(seconds)


def _prepared(folder):
    """Return the folder, which is created if necessary."""
    if folder is None:
        folder = Path(sunpy.config.get("downloads", "download_dir")) / "aia"
    folder = checked_path(folder, "folder").expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"folder: {folder} cannot be created ({error.strerror}). Choose another folder."
        raise type(error)(msg) from error
    return folder


@contextmanager
def _socket_timeout(seconds):
    """Limit how long sunpy's searches, which set no timeout, wait for a server."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


@contextmanager
def _restored_signals():
    """Restore the signal handlers that parfive replaces, because Ctrl-C would have no effect afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        for each, handler in handlers.items():
            signal.signal(each, handler)
