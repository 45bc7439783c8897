"""Paths and atomic writing of files."""

import os
import uuid
from contextlib import contextmanager
from pathlib import Path

__all__ = ["FITS_SUFFIXES", "atomic_path", "check_target", "checked_path"]

#: Suffixes of FITS files, compressed ones included.
FITS_SUFFIXES = (".fits", ".fit", ".fts", ".fits.gz", ".fits.fz")


def checked_path(path, name="path"):
    """Return a `~pathlib.Path`, or raise `TypeError`."""
    try:
        return Path(path)
    except TypeError:
        msg = f"{name} must be a str or pathlib.Path, found {type(path).__name__}."
        raise TypeError(msg) from None


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
    folder = path.absolute().parent
    if not folder.is_dir():
        msg = f"{path} lies in a folder that does not exist. Create {path.parent} first."
        raise FileNotFoundError(msg)
    if not os.access(folder, os.W_OK):
        msg = f"{path} lies in a folder that cannot be written to. Choose another folder or change its permissions."
        raise PermissionError(msg)


@contextmanager
def atomic_path(path, *, overwrite=True):
    """
    Yield a temporary path that is renamed to ``path`` if the block succeeds.

    Parameters
    ----------
    path : `str` or `pathlib.Path`
    overwrite : `bool`, optional
        Whether to replace an existing file.

    Raises
    ------
    OSError
        As `check_target`, or if writing fails, for example on a full disk. An existing file is then unchanged.
    """
    check_target(path, overwrite=overwrite)
    path = Path(path)
    # A unique name, because several machines may write to one folder.
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        if error.filename not in (None, str(partial)):
            raise  # another file failed
        msg = f"{path} could not be written: {error.strerror or error}. An existing file is unchanged."
        raise OSError(msg) from error
    finally:
        partial.unlink(missing_ok=True)
