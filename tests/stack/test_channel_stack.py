"""Calibration of a stack: exposure, noise and degradation."""

import threading

import numpy as np
import pytest
from astropy.nddata import StdDevUncertainty
from astropy.time import Time
from helpers import (
    EXPOSURES,
    assert_same_stack,
    changed,
    degradation_by_aiapy,
    noise_by_aiapy,
    random_counts,
    replaced,
    six,
)

from sunpy_deepem import CHANNELS, ChannelStack
from sunpy_deepem.calibrate import correction_table, photometry
from sunpy_deepem.calibrate.tables import packaged_table
from sunpy_deepem.sample import sample_maps
from sunpy_deepem.utils.compat import get_error_table

N = 32
OBSTIME = Time("2014-01-01")


@pytest.fixture(scope="module")
def sample():
    return sample_maps((N, N))


class TestExposure:
    def test_counts(self):
        counts = random_counts()
        stack = ChannelStack.from_maps(six(counts), degradation=None)
        for image, channel in zip(stack.intensity.value, CHANNELS, strict=True):
            np.testing.assert_allclose(image, counts / EXPOSURES[channel], rtol=1e-6)

    @pytest.mark.parametrize("unit", ["DN / s", "ct / s", "DN / (s pix)", "1 / s"])
    def test_rates(self, unit):
        counts = random_counts((6, 16, 16))
        rates = counts / np.array(list(EXPOSURES.values()), dtype=np.float32)[:, np.newaxis, np.newaxis]
        from_counts, from_rates = ChannelStack.from_maps(six(counts)), ChannelStack.from_maps(six(rates, bunit=unit))
        np.testing.assert_allclose(from_rates.intensity, from_counts.intensity, rtol=1e-6)
        # Noise is estimated from counts.
        np.testing.assert_allclose(from_rates.uncertainty, from_counts.uncertainty, rtol=1e-5)

    def test_rates_of_sunpy(self, sample):
        rates = [smap / smap.exposure_time for smap in sample]
        np.testing.assert_allclose(
            ChannelStack.from_maps(rates).intensity, ChannelStack.from_maps(sample).intensity, rtol=1e-6
        )

    @pytest.mark.parametrize("unit", ["DN", "ct", "DN / pix", "", None])
    def test_units_of_counts(self, unit):
        counts = random_counts()
        assert_same_stack(ChannelStack.from_maps(six(counts, bunit=unit)), ChannelStack.from_maps(six(counts)))

    @pytest.mark.parametrize("unit", ["erg / (cm2 s)", "photon", "DN s", "K"])
    def test_unknown_units(self, sample, unit):
        with pytest.raises(ValueError, match=r"AIA 2 193.* map is in .*; expected DN, or DN / s"):
            ChannelStack.from_maps(replaced(sample, 193, lambda smap: changed(smap, bunit=unit)))

    @pytest.mark.parametrize("exposure", [0.0, -1.0, None])
    def test_invalid_exposure_time(self, sample, exposure):
        with pytest.raises(ValueError, match="AIA 2 193 Å map: EXPTIME must be a positive exposure time, found"):
            ChannelStack.from_maps(replaced(sample, 193, lambda smap: changed(smap, exptime=exposure)))

    def test_longer_exposure(self):
        counts = random_counts()
        once, twice = (
            six(counts),
            [changed(smap, data=2 * counts, exptime=2 * smap.meta["exptime"]) for smap in six(counts)],
        )
        once, twice = ChannelStack.from_maps(once, systematic=0), ChannelStack.from_maps(twice, systematic=0)
        np.testing.assert_allclose(twice.intensity, once.intensity, rtol=1e-6)
        assert (twice.uncertainty < once.uncertainty).all()

    def test_integers(self):
        counts = random_counts().astype(np.int16)
        assert_same_stack(ChannelStack.from_maps(six(counts)), ChannelStack.from_maps(six(counts.astype(float))))


class TestNoise:
    @pytest.mark.parametrize(("scale", "n_sample"), [(0.6, 1), (2.4, 16), (4.8, 64)])
    def test_native_pixels(self, scale, n_sample):
        counts = random_counts()
        stack = ChannelStack.from_maps(six(counts, scale=scale), systematic=0, degradation=None)
        assert stack.meta["native_pixels"] == pytest.approx(n_sample)
        for sigma, channel in zip(stack.uncertainty.value, CHANNELS, strict=True):
            np.testing.assert_allclose(sigma, noise_by_aiapy(counts, channel, n_sample) / EXPOSURES[channel], rtol=1e-5)

    def test_binned_with_systematic_error_and_degradation(self):
        counts = random_counts()
        stack = ChannelStack.from_maps(six(counts), systematic=0.2, shape=8)
        binned = counts.reshape(8, 2, 8, 2).mean(axis=(1, 3))
        for g, sigma, channel in zip(stack.intensity.value, stack.uncertainty.value, CHANNELS, strict=True):
            divisor = EXPOSURES[channel] * degradation_by_aiapy(channel)
            np.testing.assert_allclose(g, binned / divisor, rtol=1e-5)
            expected = np.hypot(noise_by_aiapy(binned, channel, 64) / divisor, 0.2 * binned / divisor)
            np.testing.assert_allclose(sigma, expected, rtol=1e-5)

    def test_finer_than_native(self):
        assert ChannelStack.from_maps(six(random_counts(), scale=0.3)).meta["native_pixels"] == 1

    @pytest.mark.parametrize("systematic", [-0.1, 1.0, np.nan, "ten", None])
    def test_invalid_systematic(self, sample, systematic):
        with pytest.raises(ValueError, match="systematic must be a fraction"):
            ChannelStack.from_maps(sample, systematic=systematic)

    def test_own_uncertainty(self):
        counts, sigma = random_counts(), random_counts(seed=2, mean=20)
        maps = six(counts, uncertainty=StdDevUncertainty(sigma))
        stack = ChannelStack.from_maps(maps, systematic=0, degradation=None)
        np.testing.assert_allclose(stack.uncertainty[0].value, sigma / EXPOSURES[94], rtol=1e-6)
        assert all(one["own_uncertainty"] for one in stack.inputs)

    def test_unit_of_own_uncertainty(self):
        counts, sigma = random_counts(), random_counts(seed=2, mean=20)
        maps = six(counts / 2, uncertainty=StdDevUncertainty(sigma / 2), bunit="DN / s", exptime=2)
        stack = ChannelStack.from_maps(maps, systematic=0, degradation=None)
        np.testing.assert_allclose(stack.uncertainty.value[0], sigma / 2, rtol=1e-6)

    @pytest.mark.parametrize("shape", [8, 4])
    def test_binned_own_uncertainty(self, shape):
        maps = six(random_counts(), uncertainty=StdDevUncertainty(np.full((16, 16), 12.0)))
        stack = ChannelStack.from_maps(maps, shape=shape, systematic=0, degradation=None)
        np.testing.assert_allclose(stack.uncertainty.value[2], 12 / (16 / shape) / EXPOSURES[171], rtol=1e-6)

    def test_pixel_without_sigma(self):
        sigma = np.full((16, 16), 12.0)
        sigma[3, 4], sigma[5, 6] = np.nan, 0
        maps = six(random_counts(), uncertainty=StdDevUncertainty(sigma))
        stack = ChannelStack.from_maps(maps, systematic=0)
        assert np.argwhere(stack.mask).tolist() == [[3, 4], [5, 6]]
        assert (stack.uncertainty[:, ~stack.mask] > 0).all()


class TestDegradation:
    @pytest.mark.parametrize("obstime", ["2010-09-01", "2014-01-01", "2020-06-01"])
    def test_same_as_aiapy(self, obstime):
        maps = six(random_counts(), **{"date-obs": obstime})
        corrected, raw = ChannelStack.from_maps(maps), ChannelStack.from_maps(maps, degradation=None)
        for index, channel in enumerate(CHANNELS):
            expected = degradation_by_aiapy(channel, Time(obstime))
            np.testing.assert_allclose(corrected.intensity[index], raw.intensity[index] / expected, rtol=1e-6)
            np.testing.assert_allclose(corrected.uncertainty[index], raw.uncertainty[index] / expected, rtol=1e-5)
            assert corrected.inputs[index]["degradation"] == pytest.approx(expected)
            assert raw.inputs[index]["degradation"] == 1
        assert (corrected.meta["degradation"], raw.meta["degradation"]) == ("data", None)

    @pytest.mark.parametrize("epoch", [Time("2012-05-01"), "2012-05-01"])
    def test_epoch(self, epoch):
        stack = ChannelStack.from_maps(six(random_counts()), epoch=epoch)
        for one in stack.inputs:
            expected = degradation_by_aiapy(one["channel"]) / degradation_by_aiapy(one["channel"], Time(epoch))
            assert one["degradation"] == pytest.approx(expected)
        assert stack.meta["epoch"].startswith("2012-05-01")

    def test_epoch_of_the_observation(self):
        stack = ChannelStack.from_maps(six(random_counts()), epoch=OBSTIME)
        assert [one["degradation"] for one in stack.inputs] == pytest.approx([1] * 6)

    def test_given_table(self, sample):
        table = correction_table()[0]
        stack = ChannelStack.from_maps(sample, correction_table=table)
        assert_same_stack(stack, ChannelStack.from_maps(sample))
        assert stack.meta["correction_table"] == "table given by the user"

    def test_before_launch(self):
        with pytest.raises(ValueError, match="2009-01-01"):
            ChannelStack.from_maps(six(random_counts(), **{"date-obs": "2009-01-01"}))


def test_hash(sample):
    stack = ChannelStack.from_maps(sample)
    assert len({stack, stack, ChannelStack.from_maps(sample)}) == 2


def test_real_sun(real_sun):
    stack = ChannelStack.from_maps(real_sun)
    assert stack.intensity.shape == (6, 512, 512)
    assert stack.meta["native_pixels"] == pytest.approx(64, rel=0.01)
    assert stack.mask.mean() < 0.01
    assert [round(one["degradation"], 3) for one in stack.inputs] == [0.914, 0.752, 0.876, 0.887, 0.825, 0.443]
    disc = np.median(stack.intensity.value[:, 200:300, 200:300], axis=(1, 2))
    assert CHANNELS[disc.argmin()] == 94
    assert CHANNELS[disc.argmax()] in (171, 193)


def test_error_table_is_read_by_one_thread(sample, monkeypatch):
    """aiapy silences warnings while reading, which is not thread-safe."""
    threads = []

    def read(path):
        threads.append(threading.current_thread())
        return get_error_table(path)

    packaged_table.cache_clear()
    monkeypatch.setattr(photometry, "get_error_table", read)
    ChannelStack.from_maps(sample)
    assert threads == [threading.main_thread()]
