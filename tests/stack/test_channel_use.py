"""Bad pixels, saturation and channels that are not used."""

import numpy as np
import pytest
from helpers import (
    EXPOSURES,
    aia_map,
    changed,
    degradation_by_aiapy,
    noise_by_aiapy,
    random_counts,
    replaced,
    six,
)

from sunpy_deepem import CHANNELS, ChannelStack, Quality
from sunpy_deepem.sample import sample_maps
from sunpy_deepem.stack import Observation

N = 32


@pytest.fixture(scope="module")
def sample():
    return sample_maps((N, N))


class TestBadPixels:
    def spoiled(self, **pixels):
        """Maps with bad pixels in 171 Å."""
        counts = random_counts()
        bad = counts.copy()
        for value, where in pixels.items():
            bad[where] = {"nan": np.nan, "inf": np.inf, "full": 16383, "nearly": 14999, "negative": -3}[value]
        return replaced(six(counts), 171, lambda smap: changed(smap, data=bad))

    @pytest.mark.parametrize("value", ["nan", "inf"])
    def test_not_finite(self, value):
        stack = ChannelStack.from_maps(self.spoiled(**{value: (3, 5)}))
        assert np.argwhere(stack.quality & Quality.MISSING).tolist() == [[3, 5]]
        assert np.argwhere(stack.quality & Quality.PARTIAL).tolist() == [[3, 5]]
        assert np.argwhere(np.isnan(stack.intensity)).tolist() == [[2, 3, 5]]
        assert np.argwhere(~stack.usable).tolist() == [[2, 3, 5]]
        assert not stack.mask.any()

    def test_mask_of_a_map(self):
        mask = np.zeros((16, 16), dtype=bool)
        mask[7, 2] = True
        stack = ChannelStack.from_maps([aia_map(94, random_counts(), mask=mask), *six(random_counts())[1:]])
        assert np.argwhere(stack.quality & Quality.MISSING).tolist() == [[7, 2]]

    def test_saturated(self):
        stack = ChannelStack.from_maps(self.spoiled(full=(3, 5), nearly=(8, 8)))
        assert np.argwhere(stack.quality & Quality.SATURATED).tolist() == [[3, 5]]
        assert np.argwhere(~stack.usable).tolist() == [[2, 3, 5]]
        assert np.argwhere(stack.lower_limit).tolist() == [[2, 3, 5]]
        assert not stack.mask.any()

    def test_saturated_rates(self):
        rates = self.spoiled(full=(3, 5))
        rates = [changed(smap, data=smap.data / smap.meta["exptime"], bunit="DN / s") for smap in rates]
        assert np.argwhere(ChannelStack.from_maps(rates).quality & Quality.SATURATED).tolist() == [[3, 5]]

    def test_saturated_binned_pixel(self):
        stack = ChannelStack.from_maps(self.spoiled(full=(3, 5)), shape=4)
        assert np.argwhere(stack.quality & Quality.SATURATED).tolist() == [[0, 1]]
        assert np.argwhere(stack.lower_limit).tolist() == [[2, 0, 1]]

    def test_partly_missing_binned_pixel(self):
        maps = self.spoiled(nan=(slice(0, 2), 0))
        counts = maps[2].data[:4, :4]
        stack = ChannelStack.from_maps(maps, shape=4, degradation=None)
        assert not stack.mask.any()
        assert stack.intensity.value[2, 0, 0] == pytest.approx(np.nanmean(counts) / EXPOSURES[171], rel=1e-6)

    def test_mostly_missing_binned_pixel(self):
        stack = ChannelStack.from_maps(self.spoiled(nan=(slice(0, 4), slice(0, 3))), shape=4)
        assert np.argwhere(stack.quality & Quality.MISSING).tolist() == [[0, 0]]
        assert np.argwhere(~stack.usable).tolist() == [[2, 0, 0]]

    def test_negative_values(self):
        stack = ChannelStack.from_maps(self.spoiled(negative=(3, 5)), systematic=0, degradation=None)
        assert np.argwhere(stack.quality & Quality.NEGATIVE).tolist() == [[3, 5]]
        assert not stack.mask.any()
        assert stack.intensity.value[2, 3, 5] == pytest.approx(-3 / EXPOSURES[171])
        assert stack.uncertainty.value[2, 3, 5] == pytest.approx(
            noise_by_aiapy(0.0, 171, 16) / EXPOSURES[171], rel=1e-5
        )

    def test_low_signal(self):
        counts = np.zeros((6, 2, 2))
        counts[:2, 0, 0], counts[:3, 1, 1] = 100, 100
        stack = ChannelStack.from_maps(six(counts))
        np.testing.assert_array_equal((stack.quality & Quality.LOW_SIGNAL) != 0, [[True, True], [True, False]])


class TestChannelUse:
    """Each pixel uses the channels that are valid there."""

    @staticmethod
    def maps(values):
        """Maps with a value at row 3, column 5 of the channels given."""
        counts = np.stack([random_counts(seed=channel) for channel in CHANNELS])
        for channel, value in values.items():
            counts[CHANNELS.index(channel), 3, 5] = value
        return six(counts)

    @pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 6])
    @pytest.mark.parametrize("value", [np.nan, 16383])
    def test_mask_and_flags(self, n, value):
        stack = ChannelStack.from_maps(self.maps(dict.fromkeys(CHANNELS[:n], value)))
        assert np.count_nonzero(stack.usable[:, 3, 5]) == 6 - n
        assert stack.mask[3, 5] == (n > 3)
        assert bool(stack.quality[3, 5] & Quality.FEW_CHANNELS) == (n > 3)
        assert bool(stack.quality[3, 5] & Quality.PARTIAL) == (0 < n <= 3)
        assert np.count_nonzero(stack.mask) == (n > 3)

    @pytest.mark.parametrize("n", [1, 2, 6])
    def test_min_channels(self, n):
        maps = self.maps(dict.fromkeys(CHANNELS[:3], np.nan))
        assert ChannelStack.from_maps(maps, min_channels=n).mask[3, 5] == (n > 3)

    @pytest.mark.parametrize("n", [0, 7, "all", 2.5, None])
    def test_invalid_min_channels(self, n):
        with pytest.raises(ValueError, match="min_channels must be"):
            ChannelStack.from_maps(self.maps({}), min_channels=n)

    def test_limit(self):
        maps = self.maps({94: 16383, 193: 15000, 211: np.nan})
        stack = ChannelStack.from_maps(maps, degradation=None, systematic=0)
        assert np.argwhere(stack.lower_limit).tolist() == [[0, 3, 5], [3, 3, 5]]
        np.testing.assert_allclose(stack.limit[0, 3, 5].value, 16383 / EXPOSURES[94], rtol=1e-6)
        np.testing.assert_allclose(
            stack.uncertainty[0, 3, 5].value, noise_by_aiapy(16383, 94, 16)[()] / EXPOSURES[94], rtol=1e-5
        )
        intensity, lower_limit = stack.with_limits()
        np.testing.assert_array_equal(lower_limit, stack.lower_limit)
        assert np.isnan(intensity[:, 3, 5]).tolist() == [False] * 4 + [True, False]
        np.testing.assert_array_equal(intensity[stack.usable], stack.intensity.value[stack.usable])

    def test_no_limit(self):
        stack = ChannelStack.from_maps(self.maps({94: np.nan}))
        assert stack.limit is None
        assert not stack.lower_limit.any()
        assert stack.with_limits()[1] is None

    def test_other_pixels_are_unchanged(self):
        clean, spoiled = (ChannelStack.from_maps(self.maps(v)) for v in ({}, {94: np.nan, 131: 16383, 171: -3000}))
        same = np.ones((16, 16), dtype=bool)
        same[3, 5] = False
        for name in ("intensity", "uncertainty", "quality"):
            one, other = (getattr(stack, name)[..., same] for stack in (clean, spoiled))
            np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(clean.intensity[3:, 3, 5], spoiled.intensity[3:, 3, 5])

    def test_low_signal(self):
        counts = np.full((6, 4, 4), 100.0)
        counts[0], counts[1:3, 0], counts[3:, 1], counts[3:5, 2] = np.nan, np.nan, 0, 0
        stack = ChannelStack.from_maps(six(counts))
        assert ((stack.quality & Quality.LOW_SIGNAL) != 0).any(axis=1).tolist() == [False, True, False, False]

    def test_parts(self):
        maps = self.maps({94: 16383, 193: np.nan})
        observation, whole = Observation(maps), ChannelStack.from_maps(maps)
        part = observation.part(slice(2, 9), slice(4, 8))
        for name in ("intensity", "limit"):
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[:, 2:9, 4:8])
        np.testing.assert_array_equal(part.quality, whole.quality[2:9, 4:8])


class TestChannels:
    """Whole channels left out."""

    FIVE = (94, 131, 171, 193, 211)

    def test_missing_map(self, sample):
        with pytest.raises(ValueError, match=r"missing: 335 Å\. Pass channels=\(94, 131, 171, 193, 211\) to invert"):
            ChannelStack.from_maps(sample[:5])
        stack = ChannelStack.from_maps(sample[:5], channels=self.FIVE)
        assert stack.intensity.shape == (6, N, N)
        assert not stack.usable[5].any()
        assert not stack.mask.any()
        assert not (stack.quality & (Quality.PARTIAL | Quality.MISSING)).any()
        assert stack.meta["channels"] == list(self.FIVE)

    @pytest.mark.parametrize("channels", [FIVE, FIVE[::-1], set(FIVE)])
    def test_map_that_is_not_used(self, sample, channels):
        whole, stack = ChannelStack.from_maps(sample), ChannelStack.from_maps(sample, channels=channels)
        np.testing.assert_array_equal(stack.intensity[:5], whole.intensity[:5])
        np.testing.assert_array_equal(stack.uncertainty[:5], whole.uncertainty[:5])
        assert not stack.usable[5].any()

    def test_inputs(self, sample):
        inputs = ChannelStack.from_maps(sample, channels=self.FIVE).inputs
        assert [facts["channel"] for facts in inputs] == list(CHANNELS)
        assert np.isnan(inputs[5]["exposure_time"])
        assert inputs[5]["degradation"] == pytest.approx(degradation_by_aiapy(335))
        assert inputs[0].keys() == inputs[5].keys()

    def test_missing_requested_channel(self, sample):
        with pytest.raises(
            ValueError, match=r"one AIA map for each of \(94, 131, 171\) Å; found 2 maps, missing: 94 Å"
        ):
            ChannelStack.from_maps(sample[1:], channels=(94, 131, 171))

    @pytest.mark.parametrize("channels", [(94, 131), (94, 131, 304), 3, "all", (), (94, 94, 131)])
    def test_invalid_channels(self, sample, channels):
        with pytest.raises(ValueError, match="channels must be at least 3 of"):
            ChannelStack.from_maps(sample, channels=channels)
