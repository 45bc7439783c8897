"""Cubes in ASDF trees and files."""

import sys

import numpy as np
import pytest
from astropy.nddata import StdDevUncertainty, VarianceUncertainty
from helpers import assert_same_cube, cube_from_arrays, true_cube
from ndcube import NDCube

from sunpy_deepem import ChannelStack, DEMCube, LogTBins, TemperatureResponse
from sunpy_deepem.io.asdf import get_extensions, get_resource_mappings
from sunpy_deepem.sample import sample_maps

asdf = pytest.importorskip("asdf")
pytest.importorskip("asdf_astropy")

N = 24


@pytest.fixture(scope="module")
def cube():
    return true_cube(n=N)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "dem.asdf"


class TestRoundTrip:
    @pytest.mark.parametrize("compress", [False, True])
    def test_nothing_is_lost(self, cube, path, compress):
        cube.write(path, compress=compress)
        assert_same_cube(DEMCube.read(path), cube)

    @pytest.mark.parametrize("item", [np.s_[3:9], np.s_[:, 4:10, -7:], np.s_[2:5, 5:6, 7:8]])
    def test_of_a_part(self, cube, path, item):
        cube[item].write(path)
        assert_same_cube(DEMCube.read(path), cube[item])

    def test_a_part_does_not_carry_the_whole(self, cube, tmp_path):
        cube.write(tmp_path / "whole.asdf")
        cube[:, 3:5, 3:5].write(tmp_path / "part.asdf")
        assert (tmp_path / "part.asdf").stat().st_size < 0.4 * (tmp_path / "whole.asdf").stat().st_size

    def test_it_is_what_fits_gives(self, cube, path):
        cube.write(path)
        cube.write(path.with_suffix(".fits"))
        assert_same_cube(DEMCube.read(path), DEMCube.read(path.with_suffix(".fits")))

    @pytest.mark.parametrize("kind", [StdDevUncertainty, VarianceUncertainty])
    def test_the_kind_of_uncertainty(self, cube, path, kind):
        other = cube[:]
        other.uncertainty = cube.uncertainty.represent_as(kind)
        other.write(path)
        assert_same_cube(DEMCube.read(path), other)

    def test_without_uncertainty_and_mask(self, cube, path):
        bare = cube[:]
        bare.uncertainty = bare.mask = None
        bare.write(path)
        again = DEMCube.read(path)
        assert again.uncertainty is None
        assert again.mask is None
        np.testing.assert_array_equal(again.data, bare.data)

    def test_other_bins_and_response(self, path):
        stack = ChannelStack.from_maps(sample_maps((4, 4)))
        response = TemperatureResponse.default(eve=False, bins=LogTBins(5.6, 0.05, 30))
        em = np.random.default_rng(0).uniform(0, 1e27, (30, 4, 4))
        options = {"intensity": stack.intensity, "uncertainty": stack.uncertainty, "meta": {"seed": np.int64(3)}}
        made = cube_from_arrays(em, None, response, stack.header, stack.inputs, **options)
        made.meta["note"] = {"who": "me", "when": [2014, 1.5, None]}
        made.write(path)
        assert_same_cube(DEMCube.read(path), made)

    def test_what_is_read_can_be_used(self, cube, path):
        cube.write(path)
        again = DEMCube.read(path)
        np.testing.assert_array_equal(again.synthesize()[2].data, cube.synthesize()[2].data)
        assert again[3:5, 2:4].chi2.shape == (2, N)


class TestTrees:
    """Whoever has a tree of his own puts cubes, responses and bins into it."""

    def test_cubes_responses_and_bins(self, cube, path):
        response = TemperatureResponse.default(obstime="2014-01-01")
        asdf.AsdfFile({"a": [cube, cube[2:4]], "b": {"response": response, "bins": LogTBins(6, 0.2, 4)}}).write_to(path)
        with asdf.open(path) as file:
            assert_same_cube(file["a"][0], cube)
            assert_same_cube(file["a"][1], cube[2:4])
            assert file["b"]["response"] == response
            assert file["b"]["response"].meta == response.meta
            assert file["b"]["bins"] == LogTBins(6, 0.2, 4)

    def test_what_is_read_lives_on_without_the_file(self, cube, path):
        asdf.AsdfFile({"cube": cube, "response": cube.response}).write_to(path)
        with asdf.open(path, lazy_load=True, memmap=True) as file:
            again, response = file["cube"], file["response"]
        path.unlink()
        assert_same_cube(again, cube)
        np.testing.assert_array_equal(response.matrix, cube.response.matrix)

    def test_a_slice_without_an_axis(self, cube, path):
        with pytest.raises(ValueError, match="needs the axes log T, y, x"):
            asdf.AsdfFile({"cube": cube[3]}).write_to(path)

    def test_other_cubes_stay_what_they_are(self, cube, path):
        pytest.importorskip("ndcube.asdf", reason="ndcube writes its own cubes from 2.4 on")
        asdf.AsdfFile({"cube": NDCube(np.zeros((3, N, N)), wcs=cube.wcs)}).write_to(path)
        with asdf.open(path) as file:
            assert type(file["cube"]) is NDCube

    @pytest.mark.parametrize("part", ["wcs", "unit", "response", "images", "inputs"])
    def test_the_schema_is_applied(self, cube, path, part):
        cube.write(path)
        path.write_bytes(path.read_bytes().replace(f"\n  {part}:".encode(), f"\n  {part[::-1]}:".encode(), 1))
        with pytest.raises(ValueError, match=f"ValidationError: '{part}' is a required property"):
            DEMCube.read(path)

    def test_entry_points(self):
        schemas = get_resource_mappings()[0]
        (extension,) = get_extensions()
        assert {tag.schema_uris[0] for tag in extension.tags} == set(schemas)
        converted = {tag.removesuffix("-*") for converter in extension.converters for tag in converter.tags}
        assert converted == {tag.tag_uri.removesuffix("-1.0.0") for tag in extension.tags}


class TestWriting:
    def test_what_is_there_is_not_replaced_unasked(self, cube, path):
        path.write_text("precious")
        with pytest.raises(FileExistsError, match=r"dem\.asdf exists\. Pass overwrite=True"):
            cube.write(path)
        assert path.read_text() == "precious"
        cube.write(path, overwrite=True)
        assert_same_cube(DEMCube.read(path), cube)

    def test_an_error_half_way_leaves_no_half_file(self, cube, path, monkeypatch):
        def full_disc(self, name, **options):
            name.write_bytes(b"#ASDF 1.0.0")
            msg = "No space left on device"
            raise OSError(msg)

        path.write_text("precious")
        monkeypatch.setattr(asdf.AsdfFile, "write_to", full_disc)
        with pytest.raises(OSError, match="No space left"):
            cube.write(path, overwrite=True)
        assert [one.name for one in path.parent.iterdir()] == ["dem.asdf"]
        assert path.read_text() == "precious"


class TestReading:
    @pytest.mark.parametrize("share", [0.001, 0.02, 0.05, 0.3, 0.7, 0.99])
    @pytest.mark.parametrize("compress", [False, True])
    def test_truncated(self, cube, path, share, compress):
        cube.write(path, compress=compress)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ValueError, match=r"dem\.asdf (cannot be read as a DEM cube|is neither)"):
            DEMCube.read(path)

    @pytest.mark.parametrize("compress", [False, True])
    def test_damaged_arrays(self, cube, path, compress):
        cube.write(path, compress=compress)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"dem\.asdf cannot be read as a DEM cube"):
            DEMCube.read(path)

    def test_another_tree(self, path):
        asdf.AsdfFile({"sun": np.zeros(3)}).write_to(path)
        with pytest.raises(ValueError, match=r"dem\.asdf cannot be read.*a DEMCube under 'dem', found \['.*'sun'\]"):
            DEMCube.read(path)

    def test_it_is_not_read_in_chunks(self, cube, path):
        cube.write(path)
        with pytest.raises(ValueError, match="chunks is for FITS files only"):
            DEMCube.read(path, chunks="auto")

    def test_its_name_does_not_matter(self, cube, path):
        cube.write(path)
        renamed = path.rename(path.with_suffix(".fits"))
        assert_same_cube(DEMCube.read(renamed), cube)


@pytest.mark.parametrize("package", ["asdf", "asdf_astropy"])
def test_what_to_install(cube, path, monkeypatch, package):
    cube.write(path)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r'pip install "sunpy_deepem\[asdf\]"'):
        cube.write(path, overwrite=True)
    with pytest.raises(ImportError, match=r'pip install "sunpy_deepem\[asdf\]"'):
        DEMCube.read(path)
