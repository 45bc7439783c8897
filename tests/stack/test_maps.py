"""Selection of the maps of a stack."""

import astropy.units as u
import numpy as np
import pytest
import sunpy.map
from helpers import (
    aia_map,
    assert_same_stack,
    changed,
)

from sunpy_deepem import CHANNELS, ChannelStack
from sunpy_deepem.sample import sample_maps
from sunpy_deepem.units import INTENSITY_UNIT

N = 32


@pytest.fixture(scope="module")
def sample():
    return sample_maps((N, N))


@pytest.fixture(scope="module")
def files(sample, tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    for smap in sample:
        smap.save(folder / f"aia_{smap.wavelength.value:.0f}.fits")
    return folder


class TestMaps:
    def test_result(self, sample):
        stack = ChannelStack.from_maps(sample)
        assert stack.intensity.shape == stack.uncertainty.shape == (6, N, N)
        assert stack.intensity.unit == stack.uncertainty.unit == INTENSITY_UNIT
        assert stack.quality.shape == stack.mask.shape == (N, N)
        assert [one["channel"] for one in stack.inputs] == list(CHANNELS)
        assert "2014-01-01" in repr(stack)

    @pytest.mark.parametrize("order", [(5, 4, 3, 2, 1, 0), (3, 0, 5, 1, 4, 2)])
    def test_order(self, sample, order):
        assert_same_stack(ChannelStack.from_maps([sample[i] for i in order]), ChannelStack.from_maps(sample))

    @pytest.mark.parametrize("kind", [list, tuple, iter, lambda maps: (smap for smap in maps)])
    def test_containers(self, sample, kind):
        assert_same_stack(ChannelStack.from_maps(kind(list(sample))), ChannelStack.from_maps(sample))

    @pytest.mark.parametrize(
        "source",
        [
            lambda folder: folder,
            str,
            lambda folder: list(folder.iterdir()),
            lambda folder: [str(path) for path in folder.iterdir()],
            lambda folder: (path for path in folder.iterdir()),
            lambda folder: sunpy.map.Map(list(folder.iterdir()), sequence=True),
        ],
        ids=["folder", "folder as str", "paths", "paths as str", "generator", "sequence"],
    )
    def test_files(self, sample, files, source):
        assert_same_stack(ChannelStack.from_maps(source(files)), ChannelStack.from_maps(sample))

    def test_folder_with_other_files(self, sample, files, tmp_path):
        for path in files.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        (tmp_path / "notes.txt").write_text("a note")
        (tmp_path / "._aia_94.fits").write_bytes(b"a file of macOS")
        assert_same_stack(ChannelStack.from_maps(tmp_path), ChannelStack.from_maps(sample))

    def test_missing_channels(self, sample):
        with pytest.raises(ValueError, match=r"found 4 maps, missing: 94 Å, 335 Å\."):
            ChannelStack.from_maps(sample[1:5])

    def test_no_maps(self):
        with pytest.raises(ValueError, match="found 0 maps, missing: 94 Å"):
            ChannelStack.from_maps([])

    def test_repeated_channels(self, sample):
        with pytest.raises(ValueError, match=r"more than once: 171 Å \(2 maps\)"):
            ChannelStack.from_maps([*sample, sample[2]])

    def test_other_channels(self, sample):
        foreign = aia_map(304, sample[0].data)
        with pytest.raises(ValueError, match=r"foreign: AIA.* 304 Angstrom .*; missing: 94 Å"):
            ChannelStack.from_maps([foreign, *sample[1:]])

    def test_other_instruments(self, sample):
        hmi = changed(sample[0], instrume="HMI_FRONT2", telescop="SDO/HMI", content="MAGNETOGRAM", bunit="Gauss")
        with pytest.raises(ValueError, match=r"foreign: HMI.*missing: 94 Å"):
            ChannelStack.from_maps([hmi, *sample[1:]])

    def test_single_map(self, sample):
        with pytest.raises(TypeError, match=r"six maps, found a single AIA 3 171"):
            ChannelStack.from_maps(sample[2])

    @pytest.mark.parametrize(("maps", "found"), [(None, "NoneType"), (6, "int"), (np.ones((6, 4, 4)), "ndarray")])
    def test_other_types(self, maps, found):
        with pytest.raises(TypeError, match=f"found {found}"):
            ChannelStack.from_maps(maps)

    def test_other_items(self, sample):
        with pytest.raises(TypeError, match="must contain sunpy maps or paths of files, found dict"):
            ChannelStack.from_maps([*sample[:5], {"data": 1}])

    def test_missing_files(self, files, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"nowhere\.fits"):
            ChannelStack.from_maps([*files.iterdir(), tmp_path / "nowhere.fits"])
        with pytest.raises(FileNotFoundError, match="nowhere"):
            ChannelStack.from_maps(tmp_path / "nowhere")

    def test_empty_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="contains no FITS file"):
            ChannelStack.from_maps(tmp_path)

    def test_single_file(self, files):
        with pytest.raises(FileNotFoundError, match=r"aia_94\.fits, which is not a folder"):
            ChannelStack.from_maps(files / "aia_94.fits")

    @pytest.mark.parametrize("content", [b"", b"not FITS at all", b"SIMPLE  =                    T"])
    def test_unreadable_files(self, files, tmp_path, content):
        (tmp_path / "broken.fits").write_bytes(content)
        with pytest.raises(ValueError, match=r"broken\.fits cannot be read as a map"):
            ChannelStack.from_maps([*files.iterdir(), tmp_path / "broken.fits"])


class TestTimes:
    def test_span(self, sample):
        late = changed(sample[5], **{"date-obs": "2014-01-01T00:01:10", "t_obs": "2014-01-01T00:01:11"})
        with pytest.raises(ValueError, match=r"maps span 69\.9 s, more than max_time_span=60 s: 94 Å 2014-01-01T00"):
            ChannelStack.from_maps([*sample[:5], late])
        assert (
            ChannelStack.from_maps([*sample[:5], late], max_time_span=2 * u.min).inputs[5]["date"].endswith("01:10.000")
        )

    def test_unit_of_span(self, sample):
        with pytest.raises(TypeError, match="max_time_span"):
            ChannelStack.from_maps(sample, max_time_span=60)
