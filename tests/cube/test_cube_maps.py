"""Tests of the synthetic, degraded and residual maps of a cube."""

import astropy.units as u
import numpy as np
import pytest
from astropy.time import Time
from helpers import true_cube

from sunpy_deepem import ChannelStack, TemperatureResponse, invert
from sunpy_deepem.calibrate.degradation import correction_table, degradation_factor
from sunpy_deepem.sample import sample_maps


@pytest.fixture(scope="module")
def truth():
    return true_cube(n=32)


def test_synthesize_some_channels(cube):
    maps = cube.synthesize(channels=(193, 171))
    assert [smap.wavelength.value for smap in maps] == [193, 171]
    np.testing.assert_array_equal(maps[1].data, cube.synthesize()[2].data)
    for channel in (304, 1600):
        with pytest.raises(ValueError, match="304 Å is optically thick"):
            cube.synthesize(channels=(channel,))


def test_residual_maps(truth):
    maps = truth.residual_maps()
    np.testing.assert_allclose(sum(smap.data**2 for smap in maps) / 6, truth.chi2, rtol=1e-4)
    observed, synthetic = truth.observed_maps(), truth.synthesize()
    for row, smap in enumerate(maps):
        assert smap.unit == u.one
        assert smap.wavelength == observed[row].wavelength
        residual = (observed[row].data - synthetic[row].data) / truth.intensity_uncertainty[row].value
        np.testing.assert_allclose(smap.data, residual, rtol=1e-4, atol=1e-6)
        assert (smap.uncertainty.array == 1).all()


def table_of_half():
    """Return a table of degradation in which the channels lose half more after launch."""
    table = correction_table()[0].copy()
    table["EFF_AREA"][table["T_START"] > table["T_START"].min()] *= 0.5
    return table


class TestDegraded:
    """Synthetic maps with the degradation of the day."""

    def test_factor_equals_correction(self, truth):
        for plain, degraded, observation in zip(
            truth.synthesize(), truth.synthesize(degraded=True), truth.inputs, strict=True
        ):
            np.testing.assert_array_equal(degraded.data, plain.data * observation["degradation"])
            assert degraded.meta["degrfact"] == observation["degradation"]
            assert observation["degradation"] == pytest.approx(
                degradation_factor(observation["channel"], Time(observation["date"]))
            )
            assert degraded.unit == u.DN / u.s
            assert degraded.meta["content"] == "synthetic, from DEM, degraded"
            assert degraded.exposure_time == plain.exposure_time
            assert "degrfact" not in plain.meta
        assert not (degraded.data == plain.data).all()

    def test_some_channels(self, truth):
        some, every = truth.synthesize((335, 171), degraded=True), truth.synthesize(degraded=True)
        np.testing.assert_array_equal(some[0].data, every[5].data)
        np.testing.assert_array_equal(some[1].data, every[2].data)

    def test_agrees_with_level_1_5(self, truth):
        for raw, degraded, sigma, corrected in zip(
            sample_maps((32, 32)),
            truth.synthesize(degraded=True),
            truth.intensity_uncertainty.value,
            truth.inputs,
            strict=True,
        ):
            rate = raw.data / raw.exposure_time.to_value("s")
            residual = (degraded.data - rate) / (sigma * corrected["degradation"])
            assert np.mean(residual**2) < 1

    def test_can_be_inverted(self, maps):
        cube = invert(maps)
        again = invert(cube.synthesize(degraded=True))
        np.testing.assert_allclose(
            again.intensity.value, [smap.data for smap in cube.synthesize()], rtol=1e-5, atol=1e-5
        )

    def test_degraded_response(self, maps):
        cube = invert(maps, degradation="response", method="basis-pursuit")
        for plain, degraded in zip(cube.synthesize(), cube.synthesize(degraded=True), strict=True):
            np.testing.assert_array_equal(plain.data, degraded.data)
            assert degraded.meta["degrfact"] == 1

    def test_table_of_an_earlier_correction(self, maps):
        table = table_of_half()
        cube = invert(maps, degradation=None, correction_table=table)
        assert cube.meta["provenance"]["correction_table"] == "table given by the user"
        np.testing.assert_array_equal(cube.intensity.value, invert(maps, degradation=None).intensity.value)
        for smap in cube.synthesize(degraded=True):
            factor = degradation_factor(round(smap.wavelength.value), smap.date, table=table)
            assert smap.meta["degrfact"] == pytest.approx(factor)
            assert factor < degradation_factor(round(smap.wavelength.value), smap.date)

    def test_table_of_the_inversion(self, maps):
        table = table_of_half()
        for smap in invert(maps, correction_table=table).synthesize(degraded=True):
            factor = degradation_factor(round(smap.wavelength.value), smap.date, table=table)
            assert smap.meta["degrfact"] == pytest.approx(factor)

    def test_response_of_another_epoch(self, truth):
        part = truth[:]
        part.meta["provenance"] = {}
        epoch = Time("2012-06-01")
        part.meta["response"] = TemperatureResponse.default(obstime=epoch)
        for plain, degraded in zip(part.synthesize(), part.synthesize(degraded=True), strict=True):
            channel = round(plain.wavelength.value)
            factor = degradation_factor(channel, plain.date, epoch=epoch)
            assert degraded.meta["degrfact"] == pytest.approx(factor)
            np.testing.assert_allclose(degraded.data, plain.data * factor)

    def test_real_sun(self, real_sun):
        cube = invert(real_sun, shape=128)
        disc = np.hypot(*(np.indices((128, 128)) - 63.5)) < 45
        raw = ChannelStack.from_maps(real_sun, shape=128, degradation=None)
        for row, smap in enumerate(cube.synthesize(degraded=True)):
            residual = (smap.data - raw.intensity[row].value) / raw.uncertainty[row].value
            assert np.nanmedian(np.abs(residual[disc])) < 1
