"""Cubes as FITS; the layout is described in docs/topics/file_format.rst."""

import io
import json
import mmap
from contextlib import contextmanager

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.time import Time

from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.cube.dem_cube import DEMCube
from sunpy_deepem.cube.planes import Planes
from sunpy_deepem.io.contents import check_em_header, check_hdus, check_inputs, check_shapes, checked_unit
from sunpy_deepem.response.temperature_response import TemperatureResponse
from sunpy_deepem.temperature import LogTBins
from sunpy_deepem.units import RESPONSE_UNIT
from sunpy_deepem.utils.fits import check_complete, check_size, inflated
from sunpy_deepem.utils.serialization import compact, json_facts
from sunpy_deepem.utils.uncertainty import standard_deviation
from sunpy_deepem.utils.wcs import cube_wcs, sky_header, sky_wcs

__all__ = ["image_hdus", "import_dask_array", "read_fits", "read_provenance", "table_hdus", "write_fits"]

_FORMAT = "sunpy_deepem 2"
# The FITS standard has no DN. SunPy reads it in images, as in AIA's files; tables use adu, as in the standard.
_INTENSITY_UNIT = "DN / (pix s)"
_RESPONSE_COLUMN_UNIT = "cm5 adu pixel-1 s-1"
# Pixels per tile of a compressed image: a few whole rows.
_TILE = 2**13
_MEANINGS = {
    "EM": "emission measure per bin of log T, with n_e n_H",
    "UNCERT": "standard deviation of EM",
    "MASK": "1 where EM is not to be used",
    "CHI2": "mean over channels of ((model - observed) / sigma)^2",
    "QUALITY": "bit flags, see sunpy_deepem.Quality",
    "SATURATION": "fraction of native pixels that are saturated",
}


def write_fits(cube, file, *, compress=False):
    """Write a `DEMCube` to a path or open file, optionally with lossless compression of the images."""
    fits.HDUList(image_hdus(cube, compress=compress) + table_hdus(cube)).writeto(file, checksum=True)


def image_hdus(cube, *, compress=False):
    """Return the HDUs of the images of ``cube``; the first names the layout."""
    images = _named_images(cube)
    if compress:
        # A primary HDU cannot be compressed, so an empty one precedes the images.
        hdus = [fits.PrimaryHDU(), *(_compressed(*image) for image in images)]
    else:
        (_, em, header), *others = images
        hdus = [fits.PrimaryHDU(em, header), *(fits.ImageHDU(data, header) for _, data, header in others)]
    hdus[0].header["DEMFMT"] = (_FORMAT, "layout of this file")
    return hdus


def table_hdus(cube):
    """Return the HDUs of response, inputs, provenance and other meta, which follow the images."""
    hdus = [_response_table(cube.response), fits.BinTableHDU(Table(rows=list(cube.inputs)), name="INPUTS")]
    hdus.append(_facts_table("PROVENANCE", cube.meta["provenance"] | {"response": cube.response.meta}))
    if extra := cube.user_meta:
        hdus.append(_facts_table("META", extra))
    return hdus


def read_fits(path, *, chunks=None):
    """
    Read the cube in the FITS file at ``path``, by dask if ``chunks`` are given.

    Checksums are not verified with ``chunks``.
    """
    with _opened(path, chunks) as hdus:
        _check_format(hdus[0].header)
        return _read_hdus(hdus, chunks)


def read_provenance(path):
    """
    Return the provenance of the cube in a FITS file, without reading its images, whose checksums are verified.

    Parameters
    ----------
    path : `pathlib.Path`

    Returns
    -------
    `dict`

    Raises
    ------
    ValueError
        If the file is damaged, or is not a DEM cube.
    """
    with _opened(path, None) as hdus:
        _check_format(hdus[0].header)
        check_hdus([hdu.name for hdu in hdus])
        return _read_facts(hdus["PROVENANCE"])


def _check_format(header):
    if (found := header.get("DEMFMT")) != _FORMAT:
        instrument = f", from {header['INSTRUME']}: pass AIA's maps to invert" if "INSTRUME" in header else ""
        msg = f"it holds no DEM cube of this layout, DEMFMT must be {_FORMAT!r}, found {found!r}{instrument}"
        raise ValueError(msg)


@contextmanager
def _opened(path, chunks):
    check_size(path)
    zipped = path.suffix.lower() == ".gz"
    # astropy inflates a gzipped file from its beginning for every HDU, so it is inflated once here. If astropy fails to
    # open a path, the file stays open, and some systems then do not replace it.
    with io.BytesIO(inflated(path)) if zipped else path.open("rb") as file:
        check_complete(file, sums=chunks is None)
        in_memory = zipped or chunks is None
        # None maps images to memory where possible; images of unsigned integers cannot be mapped.
        with fits.open(file if in_memory else path, memmap=False if in_memory else None) as hdus:
            yield hdus


def _named_images(cube):
    """Return the name, data and header of each image."""
    sky = cube.sky_header
    log_t = {"wcsaxes": 3, "ctype3": ("LOGT", "log10 of temperature in K"), "cunit3": "", "crpix3": 1.0}
    log_t |= {"crval3": cube.bins.first, "cdelt3": cube.bins.step}
    unit = {"bunit": cube.unit.to_string("fits")}
    made = {"telescop": "SDO/AIA", "creator": "sunpy_deepem", "date": (Time.now().isot, "UTC of writing")}
    mask = False if cube.mask is None else cube.mask
    images = [("EM", cube.data, sky | log_t | unit | made)]
    if cube.uncertainty is not None:
        images.append(("UNCERT", standard_deviation(cube), sky | log_t | unit))
    images.append(("MASK", np.broadcast_to(mask, cube.data.shape).astype(np.uint8), sky | log_t))
    channels = _channel_headers(cube)
    images += [(key.upper(), image, channels.get(key, sky)) for key, image in cube.planes.images.items()]
    return [(name, _big_endian(compact(data)), _header(name, cards)) for name, data, cards in images]


def _big_endian(data):
    """
    Return a copy in the byte order of FITS, which nobody else sees.

    astropy swaps bytes of other arrays in place while it writes them, so that other threads see wrong numbers.
    """
    return data.astype(data.dtype.newbyteorder(">"))


def _header(name, cards):
    header = fits.Header()
    header.update({"extname": name} | cards | ({"btype": _MEANINGS[name]} if name in _MEANINGS else {}))
    return header


def _channel_headers(cube):
    """Return the headers of intensity and σ of each channel, from its map."""
    headers = {}
    for channel, smap in zip(CHANNELS, cube.observed_maps(), strict=True):
        header = dict(smap.meta) | {"bunit": _INTENSITY_UNIT}
        headers[f"intensity_{channel}"] = header | {"btype": "observed intensity, per native pixel of 0.6 arcsec"}
        headers[f"sigma_{channel}"] = header | {"btype": "standard deviation of the intensity", "content": "sigma"}
        headers[f"limit_{channel}"] = header | {"btype": "lower limit of the intensity, saturated", "content": "limit"}
    return headers


def _compressed(name, data, header):
    # GZIP without quantization is lossless, NaN included. It is several times slower on larger tiles.
    ny, nx = data.shape[-2:]
    tile = (*[1] * (data.ndim - 2), min(ny, max(1, _TILE // nx)), nx)
    return fits.CompImageHDU(data, header, compression_type="GZIP_2", quantize_level=0, tile_shape=tile)


def _response_table(response):
    columns = [fits.Column("temperature", "D", unit="K", array=response.temperature.to_value(u.K))]
    for channel, curve in zip(CHANNELS, response.curves.to_value(RESPONSE_UNIT), strict=True):
        columns.append(fits.Column(f"response_{channel}", "D", unit=_RESPONSE_COLUMN_UNIT, array=curve))
    return fits.BinTableHDU.from_columns(columns, name="RESPONSE")


def _facts_table(name, facts):
    rows = [(key, json.dumps(value)) for key, value in json_facts(facts).items()]
    return fits.BinTableHDU(Table(rows=rows, names=["key", "value"]), name=name)


class _OnDisk:
    """An array on disk that is read and converted when it is sliced; dask would copy a NumPy array."""

    def __init__(self, array, dtype):
        self._array = array
        self.shape, self.dtype, self.ndim = array.shape, np.dtype(dtype), array.ndim

    def __getitem__(self, part):
        values = np.array(self._array[part], dtype=self.dtype)
        mapping = _mapping(self._array)
        if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
            # Pages that were read would stay in the memory of the process.
            mapping.madvise(mmap.MADV_DONTNEED)
        return values


def _mapping(array):
    """Return the mapping of a file into memory that an array is a view of, or `None`."""
    while array is not None and not isinstance(array, mmap.mmap):
        array = getattr(array, "base", None)
    return array


def _read_hdus(hdus, chunks):
    def array(name, dtype=None):
        stored = hdus[name].data
        # FITS is big-endian.
        dtype = stored.dtype.newbyteorder("=") if dtype is None else dtype
        if chunks is None:
            return stored.astype(dtype)
        # After an astype of dask's, a slice of an array would read whole chunks.
        return import_dask_array().from_array(_OnDisk(stored, dtype), chunks=chunks, name=False)

    check_hdus([hdu.name for hdu in hdus])
    header = hdus["EM"].header
    check_em_header(header)
    em = array("EM", float)
    bins = LogTBins(round(header["CRVAL3"] + (1 - header["CRPIX3"]) * header["CDELT3"], 9), header["CDELT3"], len(em))
    provenance = _read_facts(hdus["PROVENANCE"])
    planes = Planes.from_images(
        em,
        array("UNCERT", float) if "UNCERT" in hdus else None,
        array("MASK", bool),
        {hdu.name.lower(): array(hdu.name) for hdu in hdus if hdu.is_image and hdu.header["NAXIS"] == 2},
    )
    check_shapes(planes)
    inputs = [_row_as_dict(row) for row in Table.read(hdus["INPUTS"], mask_invalid=False)]
    check_inputs(inputs)
    return DEMCube.from_planes(
        planes,
        _read_response(hdus["RESPONSE"].data, bins, provenance.pop("response", {})),
        cube_wcs(sky_header(sky_wcs(header)), bins),
        inputs=inputs,
        provenance=provenance,
        unit=checked_unit(header.get("BUNIT"), provenance),
        meta=_read_facts(hdus["META"]) if "META" in hdus else {},
    )


def _read_response(table, bins, meta):
    curves = np.array([table[f"response_{channel}"] for channel in CHANNELS], dtype=float)
    return TemperatureResponse(table["temperature"].astype(float) << u.K, curves << RESPONSE_UNIT, bins=bins, meta=meta)


def _read_facts(hdu):
    return {str(row["key"]): json.loads(row["value"]) for row in Table.read(hdu)}


def import_dask_array():
    """Return dask.array, or raise ImportError with the extra to install."""
    try:
        import dask.array
    except ImportError as error:
        msg = 'Arrays in chunks need dask. Install it with pip install "sunpy_deepem[dask]".'
        raise ImportError(msg) from error
    return dask.array


def _row_as_dict(row):
    """Return a table row as a `dict` of Python types."""
    return {name: row[name].item() if hasattr(row[name], "item") else str(row[name]) for name in row.colnames}
