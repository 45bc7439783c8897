"""Degradation tables and factors."""

from importlib import resources

import astropy.units as u
import numpy as np
import pytest
from aiapy.calibrate import degradation
from astropy.time import Time
from helpers import six
from sunpy.util.exceptions import SunpyUserWarning

from sunpy_deepem import CHANNELS, ChannelStack, TemperatureResponse
from sunpy_deepem.calibrate import degradation as module
from sunpy_deepem.calibrate.degradation import correction_table, degradation_factor, known_until


class TestCorrectionTable:
    def test_default(self):
        table, origin = correction_table()
        assert origin == "packaged aia_v10_degradation.ecsv"
        assert set(CHANNELS) <= set(table["WAVELNTH"].to_value("angstrom").astype(int))

    def test_given_table(self):
        table, _ = correction_table()
        assert correction_table(table) == (table, "table given by the user")

    @pytest.mark.parametrize("kind", [str, lambda path: path])
    def test_file(self, tmp_path, kind):
        packaged = resources.files("sunpy_deepem.data") / "aia_v10_degradation.ecsv"
        (tmp_path / "mine.ecsv").write_text(packaged.read_text(encoding="utf-8"), encoding="utf-8")
        table, origin = correction_table(kind(tmp_path / "mine.ecsv"))
        assert origin == "mine.ecsv"
        assert (table["EFF_AREA"] == correction_table()[0]["EFF_AREA"]).all()

    @pytest.mark.parametrize("source", ["SSW", "jsoc"])
    def test_download(self, monkeypatch, source):
        requested = []
        monkeypatch.setattr(module, "get_correction_table", lambda source: requested.append(source) or "the table")
        assert correction_table(source) == ("the table", f"aiapy, from {source.upper()}")
        assert requested == [source]

    @pytest.mark.parametrize("source", ["SSW", "JSOC"])
    def test_failed_download(self, monkeypatch, source):
        packaged, origin = correction_table()
        read = module.get_correction_table

        def unreachable(requested):
            if requested == source:
                msg = "no route to host"
                raise OSError(msg)
            return read(requested)

        monkeypatch.setattr(module, "get_correction_table", unreachable)
        with pytest.warns(SunpyUserWarning, match=rf"'{source}' could not be downloaded \(OSError: no route to host\)"):
            table, found = correction_table(source)
        assert (table["EFF_AREA"] == packaged["EFF_AREA"]).all()
        assert found == origin

    def test_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"correction_table names a file that does not exist: .*none\.txt"):
            correction_table(tmp_path / "none.txt")

    def test_other_types(self):
        with pytest.raises(TypeError, match=r"correction_table must be .*found int"):
            correction_table(10)


class TestDegradationFactor:
    @pytest.mark.parametrize(
        ("channel", "expected"), [(94, 0.914), (131, 0.752), (171, 0.876), (193, 0.887), (211, 0.825), (335, 0.443)]
    )
    def test_published_factors(self, channel, expected):
        assert degradation_factor(channel, Time("2014-01-01")) == pytest.approx(expected, abs=1e-3)

    def test_same_as_aiapy(self):
        obstime, table = Time("2016-03-04T05:06:07"), correction_table()[0]
        factor = degradation_factor(335, obstime)
        assert isinstance(factor, float)
        assert factor == degradation(335 * u.angstrom, obstime, correction_table=table).value[0]

    def test_epoch(self):
        early, late = Time("2011-01-01"), Time("2019-01-01")
        ratio = degradation_factor(211, late) / degradation_factor(211, early)
        assert degradation_factor(211, late, epoch=early) == pytest.approx(ratio)
        assert degradation_factor(211, late, epoch=late) == 1


class TestKnownUntil:
    def test_packaged_table(self):
        assert known_until(correction_table()[0], Time("2020-06-01")).isot.startswith("2020-06-01T12")

    def test_later_observations_give_a_warning(self):
        """From the start of its last epoch to 2030, the table is constant."""
        table = correction_table()[0]
        assert degradation_factor(335, Time("2020-06-02")) == degradation_factor(335, Time("2026-01-01"))
        with pytest.warns(SunpyUserWarning, match=r"2024-05-10 is an extrapolation.*ends at 2020-06-01.*Pass a"):
            known_until(table, Time("2024-05-10"))

    def test_provenance_of_a_stack(self):
        maps = six(np.full((4, 4), 200.0), **{"date-obs": "2024-05-10T00:00:00"})
        with pytest.warns(SunpyUserWarning, match="is an extrapolation"):
            stack = ChannelStack.from_maps(maps)
        assert stack.meta["degradation_known_until"].startswith("2020-06-01")
        assert ChannelStack.from_maps(maps, degradation=None).meta["degradation_known_until"] is None

    def test_response_of_a_late_time(self):
        with pytest.warns(SunpyUserWarning, match="is an extrapolation"):
            TemperatureResponse.default(obstime="2024-05-10")
