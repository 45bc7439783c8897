"""FITS WCS of the sky and of cubes."""

import astropy.units as u
from astropy.io import fits
from astropy.wcs import WCS

__all__ = ["cube_wcs", "sky_header", "sky_wcs"]

# Cards that repeat DATE-OBS or belong to another file.
_OMITTED = ("comment", "mjd-obs", "mjdref")


def sky_wcs(header):
    """Return the WCS of ``header``, a `dict` or `~astropy.io.fits.Header`."""
    cards = {key: value for key, value in dict(header).items() if not key.lower().startswith("naxis")}
    wcs = WCS(fits.Header(cards), fix=False)
    # WCS would warn that it derives MJD-OBS from DATE-OBS, and warning filters belong to all threads.
    wcs.wcs.fix()
    return wcs


def cube_wcs(header, bins):
    """Return the WCS of a cube with the given sky ``header`` and `LogTBins`."""
    log_t = {"wcsaxes": 3, "ctype3": "LOGT", "cunit3": "", "crpix3": 1.0, "crval3": bins.first, "cdelt3": bins.step}
    return sky_wcs(dict(header) | log_t)


def sky_header(wcs):
    """Return the FITS header of the sky axes of ``wcs`` in arcsec, with observer and time, as a `dict`."""
    header = {key.lower(): value for key, value in wcs.celestial.to_header(relax=True).items()}
    header = {key: value for key, value in header.items() if key not in _OMITTED}
    for axis in "12":
        # wcslib converts to degrees; solar files use arcseconds.
        to_arcsec = u.Unit(header[f"cunit{axis}"]).to(u.arcsec)
        header |= {f"{key}{axis}": header[f"{key}{axis}"] * to_arcsec for key in ("cdelt", "crval")}
        header[f"cunit{axis}"] = "arcsec"
    return header
