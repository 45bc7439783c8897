"""Tests of the synthetic Sun."""

import astropy.units as u
import numpy as np
import pytest
import sunpy.map
from astropy.coordinates import SkyCoord
from astropy.time import Time
from sunpy.map.sources import AIAMap

from sunpy_deepem.calibrate.degradation import degradation_factor
from sunpy_deepem.calibrate.photometry import counts_uncertainty, native_pixels
from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.response.temperature_response import TemperatureResponse
from sunpy_deepem.sample import sample_cube, sample_em, sample_maps, sample_regions
from sunpy_deepem.temperature import LogTBins

SHAPE = (128, 128)
LOG_T = LogTBins().centers


@pytest.fixture(scope="module")
def em():
    return sample_em(SHAPE)


@pytest.fixture(scope="module")
def clean():
    return sample_maps(SHAPE, noise=False)


@pytest.fixture(scope="module")
def noisy():
    return sample_maps(SHAPE)


def block_mean(cube, size):
    n = cube.shape[-1] // size
    return cube.reshape(len(cube), n, size, n, size).mean(axis=(2, 4))


def median_total(em, region):
    return np.log10(np.median(em.value.sum(axis=0)[sample_regions(SHAPE)[region]]))


def mean_distribution(em, region):
    mean = em.value[:, sample_regions(SHAPE)[region]].mean(axis=1)
    return mean / mean.sum()


class TestEM:
    def test_shape_and_unit(self, em):
        assert em.shape == (18, *SHAPE)
        assert em.unit == u.Unit("cm-5")
        assert em.dtype == np.float32

    def test_em_is_positive(self, em):
        assert np.isfinite(em).all()
        assert (em.value >= 0).all()
        assert em.value.sum(axis=0).min() > 1e22

    def test_seed(self, em):
        np.testing.assert_array_equal(em, sample_em(SHAPE, seed=0))
        assert not np.allclose(em.value, sample_em(SHAPE, seed=1).value, rtol=0.05)

    @pytest.mark.parametrize(
        ("region", "least", "most"),
        [
            ("quiet Sun", 26.3, 27.0),
            ("coronal hole", 25.8, 26.3),
            ("active region", 27.5, 28.5),
            ("flare", 28.6, 29.3),
        ],
    )
    def test_total_of_each_region(self, em, region, least, most):
        assert least < median_total(em, region) < most

    def test_quiet_sun_is_narrow_and_cool(self, em):
        corona = LOG_T > 5.8
        fraction = mean_distribution(em, "quiet Sun")
        assert LOG_T[corona][fraction[corona].argmax()] in (6.1, 6.2)
        mean = np.average(LOG_T[corona], weights=fraction[corona])
        assert 0.1 < np.sqrt(np.average((LOG_T[corona] - mean) ** 2, weights=fraction[corona])) < 0.2
        assert fraction[LOG_T > 6.55].sum() == 0

    def test_coronal_hole_is_fainter_and_cooler_than_quiet_sun(self, em):
        corona = LOG_T > 5.8
        assert LOG_T[corona][mean_distribution(em, "coronal hole")[corona].argmax()] in (5.9, 6.0)
        assert 3 < 10 ** (median_total(em, "quiet Sun") - median_total(em, "coronal hole")) < 5

    def test_active_region_peaks_near_6_6(self, em):
        fraction = mean_distribution(em, "active region")
        assert LOG_T[fraction.argmax()] in (6.5, 6.6)
        assert fraction[LOG_T > 6.75].sum() < 0.02

    def test_flare_is_hot(self, em):
        assert LOG_T[mean_distribution(em, "flare").argmax()] == 7.0

    def test_corona_falls_with_height(self, em):
        n = SHAPE[0]
        y, x = np.mgrid[:n, :n] - (n - 1) / 2
        radius = np.hypot(x, y) * 2457.6 / n / 976
        total = em.value.sum(axis=0)
        rings = [np.median(total[(radius > r) & (radius < r + 0.05)]) for r in (1.02, 1.1, 1.2, 1.3)]
        assert (np.diff(rings) < 0).all()

    def test_limb_is_brighter_than_disk_center(self, em):
        n = SHAPE[0]
        y, x = np.mgrid[:n, :n] - (n - 1) / 2
        radius = np.hypot(x, y) * 2457.6 / n / 976
        total = em.value.sum(axis=0)
        assert np.median(total[(radius > 0.98) & (radius < 1.02)]) > 1.5 * np.median(total[radius < 0.6])

    def test_coarse_map_is_mean_of_fine_map(self):
        fine, coarse = sample_em((1024, 1024)).value, sample_em((256, 256)).value
        total, expected = coarse.sum(axis=0), block_mean(fine, 4).sum(axis=0)
        assert np.percentile(np.abs(total / expected - 1), 95) < 0.05
        assert total.mean() == pytest.approx(expected.mean(), rel=5e-3)

    def test_mean_is_exact_for_small_maps(self):
        np.testing.assert_allclose(sample_em((32, 32)).value, block_mean(sample_em(SHAPE).value, 4), rtol=1e-4)

    @pytest.mark.parametrize("n", [1, 7, 100])
    def test_any_number_of_pixels(self, n):
        em = sample_em((n, n)).value
        assert em.shape == (18, n, n)
        assert em.sum(axis=0).mean() == pytest.approx(sample_em(SHAPE).value.sum(axis=0).mean(), rel=0.02)

    def test_finer_bins(self, em):
        finer = sample_em(SHAPE, bins=LogTBins(5.475, 0.05, 36)).value
        pairs = finer.reshape(18, 2, *SHAPE).sum(axis=1)
        np.testing.assert_allclose(pairs, em.value, rtol=0.02, atol=1e-3 * em.value.max(axis=0).min())

    def test_sun_is_smaller_in_july(self, em):
        july = sample_em(SHAPE, obstime="2014-07-04").value.sum(axis=0)
        edge = SHAPE[0] // 2, 1
        assert july[edge] < em.value.sum(axis=0)[edge]


class TestMaps:
    def test_channel_order(self, clean):
        assert isinstance(clean, sunpy.map.MapSequence)
        assert all(isinstance(m, AIAMap) for m in clean)
        assert [m.wavelength for m in clean] == [channel * u.angstrom for channel in CHANNELS]

    def test_headers_of_level_1_5(self, clean):
        for m in clean:
            assert m.unit == u.DN
            assert m.processing_level == 1.5
            assert m.meta["quality"] == 0
            assert m.data.dtype == np.float32
            assert abs(m.date - Time("2014-01-01T00:00:00")) < 12 * u.s
            assert u.isclose((m.reference_date - m.date).to("s"), m.exposure_time / 2, atol=0.002 * u.s)
        assert [m.exposure_time.to_value("s").round(1) for m in clean] == [2.9, 2.9, 2.0, 2.0, 2.9, 2.9]
        assert [m.meta["instrume"] for m in clean] == ["AIA_4", "AIA_1", "AIA_3", "AIA_2", "AIA_2", "AIA_1"]

    def test_headers_identify_synthetic_maps(self, clean):
        assert all("synthetic" in m.meta["object"].lower() for m in clean)

    def test_observer_is_near_sdo(self, clean):
        # Reference: the header of SDO's map of 2014-01-01, 94 Å.
        m = clean[0]
        assert u.isclose(m.dsun, 147096660857 * u.m, atol=1e8 * u.m)
        # sunpy corrects for the light travel time, 0.08 degrees of rotation; the header does not.
        assert m.meta["crln_obs"] == pytest.approx(189.4776, abs=0.1)
        assert m.meta["crlt_obs"] == pytest.approx(-3.0045, abs=0.02)
        assert u.isclose(m.rsun_obs, 975.96 * u.arcsec, atol=0.5 * u.arcsec)
        assert m.meta["car_rot"] == 2145

    @pytest.mark.parametrize("n", [64, 101])
    def test_disk_is_centered(self, n):
        m = sample_maps((n, n), noise=False)[2]
        center = m.wcs.world_to_pixel(SkyCoord(0 * u.arcsec, 0 * u.arcsec, frame=m.coordinate_frame))
        np.testing.assert_allclose(center, (n - 1) / 2, atol=1e-6)
        assert u.allclose(u.Quantity(m.scale) * n * u.pix, 2457.6 * u.arcsec)

    def test_limb_agrees_with_header(self):
        m = sample_maps((512, 512), noise=False)[2]
        middle = m.data[246:266].mean(axis=0)
        # Along the equator in the west, without active region, 171 Å is brightest at the limb.
        brightest = 400 + middle[400:].argmax()
        limb = (512 - 1) / 2 + (m.rsun_obs / m.scale.axis1).to_value("pix")
        assert abs(brightest - limb) <= 1

    def test_counts_agree_with_em(self, em, clean):
        expected = np.tensordot(TemperatureResponse.default().matrix.value, em.value.astype(float), axes=1)
        for m, intensity in zip(clean, expected, strict=True):
            channel = int(m.wavelength.value)
            counts = intensity * m.exposure_time.to_value("s") * degradation_factor(channel, m.date)
            np.testing.assert_allclose(m.data, counts, rtol=1e-5)

    def test_counts_with_given_response(self):
        response = TemperatureResponse.default(eve=False, chiantifix=False, bins=LogTBins(5.6, 0.2, 8))
        expected = np.tensordot(response.matrix.value, sample_em((32, 32), bins=response.bins).value, axes=1)
        for m, intensity in zip(sample_maps((32, 32), noise=False, response=response), expected, strict=True):
            factor = degradation_factor(int(m.wavelength.value), m.date)
            np.testing.assert_allclose(m.data, intensity * m.exposure_time.to_value("s") * factor, rtol=1e-5)

    def test_later_maps_are_more_degraded(self):
        early, late = (sample_maps((8, 8), noise=False, obstime=t)[5].data.mean() for t in ("2011-01-01", "2014-01-01"))
        assert late < 0.8 * early

    def test_noise(self, clean, noisy):
        n_sample = native_pixels(u.Quantity(clean[0].scale))
        for truth, seen in zip(clean, noisy, strict=True):
            sigma = counts_uncertainty(truth.data, int(truth.wavelength.value), n_sample=n_sample)
            deviation = (seen.data - truth.data) / sigma
            assert np.mean(deviation**2) == pytest.approx(1, abs=0.05)
            assert np.mean(deviation) == pytest.approx(0, abs=0.03)

    def test_noise_differs_between_channels(self, clean, noisy):
        residuals = [seen.data - truth.data for truth, seen in zip(clean, noisy, strict=True)]
        assert abs(np.corrcoef(residuals[3].ravel(), residuals[4].ravel())[0, 1]) < 0.05

    def test_seed(self, noisy):
        for same, other, m in zip(sample_maps(SHAPE), sample_maps(SHAPE, seed=1), noisy, strict=True):
            np.testing.assert_array_equal(same.data, m.data)
            assert not np.allclose(other.data, m.data, rtol=0.05)

    def test_nothing_is_saturated(self):
        assert max(m.data.max() for m in sample_maps((1024, 1024))) < 15000

    def test_brightness_of_real_sun(self):
        # Medians in DN/s on the disk at solar maximum (2014-01-01), corrected for degradation.
        real = np.array([0.71, 3.4, 120, 151, 41, 1.19]) / [0.914, 0.752, 0.876, 0.887, 0.825, 0.443]
        maps = sample_maps((256, 256), noise=False)
        y, x = np.mgrid[:256, :256] - 127.5
        disk = np.hypot(x, y) * 9.6 < 0.95 * 976
        for m, value in zip(maps, real, strict=True):
            factor = m.exposure_time.to_value("s") * degradation_factor(int(m.wavelength.value), m.date)
            assert np.median(m.data[disk]) / factor == pytest.approx(value, rel=0.25)

    def test_save_and_read(self, noisy, tmp_path):
        path = tmp_path / "aia_171.fits"
        noisy[2].save(path)
        again = sunpy.map.Map(path)
        assert isinstance(again, AIAMap)
        np.testing.assert_array_equal(again.data, noisy[2].data)
        assert again.date == noisy[2].date
        assert again.meta["history"] == noisy[2].meta["history"]


class TestRegions:
    @pytest.mark.parametrize("n", [32, 64, 512])
    def test_masks_do_not_overlap(self, n):
        regions = sample_regions((n, n))
        assert list(regions) == ["quiet Sun", "coronal hole", "active region", "flare", "off limb"]
        assert all(mask.any() and mask.shape == (n, n) and mask.dtype == bool for mask in regions.values())
        assert sum(mask.astype(int) for mask in regions.values()).max() == 1

    @pytest.mark.parametrize("wavelength", [193, 211])
    def test_coronal_hole_is_dark(self, clean, wavelength):
        regions = sample_regions(SHAPE)
        data = clean[CHANNELS.index(wavelength)].data
        assert np.median(data[regions["coronal hole"]]) < 0.4 * np.median(data[regions["quiet Sun"]])

    def test_flare_is_brightest_in_131(self):
        data = sample_maps((256, 256), noise=False)[1].data
        assert sample_regions((256, 256))["flare"][np.unravel_index(data.argmax(), data.shape)]

    def test_other_seed(self):
        em, regions = sample_em(SHAPE, seed=1).value, sample_regions(SHAPE)
        assert em[LOG_T > 6.55][:, regions["quiet Sun"]].max() == 0
        total = em.sum(axis=0)
        assert np.median(total[regions["coronal hole"]]) < 0.4 * np.median(total[regions["quiet Sun"]])
        assert LOG_T[em[:, regions["flare"]].mean(axis=1).argmax()] == 7.0


@pytest.mark.parametrize("function", [sample_em, sample_maps, sample_regions])
class TestInvalidShape:
    @pytest.mark.parametrize("shape", [(0, 0), (-4, -4), (64,), (64, 64, 64), (64, 32)])
    def test_wrong_size(self, function, shape):
        with pytest.raises(ValueError, match="shape must be two equal whole numbers"):
            function(shape)

    @pytest.mark.parametrize("shape", [64, None, (64.0, 64.0), ("64", "64")])
    def test_not_integers(self, function, shape):
        with pytest.raises(TypeError, match="shape must be two equal whole numbers"):
            function(shape)


@pytest.mark.parametrize("function", [sample_em, sample_maps])
def test_invalid_seed(function):
    with pytest.raises(TypeError, match="seed must be a whole number"):
        function((8, 8), seed=1.5)
    with pytest.raises(ValueError, match="seed must not be negative"):
        function((8, 8), seed=-1)


def test_true_cube_fits_noisy_maps():
    cube = sample_cube(SHAPE)
    np.testing.assert_allclose(cube.data, sample_em(SHAPE).value, rtol=1e-6)
    assert cube.uncertainty is None
    # σ includes a systematic error, which the maps lack.
    assert 0.05 < np.median(cube.chi2) < 1
