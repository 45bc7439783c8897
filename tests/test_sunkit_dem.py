"""The network as a model of sunkit-dem: of the package itself where it is installed, and of a double of it."""

import importlib
import subprocess
import sys

import astropy.units as u
import numpy as np
import pytest
import sunkit_dem_double
from astropy.nddata import StdDevUncertainty
from helpers import true_cube
from ndcube import NDCollection, NDCube

from sunpy_deepem import CHANNELS, DeepEM, LogTBins, TemperatureResponse, invert
from sunpy_deepem.channels import INTENSITY_UNIT
from sunpy_deepem.sample import sample_maps
from sunpy_deepem.sunkit_dem import register_model

N = 16
EDGES = 10 ** LogTBins().edges * u.K


@pytest.fixture(params=["double", "sunkit_dem"])
def package(request, monkeypatch):
    if request.param == "sunkit_dem":
        yield pytest.importorskip("sunkit_dem")
    else:
        monkeypatch.setattr(sunkit_dem_double.GenericModel, "_registry", {})
        monkeypatch.setitem(sys.modules, "sunkit_dem", sunkit_dem_double)
        register_model.cache_clear()
        yield sunkit_dem_double
    register_model.cache_clear()


@pytest.fixture(scope="module")
def observed():
    return true_cube(sample_maps((N, N)), N)


@pytest.fixture(scope="module")
def inverted():
    return invert(sample_maps((N, N)), shape=None, refine=0)


def named(values, name="{}"):
    return {name.format(channel): value for channel, value in zip(CHANNELS, values, strict=True)}


def kernels(name="{}", **options):
    return named(TemperatureResponse.default(**options).matrix, name)


def cubes(observed, name="{}", unit=INTENSITY_UNIT, **options):
    wcs = observed.wcs.celestial
    pairs = zip(observed.intensity, observed.intensity_uncertainty, strict=True)
    values = [
        NDCube(g.value, wcs, unit=unit, uncertainty=StdDevUncertainty(sigma.value), **options) for g, sigma in pairs
    ]
    return NDCollection(list(named(values, name).items()))


def model_of(package, data, kernel=None, edges=EDGES, **options):
    register_model()
    return package.Model(data, kernels() if kernel is None else kernel, edges, model="deepem", **options)


@pytest.mark.parametrize("name", ["{}", "{}.0 Angstrom", "AIA {}", "SDO/AIA 4 {} Å"])
def test_it_answers_as_invert_does(package, observed, inverted, name):
    result = model_of(package, cubes(observed, name), kernels(name)).fit(refine=0)
    assert result["dem"].unit.is_equivalent(u.cm**-5 / u.K)
    good = ~inverted.mask
    np.testing.assert_allclose(result["em"].data[good], inverted.data[good], rtol=1e-5)
    np.testing.assert_allclose((result["dem"].data << result["dem"].unit)[good], inverted.dem[good], rtol=1e-5)
    np.testing.assert_allclose(result["dem"].meta["chi_squared"], inverted.chi2, rtol=1e-4)


def test_the_fit_is_refined_by_default(package, observed):
    chi2 = [model_of(package, cubes(observed)).fit(**how)["dem"].meta["chi_squared"] for how in ({}, {"refine": 0})]
    assert (chi2[0] <= chi2[1] * (1 + 1e-4)).all()
    assert chi2[0].max() < chi2[1].max()


def test_the_order_in_which_sunkit_dem_sorts_would_be_caught(package, observed):
    """94 comes last among texts, so that a model that takes the matrices as they come answers nonsense."""

    class Naive(package.GenericModel):
        def _model(self):
            em, std = DeepEM.load().predict(self.data_matrix, self.uncertainty_matrix)
            return {"dem": em * u.cm**-5, "uncertainty": std * u.cm**-5}

        @classmethod
        def defines_model_for(cls, *args, **kwargs):
            return kwargs.get("model") == "naive"

        def _make_dem_meta(self):
            return {}

    data = cubes(observed)
    naive = package.Model(data, kernels(), EDGES, model="naive").fit()["dem"].data
    right = model_of(package, data).fit()["em"].data
    direct, _ = DeepEM.load().predict(observed.intensity.value, observed.intensity_uncertainty.value)
    totals = [em.sum(axis=0) for em in (naive, right, direct)]
    assert np.nanmedian(np.abs(totals[1] / totals[2] - 1)) < 0.02
    assert np.nanmedian(np.abs(np.log10(totals[0] / totals[2]))) > 0.3


def test_kernels_of_exchanged_channels_are_refused(package, observed):
    kernel = kernels()
    kernel["94"], kernel["131"] = kernel["131"], kernel["94"]
    with pytest.raises(ValueError, match="kernel is not the response for which the network was trained"):
        model_of(package, cubes(observed), kernel).fit()


def test_another_response_is_refused_or_refined_to(package, observed):
    kernel = kernels(eve=False)
    with pytest.raises(ValueError, match=r"335 Å differs by 2\d% of its maximum.*refine=100"):
        model_of(package, cubes(observed), kernel).fit()
    refined = model_of(package, cubes(observed), kernel).fit(refine=100)["em"]
    matrix = TemperatureResponse.default(eve=False).matrix.value
    residual = (np.tensordot(matrix, refined.data, axes=1) - observed.intensity.value) / (
        observed.intensity_uncertainty.value
    )
    assert np.nanmedian(np.mean(residual**2, axis=0)) < 2


def test_kernels_at_other_temperatures(package, observed):
    response = TemperatureResponse.default()
    there = {"kernel": named(response.response), "kernel_temperatures": response.temperature}
    np.testing.assert_array_equal(
        model_of(package, cubes(observed), **there).fit()["em"].data,
        model_of(package, cubes(observed)).fit()["em"].data,
    )


@pytest.mark.parametrize("unit", ["DN / s", "ct / s", "ct / (pix s)"])
def test_units_that_mean_the_same(package, observed, unit):
    same = model_of(package, cubes(observed, unit=u.Unit(unit))).fit()["em"].data
    np.testing.assert_array_equal(same, model_of(package, cubes(observed)).fit()["em"].data)


def test_counts_are_refused(package, observed):
    with pytest.raises(u.UnitConversionError, match=r"data\['94'\] must be in DN.*Divide counts by their exposure"):
        model_of(package, cubes(observed, unit=u.ct / u.pix)).fit()


def test_masked_pixels_have_no_em(package, observed):
    mask = np.zeros((N, N), bool)
    mask[3, 5] = True
    dem = model_of(package, cubes(observed, mask=mask)).fit()["dem"]
    assert np.isnan(dem.data[:, 3, 5]).all()
    np.testing.assert_array_equal(dem.mask, np.broadcast_to(mask, dem.data.shape))
    assert np.isfinite(dem.data[:, 3, 6]).all()


def test_without_uncertainty(package, observed):
    data = cubes(observed)
    data["171"].uncertainty = None
    with pytest.raises(ValueError, match=r"data\['171'\] has no uncertainty"):
        model_of(package, data).fit()


@pytest.mark.parametrize("name", ["channel", "{}-171", "a"])
def test_keys_without_a_wavelength(package, observed, name):
    data = NDCollection([(f"{name}{at}".format(94), cube) for at, cube in enumerate(cubes(observed).values())])
    kernel = dict(zip(data, kernels().values(), strict=True))
    with pytest.raises(ValueError, match="one key for each of"):
        model_of(package, data, kernel).fit()


def test_other_bins(package, observed):
    edges = 10 ** np.linspace(5.5, 7.3, 19) * u.K
    with pytest.raises(ValueError, match=r"temperature_bin_edges must be those of the network, log T 5\.45 to 7\.25"):
        model_of(package, cubes(observed), edges=edges).fit()


def test_it_is_registered_once(package):
    assert register_model() is register_model()
    names = [model.__name__ for model in package.GenericModel._registry]
    assert names.count("DeepEMModel") == 1


def test_nothing_is_imported_before_it_is_asked_for():
    code = "import sys, sunpy_deepem.sunkit_dem; sys.exit('sunkit_dem' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif(importlib.util.find_spec("sunkit_dem") is not None, reason="sunkit-dem is here")
def test_what_to_install():
    register_model.cache_clear()
    with pytest.raises(ImportError, match=r"pip install git\+https://github.com/sunpy/sunkit-dem"):
        register_model()
