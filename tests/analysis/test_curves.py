"""Tests of the EM curves of regions."""

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from helpers import cube_of, true_cube, uniform_em
from regions import CirclePixelRegion, CircleSkyRegion, LinePixelRegion, PixCoord, PointSkyRegion

from sunpy_deepem import DeepEM, TemperatureResponse, invert
from sunpy_deepem.analysis import em_loci
from sunpy_deepem.forward import synthetic_intensity
from sunpy_deepem.methods import Importance
from sunpy_deepem.quality import Quality
from sunpy_deepem.training import DEMPrior


@pytest.fixture(scope="module")
def truth():
    return true_cube(n=32)


def test_whole_cube(truth):
    curve = truth.curve()
    assert curve.n_pixels == 32 * 32
    assert curve.bins == truth.bins
    np.testing.assert_allclose(curve.em.to_value("cm-5"), truth.data.mean(axis=(1, 2)))
    np.testing.assert_allclose(curve.intensity.value, truth.intensity.value.mean(axis=(1, 2), dtype=float))
    np.testing.assert_allclose(curve.synthetic, synthetic_intensity(curve.em, truth.response))
    one = truth.rebin((1, -1, -1))
    np.testing.assert_allclose(curve.intensity_uncertainty, one.intensity_uncertainty[:, 0, 0], rtol=1e-5)


def test_noise_averages_out():
    em = np.tile(uniform_em(5.95, 6.45), 100)
    few, many = (cube_of(em[:, :n]).curve() for n in (1, 100))
    np.testing.assert_allclose(many.intensity_uncertainty, few.intensity_uncertainty / 10)


def test_systematic_error_does_not_average_out():
    em = np.tile(uniform_em(5.95, 6.45), 100)
    seen = synthetic_intensity(em[:, np.newaxis] * u.cm**-5, TemperatureResponse.default())
    options = {"uncertainty": 0.1 * seen, "meta": {"systematic": 0.1}}
    curve = cube_of(em, **options).curve()
    np.testing.assert_allclose(curve.intensity_uncertainty, 0.1 * curve.intensity)


def test_coordinate(truth):
    smap = truth.total_em()
    for y, x in ((0, 0), (12, 17), (31, 31)):
        curve = truth.curve(smap.pixel_to_world((x + 0.4) * u.pix, (y - 0.4) * u.pix))
        assert curve.n_pixels == 1
        np.testing.assert_allclose(curve.em.value, truth.data[:, y, x])
        np.testing.assert_allclose(curve.intensity_uncertainty, truth.intensity_uncertainty[:, y, x], rtol=1e-6)


def test_regions(truth):
    y, x = np.indices((32, 32))
    inside = np.hypot(x - 20, y - 9) < 4.3
    smap = truth.total_em()
    center = smap.pixel_to_world(20 * u.pix, 9 * u.pix)
    pixel = CirclePixelRegion(PixCoord(20, 9), radius=4.3)
    sky = CircleSkyRegion(center, radius=4.3 * smap.scale.axis1 * u.pix)
    for region in (inside, pixel, sky):
        curve = truth.curve(region)
        assert curve.n_pixels == inside.sum()
        np.testing.assert_allclose(curve.em.value, truth.data[:, inside].mean(axis=1))
    assert truth.curve(PointSkyRegion(center)).em[3].value == pytest.approx(truth.data[3, 9, 20])


def test_masked_pixels_are_left_out(truth):
    part = truth[:]
    part.mask = np.indices((32, 32))[0] < 16
    assert part.curve().n_pixels == 512
    np.testing.assert_allclose(part.curve().em.value, truth.data[:, 16:].mean(axis=(1, 2)))


def test_dask_cube(maps):
    dem = invert(maps)
    lazy = invert(maps, chunks=64)
    region = dem.total_em().data > 5e27
    assert 0 < region.sum() < region.size
    np.testing.assert_allclose(lazy.curve(region).em, dem.curve(region).em, rtol=1e-4)


class TestPosterior:
    @pytest.fixture
    def curve(self, cube):
        return cube[:, 60:64, 40:46].curve(n=200)

    def test_is_that_of_the_mean_intensity(self, cube, curve):
        mean = cube[:, 60:64, 40:46].rebin((1, 4, 6))
        expected = mean.distribution(200).distribution[:, 0, 0].T
        np.testing.assert_allclose(curve.draws / curve.draws.sum(), expected / expected.sum(), atol=1e-6)
        np.testing.assert_allclose(curve.em, expected.mean(axis=0), rtol=1e-3)

    def test_interval(self, curve):
        inside = (curve.draws >= curve.lower) & (curve.draws <= curve.upper)
        np.testing.assert_allclose(inside.mean(axis=0)[curve.lower > 0], 0.68, atol=0.02)
        np.testing.assert_allclose(curve.uncertainty, (curve.upper - curve.lower) / 2)

    def test_table(self, curve):
        table = curve.to_table()
        assert table.colnames == ["log_t", "em", "median", "lower", "upper"]
        assert table["em"].unit == "cm-5"
        assert table.meta == {"n_pixels": 24}

    def test_plot(self, curve):
        axes = curve.plot(n_draws=3)
        labels = [patch.get_label() for patch in axes.patches if patch.get_label()]
        assert labels == ["EM, 68 % interval", "EM, median", "EM, mean"]
        assert len(axes.patches) == 6
        plt.close()

    def test_median_is_inside_the_interval(self, curve):
        assert ((curve.lower <= curve.median) & (curve.median <= curve.upper)).all()
        np.testing.assert_array_equal(curve.median, np.median(curve.draws, axis=0))
        np.testing.assert_array_equal(curve.quantiles((0.16, 0.5))[1], curve.median)

    def test_label_and_color(self, curve):
        axes = plt.figure().add_subplot()
        assert curve.plot(axes, label="core", color="red") is axes
        assert axes.patches[1].get_label() == "core, median"
        assert axes.patches[1].get_edgecolor()[:3] == (1, 0, 0)
        plt.close()

    def test_interval_of_synthetic_intensities(self, cube, curve):
        table = curve.intensity_table()
        assert table["channel"].tolist() == [94, 131, 171, 193, 211, 335]
        synthetic = synthetic_intensity(curve.draws.T, cube.response)
        np.testing.assert_allclose(table["lower"], np.quantile(synthetic, 0.15865, axis=1), rtol=1e-5)
        np.testing.assert_allclose(table["upper"], np.quantile(synthetic, 0.84135, axis=1), rtol=1e-5)
        expected = (curve.intensity - curve.synthetic) / curve.intensity_uncertainty
        np.testing.assert_allclose(table["residual"], expected)

    def test_without_posterior(self, truth):
        curve = truth.curve()
        assert curve.draws is curve.lower is curve.upper is curve.uncertainty is None
        assert curve.to_table().colnames == ["log_t", "em"]
        assert "lower" not in curve.intensity_table().colnames
        with pytest.raises(ValueError, match="The curve has no posterior"):
            curve.quantiles(0.5)
        assert len(curve.plot().patches) == 1
        plt.close()

    def test_another_method(self, cube):
        exact = Importance(DEMPrior(), draws=20_000)
        curve = cube[:, 60:64, 40:46].curve(n=50, method=exact)
        assert curve.draws.shape == (50, 18)

    def test_pixels_that_lack_a_channel_are_left_out(self, cube):
        part = cube[:, 60:64, 40:46]
        missing = np.eye(4, 6) > 0
        part.meta["intensity_94"] = np.where(missing, np.nan, part.meta["intensity_94"])
        curve, expected = part.curve(n=8), part.curve(~missing, n=8)
        assert curve.n_pixels == 20
        np.testing.assert_array_equal(curve.em, expected.em)

    def test_channels_saturated_in_some_pixels_are_left_out(self, cube):
        part = cube[:, 60:64, 40:46]
        saturated = np.eye(4, 6) > 0
        part.meta["quality"] = part.quality | np.where(saturated, Quality.SATURATED, 0).astype(np.uint16)
        for name, finite in (("94", [False, *[True] * 5]), ("131", [False, False, *[True] * 4])):
            part.meta[f"intensity_{name}"] = np.where(saturated, np.nan, part.meta[f"intensity_{name}"])
            curve = part.curve(n=8)
            assert curve.n_pixels == 24
            np.testing.assert_array_equal(np.isfinite(curve.intensity), finite)
            assert np.isfinite(curve.em).all()

    def test_saturated_pixels_make_the_mean_a_lower_limit(self, saturated_cube):
        curve = saturated_cube.curve(n=16)
        mean, limited = saturated_cube.rebin((1, -1, -1)).with_limits()
        np.testing.assert_array_equal(np.isnan(curve.intensity), limited[:, 0, 0])
        assert limited[:, 0, 0].tolist() == [False, False, True, False, False, False]
        sigma = curve.intensity_uncertainty.value
        expected = DeepEM.load().sample(mean[:, 0, 0], sigma, 16, lower_limit=limited[:, 0, 0])
        np.testing.assert_allclose(curve.draws.value, expected, rtol=1e-3, atol=1e21)

    def test_too_few_channels(self, cube):
        part = cube[:, 60:64, 40:46]
        for channel in (94, 131, 171, 193):
            part.meta[f"intensity_{channel}"] = np.full((4, 6), np.nan)
        with pytest.raises(ValueError, match="3 or more channels in all its pixels, found 2"):
            part.curve()


def test_loci_are_upper_limits(truth):
    curve = truth.curve()
    loci = curve.loci(truth.response)
    np.testing.assert_array_equal(loci, em_loci(curve.intensity, truth.response))
    lowest = np.interp(curve.bins.centers, np.log10(truth.response.temperature.value), loci.min(axis=0).value)
    assert (curve.em.value < 1.5 * lowest).all()


def test_invalid_region(truth):
    part = truth[:]
    part.mask = np.indices((32, 32))[0] < 16
    frame = truth.total_em().coordinate_frame
    far = SkyCoord(3000 * u.arcsec, 0 * u.arcsec, frame=frame)
    for region, message in (
        (np.indices((32, 32))[0] < 5, r"region holds 160 pixels of the cube, all without data"),
        (CirclePixelRegion(PixCoord(500, 500), radius=3), "region holds no pixel"),
        (far, r"region lies at pixel x = .*, outside the 32 × 32 pixels"),
        (np.zeros((3, 3), dtype=bool), r"shape \(32, 32\) of the field of view, found \(3, 3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            part.curve(region)
    for region, found in (((3, 4), "tuple"), (SkyCoord([0, 1, 2] * u.deg, [0, 1, 2] * u.deg, frame=frame), "3 coord")):
        with pytest.raises(TypeError, match=f"region must be a SkyCoord, .* found {found}"):
            part.curve(region)
    with pytest.raises(TypeError, match="region must have an area or be a point, found LinePixelRegion"):
        part.curve(LinePixelRegion(PixCoord(2, 2), PixCoord(5, 5)))
    with pytest.raises(ValueError, match="curve needs the axes"):
        part[3].curve()
