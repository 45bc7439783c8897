"""FITS WCS of the sky and of cubes."""

import astropy.units as u
from astropy.io import fits
from astropy.wcs import WCS

__all__ = ["CubeWCS", "cube_wcs", "sky_header", "sky_wcs", "wcs_as"]

# Names of axes, by the beginning of CTYPE, and the physical type of the axis of log T.
_NAMES = {"LOGT": "log10(T/K)", "HPLN": "Helioprojective x", "HPLT": "Helioprojective y"}
_LOG_T = "custom:phys.temperature.log10"
# Cards that repeat DATE-OBS or belong to another file.
_OMITTED = ("comment", "mjd-obs", "mjdref")


class CubeWCS(WCS):
    """
    A FITS WCS that knows the axis of log10(T/K), ``LOGT``.

    FITS has no such type of axis, so `~astropy.wcs.WCS` has no physical type for it.
    """

    @property
    def world_axis_physical_types(self):
        """Physical type of each axis, `list` of `str` or `None`."""
        types = super().world_axis_physical_types
        return [_LOG_T if ctype.startswith("LOGT") else kind for ctype, kind in zip(self.wcs.ctype, types, strict=True)]

    @property
    def world_axis_names(self):
        """Name of each axis for labels, `list` of `str`."""
        names = zip(self.wcs.ctype, self.wcs.cname, strict=True)
        return [cname or _NAMES.get(ctype[:4], "") for ctype, cname in names]


def wcs_as(wcs, kind):
    """Return a copy of a FITS WCS as a `CubeWCS` or `~astropy.wcs.WCS`; any other WCS unchanged."""
    if not isinstance(wcs, WCS) or type(wcs) is kind:
        return wcs
    wcs = wcs.deepcopy()
    wcs.__class__ = kind
    return wcs


def sky_wcs(header, kind=WCS):
    """Return the WCS of ``header``, a `dict` or `~astropy.io.fits.Header`, of the class ``kind``."""
    cards = {key: value for key, value in dict(header).items() if not key.lower().startswith("naxis")}
    wcs = kind(fits.Header(cards), fix=False)
    # WCS would warn that it derives MJD-OBS from DATE-OBS, and warning filters belong to all threads.
    wcs.wcs.fix()
    return wcs


def cube_wcs(header, bins):
    """Return the WCS of a cube with the given sky ``header`` and `LogTBins`."""
    log_t = {"wcsaxes": 3, "ctype3": "LOGT", "cunit3": "", "crpix3": 1.0, "crval3": bins.first, "cdelt3": bins.step}
    return sky_wcs(dict(header) | log_t, CubeWCS)


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
