"""Preparation of level 1 maps, without downloads."""

import astropy.units as u
import numpy as np
import pytest
import sunpy.map
from aiapy import calibrate
from astropy.table import QTable
from astropy.time import Time
from helpers import aia_map, blob, centroid, changed, world_grid
from sunpy.map.mapbase import PixelPair
from sunpy.util.exceptions import SunpyUserWarning

from sunpy_deepem import ChannelStack, Quality, prepare
from sunpy_deepem.sample import sample_maps

N = 64


def level_1(channel=171, n=N, **cards):
    """A full disk with a blob, rolled and off-center."""
    scale = 2457.6 / n
    smap = aia_map(channel, np.zeros((n, n)), scale=scale, lvl_num=1, crota2=10.0, crpix1=n / 2 + 2, **cards)
    x, y = world_grid(smap)
    return changed(smap, data=100 + 1000 * blob(x, y, (300, 400), 100))


def test_register():
    (prepared,) = prepare([level_1()], register=True)
    assert prepared.processing_level == 1.5
    assert prepared.rotation_matrix == pytest.approx(np.eye(2), abs=1e-6)
    x, y = world_grid(prepared)
    assert centroid(np.nan_to_num(prepared.data - 100).clip(0), x, y) == pytest.approx((300, 400), abs=20)


def test_no_steps():
    smap = level_1()
    (prepared,) = prepare(smap)
    assert prepared is smap


def test_sequence_of_maps():
    maps = sample_maps((16, 16))
    prepared = prepare(maps)
    assert [smap.wavelength for smap in prepared] == [smap.wavelength for smap in maps]


def test_level_1_5_is_unchanged():
    maps = list(sample_maps((32, 32)))
    assert prepare(maps) == maps
    with pytest.warns(SunpyUserWarning, match="skipping pointing, spikes"):
        assert prepare(maps[:1], pointing=QTable(), spikes=True) == maps[:1]


def test_order_of_steps(monkeypatch):
    done = []

    def step(name):
        def record(smap, **options):
            done.append(name)
            return smap

        return record

    monkeypatch.setattr(calibrate, "update_pointing", step("pointing"))
    monkeypatch.setattr(calibrate, "fetch_spikes", lambda smap: "spikes of " + str(smap.wavelength.value))
    monkeypatch.setattr(calibrate, "respike", step("spikes"))
    monkeypatch.setattr(calibrate, "register", step("register"))
    monkeypatch.setattr("aiapy.psf.deconvolve", step("psf"))
    monkeypatch.setattr("sunpy_deepem.calibrate.preparation._NATIVE_SHAPE", (N, N))
    prepare([level_1()], pointing=QTable(), spikes=True, psf={171: np.ones((N, N))}, register=True)
    assert done == ["pointing", "spikes", "psf", "register"]


def spikes_at(*pixels):
    """Spikes as aiapy returns them for (y, x); positions in cutouts are not exactly whole."""
    y, x = np.transpose(pixels) + 1e-7
    return PixelPair(x * u.pix, y * u.pix), np.full(len(pixels), 9000)


def test_spikes_are_restored_or_masked(monkeypatch):
    monkeypatch.setattr(calibrate, "fetch_spikes", lambda smap: spikes_at((10, 20), (63, 0)))
    smap = level_1(nspikes=2)
    with pytest.warns(UserWarning, match="plate scale"):
        (restored,) = prepare([smap], spikes=True)
    assert restored.data[10, 20] == restored.data[63, 0] == 9000
    assert restored.mask is None
    (masked,) = prepare([smap], spikes="mask")
    assert np.argwhere(masked.mask).tolist() == [[10, 20], [63, 0]]
    np.testing.assert_array_equal(masked.data, smap.data)
    mask = smap.data > 1000
    (both,) = prepare([sunpy.map.Map(smap.data, smap.meta, mask=mask)], spikes="mask")
    np.testing.assert_array_equal(both.mask, mask | masked.mask)


def test_masked_spike_leaves_out_its_channel_only(monkeypatch):
    monkeypatch.setattr(calibrate, "fetch_spikes", lambda smap: spikes_at((10, 20)))
    maps = [changed(smap, lvl_num=1, cdelt1=0.6, cdelt2=0.6) for smap in sample_maps((32, 32))]
    maps[2] = prepare([maps[2]], spikes="mask")[0]
    with pytest.warns(SunpyUserWarning, match="level 1 and not full-disk"):
        stack = ChannelStack.from_maps(maps)
    assert np.argwhere(~stack.usable).tolist() == [[2, 10, 20]]
    assert stack.quality[10, 20] & Quality.PARTIAL


def test_pointing_covers_the_times_of_the_maps(monkeypatch):
    requested = {}

    def table(source, *, time_range):
        requested.update(source=source, time_range=time_range)
        return "the table"

    monkeypatch.setattr("sunpy_deepem.calibrate.preparation.get_pointing_table", table)
    monkeypatch.setattr(
        calibrate, "update_pointing", lambda smap, *, pointing_table: requested.update(given=pointing_table) or smap
    )
    late = {"date-obs": "2014-01-01T00:00:12"}
    prepare([level_1(), level_1(193, **late)], pointing="jsoc")
    assert requested["source"] == "jsoc"
    assert requested["given"] == "the table"
    assert requested["time_range"] == (Time("2014-01-01T00:00:00"), Time("2014-01-01T00:00:12"))


@pytest.mark.parametrize("option", [{"pointing": True}, {"spikes": True}])
def test_failed_download(monkeypatch, option):
    def fails(*args, **kwargs):
        raise OSError("unreachable")

    monkeypatch.setattr("sunpy_deepem.calibrate.preparation.get_pointing_table", fails)
    monkeypatch.setattr(calibrate, "fetch_spikes", fails)
    with pytest.raises(ConnectionError, match=r"unreachable.*Without a network pass"):
        prepare([level_1()], **option)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"pointing": "nasa"}, "pointing must be"),
        ({"psf": True}, "psf needs a full frame"),
        ({"spikes": "restore"}, "spikes must be True, False or 'mask'"),
        ({"spikes": "mask", "register": True}, "spikes='mask' and register=True exclude each other"),
    ],
)
def test_invalid_options(option, message):
    with pytest.raises(ValueError, match=message):
        prepare([level_1()], **option)


def test_psf_of_another_channel(monkeypatch):
    monkeypatch.setattr("sunpy_deepem.calibrate.preparation._NATIVE_SHAPE", (N, N))
    with pytest.raises(ValueError, match=r"point spread function of 171 Å, found \[193\]"):
        prepare([level_1()], psf={193: np.ones((N, N))})


def test_other_types():
    with pytest.raises(TypeError, match="maps must contain AIA maps, found str"):
        prepare(["aia.fits"])
    assert prepare([]) == []


def test_cutouts_are_not_registered():
    part = level_1().submap([10, 10] * u.pix, top_right=[30, 30] * u.pix)
    assert prepare([part], register=True)[0].processing_level == 1
