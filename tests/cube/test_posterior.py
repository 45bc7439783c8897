"""Posterior draws of cubes: `distribution`, `map_draws`, and quantiles of maps."""

from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from helpers import LognormalMethod
from sunpy.map import GenericMap

from sunpy_deepem import DeepEM, DEMCube, Quality, TemperatureResponse, invert
from sunpy_deepem.analysis.derived import band_em
from sunpy_deepem.methods import Importance
from sunpy_deepem.quality import signal_flags
from sunpy_deepem.sample import sample_maps, sample_regions
from sunpy_deepem.temperature import BANDS
from sunpy_deepem.training import DEMPrior
from sunpy_deepem.units import COVERAGE, TRACE

SKY = np.s_[:, 60:64, 40:46]


def draws_of(cube, n=16, **options):
    """The draws as an array, draws last."""
    return cube.distribution(n, **options).distribution.to_value("cm-5")


@pytest.fixture(scope="module")
def small(cube):
    return cube[SKY]


@pytest.fixture(scope="module")
def draws(small):
    return draws_of(small)


def test_draws_are_not_negative_and_repeatable(small, draws):
    assert draws.shape == (18, 4, 6, 16)
    assert (draws >= 0).all()
    np.testing.assert_array_equal(draws, draws_of(small))
    assert (draws != draws_of(small, seed=1)).any()


def test_draws_of_a_slice_are_the_slice_of_the_draws(cube, draws):
    whole = draws_of(cube)[SKY]
    np.testing.assert_allclose(draws / whole.sum(axis=0), whole / whole.sum(axis=0), atol=1e-5)


@pytest.mark.parametrize("name", ["dem.fits", "dem.asdf"])
def test_draws_of_a_cube_that_was_read(small, draws, name, tmp_path):
    small.write(tmp_path / name)
    np.testing.assert_array_equal(draws_of(DEMCube.read(tmp_path / name)), draws)


def test_weights_of_a_relative_path_are_found_from_another_folder(maps, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    DeepEM.load("neutral").save("my.safetensors")
    cube = invert(maps, shape=8, weights="my.safetensors")
    assert cube.meta["provenance"]["weights"] == str(tmp_path / "my.safetensors")


def test_cut_and_merged_bins(small, draws):
    np.testing.assert_array_equal(draws_of(small[6:12]), draws[6:12])
    merged = draws_of(small.rebin((2, 1, 1)))
    # Differences of numbers of single precision: what remains of a bin beyond TRACE may be small.
    np.testing.assert_allclose(merged, draws[::2] + draws[1::2], rtol=1e-5, atol=1e-6 * draws.sum(axis=0).max())


def test_rebinned_pixels_have_the_draws_of_their_mean_intensity(small):
    coarse = small.rebin((1, 2, 2))
    network = DeepEM.load()
    expected = network.sample(coarse.intensity.value, coarse.intensity_uncertainty.value, n=8)
    np.testing.assert_allclose(draws_of(coarse, 8), np.moveaxis(expected, 0, -1), rtol=1e-4)


def test_maps_of_quantiles_share_a_mask_that_none_can_change(small):
    """Eight native maps would otherwise hold 0.1 GiB of equal masks."""
    low, high = small.total_em(quantiles=(0.16, 0.84), n=4)
    assert np.shares_memory(low.mask, high.mask)
    with pytest.raises(ValueError, match="read-only"):
        low.mask[0, 0] = True
    low.mask = low.mask | True
    assert not high.mask.any()


def test_masked_pixels_are_nan(cube):
    masked = cube[SKY]
    masked.mask = np.arange(24).reshape(4, 6) == 3
    assert np.isnan(draws_of(masked)[:, 0, 3]).all()
    assert np.isfinite(draws_of(masked)[:, 0, 4]).all()


class TestLowerLimits:
    """171 Å is saturated in the pixel at row 2, column 2."""

    def test_draws_are_those_of_the_limits(self, saturated_cube):
        values, lower_limit = saturated_cube.with_limits()
        assert np.argwhere(lower_limit).tolist() == [[2, 2, 2]]
        assert np.argwhere(np.isnan(saturated_cube.intensity)).tolist() == [[2, 2, 2]]
        sigma = saturated_cube.intensity_uncertainty.value
        expected = DeepEM.load().sample(values, sigma, n=8, lower_limit=lower_limit)
        np.testing.assert_allclose(draws_of(saturated_cube, 8), np.moveaxis(expected, 0, -1), rtol=1e-4)

    @pytest.mark.parametrize(
        "change",
        [
            lambda cube: cube[:, 1:4, 1:],
            lambda cube: cube[:, 2, 2],
            lambda cube: cube.reproject_to(cube.wcs.celestial, shape_out=(8, 8)),
            lambda cube: 2 * cube,
            lambda cube: cube / 2,
        ],
        ids=["part", "pixel", "reprojected", "doubled", "halved"],
    )
    def test_limits_follow(self, saturated_cube, change):
        cube = change(saturated_cube)
        factor = cube.meta["provenance"].get("factor", 1)
        assert cube.lower_limit.sum() == 1
        assert cube.with_limits()[0][cube.lower_limit] == pytest.approx(factor * saturated_cube.meta["limit_171"][2, 2])
        assert cube.has_posterior

    @pytest.mark.parametrize("name", ["dem.fits", "dem.asdf"])
    def test_limits_in_files(self, saturated_cube, name, tmp_path):
        saturated_cube.write(tmp_path / name)
        again = DEMCube.read(tmp_path / name)
        np.testing.assert_array_equal(again.with_limits()[0], saturated_cube.with_limits()[0])
        np.testing.assert_array_equal(draws_of(again, 4), draws_of(saturated_cube, 4))
        assert again.user_meta == {}

    def test_the_mean_of_rebinned_limits_is_a_limit(self, saturated_cube):
        coarse = saturated_cube.rebin((1, 4, 4))
        assert np.argwhere(coarse.lower_limit).tolist() == [[2, 0, 0]]
        mean = saturated_cube.with_limits()[0][2, :4, :4].mean()
        assert coarse.with_limits()[0][2, 0, 0] == pytest.approx(mean)

    def test_sums_have_no_limits(self, saturated_cube):
        assert not (saturated_cube + saturated_cube).lower_limit.any()

    def test_methods_without_limits_leave_the_channel_out(self, saturated_cube):
        assert np.isfinite(saturated_cube.total_em(quantiles=0.5, method=LognormalMethod())[0].data).all()


def test_draws_synthesize_the_observed_intensities(small, draws):
    matrix = small.response.matrix.value
    residual = (np.tensordot(matrix, draws, axes=1) - small.intensity.value[..., None]) / (
        small.intensity_uncertainty.value[..., None]
    )
    assert np.median((residual**2).mean(axis=0)) < 2


@pytest.mark.parametrize("item", [np.s_[:, 2, 3], np.s_[:, 2], np.s_[3:9, :, 3], np.s_[:, 1:3, 2:5]])
def test_slices_may_lack_axes_of_the_sky(small, draws, item):
    part = draws[item]
    np.testing.assert_allclose(draws_of(small[item]), part, atol=1e-5 * draws.sum(axis=0).max())


def test_a_slice_without_log_t_is_refused(small):
    assert small[3].has_posterior
    with pytest.raises(ValueError, match=r"need the log T axis, which this cube of shape \(4, 6\) lacks"):
        small[3].distribution()


def test_a_multiple_has_the_multiple_of_the_draws(small, draws):
    again = (3 * small / 2).rebin((2, 1, 1))
    np.testing.assert_allclose(draws_of(again), 1.5 * (draws[::2] + draws[1::2]), rtol=1e-3, atol=1e22)


def test_reprojected_pixels_have_the_draws_of_their_intensity(small):
    moved = small.reproject_to(small[:, 1:, 1:].wcs.celestial, shape_out=(3, 5))
    expected = DeepEM.load().sample(moved.intensity.value, moved.intensity_uncertainty.value, n=8)
    np.testing.assert_allclose(draws_of(moved, 8), np.moveaxis(expected, 0, -1), rtol=1e-4)


def test_cubes_larger_than_memory_are_read_in_bands(small, maps, monkeypatch, tmp_path):
    invert(maps, out=tmp_path / "dem.fits")
    lazy, seen = DEMCube.read(tmp_path / "dem.fits", chunks="auto")[SKY], []
    monkeypatch.setattr("sunpy_deepem.cube.posterior._BAND", 6)

    def hot(em):
        seen.append(em.shape[-1])
        return em[:, 11:].sum(axis=1).mean(axis=0)

    result = lazy.map_draws(hot, n=8)
    assert seen == [6] * 4
    np.testing.assert_allclose(result, small.map_draws(hot, n=8), rtol=1e-4)


PRODUCTS = {
    "total_em": lambda cube, **options: cube.total_em(6.05, 6.35, **options),
    "bin_map": lambda cube, **options: cube.bin_map(6.2, **options),
    "em_weighted_log_t": lambda cube, **options: cube.em_weighted_log_t(**options),
    "peak_log_t": lambda cube, **options: cube.peak_log_t(**options),
    "thermal_width": lambda cube, **options: cube.thermal_width(**options),
    "electron_density": lambda cube, **options: cube.electron_density(np.full((4, 6), 50) * u.Mm, **options),
    "thermal_energy": lambda cube, **options: cube.thermal_energy(50 * u.Mm, per_pixel=True, **options),
    "band_maps": lambda cube, **options: cube.band_maps([(5.95, 6.45)], **options)[0],
    "synthesize": lambda cube, **options: cube.synthesize((171,), degraded=True, **options)[0],
}


class TestProducts:
    @pytest.mark.parametrize("name", PRODUCTS)
    def test_uncertainty_is_half_the_interval_of_the_quantiles(self, small, name):
        product = PRODUCTS[name]
        uncertainty = product(small).uncertainty.array
        low, high = (product(small, quantiles=quantile) for quantile in ((1 - COVERAGE) / 2, (1 + COVERAGE) / 2))
        low, high = (smap if isinstance(smap, GenericMap) else smap[0] for smap in (low, high))
        np.testing.assert_allclose(uncertainty, (high.data - low.data) / 2, rtol=1e-3, atol=1e-3 * high.data.max())
        assert (uncertainty >= 0).all()

    @pytest.mark.parametrize("name", ["total_em", "bin_map", "electron_density", "thermal_energy", "thermal_width"])
    def test_quantiles_are_in_order_around_the_value(self, small, name):
        low, median, high = PRODUCTS[name](small, quantiles=(0.025, 0.5, 0.975))
        assert (low.data <= median.data).all()
        assert (median.data <= high.data).all()
        value = PRODUCTS[name](small)
        assert ((low.data <= 1.05 * value.data) & (0.95 * value.data <= high.data)).mean() > 0.9
        assert median.unit == value.unit
        assert median.meta["content"] == f"{value.meta['content']}, 50 % quantile"
        assert median.meta["quantile"] == 0.5

    def test_total_em_equals_that_of_the_distribution(self, small, draws):
        maps = small.total_em(6.05, 6.35, quantiles=(0.16, 0.5, 0.84), n=16)
        expected = np.quantile(draws[6:9].sum(axis=0), (0.16, 0.5, 0.84), axis=-1)
        np.testing.assert_allclose([smap.data for smap in maps], expected, rtol=1e-4)

    def test_total_em_is_near_the_mean_of_the_draws(self, small):
        """Two networks give the mean and the draws."""
        mean = draws_of(small, 256)[6:9].sum(axis=0).mean(axis=-1)
        smap = small.total_em(6.05, 6.35)
        assert (np.abs(smap.data - mean) < 0.7 * smap.uncertainty.array).all()

    def test_all_bands_and_channels_come_from_one_pass(self, small, monkeypatch):
        calls, original = [], DEMCube.map_draws
        monkeypatch.setattr(DEMCube, "map_draws", lambda cube, *a, **k: calls.append(1) or original(cube, *a, **k))
        bands, channels = small.band_maps(n=8), small.synthesize(n=8)
        assert not calls  # until an uncertainty is used
        assert all(smap.uncertainty.array.shape == (4, 6) for smap in bands)
        assert len(calls) == 1
        assert all(smap.uncertainty.array.shape == (4, 6) for smap in channels)
        assert len(calls) == 2
        assert len(small.band_maps(quantiles=(0.16, 0.84), n=8)) == 8

    def test_synthetic_quantiles(self, small):
        maps = small.synthesize((171, 94), quantiles=(0.16, 0.84), n=8)
        assert [smap.wavelength.value for smap in maps] == [171, 171, 94, 94]
        assert maps[1].meta["content"] == "synthetic, from DEM, 84 % quantile"

    def test_channel_that_was_left_out_is_in_the_interval_of_its_prediction(self):
        # Quiet Sun and an active region of the synthetic Sun; σ of the observation belongs to the interval.
        maps = sample_maps((32, 32))
        observed = invert(maps, shape=None)
        others = (94, 131, 193, 211, 335)
        predicted = invert(maps, shape=None, channels=others).synthesize((171,), quantiles=(0.025, 0.975))
        low, high = (smap.data for smap in predicted)
        error = 2 * observed.intensity_uncertainty[2].value
        observed = observed.intensity[2].value
        assert ((low - error <= observed) & (observed <= high + error)).mean() > 0.9
        assert np.median(high / low) > 1.5

    def test_no_uncertainty_without_posterior(self, small):
        difference = small - 0.5 * small
        assert not difference.has_posterior
        assert difference.total_em().uncertainty is None
        with pytest.raises(ValueError, match="result of arithmetic"):
            difference.total_em(quantiles=0.5)

    def test_invalid_options(self, small):
        with pytest.raises(ValueError, match="quantiles must be numbers between 0 and 1"):
            small.total_em(quantiles=16)
        with pytest.raises(ValueError, match="n must be"):
            small.total_em(quantiles=0.5, n=0)
        with pytest.raises(TypeError, match="method must have a posterior"):
            small.total_em(method="basis-pursuit")


class TestContraction:
    def test_of_bins(self, small, draws):
        found = small.contraction(n=16)
        log_fraction = np.log(draws / draws.sum(axis=0) + TRACE)
        expected = 1 - log_fraction.var(axis=-1) / DeepEM.load().prior_log_std[:, None, None] ** 2
        np.testing.assert_allclose(found, np.clip(expected, 0, 1), atol=1e-3)

    def test_of_cut_and_merged_bins(self, small):
        np.testing.assert_allclose(small[6:12].contraction(n=8), small.contraction(n=8)[6:12])
        merged = small.rebin((2, 1, 1)).contraction(n=8)
        np.testing.assert_allclose(merged[3], small.contraction([(6.05, 6.25)], n=8)[0], atol=1e-3)

    def test_hot_plasma_is_constrained_in_active_regions(self, maps):
        sun = invert(maps, shape=64)
        regions = sample_regions((64, 64))
        dominated, contraction = sun.prior_dominated(6.6, 7.0), sun.contraction([(6.6, 7.0)])[0]
        for name in ("quiet Sun", "coronal hole"):
            assert dominated[regions[name]].mean() > 0.9
        assert dominated[regions["active region"]].mean() < 0.2
        hole, active = (np.median(contraction[regions[name]]) for name in ("coronal hole", "active region"))
        assert active - hole > 0.2
        assert sun.prior_dominated(6.0, 6.3).mean() < 0.02
        flagged = sun.with_prior_flags()
        low_signal = (sun.quality & Quality.LOW_SIGNAL) != 0
        expected = (sun.contraction(BANDS).min(axis=0) < 0.5) | low_signal
        np.testing.assert_array_equal((flagged.quality & Quality.PRIOR) != 0, expected)
        np.testing.assert_array_equal(flagged.quality & ~np.uint16(Quality.PRIOR), sun.quality)

    @pytest.mark.parametrize("band", BANDS)
    def test_nothing_is_constrained_without_signal(self, cube, band):
        faint = cube[SKY]
        noise = 2 * np.abs(faint.intensity.value)
        flags = signal_flags(faint.intensity.value, noise)
        faint = faint.with_planes(replace(faint.planes, sigma=noise, quality=flags))
        assert faint.prior_dominated(*band).all()

    @pytest.mark.parametrize("prior", [DEMPrior(), DEMPrior.neutral()])
    def test_std_of_a_band_over_the_prior_is_near_the_mean_of_its_bins(self, prior):
        em = prior.sample(20_000, seed=3)
        stds = np.log(em / em.sum(axis=0) + TRACE).std(axis=1)
        for band in BANDS:
            weight = band_em(np.eye(18), prior.bins, *band)
            std = np.log(weight @ em / em.sum(axis=0) + TRACE).std()
            assert weight @ stds / weight.sum() == pytest.approx(std, rel=0.2)

    def test_another_prior(self, small):
        exact = Importance(DEMPrior(), draws=20_000)
        np.testing.assert_allclose(exact.prior_log_std, DeepEM.load().prior_log_std, rtol=0.05)
        assert small[:, :2, :2].contraction(BANDS, n=8, method=exact).shape == (4, 2, 2)
        with pytest.raises(ValueError, match="must know the moments of its prior"):
            small.contraction(method=LognormalMethod())


class TestMethods:
    def test_a_network_in_use_is_found_by_its_fingerprint(self, maps):
        network = DeepEM.load("neutral")
        network.source = None  # as after training
        cube = invert(maps, weights=network)[SKY]
        assert cube.posterior() is network
        del network
        assert not cube.has_posterior

    def test_weights_that_changed_are_refused(self, small):
        other = small[:]
        other.meta["provenance"] = small.meta["provenance"] | {"fingerprint": "0" * 16}
        with pytest.raises(ValueError, match="fingerprint 0000000000000000 are not found"):
            other.distribution()

    def test_another_method(self, small):
        exact = Importance(DEMPrior(), draws=20_000)
        assert draws_of(small[:, :2, :2], 8, method=exact).shape == (18, 2, 2, 8)

    def test_a_method_without_posterior_is_refused(self, small, maps):
        with pytest.raises(TypeError, match="method must have a posterior"):
            small.distribution(method="network")
        with pytest.raises(ValueError, match="'basis-pursuit', states no posterior"):
            invert(maps, method="basis-pursuit", shape=8).distribution()

    def test_another_response_is_refused(self, small):
        other = small[:]
        response = TemperatureResponse.default()
        other.meta["response"] = TemperatureResponse(response.temperature, 1.1 * response.curves)
        with pytest.raises(ValueError, match="is not the one this network was trained for"):
            other.distribution()

    @pytest.mark.parametrize(
        "operation",
        [lambda cube: cube + cube, lambda cube: -cube, lambda cube: cube * np.ones((4, 6)), lambda cube: cube**2],
    )
    @pytest.mark.filterwarnings("ignore:The new cube has no chi2")
    def test_the_result_of_arithmetic_is_refused(self, small, operation):
        with pytest.raises(ValueError, match=r"result of arithmetic .* Combine the distributions"):
            operation(small).distribution()
