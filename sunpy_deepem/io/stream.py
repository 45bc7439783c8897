"""Cubes larger than memory: written to a file band by band, or computed in chunks as they are needed."""

import io
import os
from collections import Counter
from threading import Lock

import numpy as np
from astropy.io import fits
from astropy.nddata import StdDevUncertainty
from tqdm.auto import tqdm

from sunpy_deepem.calibrate.alignment import block_mean
from sunpy_deepem.cube import operations as _operations
from sunpy_deepem.cube.planes import join_parts
from sunpy_deepem.inversion import solve_stack, survey
from sunpy_deepem.io import fits as _fits
from sunpy_deepem.methods.base import method_provenance
from sunpy_deepem.quality import MASKED
from sunpy_deepem.units import EM_UNIT, INTENSITY_UNIT
from sunpy_deepem.utils.files import atomic_path, check_target
from sunpy_deepem.utils.parallel import thread_map
from sunpy_deepem.utils.wcs import cube_wcs

__all__ = ["lazy_cube", "write_bands"]

# Misalignment is measured on images of about this size.
_TO_ALIGN = 512
_FITS_BLOCK = 2880
# Rows, evenly spaced, by which an image is judged as a whole.
_SURVEYED = 16
# Names of a cube's parts in its file; those of its companions are the same but for their case.
_HDU_NAMES = {"em": "EM", "std": "UNCERT", "mask": "MASK"}


def write_bands(observation, method, response, path, *, overwrite=False, progress=False):
    """
    Invert an observation band by band of rows into a FITS file, in single precision.

    Parameters
    ----------
    observation : `sunpy_deepem.stack.Observation`
    method : `Method`
    response : `TemperatureResponse`
    path : `str` or `pathlib.Path`
        Ends in ``.fits``.
    overwrite : `bool`, optional
        Whether a file that is there may be replaced.
    progress : `bool`, optional
        Whether to show a progress bar.
    """
    if not str(path).lower().endswith(".fits"):
        msg = f"out must end in .fits, found {path}. Other formats are written by DEMCube.write."
        raise ValueError(msg)
    check_target(path, overwrite=overwrite)
    block = min(max(1, max(observation.shape) // _TO_ALIGN), *observation.shape)
    bands = observation.bands(multiple=block)
    deviation = None
    if len(bands) > 1:
        deviation = survey(_surveyed(observation), method)
    whole_columns = slice(0, observation.shape[1])
    coarse, unsolved = {}, Counter()
    with atomic_path(path, overwrite=overwrite) as partial:
        # One row tells the layout of all.
        first = _images(observation.part(slice(0, 1), whole_columns), method, response, deviation)[0]
        cube = _cube(first, observation, method, response)
        with _FitsImages(partial, _fits.image_hdus(cube), observation.shape[0]) as file:

            def invert(rows):
                stack = observation.part(rows, whole_columns)
                images, failed = _images(stack, method, response, deviation)
                for name, image in images.items():
                    file.write(_HDU_NAMES.get(name, name.upper()), rows.start, image)
                means = [block_mean(np.nan_to_num(image), block) for image in stack.intensity.value]
                return rows.start, np.array(means, dtype=np.float32), failed

            with _workers(method) as map_bands:
                for start, means, failed in tqdm(map_bands(invert, bands), total=len(bands), disable=not progress):
                    # Here, while the bands that come next are worked on, as it may have to wait for the disk.
                    file.release()
                    coarse[start] = means
                    unsolved += failed
        misalignment = observation.misalignment(np.concatenate([coarse[start] for start in sorted(coarse)], axis=1))
        cube.meta["provenance"] |= {"misalignment": misalignment} | ({"unsolved": dict(unsolved)} if unsolved else {})
        with fits.open(partial, mode="append") as hdus:
            for table in _fits.table_hdus(cube):
                hdus.append(table)


def lazy_cube(observation, method, response, chunks):
    """
    Return a `DEMCube` of dask arrays, of which a chunk is calibrated and inverted when it is needed.

    Parameters
    ----------
    observation, method, response
        As for `write_bands`.
    chunks : `int` or `tuple` of two `int`
        Rows and columns of a chunk.
    """
    steps = _checked_chunks(chunks)
    da = _fits.import_dask_array()
    import dask

    rows, columns = (
        [slice(start, min(start + step, n)) for start in range(0, n, step)]
        for n, step in zip(observation.shape, steps, strict=True)
    )
    deviation = survey(_surveyed(observation), method)
    like = _images(observation.part(slice(0, 1), slice(0, 1)), method, response, deviation)[0]

    def invert(rows, columns):
        return _images(observation.part(rows, columns), method, response, deviation)[0]

    delayed = dask.delayed(invert, pure=False)
    parts = [[(delayed(r, c), (r.stop - r.start, c.stop - c.start)) for c in columns] for r in rows]
    images = {
        name: da.block(
            [
                [da.from_delayed(part[name], (*image.shape[:-2], *shape), dtype=image.dtype) for part, shape in line]
                for line in parts
            ]
        )
        for name, image in like.items()
    }
    return _cube(images, observation, method, response)


class _FitsImages:
    """
    The images of a FITS file, of which rows are written in any order and by any thread.

    Parameters
    ----------
    path : `pathlib.Path`
    hdus : `list`
        HDUs of the same images with one row each.
    n_rows : `int`
        How many rows they are to have.
    """

    def __init__(self, path, hdus, n_rows):
        template = io.BytesIO()
        fits.HDUList(hdus).writeto(template)
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
            self._file.seek(_padded(_n_bytes(header)), os.SEEK_CUR)
        self._file.truncate()

    def write(self, name, row, image):
        """Write rows, from ``row`` on, of shape ``(rows, columns)`` for all planes or ``(planes, rows, columns)``."""
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
        """Have the system send what was written to the disk soon, rather than keep all of the file in memory."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        with self._file:
            for name, header in self._headers.items():
                header["DATASUM"] = f"{_datasum(self._sums[name]):010d}"
                text = header.tostring().encode("ascii")
                self._file.seek(self._offsets[name] - len(text))
                self._file.write(text)


def _n_bytes(header):
    return abs(header["BITPIX"]) // 8 * int(np.prod([header[f"NAXIS{axis + 1}"] for axis in range(header["NAXIS"])]))


def _padded(n):
    return -(-n // _FITS_BLOCK) * _FITS_BLOCK


def _stored(image, header):
    """Return the values as FITS stores them: big-endian, unsigned integers as signed ones."""
    dtype = np.dtype(fits.BITPIX2DTYPE[header["BITPIX"]]).newbyteorder(">")
    zero = header.get("BZERO", 0)
    return (image.astype(np.int64) - zero if zero else image).astype(dtype)


def _sum_of_words(data, start):
    """Return the sum of the words of 32 bits of an array that lies ``start`` bytes after the first of the image."""
    words = data.reshape(-1).view(np.uint8)
    before, after = start % 4, -(start + words.size) % 4
    if before or after:
        words = np.pad(words, (before, after))
    return int(words.view(">u4").sum(dtype=np.uint64))


def _datasum(total):
    """Return the ones' complement sum that FITS asks for."""
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def _workers(method):
    """Return a context that yields a ``map`` over parts of an image."""
    return method.workers() if hasattr(method, "workers") else thread_map(limit_blas=True)


def _surveyed(observation):
    """Return a few rows of an observation, each as a `ChannelStack`."""
    ny, nx = observation.shape
    rows = np.unique(np.linspace(0, ny - 1, min(_SURVEYED, ny)).round().astype(int))
    return [observation.part(slice(row, row + 1), slice(0, nx)) for row in rows.tolist()]


def _checked_chunks(chunks):
    steps = (chunks, chunks) if np.ndim(chunks) == 0 else tuple(chunks)
    if len(steps) != 2 or not all(isinstance(step, int | np.integer) and step > 0 for step in steps):
        msg = f"chunks must be a positive whole number or two of them, (rows, columns), found {chunks!r}."
        raise ValueError(msg)
    return steps


def _images(stack, method, response, deviation):
    """Return what a `DEMCube` of a stack holds for each pixel, by name, and the `Counter` of unsolved ones."""
    em, em_std, quality, unsolved = solve_stack(stack, method, response, deviation)
    images = {"em": em} | ({} if em_std is None else {"std": em_std})
    chi2, quality = _operations.judge_fit(images["em"], stack.intensity, stack.uncertainty, response, quality)
    images["mask"] = (quality & MASKED) != 0
    observed = (array.to_value(INTENSITY_UNIT) for array in (stack.intensity, stack.uncertainty))
    return images | _operations.companions_of(*observed, chi2, quality, stack.saturation), unsolved


def _cube(images, observation, method, response):
    """Return the `DEMCube` of the images, be they NumPy's or dask's."""
    em, std, mask, companions = (
        images["em"].astype(float),
        images.get("std"),
        images["mask"],
        {name: image for name, image in images.items() if name not in ("em", "std", "mask")},
    )
    log_t_range = {"log_t_range": response.bins.edges[[0, -1]].tolist()}
    return join_parts(
        em,
        wcs=cube_wcs(observation.header, response.bins),
        unit=EM_UNIT,
        mask=np.broadcast_to(mask, em.shape),
        uncertainty=None if std is None else StdDevUncertainty(std.astype(float), copy=False),
        images=companions,
        response=response,
        inputs=observation.inputs,
        provenance=observation.meta | method_provenance(method) | log_t_range,
        extra={},
    )
