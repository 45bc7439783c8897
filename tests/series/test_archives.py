"""Tests of series in archives: written by `invert_series`, read by `DEMCubeSequence`."""

import json
import multiprocessing
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits

from sunpy_deepem import invert
from sunpy_deepem.io import DEMArchive
from sunpy_deepem.sample import sample_maps
from sunpy_deepem.series import DEMCubeSequence, group_maps, invert_series, watch_series

pytest.importorskip("zarr", reason="zarr is not installed: pip install sunpy_deepem[zarr]")


@pytest.fixture(scope="module")
def stored(tmp_path_factory, dim_to_bright):
    path = tmp_path_factory.mktemp("stored") / "series.zarr"
    invert_series(dim_to_bright, path)
    return path


class TestInvertSeries:
    def test_one_archive(self, tmp_path, dim_to_bright, sequence):
        report = invert_series(dim_to_bright, tmp_path / "new" / "series.zarr")
        assert (len(report.done), len(report.failed)) == (3, 0)
        assert report.paths == [tmp_path / "new" / "series.zarr"]
        found = DEMCubeSequence.read(tmp_path / "new" / "series.zarr")
        assert abs(found.times - sequence.times).max() < 1 * u.ms
        for cube, expected in zip(found, sequence, strict=True):
            above = expected.data > 1e-4 * expected.data.sum(axis=0)
            np.testing.assert_allclose(cube.data[above], expected.data[above], rtol=0.01)
            assert [each["date"] for each in cube.inputs] == [each["date"] for each in expected.inputs]
        stored = json.loads((tmp_path / "new" / "series-report.json").read_text(encoding="utf-8"))
        assert (stored["done"], stored["sets"][0]["file"]) == (3, "series.zarr")

    def test_skip_complete_times(self, tmp_path, maps_folder):
        path = tmp_path / "series.zarr"
        invert_series(group_maps(maps_folder).select(part=(2, 3)), path)
        report = invert_series(maps_folder, path)
        assert (len(report.done), len(report.skipped)) == (2, 1)
        assert len(invert_series(maps_folder, path).skipped) == 3
        assert len(DEMArchive(path)) == 3
        assert len(invert_series(maps_folder, path, overwrite=True).done) == 3
        assert len(DEMArchive(path)) == 3

    def test_other_options(self, tmp_path, dim_to_bright, stored):
        report = invert_series(dim_to_bright, stored, systematic=0.2)
        assert len(report.failed) == 3
        assert "This time exists, made with other systematic. Pass overwrite=True" in report.failed[0].reason

    def test_other_shape(self, tmp_path, dim_to_bright):
        path = tmp_path / "series.zarr"
        invert_series(dim_to_bright[:6], path)
        report = invert_series(dim_to_bright[6:], path, shape=16)
        assert "cube must have the sky of the archive, (32, 32) pixels, found (16, 16)" in report.failed[0].reason
        assert len(DEMArchive(path)) == 1

    def test_first_set_fails(self, tmp_path, maps_folder):
        broken = sorted(maps_folder.glob("aia_0_*"))[1]
        broken.write_bytes(broken.read_bytes()[:8640])
        report = invert_series(maps_folder, tmp_path / "series.zarr")
        assert (len(report.done), len(report.failed)) == (2, 1)
        assert len(DEMCubeSequence.read(tmp_path / "series.zarr").times) == 2

    def test_all_sets_fail(self, tmp_path, maps_folder):
        for path in maps_folder.glob("*_0131.fits"):
            fits.setval(path, "WAVELNTH", value=304)
        report = invert_series(maps_folder, tmp_path / "series.zarr")
        assert len(report.failed) == 3
        assert not (tmp_path / "series.zarr").exists()

    @pytest.mark.usefixtures("interrupted_once")
    def test_continue_after_interrupt(self, tmp_path, maps_folder):
        with pytest.raises(KeyboardInterrupt):
            invert_series(maps_folder, tmp_path / "series.zarr")
        assert len(DEMArchive(tmp_path / "series.zarr")) == 1
        report = invert_series(maps_folder, tmp_path / "series.zarr")
        assert (len(report.skipped), len(report.done)) == (1, 2)
        assert len(DEMArchive(tmp_path / "series.zarr")) == 3

    def test_threads(self, tmp_path, maps_folder):
        report = invert_series(maps_folder, tmp_path / "series.zarr", scheduler="threads")
        assert len(report.done) == 3
        assert len(DEMArchive(tmp_path / "series.zarr")) == 3

    @pytest.mark.slow
    def test_processes(self, tmp_path, maps_folder):
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
            report = invert_series(maps_folder, tmp_path / "series.zarr", scheduler=pool)
        assert len(report.done) == 3
        assert len(DEMArchive(tmp_path / "series.zarr")) == 3

    def test_zarr_is_missing(self, tmp_path, dim_to_bright, monkeypatch):
        monkeypatch.setitem(sys.modules, "zarr", None)
        with pytest.raises(ImportError, match=r'pip install "sunpy_deepem\[zarr\]"'):
            invert_series(dim_to_bright, tmp_path / "series.zarr")


class TestSequence:
    def test_like_the_sequence_in_memory(self, stored, sequence):
        found = DEMCubeSequence.read(stored)
        assert found.shape == sequence.shape
        assert found[1:].shape == (2, 18, 32, 32)
        assert list(found[1:].times) == list(found.times[1:])
        assert found[:, 8].shape == (3, 32, 32)
        assert found[0].chi2.shape == (32, 32)

    def test_light_curve(self, stored, sequence):
        found, expected = DEMCubeSequence.read(stored).light_curve(), sequence.light_curve()
        assert found.colnames == expected.colnames
        assert list(found["n_pixels"]) == list(expected["n_pixels"])
        # The archive holds EM to 1 %, and σ, from which draws are made, to 5 %.
        for name in (name for name in found.colnames if f"{name}_uncertainty" in found.colnames):
            value, uncertainty = (u.Quantity(expected[f"{name}{end}"]) for end in ("", "_uncertainty"))
            assert (abs(u.Quantity(found[name]) - value) < 0.01 * value + 0.05 * uncertainty).all()
            np.testing.assert_allclose(u.Quantity(found[f"{name}_uncertainty"]), uncertainty, rtol=0.05)

    @pytest.mark.parametrize("draws", [True, False])
    def test_light_curve_reads_the_region_only(self, tmp_path, draws):
        """Chunks that it does not touch may be lost."""
        dem = invert(sample_maps((160, 160)))
        archive = DEMArchive.create(tmp_path / "a.zarr", (160, 160), dem.bins)
        archive.append(dem)
        region = np.zeros((160, 160), dtype=bool)
        region[10:14, 20:24] = True
        sequence = DEMCubeSequence.read(archive.path)
        expected = sequence.light_curve(region, draws=draws)
        (shard,) = (archive.path / "ln_em").glob("c.*")
        content = bytearray(shard.read_bytes())
        # The last chunks of the file, before the index, are those of the last rows.
        content[-2000:-1000] = bytes(1000)
        shard.write_bytes(content)
        found = DEMCubeSequence.read(archive.path).light_curve(region, draws=draws)
        assert list(found["em_5.6_6.0"]) == list(expected["em_5.6_6.0"])
        with pytest.raises(ValueError, match="ln_em of"):
            sequence[0]

    def test_fast_light_curve(self, stored, sequence):
        region = np.zeros((32, 32), dtype=bool)
        region[10:13, 20:22] = True
        bands = [(6.0, 6.35), (6.6, 7.0)]
        fast, memory = (
            each.light_curve(region, bands=bands, draws=False) for each in (DEMCubeSequence.read(stored), sequence)
        )
        assert fast.colnames == ["time", "em_6.0_6.35", "em_6.6_7.0", "n_pixels"]
        for low, high in bands:
            name = f"em_{low}_{high}"
            maps = [cube.total_em(low, high).data[region].mean() for cube in sequence]
            np.testing.assert_allclose(memory[name].value, maps, rtol=1e-5)
            np.testing.assert_allclose(fast[name].value, maps, rtol=0.01)
        assert (fast["n_pixels"] == 6).all()

    def test_fast_light_curve_of_all_pixels(self, stored, sequence):
        """It reads no cube."""
        found = DEMCubeSequence.read(stored).light_curve(draws=False)
        expected = sequence.light_curve(draws=False)
        assert found.colnames == expected.colnames
        for name in found.colnames[1:]:
            np.testing.assert_allclose(u.Quantity(found[name]), u.Quantity(expected[name]), rtol=1e-6)

    @pytest.mark.filterwarnings("ignore:Animation was deleted without rendering")
    def test_movie(self, stored, sequence):
        found = DEMCubeSequence.read(stored)
        animation = found.animate(low=6.0, high=6.3)
        animation._func(2)
        image = plt.gcf().axes[0].images[0].get_array()
        band, total = sequence[2].total_em(6.0, 6.3).data, sequence[2].total_em().data
        # The archive is precise to 1 % where a bin has at least 1e-4 of the EM.
        np.testing.assert_allclose(image / total, band / total, rtol=0.02, atol=3e-4)

    def test_reads_on_access(self, stored, monkeypatch):
        read, original = [], DEMArchive.read
        monkeypatch.setattr(
            DEMArchive, "read", lambda self, i, region=None: read.append(i) or original(self, i, region)
        )
        sequence = DEMCubeSequence.read(stored)
        assert len(sequence.times) == 3
        assert read == []
        assert sequence[1].shape == sequence[1].shape
        assert read == [1]

    def test_sky_region(self, stored, sequence):
        center = SkyCoord(100 * u.arcsec, 50 * u.arcsec, frame=sequence[0].bin_map(6.0).coordinate_frame)
        curve = DEMCubeSequence.read(stored).light_curve(center)
        assert (curve["n_pixels"] == 1).all()
        np.testing.assert_allclose(curve["total_em"].value, sequence.light_curve(center)["total_em"].value, rtol=0.02)


def test_watch(tmp_path, maps_folder):
    """Sets that arrive are appended."""
    report = tmp_path / "series-report.json"
    for pattern in ("aia_0_*", "aia_[012]_*"):
        arriving = tmp_path / "arriving"
        arriving.mkdir(exist_ok=True)
        for path in maps_folder.glob(pattern):
            shutil.copy2(path, arriving / path.name)
        list(watch_series(arriving, tmp_path / "series.zarr", interval=0.01 * u.s, idle=0.05 * u.s))
    stored = json.loads(report.read_text(encoding="utf-8"))
    assert (stored["done"], stored["skipped"]) == (2, 1)
    assert len(DEMArchive(tmp_path / "series.zarr")) == 3
