"""Series that are written to an archive."""

from contextlib import suppress

from sunpy_deepem.io.archive import DEMArchive
from sunpy_deepem.utils.files import is_archive

__all__ = ["check_archive", "stored_results", "write_to_archive"]


def check_archive(path):
    """
    Check an archive to write to, if it exists, and remove what killed processes left.

    Parameters
    ----------
    path : `pathlib.Path`

    Raises
    ------
    ValueError
        If it is something else.
    ImportError
        If the extra ``zarr`` is not installed.
    """
    if path.exists():
        DEMArchive(path).clean()
    else:
        DEMArchive.check_installed()


def stored_results(jobs):
    """
    Yield the results of the jobs whose cubes are in an archive.

    Parameters
    ----------
    jobs : `dict` of `~sunpy_deepem.series.jobs.Job`

    Yields
    ------
    key, result
        Key of a job and its `SetResult`.
    """
    archives = {job.path for job in jobs.values() if is_archive(job.path) and job.path.exists()}
    for archive in map(DEMArchive, archives):
        for key, job in jobs.items():
            index = archive.find(job.time)
            if index is not None:
                yield key, job.compared(archive.facts(index)["provenance"].get("series", {}))


def write_to_archive(path, cube, time):
    """
    Append a cube to an archive, which is created if it does not exist.

    Parameters
    ----------
    path : `pathlib.Path`
    cube : `DEMCube`
    time : `~astropy.time.Time`
    """
    if not path.exists():
        with suppress(FileExistsError):  # another process is faster
            DEMArchive.create(path, cube.data.shape[1:], cube.bins)
    DEMArchive(path).append(cube, time=time)
