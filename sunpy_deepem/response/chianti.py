"""Spectra of CHIANTI computed by fiasco, for `sunpy_deepem.response.Emissivity.from_fiasco`."""

import astropy.constants as const
import astropy.units as u
import numpy as np

__all__ = ["all_ions", "spectrum"]

_LOG_T = np.round(np.arange(5, 8.01, 0.05), 2)


def all_ions(fiasco):
    """Return all ions of CHIANTI, a `fiasco.IonCollection`."""
    return fiasco.IonCollection(*(fiasco.Ion(name, 10**_LOG_T * u.K) for name in fiasco.list_ions()))


def spectrum(ions, wavelength, edges, pressure):
    """
    Sum lines and continua of all ions.

    Parameters
    ----------
    ions : `fiasco.IonCollection`
    wavelength, edges : `~astropy.units.Quantity`
        Centers and edges of the bins, shapes ``(m,)`` and ``(m + 1,)``.
    pressure : `~astropy.units.Quantity`
        Electron density times temperature, K cm-3.

    Returns
    -------
    `~astropy.units.Quantity`
        Shape ``(n, m)``, photon cm3 / (s sr Å).
    """
    per_photon = (const.h * const.c / wavelength).to(u.erg) / u.photon
    # NOTE: fiasco 0.8 gives free-free per steradian (4 π times less than equation 5.14a of Rybicki & Lightman 1979),
    # and everything else integrated over the sphere.
    continuum = ions.free_bound(wavelength) + ions.two_photon(wavelength, pressure / (1 * u.MK))[:, 0]
    continuum = continuum / (4 * np.pi * u.sr) + ions.free_free(wavelength) / u.sr
    values = continuum / per_photon
    for ion in ions:
        values += _lines(ion, edges, pressure) / (4 * np.pi * u.sr)
    return values


def _lines(ion, edges, pressure):
    """Return the lines of an ion in bins of wavelength, integrated over the sphere; zero for ions without lines."""
    from fiasco.util.exceptions import MissingDatasetException

    values = np.zeros((ion.temperature.size, edges.size - 1))
    unit = u.photon * u.cm**3 / (u.s * u.angstrom)
    try:
        wavelength = ion.transitions.wavelength[ion.transitions.is_bound_bound]
        emission = ion.contribution_function(pressure / ion.temperature, couple_density_to_temperature=True)[:, 0]
    except MissingDatasetException:
        return values * unit
    inside = (wavelength >= edges[0]) & (wavelength < edges[-1])
    photons = emission[:, inside] * wavelength[inside] / (const.h * const.c) * u.photon
    index = np.searchsorted(edges, wavelength[inside], side="right") - 1
    np.add.at(values, (slice(None), index), (photons / np.diff(edges)[index]).to_value(unit))
    return values * unit
