"""Inversion of many observations: `invert_series`."""

import tempfile
from logging import INFO, WARNING

import astropy.units as u
from tqdm.auto import tqdm

from sunpy_deepem.inversion import check_names
from sunpy_deepem.io.archive import DEMArchive
from sunpy_deepem.series.archives import check_archive, stored_results
from sunpy_deepem.series.cluster import open_pool
from sunpy_deepem.series.grouping import ChannelSets, group_maps
from sunpy_deepem.series.jobs import check_file, error_reason, invert_set, make_jobs, read_set
from sunpy_deepem.series.report import make_report, report_path
from sunpy_deepem.series.sequence import DEMCubeSequence
from sunpy_deepem.utils.files import FITS_SUFFIXES, check_distinct, checked_path, is_archive, remove_orphans
from sunpy_deepem.utils.logger import log
from sunpy_deepem.utils.messages import warn_user

__all__ = ["checked_target", "clean_target", "invert_series", "log_report", "run_jobs"]


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

    A set of six channels that fails does not stop the others. With ``out``, each set becomes a FITS file in that
    folder, written atomically, or a time of an archive. A stopped run continues when it is started again: it skips
    complete cubes that were made from the same inputs with the same options, and replaces damaged files.

    Parameters
    ----------
    source : folder, glob pattern, iterable of paths and `~sunpy.map.GenericMap`, or `ChannelSets`
        Maps of any times and channels, which `group_maps` groups, or its result, as
        ``group_maps(folder).select(part=(3, 40))``.
    out : `str` or `pathlib.Path`, optional
        Folder to write to; it is created if necessary. Files are named ``deepem_DATE.fits`` after the exposure in
        193 Å. A name that ends in ``.zarr`` is that of an archive, see `~sunpy_deepem.io.DEMArchive`, to which the
        cubes are appended; it needs the extra ``zarr``.
    recursive, max_time_span : optional
        See `group_maps`; ``max_time_span`` is also passed to `ChannelStack.from_maps`.
    scheduler : `str`, `~concurrent.futures.Executor` or ``distributed.Client``, optional
        Where to run: ``"threads"`` or ``"processes"``, one per core; the address of a dask scheduler,
        ``"tcp://HOST:PORT"``, or its client; or any executor. By default this process inverts one set after the
        other and reads the next one meanwhile. Workers on other machines need this package and the same files at the
        same paths.
    overwrite : `bool`, optional
        Whether to invert all sets again. Without it, files made with other options count as failed.
    progress : `bool`, optional
        Whether to show a progress bar.
    **invert_options
        Passed to `sunpy_deepem.invert`.

    Returns
    -------
    `SeriesReport` or `DEMCubeSequence`
        With ``out``, the report, also written to ``report.json`` in that folder, or ``report-3-of-40.json`` for that
        part; beside an archive ``series.zarr`` to ``series-report.json``. Without it, the cubes in order of time, with
        the report in ``meta["report"]``.

    Raises
    ------
    FileNotFoundError, TypeError
        See `group_maps`; or if the weights do not exist, or `invert` does not have an option.
    ValueError
        If ``source`` holds no map of the six channels, ``scheduler`` is invalid, ``out`` ends in ``.zarr`` and is not
        an archive, or, without ``out``, all sets failed.
    OSError
        If ``out`` is not writable, or the dask scheduler cannot be reached.
    ImportError
        If ``scheduler`` needs dask, or an archive zarr, which is not installed.

    Warns
    -----
    sunpy.util.exceptions.SunpyUserWarning
        If a set failed and ``out`` is not given.

    Examples
    --------
    >>> from sunpy_deepem.series import invert_series
    >>> times = ["2014-01-01T00:00", "2014-01-01T00:02"]
    >>> sequence = invert_series([smap for time in times for smap in sample_maps((32, 32), obstime=time)])
    >>> sequence.shape
    (2, 18, 32, 32)
    """
    check_names(invert_options, "invert_series")
    sets = source
    if not isinstance(source, ChannelSets):
        sets = group_maps(
            source,
            recursive=recursive,
            max_time_span=max_time_span,
            channels=invert_options.get("channels"),
        )
    # A part of few sets may be empty.
    if not (sets.complete or sets.failed) and sets.since is sets.part is None:
        msg = f"source holds no AIA map of the six channels, found {len(sets.ignored)} maps of other kinds."
        raise ValueError(msg)
    log.info("Found %s.", sets)
    target = None if out is None else checked_target(checked_path(out, "out"))
    jobs = dict(enumerate(make_jobs(sets, target, {"max_time_span": max_time_span} | invert_options)))
    for job in jobs.values():
        if job.path is not None:
            check_distinct(job.path, job.sources)
    finished, cubes = {}, {}
    with open_pool(scheduler) as pool, tqdm(total=len(jobs), desc="Sets", unit="set", disable=not progress) as bar:
        try:
            for index, result, cube in run_jobs(pool, jobs, overwrite=overwrite):
                finished[index], cubes[index] = result, cube
                bar.update()
        finally:
            # Also after an interrupt.
            report = make_report(sets, jobs, finished)
            if target is None:
                log.info("%s", report.counts)  # failed sets are a warning or an error
            else:
                path = report_path(target, sets.part)
                # A run with other options must not replace the report of the files that are there.
                is_kept = not report.paths and path.exists()
                if not is_kept:
                    report.write(path)
                clean_target(target)
                log_report(report, report_path(checked_path(out), sets.part), is_kept=is_kept)
    if target is not None:
        return report
    return _sequence([cubes[index] for index in sorted(cubes) if cubes[index] is not None], report)


def run_jobs(pool, jobs, *, overwrite=False):
    """
    Invert the sets of jobs; those whose cube exists in a file or archive are checked first.

    Parameters
    ----------
    pool : `JobPool` or `SerialPool`
    jobs : `dict`
        All of one folder, one archive or without a path.
    overwrite : `bool`, optional
        Whether to invert all sets again.

    Yields
    ------
    key, result, cube
        Key of a job, its `SetResult`, and its `DEMCube` unless that was written to a file or archive.
    """
    missing = dict(jobs)
    if not overwrite:
        for key, result in _existing(pool, jobs):
            del missing[key]
            yield key, result, None
    archive = next((job.path for job in jobs.values() if is_archive(job.path)), None)
    if archive is not None:
        # The first set that is inverted creates it; then it gets all times in their order.
        while missing and not archive.exists():
            key = next(iter(missing))
            for _, (result, _) in _outcomes(pool, invert_set, {key: missing.pop(key)}, read_set):
                yield key, result, None
        if archive.exists():
            DEMArchive(archive).reserve([job.time for job in jobs.values()])
    for key, (result, cube) in _outcomes(pool, invert_set, missing, read_set):
        yield key, result, cube


def _existing(pool, jobs):
    """Yield key and result of the jobs whose cube exists."""
    yield from stored_results(jobs)
    files = {key: job for key, job in jobs.items() if job.path is not None and job.path.is_file()}
    for key, (result, _) in _outcomes(pool, check_file, files):
        if result is not None:
            yield key, result


def log_report(report, path, *, is_kept=False):
    """Log a report and the path of its file, which may be that of an earlier run, kept."""
    name = "The report of an earlier run is kept" if is_kept else "Report"
    log.log(WARNING if report.failed else INFO, "%s\n%s: %s", report, name, path)


def _outcomes(pool, function, jobs, prepare=None):
    """Yield ``(key, (result, cube))`` of each job."""
    for key, future in pool.run(function, jobs, prepare):
        error = future.exception()
        # dask retries the job of a killed worker; an error that arrives here is final.
        yield key, future.result() if error is None else (jobs[key].failed(error_reason(error)), None)


def checked_target(path):
    """Return the absolute path of the folder or archive to write to; raise if it cannot be written."""
    if is_archive(path):
        path = _writable_folder(path.absolute().parent) / path.name
        check_archive(path)
    else:
        path = _writable_folder(path)
    clean_target(path)
    return path


def clean_target(path):
    """Remove what killed processes left in a folder or archive."""
    if not is_archive(path):
        remove_orphans(path)
    elif path.exists():
        DEMArchive(path).clean()


def _writable_folder(folder):
    """Create a folder if necessary and return its absolute path; raise if it is not writable."""
    if folder.suffix and folder.name.lower().endswith(FITS_SUFFIXES):
        msg = f"out must be a folder, found the name of a FITS file, {folder}. A series writes one file per set."
        raise ValueError(msg)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        msg = f"out: the folder {folder} cannot be written to ({error.strerror}). Choose another, or change its rights."
        raise type(error)(msg) from error
    return folder.absolute()


def _sequence(cubes, report):
    if not cubes:
        msg = f"No set of source could be inverted.\n{report}"
        raise ValueError(msg)
    if report.failed:
        warn_user(f"Sets are missing from the sequence.\n{report}")
    return DEMCubeSequence(cubes, meta={"report": report})
