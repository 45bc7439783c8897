"""Stacks of flares, calibration errors, misalignment and degradation."""

import socket

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import StdDevUncertainty
from astropy.time import Time
from helpers import aia_map, changed, six
from sunpy.util.exceptions import SunpyUserWarning

from sunpy_deepem import CHANNELS, ChannelStack, Quality, TemperatureResponse, invert
from sunpy_deepem.sample import sample_maps

N = 32


@pytest.fixture(scope="module")
def sun():
    return list(sample_maps((128, 128)))


@pytest.fixture(scope="module")
def maps():
    return sample_maps((N, N), obstime="2014-01-01")


def counts_with(run, column=7, start=10, n=N):
    """Quiet counts with a run of saturated pixels along a column."""
    counts = np.full((n, n), 300.0)
    counts[start : start + run, column] = 16383
    return counts


class TestSaturation:
    def test_fraction_of_native_pixels(self):
        counts = np.full((8, 8), 300.0)
        counts[0, 0] = counts[1, 2] = counts[1, 3] = 16000
        images = [counts if channel == 193 else np.full((8, 8), 300.0) for channel in CHANNELS]
        stack = ChannelStack.from_maps(six(images), shape=4)
        np.testing.assert_allclose(stack.saturation[0], [0.25, 0.5, 0, 0])
        assert (stack.quality[0, :2] & Quality.SATURATED).all()
        assert not (stack.quality[1:] & Quality.SATURATED).any()

    def test_saturation_of_a_cube(self):
        maps = list(sample_maps((N, N)))
        maps[3].data[5, 6] = 16000
        dem = invert(maps)
        assert dem.saturation[5, 6] == 1
        assert dem[:, 5:6, 6:9].saturation.tolist() == [[1, 0, 0]]

    def test_blooming(self):
        images = [counts_with(run=6) if channel in (193, 211) else np.full((N, N), 300.0) for channel in CHANNELS]
        stack = ChannelStack.from_maps(six(images), degradation=None)
        expected = [[y, 7] for y in range(4, 22)]
        assert np.argwhere(stack.quality & Quality.BLOOMING).tolist() == expected
        assert stack.usable[:, 4, 7].tolist() == [True, True, True, False, False, True]
        assert not stack.lower_limit.any()
        assert not stack.usable[3:5, 10:16, 7].any()
        assert stack.usable[:, 4, 6].all()

    def test_bloomed_channels_are_used_if_too_few_others_remain(self):
        stack = ChannelStack.from_maps(six(counts_with(run=6)), degradation=None)
        assert stack.quality[4, 7] & Quality.BLOOMING
        assert stack.usable[:, 4, 7].all()
        assert not stack.mask[4, 7]
        assert stack.mask[12, 7]

    def test_no_blooming_of_a_short_run(self):
        stack = ChannelStack.from_maps(six(counts_with(run=4)), degradation=None)
        assert not (stack.quality & Quality.BLOOMING).any()

    def test_no_blooming_along_rows(self):
        stack = ChannelStack.from_maps(six(counts_with(run=6).T), degradation=None)
        assert not (stack.quality & Quality.BLOOMING).any()

    def test_blooming_at_the_edge(self):
        stack = ChannelStack.from_maps(six(counts_with(run=8, start=N - 8)), degradation=None)
        rows = np.flatnonzero(stack.quality[:, 7] & Quality.BLOOMING)
        assert rows.tolist() == list(range(N - 16, N))

    def test_short_exposures(self):
        # The intensity is the same, with a larger error.
        long, short = six(np.full((4, 4), 2000.0), exptime=2.0), six(np.full((4, 4), 20.0), exptime=0.02)
        one, other = (ChannelStack.from_maps(maps, systematic=0, degradation=None) for maps in (long, short))
        np.testing.assert_allclose(one.intensity, other.intensity)
        assert (other.uncertainty > 5 * one.uncertainty).all()


class TestNoise:
    @pytest.mark.parametrize("option", [{"calibration_error": "eve"}, {"calibration_error": "preflight"}])
    def test_calibration_and_chianti_errors(self, option):
        maps = six(np.full((4, 4), 5000.0))
        plain = ChannelStack.from_maps(maps, systematic=0)
        more = ChannelStack.from_maps(maps, systematic=0, chianti_error=True, **option)
        # NOTE: SolarSoft's error table V3: CHIANTI, and calibration by EVE or before launch.
        chianti = np.array([0.5, 0.5, 0.25, 0.25, 0.25, 0.25])
        eve = np.array([0.087, 0.051, 0.019, 0.014, 0.019, 0.097])
        calibration = eve if option["calibration_error"] == "eve" else np.full(6, 0.25)
        extra = np.hypot(chianti, calibration)[:, None, None] * plain.intensity
        np.testing.assert_allclose(more.uncertainty, np.hypot(plain.uncertainty, extra), rtol=1e-5)

    def test_common_error(self):
        maps = six(np.full((4, 4), 5000.0))
        stack = ChannelStack.from_maps(maps, systematic=0.2, chianti_error=True, calibration_error="preflight")
        chianti = np.array([0.5, 0.5, 0.25, 0.25, 0.25, 0.25])
        np.testing.assert_allclose(stack.meta["common_error"], np.sqrt(0.2**2 + 0.25**2 + chianti**2), rtol=1e-6)

    def test_common_error_of_maps_with_uncertainty(self):
        maps = six(np.full((4, 4), 5000.0), uncertainty=StdDevUncertainty(np.ones((4, 4))))
        stack = ChannelStack.from_maps(maps, systematic=0.2, chianti_error=True)
        assert stack.meta["common_error"] == [0.2] * 6

    def test_pixel_error(self):
        plain, more = (ChannelStack.from_maps(six(np.full((4, 4), 5000.0)), pixel_error=error) for error in (0, 0.3))
        np.testing.assert_allclose(more.uncertainty, np.hypot(plain.uncertainty, 0.3 * plain.intensity), rtol=1e-5)
        assert more.meta["common_error"] == plain.meta["common_error"] == [0.1] * 6

    def test_invalid_calibration_error(self):
        with pytest.raises(ValueError, match="calibration_error must be None"):
            ChannelStack.from_maps(six(np.ones((4, 4))), calibration_error="mine")


class TestMisalignment:
    def test_aligned_channels(self, sun):
        misalignment = ChannelStack.from_maps(sun).meta["misalignment"]
        assert list(misalignment) == [str(channel) for channel in CHANNELS]
        # A pixel has 19.2 arcsec.
        assert np.abs([shift for shift in misalignment.values() if shift is not None]).max() < 6

    def test_shifted_channel(self, sun):
        moved = [changed(smap, data=np.roll(smap.data, (0, 3), (0, 1))) for smap in sun[4:5]]
        with pytest.warns(SunpyUserWarning, match="shifted relative to 193 Å by more than a pixel: 211 Å"):
            stack = ChannelStack.from_maps([*sun[:4], *moved, sun[5]])
        assert stack.meta["misalignment"]["211"] == pytest.approx([3 * 19.2, 0], abs=6)

    def test_small_cutouts(self):
        misalignment = ChannelStack.from_maps(six(np.ones((8, 8)))).meta["misalignment"]
        assert set(misalignment.values()) == {None}


class TestDegradation:
    def test_degraded_response(self, maps):
        in_data = ChannelStack.from_maps(maps, systematic=0.1)
        in_response = invert(maps, degradation="response", method="basis-pursuit")
        response = in_response.response
        assert Time(response.meta["obstime"]).isot.startswith("2014-01-01")
        assert in_response.meta["provenance"]["degradation"] == "response"
        at_launch = TemperatureResponse.default()
        ratio = (response.matrix / at_launch.matrix).value[:, 5]
        raw = ChannelStack.from_maps(maps, degradation="response")
        np.testing.assert_allclose(raw.intensity, in_data.intensity * ratio[:, None, None], rtol=1e-5)

    def test_response_of_the_network_differs(self, maps):
        with pytest.raises(ValueError, match=r"pass method='basis-pursuit', or train weights for this one"):
            invert(maps, degradation="response")

    def test_uncorrected_data_with_another_response(self, maps):
        with pytest.raises(ValueError, match="not corrected, but response holds for launch"):
            invert(maps, degradation="response", response=TemperatureResponse.default())
        with pytest.raises(ValueError, match="not corrected, but response holds for 2012"):
            invert(maps, degradation="response", response=TemperatureResponse.default(obstime="2012-01-01"))

    def test_corrected_data_with_degraded_response(self, maps):
        stack = ChannelStack.from_maps(maps)
        with pytest.raises(ValueError, match="corrected for degradation to launch, but response holds for 2014"):
            invert(stack, response=TemperatureResponse.default(obstime="2014-01-01"))

    def test_epoch_of_the_response(self, maps):
        dem = invert(maps, response=TemperatureResponse.default(obstime="2014-01-01"), method="basis-pursuit")
        assert dem.meta["provenance"]["epoch"].startswith("2014-01-01")

    def test_no_correction(self, maps):
        dem = invert(maps, degradation=None)
        assert dem.meta["provenance"]["degradation"] is None
        assert {facts["degradation"] for facts in dem.inputs} == {1.0}

    def test_invalid_degradation(self, maps):
        with pytest.raises(ValueError, match="degradation must be 'data', 'response' or None"):
            ChannelStack.from_maps(maps, degradation="both")


def test_no_network_is_needed(monkeypatch, tmp_path):
    def forbidden(*args, **kwargs):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", forbidden)
    monkeypatch.setattr(socket, "getaddrinfo", forbidden)
    monkeypatch.setattr(socket, "create_connection", forbidden)
    dem = invert(sample_maps((N, N)))
    dem.write(tmp_path / "dem.fits")
    assert len(dem.synthesize().maps) == 6
    assert dem.meta["provenance"]["correction_table"].startswith("packaged")
    assert dem.response.meta["origin"].startswith("packaged")


def test_zero_exposure():
    maps = six(np.ones((4, 4)))
    maps[2] = aia_map(171, np.ones((4, 4)), exptime=0)
    with pytest.raises(ValueError, match=r"171 Å map: EXPTIME must be a positive exposure time, found 0"):
        ChannelStack.from_maps(maps, max_time_span=1 * u.s)


def test_noise_of_a_partly_missing_binned_pixel():
    counts = np.full((8, 8), 400.0)
    counts[0, :2] = np.nan
    whole, part = (ChannelStack.from_maps(six(c), shape=2, systematic=0) for c in (np.full((8, 8), 400.0), counts))
    ratio = (part.uncertainty / whole.uncertainty).value
    # 14 of 16 pixels are valid; the dark noise does not average.
    assert ratio[:, 0, 0] == pytest.approx(np.full(6, np.sqrt(16 / 14)), rel=0.02)
    np.testing.assert_allclose(ratio[:, 1], 1)


def test_synthetic_maps(maps):
    synthetic = invert(maps).synthesize()
    with pytest.raises(ValueError, match=r"are synthetic.*Pass degradation=None"):
        invert(synthetic)
    again = invert(synthetic, degradation=None)
    assert np.median(again.chi2) < 0.5
