"""Tests of archives of cubes: bounds, exactness, many writers, killed writers and xarray."""

import json
import multiprocessing
import os
import signal
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from astropy.time import Time
from helpers import assert_same_cube, cube_of, true_cube
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from spawned import append_cubes, append_forever

pytest.importorskip("zarr", reason="zarr is not installed: pip install sunpy_deepem[zarr]")

from sunpy_deepem.io import DEMArchive
from sunpy_deepem.io.archive.quantities import AsinhScale, LogScale

START = Time("2014-01-01T00:00:00")
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(scope="module")
def dem():
    return true_cube(n=16)


@pytest.fixture
def archive(tmp_path, dem):
    return DEMArchive.create(tmp_path / "series.zarr", dem.data.shape[1:], dem.bins)


def with_planes(cube, **changes):
    """Copy a cube with other arrays, each given by a function of the old one."""
    planes = cube.planes
    return cube.with_planes(
        replace(planes, **{name: change(getattr(planes, name)) for name, change in changes.items()})
    )


def assert_within_bounds(found, cube, precision=0.01):
    em, std = cube.data, cube.uncertainty.array
    above = em > 1e-4 * np.nansum(em, axis=0)
    np.testing.assert_allclose(found.data[above], em[above], rtol=precision)
    above = std > 1e-4 * np.nansum(em, axis=0)
    np.testing.assert_allclose(found.uncertainty.array[above], std[above], rtol=5 * precision)
    np.testing.assert_array_equal(np.isnan(found.data), np.isnan(em))
    np.testing.assert_array_equal(np.isnan(found.uncertainty.array), np.isnan(std))
    np.testing.assert_allclose(found.intensity.value, cube.intensity.value, rtol=precision, atol=0.1 * precision)
    np.testing.assert_allclose(found.intensity_uncertainty, cube.intensity_uncertainty, rtol=5 * precision)
    np.testing.assert_allclose(found.chi2, cube.chi2, rtol=5 * precision)


class TestScales:
    @given(
        arrays(float, 20, elements=st.floats(1, 1e38) | st.just(0.0) | st.just(np.nan)),
        st.floats(0.005, 0.1),
    )
    def test_logarithm(self, values, precision):
        scale = LogScale(precision, 1.0)
        np.testing.assert_allclose(scale.decode(scale.encode(values)), values, rtol=precision, atol=0)

    @given(arrays(float, 20, elements=st.floats(-1e9, 1e9) | st.just(np.nan)), st.floats(0.005, 0.1))
    def test_inverse_hyperbolic_sine(self, values, precision):
        scale = AsinhScale(precision, 0.1)
        found = scale.decode(scale.encode(values))
        np.testing.assert_array_equal(np.isnan(found), np.isnan(values))
        good = ~np.isnan(values)
        assert (np.abs(found - values)[good] <= precision * np.hypot(values, 0.1)[good]).all()

    def test_special_values(self):
        scale = LogScale(0.05, 1e-10)
        values = np.array([0, np.nan, np.inf, 1e-10])
        np.testing.assert_allclose(scale.decode(scale.encode(values)), values)
        assert scale.decode(scale.encode(np.array([1e-20]))) == pytest.approx(1e-10)


class TestContent:
    def test_bounds(self, archive, dem):
        archive.append(dem)
        found = archive[0]
        assert_within_bounds(found, dem)
        assert (found.data.shape, found.unit, found.bins) == (dem.data.shape, dem.unit, dem.bins)
        np.testing.assert_array_equal(found.quality, dem.quality)
        np.testing.assert_array_equal(found.mask, dem.mask)
        np.testing.assert_array_equal(found.meta["saturation"], dem.meta["saturation"])
        for name, image in dem.planes.images.items():
            assert found.planes.images[name].dtype == image.dtype

    @pytest.mark.slow
    @settings(max_examples=20)
    @given(
        em=arrays(float, (18, 4), elements=st.floats(1e15, 1e32) | st.just(0.0)),
        relative=arrays(float, (18, 4), elements=st.floats(1e-3, 1e3)),
    )
    def test_bounds_hold_for_any_em(self, tmp_path_factory, em, relative):
        """Values from zero to many orders above their neighbours."""
        cube = cube_of(em + 0.0, em_std=em * relative)
        archive = DEMArchive.create(tmp_path_factory.mktemp("any") / "a.zarr", (1, 4), cube.bins)
        archive.append(cube)
        found = archive[0]
        total = cube.data.sum(axis=0)
        above = cube.data > 1e-4 * total
        np.testing.assert_allclose(found.data[above], cube.data[above], rtol=0.01)
        # Small values stay small, and zero is zero.
        assert (found.data[~above] <= 1.01e-4 * np.broadcast_to(total, cube.data.shape)[~above]).all()
        np.testing.assert_array_equal(found.data == 0, cube.data == 0)
        std = cube.uncertainty.array
        above = std > 1e-4 * total
        np.testing.assert_allclose(found.uncertainty.array[above], std[above], rtol=0.05)

    def test_missing_values_limits_and_flags(self, archive, dem, saturated_cube):
        def spoiled(images):
            images = [image.copy() for image in images]
            images[0][3, 4] = np.nan
            return images

        def unused(images):
            images = [image.copy() for image in images]
            images[0][3, 4] = np.inf
            return images

        def masked(em):
            em = em.copy()
            em[:, 5, 6] = np.nan
            em[0, 7, 8] = 0
            return em

        cube = with_planes(
            dem, em=masked, intensity=spoiled, sigma=unused, mask=lambda mask: np.isnan(masked(dem.data))
        )
        archive.append(cube)
        assert_within_bounds(archive[0], cube)
        np.testing.assert_array_equal(archive[0].mask, cube.mask)
        assert archive[0].data[0, 7, 8] == 0
        assert np.isinf(archive[0].planes.sigma[0][3, 4])

        limited = DEMArchive.create(archive.path.with_name("limited.zarr"), (8, 8), saturated_cube.bins)
        limited.append(saturated_cube)
        assert_within_bounds(limited[0], saturated_cube)
        np.testing.assert_array_equal(limited[0].lower_limit, saturated_cube.lower_limit)
        limits = np.stack(saturated_cube.planes.limit)
        np.testing.assert_allclose(np.stack(limited[0].planes.limit), limits, rtol=0.01)

    def test_without_uncertainty_and_mask(self, archive, dem):
        cube = with_planes(dem, std=lambda _: None, mask=lambda _: None)
        archive.append(cube)
        assert archive[0].uncertainty is None
        assert archive[0].mask is None

    def test_facts(self, archive, dem):
        dem = dem[:, :, :]
        dem.meta["observer"] = {"name": "Å"}
        archive.append(dem)
        found = archive[0]
        assert found.meta["observer"] == {"name": "Å"}
        assert found.sky_header == dem.sky_header
        assert found.response == dem.response
        assert list(found.inputs) == json.loads(json.dumps(list(dem.inputs)))
        provenance = dict(found.meta["provenance"])
        assert provenance.pop("precision") == {
            "em": 0.01,
            "std": 0.05,
            "intensity": 0.01,
            "sigma": 0.05,
            "chi2": 0.05,
        }
        assert provenance == json.loads(json.dumps(dem.meta["provenance"]))

    def test_cube_is_unchanged(self, archive):
        cube = true_cube(n=16)
        archive.append(cube)
        assert_same_cube(cube, true_cube(n=16))

    @pytest.mark.parametrize("precision", [0.005, 0.1])
    def test_other_precision(self, tmp_path, dem, precision):
        archive = DEMArchive.create(tmp_path / "a.zarr", (16, 16), dem.bins, precision=precision)
        archive.append(dem)
        assert DEMArchive(archive.path).precision == precision
        assert_within_bounds(archive[0], dem, precision)

    def test_region(self, archive, dem):
        """Only its rectangle is read, with the WCS of that part."""
        archive.append(dem)
        region = np.zeros((16, 16), dtype=bool)
        region[4:7, 9] = region[5, 9:12] = True
        cube, inside = archive.read(0, region)
        np.testing.assert_array_equal(cube.data, archive[0].data[:, 4:7, 9:12])
        np.testing.assert_array_equal(inside, region[4:7, 9:12])
        here, there = cube.wcs.pixel_to_world(0, 0, 0), dem[:, 4:7, 9:12].wcs.pixel_to_world(0, 0, 0)
        assert here[0].separation(there[0]) < 1e-6 * u.arcsec


class TestTimes:
    def test_in_order_of_time(self, archive, dem):
        for minutes in (4, 0, 2):
            archive.append(dem * (1 + minutes), time=START + minutes * u.min)
        assert list(archive.times.isot) == [f"2014-01-01T00:0{minutes}:00.000" for minutes in (0, 2, 4)]
        totals = [float(np.nansum(cube.data)) for cube in archive]
        np.testing.assert_allclose(np.array(totals) / totals[0], [1, 3, 5], rtol=0.01)
        assert archive.find(START + 2 * u.min) == 1
        assert archive.find(START + 1 * u.min) is None

    def test_slice(self, archive, dem):
        for minutes in (0, 2, 4):
            archive.append(dem, time=START + minutes * u.min)
        part = archive[1:]
        assert (len(part), len(archive)) == (2, 3)
        assert part.times[0] == archive.times[1]
        assert archive[-1].shape == dem.shape
        with pytest.raises(IndexError):
            archive[3]

    def test_time_of_the_cube(self, archive, dem):
        archive.append(dem)
        assert abs(archive.times[0] - dem.date) < 1 * u.ms

    def test_replace(self, archive, dem):
        archive.append(dem)
        archive.append(dem * 2)
        assert len(DEMArchive(archive.path)) == 1
        assert np.nansum(archive[0].data) == pytest.approx(2 * np.nansum(dem.data), rel=0.01)

    def test_reserved_times_are_not_complete(self, archive, dem):
        times = [START + minutes * u.min for minutes in range(5)]
        assert archive.reserve(times) == [0, 1, 2, 3, 4]
        assert archive.reserve(times[::-1]) == [4, 3, 2, 1, 0]
        assert len(archive) == 0
        archive.append(dem, time=times[3])
        assert list(DEMArchive(archive.path).times) == [times[3]]

    def test_few_files(self, archive, dem):
        for minutes in range(3):
            archive.append(dem, time=START + minutes * u.min)
        files = [path for path in archive.path.rglob("*") if path.is_file()]
        archive.append(dem, time=START + 3 * u.min)
        more = [path for path in archive.path.rglob("*") if path.is_file() and path not in files]
        assert len(more) <= 10


class TestManyWriters:
    def test_threads(self, archive, dem):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda i: DEMArchive(archive.path).append(dem * (1 + i), time=START + i * u.min), range(16)))
        assert_sixteen(archive.path, dem)

    @pytest.mark.slow
    def test_processes(self, archive, dem):
        with ProcessPoolExecutor(2, mp_context=SPAWN) as pool:
            list(pool.map(append_cubes, [archive.path] * 2, [range(start, 16, 2) for start in range(2)]))
        assert_sixteen(archive.path, dem)

    @pytest.mark.slow
    @pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="signals are those of POSIX")
    def test_killed_writer(self, archive, dem):
        """What it had completed is right, what it had not is not there, and others go on."""
        for round_ in range(2):
            process = SPAWN.Process(target=append_forever, args=(archive.path,))
            process.start()
            before = len(DEMArchive(archive.path))
            while len(DEMArchive(archive.path)) < before + 2:
                time.sleep(0.01)
            time.sleep(0.013 * round_)
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            for cube in (found := DEMArchive(archive.path)):
                np.testing.assert_array_equal(cube.data, found[0].data)
                assert_within_bounds(cube, dem)
        archive.append(dem, time=START - 1 * u.day)
        assert DEMArchive(archive.path).times[0] == START - 1 * u.day


def assert_sixteen(path, dem):
    found = DEMArchive(path)
    assert len(found) == 16
    for index, cube in enumerate(found):
        assert np.nansum(cube.data) == pytest.approx((1 + index) * np.nansum(dem.data), rel=0.01)


def test_old_partial_files_are_removed(archive):
    old, new = (archive.path / "ln_em" / f"c.0.0.0.{name}.partial" for name in ("old", "new"))
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    archive.clean()
    assert not old.exists()
    assert new.exists()


class TestXarray:
    @pytest.fixture
    def dataset(self, archive, dem):
        xarray = pytest.importorskip("xarray", reason="xarray is not installed: pip install sunpy_deepem[zarr]")
        for minutes in (0, 2):
            archive.append(dem * (1 + minutes), time=START + minutes * u.min)
        archive.reserve([START + 4 * u.min])
        # Some versions of zarr warn that codecs of numcodecs are not in the specification of Zarr 3.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            dataset = xarray.open_zarr(archive.path)
        yield dataset
        dataset.close()

    def test_dimensions(self, dataset, dem):
        assert dataset.ln_em.dims == ("time", "log_t", "y", "x")
        assert dataset.asinh_intensity.dims == ("time", "channel", "y", "x")
        np.testing.assert_allclose(dataset.log_t, dem.bins.centers)
        assert list(dataset.channel) == [94, 131, 171, 193, 211, 335]
        assert dataset.time.values[1] == np.datetime64("2014-01-01T00:02")
        assert list(dataset.complete) == [True, True, False]

    def test_decoding(self, dataset, archive):
        """The formulas in the attributes give what `DEMArchive` does."""
        formulas, found = dataset.attrs["decode"], archive[1]
        names = {name: array.sel(time="2014-01-01T00:02") for name, array in dataset.data_vars.items()}
        names |= {"exp": np.exp, "sinh": np.sinh}
        expected = {
            "em": found.data,
            "em_std": found.uncertainty.array,
            "intensity": found.intensity.value,
            "sigma": found.intensity_uncertainty.value,
            "chi2": found.chi2,
        }
        for name, array in expected.items():
            decoded = np.squeeze(eval(formulas[name], {}, names))
            np.testing.assert_allclose(decoded.where(decoded > 1), np.where(array > 1, array, np.nan), rtol=1e-5)

    def test_lazy(self, dataset, archive):
        for path in (archive.path / "ln_em").glob("c.1.*"):
            path.write_bytes(b"")
        assert np.isfinite(dataset.ln_em.isel(time=0)).all()


class TestErrors:
    def test_damaged_chunk(self, archive, dem):
        archive.append(dem)
        (shard,) = (archive.path / "ln_em").glob("c.*")
        content = bytearray(shard.read_bytes())
        content[100] ^= 1
        shard.write_bytes(content)
        with pytest.raises(ValueError, match=r"ln_em of 2014-01-01T00:00:0.* cannot be read .*overwrite=True"):
            archive[0]

    def test_truncated_shard(self, archive, dem):
        archive.append(dem)
        (shard,) = (archive.path / "ln_sigma").glob("c.*")
        shard.write_bytes(shard.read_bytes()[:200])
        with pytest.raises(ValueError, match="ln_sigma of"):
            archive[0]

    def test_failed_write_is_not_complete(self, archive, dem, monkeypatch):
        archive.append(dem)

        def full(self, planes):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(DEMArchive, "_encoded", full)
        with pytest.raises(OSError, match="No space"):
            archive.append(dem * 2)
        assert len(DEMArchive(archive.path)) == 0

    def test_images_of_the_user(self, archive, dem):
        cube = with_planes(dem, others=lambda _: {"height": np.zeros((16, 16))})
        with pytest.raises(ValueError, match=r"cube has the images \['height'\]"):
            archive.append(cube)
        assert len(archive) == 0
