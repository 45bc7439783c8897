"""Cubes in files."""

import subprocess
import sys

import astropy.units as u
import numpy as np
import pytest
import sunpy.map
from astropy.io import fits
from astropy.table import Table
from astropy.time import Time
from astropy.wcs import WCS
from helpers import changed, six, true_cube
from ndcube import NDCube

from sunpy_deepem import CHANNELS, ChannelStack, DEMCube, LogTBins, TemperatureResponse
from sunpy_deepem.sample import sample_maps

N = 24


@pytest.fixture(scope="module")
def cube():
    maps = list(sample_maps((N, N)))
    data = maps[2].data.copy()
    data[5, 7], data[20, 3] = np.nan, 16000
    maps[2] = changed(maps[2], data=data)
    return true_cube(maps, N)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "dem.fits"


def assert_same(one, other):
    np.testing.assert_array_equal(one.data, other.data)
    np.testing.assert_array_equal(one.mask, other.mask)
    assert one.data.dtype == other.data.dtype
    assert one.unit == other.unit
    assert (one.uncertainty is None) == (other.uncertainty is None)
    if one.uncertainty is not None:
        np.testing.assert_array_equal(one.uncertainty.array, other.uncertainty.array)
        assert one.uncertainty.unit == other.uncertainty.unit
    for name in ("chi2", "quality", "saturation", "intensity", "intensity_uncertainty"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert getattr(one, name).dtype == getattr(other, name).dtype
    # As text, in which what is not a number equals itself.
    assert str(one.inputs) == str(other.inputs)
    assert one.meta["provenance"] == other.meta["provenance"]
    assert one.response == other.response
    assert one.response.meta == other.response.meta
    assert one.bins == other.bins
    nz, ny, nx = one.data.shape
    corners = np.array([[0, 0, 0], [nx - 1, 0, nz - 1], [nx / 2, ny - 1, 3]])
    there = [cube.wcs.wcs_pix2world(corners, 0) for cube in (one, other)]
    np.testing.assert_allclose(*there, rtol=0, atol=1e-10)
    assert one.sky_header.keys() == other.sky_header.keys()


class TestRoundTrip:
    def test_nothing_is_lost(self, cube, path):
        cube.write(path)
        assert_same(DEMCube.read(path), cube)

    @pytest.mark.parametrize("kind", [str, lambda path: path])
    def test_names(self, cube, path, kind):
        cube.write(kind(path))
        assert isinstance(DEMCube.read(kind(path)), DEMCube)

    @pytest.mark.parametrize("item", [np.s_[3:9], np.s_[:, 4:10, -7:], np.s_[2:5, 5:6, 7:8]])
    def test_of_a_part(self, cube, path, item):
        cube[item].write(path)
        assert_same(DEMCube.read(path), cube[item])

    def test_twice(self, cube, tmp_path):
        cube.write(tmp_path / "1.fits")
        once = DEMCube.read(tmp_path / "1.fits")
        once.write(tmp_path / "2.fits")
        assert_same(DEMCube.read(tmp_path / "2.fits"), once)
        assert DEMCube.read(tmp_path / "2.fits").sky_header == once.sky_header

    def test_without_uncertainty(self, cube, path):
        bare = cube[:]
        bare.uncertainty = None
        bare.write(path)
        assert_same(DEMCube.read(path), bare)
        assert "UNCERT" not in fits.open(path)

    def test_in_double_precision(self, cube, path):
        exact = cube * (1 + 1e-12)
        exact.write(path)
        np.testing.assert_array_equal(DEMCube.read(path).data, exact.data)

    def test_in_single_precision_where_nothing_is_lost(self, cube, path):
        cube.write(path)
        assert fits.getheader(path)["BITPIX"] == -32

    def test_what_is_read_can_be_used(self, cube, path):
        cube.write(path)
        again = DEMCube.read(path)
        for here, there in zip(again.synthesize(), cube.synthesize(), strict=True):
            np.testing.assert_array_equal(here.data, there.data)
            assert here.date.isot == there.date.isot
        assert again[3:5, 2:4].chi2.shape == (2, N)
        np.testing.assert_array_equal(again.observed_maps()[1].data, cube.observed_maps()[1].data)

    def test_other_bins_and_response(self, path):
        stack = ChannelStack.from_maps(sample_maps((4, 4)))
        response = TemperatureResponse.default(eve=False, bins=LogTBins(5.6, 0.05, 30))
        em = np.random.default_rng(0).uniform(0, 1e27, (30, 4, 4))
        options = {"intensity": stack.intensity, "uncertainty": stack.uncertainty}
        cube = DEMCube.from_arrays(em, None, response, stack.header, stack.inputs, **options)
        cube.write(path)
        assert_same(DEMCube.read(path), cube)

    def test_facts_that_are_not_numbers_or_text(self, cube, path):
        response = TemperatureResponse(
            cube.response.temperature, cube.response.response, meta={"obstime": Time("2014-01-01")}
        )
        told = DEMCube.from_arrays(
            cube.data,
            None,
            response,
            cube.sky_header,
            cube.inputs,
            intensity=cube.intensity,
            uncertainty=cube.intensity_uncertainty,
            meta={"seed": np.int64(3), "who": None, "nested": {"a": [1, 2.5]}},
        )
        told.write(path)
        again = DEMCube.read(path)
        assert again.meta["provenance"] == {"seed": 3, "who": None, "nested": {"a": [1, 2.5]}}
        assert again.response.meta["obstime"].startswith("2014-01-01")

    def test_inputs_of_which_little_is_known(self, path):
        maps = six(np.full((4, 4), 100.0), lvl_num=None, instrume="AIA")
        stack = ChannelStack.from_maps(maps)
        inputs = [one | {"instrument": ""} for one in stack.inputs]
        options = {"intensity": stack.intensity, "uncertainty": stack.uncertainty}
        em = np.ones((18, 4, 4))
        DEMCube.from_arrays(em, None, TemperatureResponse.default(), stack.header, inputs, **options).write(path)
        again = DEMCube.read(path).inputs
        assert [one["instrument"] for one in again] == [""] * 6
        assert np.isnan([one["level"] for one in again]).all()
        assert all(one["own_uncertainty"] is False for one in again)


class TestOtherReaders:
    @pytest.fixture
    def hdus(self, cube, path):
        cube.write(path)
        with fits.open(path, checksum=True) as hdus:
            yield hdus

    def test_layout(self, hdus):
        images = ["EM", "UNCERT", "MASK", "QUALITY", "CHI2", "SATURATION", "INTENSITY", "SIGMA"]
        assert [hdu.name for hdu in hdus] == [*images, "RESPONSE", "INPUTS", "PROVENANCE"]
        assert hdus["EM"].shape == hdus["UNCERT"].shape == hdus["MASK"].shape == (18, N, N)
        assert hdus["INTENSITY"].shape == (6, N, N)
        assert hdus["CHI2"].shape == (N, N)

    def test_headers_are_standard(self, hdus):
        for hdu in hdus:
            hdu.verify("exception")
        header = hdus["EM"].header
        assert u.Unit(header["BUNIT"], format="fits") == u.cm**-5
        assert (header["CTYPE3"], header["CUNIT1"], header["CUNIT2"]) == ("LOGT", "arcsec", "arcsec")
        assert header["DATE-OBS"].startswith("2014-01-01T00:00")
        assert header["DSUN_OBS"] == pytest.approx(1.471e11, rel=1e-3)

    def test_checksums(self, hdus):
        assert all("CHECKSUM" in hdu.header and "DATASUM" in hdu.header for hdu in hdus)
        assert all(hdu.verify_checksum() == hdu.verify_datasum() == 1 for hdu in hdus)

    def test_astropy_reads_the_log_t_axis(self, hdus):
        wcs = WCS(hdus["EM"].header)
        np.testing.assert_allclose(wcs.pixel_to_world_values(0, 0, [0, 17])[2], [5.5, 7.2])

    def test_ndcube_reads_it(self, hdus):
        (log_t,) = NDCube(hdus["EM"].data, wcs=WCS(hdus["EM"].header)).axis_world_coords(0)
        np.testing.assert_allclose(log_t.value, np.arange(55, 73) / 10)

    @pytest.mark.parametrize("name", ["CHI2", "QUALITY"])
    def test_sunpy_reads_the_images(self, cube, hdus, name):
        smap = sunpy.map.Map(hdus[name].data, hdus[name].header)
        np.testing.assert_array_equal(smap.data, getattr(cube, name.lower()))
        there = sample_maps((N, N))[0]
        assert u.allclose(smap.scale[0], there.scale[0])
        assert u.allclose(smap.observer_coordinate.radius, there.observer_coordinate.radius)

    def test_tables(self, hdus):
        response = Table.read(hdus["RESPONSE"])
        assert response.colnames == ["temperature", *(f"response_{channel}" for channel in CHANNELS)]
        assert response["temperature"].unit == u.K
        assert list(Table.read(hdus["INPUTS"])["channel"]) == list(CHANNELS)


class TestWriting:
    def leftovers(self, path):
        return sorted(one.name for one in path.parent.iterdir())

    def test_what_is_there_is_not_replaced_unasked(self, cube, path):
        path.write_text("precious")
        with pytest.raises(FileExistsError, match=r"dem\.fits exists. Pass overwrite=True"):
            cube.write(path)
        assert path.read_text() == "precious"
        cube.write(path, overwrite=True)
        assert_same(DEMCube.read(path), cube)
        assert self.leftovers(path) == ["dem.fits"]

    def test_a_missing_folder(self, cube, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"none/dem\.fits lies in a folder that does not exist"):
            cube.write(tmp_path / "none" / "dem.fits")

    @pytest.mark.parametrize("there", [False, True])
    def test_an_error_half_way_leaves_no_half_file(self, cube, path, monkeypatch, there):
        if there:
            path.write_text("precious")

        def full_disc(self, name, **options):
            with open(name, "wb") as file:
                file.write(b"SIMPLE  =")
            msg = "No space left on device"
            raise OSError(msg)

        monkeypatch.setattr(fits.HDUList, "writeto", full_disc)
        with pytest.raises(OSError, match="No space left"):
            cube.write(path, overwrite=True)
        assert self.leftovers(path) == (["dem.fits"] if there else [])
        assert not there or path.read_text() == "precious"

    def test_a_killed_run_leaves_no_half_file(self, path):
        code = f"""
import os, signal
from sunpy_deepem._files import atomic_path
with atomic_path({str(path)!r}) as partial:
    partial.write_bytes(b"SIMPLE  =")
    os.kill(os.getpid(), signal.SIGKILL)
"""
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode != 0
        assert not path.exists()
        # Nor is what it leaves taken for a map.
        with pytest.raises(FileNotFoundError, match="holds no FITS file"):
            ChannelStack.from_maps(path.parent)

    def test_a_part_without_all_axes(self, cube, path):
        with pytest.raises(ValueError, match="needs the axes log T, y, x"):
            cube[4].write(path)
        assert self.leftovers(path) == []


class TestReading:
    def test_no_file(self, path):
        with pytest.raises(FileNotFoundError, match=r"no file .*dem\.fits"):
            DEMCube.read(path)

    @pytest.mark.parametrize("content", [b"", b"log T, EM\n5.5, 1e26\n", b"SIMPLE  =                    T"])
    def test_no_fits(self, path, content):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"dem\.fits cannot be read as a DEM cube"):
            DEMCube.read(path)

    def test_other_fits(self, path):
        sample_maps((4, 4))[0].save(path)
        with pytest.raises(ValueError, match=r"dem\.fits holds no DEM cube: it lacks DEMFMT"):
            DEMCube.read(path)

    @pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
    def test_truncated(self, cube, path, share):
        cube.write(path)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ValueError, match=r"dem\.fits cannot be read as a DEM cube"):
            DEMCube.read(path)

    def test_damaged(self, cube, path):
        cube.write(path)
        content = bytearray(path.read_bytes())
        content[30000] ^= 0xFF
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"dem\.fits cannot be read as a DEM cube"):
            DEMCube.read(path)

    @pytest.mark.parametrize("name", ["MASK", "QUALITY", "CHI2", "INTENSITY", "RESPONSE", "INPUTS", "PROVENANCE"])
    def test_parts_that_are_missing(self, cube, path, name):
        cube.write(path)
        with fits.open(path, mode="update") as hdus:
            del hdus[name]
        with pytest.raises(ValueError, match=rf"dem\.fits cannot be read as a DEM cube.*{name}"):
            DEMCube.read(path)

    def test_parts_that_do_not_fit(self, cube, path):
        cube.write(path)
        with fits.open(path) as hdus:
            hdus["CHI2"].data = hdus["CHI2"].data[:5]
            hdus.writeto(path, overwrite=True, checksum=True)
        with pytest.raises(ValueError, match=r"dem\.fits cannot be read as a DEM cube"):
            DEMCube.read(path)
