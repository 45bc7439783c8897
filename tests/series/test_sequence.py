"""Tests of sequences of cubes."""

import subprocess
import sys

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from ndcube import NDCubeSequence

from sunpy_deepem import DEMCube, invert_series
from sunpy_deepem.series import DEMCubeSequence


class TestSequence:
    def test_times(self, sequence):
        assert list(sequence.times.isot) == [f"2014-01-01T00:0{minute}:05.840" for minute in (0, 2, 4)]
        assert sequence.sequence_axis_coords["time"][1] == sequence.times[1]

    def test_slices_are_sequences(self, sequence):
        part = sequence[1:]
        assert isinstance(part, DEMCubeSequence)
        assert list(part.times) == list(sequence.times[1:])
        assert isinstance(sequence, NDCubeSequence)
        assert isinstance(sequence[0], DEMCube)
        image = sequence[:, 8]
        assert image.shape == (3, 32, 32)
        assert list(image.times) == list(sequence.times)

    def test_light_curve(self, sequence):
        """EM follows the brightness; the temperature is constant."""
        curve = sequence.light_curve()
        assert list(curve.time) == list(sequence.times)
        assert curve["total_em"].unit == u.cm**-5
        total = curve["total_em"].value
        np.testing.assert_allclose(total[1:] / total[:-1], 1.5, rtol=0.05)
        np.testing.assert_allclose(curve["log_t"], curve["log_t"][0], atol=0.02)
        assert (curve["total_em_uncertainty"] > 0).all()
        assert (curve["log_t_uncertainty"] > 0).all()
        assert (curve["n_pixels"] == 32 * 32).all()

    def test_light_curve_equals_maps(self, sequence):
        region = np.zeros((32, 32), dtype=bool)
        region[10, 20] = True
        curve = sequence.light_curve(region)
        for row, cube in zip(curve, sequence, strict=True):
            pixel = cube[:, 10:11, 20:21]
            maps = {"total_em": pixel.total_em(n=500), "log_t": pixel.em_weighted_log_t(n=500)}
            for name, smap in maps.items():
                assert u.isclose(row[f"{name}_uncertainty"], smap.uncertainty.array[0, 0] * smap.unit, rtol=1e-3)
            em = pixel.map_draws(lambda draws: draws.mean(axis=0), n=500)[:, 0, 0]
            assert u.isclose(row["total_em"], em.sum() * u.cm**-5, rtol=1e-3)
            assert row["log_t"] == pytest.approx(cube.log_t @ em / em.sum(), rel=1e-3)
            assert row["log_t"] == pytest.approx(maps["log_t"].data[0, 0], rel=0.02)
            for name, smap in zip(("em_5.6_6.0", "em_6.0_6.3"), pixel.band_maps(), strict=False):
                assert u.isclose(row[name], smap.quantity[0, 0], rtol=0.3)

    def test_maps_are_those_of_the_mean_of_draws(self, sequence):
        for cube in sequence:
            em = cube.map_draws(lambda draws: draws.mean(axis=0))
            ratio = cube.total_em().data / em.sum(axis=0)
            assert np.median(np.abs(ratio - 1)) < 0.02

    def test_region_and_bands(self, sequence):
        center = SkyCoord(0 * u.arcsec, 0 * u.arcsec, frame=sequence[0].bin_map(6.0).coordinate_frame)
        curve = sequence.light_curve(center, bands=[(6.0, 6.5)])
        assert curve.colnames == [
            "time",
            "total_em",
            "total_em_uncertainty",
            "em_6.0_6.5",
            "em_6.0_6.5_uncertainty",
            "log_t",
            "log_t_uncertainty",
            "width",
            "width_uncertainty",
            "n_pixels",
        ]
        assert (curve["n_pixels"] == 1).all()
        with pytest.raises(ValueError, match="high"):
            sequence.light_curve(bands=[(6.5, 6.0)])
        with pytest.raises(TypeError, match="region"):
            sequence.light_curve("the active region")

    def test_no_uncertainty(self, sequence):
        curve = DEMCubeSequence([cube - 0.1 * cube for cube in sequence]).light_curve()
        assert np.isfinite(curve["total_em"]).all()
        assert np.isnan(curve["total_em_uncertainty"]).all()

    def test_read(self, tmp_path, maps_folder, sequence):
        invert_series(maps_folder, tmp_path)
        (tmp_path / "other.fits").write_bytes((maps_folder / "aia_0_0094.fits").read_bytes())
        read = DEMCubeSequence.read(tmp_path)
        assert read.shape == sequence.shape
        assert list(read.times) == list(sequence.times)
        np.testing.assert_allclose(
            read.light_curve()["total_em"].value, sequence.light_curve()["total_em"].value, rtol=1e-6
        )
        np.testing.assert_array_equal(read[1:][0].data, DEMCube.read(tmp_path / "deepem_2014-01-01T000205.fits").data)
        assert list(read[::2].times) == list(sequence.times[::2])

    def test_read_on_access(self, tmp_path, maps_folder, monkeypatch):
        invert_series(maps_folder, tmp_path)
        read, original = [], DEMCube.read
        monkeypatch.setattr(DEMCube, "read", lambda path: read.append(path.name) or original(path))
        sequence = DEMCubeSequence.read(tmp_path)
        assert len(sequence.times) == 3
        assert read == []
        assert sequence[1].shape == sequence[1].shape
        assert read == ["deepem_2014-01-01T000205.fits"]

    def test_empty_or_missing_folder(self, tmp_path):
        for folder in (tmp_path, tmp_path / "none"):
            with pytest.raises(FileNotFoundError, match="no FITS file of a DEM cube"):
                DEMCubeSequence.read(folder)


def test_late_imports():
    code = "import sys, sunpy_deepem.series; print([n for n in ('torch', 'distributed') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class TestAnimation:
    @pytest.mark.filterwarnings("ignore:Animation was deleted without rendering")
    def test_one_frame_per_cube(self, sequence):
        animation = sequence.animate(low=6.0, high=6.3)
        axes = plt.gcf().axes[0]
        for index, cube in enumerate(sequence):
            animation._func(index)
            np.testing.assert_allclose(axes.images[0].get_array().filled(np.nan), cube.total_em(6.0, 6.3).data)
            assert axes.get_title() == f"EM, log T 6 to 6.3, {cube.date.isot[:19]}"

    def test_file(self, sequence, tmp_path):
        sequence[:2].animate(tmp_path / "em.gif")
        assert (tmp_path / "em.gif").read_bytes()[:3] == b"GIF"

    def test_several_shapes(self, sequence):
        mixed = DEMCubeSequence([sequence[0], sequence[1][:, 1:]])
        with pytest.raises(ValueError, match="cubes must have one shape of the sky"):
            mixed.animate()
