"""Degradation and noise, as aiapy has them."""

from importlib import resources
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from aiapy.calibrate import degradation, estimate_error
from astropy.table import Table
from astropy.time import Time
from sunpy.util.exceptions import SunpyUserWarning

from sunpy_deepem import CHANNELS
from sunpy_deepem.calibrate import photometry as calibration
from sunpy_deepem.calibrate.photometry import correction_table, counts_uncertainty, degradation_factor, native_pixels
from sunpy_deepem.utils.compat import get_error_table


class TestCorrectionTable:
    def test_the_packaged_one(self):
        table, origin = correction_table()
        assert origin == "packaged aia_v10_degradation.ecsv"
        assert set(CHANNELS) <= set(table["WAVELNTH"].to_value("angstrom").astype(int))

    def test_one_given_is_taken_as_it_is(self):
        table, _ = correction_table()
        assert correction_table(table) == (table, "table given by the user")

    @pytest.mark.parametrize("kind", [str, lambda path: path])
    def test_from_a_file(self, tmp_path, kind):
        packaged = resources.files("sunpy_deepem.data") / "aia_v10_degradation.ecsv"
        (tmp_path / "mine.ecsv").write_text(packaged.read_text(encoding="utf-8"), encoding="utf-8")
        table, origin = correction_table(kind(tmp_path / "mine.ecsv"))
        assert origin == "mine.ecsv"
        assert (table["EFF_AREA"] == correction_table()[0]["EFF_AREA"]).all()

    @pytest.mark.parametrize("source", ["SSW", "jsoc"])
    def test_a_download(self, monkeypatch, source):
        asked = []
        monkeypatch.setattr(calibration, "get_correction_table", lambda source: asked.append(source) or "the table")
        assert correction_table(source) == ("the table", f"aiapy, from {source.upper()}")
        assert asked == [source]

    @pytest.mark.parametrize("source", ["SSW", "JSOC"])
    def test_without_a_network_the_packaged_one(self, monkeypatch, source):
        packaged, origin = correction_table()
        read = calibration.get_correction_table

        def cut_off(asked):
            if asked == source:
                msg = "no route to host"
                raise OSError(msg)
            return read(asked)

        monkeypatch.setattr(calibration, "get_correction_table", cut_off)
        with pytest.warns(SunpyUserWarning, match=rf"'{source}' could not be downloaded \(OSError: no route to host\)"):
            table, found = correction_table(source)
        assert (table["EFF_AREA"] == packaged["EFF_AREA"]).all()
        assert found == origin

    def test_a_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"correction_table names a file that does not exist: .*none\.txt"):
            correction_table(tmp_path / "none.txt")

    def test_something_else(self):
        with pytest.raises(TypeError, match=r"correction_table must be .*found int"):
            correction_table(10)


class TestDegradation:
    @pytest.mark.parametrize(
        ("channel", "expected"), [(94, 0.914), (131, 0.752), (171, 0.876), (193, 0.887), (211, 0.825), (335, 0.443)]
    )
    def test_on_new_year_2014(self, channel, expected):
        assert degradation_factor(channel, Time("2014-01-01")) == pytest.approx(expected, abs=1e-3)

    def test_one_number_as_aiapy_gives_it(self):
        obstime, table = Time("2016-03-04T05:06:07"), correction_table()[0]
        factor = degradation_factor(335, obstime)
        assert isinstance(factor, float)
        assert factor == degradation(335 * u.angstrom, obstime, correction_table=table).value[0]

    def test_relative_to_an_epoch(self):
        early, late = Time("2011-01-01"), Time("2019-01-01")
        ratio = degradation_factor(211, late) / degradation_factor(211, early)
        assert degradation_factor(211, late, epoch=early) == pytest.approx(ratio)
        assert degradation_factor(211, late, epoch=late) == 1


class TestNativePixels:
    @pytest.mark.parametrize(
        ("scale", "n"), [((0.6, 0.6), 1), ((2.4, 2.4), 16), ((4.8, 4.8), 64), ((-1.2, 0.6), 2), ((0.3, 0.3), 1)]
    )
    def test_area_over_that_of_a_native_pixel(self, scale, n):
        assert native_pixels(scale * u.arcsec / u.pix) == pytest.approx(n)

    def test_other_units(self):
        assert native_pixels([4.8 / 3600, 4.8 / 3600] * u.deg / u.pix) == pytest.approx(64)


class TestNoise:
    def estimate(self, counts, channel, n_sample=1):
        with resources.as_file(resources.files("sunpy_deepem.data") / "aia_v3_errors.ecsv") as path:
            table = get_error_table(path)
        counts = np.ravel(counts) * u.DN / u.pix
        return estimate_error(counts, channel * u.angstrom, n_sample=n_sample, error_table=table).value

    @pytest.mark.parametrize("channel", CHANNELS)
    @pytest.mark.parametrize("n_sample", [1, 16, 64])
    def test_as_aiapy_estimates_it(self, channel, n_sample):
        counts = np.array([0, 1, 30, 1000, 15000.0])
        np.testing.assert_allclose(
            counts_uncertainty(counts, channel, n_sample), self.estimate(counts, channel, n_sample)
        )

    @pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 0)])
    def test_of_any_shape(self, shape):
        assert counts_uncertainty(np.full(shape, 50.0), 171).shape == shape

    def test_negative_counts_have_the_noise_of_none(self):
        np.testing.assert_array_equal(counts_uncertainty([-1e3, -0.1, 0], 94), self.estimate([0, 0, 0], 94))

    def test_nan_stays_nan(self):
        assert np.isnan(counts_uncertainty([[np.nan, 1]], 94)).tolist() == [[True, False]]

    def test_counts_are_left_as_they_are(self):
        counts = np.array([-5.0, np.nan, 5.0])
        counts_uncertainty(counts, 94)
        np.testing.assert_array_equal(counts, [-5.0, np.nan, 5.0])


@pytest.mark.parametrize(
    "name", ["aia_v10_degradation.ecsv", "aia_v3_errors.ecsv", "aia_v10_temperature_response.ecsv"]
)
def test_packaged_tables_say_where_they_are_from(name):
    with resources.as_file(resources.files("sunpy_deepem.data") / name) as path:
        meta = Table.read(path).meta
    assert {"source", "version", "date", "made_by", "description"} <= set(meta)
    assert (Path(__file__).parents[2] / meta["made_by"]).is_file()
