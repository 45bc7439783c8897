"""Tests of `invert_series` in one process."""

import json
import os
import sys
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.time import Time
from helpers import aia_map, changed
from sunpy.util.exceptions import SunpyUserWarning

from sunpy_deepem import CHANNELS, DeepEM, DEMCube, TemperatureResponse, invert
from sunpy_deepem.series import (
    ChannelSets,
    DEMCubeSequence,
    SeriesReport,
    SetResult,
    group_maps,
    invert_series,
)
from sunpy_deepem.utils.files import atomic_path

START = Time("2014-01-01T00:00:00")


class TestInvertSeries:
    def test_one_file_per_set(self, tmp_path, maps_folder):
        report = invert_series(maps_folder, tmp_path / "a" / "dem")
        names = [f"deepem_2014-01-01T000{minute}05.fits" for minute in (0, 2, 4)]
        assert [path.name for path in report.paths] == names
        assert sorted(path.name for path in (tmp_path / "a" / "dem").iterdir()) == [*names, "report.json"]
        assert (len(report.done), len(report.skipped), len(report.failed)) == (3, 0, 0)
        assert list(report.times.isot) == [f"2014-01-01T00:0{minute}:05.840" for minute in (0, 2, 4)]

    def test_equals_invert(self, tmp_path, maps_folder):
        report = invert_series(maps_folder, tmp_path / "dem", shape=16, systematic=0.2)
        for step, path in enumerate(report.paths):
            expected = invert(sorted(maps_folder.glob(f"aia_{step}_*")), shape=16, systematic=0.2)
            cube = DEMCube.read(path)
            np.testing.assert_array_equal(cube.data, expected.data)
            np.testing.assert_array_equal(cube.uncertainty.array, expected.uncertainty.array)
            assert cube.inputs == expected.inputs

    def test_skip_done_sets(self, tmp_path, maps_folder):
        first = invert_series(maps_folder, tmp_path)
        written = [path.stat().st_mtime_ns for path in first.paths]
        second = invert_series(maps_folder, tmp_path)
        assert (len(second.done), len(second.skipped)) == (0, 3)
        assert [path.stat().st_mtime_ns for path in second.paths] == written
        assert second.paths == first.paths

    def test_parts_write_the_files_of_the_whole(self, tmp_path, maps_folder):
        sets = group_maps(maps_folder)
        reports = [invert_series(sets.select(part=(k, 4)), tmp_path / "dem") for k in (1, 2, 3, 4)]
        assert [len(report.done) for report in reports] == [1, 1, 1, 0]
        assert len(invert_series(maps_folder, tmp_path / "dem").skipped) == 3
        reports = [f"report-{k}-of-4.json" for k in (1, 2, 3, 4)]
        assert sorted(path.name for path in (tmp_path / "dem").glob("*.json")) == [*reports, "report.json"]

    def test_packaged_weights_by_name(self, tmp_path, maps_folder):
        sets = group_maps(maps_folder).select(part=(1, 3))
        assert len(invert_series(sets, tmp_path, weights="neutral").done) == 1

    def test_explicit_defaults_are_the_same_options(self, tmp_path, maps_folder):
        invert_series(maps_folder, tmp_path)
        report = invert_series(maps_folder, tmp_path, shape=512, systematic=0.1, weights="default", device="cpu")
        assert len(report.skipped) == 3

    def test_network_is_identified_by_weights(self, tmp_path, maps_folder):
        network = DeepEM.load("default")
        network.save(tmp_path / "mine.safetensors")
        invert_series(maps_folder, tmp_path, weights=network)
        assert len(invert_series(maps_folder, tmp_path, weights=tmp_path / "mine.safetensors").skipped) == 3
        network.module.layers[0].bias.data += 0.1
        assert len(invert_series(maps_folder, tmp_path, weights=network).failed) == 3

    def test_damaged_file_is_replaced(self, tmp_path, maps_folder):
        first, second, third = invert_series(maps_folder, tmp_path).paths
        expected = DEMCube.read(second).data
        first.write_bytes(first.read_bytes()[:20_000])
        content = bytearray(second.read_bytes())
        content[len(content) // 2] ^= 0xFF
        second.write_bytes(content)
        report = invert_series(maps_folder, tmp_path)
        assert [result.path for result in report.done] == [first, second]
        assert [result.path for result in report.skipped] == [third]
        np.testing.assert_array_equal(DEMCube.read(second).data, expected)

    def test_other_options(self, tmp_path, maps_folder):
        before = [path.read_bytes() for path in invert_series(maps_folder, tmp_path).paths]
        report = invert_series(maps_folder, tmp_path, systematic=0.2, shape=16)
        assert len(report.failed) == 3
        assert "made with other shape, systematic. Pass overwrite=True" in report.failed[0].reason
        assert [path.read_bytes() for path in sorted(tmp_path.glob("deepem_*"))] == before
        assert len(invert_series(maps_folder, tmp_path, systematic=0.2, shape=16, overwrite=True).done) == 3
        assert DEMCube.read(tmp_path / "deepem_2014-01-01T000005.fits").shape == (18, 16, 16)

    @pytest.mark.parametrize("option", ["method", "response", "region"])
    def test_other_objects_as_options(self, tmp_path, maps_folder, sun, option):
        def flat(intensity, uncertainty, response):
            em = np.ones((18, *intensity.shape[1:])) * intensity.sum(axis=0) / response.matrix.value.sum()
            return em, np.zeros(intensity.shape[1:], dtype=int)

        def flatter(*pixels):
            return flat(*pixels)

        corners = [SkyCoord(at * u.arcsec, at * u.arcsec, frame=sun[3].coordinate_frame) for at in (-300, 0, 300)]
        one, other = {
            "method": (flat, flatter),
            "response": (TemperatureResponse.default(), TemperatureResponse.default(eve=False)),
            "region": (corners[:2], corners[1:]),
        }[option]
        options = {"method": flat, option: one}
        assert len(invert_series(maps_folder, tmp_path, **options).done) == 3
        assert len(invert_series(maps_folder, tmp_path, **options).skipped) == 3
        report = invert_series(maps_folder, tmp_path, **options | {option: other})
        assert f"made with other {option}" in report.failed[0].reason

    def test_other_inputs(self, tmp_path, maps_folder):
        invert_series(maps_folder, tmp_path)
        os.utime(maps_folder / "aia_1_0171.fits", (0, 0))
        report = invert_series(maps_folder, tmp_path)
        assert [len(part) for part in (report.done, report.skipped, report.failed)] == [0, 2, 1]
        assert "made with other inputs" in report.failed[0].reason

    def test_bad_set_does_not_stop_others(self, tmp_path, maps_folder):
        path = maps_folder / "aia_0_0131.fits"
        path.write_bytes(path.read_bytes()[:8640])
        (maps_folder / "aia_2_0094.fits").unlink()
        (maps_folder / "aia_304.fits").write_bytes((maps_folder / "aia_1_0094.fits").read_bytes())
        fits.setval(maps_folder / "aia_304.fits", "WAVELNTH", value=304)
        report = invert_series(maps_folder, tmp_path / "dem")
        assert [path.name for path in report.paths] == ["deepem_2014-01-01T000205.fits"]
        truncated, incomplete = report.failed
        assert "aia_0_0131.fits" in truncated.reason
        assert incomplete.reason == "missing: 94 Å"
        assert len(incomplete.inputs) == 5
        assert report.ignored == ((str(maps_folder / "aia_304.fits"), "not of the channels used"),)

    def test_report_as_json(self, tmp_path, maps_folder):
        (maps_folder / "aia_2_0094.fits").unlink()
        (maps_folder / "broken.fits").write_bytes(b"")
        report = invert_series(maps_folder, tmp_path)
        stored = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
        assert stored == json.loads(report.to_json())
        assert stored["format"] == "sunpy_deepem report 1"
        assert (stored["done"], stored["skipped"], stored["failed"]) == (2, 0, 2)
        assert [each["status"] for each in stored["sets"]] == ["done", "done", "failed", "failed"]
        assert stored["sets"][0] == {
            "status": "done",
            "time": "2014-01-01T00:00:05.840",
            "inputs": [str(maps_folder / f"aia_0_{channel:04}.fits") for channel in CHANNELS],
            "file": "deepem_2014-01-01T000005.fits",
            "reason": None,
        }
        assert stored["sets"][3]["time"] is None
        assert stored["ignored"] == []

    def test_report_as_text(self, tmp_path, maps_folder):
        for path in maps_folder.glob("aia_*_0094.fits"):
            path.write_bytes(path.read_bytes()[:8640])
        (maps_folder / "broken.fits").write_bytes(b"")
        lines = str(invert_series(maps_folder, tmp_path)).splitlines()
        assert lines[0] == "0 inverted, 0 skipped as done before, 4 failed"
        assert max(map(len, lines[:4])) <= 80
        assert lines[1].startswith("  2014-01-01T00:00:05: ")

    def test_many_failures(self):
        report = SeriesReport(tuple(SetResult("failed", START, ("a.fits",), reason="dark") for _ in range(12)))
        assert str(report).splitlines()[-2:] == ["  2014-01-01T00:00:00: dark", "  and 2 more"]
        assert len(json.loads(report.to_json())["sets"]) == 12

    def test_continue_after_interrupt(self, tmp_path, maps_folder, interrupted_once):
        with pytest.raises(KeyboardInterrupt):
            invert_series(maps_folder, tmp_path)
        stored = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
        assert [each["reason"] for each in stored["sets"]] == [None, *["interrupted before it was inverted"] * 2]
        assert len(list(tmp_path.glob("deepem_*"))) == 1
        report = invert_series(maps_folder, tmp_path)
        assert (len(report.skipped), len(report.done)) == (1, 2)
        assert len(interrupted_once) == 4

    def test_full_disk(self, tmp_path, maps_folder, monkeypatch):
        """No partial file is left."""

        def full(cube, path, **options):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(DEMCube, "write", full)
        report = invert_series(maps_folder, tmp_path)
        assert [result.reason for result in report.failed] == ["OSError: [Errno 28] No space left on device"] * 3
        assert sorted(path.name for path in tmp_path.iterdir()) == ["maps", "report.json"]

    def test_remove_partial_files_of_killed_runs_only(self, tmp_path, maps_folder):
        """Files of a run that lives, in this or another process, stay."""
        with atomic_path(tmp_path / "other.fits") as of_another_run:
            of_another_run.write_bytes(b"half")
            killed = [tmp_path / f".{name}.{'0' * 32}" for name in ("deepem_2014-01-01T000005.fits", "other.fits")]
            for path in killed:
                path.with_name(f"{path.name}.part").write_bytes(b"half")
                path.with_name(f"{path.name}.lock").touch()
            invert_series(maps_folder, tmp_path)
            found = {path.name for path in tmp_path.iterdir() if path.suffix in (".part", ".lock")}
            assert found == {of_another_run.name, of_another_run.with_suffix(".lock").name}

    def test_invalid_folder(self, tmp_path, maps_folder):
        (tmp_path / "file").write_text("no folder")
        for out in (tmp_path / "file", tmp_path / "file" / "out"):
            with pytest.raises(OSError, match="cannot be written to"):
                invert_series(maps_folder, out)
        if Path("/proc/self").is_dir():  # even root cannot write there
            with pytest.raises(OSError, match="the folder /proc cannot be written to"):
                invert_series(maps_folder, "/proc")

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
    def test_read_only_folder(self, tmp_path, maps_folder):
        (tmp_path / "out").mkdir(mode=0o555)
        with pytest.raises(PermissionError, match="cannot be written to"):
            invert_series(maps_folder, tmp_path / "out")

    def test_invalid_arguments(self, tmp_path, maps_folder):
        with pytest.raises(ValueError, match=r"out must be a folder, found .*dem.fits"):
            invert_series(maps_folder, tmp_path / "dem.fits")
        with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
            invert_series(maps_folder, tmp_path, weights="none.safetensors")
        with pytest.raises(ValueError, match="source holds no AIA map of the six channels"):
            invert_series(ChannelSets(()))
        with pytest.raises(ValueError, match="source holds no AIA map"):
            invert_series([aia_map(304, np.ones((4, 4)))], tmp_path)

    def test_unknown_options(self, tmp_path, folder):
        with pytest.raises(TypeError, match=r"invert_series\(\) got .* 'shpae'\. Did you mean 'shape'\?"):
            invert_series(folder, tmp_path / "dem", shpae=None)
        assert not (tmp_path / "dem").exists()


class TestInMemory:
    def test_sequence(self, dim_to_bright):
        sequence = invert_series(dim_to_bright)
        assert isinstance(sequence, DEMCubeSequence)
        assert sequence.shape == (3, 18, 32, 32)
        np.testing.assert_array_equal(sequence[1].data, invert(dim_to_bright[6:12]).data)
        assert len(sequence.meta["report"].done) == 3

    def test_maps_to_files(self, tmp_path, dim_to_bright):
        assert len(invert_series(dim_to_bright, tmp_path).done) == 3
        assert len(invert_series(dim_to_bright, tmp_path).skipped) == 3
        brighter = [changed(smap, data=2 * smap.data) for smap in dim_to_bright]
        assert "made with other inputs" in invert_series(brighter, tmp_path).failed[0].reason

    def test_warning_of_failed_sets(self, dim_to_bright):
        with pytest.warns(SunpyUserWarning, match="00:02:0.: missing: 94 Å"):
            sequence = invert_series([smap for index, smap in enumerate(dim_to_bright) if index != 6])
        assert sequence.shape[0] == 2
        assert len(sequence.meta["report"].failed) == 1

    def test_only_failed_sets(self, dim_to_bright):
        with pytest.raises(ValueError, match=r"No set of source could be inverted\.\n(.*\n)*.*missing: 335 Å"):
            invert_series(dim_to_bright[:5])


@pytest.mark.parametrize("scheduler", ["processes", "tcp://localhost:8786"])
def test_dask_is_missing(dim_to_bright, monkeypatch, scheduler):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r'pip install "sunpy_deepem\[dask\]"'):
        invert_series(dim_to_bright, scheduler=scheduler)
