"""
Readers and writers of cubes for `astropy.io.registry`.

The layouts are described under "The format of files" in the documentation.
"""

import gzip
from contextlib import contextmanager
from pathlib import Path

from astropy.io import registry

from sunpy_deepem.cube.dem_cube import DEMCube
from sunpy_deepem.cube.input_output import identify_asdf, identify_fits
from sunpy_deepem.io.fits import read_fits, write_fits
from sunpy_deepem.io.limits import check_asdf_size
from sunpy_deepem.utils.files import atomic_path

__all__ = ["read_asdf_file", "read_fits_file", "register", "write_asdf_file", "write_fits_file"]

_ASDF_KEY = "dem"


def register():
    """Register the formats for `DEMCube.read` and `DEMCube.write`."""
    formats = (
        ("fits", read_fits_file, write_fits_file, identify_fits),
        ("asdf", read_asdf_file, write_asdf_file, identify_asdf),
    )
    # The tables of formats in the docstrings are made once all are registered.
    with registry.delay_doc_updates(DEMCube):
        for name, read, write, identify in formats:
            registry.register_reader(name, DEMCube, read, force=True)
            registry.register_writer(name, DEMCube, write, force=True)
            registry.register_identifier(name, DEMCube, identify, force=True)


def write_fits_file(cube, path, *, overwrite=False, compress=False):
    """
    Write a cube to a FITS file, gzipped if the name ends in ``.gz``.

    Parameters
    ----------
    cube : `DEMCube`
    path : `pathlib.Path`
    overwrite : `bool`, optional
        Whether to replace an existing file.
    compress : `bool`, optional
        Whether to compress the images, without loss.
    """
    cube, path = cube.compute(), Path(path)  # astropy passes paths as text
    with atomic_path(path, overwrite=overwrite) as partial:
        if path.name.lower().endswith(".gz"):
            with gzip.open(partial, "wb") as file:
                write_fits(cube, file, compress=compress)
        else:
            write_fits(cube, partial, compress=compress)


def write_asdf_file(cube, path, *, overwrite=False, compress=False):
    """
    Write a cube to an ASDF file.

    Parameters
    ----------
    cube : `DEMCube`
    path : `pathlib.Path`
    overwrite : `bool`, optional
        Whether to replace an existing file.
    compress : `bool`, optional
        Whether to compress the arrays, without loss.
    """
    cube, path = cube.compute(), Path(path)  # astropy passes paths as text
    with atomic_path(path, overwrite=overwrite) as partial:
        tree = _import_asdf().AsdfFile({_ASDF_KEY: cube})
        tree.write_to(partial, all_array_compression="zlib" if compress else None)


def read_fits_file(path, *, chunks=None):
    """
    Read a cube from a FITS file.

    Parameters
    ----------
    path : `pathlib.Path`
    chunks : `int`, `tuple` or ``"auto"``, optional
        Chunks, as for dask, in which the arrays are read when they are needed.
    """
    _check_chunks(chunks)
    path = Path(path)
    with _as_value_error(path):
        return read_fits(path, chunks=chunks)


def read_asdf_file(path, *, chunks=None):
    """
    Read a cube from an ASDF file.

    Parameters
    ----------
    path : `pathlib.Path`
    chunks : `None`, optional
        Not supported.
    """
    asdf, path = _import_asdf(), Path(path)
    if chunks is not None:
        msg = f"chunks is for FITS files only, found {path}."
        raise ValueError(msg)
    with _as_value_error(path), asdf.config_context() as config:
        check_asdf_size(path)
        # A tree that does not fit its schemas is an error here, not a warning.
        config.validate_on_read, config.warn_on_failed_conversion = True, False
        with asdf.open(path, memmap=False, lazy_load=False, validate_checksums=True) as file:
            cube, found = file.tree.get(_ASDF_KEY), sorted(map(str, file.tree))
        if not isinstance(cube, DEMCube):
            msg = f"its tree must have a DEMCube under {_ASDF_KEY!r}, found {found}"
            raise ValueError(msg)
    return cube


@contextmanager
def _as_value_error(path):
    """Raise `ValueError` with the path for any error of the libraries, which do not check damaged files."""
    try:
        yield
    except Exception as error:
        msg = (
            f"{path} cannot be read as a DEM cube ({type(error).__name__}: {error}). It may be truncated, damaged or "
            "of another kind; cubes are written by DEMCube.write."
        )
        raise ValueError(msg) from error


def _check_chunks(chunks):
    if not _is_chunks(chunks):
        msg = (
            f"chunks must be a positive whole number, a tuple of them for log T, y and x, or 'auto', found {chunks!r}."
        )
        raise ValueError(msg)


def _is_chunks(chunks):
    """Return whether dask accepts the chunks; -1 means a single chunk along an axis."""
    if isinstance(chunks, tuple):
        return len(chunks) == 3 and all(_is_chunks(each) for each in chunks)
    whole = isinstance(chunks, int) and not isinstance(chunks, bool) and (chunks > 0 or chunks == -1)
    return whole or chunks is None or (isinstance(chunks, str) and chunks == "auto")


def _import_asdf():
    try:
        import asdf
        import asdf_astropy  # noqa: F401 - its converters are needed, by entry point
    except ImportError as error:
        msg = 'ASDF files need the packages asdf and asdf-astropy: pip install "sunpy_deepem[asdf]".'
        raise ImportError(msg) from error
    return asdf
