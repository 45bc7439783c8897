"""Writing files whole or not at all."""

import os
import uuid
from contextlib import contextmanager
from pathlib import Path

__all__ = ["atomic_path"]


@contextmanager
def atomic_path(path, *, overwrite=True):
    """
    Give a path to write to, which takes the name ``path`` when the block ends without an error.

    Parameters
    ----------
    path : `str` or `pathlib.Path`
    overwrite : `bool`, optional
        Whether a file that is there may be replaced.

    Raises
    ------
    FileExistsError
        If there is a file and ``overwrite`` is `False`.
    FileNotFoundError
        If the folder does not exist.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        msg = f"{path} exists. Pass overwrite=True to replace it."
        raise FileExistsError(msg)
    if not path.absolute().parent.is_dir():
        msg = f"{path} lies in a folder that does not exist. Make {path.parent} first."
        raise FileNotFoundError(msg)
    # A name of its own, as several machines may write to one folder.
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
