"""
Many observations: `invert_series` and the sequence of cubes that it makes, `DEMCubeSequence`.

Files are grouped into sets of six channels from their headers (`group_maps`). Each set is inverted by itself, here or
by dask's workers, and ends as one file, so that a run which was stopped goes on where it was: files that are there,
whole and made of the same inputs with the same options, are skipped. What became of each set is in a `SeriesReport`.
"""

import json
import tempfile
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.time import Time
from astropy.timeseries import TimeSeries
from ndcube import NDCubeSequence
from sunpy.util.exceptions import SunpyUserWarning
from tqdm.auto import tqdm

from sunpy_deepem.analysis.derived import band_limits, checked_bands, mean_log_t
from sunpy_deepem.calibrate.alignment import REFERENCE_CHANNEL
from sunpy_deepem.cube.dem_cube import DEMCube
from sunpy_deepem.series.grouping import ChannelSet, ChannelSets, group_maps
from sunpy_deepem.series.jobs import SetResult, check, make, make_jobs, names, runner
from sunpy_deepem.temperature import BANDS
from sunpy_deepem.units import EM_UNIT
from sunpy_deepem.utils.files import FITS_SUFFIXES, atomic_path, checked_path

__all__ = [
    "ChannelSet",
    "ChannelSets",
    "DEMCubeSequence",
    "SeriesReport",
    "SetResult",
    "group_maps",
    "invert_series",
]

_REPORT = "report.json"
# Failed sets that a report names when it is printed; to_json has them all.
_MOST_TOLD = 10
_REPORT_FORMAT = "sunpy_deepem report 1"
# Options that say where and how to compute, but not what.
_HOW = ("chunks", "device", "maps", "progress")
# Checking a file changes Python's warning filters for a moment, which are the same for all threads.
_CHECKING = Lock()


def invert_series(
    source,
    out=None,
    *,
    recursive=False,
    max_time_span=60 * u.s,
    scheduler=None,
    overwrite=False,
    progress=False,
    **invert_options,
):
    """
    Invert AIA maps of many times.

    A set of six channels that cannot be inverted does not stop the others. With ``out`` each set becomes a FITS file in
    that folder, written whole or not at all, and a run that was stopped goes on when it is started again: files that
    are whole and were made of the same inputs with the same options are skipped, damaged ones are made again.

    Parameters
    ----------
    source : path of a folder, glob pattern, iterable of paths and `~sunpy.map.GenericMap`, or `ChannelSets`
        Maps of any times and channels, which `group_maps` groups, or what it returned.
    out : `str` or `pathlib.Path`, optional
        Folder to write to, which is made if need be. Files are named ``deepem_DATE.fits`` after the exposure in 193 Å.
    recursive, max_time_span : optional
        As in `group_maps`; the latter also as in `ChannelStack.from_maps`.
    scheduler : `str` or ``distributed.Client``, optional
        Where to compute: ``"threads"`` or ``"processes"`` for as many as there are cores, ``"tcp://HOST:PORT"`` of a
        dask scheduler, or its client; by default in this process. Workers on other machines need this package and
        the same files under the same paths.
    overwrite : `bool`, optional
        Whether to make all files again, also those that were made with other options, which fail otherwise.
    progress : `bool`, optional
        Whether to show a progress bar.
    **invert_options
        Passed to `sunpy_deepem.invert`.

    Returns
    -------
    `SeriesReport` or `DEMCubeSequence`
        With ``out`` what became of each set, which is also in ``report.json`` in that folder; without it the cubes, in
        order of time, with the report as ``meta["report"]``.

    Raises
    ------
    FileNotFoundError, TypeError
        As `group_maps`; or if there are no such weights.
    ValueError
        If ``source`` holds no map of the six channels, ``scheduler`` makes no sense, or, without ``out``, every set
        failed.
    OSError
        If ``out`` cannot be written to, or a scheduler cannot be reached.
    ImportError
        If dask is not installed and ``scheduler`` is given.

    Warns
    -----
    sunpy.util.exceptions.SunpyUserWarning
        If a set failed and there is no ``out``.

    Examples
    --------
    >>> from sunpy_deepem.series import invert_series
    >>> times = ["2014-01-01T00:00", "2014-01-01T00:02"]
    >>> sequence = invert_series([smap for time in times for smap in sample_maps((32, 32), obstime=time)])
    >>> sequence.shape
    (2, 18, 32, 32)
    """
    sets = source
    if not isinstance(source, ChannelSets):
        sets = group_maps(source, recursive=recursive, max_time_span=max_time_span)
    if not (sets.complete or sets.failed):
        msg = f"source holds no AIA map of the six channels; {len(sets.ignored)} maps of other kinds are in it."
        raise ValueError(msg)
    folder = None if out is None else _writable(checked_path(out, "out"))
    jobs = dict(enumerate(make_jobs(sets, folder, {"max_time_span": max_time_span} | invert_options)))
    finished, cubes = {}, {}

    def note(outcomes, bar):
        for index, (result, cube) in outcomes:
            if result is not None:
                finished[index], cubes[index] = result, cube
                bar.update()

    with runner(scheduler) as run:
        try:
            with tqdm(total=len(jobs), desc="Sets", unit="set", disable=not progress) as bar:
                if folder is not None and not overwrite:
                    note(run(check, {index: job for index, job in jobs.items() if job.path.exists()}), bar)
                note(run(make, {index: job for index, job in jobs.items() if index not in finished}), bar)
        finally:
            # What an interrupted run has done and what it has not is told as well.
            report = _report(sets, jobs, finished)
            if folder is not None:
                report.write(folder / _REPORT)
                _clear(folder, report)
    if folder is not None:
        return report
    return _sequence([cubes[index] for index in sorted(cubes) if cubes[index] is not None], report)


# ---------------------------------------------------------------------------------------------------------------------
# What became of the sets
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class SeriesReport:
    """
    What `invert_series` did.

    Attributes
    ----------
    results : `tuple` of `SetResult`
        One for each set, in order of time; those without a time are last.
    ignored : `tuple` of (`str`, `str`)
        Maps that belong to no set, and why.
    """

    results: tuple
    ignored: tuple = ()

    @property
    def done(self):
        """The results of sets that were inverted, `tuple` of `SetResult`."""
        return self._of("done")

    @property
    def skipped(self):
        """The results of sets whose file was there already, `tuple` of `SetResult`."""
        return self._of("skipped")

    @property
    def failed(self):
        """The results of sets that could not be inverted, `tuple` of `SetResult`."""
        return self._of("failed")

    @property
    def paths(self):
        """The files that hold the cubes, done now or before, `list` of `pathlib.Path`."""
        return [result.path for result in self.results if result.status != "failed" and result.path is not None]

    @property
    def times(self):
        """The times of the cubes, done now or before, `~astropy.time.Time`."""
        return Time([result.time.utc.isot for result in self.results if result.status != "failed"], scale="utc")

    def to_json(self):
        """
        Return the report as JSON.

        Returns
        -------
        `str`
            An object with ``format``, the counts ``done``, ``skipped`` and ``failed``, ``sets`` (for each ``status``,
            ``time``, ``inputs``, ``file`` and ``reason``) and ``ignored`` (for each ``input`` and ``reason``).
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
        facts = {"format": _REPORT_FORMAT} | counts | {"sets": sets, "ignored": ignored}
        return json.dumps(facts, indent=1, ensure_ascii=False)

    def write(self, path):
        """
        Write the report as JSON, atomically; a report that is there is replaced.

        Parameters
        ----------
        path : `str` or `pathlib.Path`
        """
        with atomic_path(path) as partial:
            partial.write_text(self.to_json() + "\n", encoding="utf-8")

    def _of(self, status):
        return tuple(result for result in self.results if result.status == status)

    def __str__(self):
        lines = [f"{len(self.done)} inverted, {len(self.skipped)} skipped as done before, {len(self.failed)} failed"]
        for result in self.failed[:_MOST_TOLD]:
            what = ", ".join(result.inputs) if result.time is None else result.time.utc.isot[:19]
            lines += textwrap.wrap(f"{what}: {result.reason}", 78, initial_indent="  ", subsequent_indent="    ")
        if more := len(self.failed[_MOST_TOLD:]):
            lines.append(f"  and {more} more")
        return "\n".join(lines)


def _report(sets, jobs, finished):
    """Put together what is known of each set, in order of time."""
    interrupted = "interrupted before it was inverted"
    results = [finished[index] if index in finished else job.failed(interrupted) for index, job in jobs.items()]
    results += [SetResult("failed", each.time, names(each.sources), reason=each.reason) for each in sets.failed]
    results.sort(key=lambda result: (result.time is None, "" if result.time is None else result.time.utc.isot))
    ignored = tuple((*names([item]), reason) for item, reason in sets.ignored)
    return SeriesReport(tuple(results), ignored)


def _writable(folder):
    """Return the folder, made if need be; raise where it cannot be written to."""
    if folder.suffix and folder.name.lower().endswith(FITS_SUFFIXES):
        msg = f"out must be a folder, found {folder}, the name of a FITS file. A series has a file for each set."
        raise ValueError(msg)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        msg = f"out: the folder {folder} cannot be written to ({error.strerror}). Choose another, or change its rights."
        raise type(error)(msg) from error
    return folder.absolute()


def _clear(folder, report):
    """Remove what workers that were killed left of files that others have finished."""
    done = {result.path.name for result in report.done}
    for partial in folder.glob(".*.part"):
        if partial.name[1:].rsplit(".", 2)[0] in done:
            partial.unlink(missing_ok=True)


def _sequence(cubes, report):
    if not cubes:
        msg = f"No set of source could be inverted.\n{report}"
        raise ValueError(msg)
    if report.failed:
        warnings.warn(f"Sets are missing from the sequence.\n{report}", SunpyUserWarning, stacklevel=3)
    return DEMCubeSequence(cubes, meta={"report": report})


# ---------------------------------------------------------------------------------------------------------------------
# The sequence of cubes
# ---------------------------------------------------------------------------------------------------------------------


class DEMCubeSequence(NDCubeSequence):
    """
    Cubes of many times.

    Parameters
    ----------
    data_list : sequence of `DEMCube`
        In order of time.
    meta : `dict`, optional
        What belongs to all.
    common_axis : `None`, optional
        There is none: time is the axis of the sequence, and no axis of its cubes.

    Examples
    --------
    >>> from sunpy_deepem.series import DEMCubeSequence
    >>> times = ["2014-01-01T00:00", "2014-01-01T00:02"]
    >>> sequence = DEMCubeSequence([invert(sample_maps((32, 32), obstime=time)) for time in times])
    >>> sequence.shape
    (2, 18, 32, 32)
    >>> sequence.light_curve().colnames[:3]
    ['time', 'total_em', 'total_em_uncertainty']
    """

    @classmethod
    def read(cls, folder):
        """
        Read the cubes that `invert_series` wrote to a folder, each when it is asked for.

        Parameters
        ----------
        folder : `str` or `pathlib.Path`

        Returns
        -------
        `DEMCubeSequence`
            In order of time. Its cubes stay on disk, but for the last one used.

        Raises
        ------
        FileNotFoundError
            If there is no such folder, or no FITS file of a DEM cube in it.
        """
        folder = checked_path(folder, "folder")
        paths = sorted(folder.glob("*")) if folder.is_dir() else []
        paths = [path for path in paths if path.name.lower().endswith(FITS_SUFFIXES) and not path.name.startswith(".")]
        times = {path: time for path in paths if (time := _time_of_file(path)) is not None}
        if not times:
            msg = f"folder: there is no FITS file of a DEM cube in {folder}. invert_series writes them."
            raise FileNotFoundError(msg)
        return cls(_CubesOnDisk(sorted(times, key=times.get), times))

    @property
    def times(self):
        """When the exposures in 193 Å began, `~astropy.time.Time` of shape ``(n,)``."""
        if isinstance(self.data, _CubesOnDisk):
            return Time([self.data.times[path] for path in self.data.paths])
        return Time([_time(cube.inputs) for cube in self.data])

    @property
    def sequence_axis_coords(self):
        """The coordinates along the axis of the sequence, `dict`, with ``"time"`` among them."""
        return {"time": list(self.times)}

    def light_curve(self, region=None, *, bands=BANDS):
        """
        Return how much plasma there is at a place or in a region, and how hot it is, at each time.

        Parameters
        ----------
        region : `~astropy.coordinates.SkyCoord`, region, `~numpy.ndarray` or `None`, optional
            As in `DEMCube.curve`: a coordinate, a region of the package ``regions``, a mask of shape ``(ny, nx)``, or,
            by default, all pixels. A sky region stays where it is on the sky while the Sun turns under it.
        bands : sequence of pairs of `float`, optional
            Limits in log10(T/K) of ranges whose EM is told, too, as in `DEMCube.band_maps`.

        Returns
        -------
        `~astropy.timeseries.TimeSeries`
            With the mean over the region of ``total_em`` in cm^-5 and of the EM of each band, as ``em_5.6_6.0``; with
            ``log_t``, the log10(T/K) weighted by EM; and with ``n_pixels``, how many pixels went in. Uncertainties, as
            ``total_em_uncertainty``, take the errors of bins as independent, and are NaN where a cube has none.

        Raises
        ------
        TypeError, ValueError
            As `DEMCube.curve`, or if a band is empty or lies beyond the cubes' bins.
        """
        bands = checked_bands(bands)
        rows = [_row(cube.curve(region), bands) for cube in self.data]
        return TimeSeries(time=self.times, data={name: _column([row[name] for row in rows]) for name in rows[0]})


def _row(curve, bands):
    """Return the columns of a light curve at one time."""
    none = np.full(curve.em.shape, np.nan) << EM_UNIT
    sigma = none if curve.uncertainty is None else curve.uncertainty
    log_t, log_t_sigma = mean_log_t(curve.em.value, sigma.value, curve.bins)
    ranges = {"total_em": (None, None)} | {f"em_{low}_{high}": (low, high) for low, high in bands}
    row = {}
    for name, limits in ranges.items():
        begin, end = band_limits(curve.bins, *limits)
        share = (end - begin) / curve.bins.step
        row |= {name: (share * curve.em).sum(), f"{name}_uncertainty": np.sqrt(((share * sigma) ** 2).sum())}
    return row | {"log_t": log_t, "log_t_uncertainty": log_t_sigma, "n_pixels": curve.n_pixels}


def _column(values):
    return u.Quantity(values) if isinstance(values[0], u.Quantity) else np.array(values)


class _CubesOnDisk(Sequence):
    """Cubes that are read when they are asked for; as cubes are large, only the last one is kept."""

    def __init__(self, paths, times):
        self.paths, self.times = paths, times
        self._last = (None, None)

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, item):
        if isinstance(item, slice):
            return type(self)(self.paths[item], self.times)
        path = self.paths[item]
        if self._last[0] != path:
            self._last = (path, DEMCube.read(path))
        return self._last[1]


def _time(inputs):
    """Return when the exposure in 193 Å began."""
    (date,) = (each["date"] for each in inputs if each["channel"] == REFERENCE_CHANNEL)
    return Time(str(date), scale="utc")


def _time_of_file(path):
    """Return the time of the cube in a FITS file without its data, or `None` if there is none in it."""
    with warnings.catch_warnings():
        # What is wrong with a file shows when its cube is read.
        warnings.simplefilter("ignore")
        try:
            with fits.open(path) as hdus:
                if "DEMFMT" in hdus[0].header:
                    return _time(Table.read(hdus["INPUTS"], mask_invalid=False))
        except (OSError, KeyError, ValueError):
            return None
    return None
