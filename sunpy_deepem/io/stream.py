"""Sinks for cubes larger than memory: a FITS file that is written part by part, and dask arrays."""

import io
import os
from threading import Lock

import numpy as np
from astropy.io import fits

from sunpy_deepem.cube.planes import Planes
from sunpy_deepem.io.fits import image_hdus, import_dask_array, table_hdus
from sunpy_deepem.utils.fits import data_bytes, folded_sum, padded

__all__ = ["FitsSink", "lazy_planes"]

# Names of HDUs that differ from those of the images.
_HDU_NAMES = {"em": "EM", "std": "UNCERT", "mask": "MASK"}


def lazy_planes(part, shape, steps):
    """
    Return planes of dask arrays, each chunk of which is computed when it is needed.

    Parameters
    ----------
    part : callable
        ``part(rows, columns)`` returns the `Planes` of a part of the sky, for two `slice`.
    shape : `tuple` of `int`
        Shape of the sky, ``(ny, nx)``.
    steps : `tuple` of `int`
        Rows and columns per chunk.

    Returns
    -------
    `~sunpy_deepem.cube.Planes`

    Raises
    ------
    ImportError
        If dask is not installed.
    """
    da = import_dask_array()
    import dask

    def arrays_of(rows, columns):
        planes = part(rows, columns)
        return _arrays(planes)

    rows, columns = (
        [slice(start, min(start + step, n)) for start in range(0, n, step)]
        for n, step in zip(shape, steps, strict=True)
    )
    like = part(slice(0, 1), slice(0, 1))
    delayed = dask.delayed(arrays_of, pure=False)
    chunks = [[(delayed(r, c), (r.stop - r.start, c.stop - c.start)) for c in columns] for r in rows]

    def joined(name, array):
        return da.block(
            [
                [da.from_delayed(chunk[name], (*array.shape[:-2], *sky), dtype=array.dtype) for chunk, sky in line]
                for line in chunks
            ]
        )

    lazy = {name: joined(name, array) for name, array in _arrays(like).items()}
    em, std, mask = lazy.pop("em"), lazy.pop("std", None), lazy.pop("mask")
    return Planes.from_images(em, std, mask, lazy, channels=like.channels)


def _arrays(planes):
    """Return the arrays of planes by name."""
    own = {"em": planes.em, "std": planes.std, "mask": planes.mask}
    return {name: array for name, array in own.items() if array is not None} | planes.images


# Not the memory map of astropy in update mode, which takes more than twice the processor time with checksums, and maps
# the whole file. StreamingHDU writes whole images in order only.
class FitsSink:
    """
    A FITS file of a cube that is written part by part, in single precision, in any order and by any thread.

    It is a context manager that writes the checksums when it exits. `write_tables` follows.

    Parameters
    ----------
    path : `pathlib.Path`
    first_row : `DEMCube`
        The first row of the cube, in single precision, which determines the layout.
    n_rows : `int`
        Number of rows of the cube.
    """

    def __init__(self, path, first_row, n_rows):
        self._path, template = path, io.BytesIO()
        fits.HDUList(image_hdus(first_row)).writeto(template)
        template.seek(0)
        with fits.open(template) as opened:
            self._headers = {hdu.name: hdu.header.copy() for hdu in opened}
        self._sums = dict.fromkeys(self._headers, 0)
        self._lock = Lock()
        self._offsets = {}
        self._file = path.open("wb")
        for name, header in self._headers.items():
            header["NAXIS2"] = n_rows
            header["DATASUM"] = ("0" * 10, "data unit checksum")
            self._file.write(header.tostring().encode("ascii"))
            self._offsets[name] = self._file.tell()
            self._file.seek(padded(data_bytes(header)), os.SEEK_CUR)
        self._file.truncate()

    def write(self, planes, row):
        """
        Write the planes of whole rows.

        Parameters
        ----------
        planes : `~sunpy_deepem.cube.Planes`
        row : `int`
            Index of their first row.
        """
        for name, array in _arrays(planes).items():
            self._write_image(_HDU_NAMES.get(name, name.upper()), row, array)

    def _write_image(self, name, row, image):
        """Write rows of an image, shape ``(rows, columns)`` for all planes or ``(planes, rows, columns)``."""
        header = self._headers[name]
        stored = _stored(image, header)
        row_bytes = header["NAXIS1"] * stored.itemsize
        for plane in range(header.get("NAXIS3", 1)):
            start = (plane * header["NAXIS2"] + row) * row_bytes
            data = np.ascontiguousarray(stored[plane] if stored.ndim == 3 else stored)
            total = _sum_of_words(data, start)
            with self._lock:
                self._sums[name] += total
                self._file.seek(self._offsets[name] + start)
                self._file.write(data.data)

    def release(self):
        """Ask the system to write to the disk soon, so that the file does not fill the memory."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def write_tables(self, cube):
        """
        Append the tables of a cube, after the end of the context.

        Parameters
        ----------
        cube : `DEMCube`
            Its arrays are not used.
        """
        with fits.open(self._path, mode="append") as hdus:
            for table in table_hdus(cube):
                hdus.append(table)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        with self._file:
            for name, header in self._headers.items():
                header["DATASUM"] = f"{folded_sum(self._sums[name]):010d}"
                text = header.tostring().encode("ascii")
                self._file.seek(self._offsets[name] - len(text))
                self._file.write(text)


def _stored(image, header):
    """Return the values as FITS stores them: big-endian, and unsigned integers as signed with an offset."""
    dtype = np.dtype(fits.BITPIX2DTYPE[header["BITPIX"]]).newbyteorder(">")
    zero = header.get("BZERO", 0)
    return (image.astype(np.int64) - zero if zero else image).astype(dtype)


def _sum_of_words(data, start):
    """Return the sum of the 32-bit words of an array that starts ``start`` bytes after the image."""
    words = data.reshape(-1).view(np.uint8)
    before, after = start % 4, -(start + words.size) % 4
    if before or after:
        words = np.pad(words, (before, after))
    return int(words.view(">u4").sum(dtype=np.uint64))
