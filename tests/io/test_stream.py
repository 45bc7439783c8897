"""Cubes that need not fit in memory are those that do."""

import sys
from contextlib import contextmanager

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from helpers import changed, six

import sunpy_deepem.inversion
import sunpy_deepem.stack.channel_stack
from sunpy_deepem import ChannelStack, DeepEM, DEMCube, Quality, invert
from sunpy_deepem.io.fits import _OnDisk
from sunpy_deepem.methods import Solution
from sunpy_deepem.sample import sample_maps
from sunpy_deepem.stack.channel_stack import Observation
from sunpy_deepem.training import BasisPursuit

N = 70  # An odd multiple, so that bands, chunks and words of bytes do not fit


@pytest.fixture(scope="module", autouse=True)
def _precise():
    """In single precision, pixels that stand elsewhere in memory come out the same to the last digits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sunpy_deepem.network.layers._has_fast_bfloat16", lambda _: False)
        yield


@pytest.fixture(scope="module")
def small():
    maps = sample_maps((N, N))
    data = maps[2].data.copy()
    data[5, 6], data[40, 41] = np.nan, 16383
    return [*maps[:2], changed(maps[2], data=data), *maps[3:]]


@pytest.fixture(scope="module")
def dem(small):
    return invert(small)


@pytest.fixture(autouse=True)
def _narrow_bands(monkeypatch):
    monkeypatch.setattr(sunpy_deepem.stack.channel_stack, "_BAND_PIXELS", 9 * N)


def assert_alike(one, other):
    # Relative to the total EM, since bins with hardly any EM differ by rounding.
    total, rounding = other.data.sum(axis=0), {"rtol": 1e-5, "atol": 1e-9}
    np.testing.assert_allclose(np.asarray(one.data) / total, other.data / total, **rounding)
    np.testing.assert_allclose(np.asarray(one.uncertainty.array) / total, other.uncertainty.array / total, **rounding)
    np.testing.assert_array_equal(np.asarray(one.mask), other.mask)
    np.testing.assert_array_equal(np.asarray(one.quality), other.quality)
    np.testing.assert_allclose(np.asarray(one.chi2), other.chi2, rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(one.saturation), other.saturation)
    np.testing.assert_allclose(one.intensity.value, other.intensity.value, rtol=1e-6)
    np.testing.assert_allclose(one.with_limits()[0], other.with_limits()[0], rtol=1e-6)
    np.testing.assert_array_equal(one.lower_limit, other.lower_limit)
    assert one.inputs == other.inputs
    ends = [[0, 0, 0], [5, 3, 1]]
    np.testing.assert_allclose(one.wcs.wcs_pix2world(ends, 0), other.wcs.wcs_pix2world(ends, 0), rtol=1e-9)


@pytest.mark.parametrize("multiple", [1, 4, 7])
def test_bands_hold_whole_blocks(small, multiple):
    """By which the channels are averaged before they are compared."""
    bands = Observation(small).bands(multiple)
    assert np.concatenate([np.arange(N)[band] for band in bands]).tolist() == list(range(N))
    assert len(bands) > 1
    assert all((band.stop - band.start) % multiple == 0 for band in bands[:-1])


class TestIntoAFile:
    @pytest.fixture
    def path(self, small, tmp_path):
        invert(small, out=tmp_path / "dem.fits")
        return tmp_path / "dem.fits"

    def test_is_the_cube_in_memory(self, path, dem):
        # Reading checks the checksums, too.
        again = DEMCube.read(path)
        assert_alike(again, dem)
        assert again.meta["provenance"] == dem.meta["provenance"]

    def test_has_the_layout_of_any_cube(self, path, dem, tmp_path):
        dem.write(tmp_path / "whole.fits")
        with fits.open(path) as streamed, fits.open(tmp_path / "whole.fits") as whole:
            assert [hdu.name for hdu in streamed] == [hdu.name for hdu in whole]
            for one, other in zip(streamed, whole, strict=True):
                assert one.header["BITPIX"] == other.header["BITPIX"]
                assert one.data.shape == other.data.shape

    def test_is_read_as_it_is_needed(self, small, dem, tmp_path):
        lazy = invert(small, out=tmp_path / "dem.fits")
        assert hasattr(lazy.data, "dask")
        part = lazy[:, 3:9, 4:20]
        assert part.chi2.shape == (6, 16)
        np.testing.assert_allclose(part.compute().data, dem.data[:, 3:9, 4:20], rtol=1e-5)
        np.testing.assert_allclose(lazy.synthesize()[2].data, dem.synthesize()[2].data, rtol=1e-5)

    def test_of_a_region_and_another_method(self, small, tmp_path):
        options = {"region": small[0].submap([10, 20] * u.pix, top_right=[30, 50] * u.pix)}
        options |= {"method": BasisPursuit(tolerance=0.3, widenings=())}
        whole, streamed = invert(small, **options), invert(small, out=tmp_path / "dem.fits", **options)
        np.testing.assert_array_equal(np.asarray(streamed.mask), whole.mask)
        np.testing.assert_array_equal(np.isnan(np.asarray(streamed.data)), np.isnan(whole.data))
        assert streamed.uncertainty is None
        assert streamed.meta["provenance"]["unsolved"] == whole.meta["provenance"]["unsolved"]

    def test_a_file_that_is_there(self, small, path):
        with pytest.raises(FileExistsError, match="overwrite=True"):
            invert(small, out=path)
        invert(small, out=path, overwrite=True)

    @pytest.mark.parametrize("shape", [(N, N), (1, N), (30, N)])
    def test_misalignment_is_measured_on_blocks_of_pixels(self, small, shape, tmp_path, monkeypatch):
        monkeypatch.setattr(sunpy_deepem.inversion, "_ALIGNED", N // 2)
        monkeypatch.setattr(sunpy_deepem.stack.channel_stack, "_MIN_SIZE_TO_ALIGN", N // 2)
        options = {"region": small[0].submap([0, 20] * u.pix, width=N * u.pix, height=(shape[0] - 1) * u.pix)}
        options = {} if shape == (N, N) else options
        streamed = invert(small, out=tmp_path / "dem.fits", **options)
        told = streamed.meta["provenance"]["misalignment"]
        assert streamed.shape == (18, *shape)
        assert set(told) == {"94", "131", "171", "193", "211", "335"}
        assert all(shift is None or np.hypot(*shift) < 40 for shift in told.values())
        assert (told["193"] == [0, 0]) == (shape == (N, N))

    def test_an_error_on_the_way_leaves_nothing(self, small, tmp_path, monkeypatch):
        solve, calls = DeepEM.solve, []

        def fails_later(*args):
            calls.append(args)
            if len(calls) > 3:
                msg = "out of order"
                raise RuntimeError(msg)
            return solve(*args)

        monkeypatch.setattr(DeepEM, "solve", fails_later)
        with pytest.raises(RuntimeError, match="out of order"):
            invert(small, out=tmp_path / "dem.fits")
        assert not list(tmp_path.iterdir())

    def test_other_formats(self, small, tmp_path):
        with pytest.raises(ValueError, match=r"out must end in \.fits"):
            invert(small, out=tmp_path / "dem.asdf")

    def test_a_damaged_file_is_noticed(self, path):
        content = bytearray(path.read_bytes())
        content[30000] ^= 1
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read as a DEM cube"):
            DEMCube.read(path)


class TestChunks:
    @pytest.mark.parametrize("chunks", [(32, 40), 70])
    def test_are_the_cube_in_memory(self, small, dem, chunks):
        lazy = invert(small, chunks=chunks)
        assert lazy.data.chunksize[1:] == (chunks if isinstance(chunks, tuple) else (chunks, chunks))
        assert_alike(lazy.compute(), dem)

    def test_nothing_is_done_that_is_not_needed(self, small, monkeypatch):
        pixels = []
        solve = DeepEM.solve

        def counting(self, intensity, uncertainty, response):
            pixels.append(intensity[0].size)
            return solve(self, intensity, uncertainty, response)

        monkeypatch.setattr(DeepEM, "solve", counting)
        lazy = invert(small, chunks=10)
        pixels.clear()
        lazy[:, :10, 10:20].compute()
        assert sum(pixels) == 100

    def test_are_written(self, small, dem, tmp_path):
        invert(small, chunks=32).write(tmp_path / "dem.fits")
        assert_alike(DEMCube.read(tmp_path / "dem.fits"), dem)

    def test_need_dask(self, small, monkeypatch):
        monkeypatch.setitem(sys.modules, "dask.array", None)
        with pytest.raises(ImportError, match=r'pip install "sunpy_deepem\[dask\]"'):
            invert(small, chunks=32)

    @pytest.mark.parametrize("chunks", [0, (4,), (4, 4, 4), (2.5, 4), "auto"])
    def test_that_make_no_sense(self, small, chunks):
        with pytest.raises(ValueError, match="chunks must be a positive whole number or two of them"):
            invert(small, chunks=chunks)


@pytest.mark.skipif(sys.platform != "linux", reason="shared memory of a process is known on Linux")
def test_chunks_that_were_read_leave_no_pages_of_the_file_in_memory(tmp_path):
    import psutil

    invert(sample_maps((512, 512)), shape=None).write(tmp_path / "dem.fits")
    lazy, process = DEMCube.read(tmp_path / "dem.fits", chunks=64), psutil.Process()
    before = process.memory_info().shared
    em = lazy.data.compute()
    assert np.isfinite(em).any()
    assert process.memory_info().shared - before < em.nbytes / 10


def test_slices_of_chunks_read_only_their_rows(dem, tmp_path, monkeypatch):
    dem.write(tmp_path / "dem.fits")
    lazy, read, seen = DEMCube.read(tmp_path / "dem.fits", chunks="auto"), _OnDisk.__getitem__, []

    def watched(array, part):
        values = read(array, part)
        seen.append(values.shape[-2])
        return values

    monkeypatch.setattr(_OnDisk, "__getitem__", watched)
    assert_alike(lazy[:, 5:8].compute(), dem[:, 5:8])
    assert set(seen) == {3}


def test_out_and_chunks_exclude_each_other(small, tmp_path):
    with pytest.raises(TypeError, match="Pass one of them"):
        invert(small, out=tmp_path / "dem.fits", chunks=8)


def test_a_stack_is_in_memory_already(small, tmp_path):
    with pytest.raises(TypeError, match="maps is a ChannelStack, which is in memory already"):
        invert(ChannelStack.from_maps(small), out=tmp_path / "dem.fits")


def test_flags_of_the_whole(dem):
    assert dem.quality[5, 6] & Quality.MISSING
    assert dem.quality[40, 41] & Quality.SATURATED


class _Deviant:
    """A method that finds channels inconsistent in the upper half of an image only, and solves no pixel."""

    name = "deviant"

    def solve(self, intensity, uncertainty, response):
        em = np.ones((18, *intensity.shape[1:]), np.float32)
        return Solution(em, None, np.zeros(em.shape[1:], np.int8), self.deviation(intensity, uncertainty))

    def deviation(self, intensity, uncertainty):
        return np.where(intensity > np.median(intensity), 9.0, 0.0).astype(np.float32)


@pytest.mark.parametrize("sink", ["out", "chunks"])
def test_rows_of_the_whole_image_are_surveyed(tmp_path, sink):
    """Rows of the survey are spread over the image, so that what happens in any part of it counts."""
    rows = []

    class Recorded(_Deviant):
        def deviation(self, intensity, uncertainty):
            if intensity.ndim == 2:  # the survey has pixels of several rows
                rows.append(intensity.shape[1] // N)
                seen.update(intensity[0].reshape(-1, N)[:, 0].tolist())
            return super().deviation(intensity, uncertainty)

    seen = set()
    ramp = np.tile(np.arange(1.0, N + 1)[:, np.newaxis] * 100, N)
    invert(six(ramp), method=Recorded(), **{sink: tmp_path / "dem.fits" if sink == "out" else 30})
    assert rows == [16]
    row_of = np.sort(list(seen)) / max(seen)
    # The first and last rows are among them, and no gap is larger than a tenth of the image.
    assert row_of[-1] == 1
    assert row_of[0] == pytest.approx(1 / N)
    assert np.diff(row_of).max() < 0.1


def test_misalignment_of_bands_that_finish_in_any_order(monkeypatch, tmp_path):
    """Bands are put together by their rows, not in the order in which they are finished."""
    maps = sample_maps((N, N))

    @contextmanager
    def backwards():
        yield lambda function, bands: (function(band) for band in list(bands)[::-1])

    monkeypatch.setattr(DeepEM, "workers", lambda self: backwards())
    lazy = invert(maps, out=tmp_path / "dem.fits")
    expected = invert(maps).meta["provenance"]["misalignment"]
    assert None not in expected.values()
    for channel, shift in lazy.meta["provenance"]["misalignment"].items():
        assert shift == pytest.approx(expected[channel], abs=0.05)
