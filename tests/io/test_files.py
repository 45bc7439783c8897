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
from helpers import assert_same_cube, changed, cube_from_arrays, six, true_cube
from ndcube import NDCube

from sunpy_deepem import CHANNELS, ChannelStack, DEMCube, LogTBins, TemperatureResponse
from sunpy_deepem.io.fits import read_provenance
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


#: Every way to write a cube as FITS: name of the file and options.
KINDS = [("dem.fits", {}), ("dem.fits", {"compress": True}), ("dem.fits.gz", {}), ("DEM.FTS", {})]


def rotated_cube():
    """A small cube with noise for data, on a sky that is turned by 20 degrees."""
    sine, cosine = np.sin(np.deg2rad(20)), np.cos(np.deg2rad(20))
    turn = {"crota2": None, "pc1_1": cosine, "pc1_2": -sine, "pc2_1": sine, "pc2_2": cosine, "crval1": -321.1}
    random = np.random.default_rng(0)
    stack = ChannelStack.from_maps(six(random.uniform(50, 500, (6, 5, 7)), **turn))
    em = random.uniform(0, 1e27, (18, 5, 7))
    options = {"intensity": stack.intensity, "uncertainty": stack.uncertainty, "quality": stack.quality}
    options |= {"saturation": stack.saturation, "meta": stack.meta}
    return cube_from_arrays(em, em / 3, TemperatureResponse.default(), stack.header, stack.inputs, **options)


class TestRoundTrip:
    @pytest.mark.parametrize(("name", "options"), KINDS)
    def test_nothing_is_lost(self, cube, tmp_path, name, options):
        cube.write(tmp_path / name, **options)
        assert_same_cube(DEMCube.read(tmp_path / name), cube)

    @pytest.mark.parametrize("kind", [str, lambda path: path])
    def test_names(self, cube, path, kind):
        cube.write(kind(path))
        assert isinstance(DEMCube.read(kind(path)), DEMCube)

    @pytest.mark.parametrize("item", [np.s_[3:9], np.s_[:, 4:10, -7:], np.s_[2:5, 5:6, 7:8]])
    def test_of_a_part(self, cube, path, item):
        cube[item].write(path)
        assert_same_cube(DEMCube.read(path), cube[item])

    def test_twice(self, cube, tmp_path):
        cube.write(tmp_path / "1.fits")
        once = DEMCube.read(tmp_path / "1.fits")
        once.write(tmp_path / "2.fits")
        assert_same_cube(DEMCube.read(tmp_path / "2.fits"), once)
        assert DEMCube.read(tmp_path / "2.fits").sky_header == once.sky_header

    def test_of_a_rotated_sky(self, path):
        turned = rotated_cube()
        turned.write(path)
        assert turned.sky_header["pc1_2"] != 0
        assert_same_cube(DEMCube.read(path), turned)

    def test_numbers_that_are_none(self, path):
        """Compression keeps every bit: infinities, NaN, the sign of zero and numbers near the limits."""
        odd = rotated_cube()
        odd.data[:, 0, 0] = np.resize([np.inf, -np.inf, np.nan, -0.0, 1e300, 5e-324], 18)
        odd.write(path, compress=True)
        again = DEMCube.read(path)
        np.testing.assert_array_equal(again.data, odd.data)
        np.testing.assert_array_equal(np.signbit(again.data), np.signbit(odd.data))

    def test_what_a_user_added(self, path):
        noted = rotated_cube()
        noted.meta["note"] = {"who": "me", "when": [2014, 1.5, None]}
        noted.write(path)
        assert DEMCube.read(path).meta["note"] == noted.meta["note"]

    def test_without_uncertainty(self, cube, path):
        bare = cube[:]
        bare.uncertainty = None
        bare.write(path)
        assert_same_cube(DEMCube.read(path), bare)
        assert "UNCERT" not in fits.open(path)

    def test_in_double_precision(self, cube, path):
        exact = cube * (1 + 1e-12)
        exact.write(path)
        np.testing.assert_array_equal(DEMCube.read(path).data, exact.data)

    def test_in_single_precision_where_nothing_is_lost(self, cube, path):
        cube.write(path)
        assert fits.getheader(path)["BITPIX"] == -32

    def test_provenance_alone(self, cube, tmp_path):
        for name, options in KINDS:
            cube.write(tmp_path / name, **options, overwrite=True)
            found = read_provenance(tmp_path / name)
            assert found | {"response": None} == DEMCube.read(tmp_path / name).meta["provenance"] | {"response": None}

    def test_provenance_of_a_damaged_file(self, cube, path):
        cube.write(path)
        content = bytearray(path.read_bytes())
        content[20_000] ^= 0xFF  # in the image of EM
        path.write_bytes(content)
        with pytest.raises(ValueError, match="so it was damaged"):
            read_provenance(path)

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
        cube = cube_from_arrays(em, None, response, stack.header, stack.inputs, **options)
        cube.write(path)
        assert_same_cube(DEMCube.read(path), cube)

    def test_facts_that_are_not_numbers_or_text(self, cube, path):
        response = TemperatureResponse(
            cube.response.temperature, cube.response.curves, meta={"obstime": Time("2014-01-01")}
        )
        told = cube_from_arrays(
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
        assert again.meta["provenance"].items() >= {"seed": 3, "who": None, "nested": {"a": [1, 2.5]}}.items()
        assert again.response.meta["obstime"].startswith("2014-01-01")

    def test_inputs_of_which_little_is_known(self, path):
        maps = six(np.full((4, 4), 100.0), lvl_num=None, instrume="AIA")
        stack = ChannelStack.from_maps(maps)
        inputs = [one | {"instrument": ""} for one in stack.inputs]
        options = {"intensity": stack.intensity, "uncertainty": stack.uncertainty}
        em = np.ones((18, 4, 4))
        cube_from_arrays(em, None, TemperatureResponse.default(), stack.header, inputs, **options).write(path)
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
        channels = [f"{name}_{channel}" for channel in CHANNELS for name in ("INTENSITY", "SIGMA")]
        images = ["EM", "UNCERT", "MASK", "CHI2", "QUALITY", "SATURATION", *channels]
        assert [hdu.name for hdu in hdus] == [*images, "RESPONSE", "INPUTS", "PROVENANCE"]
        assert hdus["EM"].shape == hdus["UNCERT"].shape == hdus["MASK"].shape == (18, N, N)
        assert all(hdus[name].shape == (N, N) for name in images[3:])

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

    @pytest.mark.parametrize("compress", [False, True])
    def test_sunpy_reads_the_images(self, cube, path, compress):
        """Each two-dimensional extension is a map, named by its number, and without a warning."""
        cube.write(path, overwrite=True, compress=compress)
        with fits.open(path) as hdus:
            names = {hdu.name: index for index, hdu in enumerate(hdus) if hdu.is_image and hdu.header["NAXIS"] == 2}
        assert len(names) == 15
        there = sample_maps((N, N))[0]
        for name, index in names.items():
            smap = sunpy.map.Map(path, hdus=[index])
            np.testing.assert_array_equal(smap.data, cube.meta[name.lower()])
            assert u.allclose(smap.scale[0], there.scale[0])
            assert u.allclose(smap.observer_coordinate.radius, there.observer_coordinate.radius)

    def test_intensities_are_maps_of_their_channels(self, cube, hdus):
        for channel, observed in zip(CHANNELS, cube.observed_maps(), strict=True):
            for name in ("INTENSITY", "SIGMA"):
                hdu = hdus[f"{name}_{channel}"]
                smap = sunpy.map.Map(hdu.data, hdu.header)
                assert smap.wavelength == channel * u.angstrom
                assert smap.unit == u.DN / (u.pix * u.s)
                assert (smap.date, smap.exposure_time) == (observed.date, observed.exposure_time)

    def test_compression_makes_files_smaller(self, path):
        flat = true_cube(n=64)
        sizes = []
        for compress in (False, True):
            flat.write(path, overwrite=True, compress=compress)
            sizes.append(path.stat().st_size)
        assert sizes[1] < 0.9 * sizes[0]

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
        assert_same_cube(DEMCube.read(path), cube)
        assert self.leftovers(path) == ["dem.fits"]

    @pytest.mark.parametrize("name", ["dem", "dem.png", "dem.nc", "fits", "dem.fits.bz2"])
    def test_other_suffixes(self, cube, tmp_path, name):
        with pytest.raises(ValueError, match=r"path must end in \.fits, .* or \.asdf"):
            cube.write(tmp_path / name)
        assert list(tmp_path.iterdir()) == []

    def test_a_folder(self, cube, path):
        path.mkdir()
        with pytest.raises(ValueError, match="path must end in"):
            cube.write(path, overwrite=True)

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
from sunpy_deepem.utils.files import atomic_path
with atomic_path({str(path)!r}) as partial:
    partial.write_bytes(b"SIMPLE  =")
    os.kill(os.getpid(), signal.SIGKILL)
"""
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode != 0
        assert not path.exists()
        # Nor is the rest taken for a map.
        with pytest.raises(FileNotFoundError, match="contains no FITS file"):
            ChannelStack.from_maps(path.parent)

    def test_a_part_without_all_axes(self, cube, path):
        with pytest.raises(ValueError, match="needs the axes log T, y, x"):
            cube[4].write(path)
        assert self.leftovers(path) == []


class TestReading:
    def test_no_file(self, path):
        with pytest.raises(FileNotFoundError, match=r"no file .*dem\.fits"):
            DEMCube.read(path)

    def test_a_folder(self, tmp_path):
        with pytest.raises(ValueError, match="is a folder"):
            DEMCube.read(tmp_path)

    @pytest.mark.parametrize("content", [b"", b"log T, EM\n5.5, 1e26\n", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"])
    def test_no_fits(self, path, content):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"dem\.fits is neither FITS nor ASDF: it starts with b"):
            DEMCube.read(path)

    @pytest.mark.parametrize("content", [b"SIMPLE  =                    T", b"\x1f\x8b\x08", b"\x1f\x8bnonsense"])
    def test_no_fits_but_for_the_start(self, path, content):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"dem\.fits cannot be read as a DEM cube"):
            DEMCube.read(path)

    def test_an_image(self, path):
        sample_maps((4, 4))[0].save(path)
        with pytest.raises(ValueError, match=r"dem\.fits cannot be read.*DEMFMT must be 'sunpy_deepem 2', found None"):
            DEMCube.read(path)

    def test_a_table(self, path):
        Table({"log_t": [5.5, 5.6], "em": [1e26, 2e26]}).write(path)
        with pytest.raises(ValueError, match=r"dem\.fits cannot be read.*DEMFMT must be 'sunpy_deepem 2', found None"):
            DEMCube.read(path)

    def test_another_layout(self, cube, path):
        cube.write(path)
        fits.setval(path, "DEMFMT", value="sunpy_deepem 3")
        with pytest.raises(ValueError, match=r"DEMFMT must be 'sunpy_deepem 2', found 'sunpy_deepem 3'"):
            DEMCube.read(path)

    @pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.99])
    @pytest.mark.parametrize(("name", "options"), KINDS[:3])
    def test_truncated(self, cube, tmp_path, name, options, share):
        path = tmp_path / name
        cube.write(path, **options)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ValueError, match=r"dem\.fits.* cannot be read as a DEM cube"):
            DEMCube.read(path)

    @pytest.mark.parametrize(("name", "options"), KINDS[:3])
    def test_a_damaged_byte(self, tmp_path, name, options):
        """Wherever a byte changes, the file is refused, or no part of the cube but of a checksum has changed."""
        path, cube = tmp_path / name, rotated_cube()
        cube.write(path, **options)
        whole = path.read_bytes()
        refused = 0
        not_blank = np.flatnonzero(np.frombuffer(whole, dtype=np.uint8) != ord(" "))
        places = np.random.default_rng(1).choice(not_blank, 25)
        for place in places:
            damaged = bytearray(whole)
            damaged[place] ^= 0x11
            path.write_bytes(damaged)
            try:
                again = DEMCube.read(path)
            except ValueError as error:
                refused += "cannot be read as a DEM cube" in str(error)
            else:
                assert_same_cube(again, cube)
        assert refused > 0.9 * len(places)

    def test_a_checksum_that_is_wrong_is_told(self, cube, path):
        cube.write(path)
        content = bytearray(path.read_bytes())
        content[30000] ^= 0xFF
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"cannot be read.*the DATASUM of the HDU EM does not fit"):
            DEMCube.read(path)

    def test_a_file_without_checksums(self, cube, path):
        cube.write(path)
        with fits.open(path) as hdus:
            for hdu in hdus:
                del hdu.header["CHECKSUM"], hdu.header["DATASUM"]
            hdus.writeto(path, overwrite=True)
        assert "CHECKSUM" not in fits.getheader(path)
        assert_same_cube(DEMCube.read(path), cube)

    @pytest.mark.parametrize("name", ["MASK", "QUALITY", "CHI2", "INTENSITY_171", "RESPONSE", "INPUTS", "PROVENANCE"])
    def test_parts_that_are_missing(self, cube, path, name):
        cube.write(path)
        with fits.open(path, mode="update") as hdus:
            del hdus[name]
        with pytest.raises(ValueError, match=rf"dem\.fits cannot be read as a DEM cube.*(?i:{name})"):
            DEMCube.read(path)

    def test_parts_that_do_not_fit(self, cube, path):
        cube.write(path)
        with fits.open(path) as hdus:
            hdus["CHI2"].data = hdus["CHI2"].data[:5]
            hdus.writeto(path, overwrite=True, checksum=True)
        with pytest.raises(ValueError, match=r"dem\.fits cannot be read as a DEM cube"):
            DEMCube.read(path)
