"""Tests of `watch_series`: a folder that fills."""

import json
import os
import shutil
import threading
import time

import astropy.units as u
import numpy as np
import pytest

from sunpy_deepem import DEMCube, invert
from sunpy_deepem.series import invert_series, watch_series, watching

OLD = time.time() - 3600
LOOK = {"interval": 0.01 * u.s, "idle": 0.05 * u.s}


@pytest.fixture
def arriving(tmp_path):
    """An empty folder."""
    folder = tmp_path / "arriving"
    folder.mkdir()
    return folder


def arrive(maps_folder, folder, pattern):
    """Copy files into a folder, as if their download had ended an hour ago."""
    for path in sorted(maps_folder.glob(pattern)):
        shutil.copy(path, folder / path.name)
        os.utime(folder / path.name, (OLD, OLD))


def watch(folder, out, **options):
    return list(watch_series(folder, out, **LOOK | options))


def summary(results):
    return [(result.status, result.time.utc.isot[:16]) for result in results]


class Looks:
    """Does something before each look at the folder, then ends."""

    def __init__(self, monkeypatch, *steps):
        self.steps, self.stop = list(steps), threading.Event()
        look = watching._Folder.look

        def stepped(folder):
            if self.steps:
                self.steps.pop(0)()
            else:
                self.stop.set()
            return look(folder)

        monkeypatch.setattr(watching._Folder, "look", stepped)


class TestArrival:
    def test_sets_that_are_there(self, tmp_path, maps_folder):
        results = watch(maps_folder, tmp_path / "dem", shape=16)
        assert summary(results) == [("done", f"2014-01-01T00:0{minute}") for minute in (0, 2, 4)]
        expected = invert(sorted(maps_folder.glob("aia_1_*")), shape=16)
        np.testing.assert_array_equal(DEMCube.read(results[1].path).data, expected.data)

    def test_same_files_as_a_series(self, tmp_path, maps_folder):
        watch(maps_folder, tmp_path / "dem")
        assert len(invert_series(maps_folder, tmp_path / "dem").skipped) == 3

    def test_done_before(self, tmp_path, maps_folder):
        invert_series(maps_folder, tmp_path / "dem")
        assert {result.status for result in watch(maps_folder, tmp_path / "dem")} == {"skipped"}

    def test_set_is_inverted_when_its_last_map_arrives(self, tmp_path, maps_folder, arriving, monkeypatch):
        found = []
        looks = Looks(
            monkeypatch,
            lambda: None,
            lambda: arrive(maps_folder, arriving, "aia_0_0[019]*"),
            lambda: found.append(len(list((tmp_path / "dem").glob("deepem*")))),
            lambda: arrive(maps_folder, arriving, "aia_0_*"),
        )
        results = list(watch_series(arriving, tmp_path / "dem", interval=0.01 * u.s, stop=looks.stop))
        assert found == [0]
        assert summary(results) == [("done", "2014-01-01T00:00")]

    def test_incomplete_set_is_reported_when_a_later_one_is_complete(self, tmp_path, maps_folder, arriving):
        arrive(maps_folder, arriving, "aia_[12]_*")
        (arriving / "aia_1_0094.fits").unlink()
        results = watch(arriving, tmp_path / "dem")
        assert summary(results) == [("done", "2014-01-01T00:04"), ("failed", "2014-01-01T00:02")]
        assert results[1].reason == "missing: 94 Å"

    def test_last_incomplete_set_is_reported_at_the_end(self, tmp_path, maps_folder, arriving, monkeypatch):
        arrive(maps_folder, arriving, "aia_[01]_*")
        (arriving / "aia_1_0094.fits").unlink()
        found = []

        def look():
            found.append(json.loads((tmp_path / "dem" / "report.json").read_text(encoding="utf-8"))["failed"])

        looks = Looks(monkeypatch, lambda: None, look)
        results = list(watch_series(arriving, tmp_path / "dem", interval=0.01 * u.s, stop=looks.stop))
        assert found == [0]
        assert summary(results) == [("done", "2014-01-01T00:00"), ("failed", "2014-01-01T00:02")]
        assert json.loads((tmp_path / "dem" / "report.json").read_text(encoding="utf-8"))["failed"] == 1

    def test_late_map_completes_a_set_that_was_reported(self, tmp_path, maps_folder, arriving, monkeypatch):
        arrive(maps_folder, arriving, "aia_[02]_*")
        (arriving / "aia_0_0171.fits").unlink()
        looks = Looks(monkeypatch, lambda: None, lambda: arrive(maps_folder, arriving, "aia_0_0171.fits"))
        results = list(watch_series(arriving, tmp_path / "dem", interval=0.01 * u.s, stop=looks.stop))
        first, second = "2014-01-01T00:00", "2014-01-01T00:04"
        assert summary(results) == [("done", second), ("failed", first), ("done", first)]
        report = json.loads((tmp_path / "dem" / "report.json").read_text(encoding="utf-8"))
        assert (report["done"], report["failed"]) == (2, 0)

    def test_file_that_grows_is_left_alone(self, tmp_path, maps_folder, arriving, monkeypatch):
        arrive(maps_folder, arriving, "aia_0_*")
        growing, whole = arriving / "aia_0_0171.fits", (maps_folder / "aia_0_0171.fits").read_bytes()
        growing.unlink()
        looks = Looks(monkeypatch, *(lambda n=n: growing.write_bytes(whole[: len(whole) * n // 4]) for n in (1, 2, 4)))
        results = list(watch_series(arriving, tmp_path / "dem", interval=0.01 * u.s, stop=looks.stop))
        assert summary(results) == [("done", "2014-01-01T00:00")]

    def test_truncated_file_that_is_replaced(self, tmp_path, maps_folder, arriving, monkeypatch):
        arrive(maps_folder, arriving, "aia_0_*")
        path = arriving / "aia_0_0171.fits"
        path.write_bytes(path.read_bytes()[:6000])
        os.utime(path, (OLD, OLD))
        looks = Looks(monkeypatch, lambda: None, lambda: arrive(maps_folder, arriving, "aia_0_0171.fits"))
        results = list(watch_series(arriving, tmp_path / "dem", interval=0.01 * u.s, stop=looks.stop))
        assert [result.status for result in results] == ["failed", "done"]
        assert "aia_0_0171.fits" in results[0].reason

    def test_early_maps_are_forgotten_and_sets_are_not(self, tmp_path, maps_folder, arriving, monkeypatch):
        monkeypatch.setattr(watching, "_KEPT", 1 * u.min)
        looks = Looks(monkeypatch, *(lambda n=n: arrive(maps_folder, arriving, f"aia_{n}_*") for n in range(3)))
        results = list(watch_series(arriving, tmp_path / "dem", interval=0.01 * u.s, stop=looks.stop))
        assert summary(results) == [("done", f"2014-01-01T00:0{minute}") for minute in (0, 2, 4)]
        report = json.loads((tmp_path / "dem" / "report.json").read_text(encoding="utf-8"))
        assert (report["done"], report["failed"], report["ignored"]) == (3, 0, [])


class TestEnd:
    def test_idle(self, tmp_path, arriving):
        start = time.monotonic()
        assert watch(arriving, tmp_path / "dem", idle=0.2 * u.s) == []
        assert 0.2 <= time.monotonic() - start < 5

    @pytest.mark.slow
    def test_stop_after_the_current_set(self, tmp_path, maps_folder):
        stop = threading.Event()
        for _ in watch_series(maps_folder, tmp_path / "dem", stop=stop):
            stop.set()
        assert len(list((tmp_path / "dem").glob("deepem_*"))) == 1
        assert len(watch(maps_folder, tmp_path / "dem")) == 3

    def test_break_writes_the_report(self, tmp_path, maps_folder):
        results = watch_series(maps_folder, tmp_path / "dem")
        next(results)
        results.close()
        assert json.loads((tmp_path / "dem" / "report.json").read_text(encoding="utf-8"))["done"] == 1


class TestOptions:
    def test_since(self, tmp_path, maps_folder):
        assert summary(watch(maps_folder, tmp_path / "dem", since="2014-01-01T00:03")) == [("done", "2014-01-01T00:04")]

    def test_recursive(self, tmp_path, maps_folder):
        assert watch(maps_folder.parent, tmp_path / "dem") == []
        assert len(watch(maps_folder.parent, tmp_path / "dem", recursive=True)) == 3

    def test_channels(self, tmp_path, maps_folder, arriving):
        arrive(maps_folder, arriving, "aia_0_*")
        (arriving / "aia_0_0335.fits").unlink()
        assert [result.status for result in watch(arriving, tmp_path / "dem", channels=(94, 131, 171, 193, 211))] == [
            "done"
        ]

    def test_invalid_arguments(self, tmp_path, arriving):
        with pytest.raises(FileNotFoundError, match="folder must be an existing folder, found nowhere"):
            watch_series("nowhere", tmp_path)
        with pytest.raises(ValueError, match="interval must be positive and idle not negative, found 0 s"):
            watch_series(arriving, tmp_path, interval=0 * u.s)
        with pytest.raises(TypeError, match=r"watch_series\(\) got an unexpected keyword argument 'shpae'"):
            watch_series(arriving, tmp_path, shpae=16)
        with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
            watch_series(arriving, tmp_path, weights="none.safetensors")
        with pytest.raises(ValueError, match="since must be a time"):
            watch_series(arriving, tmp_path, since="soon")
