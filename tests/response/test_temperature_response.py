"""The temperature response and its folding onto bins."""

import astropy.units as u
import numpy as np
import pytest

from sunpy_deepem import CHANNELS, LogTBins, TemperatureResponse
from sunpy_deepem.units import RESPONSE_UNIT

LOG_T = np.linspace(5, 8, 301)


def make(curves, log_t=LOG_T, **options):
    curves = np.broadcast_to(curves, (6, len(log_t))) * 1e-26
    return TemperatureResponse(10**log_t * u.K, curves * RESPONSE_UNIT, **options)


class TestFolding:
    def test_constant_curve(self):
        np.testing.assert_allclose(make(np.ones(301)).matrix.value, 1e-26)

    def test_linear_curve(self):
        bins = LogTBins(5.63, 0.07, 9)
        np.testing.assert_allclose(make(LOG_T, bins=bins).matrix[3].value, 1e-26 * bins.centers, rtol=1e-9)

    def test_parabola(self):
        bins = LogTBins(6.0, 0.5, 2)
        matrix = make((LOG_T - 6) ** 2, bins=bins).matrix[0].value
        # The mean of x² from -0.25 to 0.25 is 0.25² / 3.
        np.testing.assert_allclose(matrix, 1e-26 * (np.array([0, 0.25]) + 0.25**2 / 3), rtol=2e-3)

    def test_channels_are_independent(self):
        matrix = make(np.arange(1, 7)[:, np.newaxis]).matrix.value
        np.testing.assert_allclose(matrix, 1e-26 * np.arange(1, 7)[:, np.newaxis] * np.ones(18))

    def test_with_bins(self):
        response = TemperatureResponse.default()
        part = response.with_bins(response.bins[3:9])
        np.testing.assert_allclose(part.matrix, response.matrix[:, 3:9], rtol=1e-9)
        assert part.meta == response.meta

    def test_coarse_bins_are_means_of_fine_bins(self):
        fine = TemperatureResponse.default(bins=LogTBins(5.5, 0.05, 36)).matrix
        coarse = TemperatureResponse.default(bins=LogTBins(5.525, 0.1, 18)).matrix
        np.testing.assert_allclose(coarse.value, fine.value.reshape(6, 18, 2).mean(axis=2), rtol=1e-4)

    def test_matrix_is_a_copy(self):
        response = TemperatureResponse.default()
        before = response.fingerprint
        response.matrix[:] = 0 * RESPONSE_UNIT
        assert response.fingerprint == before


class TestDefault:
    def test_shape_and_unit(self, response):
        assert response.matrix.shape == (6, 18)
        assert response.matrix.unit == u.Unit("cm5 DN / (pix s)")
        assert response.bins == LogTBins()

    @pytest.mark.parametrize(
        ("channel", "peak"), [(94, 6.8), (131, 5.8), (171, 5.9), (193, 6.2), (211, 6.3), (335, 6.4)]
    )
    def test_peak_temperatures(self, response, channel, peak):
        row = response.matrix[CHANNELS.index(channel)]
        assert abs(response.bins.centers[row.argmax()] - peak) < 0.15

    def test_positive(self, response):
        assert (response.matrix.value > 0).all()

    def test_eve_factors(self):
        with_eve = TemperatureResponse.default(chiantifix=False).matrix
        without = TemperatureResponse.default(chiantifix=False, eve=False).matrix
        ratio = (with_eve / without).to_value("")
        np.testing.assert_allclose(ratio, ratio[:, :1] * np.ones(18), rtol=1e-9)
        np.testing.assert_allclose(ratio[:, 0], [0.955, 1.044, 0.968, 1.205, 1.084, 1.273], atol=1e-3)

    def test_chiantifix(self):
        fixed, plain = TemperatureResponse.default().matrix, TemperatureResponse.default(chiantifix=False).matrix
        relative = ((fixed - plain) / plain).to_value("")
        quiet, flare = (np.isin(LogTBins().centers, log_t) for log_t in ((6.1, 6.2), (6.8, 6.9)))
        assert (relative[0, quiet] > 0.5).all()
        # SolarSoft's correction also reduces the flare lines by a quarter.
        np.testing.assert_allclose(relative[0, flare], -0.235, atol=0.01)
        assert not relative[1:].any()

    def test_meta_and_repr(self, response):
        assert response.meta["version"] == 10 or "10" in str(response.meta["version"])
        assert response.meta["eve"] is True
        assert response.meta["chiantifix"] is True
        assert TemperatureResponse.default(eve=False).meta["eve"] is False
        assert response.fingerprint in repr(response)


class TestIdentity:
    def test_equal(self, response):
        assert response == TemperatureResponse.default()
        assert len({response, TemperatureResponse.default()}) == 1

    @pytest.mark.parametrize("other", [{"eve": False}, {"chiantifix": False}, {"bins": LogTBins(5.5, 0.1, 17)}])
    def test_different(self, response, other):
        assert response != TemperatureResponse.default(**other)

    def test_other_types(self, response):
        assert response != "V10"

    def test_rounding_errors_are_ignored(self, response):
        again = TemperatureResponse(response.temperature, response.curves * (1 + 1e-9), bins=response.bins)
        assert again == response


class TestErrors:
    def test_units_are_required(self):
        with pytest.raises(TypeError, match="temperature"):
            TemperatureResponse(10**LOG_T, np.ones((6, 301)) * RESPONSE_UNIT)
        with pytest.raises(u.UnitsError, match="curves"):
            TemperatureResponse(10**LOG_T * u.K, np.ones((6, 301)) * u.cm**3)

    def test_units_are_converted(self, response):
        meters = TemperatureResponse(response.temperature.to(u.MK), response.curves.to("m5 DN / (pix s)"))
        assert meters == response

    @pytest.mark.parametrize("log_t", [LOG_T[::-1], np.full(301, 6.0)])
    def test_temperatures_must_ascend(self, log_t):
        with pytest.raises(ValueError, match="temperature must be one-dimensional and ascending"):
            make(np.ones(301), log_t)

    def test_shape(self):
        with pytest.raises(ValueError, match=r"curves must have shape \(6, 301\).*found \(5, 301\)"):
            TemperatureResponse(10**LOG_T * u.K, np.ones((5, 301)) * RESPONSE_UNIT)

    def test_values_must_be_finite(self):
        with pytest.raises(ValueError, match="curves must be finite, found 6 values"):
            make(np.where(LOG_T == 5, np.nan, 1))

    @pytest.mark.parametrize("log_t", [np.linspace(5.6, 8, 20), np.linspace(5, 7, 20)])
    def test_bins_beyond_the_temperatures(self, log_t):
        with pytest.raises(ValueError, match=r"bins extend from log T 5\.45 to 7\.25, but the response only from"):
            make(np.ones(20), log_t)

    def test_bins_up_to_the_last_temperature(self):
        edges = np.linspace(5.45, 7.25, 19)
        np.testing.assert_allclose(make(np.ones(19), edges).matrix.value, 1e-26)


class TestOtherChannels:
    """Channels of other instruments have names."""

    @staticmethod
    def curves(n=61, **values):
        log_t = np.linspace(5, 8, n)
        return 10**log_t * u.K, {name: np.full(n, value) * RESPONSE_UNIT for name, value in values.items()}

    def test_from_curves(self):
        response = TemperatureResponse.from_curves(*self.curves(one=1e-26, two=2e-26), meta={"origin": "made up"})
        assert response.channels == ("one", "two")
        np.testing.assert_allclose(response.matrix.value, np.outer([1e-26, 2e-26], np.ones(18)))
        assert response.with_channels(["two"]).channels == ("two",)

    def test_join(self, response):
        both = response.join(TemperatureResponse.from_curves(*self.curves(one=1e-26)))
        assert both.channels == (*response.channels, "one")
        np.testing.assert_allclose(both.matrix[:6], response.matrix, rtol=1e-12)
        np.testing.assert_allclose(both.matrix[6].value, 1e-26)
        assert both.with_channels(response.channels) == response

    def test_join_interpolates_in_log_t(self, response):
        temperature, _ = self.curves()
        steep = {"steep": np.log10(temperature.value) * 1e-27 * RESPONSE_UNIT}
        both = response.join(TemperatureResponse.from_curves(temperature, steep))
        np.testing.assert_allclose(both.matrix[6].value, response.bins.centers * 1e-27, rtol=1e-10)

    def test_names_identify_a_response(self):
        one, other = (TemperatureResponse.from_curves(*self.curves(**{name: 1e-26})) for name in ("one", "other"))
        assert one.fingerprint != other.fingerprint

    def test_file(self, tmp_path, response):
        both = response.join(TemperatureResponse.from_curves(*self.curves(**{"XRT Be-thin": 1e-26})))
        both.write(tmp_path / "both.ecsv")
        again = TemperatureResponse.read(tmp_path / "both.ecsv")
        assert again == both
        assert again.channels == (94, 131, 171, 193, 211, 335, "XRT Be-thin")

    @pytest.mark.parametrize("name", ["", " ", "94"])
    def test_invalid_names(self, name):
        with pytest.raises(ValueError, match="names that are not numbers"):
            TemperatureResponse.from_curves(*self.curves(**{name: 1e-26}))

    def test_repeated_and_unknown_channels(self, response):
        with pytest.raises(ValueError, match="each once"):
            response.join(response)
        temperature, curves = self.curves(one=1e-26)
        with pytest.raises(ValueError, match="304"):
            TemperatureResponse.from_curves(temperature, {304: curves["one"]})
        with pytest.raises(TypeError, match="curves must be a dict"):
            TemperatureResponse.from_curves(temperature, list(curves.values()))

    def test_temperatures_must_cover_the_bins(self, response):
        short = 10 ** np.linspace(6, 7, 11) * u.K, {"one": np.ones(11) * 1e-26 * RESPONSE_UNIT}
        with pytest.raises(ValueError, match="bins extend"):
            response.join(TemperatureResponse.from_curves(*short, bins=LogTBins(6.2, 0.1, 5)))
