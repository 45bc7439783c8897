"""Binning of a stack."""

import numpy as np
import pytest
import sunpy.map
from helpers import EXPOSURES, aia_map, blob, centroid, random_counts, six, world_grid

from sunpy_deepem import ChannelStack


class TestBinning:
    @pytest.mark.parametrize("size", [2, 4, 8])
    def test_whole_factors(self, size):
        counts = random_counts()
        n = 16 // size
        stack = ChannelStack.from_maps(six(counts), shape=n, degradation=None)
        blocks = counts.reshape(n, size, n, size).mean(axis=(1, 3))
        np.testing.assert_allclose(stack.intensity.value[0], blocks / EXPOSURES[94], rtol=1e-6)

    @pytest.mark.parametrize("shape", [5, 7, 11, 15, (3, 13), (16, 5)])
    def test_other_factors(self, shape):
        counts = random_counts()
        stack = ChannelStack.from_maps(six(counts), shape=shape, degradation=None)
        assert stack.intensity.shape[1:] == (shape if isinstance(shape, tuple) else (shape, shape))
        np.testing.assert_allclose(stack.intensity.value[0].mean(dtype=float) * EXPOSURES[94], counts.mean(), rtol=1e-6)

    def test_area_weighted_mean(self):
        counts = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], dtype=float)
        stack = ChannelStack.from_maps(six(counts, exptime=1), shape=2, degradation=None)
        corner = (1 + 2 / 2 + 4 / 2 + 5 / 4) / 2.25
        np.testing.assert_allclose(stack.intensity.value[0], [[corner, corner + 4 / 3], [corner + 4, corner + 16 / 3]])

    def test_default_shape(self):
        assert ChannelStack.from_maps(six(np.full((1024, 1024), 100, np.float32))).quality.shape == (512, 512)

    @pytest.mark.parametrize("shape", [None, 16, 512, np.int64(4096), (16, 16)])
    def test_no_upsampling(self, shape):
        counts = random_counts()
        stack = ChannelStack.from_maps(six(counts), shape=shape, degradation=None)
        np.testing.assert_allclose(stack.intensity.value[0], counts / EXPOSURES[94], rtol=1e-6)

    @pytest.mark.parametrize("shape", [(32, 16), (16, 17)])
    def test_larger_shape(self, shape):
        with pytest.raises(ValueError, match=r"is larger than the maps' \(16, 16\); maps are never upsampled"):
            ChannelStack.from_maps(six(random_counts()), shape=shape)

    @pytest.mark.parametrize("shape", [0, -4, 2.5, (8,), (8, 8, 8), (0, 8), "half", True, (4.5, 4)])
    def test_invalid_shapes(self, shape):
        with pytest.raises(ValueError, match="shape must be None, a positive whole number or"):
            ChannelStack.from_maps(six(random_counts()), shape=shape)

    @pytest.mark.parametrize(("native", "shape"), [((24, 16), (12, 8)), ((10, 40), (3, 12)), ((1, 30), (1, 12))])
    def test_longer_side(self, native, shape):
        assert ChannelStack.from_maps(six(random_counts(native)), shape=12).quality.shape == shape

    @pytest.mark.parametrize("shape", [32, 21, (16, 32), (13, 27)])
    @pytest.mark.parametrize("cards", [{}, {"crota2": 30.0}, {"crpix1": 3.2, "crpix2": 80.0, "crval1": 400.0}])
    def test_positions(self, shape, cards):
        empty = aia_map(94, np.zeros((64, 64)), scale=9.6, **cards)
        x, y = world_grid(empty)
        center = x[20, 40], y[20, 40]
        counts = 1000 * blob(x, y, center, 60)
        stack = ChannelStack.from_maps(six(counts, scale=9.6, **cards), shape=shape, degradation=None)
        binned = sunpy.map.Map(stack.intensity.value[0], stack.header)
        np.testing.assert_allclose(centroid(binned.data, *world_grid(binned)), centroid(counts, x, y), atol=0.3)

    def test_corners(self):
        maps = six(random_counts((20, 30)), crota2=20.0, crval1=-300.0)
        stack = ChannelStack.from_maps(maps, shape=(7, 11))
        before = maps[0].wcs.wcs_pix2world([[-0.5, -0.5], [29.5, -0.5], [29.5, 19.5]], 0)
        after = stack.wcs.wcs_pix2world([[-0.5, -0.5], [10.5, -0.5], [10.5, 6.5]], 0)
        np.testing.assert_allclose(after, before, rtol=0, atol=1e-3 / 3600)

    def test_missing_pixels_are_left_out(self):
        counts = random_counts()
        counts[0, 1] = np.nan
        counts[4:6, 6:8] = [[np.nan, np.nan], [np.nan, 500]]
        stack = ChannelStack.from_maps(six(counts), shape=8, degradation=None)
        expected = np.nanmean(counts.reshape(8, 2, 8, 2), axis=(1, 3)) / EXPOSURES[94]
        # Less than half of it is known.
        expected[2, 3] = np.nan
        np.testing.assert_allclose(stack.intensity.value[0], expected, rtol=1e-6)
