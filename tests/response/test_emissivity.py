"""Spectral emissivities: validation, integration and reading."""

import os
import struct
import sys
import types
from pathlib import Path

import astropy.constants as const
import astropy.units as u
import numpy as np
import pytest
from sunpy.data import manager

from sunpy_deepem.response import emissivity as module
from sunpy_deepem.response.emissivity import Emissivity
from sunpy_deepem.units import EMISSIVITY_UNIT

SHARED = Path(os.environ.get("SUNPY_DEEPEM_SHARED", Path(__file__).parents[3] / "shared"))
EXPORT = SHARED / "reference" / "aia_V9_instrument_emissivity.sav"

WAVELENGTH = np.arange(900, 1001) / 10 * u.angstrom
TEMPERATURE = [1, 2, 4] * u.MK
FLAT = np.array([[1.0], [2.0], [3.0]]) * np.ones(WAVELENGTH.size) * EMISSIVITY_UNIT


@pytest.fixture
def flat():
    return Emissivity(WAVELENGTH, TEMPERATURE, FLAT)


def genx(**structures):
    """Bytes of a genx file, in SolarSoft's layout: header, skeleton of the structures, then their data."""

    def text(value):
        raw = value.encode()
        return struct.pack(">II", len(raw), len(raw)) + raw + b"\0" * (-len(raw) % 4) if raw else struct.pack(">I", 0)

    def names(items):
        return struct.pack(">I", len(items)) + b"".join(text(name) for name in items)

    def skeleton(value):
        if isinstance(value, dict):
            return struct.pack(">Iiii", 1, 1, 8, 1) + names(value) + b"".join(map(skeleton, value.values()))
        if isinstance(value, str):
            return struct.pack(">Iii", 0, 7, 1)
        return struct.pack(f">I{value.ndim}iii", value.ndim, *value.shape[::-1], 5, value.size)

    def data(value):
        if isinstance(value, dict):
            return b"".join(map(data, value.values()))
        return text(value) if isinstance(value, str) else value.astype(">f8").tobytes()

    header = struct.pack(">ii", 1, 1) + text("Thu Jan  1 00:00:00 2015") + text("a test")
    main = struct.pack(">iiii", 1, 1, 8, 1) + names(structures) + b"".join(map(skeleton, structures.values()))
    return header + main + data(structures)


def total(**changes):
    contents = {
        "WAVE": WAVELENGTH.value,
        "LOGTE": np.array([6.0, 6.3, 6.6]),
        "EMISSIVITY": FLAT.value,
        "UNITS": "photons cm3 s-1 sr-1 A-1",
    }
    return contents | changes


def idl_structure(**fields):
    """An IDL structure as returned by `scipy.io.readsav`."""
    record = np.recarray((1,), dtype=[(name, object) for name in fields])
    for name, value in fields.items():
        record[name][0] = value
    return record


class TestValidation:
    def test_units_and_shape(self, flat):
        assert flat.wavelength.unit == u.angstrom
        assert flat.temperature.unit == u.K
        assert flat.values.unit == EMISSIVITY_UNIT
        assert flat.values.shape == (3, 101)

    def test_repr(self, flat):
        expected = "<Emissivity: 3 temperatures, log T 6 to 6.6; 101 wavelengths, 90 to 100 Å>"
        assert repr(flat) == expected

    def test_edges(self, flat):
        assert u.allclose(flat.edges[[0, 1, -1]], [89.95, 90.05, 100.05] * u.angstrom)

    @pytest.mark.parametrize(
        ("wavelength", "temperature", "values", "message"),
        [
            (WAVELENGTH[::-1], TEMPERATURE, FLAT, "wavelength must be one-dimensional and ascending"),
            (WAVELENGTH, TEMPERATURE[::-1], FLAT, "temperature must be one-dimensional and ascending"),
            (WAVELENGTH, TEMPERATURE, FLAT.T, r"values must have shape \(3, 101\)"),
            (WAVELENGTH, TEMPERATURE, -FLAT, "found 303 that are not"),
            (WAVELENGTH, TEMPERATURE, FLAT * np.nan, "found 303 that are not"),
        ],
    )
    def test_invalid_arguments(self, wavelength, temperature, values, message):
        with pytest.raises(ValueError, match=message):
            Emissivity(wavelength, temperature, values)

    def test_energy_instead_of_photons(self):
        with pytest.raises(u.UnitsError, match="values"):
            Emissivity(WAVELENGTH, TEMPERATURE, FLAT.value * u.erg * u.cm**3 / (u.s * u.sr * u.angstrom))

    def test_unit_is_required(self):
        with pytest.raises(TypeError, match="wavelength"):
            Emissivity(WAVELENGTH.value, TEMPERATURE, FLAT)

    def test_units_are_converted(self, flat):
        same = Emissivity(WAVELENGTH.to(u.nm), TEMPERATURE, FLAT.to(u.photon * u.m**3 / (u.s * u.sr * u.nm)))
        assert u.allclose(same.values, flat.values)
        assert u.allclose(same.wavelength, flat.wavelength)


class TestIntegral:
    def test_flat_times_flat(self, flat):
        integral = flat.integrate([50, 150] * u.angstrom, [7, 7] * u.cm**2, wavelength_range=[91, 97] * u.angstrom)
        assert u.allclose(integral, np.array([1, 2, 3]) * 7 * 6 * u.photon * u.cm**5 / (u.s * u.sr), rtol=1e-12)

    def test_cut_bin(self, flat):
        integral = flat.integrate(
            [50, 150] * u.angstrom, [1, 1] * u.cm**2, wavelength_range=[91.02, 97.29] * u.angstrom
        )
        assert integral[0].value == pytest.approx(6.27, rel=1e-12)

    def test_default_range(self, flat):
        assert flat.integrate([50, 150] * u.angstrom, [1, 1] * u.cm**2)[0].value == pytest.approx(10.1, rel=1e-12)

    def test_response_is_zero_beyond_its_wavelengths(self, flat):
        integral = flat.integrate([92.95, 95.05] * u.angstrom, [1, 1] * u.cm**2)
        assert integral[0].value == pytest.approx(2.1, rel=1e-12)

    def test_line(self):
        line = np.zeros(FLAT.shape) * EMISSIVITY_UNIT
        line[:, 40] = 10 * EMISSIVITY_UNIT
        integral = Emissivity(WAVELENGTH, TEMPERATURE, line).integrate([90, 100] * u.angstrom, [0, 10] * u.cm**2)
        assert integral.value == pytest.approx([4, 4, 4], rel=1e-9)

    @pytest.mark.parametrize("limits", [[97, 91], [91, 91], [91, 94, 97]])
    def test_invalid_range(self, flat, limits):
        with pytest.raises(ValueError, match="wavelength_range must be two ascending wavelengths"):
            flat.integrate([50, 150] * u.angstrom, [1, 1] * u.cm**2, wavelength_range=limits * u.angstrom)

    def test_range_without_overlap(self, flat):
        with pytest.raises(ValueError, match="must overlap the emissivity"):
            flat.integrate([50, 150] * u.angstrom, [1, 1] * u.cm**2, wavelength_range=[200, 300] * u.angstrom)

    def test_unit_of_range(self, flat):
        with pytest.raises(u.UnitsError):
            flat.integrate([50, 150] * u.angstrom, [1, 1] * u.cm**2, wavelength_range=[1, 2] * u.s)

    def test_wide_bins(self):
        coarse = Emissivity(WAVELENGTH[::10], TEMPERATURE, FLAT[:, ::10])
        with pytest.raises(ValueError, match="do not resolve AIA's passbands"):
            coarse.integrate([50, 150] * u.angstrom, [1, 1] * u.cm**2)

    def test_wide_bins_outside_of_the_range(self):
        wavelength = np.append(WAVELENGTH, [110, 120] * u.angstrom)
        values = np.hstack([FLAT, FLAT[:, :2]])
        integral = Emissivity(wavelength, TEMPERATURE, values).integrate(
            [50, 150] * u.angstrom, [1, 1] * u.cm**2, wavelength_range=[91, 97] * u.angstrom
        )
        assert integral.value == pytest.approx([6, 12, 18])


class TestReading:
    def test_genx(self, tmp_path, flat):
        path = tmp_path / "aia_V9_fullemiss.genx"
        path.write_bytes(genx(GENERAL={"VERSION": "9.0.1"}, TOTAL=total()))
        read = Emissivity.read(path)
        assert u.allclose(read.values, flat.values)
        assert u.allclose(read.wavelength, flat.wavelength)
        assert read.temperature.value == pytest.approx(10 ** np.array([6.0, 6.3, 6.6]))
        assert read.meta == {"source": "aia_V9_fullemiss.genx", "version": "CHIANTI 9.0.1"}

    def test_genx_with_swapped_axes(self, tmp_path, flat):
        path = tmp_path / "other.genx"
        path.write_bytes(genx(TOTAL=total(EMISSIVITY=FLAT.value.T)))
        assert u.allclose(Emissivity.read(path).values, flat.values)

    def test_instrument_file(self, tmp_path):
        path = tmp_path / "aia_V9_all_fullinst.genx"
        path.write_bytes(genx(A94_FULL={"WAVE": WAVELENGTH.value}))
        with pytest.raises(ValueError, match=r"aia_V9_all_fullinst\.genx has no WAVE, LOGTE, EMISSIVITY in TOTAL"):
            Emissivity.read(path)

    def test_other_units_in_a_file(self, tmp_path):
        path = tmp_path / "energy.genx"
        path.write_bytes(genx(TOTAL=total(UNITS="ergs cm3 s-1 sr-1 A-1")))
        with pytest.raises(ValueError, match="in 'ergs cm3 s-1 sr-1 A-1', expected 'photons"):
            Emissivity.read(path)

    @pytest.mark.parametrize("name", ["broken.genx", "broken.sav"])
    def test_broken_file(self, tmp_path, name):
        (tmp_path / name).write_bytes(b"not at all")
        with pytest.raises(ValueError, match=f"{name} could not be read"):
            Emissivity.read(tmp_path / name)

    def test_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"nowhere\.sav"):
            Emissivity.read(tmp_path / "nowhere.sav")

    def test_spectral_model_of_xrt(self, tmp_path, monkeypatch, flat):
        path = tmp_path / "model.geny"
        path.touch()
        monkeypatch.setattr("scipy.io.readsav", lambda _: {"p0": xrt_model()})
        read = Emissivity.read(path)
        assert u.allclose(read.values, flat.values)
        assert u.allclose(read.temperature, TEMPERATURE, rtol=1e-3)
        assert read.meta["version"] == "CHIANTI version 10.0"

    def test_save_with_other_contents(self, tmp_path, monkeypatch):
        path = tmp_path / "other.sav"
        path.touch()
        monkeypatch.setattr("scipy.io.readsav", lambda _: {"other": idl_structure(FLUX=np.zeros(3))})
        with pytest.raises(ValueError, match=r"must contain an emissivity .* found the fields FLUX"):
            Emissivity.read(path)

    @pytest.mark.skipif(not EXPORT.is_file(), reason="the reference files are not here")
    def test_export_of_solarsoft_v9(self):
        read = Emissivity.read(EXPORT)
        assert read.values.shape == (101, 9001)
        assert u.allclose(read.wavelength[[0, 1, -1]], [1, 1.1, 901] * u.angstrom, rtol=1e-12)
        assert np.log10(read.temperature.value)[[0, 52, -1]] == pytest.approx([4, 6.6, 9], rel=1e-12)
        assert read.meta["version"] == "CHIANTI 9.0.1"
        # Fe IX is the brightest line near 171 Å, and log T 5.9 its temperature.
        near = (read.wavelength > 165 * u.angstrom) & (read.wavelength < 180 * u.angstrom)
        line = np.unravel_index(read.values[:, near].argmax(), read.values[:, near].shape)
        assert read.wavelength[near][line[1]].value == pytest.approx(171.1, abs=0.1)
        assert np.log10(read.temperature.value)[line[0]] == pytest.approx(5.9, abs=0.1)


def xrt_model():
    return idl_structure(
        NAME=b"CHIANTI version 10.0",
        WAVE=WAVELENGTH.value.astype(">f4"),
        TEMP=TEMPERATURE.to_value(u.K).astype(">f4"),
        SPEC=FLAT.value.astype(">f4"),
        SPEC_UNITS=b"ph cm^3 s^-1 sr^-1 A^-1",
    )


class TestDownload:
    def test_data_manager(self, tmp_path, flat):
        path = tmp_path / "instead.genx"
        path.write_bytes(genx(TOTAL=total()))
        with manager.override_file("aia_v9_instrument_emissivity", str(path)):
            assert u.allclose(Emissivity.download().values, flat.values)

    def test_failed_download(self, monkeypatch):
        def unreachable():
            msg = "Name or service not known"
            raise RuntimeError(msg)

        monkeypatch.setattr(module, "_downloaded_export", unreachable)
        with pytest.raises(
            ConnectionError, match=r"Name or service not known.*emissivity=.*fullemiss.genx.*from_xrtpy"
        ):
            Emissivity.download()


class TestXRTpy:
    @pytest.fixture
    def package(self, monkeypatch, tmp_path):
        """An importable package with xrtpy's folders."""
        (tmp_path / "xrtpy" / "response" / "data" / "chianti_emission_models").mkdir(parents=True)
        (tmp_path / "xrtpy" / "__init__.py").touch()
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "xrtpy", raising=False)
        yield tmp_path / "xrtpy"
        sys.modules.pop("xrtpy", None)

    def test_not_installed(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "xrtpy", None)
        with pytest.raises(ModuleNotFoundError, match="pip install xrtpy"):
            Emissivity.from_xrtpy()

    def test_unknown_abundance(self):
        with pytest.raises(ValueError, match="one of coronal, hybrid, photospheric, found 'solar'"):
            Emissivity.from_xrtpy("solar")

    @pytest.mark.parametrize(
        ("abundance", "name"),
        [
            ("coronal", "XRT_emiss_model.default_CHIANTI.geny"),
            ("photospheric", "XRT_emiss_model.default_CHIANTI_photospheric.geny"),
        ],
    )
    def test_spectra_of_xrtpy(self, package, monkeypatch, flat, abundance, name):
        (package / "response" / "data" / "chianti_emission_models" / name).touch()
        monkeypatch.setattr("scipy.io.readsav", lambda _: {"p0": xrt_model()})
        read = Emissivity.from_xrtpy(abundance)
        assert read.meta["source"] == name
        assert u.allclose(read.values, flat.values)


class MissingDatasetException(Exception):
    """Fiasco's error for an ion without lines."""


class Ion:
    """An ion with lines of 1 erg cm3 / s each."""

    temperature = TEMPERATURE

    def __init__(self, *lines):
        self._lines = np.array(lines)

    @property
    def transitions(self):
        if self._lines.size == 0:
            raise MissingDatasetException
        # The last is a two-photon transition, which contribution_function omits.
        return types.SimpleNamespace(
            wavelength=np.append(self._lines, 95) * u.angstrom,
            is_bound_bound=np.append(np.ones(self._lines.size, dtype=bool), False),
        )

    def contribution_function(self, density, *, couple_density_to_temperature):
        assert couple_density_to_temperature
        assert u.allclose(density * TEMPERATURE, 1e15 * u.K / u.cm**3)
        return np.ones((3, 1, self._lines.size)) * u.erg * u.cm**3 / u.s


class IonCollection(list):
    """Ions with given continua in erg cm3 / (s Å)."""

    temperature = TEMPERATURE
    continuum = u.erg * u.cm**3 / (u.s * u.angstrom)

    def __init__(self, *ions, free_free=0, free_bound=0, two_photon=0):
        super().__init__(ions)
        self._continua = free_free, free_bound, two_photon

    def free_free(self, wavelength):
        return np.full((3, wavelength.size), float(self._continua[0])) * self.continuum

    def free_bound(self, wavelength):
        return np.full((3, wavelength.size), float(self._continua[1])) * self.continuum

    def two_photon(self, wavelength, electron_density):
        assert u.isclose(electron_density, 1e9 / u.cm**3)
        return np.full((3, 1, wavelength.size), float(self._continua[2])) * self.continuum


class TestFiasco:
    @pytest.fixture
    def fiasco(self, monkeypatch):
        exceptions = types.SimpleNamespace(MissingDatasetException=MissingDatasetException)
        double = types.SimpleNamespace(__version__="0.8.2", IonCollection=IonCollection)
        monkeypatch.setitem(sys.modules, "fiasco", double)
        monkeypatch.setitem(sys.modules, "fiasco.util", types.SimpleNamespace(exceptions=exceptions))
        monkeypatch.setitem(sys.modules, "fiasco.util.exceptions", exceptions)
        return double

    def test_not_installed(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "fiasco", None)
        with pytest.raises(ModuleNotFoundError, match="pip install fiasco"):
            Emissivity.from_fiasco()

    def test_line(self, fiasco):
        spectrum = Emissivity.from_fiasco(IonCollection(Ion(94.03, 200.0)), wavelength=WAVELENGTH)
        photons = (1 * u.erg * 94.03 * u.angstrom / (const.h * const.c)).to_value("") / (4 * np.pi)
        assert spectrum.values.value[:, 40] == pytest.approx(photons / 0.1, rel=1e-9)
        assert np.count_nonzero(spectrum.values.value[0]) == 1

    def test_lines_in_one_bin(self, fiasco):
        one = Emissivity.from_fiasco(IonCollection(Ion(94.01)), wavelength=WAVELENGTH)
        three = Emissivity.from_fiasco(IonCollection(Ion(94.01, 94.01), Ion(94.01), Ion()), wavelength=WAVELENGTH)
        assert u.allclose(three.values, 3 * one.values)

    def test_continua(self, fiasco):
        per_erg = (u.erg * WAVELENGTH / (const.h * const.c)).to_value("")
        for kind, solid_angle in (("free_free", 1), ("free_bound", 4 * np.pi), ("two_photon", 4 * np.pi)):
            spectrum = Emissivity.from_fiasco(IonCollection(**{kind: 2}), wavelength=WAVELENGTH)
            assert spectrum.values.value[1] == pytest.approx(2 * per_erg / solid_angle, rel=1e-9)

    def test_all_of_chianti(self, fiasco, monkeypatch):
        requested = []
        fiasco.list_ions = lambda: ["Fe 9", "Fe 10"]
        fiasco.Ion = lambda name, temperature: requested.append((name, temperature.size)) or Ion(171.0)
        spectrum = Emissivity.from_fiasco()
        assert requested == [("Fe 9", 61), ("Fe 10", 61)]
        assert spectrum.wavelength.size == 9001
        assert spectrum.meta == {"source": "fiasco 0.8.2, 2 ions", "version": "CHIANTI"}
