"""
Files of cubes, FITS and ASDF, both ways.

Files are written whole or not at all, and what is no cube, or no longer one, is refused with a reason. The layouts are
described under "The format of files" in the documentation.
"""

import gzip
from pathlib import Path

from sunpy_deepem.cube.dem_cube import DEMCube
from sunpy_deepem.cube.planes import in_memory
from sunpy_deepem.io.fits import read_fits, write_fits
from sunpy_deepem.utils.files import atomic_path, checked_path

__all__ = ["check_path", "read_cube", "write_cube"]

_FITS_SUFFIXES = (".fits", ".fit", ".fts", ".fits.gz")
_FITS_STARTS = (b"SIMPLE  =", b"\x1f\x8b")
_ASDF_SUFFIX, _ASDF_START = ".asdf", b"#ASDF"
_ASDF_KEY = "dem"


def check_path(path):
    """
    Raise unless a cube can be written to a file of this name, before it takes long to make the cube.

    Parameters
    ----------
    path : `str` or `pathlib.Path`

    Raises
    ------
    ValueError
        If the suffix is none of ``.fits``, ``.fit``, ``.fts``, ``.fits.gz`` and ``.asdf``, or ``path`` is a folder.

    Examples
    --------
    >>> from sunpy_deepem.io import check_path
    >>> check_path("dem.png")
    Traceback (most recent call last):
    ValueError: path must end in .fits, .fit, .fts, .fits.gz or .asdf, which tells the format, found dem.png.
    """
    path = checked_path(path)
    if path.is_dir() or not path.name.lower().endswith((*_FITS_SUFFIXES, _ASDF_SUFFIX)):
        msg = f"path must end in {', '.join(_FITS_SUFFIXES)} or {_ASDF_SUFFIX}, which tells the format, found {path}."
        raise ValueError(msg)


def write_cube(cube, path, *, overwrite=False, compress=False):
    """
    Write a cube to a file, as FITS or as ASDF by its suffix; the file is there whole or not at all.

    Parameters
    ----------
    cube : `DEMCube`
    path : `str` or `pathlib.Path`
        Ends in ``.fits``, ``.fit``, ``.fts``, ``.fits.gz`` or ``.asdf``.
    overwrite : `bool`, optional
        Whether a file that is there may be replaced.
    compress : `bool`, optional
        Whether to compress the arrays, without loss.

    Raises
    ------
    FileExistsError
        If there is a file and ``overwrite`` is `False`.
    FileNotFoundError
        If the folder does not exist.
    ValueError
        If the suffix is another, or the cube lacks an axis.
    ImportError
        If the file is ASDF and the extra ``asdf`` is not installed.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from sunpy_deepem.io import read_cube, write_cube
    >>> dem = invert(sample_maps((64, 64)))
    >>> with TemporaryDirectory() as folder:
    ...     write_cube(dem, Path(folder) / "dem.fits", compress=True)
    ...     again = read_cube(Path(folder) / "dem.fits")
    >>> bool((again.data == dem.data).all())
    True
    """
    check_path(path)
    path = Path(path)
    cube._require_3d("write")
    cube = in_memory(cube)
    with atomic_path(path, overwrite=overwrite) as partial:
        if path.name.lower().endswith(_ASDF_SUFFIX):
            tree = _import_asdf().AsdfFile({_ASDF_KEY: cube})
            tree.write_to(partial, all_array_compression="zlib" if compress else None)
        elif path.name.lower().endswith(".gz"):
            with gzip.open(partial, "wb") as file:
                write_fits(cube, file, compress=compress)
        else:
            write_fits(cube, partial, compress=compress)


def read_cube(path, *, chunks=None):
    """
    Read a cube that `write_cube` wrote, or another program in the same layout; its content tells FITS from ASDF.

    Parameters
    ----------
    path : `str` or `pathlib.Path`
    chunks : `int`, `tuple` or ``"auto"``, optional
        Chunks, as dask takes them, in which the arrays of a FITS file are read as they are needed, without checking
        their checksums. By default the whole file is read at once.

    Returns
    -------
    `DEMCube`

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is neither FITS nor ASDF, or ASDF with ``chunks``, is truncated or damaged, or holds no cube.
    ImportError
        If the file is ASDF and the extra ``asdf`` is not installed.

    Examples
    --------
    >>> from sunpy_deepem.io import read_cube
    >>> read_cube("nowhere.fits")
    Traceback (most recent call last):
    FileNotFoundError: There is no file nowhere.fits.
    """
    path = checked_path(path)
    if not _is_chunks(chunks):
        msg = (
            f"chunks must be a positive whole number, a tuple of them for log T, y and x, or 'auto', found {chunks!r}."
        )
        raise ValueError(msg)
    if path.is_dir():
        msg = f"{path} is a folder. Name the file in it."
        raise ValueError(msg)
    if not path.is_file():
        msg = f"There is no file {path}."
        raise FileNotFoundError(msg)
    with path.open("rb") as file:
        start = file.read(len(_FITS_STARTS[0]))
    if start.startswith(_ASDF_START):
        read = _read_asdf
        _import_asdf()
    elif start.startswith(_FITS_STARTS):
        read = read_fits
    else:
        msg = f"{path} is neither FITS nor ASDF: it starts with {start!r}. Cubes are written by DEMCube.write."
        raise ValueError(msg)
    if chunks is not None and read is not read_fits:
        msg = f"chunks is for FITS files alone, found {path}."
        raise ValueError(msg)
    try:
        return read(path) if chunks is None else read(path, chunks=chunks)
    except Exception as error:  # the libraries let through whatever a damaged file leads to
        msg = (
            f"{path} cannot be read as a DEM cube ({type(error).__name__}: {error}). It may be truncated, damaged or "
            "of another kind; cubes are written by DEMCube.write."
        )
        raise ValueError(msg) from error


def _is_chunks(chunks):
    """Whether dask can take it; -1 stands for an axis that is not divided."""
    if isinstance(chunks, tuple):
        return len(chunks) == 3 and all(_is_chunks(each) for each in chunks)
    whole = isinstance(chunks, int) and not isinstance(chunks, bool) and (chunks > 0 or chunks == -1)
    return whole or chunks is None or (isinstance(chunks, str) and chunks == "auto")


def _read_asdf(path):
    asdf = _import_asdf()
    with asdf.config_context() as config:
        # A tree that does not fit its schemas is an error here, not a warning.
        config.validate_on_read, config.warn_on_failed_conversion = True, False
        with asdf.open(path, memmap=False, lazy_load=False, validate_checksums=True) as file:
            cube, found = file.tree.get(_ASDF_KEY), sorted(map(str, file.tree))
    if not isinstance(cube, DEMCube):
        msg = f"its tree must have a DEMCube under {_ASDF_KEY!r}, found {found}"
        raise ValueError(msg)
    return cube


def _import_asdf():
    try:
        import asdf
        import asdf_astropy  # noqa: F401 - its converters are needed, by entry point
    except ImportError as error:
        msg = 'ASDF files need the packages asdf and asdf-astropy: pip install "sunpy_deepem[asdf]".'
        raise ImportError(msg) from error
    return asdf
