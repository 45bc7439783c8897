"""Packaged tables of aiapy, read once."""

from functools import cache
from importlib import resources

__all__ = ["packaged_table"]


@cache
def packaged_table(name, reader):
    """Return a table of `sunpy_deepem.data`, read by ``reader``."""
    with resources.as_file(resources.files("sunpy_deepem.data") / name) as path:
        return reader(path)
