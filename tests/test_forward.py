"""The forward model: synthetic intensities and maps."""

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np
import pytest
from astropy.time import Time
from helpers import spoiled, true_cube
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sunpy.map import MapSequence
from sunpy.map.sources import AIAMap

from sunpy_deepem import CHANNELS, ChannelStack, TemperatureResponse
from sunpy_deepem.forward import chi_squared, synthetic_intensity
from sunpy_deepem.sample import sample_em, sample_maps
from sunpy_deepem.units import EM_UNIT, INTENSITY_UNIT

RESPONSE = TemperatureResponse.default()
emission_measures = arrays(float, (18, 2), elements=st.floats(0, 1e30))


@pytest.fixture(scope="module")
def observed():
    return sample_maps((32, 32))


@pytest.fixture(scope="module")
def synthetic(observed):
    return true_cube(observed).synthesize()


class TestIntensity:
    @given(emission_measures, emission_measures, st.floats(0, 1e3))
    def test_linear(self, one, other, factor):
        together = synthetic_intensity((one + factor * other) * EM_UNIT, RESPONSE)
        apart = synthetic_intensity(one * EM_UNIT, RESPONSE) + factor * synthetic_intensity(other * EM_UNIT, RESPONSE)
        np.testing.assert_allclose(together.value, apart.value, rtol=1e-9, atol=1e-300)

    def test_single_bin(self):
        for j in range(18):
            em = np.zeros(18)
            em[j] = 3e27
            g = synthetic_intensity(em * EM_UNIT, RESPONSE)
            np.testing.assert_allclose(g.value, 3e27 * RESPONSE.matrix[:, j].value, rtol=1e-12)

    def test_by_hand(self):
        em = np.random.default_rng(0).uniform(0, 1e27, (18, 3, 4))
        g = synthetic_intensity(em * EM_UNIT, RESPONSE)
        assert g.shape == (6, 3, 4)
        assert g.unit == INTENSITY_UNIT
        expected = sum(RESPONSE.matrix[4, j].value * em[j, 1, 2] for j in range(18))
        assert g[4, 1, 2].value == pytest.approx(expected)

    def test_zero(self):
        assert not synthetic_intensity(np.zeros((18, 5)) * EM_UNIT, RESPONSE).value.any()

    def test_nan(self):
        em = np.ones((18, 2)) * EM_UNIT
        em[3, 0] = np.nan
        assert np.isnan(synthetic_intensity(em, RESPONSE)).tolist() == [[True, False]] * 6

    def test_units_are_converted(self):
        in_meters = synthetic_intensity(np.full(18, 1e30) * u.m**-5, RESPONSE)
        np.testing.assert_allclose(in_meters, synthetic_intensity(np.full(18, 1e20) * EM_UNIT, RESPONSE))

    @pytest.mark.parametrize("shape", [(17, 2), (19,), (2, 18)])
    def test_other_bins(self, shape):
        with pytest.raises(ValueError, match="em must have the 18 bins of response along its first axis"):
            synthetic_intensity(np.ones(shape) * EM_UNIT, RESPONSE)

    def test_unit_is_required(self):
        with pytest.raises(TypeError, match="em"):
            synthetic_intensity(np.ones(18), RESPONSE)

    def test_consistent_with_the_sample(self):
        stack = ChannelStack.from_maps(sample_maps((16, 16), noise=False))
        np.testing.assert_allclose(synthetic_intensity(sample_em((16, 16)), RESPONSE), stack.intensity, rtol=1e-5)


class TestMaps:
    def test_type_and_order(self, synthetic):
        assert isinstance(synthetic, MapSequence)
        assert all(isinstance(smap, AIAMap) for smap in synthetic)
        assert [smap.wavelength.to_value("angstrom") for smap in synthetic] == list(CHANNELS)

    def test_headers(self, observed, synthetic):
        for observation, map_ in zip(observed, synthetic, strict=True):
            assert map_.unit == u.DN / u.s
            assert map_.date.isot == observation.date.isot
            assert map_.exposure_time == observation.exposure_time
            assert map_.instrument == observation.instrument
            assert map_.processing_level == 1.5
            assert u.allclose(u.Quantity(map_.scale), u.Quantity(observation.scale))
            assert u.allclose(map_.rsun_obs, observation.rsun_obs, rtol=1e-6)
            for name in ("lon", "lat", "radius"):
                here, there = (getattr(smap.observer_coordinate, name) for smap in (map_, observation))
                assert u.allclose(here, there, rtol=1e-9, atol=1e-9 * here.unit)

    def test_wcs(self, observed, synthetic):
        pixels = np.array([[0, 0], [31, 0], [10.5, 31]])
        for observation, map_ in zip(observed, synthetic, strict=True):
            np.testing.assert_allclose(
                map_.wcs.wcs_pix2world(pixels, 0), observation.wcs.wcs_pix2world(pixels, 0), rtol=0, atol=1e-9
            )

    def test_content(self, synthetic):
        assert all(smap.meta["content"] == "synthetic, from DEM" for smap in synthetic)

    def test_dates(self, synthetic, observed):
        assert len({smap.date.isot for smap in synthetic}) == 6
        assert abs((synthetic[0].reference_date - Time(observed[0].meta["date-obs"])).to_value("s")) < 3

    def test_plot(self, synthetic):
        for smap in synthetic:
            smap.plot(axes=plt.figure().add_subplot(projection=smap))
        plt.close("all")

    def test_mask(self, observed):
        synthetic = true_cube([spoiled(smap, {(4, 5): np.nan}) for smap in observed]).synthesize()
        for smap in synthetic:
            assert np.argwhere(smap.mask).tolist() == [[4, 5]]

    def test_stack_again(self, synthetic):
        again = ChannelStack.from_maps(synthetic, degradation=None)
        for smap, image in zip(synthetic, again.intensity.value, strict=True):
            np.testing.assert_allclose(image, smap.data, rtol=1e-6)
        assert not any(one["registered"] or one["reprojected"] for one in again.inputs)


class TestChiSquared:
    def test_mean_over_channels(self, response):
        em = np.full(18, 1e26) << EM_UNIT
        sigma = 0.1 * synthetic_intensity(em, response)
        off = np.array([0, 0, 3, 0, 0, -1]) * sigma
        assert chi_squared(em, synthetic_intensity(em, response) + off, sigma, response) == pytest.approx(10 / 6)

    def test_zero_sigma(self, response):
        em = np.full(18, 1e26) << EM_UNIT
        exact = synthetic_intensity(em, response)
        assert np.isinf(chi_squared(em, 1.1 * exact, 0 * exact, response))
