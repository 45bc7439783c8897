"""Results of the sets of a series."""

import json
import textwrap
from dataclasses import dataclass
from pathlib import Path

from astropy.time import Time
from sunpy.map import GenericMap

from sunpy_deepem.series.grouping import describe
from sunpy_deepem.utils.files import atomic_path, is_archive

__all__ = [
    "SeriesReport",
    "SetResult",
    "failed_result",
    "input_names",
    "make_report",
    "report_path",
    "sorted_report",
]

_FORMAT = "sunpy_deepem report 1"
# Failed sets listed when a report is printed; to_json lists all.
_MAX_FAILURES_SHOWN = 10


@dataclass(frozen=True, eq=False)
class SetResult:
    """
    Result of a set of six channels.

    Attributes
    ----------
    status : {"done", "skipped", "failed"}
        Whether the set was inverted, was already done, or could not be inverted.
    time : `~astropy.time.Time` or `None`
        Time of the `ChannelSet`.
    inputs : `tuple` of `str`
        Names of the files or descriptions of the maps.
    path : `pathlib.Path` or `None`
        File or archive with the cube.
    reason : `str` or `None`
        Reason of the failure.
    """

    status: str
    time: Time | None
    inputs: tuple
    path: Path | None = None
    reason: str | None = None


@dataclass(frozen=True, eq=False)
class SeriesReport:
    """
    Report of `invert_series`.

    Attributes
    ----------
    results : `tuple` of `SetResult`
        Results of all sets, in order of time; sets without a time are last.
    ignored : `tuple` of (`str`, `str`)
        Maps that belong to no set, and the reason.
    """

    results: tuple
    ignored: tuple = ()

    @property
    def done(self):
        """Results of the inverted sets, `tuple` of `SetResult`."""
        return self._of("done")

    @property
    def skipped(self):
        """Results of the sets that an earlier run inverted, `tuple` of `SetResult`."""
        return self._of("skipped")

    @property
    def failed(self):
        """Results of the sets that could not be inverted, `tuple` of `SetResult`."""
        return self._of("failed")

    @property
    def paths(self):
        """Files or the archive with cubes, of this and earlier runs, `list` of `pathlib.Path`."""
        paths = [result.path for result in self.results if result.status != "failed" and result.path is not None]
        return list(dict.fromkeys(paths))

    @property
    def times(self):
        """Times of the cubes, of this and earlier runs, `~astropy.time.Time`."""
        return Time([result.time.utc.isot for result in self.results if result.status != "failed"], scale="utc")

    def to_json(self):
        """
        Return the report as JSON.

        Returns
        -------
        `str`
            An object with ``format``, the counts ``done``, ``skipped`` and ``failed``, ``sets`` (each with ``status``,
            ``time``, ``inputs``, ``file`` and ``reason``) and ``ignored`` (each with ``input`` and ``reason``).
        """
        counts = {status: len(self._of(status)) for status in ("done", "skipped", "failed")}
        sets = [
            {
                "status": result.status,
                "time": None if result.time is None else result.time.utc.isot,
                "inputs": list(result.inputs),
                "file": None if result.path is None else result.path.name,
                "reason": result.reason,
            }
            for result in self.results
        ]
        ignored = [{"input": name, "reason": reason} for name, reason in self.ignored]
        content = {"format": _FORMAT} | counts | {"sets": sets, "ignored": ignored}
        text = json.dumps(content, indent=1, ensure_ascii=False)
        # Names of files need not be UTF-8.
        return text.encode(errors="backslashreplace").decode()

    def write(self, path):
        """
        Write the report as JSON, atomically; an existing file is replaced.

        Parameters
        ----------
        path : `str` or `pathlib.Path`
        """
        with atomic_path(path) as partial:
            partial.write_text(self.to_json() + "\n", encoding="utf-8")

    def _of(self, status):
        return tuple(result for result in self.results if result.status == status)

    @property
    def counts(self):
        """How many sets were inverted, skipped and failed, `str`."""
        return f"{len(self.done)} inverted, {len(self.skipped)} skipped as done before, {len(self.failed)} failed"

    def __str__(self):
        lines = [self.counts]
        for result in self.failed[:_MAX_FAILURES_SHOWN]:
            name = ", ".join(result.inputs) if result.time is None else result.time.utc.isot[:19]
            lines += textwrap.wrap(f"{name}: {result.reason}", 78, initial_indent="  ", subsequent_indent="    ")
        if more := len(self.failed[_MAX_FAILURES_SHOWN:]):
            lines.append(f"  and {more} more")
        return "\n".join(lines)


def make_report(sets, jobs, finished):
    """Return the `SeriesReport` of `ChannelSets`, their jobs and the results so far, both by index."""
    interrupted = "interrupted before it was inverted"
    results = [finished[index] if index in finished else job.failed(interrupted) for index, job in jobs.items()]
    return sorted_report([*results, *map(failed_result, sets.failed)], sets.ignored)


def sorted_report(results, ignored):
    """Return the `SeriesReport` of results in any order and the ignored maps of `ChannelSets`."""
    results = sorted(results, key=lambda result: (result.time is None, "" if result.time is None else result.time.isot))
    return SeriesReport(tuple(results), tuple((*input_names([item]), reason) for item, reason in ignored))


def failed_result(each):
    """Return the `SetResult` of a `ChannelSet` that cannot be inverted."""
    return SetResult("failed", each.time, input_names(each.sources), reason=each.reason)


def report_path(target, part):
    """
    Return the file of a report.

    Parameters
    ----------
    target : `pathlib.Path`
        Folder of the files with cubes, or the archive, beside which the report lies.
    part : `tuple` of two `int` or `None`
        Part of the sets, ``(k, n)``.
    """
    name = "report.json" if part is None else "report-{}-of-{}.json".format(*part)
    return target.with_name(f"{target.stem}-{name}") if is_archive(target) else target / name


def input_names(sources):
    """Return paths of files and descriptions of maps as a `tuple` of `str`."""
    return tuple(describe(item) if isinstance(item, GenericMap) else str(item) for item in sources)
