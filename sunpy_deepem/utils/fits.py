"""Headers of FITS files without their data, checks of sizes, and checksums, none of which changes warning filters."""

import gzip
import os
from contextlib import contextmanager
from math import prod

import numpy as np
from astropy.io import fits

__all__ = [
    "MAX_BYTES",
    "check_complete",
    "check_size",
    "data_bytes",
    "folded_sum",
    "headers",
    "inflated",
    "padded",
]

#: Largest size in bytes of an image or file after decompression: that of a cube of 4096 × 4096 pixels.
MAX_BYTES = 4 * 2**30
# Bytes to which FITS pads headers and data.
_BLOCK = 2880
_HEADER_STARTS = (b"SIMPLE  ", b"XTENSION")
_GZIP_START = b"\x1f\x8b"
_ALL_ONES = 0xFFFFFFFF
# Bytes that are read at once.
_PIECE = 2**24


def padded(n):
    """Return the number of bytes that ``n`` bytes take in a FITS file."""
    return -(-n // _BLOCK) * _BLOCK


def headers(path):
    """
    Yield the headers of a FITS file, which may be gzipped, without reading or decompressing images.

    Parameters
    ----------
    path : `pathlib.Path`

    Yields
    ------
    `~astropy.io.fits.Header`

    Raises
    ------
    ValueError
        If a header cannot be read, or the images are larger than `MAX_BYTES` after decompression.
    """
    with _opened(path) as file:
        total = 0
        for header, _, _ in _header_blocks(file):
            yield header
            total += _bytes_after_decompression(header, zipped=isinstance(file, gzip.GzipFile))
            if total > MAX_BYTES:
                raise ValueError(_too_large(path.name, f"{total / 2**30:.1f} GiB"))


def check_size(path):
    """Raise `ValueError` if the images of a FITS file are larger than `MAX_BYTES` after decompression."""
    for _ in headers(path):
        pass


def inflated(path):
    """
    Return the content of a gzipped file.

    Parameters
    ----------
    path : `pathlib.Path`

    Returns
    -------
    `bytearray`

    Raises
    ------
    ValueError
        If it is larger than `MAX_BYTES`.
    """
    content = bytearray()
    with gzip.open(path) as file:
        while piece := file.read(_PIECE):
            content += piece
            if len(content) > MAX_BYTES:
                raise ValueError(_too_large(path.name, "more than the limit"))
    return content


def check_complete(file, *, sums=True):
    """
    Raise unless an open FITS file is complete, and CHECKSUM and DATASUM of all HDUs fit.

    Parameters
    ----------
    file : file object
        Open for reading. It is at its start afterwards.
    sums : `bool`, optional
        Whether to verify the checksums.

    Raises
    ------
    ValueError
        If a checksum does not fit or the file is truncated.
    """
    # astropy warns of this; making its warnings errors would change the filters of all threads.
    size = file.seek(0, os.SEEK_END)
    for header, start, data in _header_blocks(file):
        end, name = data + padded(data_bytes(header)), header.get("EXTNAME", "PRIMARY")
        if end > size:
            msg = f"it ends within the HDU {name}, so it was truncated"
            raise ValueError(msg)
        if not sums:
            continue
        file.seek(start)
        of_header, of_data = _sum(file, data - start), _sum(file, end - data)
        for card, wrong in (
            ("DATASUM", folded_sum(of_data) != int(header.get("DATASUM", 0))),
            ("CHECKSUM", folded_sum(of_header + of_data) not in (0, _ALL_ONES)),
        ):
            if card in header and wrong:
                msg = f"the {card} of the HDU {name} does not fit, so it was damaged"
                raise ValueError(msg)
    file.seek(0)


def data_bytes(header):
    """Return the number of bytes of data after a header, without padding."""
    axes = [int(header[f"NAXIS{axis + 1}"]) for axis in range(int(header["NAXIS"]))]
    n = (int(header.get("PCOUNT", 0)) + prod(axes)) * int(header.get("GCOUNT", 1)) if axes else 0
    n *= abs(int(header["BITPIX"])) // 8
    if n < 0:
        msg = f"its data have {n} bytes"
        raise ValueError(msg)
    return n


def folded_sum(total):
    """Return the ones' complement sum of FITS from a sum of 32-bit words."""
    while total >> 32:
        total = (total & _ALL_ONES) + (total >> 32)
    return total


@contextmanager
def _opened(path):
    with path.open("rb") as file:
        zipped = file.read(len(_GZIP_START)) == _GZIP_START
    with gzip.open(path) if zipped else path.open("rb") as file:
        yield file


def _header_blocks(file):
    """Yield each header with the positions of the header and of its data; raise `ValueError` if one cannot be read."""
    start = 0
    while True:
        file.seek(start)
        first = file.read(len(_HEADER_STARTS[0]))
        # As astropy, ignore what follows the last HDU.
        if start and first not in _HEADER_STARTS:
            return
        file.seek(start)
        try:
            header = fits.Header.fromfile(file)
            n_bytes = data_bytes(header)
        except (OSError, EOFError, TypeError, ValueError, KeyError) as error:
            msg = f"its header at byte {start} cannot be read ({type(error).__name__}: {error})"
            raise ValueError(msg) from error
        data = file.tell()
        yield header, start, data
        start = data + padded(n_bytes)


def _bytes_after_decompression(header, *, zipped):
    """Return the number of bytes that are decompressed to read an HDU."""
    if header.get("ZIMAGE"):
        axes = [int(header[f"ZNAXIS{axis + 1}"]) for axis in range(int(header["ZNAXIS"]))]
        return prod(axes) * abs(int(header["ZBITPIX"])) // 8
    return data_bytes(header) if zipped else 0


def _too_large(name, found):
    return (
        f"{name} has {found} of data after decompression, the limit is {MAX_BYTES / 2**30:g} GiB. If you trust the "
        "file, decompress it on disk and read it by chunks."
    )


def _sum(file, n):
    """Return the sum of the 32-bit words of the next ``n`` bytes, a multiple of four."""
    total = 0
    while n:
        piece = file.read(min(_PIECE, n))
        n -= len(piece)
        total += int(np.frombuffer(piece, ">u4").sum(dtype=np.uint64))
    return total
