"""Cubes in files and in other libraries: FITS, ASDF, xarray, and cubes larger than memory."""

from sunpy_deepem.io.files import check_path, read_cube, write_cube

__all__ = ["check_path", "read_cube", "write_cube"]
