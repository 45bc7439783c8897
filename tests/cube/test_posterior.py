"""Posterior draws of cubes: `distribution`, `map_draws`, and quantiles of maps."""

import numpy as np
import pytest

from sunpy_deepem import DeepEM, DEMCube, invert
from sunpy_deepem.methods import Importance
from sunpy_deepem.training import DEMPrior

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


def test_cut_and_merged_bins(small, draws):
    np.testing.assert_array_equal(draws_of(small[6:12]), draws[6:12])
    merged = draws_of(small.rebin((2, 1, 1)))
    np.testing.assert_allclose(merged, draws[::2] + draws[1::2], rtol=1e-5)


def test_rebinned_pixels_have_the_draws_of_their_mean_intensity(small):
    coarse = small.rebin((1, 2, 2))
    network = DeepEM.load()
    expected = network.sample(coarse.intensity.value, coarse.intensity_uncertainty.value, n=8)
    np.testing.assert_allclose(draws_of(coarse, 8), np.moveaxis(expected, 0, -1), rtol=1e-4)


def test_masked_pixels_are_nan(cube):
    masked = cube[SKY]
    masked.mask = np.arange(24).reshape(4, 6) == 3
    assert np.isnan(draws_of(masked)[:, 0, 3]).all()
    assert np.isfinite(draws_of(masked)[:, 0, 4]).all()


def test_draws_synthesize_the_observed_intensities(small, draws):
    matrix = small.response.matrix.value
    residual = (np.tensordot(matrix, draws, axes=1) - small.intensity.value[..., None]) / (
        small.intensity_uncertainty.value[..., None]
    )
    assert np.median((residual**2).mean(axis=0)) < 2


class TestQuantiles:
    def test_of_a_band_are_those_of_the_draws(self, small, draws):
        maps = small.total_em(6.05, 6.35, quantiles=(0.16, 0.5, 0.84), n=16)
        expected = np.quantile(draws[6:9].sum(axis=0), (0.16, 0.5, 0.84), axis=-1)
        np.testing.assert_allclose([smap.data for smap in maps], expected, rtol=1e-4)
        assert maps[1].meta["content"] == "EM, log T 6.05 to 6.35, 50 % quantile"

    @pytest.mark.parametrize("name", ["em_weighted_log_t", "peak_log_t", "thermal_width"])
    def test_are_in_order_around_the_value(self, small, name):
        low, high = (smap.data for smap in getattr(small, name)(quantiles=(0.025, 0.975)))
        value = getattr(small, name)().data
        assert (low <= high).all()
        assert ((low <= value + 0.05) & (value <= high + 0.05)).mean() > 0.9

    def test_of_all_bands(self, small):
        assert len(small.band_maps(quantiles=(0.16, 0.84), n=8)) == 8


class TestMethods:
    def test_a_network_in_use_is_found_by_its_fingerprint(self, maps):
        network = DeepEM.load("neutral")
        cube = invert(maps, weights=network)[SKY]
        expected = network.sample(cube.intensity.value, cube.intensity_uncertainty.value, n=4)
        np.testing.assert_allclose(draws_of(cube, 4), np.moveaxis(expected, 0, -1), rtol=1e-4)

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
        sparse = invert(maps, method="basis-pursuit", shape=8)
        with pytest.raises(ValueError, match="'basis-pursuit', states no posterior"):
            sparse.distribution()

    def test_the_result_of_arithmetic_is_refused(self, small):
        with pytest.raises(ValueError, match=r"result of arithmetic .* Combine the distributions"):
            (small + small).distribution()
