"""The response computed by aiapy, compared with results by hand and with SolarSoft."""

import importlib.util
import os
from pathlib import Path

import astropy.constants as const
import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable
from astropy.time import Time
from sunpy.util.exceptions import SunpyUserWarning

from sunpy_deepem import CHANNELS, LogTBins, TemperatureResponse
from sunpy_deepem.calibrate.degradation import correction_table, degradation_factor
from sunpy_deepem.response import instrument as module
from sunpy_deepem.response.emissivity import Emissivity
from sunpy_deepem.units import EMISSIVITY_UNIT, RESPONSE_UNIT

ROOT = Path(__file__).parents[2]
REFERENCE = Path(os.environ.get("SUNPY_DEEPEM_SHARED", ROOT.parent / "shared")) / "reference"
EXPORT = REFERENCE / "aia_V9_instrument_emissivity.sav"
SOLARSOFT = REFERENCE / "ssw_V10_temperature_response.ecsv"
needs_reference = pytest.mark.skipif(
    not (EXPORT.is_file() and SOLARSOFT.is_file()), reason="the reference files are not here"
)

DATE = Time("2014-01-01T00:00:00")
# Published with SolarSoft's V10.
EVE_FACTORS = [0.955, 1.044, 0.968, 1.205, 1.084, 1.273]
AREA = 80.0 * u.cm**2
PLATE_SCALE = 8.5e-12 * u.sr / u.pix


@pytest.fixture
def instrument():
    """A telescope with a flat response: full transmission, and a CCD that compensates for the photon's energy."""
    wave = np.arange(400, 6001) / 10
    flat = np.ones(wave.size)
    channel = {
        "WAVE": wave,
        "PRIMARY": flat,
        "SECONDARY": flat,
        "FP_FILTER": flat,
        "ENT_FILTER": flat,
        "CONTAM": flat,
        "CCD": wave / 100,
        "GEOAREA": AREA.value,
        "PLATESCALE": PLATE_SCALE.value,
        "ELECPEREV": 0.25,
        "ELECPERDN": 20.0,
    }
    return {f"A{name}_FULL": dict(channel) for name in (*CHANNELS, 304)}


@pytest.fixture
def emissivity():
    """An emissivity of one at each wavelength and temperature."""
    wavelength = np.arange(200, 7001) / 10 * u.angstrom
    temperature = 10 ** np.arange(5, 8.01, 0.1) * u.K
    values = np.ones((temperature.size, wavelength.size)) * EMISSIVITY_UNIT
    return Emissivity(wavelength, temperature, values, meta={"source": "a test", "version": "flat"})


@pytest.fixture
def dark(emissivity):
    """Plasma without emission, so that only chiantifix remains."""
    return Emissivity(emissivity.wavelength, emissivity.temperature, emissivity.values * 0)


@pytest.fixture
def compute(instrument, emissivity):
    """`TemperatureResponse.from_aiapy` for the flat telescope and plasma, by default without corrections."""

    def from_aiapy(obstime=None, **options):
        bare = {"eve": False, "chiantifix": False, "crosstalk": False}
        files = {"instrument_file": instrument, "emissivity": emissivity}
        return TemperatureResponse.from_aiapy(obstime, **(bare | files | options))

    return from_aiapy


def flat_curve(width):
    """Area × gain at 100 Å × plate scale × width of the integral."""
    photon = (const.h * const.c / (100 * u.angstrom)).to_value(u.eV)
    gain = photon * 0.25 / 20 * u.DN / u.photon
    curve = AREA * gain * PLATE_SCALE * width * EMISSIVITY_UNIT
    return curve.to_value(RESPONSE_UNIT)


class TestByHand:
    def test_flat_times_flat(self, compute):
        response = compute(wavelength_range=[50, 550] * u.angstrom)
        assert response.curves.unit == RESPONSE_UNIT
        assert response.curves.value == pytest.approx(np.full((6, 31), flat_curve(500 * u.angstrom)), rel=1e-9)
        assert response.matrix.value == pytest.approx(np.full((6, 18), flat_curve(500 * u.angstrom)), rel=1e-9)

    def test_wavelength_range(self, compute):
        whole, part = (compute(wavelength_range=[50, end] * u.angstrom) for end in (550, 150))
        assert (part.matrix / whole.matrix).value == pytest.approx(np.full((6, 18), 0.2), rel=1e-9)

    def test_crosstalk(self, compute):
        ratio = (compute(crosstalk=True).matrix / compute().matrix).value[:, 0]
        assert ratio == pytest.approx([2, 2, 1, 1, 1, 2])

    def test_chiantifix(self, compute, dark):
        added = compute(emissivity=dark, chiantifix=True).curves.value
        packaged = QTable.read(ROOT / "sunpy_deepem" / "data" / "aia_v10_temperature_response.ecsv")
        # The table has log T from 4 in steps of 0.05, the emissivity from 5 in steps of 0.1.
        assert added[0] == pytest.approx(packaged["chiantifix_94"].value[20:81:2], rel=1e-6)
        assert not added[1:].any()

    def test_bins(self, compute):
        bins = LogTBins(6.0, 0.2, 5)
        assert compute(bins=bins).bins == bins
        assert compute(bins=bins).matrix.shape == (6, 5)

    def test_meta(self, compute):
        meta = compute(wavelength_range=[10, 413] * u.angstrom).meta
        assert meta["origin"].startswith("aiapy ")
        assert meta["source"] == "emissivity a test; instrument instrument data given by the user"
        assert meta["version"] == "flat"
        assert meta["wavelength_range"] == [20.0, 413.0]
        assert meta["correction_table"] == "packaged aia_v10_degradation.ecsv"
        assert meta["obstime"] is None
        assert [meta[key] for key in ("eve", "chiantifix", "crosstalk")] == [False, False, False]


def idl_structure(fields):
    """A structure of structures as returned by `scipy.io.readsav`."""
    record = np.recarray((1,), dtype=[(name, object) for name in fields])
    for name, value in fields.items():
        record[name][0] = idl_structure(value) if isinstance(value, dict) else value
    return record


class TestInstrumentFiles:
    def test_genx(self, compute, instrument, tmp_path, monkeypatch):
        path = tmp_path / "aia_V9_all_fullinst.genx"
        path.touch()
        monkeypatch.setattr("sunpy.io.special.read_genx", {path: instrument}.get)
        response = compute(instrument_file=str(path), crosstalk=True)
        assert response.matrix.value == pytest.approx(compute(crosstalk=True).matrix.value, rel=1e-12)
        assert response.meta["source"].endswith("instrument aia_V9_all_fullinst.genx")

    def test_idl_save(self, compute, instrument, tmp_path, monkeypatch):
        path = tmp_path / "export.sav"
        path.touch()
        parts = {name.removesuffix("_FULL"): fields for name, fields in instrument.items()}
        saved = idl_structure({"FORMAT": b"an export"} | parts)
        monkeypatch.setattr("scipy.io.readsav", {path: {"hybrid_export": saved}}.get)
        response = compute(instrument_file=path, crosstalk=True)
        assert response.matrix.value == pytest.approx(compute(crosstalk=True).matrix.value, rel=1e-12)
        assert response.meta["source"].endswith("instrument export.sav")


class TestTime:
    def test_default_is_launch(self, compute):
        launch = Time("2010-03-24T00:00:00")
        assert compute(launch).matrix.value == pytest.approx(compute().matrix.value, rel=1e-12)

    def test_degradation(self, compute):
        ratio = (compute(DATE).matrix / compute().matrix).value
        for index, channel in enumerate(CHANNELS):
            assert ratio[index] == pytest.approx(degradation_factor(channel, DATE), rel=1e-12)

    def test_eve(self, compute):
        table, _ = correction_table()
        ratio = (compute(eve=True).matrix / compute().matrix).value[:, 0]
        for index, channel in enumerate(CHANNELS):
            row = table[table["WAVE_STR"] == f"{channel}_THIN"][0]
            area = AREA * row["EFF_WVLN"] / (100 * u.angstrom)
            assert ratio[index] == pytest.approx((row["EFF_AREA"] / area).to_value(""), rel=1e-9)

    def test_chiantifix_is_degraded(self, compute, dark):
        fix, later = (compute(time, emissivity=dark, chiantifix=True).matrix[0] for time in (None, DATE))
        assert (later / fix).value == pytest.approx(np.full(18, degradation_factor(94, DATE)), rel=1e-12)

    def test_meta(self, compute):
        assert compute(DATE).meta["obstime"] == "2014-01-01T00:00:00.000"

    def test_packaged_response(self):
        launch, later = TemperatureResponse.default(), TemperatureResponse.default(obstime=DATE)
        factors = [degradation_factor(channel, DATE) for channel in CHANNELS]
        assert (later.matrix / launch.matrix).value == pytest.approx(np.repeat(factors, 18).reshape(6, 18), rel=1e-12)
        assert factors == pytest.approx([0.914, 0.752, 0.876, 0.887, 0.825, 0.443], abs=1e-3)
        assert later.meta["obstime"] == "2014-01-01T00:00:00.000"
        assert launch.meta["obstime"] is None
        assert later != launch

    @pytest.mark.parametrize("make", [TemperatureResponse.default, TemperatureResponse.from_aiapy])
    def test_several_times(self, make):
        with pytest.raises(ValueError, match="obstime must be one time, found 2"):
            make(obstime=Time(["2014-01-01", "2015-01-01"]))

    def test_time_before_launch(self, compute):
        for make in (TemperatureResponse.default, compute):
            with pytest.raises(ValueError, match="No valid calibration epoch"):
                make(obstime=Time("2009-01-01"))


class TestErrors:
    def test_short_emissivity(self, compute, emissivity):
        index = emissivity.wavelength <= 400 * u.angstrom
        short = Emissivity(emissivity.wavelength[index], emissivity.temperature, emissivity.values[:, index])
        with pytest.warns(SunpyUserWarning, match="known from 19.95 Angstrom to 400.05 Angstrom only.*335"):
            compute(emissivity=short)
        # No warning for an explicit range.
        assert compute(emissivity=short, wavelength_range=[20, 400] * u.angstrom).meta["wavelength_range"] == [20, 400]

    def test_type_of_emissivity(self, compute):
        with pytest.raises(TypeError, match="emissivity must be an Emissivity, the path of one or None, found ndarray"):
            compute(emissivity=np.ones(3))

    def test_missing_files(self, compute, tmp_path):
        for argument in ("emissivity", "instrument_file"):
            with pytest.raises(FileNotFoundError, match=r"nowhere\.genx"):
                compute(**{argument: tmp_path / "nowhere.genx"})

    def test_missing_channels(self, compute, instrument):
        del instrument["A304_FULL"], instrument["A171_FULL"]
        with pytest.raises(ValueError, match="has no A171_FULL, A304_FULL"):
            compute()

    def test_unit_of_range(self, compute):
        with pytest.raises(u.UnitsError):
            compute(wavelength_range=[1, 901] * u.K)

    def test_failed_download(self, compute, monkeypatch):
        def unreachable(channel, *, instrument_file=None):
            msg = "Name or service not known"
            raise RuntimeError(msg)

        monkeypatch.setattr(module, "Channel", unreachable)
        with pytest.raises(ConnectionError, match=r"service not known.*instrument_file=.*fullinst\.genx"):
            compute(instrument_file=None)


@pytest.fixture(scope="module")
def bare():
    return TemperatureResponse.from_aiapy(eve=False, chiantifix=False, instrument_file=EXPORT, emissivity=EXPORT)


@pytest.fixture(scope="module")
def solarsoft():
    return QTable.read(SOLARSOFT)


@needs_reference
class TestAgainstSolarSoft:
    @pytest.mark.parametrize("channel", CHANNELS)
    def test_curves(self, bare, solarsoft, channel):
        log_t = np.log10(bare.temperature.value).round(2)
        known = (log_t >= 5.0) & (log_t <= 7.5)
        ratio = (bare.curves[CHANNELS.index(channel)] / solarsoft[f"response_{channel}"]).to_value("")
        # The difference is due to the value of h c.
        assert ratio[known] == pytest.approx(1, abs=1e-4)

    def test_eve_factors(self, bare):
        eve = TemperatureResponse.from_aiapy(chiantifix=False, instrument_file=EXPORT, emissivity=EXPORT)
        assert (eve.matrix / bare.matrix).value[:, 0] == pytest.approx(EVE_FACTORS, abs=5e-4)

    @pytest.mark.parametrize("obstime", [None, DATE])
    def test_packaged_response(self, obstime):
        computed = TemperatureResponse.from_aiapy(obstime, instrument_file=EXPORT, emissivity=EXPORT)
        packaged = TemperatureResponse.default(obstime=obstime)
        assert (computed.matrix / packaged.matrix).value == pytest.approx(np.ones((6, 18)), abs=5e-4)

    def test_long_wavelengths(self, bare):
        short = TemperatureResponse.from_aiapy(
            eve=False,
            chiantifix=False,
            instrument_file=EXPORT,
            emissivity=EXPORT,
            wavelength_range=[1, 413] * u.angstrom,
        )
        ratio = (short.curves / bare.curves).value[:, np.argmin(np.abs(np.log10(bare.temperature.value) - 5.5))]
        assert ratio == pytest.approx([0.968, 1.0, 0.900, 0.910, 0.784, 0.351], abs=2e-3)

    def test_packaged_table(self, solarsoft):
        path = ROOT / "tools" / "make_response_table.py"
        spec = importlib.util.spec_from_file_location(path.stem, path)
        tool = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tool)
        made, packaged = tool.make_table(EXPORT, solarsoft), QTable.read(tool.PACKAGED)
        assert made.colnames == packaged.colnames
        assert made.meta.keys() == packaged.meta.keys()
        assert made.meta["eve_factors"] == pytest.approx(packaged.meta["eve_factors"], abs=2e-7)  # single precision
        for name in made.colnames:
            assert u.allclose(made[name], packaged[name], rtol=1e-4), name
