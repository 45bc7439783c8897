"""Spectral emissivity of plasma at each temperature: `Emissivity`."""

from importlib import import_module, resources
from pathlib import Path

import astropy.units as u
import numpy as np
from sunpy.data import manager

from sunpy_deepem.units import EMISSIVITY_UNIT

__all__ = ["Emissivity"]

# Spellings of EMISSIVITY_UNIT in SolarSoft's files, without carets and blanks.
_UNIT_IN_FILES = ("photonscm3s-1sr-1A-1", "phcm3s-1sr-1A-1")

# Half the width of AIA's narrowest passband, at 94 Å; wider bins place lines inside or outside it by chance.
_MAX_STEP = 0.45 * u.angstrom

# NOTE: Wavelengths, temperatures and total emissivity of SolarSoft's aia_V9_fullemiss.genx and the components of
# aia_V9_all_fullinst.genx, exported by pyEUVTools (MIT). SolarSoft's own file has 790 MB, mostly a list of lines.
_EXPORT_NAME = "aia_v9_instrument_emissivity"
_EXPORT_URL = (
    "https://github.com/suncast-org/pyEUVTools/raw/6e2324176fc224807dcac48577de61914fcf5a26/src/pyeuvtools/data/"
    "aia/genx-exports/aia_V9/aia_hybrid_genx_export_v1.sav"
)
_EXPORT_SHA256 = "635877fefc0bfac33cd28cdba7b6eb2506cc6df765e8a8c28ca503ca95355443"

_XRTPY_FOLDER = "response/data/chianti_emission_models"
_XRTPY_FILES = {
    "coronal": "XRT_emiss_model.default_CHIANTI.geny",
    "hybrid": "XRT_emiss_model.default_CHIANTI_hybrid.geny",
    "photospheric": "XRT_emiss_model.default_CHIANTI_photospheric.geny",
}


class Emissivity:
    r"""
    Spectral emissivity G(λ, T) of optically thin plasma, per unit of n_e n_H.

    Isothermal plasma of emission measure EM has the intensity G EM, in photons.

    Parameters
    ----------
    wavelength : `~astropy.units.Quantity`
        Ascending centers of bins, whose edges lie half-way between them, shape ``(m,)``.
    temperature : `~astropy.units.Quantity`
        Ascending temperatures, shape ``(n,)``.
    values : `~astropy.units.Quantity`
        Means over the bins in photon cm3 / (s sr Å), shape ``(n, m)``. A line is spread over its bin.
    meta : `dict`, optional
        Origin of the emissivity. The response copies ``meta["source"]`` and ``meta["version"]``.

    Raises
    ------
    ValueError
        If shapes do not match, wavelengths or temperatures do not ascend, or a value is negative or not finite.
    TypeError
        If an argument has no unit.
    astropy.units.UnitsError
        If an argument has an incompatible unit. Divide an emissivity in erg by the photon's energy.

    Examples
    --------
    >>> from sunpy_deepem.response import Emissivity
    >>> from sunpy_deepem.units import EMISSIVITY_UNIT
    >>> wavelength = np.arange(90, 100.05, 0.1) * u.angstrom
    >>> flat = Emissivity(wavelength, [1, 2] * u.MK, np.ones((2, wavelength.size)) * EMISSIVITY_UNIT)
    >>> flat
    <Emissivity: 2 temperatures, log T 6 to 6.3; 101 wavelengths, 90 to 100 Å>
    >>> flat.integrate([80, 110] * u.AA, [3, 3] * u.cm**2, wavelength_range=[92, 97] * u.AA).value.round(6)
    array([15., 15.])
    """

    @u.quantity_input
    def __init__(self, wavelength: u.angstrom, temperature: u.K, values: EMISSIVITY_UNIT, *, meta=None):
        self._wavelength = _ascending(wavelength.to(u.angstrom), "wavelength")
        self._temperature = _ascending(temperature.to(u.K), "temperature")
        self._values = values.to(EMISSIVITY_UNIT)
        self.meta = dict(meta or {})
        expected = (self._temperature.size, self._wavelength.size)
        if self._values.shape != expected:
            msg = (
                f"values must have shape {expected} (temperatures by wavelengths), found {self._values.shape}. "
                "Transpose or slice them."
            )
            raise ValueError(msg)
        bad = np.count_nonzero(~(np.isfinite(self._values.value) & (self._values.value >= 0)))
        if bad:
            msg = (
                f"values must be finite and not negative, found {bad} that are not. Replace them, for example by zero."
            )
            raise ValueError(msg)

    @property
    def wavelength(self):
        """Centers of the bins of wavelength in Å, shape ``(m,)``."""
        return self._wavelength

    @property
    def temperature(self):
        """Temperatures in K, shape ``(n,)``."""
        return self._temperature

    @property
    def values(self):
        """Emissivity in photon cm3 / (s sr Å), shape ``(n, m)``."""
        return self._values

    @property
    def edges(self):
        """Edges of the bins of wavelength in Å, shape ``(m + 1,)``."""
        middle = (self._wavelength[1:] + self._wavelength[:-1]) / 2
        first, last = 2 * self._wavelength[0] - middle[0], 2 * self._wavelength[-1] - middle[-1]
        return np.concatenate([first[np.newaxis], middle, last[np.newaxis]])

    @u.quantity_input
    def integrate(self, wavelength: u.angstrom, response, *, wavelength_range=None):
        """
        Integrate emissivity times a response over wavelength.

        The response is evaluated at the center of each bin, as in SolarSoft, because the positions of lines inside
        their bins are unknown. Bins at the ends of ``wavelength_range`` contribute by the part inside.

        Parameters
        ----------
        wavelength : `~astropy.units.Quantity`
            Ascending wavelengths of the response, shape ``(k,)``.
        response : `~astropy.units.Quantity`
            Response in any unit, shape ``(k,)``. It is interpolated linearly and zero beyond its wavelengths.
        wavelength_range : `~astropy.units.Quantity`, optional
            Lower and upper limit of the integral, shape ``(2,)``, by default all wavelengths.

        Returns
        -------
        `~astropy.units.Quantity`
            Integral at each temperature, shape ``(n,)``.

        Raises
        ------
        ValueError
            If the range is not two ascending wavelengths, does not overlap the emissivity, or contains bins that are
            too wide for AIA's passbands.
        """
        sampled = np.interp(self._wavelength, wavelength, response, left=0, right=0)
        return (self._values @ (sampled * self._widths(wavelength_range))).to(EMISSIVITY_UNIT * response.unit * u.AA)

    def _widths(self, wavelength_range):
        """Return the widths of the bins inside the range."""
        limits = self.edges[[0, -1]] if wavelength_range is None else wavelength_limits(wavelength_range)
        widths = np.diff(np.clip(self.edges, *limits))
        if not (widths > 0).any():
            msg = (
                f"wavelength_range, from {limits[0]:g} to {limits[1]:g}, must overlap the emissivity, found "
                f"{self._wavelength[0]:g} to {self._wavelength[-1]:g}."
            )
            raise ValueError(msg)
        widest = np.diff(self.edges)[widths > 0].max()
        if widest > _MAX_STEP:
            msg = (
                f"The emissivity has bins up to {widest:.2g}, which do not resolve AIA's passbands, expected at most "
                f"{_MAX_STEP:g}. Compute it in steps of 0.1 Å, as in SolarSoft."
            )
            raise ValueError(msg)
        return widths

    @classmethod
    def read(cls, path):
        """
        Read an emissivity from a file of SolarSoft, or derived from it.

        Parameters
        ----------
        path : `str` or `pathlib.Path`
            SolarSoft's ``aia_V*_fullemiss.genx`` (790 MB; takes minutes and several GB of memory), an IDL save of its
            parts as in the package pyeuvtools, or a ``.geny`` spectral model of XRT.

        Returns
        -------
        `Emissivity`

        Raises
        ------
        FileNotFoundError
            If the file does not exist.
        ValueError
            If the file has other contents.
        """
        path = existing_file(path, "path")
        if path.suffix.lower() == ".genx":
            return cls(**_from_fullemiss(read_genx_file(path), path.name))
        return cls(**_from_structure(read_idl_save(path), path.name))

    @classmethod
    def download(cls):
        """
        Download the V9 emissivity (CHIANTI 9.0.1, 1 to 901 Å, log T 4 to 9) of SolarSoft's V10 response.

        sunpy's data manager downloads the file (8 MB) once and checks its hash.

        Returns
        -------
        `Emissivity`

        Raises
        ------
        ConnectionError
            If the download fails.
        """
        try:
            path = _downloaded_export()
        except Exception as error:  # sunpy's downloaders raise many types
            msg = (
                f"The emissivity could not be downloaded ({type(error).__name__}: {error}). Pass as emissivity= the "
                "path of SolarSoft's aia_V9_fullemiss.genx or of the save in the package pyeuvtools, or "
                "Emissivity.from_xrtpy(). TemperatureResponse.default() needs no download."
            )
            raise ConnectionError(msg) from error
        return cls.read(path)

    @classmethod
    def from_xrtpy(cls, abundance="coronal"):
        """
        Read the CHIANTI spectra of xrtpy, an optional dependency.

        They cover 1 to 400 Å and log T 5 to 8, at a density of 1e9 cm-3. AIA's channels are sensitive up to 900 Å.
        Without the long wavelengths, the responses at log T 5.5 lack two thirds of 335 Å, a fifth of 211 Å and a tenth
        of 171 and 193 Å; above log T 6, up to seven per cent of 335, 171 and 211 Å.

        Parameters
        ----------
        abundance : {"coronal", "hybrid", "photospheric"}, optional
            Elemental abundances. According to the files, the coronal spectra are from CHIANTI 10.0, the others from
            9.0.1, and all three use the abundances of Feldman (1992).

        Returns
        -------
        `Emissivity`

        Raises
        ------
        ModuleNotFoundError
            If xrtpy is not installed.
        ValueError
            If ``abundance`` has another value.

        References
        ----------
        Velasquez et al. (2024), JOSS 9, 6396, https://doi.org/10.21105/joss.06396
        """
        if abundance not in _XRTPY_FILES:
            msg = f"abundance must be one of {', '.join(_XRTPY_FILES)}, found {abundance!r}."
            raise ValueError(msg)
        _optional("xrtpy", "Emissivity.from_xrtpy")
        folder = resources.files("xrtpy") / _XRTPY_FOLDER
        with resources.as_file(folder / _XRTPY_FILES[abundance]) as path:
            return cls.read(path)

    @classmethod
    def from_fiasco(cls, ions=None, *, wavelength=None, pressure=1e15 * u.K / u.cm**3):
        """
        Compute the emissivity from the CHIANTI database with fiasco, an optional dependency.

        It includes lines and the free-free, free-bound and two-photon continua at constant pressure; the two-photon
        continuum has the density at 1 MK. All of CHIANTI takes hours and much memory. fiasco downloads the database.

        Parameters
        ----------
        ions : `fiasco.IonCollection`, optional
            Ions with temperatures, abundances and ionization fractions; by default all ions of CHIANTI, with log T
            from 5 to 8 and fiasco's defaults.
        wavelength : `~astropy.units.Quantity`, optional
            Centers of the bins of wavelength, shape ``(m,)``, by default 1 to 901 Å in steps of 0.1 Å.
        pressure : `~astropy.units.Quantity`, optional
            Product of electron density and temperature, K cm-3.

        Returns
        -------
        `Emissivity`

        Raises
        ------
        ModuleNotFoundError
            If fiasco is not installed.

        References
        ----------
        Barnes et al., fiasco, https://doi.org/10.5281/zenodo.7504257
        """
        from sunpy_deepem.response.chianti import all_ions, spectrum

        fiasco = _optional("fiasco", "Emissivity.from_fiasco")
        ions = all_ions(fiasco) if ions is None else ions
        wavelength = np.arange(10, 9011) / 10 * u.angstrom if wavelength is None else wavelength.to(u.angstrom)
        blank = cls(wavelength, ions.temperature, np.zeros((ions.temperature.size, wavelength.size)) * EMISSIVITY_UNIT)
        meta = {"source": f"fiasco {fiasco.__version__}, {len(ions)} ions", "version": "CHIANTI"}
        return cls(wavelength, ions.temperature, spectrum(ions, blank.wavelength, blank.edges, pressure), meta=meta)

    def __repr__(self):
        log_t = np.log10(self._temperature.value[[0, -1]])
        first, last = self._wavelength.value[[0, -1]]
        return (
            f"<Emissivity: {self._temperature.size} temperatures, log T {log_t[0]:.3g} to {log_t[1]:.3g}; "
            f"{self._wavelength.size} wavelengths, {first:g} to {last:g} Å>"
        )


def wavelength_limits(wavelength_range):
    """Return two ascending wavelengths in Å, or raise `ValueError`."""
    limits = u.Quantity(wavelength_range).to(u.angstrom)
    if limits.shape != (2,) or not limits[0] < limits[1]:
        msg = f"wavelength_range must be two ascending wavelengths, as in [1, 901] * u.angstrom, found {limits}."
        raise ValueError(msg)
    return limits


def existing_file(path, argument):
    """Return the `~pathlib.Path` of an existing file, or raise `FileNotFoundError`."""
    path = Path(path).expanduser()
    if not path.is_file():
        msg = f"{argument} names a file that does not exist: {path}. Give the path of a .genx or .sav file."
        raise FileNotFoundError(msg)
    return path


def read_genx_file(path):
    """Return the contents of SolarSoft's genx file, an `~collections.OrderedDict`."""
    from sunpy.io.special import read_genx

    try:
        return read_genx(path)
    except Exception as error:  # the reader has no error of its own
        msg = f"{path.name} could not be read as one of SolarSoft's genx files ({type(error).__name__}: {error})."
        raise ValueError(msg) from error


def read_idl_save(path):
    """Return the only structure in an IDL save (``.sav`` or ``.geny``), a `numpy.record`."""
    from scipy.io import readsav

    try:
        variables = readsav(path)
    except Exception as error:  # readsav raises bare exceptions
        msg = f"{path.name} could not be read as an IDL save ({type(error).__name__}: {error})."
        raise ValueError(msg) from error
    structures = [value for value in variables.values() if getattr(getattr(value, "dtype", None), "names", None)]
    if len(structures) != 1:
        msg = f"{path.name} must contain one structure, found the variables {sorted(variables)}."
        raise ValueError(msg)
    return structures[0][0]


@manager.require(_EXPORT_NAME, [_EXPORT_URL], _EXPORT_SHA256)
def _downloaded_export():
    return manager.get(_EXPORT_NAME)


def _optional(name, needed_by):
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        msg = f"{needed_by} needs the package {name}, which is not installed. Install it with: pip install {name}"
        raise ModuleNotFoundError(msg, name=name) from error


def _ascending(quantity, argument):
    quantity = np.atleast_1d(quantity)
    if quantity.ndim != 1 or quantity.size < 2 or not (np.diff(quantity) > 0).all():
        msg = f"{argument} must be one-dimensional and ascending, found shape {quantity.shape}. Sort it first."
        raise ValueError(msg)
    return quantity


def _from_fullemiss(contents, name):
    """Return the arguments of `Emissivity` from the contents of SolarSoft's genx file."""
    total, general = contents.get("TOTAL", {}), contents.get("GENERAL", {})
    missing = [key for key in ("WAVE", "LOGTE", "EMISSIVITY") if key not in total]
    if missing:
        msg = f"{name} has no {', '.join(missing)} in TOTAL. SolarSoft's emissivity is in aia_V9_fullemiss.genx."
        raise ValueError(msg)
    values = np.asarray(total["EMISSIVITY"], dtype=float)
    if values.shape == (len(total["WAVE"]), len(total["LOGTE"])):
        values = values.T
    return _arguments(
        total["WAVE"],
        total["LOGTE"],
        values,
        total.get("UNITS", _UNIT_IN_FILES[0]),
        {"source": name, "version": f"CHIANTI {general.get('VERSION', 'of unknown version')}"},
    )


def _from_structure(structure, name):
    """Return the arguments of `Emissivity` from the structure in an IDL save."""
    fields = structure.dtype.names
    if "EMISS_LOGTE" in fields:
        version = f"CHIANTI {_text(structure['EMISS_VERSION_NAME'])}"
        keys = ("EMISS_WAVE", "EMISS_LOGTE", "EMISSIVITY", "EMISS_UNITS")
        wave, log_t, values, unit = (structure[key] for key in keys)
    elif "SPEC" in fields:
        version = _text(structure["NAME"])
        wave, values, unit = (structure[key] for key in ("WAVE", "SPEC", "SPEC_UNITS"))
        log_t = np.log10(np.asarray(structure["TEMP"], dtype=float))
    else:
        msg = f"{name} must contain an emissivity (EMISSIVITY or SPEC), found the fields {', '.join(fields)}."
        raise ValueError(msg)
    return _arguments(wave, log_t, values, _text(unit), {"source": name, "version": version})


def _arguments(wave, log_t, values, unit, meta):
    if unit.replace("^", "").replace("(", "").replace(")", "").replace(" ", "") not in _UNIT_IN_FILES:
        msg = f"{meta['source']} has an emissivity in {unit!r}, expected 'photons cm3 s-1 sr-1 A-1'."
        raise ValueError(msg)
    # Rounded, because log T 6.6 is 6.5999999 in the single precision of the files.
    return {
        "wavelength": np.round(np.asarray(wave, dtype=float), 4) * u.angstrom,
        "temperature": 10 ** np.round(np.asarray(log_t, dtype=float), 4) * u.K,
        "values": np.asarray(values, dtype=float) * EMISSIVITY_UNIT,
        "meta": meta,
    }


def _text(value):
    return (value.decode() if isinstance(value, bytes) else str(value)).strip()
