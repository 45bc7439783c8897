"""From maps to a cube and back."""

from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.coordinates import SkyCoord
from helpers import changed, true_cube
from sunpy.util.exceptions import SunpyUserWarning

from sunpy_deepem import (
    CHANNELS,
    ChannelStack,
    DeepEM,
    DEMCube,
    LogTBins,
    Quality,
    TemperatureResponse,
    invert,
)
from sunpy_deepem.sample import sample_em, sample_maps, sample_regions

N = 32


def frame_of(dem):
    return dem.observed_maps()[0].coordinate_frame


@pytest.fixture(scope="module")
def small():
    return sample_maps((N, N))


@pytest.fixture(scope="module")
def dem(small):
    return invert(small)


class TestRoundTrip:
    def test_synthetic_maps_are_like_the_observed(self, cube):
        for synthetic, observed, channel in zip(cube.synthesize(), cube.intensity.value, CHANNELS, strict=True):
            off = np.median(np.abs(synthetic.data / observed - 1))
            assert off < 0.1, channel
            assert np.median(synthetic.data / observed) == pytest.approx(1, abs=0.05), channel

    def test_every_pixel_has_emission(self, cube):
        assert np.isfinite(cube.data).all()
        assert (cube.data >= 0).all()
        assert (cube.data.sum(axis=0) > 0).all()
        assert (cube.uncertainty.array > 0).all()
        for smap in cube.synthesize():
            assert (smap.data > 0).all()

    def test_it_fits(self, cube):
        assert np.median(cube.chi2) < 0.5
        assert (cube.quality & Quality.HIGH_CHI2 != 0).mean() < 0.02

    def test_synthetic_maps_can_be_inverted(self, dem):
        # They hold for launch, as the response does.
        again = invert(dem.synthesize(), degradation=None)
        ratio = again.data.sum(axis=0) / dem.data.sum(axis=0)
        assert np.median(np.abs(ratio - 1)) < 0.05
        for first, second in zip(dem.synthesize(), again.synthesize(), strict=True):
            assert np.median(np.abs(second.data / first.data - 1)) < 0.08


class TestKnownTruth:
    @pytest.fixture(scope="class")
    @classmethod
    def truth(cls, cube):
        return sample_em(cube.data.shape[1:]).value

    @pytest.mark.parametrize(
        ("region", "dex", "log_t"),
        [
            ("quiet Sun", 0.02, 0.08),
            ("coronal hole", 0.02, 0.06),
            ("active region", 0.02, 0.04),
            ("flare", 0.05, 0.06),
            ("off limb", 0.05, 0.06),
        ],
    )
    def test_total_and_temperature(self, cube, truth, region, dex, log_t):
        where = sample_regions(cube.data.shape[1:])[region]
        # Medians of the draws; rare hot plasma that the data allow for pulls the mean of faint places up.
        (median,) = cube.total_em(quantiles=(0.5,))
        assert np.median(np.abs(np.log10(median.data / truth.sum(axis=0)))[where]) < dex
        true_log_t = np.tensordot(cube.log_t, truth, axes=1) / truth.sum(axis=0)
        (median,) = cube.em_weighted_log_t(quantiles=(0.5,))
        assert np.median(np.abs(median.data - true_log_t)[where]) < log_t

    @pytest.mark.parametrize(
        ("region", "dex"),
        [("quiet Sun", 0.03), ("coronal hole", 0.05), ("active region", 0.05), ("flare", 0.08), ("off limb", 0.05)],
    )
    def test_total_of_the_mean(self, cube, truth, region, dex):
        total = np.log10(cube.data.sum(axis=0) / truth.sum(axis=0))
        assert np.median(np.abs(total[sample_regions(total.shape)[region]])) < dex

    def test_brighter_and_hotter_where_it_should_be(self, cube):
        regions = sample_regions(cube.data.shape[1:])
        total, log_t = np.log10(cube.data.sum(axis=0)), cube.em_weighted_log_t().data
        order = ["coronal hole", "quiet Sun", "active region", "flare"]
        assert np.all(np.diff([np.median(total[regions[name]]) for name in order]) > 0.3)
        assert np.all(np.diff([np.median(log_t[regions[name]]) for name in order]) > 0.05)

    def test_uncertainty_tells_of_the_error(self, cube, truth):
        within = np.abs(cube.data - truth) < 2 * cube.uncertainty.array
        assert 0.7 < within.mean() < 0.999


class TestInvariance:
    def test_of_the_order_of_maps(self, small, dem):
        again = invert(small[::-1])
        np.testing.assert_array_equal(again.data, dem.data)
        assert again.inputs == dem.inputs

    def test_of_the_exposure(self, small):
        counts = ChannelStack.from_maps(small)
        twice = ChannelStack.from_maps(
            [changed(m, data=2 * m.data, exptime=2 * m.meta["exptime"], t_obs=None) for m in small]
        )
        np.testing.assert_allclose(twice.intensity, counts.intensity, rtol=1e-6)
        ratio = invert(twice).data.sum(axis=0) / invert(counts).data.sum(axis=0)
        assert np.median(np.abs(ratio - 1)) < 0.02

    def test_of_brightness(self, small):
        # Twice the intensity and twice the σ is all but twice the plasma, of the same temperature.
        stack = ChannelStack.from_maps(small)
        twice = replace(stack, intensity=2 * stack.intensity, uncertainty=2 * stack.uncertainty)
        one, two = invert(stack), invert(twice)
        assert np.nanmedian(np.abs(two.data.sum(axis=0) / one.data.sum(axis=0) / 2 - 1)) < 0.02
        assert np.nanmedian(np.abs(two.em_weighted_log_t().data - one.em_weighted_log_t().data)) < 0.02

    def test_of_the_neighbours(self, small, dem):
        part = invert([smap.submap([4, 9] * u.pix, top_right=[20, 17] * u.pix) for smap in small])
        np.testing.assert_allclose(part.data, dem.data[:, 9:18, 4:21], rtol=1e-4)


class TestInputs:
    def test_a_stack(self, small, dem):
        again = invert(ChannelStack.from_maps(small))
        np.testing.assert_array_equal(again.data, dem.data)
        np.testing.assert_array_equal(again.chi2, dem.chi2)

    def test_a_stack_takes_no_more_options(self, small):
        with pytest.raises(TypeError, match=r"is a ChannelStack already; \['shape', 'systematic'\] must be given to"):
            invert(ChannelStack.from_maps(small), systematic=0.1, shape=8)

    def test_a_folder(self, small, dem, tmp_path):
        for smap in small:
            smap.save(tmp_path / f"{smap.wavelength.value:.0f}.fits")
        np.testing.assert_array_equal(invert(tmp_path).data, dem.data)

    def test_a_network_or_its_file(self, small, dem, tmp_path):
        network = DeepEM.load("default")
        network.save(tmp_path / "weights.safetensors")
        for weights in (network, tmp_path / "weights.safetensors", str(tmp_path / "weights.safetensors")):
            np.testing.assert_array_equal(invert(small, weights=weights).data, dem.data)

    @pytest.mark.parametrize(
        ("options", "shape"), [({"shape": 8}, (8, 8)), ({"shape": (4, 16)}, (4, 16)), ({"shape": 12}, (12, 12))]
    )
    def test_binned(self, small, options, shape):
        assert invert(small, **options).data.shape == (18, *shape)

    @pytest.mark.parametrize("corner", [(20, 9), (31, 0), (9, 30)])
    def test_cutouts_that_are_not_square(self, small, corner):
        part = invert([smap.submap([0, 0] * u.pix, top_right=corner * u.pix) for smap in small])
        assert part.data.shape == (18, corner[1] + 1, corner[0] + 1)
        assert part.synthesize()[0].data.shape == part.chi2.shape == (corner[1] + 1, corner[0] + 1)

    def test_unknown_options(self, small):
        with pytest.raises(TypeError, match=r"invert\(\) .* 'shpae'. Did you mean 'shape'?"):
            invert(small, shpae=512)
        with pytest.raises(TypeError, match=r"unexpected keyword argument 'abacus'\.$"):
            invert(small, abacus=1)

    def test_where_to_write_is_checked_before_the_maps_are_read(self, tmp_path):
        precious = tmp_path / "dem.fits"
        precious.write_text("precious", encoding="utf-8")
        with pytest.raises(FileExistsError, match=r"Pass overwrite=True"):
            invert("no folder", out=precious)
        with pytest.raises(ValueError, match=r"out must end in \.fits, found .*dem\.asdf"):
            invert("no folder", out=tmp_path / "dem.asdf")
        with pytest.raises(ValueError, match="chunks must be a positive whole number"):
            invert("no folder", chunks=0)

    def test_pattern_of_files(self, small, tmp_path):
        for smap in small:
            smap.save(tmp_path / f"aia_{smap.wavelength.value:.0f}.fits")
        assert invert(str(tmp_path / "aia_*.fits")).shape == invert(tmp_path).shape
        with pytest.raises(FileNotFoundError, match="no file matches"):
            invert(str(tmp_path / "hmi_*.fits"))

    def test_nothing_is_upsampled(self, small):
        with pytest.warns(SunpyUserWarning, match="Maps are not upsampled"):
            assert max(invert(small, shape=2000).shape[1:]) == max(small[0].data.shape)

    def test_what_went_in_is_told(self, dem):
        told = dem.meta["provenance"]
        assert told["method"] == "network"
        assert told["systematic"] == 0.1
        assert told["degradation"] == "data"
        assert "seed" in told["network"]
        assert [one["channel"] for one in dem.inputs] == list(CHANNELS)


class TestMasked:
    def test_bad_pixels_spoil_no_others(self, small, dem):
        """A missing and a saturated channel are left out of their pixels; the other channels determine the EM there."""
        data = small[4].data.copy()
        data[3, 4], data[10, 20] = np.nan, 16383
        spoiled = invert([*small[:4], changed(small[4], data=data), small[5]])
        partial = (spoiled.quality & Quality.PARTIAL) != 0
        assert np.argwhere(partial).tolist() == [[3, 4], [10, 20]]
        np.testing.assert_allclose(spoiled.data[:, ~partial], dem.data[:, ~partial], rtol=1e-4)
        assert np.isfinite(spoiled.data[:, partial]).all()
        assert np.isfinite(spoiled.chi2[partial]).all()

    def test_negative_pixels_are_inverted(self, small):
        data = small[0].data.copy()
        data[:4] = -1
        dem = invert([changed(small[0], data=data), *small[1:]])
        assert (dem.quality[:4] & Quality.NEGATIVE != 0).all()
        assert not dem.mask.any()
        assert np.isfinite(dem.data).all()

    def test_a_dark_sky(self, small):
        dem = invert([changed(smap, data=np.zeros((4, 4))) for smap in small])
        assert np.isfinite(dem.data).all()
        assert (dem.quality & Quality.LOW_SIGNAL != 0).all()

    def test_nothing_valid(self, small):
        dem = invert([changed(smap, data=np.full((4, 4), np.nan)) for smap in small])
        assert dem.mask.all()
        assert np.isnan(dem.data).all()


class TestResponse:
    def test_the_network_is_for_one_response(self, small):
        other = TemperatureResponse.default(eve=False)
        with pytest.raises(
            ValueError, match=rf"response {other.fingerprint} is not the one this network was trained for"
        ):
            invert(small, response=other)

    def test_the_network_is_for_its_bins(self, small):
        with pytest.raises(ValueError, match=r"folded onto LogTBins\(.*n=17\), but the network answers on LogTBins\("):
            invert(small, response=TemperatureResponse.default(bins=LogTBins(n=17)))

    def network_for_any(self):
        network = DeepEM.load("default")
        return DeepEM(network.module, bins=network.bins)

    def test_data_are_corrected_to_the_time_of_the_response(self, small):
        then = TemperatureResponse.default(obstime="2014-01-01")
        dem = invert(small, weights=self.network_for_any(), response=then)
        assert [one["degradation"] for one in dem.inputs] == pytest.approx([1] * 6, abs=1e-3)
        assert dem.meta["provenance"]["epoch"].startswith("2014-01-01")
        launch = invert(small, weights=self.network_for_any(), response=TemperatureResponse.default())
        assert [one["degradation"] for one in launch.inputs] == pytest.approx(
            [0.914, 0.752, 0.876, 0.887, 0.825, 0.443], abs=1e-3
        )

    def test_a_stack_corrected_to_another_time(self, small):
        then = TemperatureResponse.default(obstime="2014-01-01")
        with pytest.raises(ValueError, match="corrected for degradation to launch, but response holds for 2014-01-01"):
            invert(ChannelStack.from_maps(small), weights=self.network_for_any(), response=then)
        stack = ChannelStack.from_maps(small, epoch=then.meta["obstime"])
        assert isinstance(invert(stack, weights=self.network_for_any(), response=then), DEMCube)


def test_the_network_comes_near_what_the_truth_explains(small, dem):
    truth = true_cube(small, N)
    assert np.median(dem.chi2) < 2 * np.median(truth.chi2)


@pytest.mark.parametrize("channel", CHANNELS)
def test_the_real_sun_is_seen_again(real_sun, channel):
    dem = invert(real_sun, shape=256)
    disc = np.hypot(*(np.indices((256, 256)) - 127.5)) < 90
    index = CHANNELS.index(channel)
    synthetic, observed = dem.synthesize()[index].data[disc], dem.intensity.value[index][disc]
    assert np.median(np.abs(synthetic / observed - 1)) < 0.1


def test_the_real_sun(real_sun):
    dem = invert(real_sun, shape=256)
    disc = np.hypot(*(np.indices((256, 256)) - 127.5)) < 90
    sigma = dem.intensity_uncertainty.value
    for synthetic, observed, error, channel in zip(dem.synthesize(), dem.intensity.value, sigma, CHANNELS, strict=True):
        assert np.median((np.abs(synthetic.data - observed) / error)[disc]) < 0.8, channel
    assert np.isfinite(dem.data[:, ~dem.mask[0]]).all()
    assert (dem.data[:, ~dem.mask[0]].sum(axis=0) > 0).all()
    assert 5.9 < np.median(dem.em_weighted_log_t().data[disc]) < 6.4


class TestUnusual:
    """Channels that cannot be right light up over the disc, although some EM may explain them."""

    @pytest.fixture
    def stack(self, maps):
        return ChannelStack.from_maps(maps)

    def share(self, stack, intensity=None, uncertainty=None):
        changed = replace(
            stack,
            intensity=stack.intensity if intensity is None else intensity,
            uncertainty=stack.uncertainty if uncertainty is None else uncertainty,
        )
        flagged = (invert(changed).quality & Quality.UNUSUAL) != 0
        return flagged[sample_regions(flagged.shape)["quiet Sun"]].mean()

    def test_the_sun_as_it_is(self, stack):
        assert self.share(stack) < 0.02

    @pytest.mark.parametrize(("channel", "factor"), [(193, 3), (211, 3), (94, 1 / 3), (211, 1 / 3), (335, 1 / 3)])
    def test_a_channel_scaled_by_three(self, stack, channel, factor):
        factors = np.where(np.array(CHANNELS) == channel, factor, 1)[:, None, None]
        assert self.share(stack, stack.intensity * factors, stack.uncertainty * factors) > 0.9

    @pytest.mark.parametrize(("one", "other"), [(94, 171), (131, 193), (171, 335), (193, 211), (94, 335)])
    def test_two_channels_swapped(self, stack, one, other):
        order = list(range(len(CHANNELS)))
        i, j = CHANNELS.index(one), CHANNELS.index(other)
        order[i], order[j] = j, i
        assert self.share(stack, stack.intensity[order], stack.uncertainty[order]) > 0.9


def test_pixels_stay_on_the_device_of_the_network(small, monkeypatch):
    """They are not copied between the steps."""
    kinds = []

    def seen(function):
        def call(*args, **kwargs):
            arrays = [array for array in args if isinstance(array, np.ndarray | torch.Tensor)]
            # Only the small response may be elsewhere.
            kinds.append({type(array) for array in arrays if array.shape != (6, 18)})
            return function(*args, **kwargs)

        return call

    for owner, name in ((DeepEM, "predict"), (DeepEM, "deviation")):
        monkeypatch.setattr(owner, name, seen(getattr(owner, name)))
    invert(small, device="cpu")
    assert kinds == [{torch.Tensor}] * 2


class TestRegion:
    """A region is what would be cut from the answer for all of it."""

    def corners(self, dem, low, high):
        return SkyCoord(*(np.transpose([low, high]) << u.arcsec), frame=frame_of(dem))

    def assert_part(self, part, dem, rows, columns):
        whole = dem[:, rows, columns]
        assert part.shape == whole.shape
        np.testing.assert_allclose(part.data, whole.data, rtol=1e-4)
        np.testing.assert_allclose(part.chi2, whole.chi2, rtol=1e-2, atol=1e-5)
        np.testing.assert_allclose(part.intensity, whole.intensity, rtol=1e-6)
        ends = [[0, 0, 0], [5, 3, 1]]
        np.testing.assert_allclose(part.wcs.wcs_pix2world(ends, 0), whole.wcs.wcs_pix2world(ends, 0), rtol=1e-9)

    @pytest.mark.parametrize("shape", [None, 16, (16, 11)])
    def test_two_corners_as_a_crop(self, small, shape):
        dem = invert(small, shape=shape)
        corners = self.corners(dem, (-500, -420), (310, 260))
        part = invert(small, shape=shape, region=corners)
        cropped = dem.crop((corners[0], None), (corners[1], None))
        assert part.shape == cropped.shape
        np.testing.assert_allclose(part.data, cropped.data, rtol=1e-4)

    def test_two_corners_as_sunpy_cuts_a_map(self, small, dem):
        corners = self.corners(dem, (-500, -420), (310, 260))
        part = invert(small, region=tuple(corners))
        submap = dem.observed_maps()[2].submap(corners[0], top_right=corners[1])
        assert part.shape[1:] == submap.data.shape
        np.testing.assert_allclose(part.observed_maps()[2].data, submap.data, rtol=1e-6)
        assert u.allclose(part.synthesize()[2].center.Tx, submap.center.Tx)

    def test_off_the_limb_and_in_another_frame(self, small, dem):
        later = small[5].coordinate_frame
        corners = SkyCoord([1000, 1200] * u.arcsec, [-200, 200] * u.arcsec, frame=later)
        self.assert_part(invert(small, region=corners), dem, slice(13, 19), slice(29, 32))

    @pytest.mark.parametrize("kind", ["map", "header", "wcs"])
    def test_the_field_of_view_of_something(self, small, dem, kind):
        smap = small[3].submap([4, 9] * u.pix, top_right=[20, 17] * u.pix)
        region = {"map": smap, "header": dict(smap.meta), "wcs": smap.wcs}[kind]
        self.assert_part(invert(small, region=region), dem, slice(9, 18), slice(4, 21))

    @pytest.mark.parametrize("in_pixels", [True, False])
    def test_a_region_of_another_shape(self, small, dem, in_pixels):
        regions = pytest.importorskip("regions")
        circle = regions.CirclePixelRegion(regions.PixCoord(12, 20), 4.3)
        part = invert(small, region=circle if in_pixels else circle.to_sky(dem.observed_maps()[0].wcs))
        y, x = np.indices(part.shape[1:]) + np.array([16, 8])[:, None, None]
        outside = np.hypot(y - 20, x - 12) > 4.3
        assert part.shape[1:] == (9, 9)
        np.testing.assert_array_equal(part.sky_mask, outside)
        np.testing.assert_array_equal((part.quality & Quality.OUTSIDE) != 0, outside)
        np.testing.assert_allclose(part.data[:, ~outside], dem.data[:, 16:25, 8:17][:, ~outside], rtol=1e-4)

    def test_no_more_is_done_than_is_needed(self, small, dem, monkeypatch):
        asked = []
        predict = DeepEM.predict

        def counting(self, intensity, *args, **kwargs):
            asked.append(int(np.prod(intensity.shape[1:])))
            return predict(self, intensity, *args, **kwargs)

        monkeypatch.setattr(DeepEM, "predict", counting)
        part = invert(small, region=self.corners(dem, (-500, -420), (310, 260)))
        assert sum(asked) == part.data[0].size < N * N / 3

    def test_outside_of_the_maps(self, small, dem):
        with pytest.raises(ValueError, match="region holds no pixel"):
            invert(small, region=self.corners(dem, (3000, 3000), (3500, 3500)))

    def test_a_circle_outside_of_the_maps(self, small):
        regions = pytest.importorskip("regions")
        with pytest.raises(ValueError, match="region holds no pixel"):
            invert(small, region=regions.CirclePixelRegion(regions.PixCoord(-50, 20), 4.3))

    @pytest.mark.parametrize("region", [3, "disc", (1, 2), np.ones(4)])
    def test_no_region(self, small, region):
        with pytest.raises(TypeError, match="region must be a SkyCoord, a pair"):
            invert(small, region=region)


@pytest.mark.filterwarnings("ignore:The fields of some maps differ")
class TestCutouts:
    """Six cutouts, each of a different field."""

    @staticmethod
    def cutouts(maps):
        return [
            smap.submap([4 + i % 3, 6 + i % 2] * u.pix, top_right=[20 + i % 4, 18 - i % 2] * u.pix)
            for i, smap in enumerate(maps)
        ]

    def test_the_common_field_is_that_of_the_whole(self, small, dem):
        part = invert(self.cutouts(small), shape=None)
        assert not part.mask.any()
        np.testing.assert_allclose(part.data, dem.data[:, 7:18, 6:21], rtol=1e-3)
        assert not any(one["reprojected"] for one in part.inputs)

    def test_they_are_synthesised_and_written(self, small, tmp_path):
        part = invert(self.cutouts(small))
        assert part.synthesize()[0].data.shape == (11, 15)
        part.write(tmp_path / "dem.fits")
        assert DEMCube.read(tmp_path / "dem.fits").shape == (18, 11, 15)


def test_responses_that_cannot_serve_at_all(small):
    with pytest.raises(ValueError, match="response must be that of all six channels"):
        invert(small, response=TemperatureResponse.default().with_channels((171, 193)))
    with pytest.raises(ValueError, match="folded onto"):
        invert(small, response=TemperatureResponse.default(bins=LogTBins(5.6, 0.1, 17)))
