"""
FITS files of cubes, both ways.

The primary HDU is the EM with its WCS (two helioprojective axes and CTYPE3 'LOGT'); the extensions are UNCERT, MASK,
QUALITY, CHI2, SATURATION, INTENSITY and SIGMA (what was inverted), RESPONSE and INPUTS (tables) and PROVENANCE (a table
of keys and JSON values).
"""

import json
import warnings
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.nddata import StdDevUncertainty
from astropy.table import Table
from astropy.utils.exceptions import AstropyUserWarning
from ndcube import NDMeta

from sunpy_deepem._files import atomic_path
from sunpy_deepem._wcs import cube_wcs, sky_header, sky_wcs
from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.cube import DEMCube
from sunpy_deepem.response import RESPONSE_UNIT, TemperatureResponse
from sunpy_deepem.temperature import LogTBins

__all__ = ["read_fits", "write_fits"]

_FORMAT = "sunpy_deepem 1"
# The FITS standard has no DN. SunPy reads it in images, as AIA's files write it; in tables it is the standard's adu.
_INTENSITY_UNIT = "DN / (pix s)"
_RESPONSE_COLUMN_UNIT = "cm5 adu pixel-1 s-1"


def write_fits(cube, path, *, overwrite=False):
    """
    Write a cube to a FITS file; the file is there whole or not at all.

    Parameters
    ----------
    cube : `DEMCube`
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
    sky = fits.Header(cube.sky_header)
    log_t = fits.Header(cube.sky_header)
    log_t["WCSAXES"] = 3
    for card in (("CTYPE3", "LOGT", "log10 of temperature in K"), ("CUNIT3", ""), ("CRPIX3", 1.0)):
        log_t[card[0]] = card[1:]
    log_t["CRVAL3"], log_t["CDELT3"] = cube.bins.first, cube.bins.step
    em = fits.PrimaryHDU(_compact(cube.data), log_t)
    em.header["EXTNAME"] = "EM"
    em.header["BUNIT"] = cube.unit.to_string("fits")
    em.header["DEMFMT"] = (_FORMAT, "layout of this file")
    em.header["BTYPE"] = ("emission measure per bin of log T, with n_e n_H", "")
    hdus = [em]
    if cube.uncertainty is not None:
        hdus.append(_image("UNCERT", cube.uncertainty.represent_as(StdDevUncertainty).array, log_t, em.header["BUNIT"]))
    hdus += [
        _image("MASK", np.broadcast_to(cube.mask, cube.data.shape).astype(np.uint8), log_t),
        _image("QUALITY", cube.quality, sky),
        _image("CHI2", cube.chi2, sky),
        _image("SATURATION", cube.saturation, sky),
        _image("INTENSITY", cube.intensity.value, sky, _INTENSITY_UNIT),
        _image("SIGMA", cube.intensity_uncertainty.value, sky, _INTENSITY_UNIT),
        _response_table(cube.response),
        fits.BinTableHDU(Table(rows=list(cube.inputs)), name="INPUTS"),
        _provenance_table(cube),
    ]
    with atomic_path(path, overwrite=overwrite) as partial:
        fits.HDUList(hdus).writeto(partial, checksum=True)


def read_fits(path):
    """
    Read a cube that `write_fits` wrote.

    Parameters
    ----------
    path : `str` or `pathlib.Path`

    Returns
    -------
    `DEMCube`

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file cannot be read as FITS, is truncated, or holds no cube of this package.
    """
    path = Path(path)
    if not path.is_file():
        msg = f"There is no file {path}."
        raise FileNotFoundError(msg)
    try:
        with warnings.catch_warnings():
            # A file that is cut short or fails its checksum is no cube, however much of it can be read.
            warnings.simplefilter("error", AstropyUserWarning)
            with fits.open(path, memmap=False, checksum=True) as hdus:
                cube = _cube(hdus) if hdus[0].header.get("DEMFMT") == _FORMAT else None
    except Exception as error:  # astropy lets through whatever a damaged file leads to
        msg = f"{path} cannot be read as a DEM cube ({type(error).__name__}: {error}). It may be truncated or not FITS."
        raise ValueError(msg) from error
    if cube is None:
        msg = f"{path} holds no DEM cube: it lacks DEMFMT={_FORMAT!r}. Cubes are written by DEMCube.write."
        raise ValueError(msg)
    return cube


def _image(name, data, header, unit=None):
    hdu = fits.ImageHDU(_compact(data), header, name=name)
    if unit is not None:
        hdu.header["BUNIT"] = unit
    return hdu


def _compact(data):
    """Return double precision as single where nothing is lost by it, as in a cube fresh from the network."""
    if data.dtype != np.float64:
        return data
    with np.errstate(over="ignore"):
        single = data.astype(np.float32)
    return single if np.array_equal(single, data, equal_nan=True) else data


def _response_table(response):
    columns = [fits.Column("temperature", "D", unit="K", array=response.temperature.to_value(u.K))]
    for channel, curve in zip(CHANNELS, response.response.to_value(RESPONSE_UNIT), strict=True):
        columns.append(fits.Column(f"response_{channel}", "D", unit=_RESPONSE_COLUMN_UNIT, array=curve))
    return fits.BinTableHDU.from_columns(columns, name="RESPONSE")


def _provenance_table(cube):
    facts = cube.meta["provenance"] | {"response": cube.response.meta}
    rows = [(key, json.dumps(value, default=_jsonable)) for key, value in facts.items()]
    return fits.BinTableHDU(Table(rows=rows, names=["key", "value"]), name="PROVENANCE")


def _jsonable(value):
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


def _cube(hdus):
    header = hdus["EM"].header
    bins = _bins(header, hdus["EM"].data.shape[0])
    provenance = {str(row["key"]): json.loads(row["value"]) for row in Table.read(hdus["PROVENANCE"])}
    companions = {"chi2": _native(hdus["CHI2"].data), "quality": _native(hdus["QUALITY"].data)}
    companions["saturation"] = _native(hdus["SATURATION"].data)
    for index, channel in enumerate(CHANNELS):
        companions[f"intensity_{channel}"] = _native(hdus["INTENSITY"].data[index])
        companions[f"sigma_{channel}"] = _native(hdus["SIGMA"].data[index])
    facts = {
        "response": _response(hdus["RESPONSE"].data, bins, provenance.pop("response")),
        "inputs": tuple(_plain(row) for row in Table.read(hdus["INPUTS"], mask_invalid=False)),
        "provenance": provenance,
    }
    em = hdus["EM"].data.astype(float)
    return DEMCube(
        em,
        wcs=cube_wcs(sky_header(sky_wcs(header)), bins),
        uncertainty=StdDevUncertainty(hdus["UNCERT"].data.astype(float)) if "UNCERT" in hdus else None,
        mask=hdus["MASK"].data.astype(bool),
        unit=u.Unit(header["BUNIT"]),
        meta=NDMeta(companions | facts, axes=dict.fromkeys(companions, (1, 2)), data_shape=em.shape),
    )


def _bins(header, n):
    return LogTBins(round(header["CRVAL3"] + (1 - header["CRPIX3"]) * header["CDELT3"], 9), header["CDELT3"], n)


def _response(table, bins, meta):
    curves = np.array([table[f"response_{channel}"] for channel in CHANNELS], dtype=float)
    return TemperatureResponse(table["temperature"].astype(float) << u.K, curves << RESPONSE_UNIT, bins=bins, meta=meta)


def _native(array):
    """Return the array in the machine's byte order; FITS is big-endian."""
    return array.astype(array.dtype.newbyteorder("="))


def _plain(row):
    """Return a table row as a `dict` of Python's own types."""
    return {name: row[name].item() if hasattr(row[name], "item") else str(row[name]) for name in row.colnames}
