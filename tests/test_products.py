"""Fe XVIII and EM loci, by hand."""

import astropy.units as u
import numpy as np
import pytest

from sunpy_deepem.channels import INTENSITY_UNIT
from sunpy_deepem.products import em_loci, fe_xviii, fe_xviii_map


def test_fe_xviii_by_hand():
    intensity = np.array([7.0, 1, 900, 1, 240, 1]) * INTENSITY_UNIT
    assert fe_xviii(intensity) == (7 - 2 - 2) * INTENSITY_UNIT
    line, sigma = fe_xviii(intensity, np.array([3.0, 9, 0, 9, 480, 9]) * INTENSITY_UNIT)
    assert line == 3 * INTENSITY_UNIT
    assert sigma == 5 * INTENSITY_UNIT


def test_fe_xviii_of_maps():
    assert fe_xviii(np.ones((6, 3, 4)) * INTENSITY_UNIT).shape == (3, 4)


def test_fe_xviii_as_a_map_shows_the_hot_core(cube):
    smap = fe_xviii_map(cube)
    line, sigma = fe_xviii(cube.intensity, cube.intensity_uncertainty)
    np.testing.assert_allclose(smap.data, line.value)
    np.testing.assert_allclose(smap.uncertainty.array, sigma.value)
    assert smap.unit == u.DN / u.s
    assert smap.observer_coordinate.radius.to_value("AU") == pytest.approx(0.983, abs=0.001)
    hottest = np.unravel_index(np.argmax(smap.data), smap.data.shape)
    assert cube.em_weighted_log_t()[hottest] > 6.6
    with pytest.raises(TypeError, match="source must be a ChannelStack or a DEMCube"):
        fe_xviii_map(smap)


def test_loci_of_isothermal_plasma_cross_at_its_temperature(response):
    at = 50
    intensity = 1e27 * u.cm**-5 * response.response[:, at]
    loci = em_loci(intensity, response)
    np.testing.assert_allclose(loci[:, at].value, 1e27)
    # Everywhere else some channel allows less than another.
    spread = np.log10((loci.max(axis=0) / loci.min(axis=0)).value)
    assert np.argmin(spread) == at


def test_loci_bound_the_em(response):
    em = np.random.default_rng(0).uniform(0, 1e27, 18)
    loci = em_loci((response.matrix.value @ em) * INTENSITY_UNIT, response)
    lowest = loci.min(axis=0).value
    at_bins = np.interp(response.bins.centers, np.log10(response.temperature.value), lowest)
    assert (em < 1.5 * at_bins).all()


def test_negative_intensity_has_no_locus(response):
    loci = em_loci(np.array([-1.0, 1, 1, 1, 1, 1]) * INTENSITY_UNIT, response)
    assert np.isnan(loci[0]).all()
    assert (loci[1:] > 0).all()


def test_wrong_input(response):
    with pytest.raises(ValueError, match="six channels"):
        fe_xviii(np.ones(5) * INTENSITY_UNIT)
    with pytest.raises(ValueError, match=r"one pixel .* found \(6, 2\)"):
        em_loci(np.ones((6, 2)) * INTENSITY_UNIT, response)
    with pytest.raises(u.UnitsError):
        fe_xviii(np.ones(6) * u.DN)


def test_a_subset_of_channels_in_the_forward_model(cube):
    maps = cube.synthesize(channels=(193, 171))
    assert [smap.wavelength.value for smap in maps] == [193, 171]
    np.testing.assert_array_equal(maps[1].data, cube.synthesize()[2].data)
    for channel in (304, 1600):
        with pytest.raises(ValueError, match="304 Å is optically thick"):
            cube.synthesize(channels=(channel,))


def test_responses_are_written_and_read(response, tmp_path):
    from sunpy_deepem import TemperatureResponse

    path = tmp_path / "response.ecsv"
    for written in (response, response.with_channels((335, 94))):
        written.write(path, overwrite=True)
        again = TemperatureResponse.read(path)
        assert again == written
        assert again.channels == written.channels
        assert again.meta == written.meta
    with pytest.raises(FileExistsError):
        response.write(path)
    path.write_text("not ecsv")
    with pytest.raises(ValueError, match="cannot be read as ECSV"):
        TemperatureResponse.read(path)
    with pytest.raises(FileNotFoundError):
        TemperatureResponse.read(tmp_path / "none.ecsv")
