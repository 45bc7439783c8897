"""Paths and atomic writing of files."""

import errno
import os
import re
import shutil
import time
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]
    import msvcrt

__all__ = [
    "ARCHIVE_SUFFIX",
    "FITS_SUFFIXES",
    "atomic_path",
    "check_distinct",
    "check_target",
    "checked_path",
    "cube_name",
    "file_lock",
    "is_archive",
    "remove_orphans",
    "temporary_folder",
]

#: Suffixes of FITS files, compressed ones included.
FITS_SUFFIXES = (".fits", ".fit", ".fts", ".fits.gz", ".fits.fz")
#: Suffix of an archive of cubes.
ARCHIVE_SUFFIX = ".zarr"

# Seconds between attempts to get a lock.
_PATIENCE = 0.01
# Locks of partial files.
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{32}\.lock", re.DOTALL)


def checked_path(path, name="path"):
    """Return a `~pathlib.Path`, or raise `TypeError`."""
    try:
        return Path(path)
    except TypeError:
        msg = f"{name} must be a str or pathlib.Path, found {type(path).__name__}."
        raise TypeError(msg) from None


def is_archive(path):
    """Return whether a path, or `None`, is that of an archive of cubes, by its name."""
    return path is not None and path.name.lower().endswith(ARCHIVE_SUFFIX)


def cube_name(time):
    """Return the name of the file of a cube, by its `~astropy.time.Time`."""
    return f"deepem_{time.utc.isot[:19].replace(':', '')}.fits"


def check_target(path, *, overwrite=True):
    """
    Raise unless a file can be written to ``path``.

    Parameters
    ----------
    path : `str` or `pathlib.Path`
    overwrite : `bool`, optional
        Whether to replace an existing file.

    Raises
    ------
    FileExistsError
        If the file exists and ``overwrite`` is `False`.
    FileNotFoundError
        If the folder does not exist.
    PermissionError
        If the folder cannot be written to.
    OSError
        If ``path`` is a folder or a device.
    """
    path = checked_path(path)
    if path.exists() and not overwrite:
        msg = f"{path} exists. Pass overwrite=True to replace it."
        raise FileExistsError(msg)
    # Replacing a device such as /dev/null would break other programs.
    if path.exists() and not path.is_file():
        msg = f"{path} is a {'folder' if path.is_dir() else 'device'}, not a file. Give the name of a file."
        raise OSError(msg)
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        msg = f"{path} lies in a folder that does not exist. Create {path.parent} first."
        raise FileNotFoundError(msg)
    if not os.access(folder, os.W_OK):
        msg = f"{path} lies in a folder that cannot be written to. Choose another folder or change its permissions."
        raise PermissionError(msg)


def check_distinct(path, sources, name="out"):
    """
    Raise `ValueError` if a file to write is one of the files to read, by any name.

    Parameters
    ----------
    path : `str` or `pathlib.Path`
    sources : `str`, `pathlib.Path`, sequence or other
        Files and folders; anything else is ignored.
    name : `str`, optional
        Name of the argument in the message.
    """
    path = checked_path(path, name)
    if not path.exists():
        return
    for source in sources if isinstance(sources, list | tuple) else [sources]:
        if not isinstance(source, str | Path):
            continue
        source = Path(source)
        files = source.iterdir() if source.is_dir() else [source]
        if any(file.is_file() and file.samefile(path) for file in files):
            msg = f"{name} is one of the files to read, {path}. Choose another name, so that no input is replaced."
            raise ValueError(msg)


@contextmanager
def atomic_path(path, *, overwrite=True):
    """
    Yield a temporary path that is renamed to ``path`` if the block succeeds.

    Links are followed, and the permissions of an existing file are kept. Temporary files that earlier processes left,
    because they were killed, are removed.

    Parameters
    ----------
    path : `str` or `pathlib.Path`
    overwrite : `bool`, optional
        Whether to replace an existing file.

    Raises
    ------
    FileExistsError
        If the file exists and ``overwrite`` is `False`, also if another process wrote it meanwhile.
    OSError
        As `check_target`, or if writing fails, for example on a full disk. An existing file is then unchanged.
    """
    check_target(path, overwrite=overwrite)
    target = Path(os.path.realpath(path))
    remove_orphans(target.parent, target.name)
    try:
        with _owned_partial(target) as partial:
            yield partial
            _rename(partial, target, overwrite=overwrite)
    except FileExistsError as error:
        if error.filename2 != str(target):
            raise
        msg = f"{path} exists: another process wrote it meanwhile. Pass overwrite=True to replace it."
        raise FileExistsError(msg) from None
    except OSError as error:
        if error.filename not in (None, str(partial)):
            raise  # another file failed
        msg = f"{path} could not be written: {error.strerror or error}. An existing file is unchanged."
        raise OSError(msg) from error


@contextmanager
def temporary_folder(folder, name):
    """
    Yield a new folder in ``folder`` for files of ``name`` that are not complete; it is removed in the end.

    Those that earlier processes left, because they were killed, are removed first.
    """
    remove_orphans(folder, name)
    with _owned_partial(folder / name) as partial:
        partial.mkdir()
        yield partial


def remove_orphans(folder, name=None):
    """
    Remove temporary files and folders of `atomic_path` and `temporary_folder` whose processes do not live any more.

    Parameters
    ----------
    folder : `pathlib.Path`
    name : `str`, optional
        Name of the file that they were to become, by default any.
    """
    for lock in list(folder.glob(".*.lock")):
        found = _TEMPORARY.fullmatch(lock.name)
        if found is None or name not in (None, found["name"]):
            continue
        try:
            with lock.open("r+b") as file:
                if not _lock(file):
                    continue
                # In this order, so that no partial file is without its lock.
                _remove(lock.with_suffix(".part"))
                lock.unlink(missing_ok=True)
        except OSError:  # removed meanwhile, or of another user
            continue


@contextmanager
def file_lock(path):
    """
    Wait for the lock of a file, as a context; no other thread or process, of any machine, is in it meanwhile.

    Parameters
    ----------
    path : `pathlib.Path`
        File of the lock, which is created and stays.

    Raises
    ------
    OSError
        If the file system has no locks.
    """
    with path.open("ab") as file:
        while not (free := _lock(file)):
            if free is None:
                msg = f"{path.parent} lies on a file system without locks. Choose another folder."
                raise OSError(msg)
            time.sleep(_PATIENCE)
        yield


@contextmanager
def _owned_partial(target):
    """Yield a new path beside a file; a lock shows other processes, of any machine, that its owner lives."""
    while True:
        lock = target.with_name(f".{target.name}.{uuid.uuid4().hex}.lock")
        with lock.open("xb") as file:
            # Another process may have found the file before it was locked, and removed it as an orphan.
            if _lock(file) is False or not lock.exists():
                continue
            partial = lock.with_suffix(".part")
            try:
                yield partial
            finally:
                _remove(partial)
                # While it is locked, except where open files cannot be removed.
                with suppress(PermissionError):
                    lock.unlink(missing_ok=True)
        lock.unlink(missing_ok=True)
        return


def _remove(path):
    """Remove a file or a folder if it exists."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _lock(file):
    """Lock an open file and return whether it was free; `None` if the file system has no locks."""
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except OSError as error:
        return False if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK) else None
    return True


def _rename(partial, target, *, overwrite):
    """Give a complete file its name; raise `FileExistsError` if it exists and ``overwrite`` is `False`."""
    if overwrite:
        if target.exists():
            shutil.copymode(target, partial)
        os.replace(partial, target)
        return
    try:
        os.link(partial, target)  # unlike os.replace, it fails if the target exists
    except FileExistsError:
        raise
    except (OSError, AttributeError, NotImplementedError):  # there are no hard links here
        try:
            target.open("xb").close()
        except FileExistsError as error:
            raise FileExistsError(error.errno, error.strerror, str(partial), None, str(target)) from None
        os.replace(partial, target)
