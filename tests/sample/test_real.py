"""Tests of the packaged real Sun."""

from importlib import resources
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
import sunpy.map
from astropy.coordinates import SkyCoord
from sunpy.map import contains_full_disk
from sunpy.map.sources import AIAMap

from sunpy_deepem import CHANNELS, invert
from sunpy_deepem.calibrate.photometry import counts_uncertainty, native_pixels
from sunpy_deepem.sample import real_maps
from sunpy_deepem.units import SATURATION


@pytest.fixture(scope="module")
def maps():
    return real_maps()


@pytest.fixture(scope="module")
def synoptic(real_sun):
    """The files that the sample is made of, without their compression."""
    return [sunpy.map.Map(path) for path in sorted(real_sun.glob("*.fits"))]


@pytest.fixture(scope="module")
def binned(synoptic):
    return [smap.superpixel([4, 4] * u.pix, func=np.mean) for smap in synoptic]


def test_six_channels_in_order(maps):
    assert all(isinstance(smap, AIAMap) for smap in maps)
    assert [round(smap.wavelength.value) for smap in maps] == list(CHANNELS)
    assert {smap.data.shape for smap in maps} == {(256, 256)}
    assert all(contains_full_disk(smap) for smap in maps)


def test_size_of_files():
    folder = resources.files("sunpy_deepem.data") / "aia_20140101"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 700_000


def test_maps_need_the_usual_calibration(maps):
    stack_meta = invert(maps, shape=32).meta["provenance"]
    assert stack_meta["degradation"] == "data"
    assert all(1.9 < smap.exposure_time.to_value("s") < 3 for smap in maps)
    assert {smap.processing_level for smap in maps} == {1.5}
    assert max(smap.data.max() for smap in maps) < SATURATION


def test_cards_are_those_of_the_synoptic_files(maps, synoptic):
    for smap, source in zip(maps, synoptic, strict=True):
        assert smap.date == source.date
        assert smap.exposure_time == source.exposure_time
        assert smap.observer_coordinate.radius == source.observer_coordinate.radius
        assert smap.rsun_obs == source.rsun_obs


def test_pixels_lie_where_those_of_the_synoptic_files_lie(maps, synoptic):
    for smap, source in zip(maps, synoptic, strict=True):
        assert u.allclose(u.Quantity(smap.scale), 9.6 * u.arcsec / u.pix)
        # The first pixel covers pixels 0 to 3, whose center is 1.5
        for own, native in (([0, 0], [1.5, 1.5]), ([200, 17], [801.5, 69.5])):
            here, there = smap.wcs.pixel_to_world(*own), source.wcs.pixel_to_world(*native)
            assert here.separation(there) < 1e-6 * u.arcsec


def test_counts_are_means_within_a_fraction_of_the_noise(maps, binned):
    n_sample = native_pixels(u.Quantity(maps[0].scale))
    for smap, source in zip(maps, binned, strict=True):
        noise = counts_uncertainty(source.data, round(smap.wavelength.value), n_sample=n_sample)
        assert np.std(smap.data - source.data) < 0.03 * noise.min()
        assert np.abs((smap.data - source.data) / noise).max() < 0.05


def test_rounding_does_not_change_the_em(maps, binned):
    stored, exact = invert(maps), invert(binned)
    change = np.abs(stored.data - exact.data) / exact.uncertainty.array
    assert np.nanmedian(change) < 0.02
    assert np.nanpercentile(change, 99) < 0.3
    total, expected = stored.data.sum(axis=0), exact.data.sum(axis=0)
    assert np.nanmedian(np.abs(total / expected - 1)) < 0.004


def test_active_region_is_hot(maps):
    """AR 11936 is where the docstring says."""
    dem = invert(maps)
    hot = dem.data[dem.bins.edges[:-1] > 6.4].sum(axis=0) / dem.data.sum(axis=0)
    region = SkyCoord(600 * u.arcsec, -290 * u.arcsec, frame=maps[0].coordinate_frame)
    x, y = (round(float(each)) for each in maps[0].wcs.world_to_pixel(region))
    assert hot[y - 5 : y + 6, x - 5 : x + 6].mean() > 3 * np.nanmedian(hot[80:176, 80:176])


def test_tool_makes_the_packaged_files(tmp_path, real_sun, monkeypatch):
    monkeypatch.syspath_prepend(str(_tools()))
    from make_sample import make_sample

    make_sample(real_sun, tmp_path)
    for smap, path in zip(real_maps(), sorted(tmp_path.iterdir()), strict=True):
        again = sunpy.map.Map(path)
        np.testing.assert_array_equal(again.data, smap.data)
        assert dict(again.meta) == dict(smap.meta)


def test_tool_keeps_saturation(real_sun, monkeypatch):
    monkeypatch.syspath_prepend(str(_tools()))
    from make_sample import binned

    smap = sunpy.map.Map(next(real_sun.glob("*_0171.fits")))
    data = smap.data.copy()
    data[4, 4] = 16000
    coarse = binned(sunpy.map.Map(data, smap.meta))
    assert coarse.data[1, 1] == 16000
    assert (coarse.data >= SATURATION).sum() == 1


def _tools():
    folder = Path(__file__).parents[2] / "tools"
    if not folder.is_dir():
        pytest.skip("needs the tools folder of a checkout")
    return folder
