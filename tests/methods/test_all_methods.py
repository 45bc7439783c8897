"""Tests of `invert` with each method."""

import subprocess
import sys

import numpy as np
import pytest
from helpers import changed

from sunpy_deepem import ChannelStack, DEMCube, LogTBins, Quality, TemperatureResponse, invert
from sunpy_deepem.methods import Demreg, get_method
from sunpy_deepem.sample import sample_maps
from sunpy_deepem.training import BasisPursuit

N = 12


@pytest.fixture(scope="module")
def small():
    return sample_maps((64, 64))


@pytest.fixture(scope="module")
def stack(small):
    return ChannelStack.from_maps(small, shape=N)


def flat(intensity, uncertainty, response):
    """Fit the sum of the channels by the same EM in all bins; no solution where 171 Å is below its median."""
    total = intensity.sum(axis=0) / response.matrix.value.sum()
    em = np.broadcast_to(total, (len(response.bins), *total.shape)).copy()
    return em, np.where(intensity[2] < np.median(intensity[2]), 7, 0)


class TestEveryMethod:
    @pytest.fixture(scope="class", params=["network", "basis-pursuit", "demregpy"])
    @classmethod
    def method(cls, request):
        if request.param == "demregpy":
            pytest.importorskip("demregpy")
        return request.param

    @pytest.fixture(scope="class")
    @classmethod
    def dem(cls, stack, method):
        return invert(stack, method=method)

    def test_returns_a_cube(self, dem, method):
        assert isinstance(dem, DEMCube)
        assert dem.shape == (18, N, N)
        assert dem.meta["provenance"]["method"] == method

    def test_reproduces_the_observed_intensities(self, dem):
        valid = ~dem.sky_mask
        assert valid.mean() > 0.5
        assert np.median(dem.chi2[valid]) < 2.5
        for synthetic, observed in zip(dem.synthesize(), dem.observed_maps(), strict=True):
            assert np.median(np.abs(synthetic.data / observed.data - 1)[valid]) < 0.25

    def test_cube_can_be_written_and_read(self, dem, tmp_path):
        dem.write(tmp_path / "dem.fits")
        again = DEMCube.read(tmp_path / "dem.fits")
        np.testing.assert_array_equal(again.data, dem.data)
        assert (again.uncertainty is None) == (dem.uncertainty is None)

    def test_unsolved_pixels_are_masked(self, dem):
        unsolved = (dem.quality & Quality.UNSOLVED) != 0
        np.testing.assert_array_equal(dem.sky_mask, unsolved)
        assert np.isnan(dem.data[:, unsolved]).all()
        assert np.isfinite(dem.data[:, ~unsolved]).all()


def test_basis_pursuit_alone_gives_the_same_em(stack):
    dem = invert(stack, method="basis-pursuit")
    solution = BasisPursuit().solve(stack.intensity.value, stack.uncertainty.value, TemperatureResponse.default())
    em, status = solution.em, solution.status
    np.testing.assert_array_equal(dem.data[:, status == 0], em[:, status == 0])
    np.testing.assert_array_equal((dem.quality & Quality.UNSOLVED) != 0, status != 0)
    assert dem.uncertainty is None


def test_demregpy_has_an_uncertainty(stack):
    pytest.importorskip("demregpy")
    dem = invert(stack, method="demregpy")
    valid = ~dem.sky_mask
    ratio = dem.uncertainty.array[:, valid].sum(axis=0) / dem.data[:, valid].sum(axis=0)
    assert 0.02 < np.median(ratio) < 2


def test_options_of_a_method(stack):
    strict = invert(stack, method=BasisPursuit(tolerance=0.2, widenings=()))
    wide = invert(stack, method=BasisPursuit(tolerance=1.4))
    assert strict.sky_mask.sum() > wide.sky_mask.sum()
    assert np.nanmedian(strict.chi2) < 0.1 * np.nanmedian(wide.chi2)
    assert strict.meta["provenance"]["method"] == "basis-pursuit"
    assert strict.meta["provenance"]["options"]["tolerance"] == 0.2
    assert strict.meta["provenance"]["unsolved"] == {"INFEASIBLE": int(strict.sky_mask.sum())}


def test_function_as_method(stack):
    dem = invert(stack, method=flat)
    assert dem.meta["provenance"]["method"] == "flat"
    assert dem.meta["provenance"]["unsolved"] == {"7": N * N // 2}
    np.testing.assert_array_equal(dem.sky_mask, (dem.quality & Quality.UNSOLVED) != 0)
    np.testing.assert_allclose(dem.data[0], dem.data[-1])


def test_functions_get_complete_pixels_only(small):
    data = small[1].data.copy()
    data[10, 20] = np.nan

    def all_finite(intensity, uncertainty, response):
        assert np.isfinite(intensity).all()
        return flat(intensity, uncertainty, response)

    dem = invert([small[0], changed(small[1], data=data), *small[2:]], method=all_finite)
    missing = Quality.MISSING | Quality.PARTIAL | Quality.UNSOLVED
    assert dem.quality[10, 20] & missing == missing


def test_other_response_and_bins(stack):
    response = TemperatureResponse.default(eve=False, bins=LogTBins(5.6, 0.2, 8))
    assert invert(stack, method=flat, response=response).shape == (8, N, N)
    with pytest.raises(ValueError, match="response must be that of all six channels"):
        invert(stack, method=flat, response=response.with_channels((171, 193)))


@pytest.mark.parametrize("options", [{"weights": "other.safetensors"}, {"device": "cuda"}])
@pytest.mark.parametrize("method", ["basis-pursuit", "demregpy", flat])
def test_options_of_the_network_raise_for_other_methods(stack, method, options):
    with pytest.raises(TypeError, match=f"{next(iter(options))} is for method='network' only"):
        invert(stack, method=method, **options)


@pytest.mark.parametrize("method", ["basis pursuit", "demreg", None, 3, BasisPursuit])
def test_unknown_method_raises(stack, method):
    with pytest.raises(
        ValueError, match=r"method must be one of 'network', 'basis-pursuit', 'demregpy', an object with a method solve"
    ):
        invert(stack, method=method)


def test_result_of_a_function_is_checked(stack):
    def one_array(*_):
        return np.ones(3)

    with pytest.raises(TypeError, match=r"method 'one_array' must return the pair \(em, status\)"):
        invert(stack, method=one_array)
    with pytest.raises(ValueError, match="negative or not finite"):
        invert(stack, method=lambda g, *_: (np.full((18, g.shape[1]), -1.0), np.zeros(g.shape[1], dtype=int)))


def test_missing_demregpy_names_the_extra(stack, monkeypatch):
    monkeypatch.setitem(sys.modules, "demregpy", None)
    with pytest.raises(ImportError, match=r"sunpy_deepem\[demregpy\]"):
        invert(stack, method=Demreg())


def test_solvers_import_neither_torch_nor_training():
    code = (
        "import sys; from sunpy_deepem.methods import get_method; get_method('basis-pursuit'); "
        "assert not {'torch', 'demregpy', 'sunpy_deepem.training'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_network_is_the_default():
    assert get_method().name == "network"
