"""What other programs make of our files and cubes, and we of theirs: the documented format and xarray."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import cube_from_arrays, six, true_cube

from sunpy_deepem import CHANNELS, ChannelStack, DEMCube, Quality, TemperatureResponse
from sunpy_deepem.forward import synthetic_intensity

N = 24
FILE_FORMAT = Path(__file__).parents[2] / "docs" / "topics" / "file_format.rst"


@pytest.fixture(scope="module")
def cube():
    return true_cube(n=N)


def documented(name):
    """The code that the documentation gives under this name."""
    block = re.search(rf"   :name: {name}\n\n((?:    .*\n|\n)+)", FILE_FORMAT.read_text()).group(1)
    return re.sub("^    ", "", block, flags=re.MULTILINE)


class TestDocumentedFormat:
    @pytest.fixture(autouse=True)
    def _here(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

    def test_the_code_is_of_astropy_alone(self):
        for name in ("read-with-astropy", "write-with-astropy"):
            imported = re.findall(r"(?:from|import) (\w+)[. ]", documented(name))
            assert set(imported) <= {"numpy", "astropy", "fits", "Table"}

    @pytest.mark.parametrize("compress", [False, True])
    def test_astropy_alone_reads_a_cube(self, cube, compress):
        cube.write("dem.fits", compress=compress)
        found = {}
        exec(documented("read-with-astropy"), found)
        np.testing.assert_array_equal(found["em"], cube.data)
        np.testing.assert_allclose(found["log_t"], cube.log_t)
        np.testing.assert_array_equal(found["good"], cube.quality == 0)
        np.testing.assert_array_equal(found["observed"], cube.intensity[2].value)
        expected = synthetic_intensity(cube.data << cube.unit, cube.response)[2].value
        np.testing.assert_allclose(found["synthetic"], expected, rtol=1e-6)

    def test_astropy_alone_writes_a_cube(self):
        response = TemperatureResponse.default()
        random = np.random.default_rng(0)
        em = random.uniform(0, 1e27, (18, 3, 4))
        em[:, 1, 2] = np.nan
        given = {
            "em": em,
            "chi2": random.uniform(0, 2, (3, 4)),
            "intensity": random.uniform(1, 100, (6, 3, 4)).astype(np.float32),
            "sigma": random.uniform(1, 10, (6, 3, 4)).astype(np.float32),
            "temperature": response.temperature.value,
            "curves": response.curves.value,
        }
        exec(documented("write-with-astropy"), dict(given))
        cube = DEMCube.read("dem.fits")
        np.testing.assert_array_equal(cube.data, em)
        assert cube.uncertainty is None
        np.testing.assert_array_equal(cube.mask[0], np.isnan(em[0]))
        np.testing.assert_array_equal(cube.quality, np.where(np.isnan(em[0]), Quality.MISSING, 0))
        np.testing.assert_array_equal(cube.chi2, given["chi2"])
        np.testing.assert_array_equal(cube.intensity.value, given["intensity"])
        np.testing.assert_array_equal(cube.intensity_uncertainty.value, given["sigma"])
        assert cube.response == response
        assert cube.meta["provenance"] == {"method": "by hand"}
        np.testing.assert_allclose(cube.bin_map(6.0).center.Tx.value, -100 + 0.5 * 2.4, atol=1e-3)
        expected = synthetic_intensity(em << cube.unit, response)
        for smap, image, channel in zip(cube.synthesize(), expected, CHANNELS, strict=True):
            np.testing.assert_array_equal(smap.data, image.value)
            assert smap.wavelength.value == channel
        cube.write("again.fits")

    @pytest.mark.parametrize("name", [flag.name for flag in Quality])
    def test_flags_have_the_values_that_are_in_files(self, name):
        """They are part of the format: none may ever change."""
        values = {"MISSING": 1, "SATURATED": 2, "LOW_SIGNAL": 4, "HIGH_CHI2": 8, "EDGE": 16, "NEGATIVE": 32}
        values |= {"BLOOMING": 64, "UNUSUAL": 128}
        if name in values:
            assert Quality[name] == values[name]
        else:
            assert Quality[name] > 128


class TestXarray:
    @pytest.fixture(autouse=True)
    def _xarray(self):
        pytest.importorskip("xarray")

    def test_variables(self, cube):
        dataset = cube.to_xarray()
        bins, sky, channels = ("log_t", "y", "x"), ("y", "x"), ("channel", "y", "x")
        assert {name: variable.dims for name, variable in dataset.data_vars.items()} == {
            "em": bins,
            "em_std": bins,
            "mask": bins,
            "intensity": channels,
            "sigma": channels,
            "chi2": sky,
            "quality": sky,
            "saturation": sky,
        }
        np.testing.assert_array_equal(dataset.em, cube.data)
        np.testing.assert_array_equal(dataset.em_std, cube.uncertainty.array)
        np.testing.assert_array_equal(dataset["mask"], cube.mask)
        np.testing.assert_array_equal(dataset.intensity, cube.intensity.value)
        np.testing.assert_array_equal(dataset.sigma, cube.intensity_uncertainty.value)
        for name in ("chi2", "quality", "saturation"):
            np.testing.assert_array_equal(dataset[name], getattr(cube, name))
        np.testing.assert_array_equal(dataset.log_t, cube.log_t)
        assert dataset.channel.values.tolist() == list(CHANNELS)

    def test_units(self, cube):
        dataset = cube.to_xarray()
        told = {name: dataset[name].attrs["units"] for name in ("em", "em_std", "intensity", "sigma", "tx", "ty")}
        assert told == {
            "em": "cm-5",
            "em_std": "cm-5",
            "intensity": "DN s-1 pix-1",
            "sigma": "DN s-1 pix-1",
            "tx": "arcsec",
            "ty": "arcsec",
        }

    def test_without_uncertainty(self, cube):
        bare = cube[:]
        bare.uncertainty = None
        assert "em_std" not in bare.to_xarray()

    def test_coordinates_are_those_of_maps(self, cube):
        part = cube[2:5, 3:9, 10:21]
        dataset = part.to_xarray()
        x, y = np.meshgrid(np.arange(11), np.arange(6))
        world = part.bin_map(part.log_t[0]).wcs.pixel_to_world(x, y)
        assert dataset.tx.dims == ("x",)
        assert dataset.ty.dims == ("y",)
        np.testing.assert_allclose(np.broadcast_to(dataset.tx, (6, 11)), world.Tx.to_value("arcsec"), atol=0.5)
        np.testing.assert_allclose(np.broadcast_to(dataset.ty, (11, 6)).T, world.Ty.to_value("arcsec"), atol=0.5)
        near = dataset.sel(tx=dataset.tx[4] + 1, ty=dataset.ty[1] - 1, method="nearest")
        np.testing.assert_array_equal(near.em, part.data[:, 1, 4])

    def test_coordinates_of_a_rotated_sky(self):
        sine, cosine = np.sin(np.deg2rad(30)), np.cos(np.deg2rad(30))
        turn = {"crota2": None, "pc1_1": cosine, "pc1_2": -sine, "pc2_1": sine, "pc2_2": cosine}
        stack = ChannelStack.from_maps(six(np.full((5, 7), 100.0), **turn))
        options = {"intensity": stack.intensity, "uncertainty": stack.uncertainty}
        em = np.ones((18, 5, 7))
        turned = cube_from_arrays(em, None, TemperatureResponse.default(), stack.header, stack.inputs, **options)
        dataset = turned.to_xarray()
        assert dataset.tx.dims == dataset.ty.dims == ("y", "x")
        world = turned.bin_map(6.0).wcs.pixel_to_world(*np.meshgrid(np.arange(7), np.arange(5)))
        np.testing.assert_allclose(dataset.tx, world.Tx.to_value("arcsec"), atol=1e-6)
        np.testing.assert_allclose(dataset.ty, world.Ty.to_value("arcsec"), atol=1e-6)

    def test_provenance(self, cube):
        attrs = cube.to_xarray().attrs
        assert attrs["date_obs"] == cube.sky_header["date-obs"]
        assert json.loads(attrs["provenance"])["method"] == "truth"
        assert json.loads(attrs["response"])["fingerprint"] == cube.response.fingerprint
        assert [one["channel"] for one in json.loads(attrs["inputs"])] == list(CHANNELS)
        assert json.loads(attrs["fits_header"]) == cube.sky_header

    def test_flags_are_named(self, cube):
        attrs = cube.to_xarray().quality.attrs
        named = dict(zip(attrs["flag_meanings"].split(), attrs["flag_masks"], strict=True))
        assert named == {flag.name: flag.value for flag in Quality}

    def test_attributes_are_such_as_files_hold(self, cube):
        dataset = cube.to_xarray()
        for holder in (dataset, *dataset.variables.values()):
            for value in holder.attrs.values():
                assert isinstance(value, str | int | float) or all(isinstance(one, int) for one in value)

    def test_it_is_a_copy(self, cube):
        dataset = cube.to_xarray()
        before = cube.data[3, 4, 5]
        dataset.em[3, 4, 5] = -1
        assert cube.data[3, 4, 5] == before

    def test_a_slice_without_an_axis(self, cube):
        with pytest.raises(ValueError, match="to_xarray needs the axes log T, y, x"):
            cube[3].to_xarray()


def test_what_to_install(cube, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match=r'pip install "sunpy_deepem\[xarray\]"'):
        cube.to_xarray()
