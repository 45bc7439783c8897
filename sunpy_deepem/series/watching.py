"""Inversion of a folder that fills, for near-real-time: `watch_series`."""

import time
from contextlib import closing, suppress
from dataclasses import replace
from threading import Event

import astropy.units as u

from sunpy_deepem.inversion import check_names
from sunpy_deepem.series.cluster import open_pool
from sunpy_deepem.series.grouping import ChannelSets, found_files, make_sets, read_frame
from sunpy_deepem.series.inversion import checked_target, clean_target, log_report, run_jobs
from sunpy_deepem.series.jobs import make_jobs
from sunpy_deepem.series.report import failed_result, report_path, sorted_report
from sunpy_deepem.stack.maps import checked_channels
from sunpy_deepem.utils.checks import one_time
from sunpy_deepem.utils.files import check_distinct, checked_path, cube_name
from sunpy_deepem.utils.logger import log

__all__ = ["watch_series"]

# Files that did not change for so many seconds are complete, unlike those of a download that goes on.
_SETTLED = 60.0
# Maps of finished sets are forgotten when they are so much earlier than the last map.
_KEPT = 1 * u.hour


@u.quantity_input
def watch_series(
    folder,
    out,
    *,
    recursive=False,
    since=None,
    max_time_span: u.s = 60 * u.s,
    scheduler=None,
    interval: u.s = 5 * u.s,
    idle: u.s = None,
    stop=None,
    **invert_options,
):
    """
    Invert AIA maps of a folder as they arrive, for near-real-time.

    A set is inverted when its last channel has arrived, as by `invert_series`. An incomplete set waits. It is reported
    as failed when a later set is complete, or at the end; if its missing maps arrive after that, it is inverted, too.
    A file is read when it has not changed between two looks. The report is written after each look that found
    something new.

    Parameters
    ----------
    folder : `str` or `pathlib.Path`
        Folder of maps. It may be empty at first.
    out : `str` or `pathlib.Path`
        Folder or archive to write to, see `invert_series`. Sets that are done there are skipped.
    recursive : `bool`, optional
        Whether to search subfolders.
    since : `~astropy.time.Time` or `str`, optional
        Earlier sets are left out.
    max_time_span, scheduler
        See `invert_series`.
    interval : `~astropy.units.Quantity`, optional
        Time between two looks at the folder.
    idle : `~astropy.units.Quantity`, optional
        End when no file has arrived for so long. By default the folder is watched until ``stop`` or an interrupt.
    stop : `threading.Event`, optional
        Ends after the set that is being inverted, when it is set.
    **invert_options
        Passed to `sunpy_deepem.invert`.

    Yields
    ------
    `SetResult`
        Each set when it is inverted, skipped as done before, or failed.

    Raises
    ------
    FileNotFoundError
        If ``folder`` is not a folder; or if the weights do not exist.
    TypeError, ValueError, OSError, ImportError
        As `invert_series`; or if ``interval`` is not positive or ``idle`` is negative.

    Examples
    --------
    >>> from sunpy_deepem.series import watch_series
    >>> for result in watch_series("arriving", "dem", idle=1 * u.hour):  # doctest: +SKIP
    ...     print(result.time, result.status)
    """
    folder = checked_path(folder, "folder")
    if not folder.is_dir():
        msg = f"folder must be an existing folder, found {folder}."
        raise FileNotFoundError(msg)
    if not interval > 0 * u.s or not (idle is None or idle >= 0 * u.s):
        msg = f"interval must be positive and idle not negative, found {interval:g} and {idle}."
        raise ValueError(msg)
    check_names(invert_options, "watch_series")
    since = None if since is None else one_time(since, "since")
    channels = checked_channels(invert_options.get("channels"))
    watched = _Folder(folder, recursive, channels, max_time_span, since)
    series = _Series(checked_target(checked_path(out, "out")), {"max_time_span": max_time_span} | invert_options)
    stop = Event() if stop is None else stop
    return _results(watched, series, scheduler, interval.to_value(u.s), idle, stop)


def _results(watched, series, scheduler, interval, idle, stop):
    """Yield results until ``stop`` is set or nothing happens for the time ``idle``."""
    clean_target(series.target)
    log.info("Watching %s.", watched.path)
    try:
        with open_pool(scheduler) as pool:
            last = time.monotonic()
            while True:
                happened = watched.look()
                for result in series.results(watched, pool, stop):
                    happened = True
                    yield result
                if happened:
                    last = time.monotonic()
                if stop.is_set() or (idle is not None and time.monotonic() - last > idle.to_value(u.s)):
                    break
                stop.wait(interval)
        yield from series.failed(watched.sets.failed)
    finally:
        # Also after an interrupt.
        clean_target(series.target)
        log_report(series.write_report(), series.report_path)


class _Folder:
    """Files of a folder that fills, their headers and sets; each header is read once."""

    def __init__(self, path, recursive, channels, max_time_span, since):
        self.path, self.sets = path, ChannelSets(())
        self._recursive, self._since = recursive, since
        self._grouping = channels, max_time_span
        # Size and time of change of all files at the last look; those of the files that were read, and their headers.
        self._seen, self._read, self._frames = {}, {}, {}

    def look(self):
        """Find new files and group their maps; return whether a file has arrived or changed."""
        found = {}
        for path in self._files():
            with suppress(OSError):  # removed meanwhile
                about = path.stat()
                found[path] = about.st_size, about.st_mtime_ns
        before, self._seen = self._seen, found
        complete = [path for path, state in found.items() if before.get(path) == state or _is_old(state)]
        new = [path for path in complete if self._read.get(path) != found[path]]
        gone = [path for path in self._frames if path not in found]
        for path in gone:
            del self._frames[path]
        for path in new:
            self._read[path], self._frames[path] = found[path], read_frame(path)
        if new or gone:
            self.sets = make_sets(self._frames.values(), *self._grouping).select(since=self._since)
        return before != found

    def state(self, each):
        """Return what identifies the files of a `ChannelSet`, which may be replaced by others."""
        return tuple((path, self._read.get(path)) for path in each.sources)

    def forget(self, finished):
        """Forget early maps, but for those of sets that may still be inverted."""
        times = [frame.time for frame in self._frames.values() if frame.time is not None]
        if not times:
            return
        limit = max(times) - _KEPT
        waiting = {path for each in (*self.sets.complete, *self.sets.failed) for path in each.sources}
        waiting -= {path for each in self.sets.complete if finished(each) for path in each.sources}
        self._frames = {
            path: frame
            for path, frame in self._frames.items()
            if path in waiting or frame.time is None or frame.time >= limit
        }

    def _files(self):
        try:
            return found_files(self.path, self._recursive)
        except FileNotFoundError:  # there is none yet
            return []


def _is_old(state):
    return time.time() - state[1] / 1e9 > _SETTLED


class _Series:
    """Results of the sets of a watched folder."""

    def __init__(self, target, options):
        self.target, self.report_path = target, report_path(target, None)
        self._options = options
        make_jobs(ChannelSets(()), target, options)  # raises if an option is invalid
        # Results by name of the cube; files of sets that were tried; overdue sets and names of those yielded.
        self._results, self._tried, self._overdue, self._yielded = {}, set(), [], set()
        self._ignored = {}

    def results(self, watched, pool, stop):
        """Invert the sets that are complete, and yield results of sets as they become known."""
        n_before = len(self._results), len(self._overdue)
        self._ignored.update(watched.sets.ignored)
        jobs = self._jobs(watched)
        with closing(run_jobs(pool, jobs)) as outcomes:
            for name, result, _ in outcomes:
                self._results[name] = result
                yield _logged(result)
                if stop.is_set():
                    break
        latest = max((each.time for each in watched.sets.complete), default=None)
        yield from self.failed([each for each in watched.sets.failed if _is_overdue(each, latest)])
        if jobs or (len(self._results), len(self._overdue)) != n_before:
            self.write_report()
            watched.forget(lambda each: self._is_done(cube_name(each.time)))

    def failed(self, sets):
        """Yield the results of sets that are incomplete or cannot be read, each once."""
        self._overdue = list(sets)
        for each in self._overdue:
            name = str(each.sources[0]) if each.time is None else cube_name(each.time)
            if name not in self._yielded:
                self._yielded.add(name)
                yield _logged(failed_result(each))

    def write_report(self):
        """Write the report of all sets so far, and return it."""
        report = sorted_report([*self._results.values(), *map(failed_result, self._overdue)], self._ignored.items())
        report.write(self.report_path)
        return report

    def _jobs(self, watched):
        """Return the jobs of complete sets that were not tried yet, by name of the cube."""
        new = {watched.state(each): each for each in watched.sets.complete if not self._is_done(cube_name(each.time))}
        new = {state: each for state, each in new.items() if state not in self._tried}
        if not new:
            return {}
        try:
            jobs = make_jobs(replace(watched.sets, complete=tuple(new.values())), self.target, self._options)
        except FileNotFoundError:  # a map was removed meanwhile, which the next look finds
            return {}
        self._tried.update(new)
        for job in jobs:
            check_distinct(job.path, job.sources)
        return {cube_name(job.time): job for job in jobs}

    def _is_done(self, name):
        return name in self._results and self._results[name].status != "failed"


def _is_overdue(each, latest):
    """Whether a set is not expected to become complete, as one at ``latest`` is."""
    return each.time is None or (latest is not None and each.time < latest)


def _logged(result):
    if result.status == "failed":
        name = ", ".join(result.inputs) if result.time is None else result.time.utc.isot[:19]
        log.warning("%s: %s", name, result.reason)
    return result
