"""
``DEMCube.read`` and ``DEMCube.write``, which find readers and writers in `astropy.io.registry`.

The formats register themselves in `sunpy_deepem.io`, which imports the cube; it is imported when it is first needed.
"""

from importlib import import_module
from pathlib import Path

from astropy.io.registry import UnifiedReadWrite

from sunpy_deepem.cube.precision import round_cube
from sunpy_deepem.utils.files import checked_path

__all__ = ["DEMCubeRead", "DEMCubeWrite", "check_path", "identify_asdf", "identify_fits"]

_FITS_SUFFIXES = (".fits", ".fit", ".fts", ".fits.gz")
_ASDF_SUFFIX = ".asdf"
_FITS_STARTS, _ASDF_START = (b"SIMPLE  =", b"\x1f\x8b"), b"#ASDF"


class DEMCubeRead(UnifiedReadWrite):
    """
    Read a cube from a file by `write`, or by another program in the same layout.

    Parameters
    ----------
    path : `str` or `pathlib.Path`
    format : {"fits", "asdf"}, optional
        By default found from the content.
    chunks : `int`, `tuple` or ``"auto"``, optional
        Chunks, as for dask, in which the arrays of a FITS file are read when they are needed, without verifying their
        checksums. By default the whole file is read at once.

    Returns
    -------
    `DEMCube`

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file is neither FITS nor ASDF, is truncated or damaged, or is not a DEM cube.
    ImportError
        If the file is ASDF and the extra ``asdf`` is not installed.

    Examples
    --------
    >>> from sunpy_deepem import DEMCube
    >>> DEMCube.read("nowhere.fits")
    Traceback (most recent call last):
    FileNotFoundError: There is no file nowhere.fits.

    Other packages may register more formats with `astropy.io.registry`.
    """

    def __init__(self, instance, cls):
        _register_formats()
        super().__init__(instance, cls, "read")

    def __call__(self, path, *, format=None, chunks=None):
        """Read a cube, see the class."""
        path = checked_path(path)
        if path.is_dir():
            msg = f"{path} is a folder. Pass the path of a file."
            raise ValueError(msg)
        if not path.is_file():
            msg = f"There is no file {path}."
            raise FileNotFoundError(msg)
        if format is None:
            found = self.registry.identify_format("read", self._cls, path, None, [path], {})
            if len(found) != 1:
                msg = (
                    f"{path} is neither FITS nor ASDF: it starts with {_start_of(path)!r}. Cubes are written by "
                    "DEMCube.write."
                )
                raise ValueError(msg)
            format = found[0]
        return self.registry.read(self._cls, path, format=format, chunks=chunks)


class DEMCubeWrite(UnifiedReadWrite):
    """
    Write the cube to a file. The file is complete or not written at all.

    Parameters
    ----------
    path : `str` or `pathlib.Path`
        Ends in ``.fits``, ``.fit``, ``.fts``, ``.fits.gz`` or ``.asdf``.
    format : {"fits", "asdf"}, optional
        By default found from the suffix.
    overwrite : `bool`, optional
        Whether to replace an existing file.
    compress : `bool`, optional
        Whether to compress the arrays, without loss.
    precision : `float`, optional
        Largest relative error of EM and intensities, such as 0.01; five times that for σ and χ². The arrays are
        rounded and compressed. Masks, flags and NaN are exact. By default nothing is rounded.

    Raises
    ------
    FileExistsError
        If the file exists and ``overwrite`` is `False`.
    FileNotFoundError
        If the folder does not exist.
    ValueError
        If the suffix is unknown, the cube lacks an axis, or ``precision`` is not above 0 and at most 0.1.
    TypeError
        If ``precision`` is not a number.
    ImportError
        If the file is ASDF and the extra ``asdf`` is not installed.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from pathlib import Path
    >>> from sunpy_deepem import DEMCube
    >>> dem = invert(sample_maps((64, 64)))
    >>> with TemporaryDirectory() as folder:
    ...     dem.write(Path(folder) / "dem.fits", compress=True)
    ...     again = DEMCube.read(Path(folder) / "dem.fits")
    >>> bool((again.data == dem.data).all())
    True

    Other packages may register more formats with `astropy.io.registry`.
    """

    def __init__(self, instance, cls):
        _register_formats()
        super().__init__(instance, cls, "write")

    def __call__(self, path, *, format=None, overwrite=False, compress=False, precision=None):
        """Write a cube, see the class."""
        check_path(path)
        path = Path(path)
        self._instance._require_3d("write")
        if format is None:
            (format,) = self.registry.identify_format("write", self._cls, path, None, [path], {})
        cube = self._instance
        if precision is not None:
            cube, compress = round_cube(cube, precision), True
        self.registry.write(cube, path, format=format, overwrite=overwrite, compress=compress)


def check_path(path):
    """
    Check the name of a file for a cube before a long computation.

    Parameters
    ----------
    path : `str` or `pathlib.Path`

    Raises
    ------
    ValueError
        If the suffix is not ``.fits``, ``.fit``, ``.fts``, ``.fits.gz`` or ``.asdf``, or ``path`` is a folder.
    """
    path = checked_path(path)
    if path.is_dir() or not path.name.lower().endswith((*_FITS_SUFFIXES, _ASDF_SUFFIX)):
        msg = f"path must end in {', '.join(_FITS_SUFFIXES)} or {_ASDF_SUFFIX}, found {path}."
        raise ValueError(msg)


def identify_fits(origin, path, fileobj, *args, **kwargs):
    """Return whether a file is FITS, by its content if it is read and by its suffix if it is written."""
    if origin == "read":
        return _start_of(path).startswith(_FITS_STARTS)
    return str(path).lower().endswith(_FITS_SUFFIXES)


def identify_asdf(origin, path, fileobj, *args, **kwargs):
    """Return whether a file is ASDF, by its content if it is read and by its suffix if it is written."""
    if origin == "read":
        return _start_of(path).startswith(_ASDF_START)
    return str(path).lower().endswith(_ASDF_SUFFIX)


def _register_formats():
    import_module("sunpy_deepem.io")


def _start_of(path):
    with Path(path).open("rb") as file:
        return file.read(len(_FITS_STARTS[0]))
