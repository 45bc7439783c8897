"""Tests of the method that uses demregpy."""

import sys

import numpy as np
import pytest

from sunpy_deepem import LogTBins, TemperatureResponse, invert
from sunpy_deepem.analysis import fe_xviii_map
from sunpy_deepem.methods import Demreg, SolveStatus, demreg
from sunpy_deepem.sample import real_maps


@pytest.fixture(scope="module")
def response():
    return TemperatureResponse.default()


@pytest.fixture
def pixels(response):
    """Eight pixels of one log-normal component at log T 6.0 to 6.35, σ 10 %, shape (6, 2, 4)."""
    log_t = response.bins.centers[:, np.newaxis]
    em = 1e27 * np.exp(-0.5 * ((log_t - np.linspace(6.0, 6.35, 8)) / 0.15) ** 2)
    intensity = (response.matrix.value @ em).reshape(6, 2, 4)
    return intensity, 0.1 * intensity


def test_missing_demregpy_names_the_extra(response, pixels, monkeypatch):
    monkeypatch.setitem(sys.modules, "demregpy", None)
    with pytest.raises(ImportError, match=r"sunpy_deepem\[demregpy\]"):
        Demreg().solve(*pixels, response)


class TestDemreg:
    @pytest.fixture(autouse=True)
    def _needs_demregpy(self):
        pytest.importorskip("demregpy")

    def test_em_reproduces_the_intensities_of_the_fit(self, response, pixels):
        solution = Demreg().solve(*pixels, response)
        assert (solution.status == 0).all()
        fine = response.with_bins(LogTBins(5.475, 0.05, 36))
        channels_last = (np.moveaxis(array, 0, -1) for array in pixels)
        emd, _, _, _, fitted = demreg._import_dn2dem()(
            *channels_last,
            fine.matrix.value.T,
            fine.bins.centers,
            10**fine.bins.edges,
            dem_norm0=np.ones((2, 4, 36)),
            emd_ret=True,
            **Demreg().options,
        )
        np.testing.assert_allclose(solution.em, np.moveaxis(emd.reshape(2, 4, 18, 2).sum(axis=-1), -1, 0))
        # The matrix of a bin is the mean of those of its two halves.
        synthetic = np.tensordot(response.matrix.value, solution.em, 1)
        np.testing.assert_allclose(synthetic, np.moveaxis(fitted, -1, 0), rtol=0.1)

    def test_hot_core_is_explained_better_than_by_a_plain_call(self):
        cube = invert(real_maps())
        intensity, uncertainty = (array.value.reshape(6, -1) for array in (cube.intensity, cube.intensity_uncertainty))
        hot = np.argsort(np.nan_to_num(fe_xviii_map(cube).data).ravel())[-20:]
        observed = intensity[:, hot], uncertainty[:, hot]
        matrix, bins = cube.response.matrix.value, cube.bins
        plain = demreg._import_dn2dem()(
            observed[0].T, observed[1].T, matrix.T, bins.centers, 10**bins.edges, dem_norm0=np.ones((20, 18))
        )
        em = Demreg().solve(*observed, cube.response).em
        chi2 = (((matrix @ em - observed[0]) / observed[1]) ** 2).mean(axis=0)
        assert np.median(chi2) < np.median(plain[3]) / 2
        assert np.median((matrix @ em)[0] / observed[0][0]) > 0.6

    def test_bad_pixels_get_a_status_and_others_do_not_change(self, response, pixels):
        intensity, uncertainty = pixels
        expected = Demreg().solve(intensity, uncertainty, response).em
        intensity[:, 0, 0] = np.nan
        uncertainty[1, 0, 1] = 0
        intensity[0, 1, 2] = -0.1
        solution = Demreg().solve(intensity, uncertainty, response)
        em, status = solution.em, solution.status
        bad = {(0, 0): SolveStatus.INVALID, (0, 1): SolveStatus.INVALID, (1, 2): SolveStatus.NO_SIGNAL}
        assert {tuple(map(int, index)): status[tuple(index)] for index in np.argwhere(status)} == bad
        assert np.isnan(em[:, status != 0]).all()
        np.testing.assert_allclose(em[:, status == 0], expected[:, status == 0])

    def test_missing_channels_are_left_out(self, response, pixels):
        intensity, uncertainty = pixels
        complete = Demreg().solve(intensity, uncertainty, response).em
        others = response.with_channels([94, 131, 193, 211, 335])
        partial = Demreg().solve(*(np.delete(array, 2, axis=0) for array in pixels), others).em
        missing = np.arange(4) % 2 == 0
        intensity[2, :, missing] = np.nan
        solution = Demreg().solve(intensity, uncertainty, response)
        assert (solution.status == 0).all()
        np.testing.assert_allclose(solution.em[..., missing], partial[..., missing])
        np.testing.assert_allclose(solution.em[..., ~missing], complete[..., ~missing])

    def test_negative_em_has_a_status(self, response, pixels):
        intensity, uncertainty = pixels
        intensity[2] *= 0.05  # no positive EM at the first attempt
        solution = Demreg(max_iter=1).solve(intensity, uncertainty, response)
        em, status = solution.em, solution.status
        assert (status == SolveStatus.NEGATIVE).any()
        assert np.isnan(em[:, status == SolveStatus.NEGATIVE]).all()

    def test_only_the_pixel_with_an_error_fails(self, response, pixels, monkeypatch):
        original = demreg._call_dn2dem

        def fragile(response, options, channels, intensity, uncertainty):
            if (intensity[:, 0] > 1e6).any():
                msg = "SVD did not converge"
                raise np.linalg.LinAlgError(msg)
            return original(response, options, channels, intensity, uncertainty)

        monkeypatch.setattr(demreg, "_call_dn2dem", fragile)
        intensity, uncertainty = pixels
        intensity[0, 1, 1] = 1e7
        status = Demreg().solve(intensity, uncertainty, response).status
        assert status[1, 1] == SolveStatus.SOLVER_FAILED
        assert np.count_nonzero(status) == 1

    @pytest.mark.parametrize("shape", [(), (1,), (2, 4), (0,)])
    def test_shape_of_pixels_is_kept(self, response, pixels, shape):
        n = int(np.prod(shape))
        chosen = (array.reshape(6, -1)[:, :n].reshape(6, *shape) for array in pixels)
        solution = Demreg().solve(*chosen, response)
        em, status = solution.em, solution.status
        assert em.shape == (18, *shape)
        assert status.shape == shape

    def test_blocks_are_joined_in_order(self, response, pixels, monkeypatch):
        whole = Demreg().solve(*pixels, response).em
        monkeypatch.setattr(demreg, "_BLOCK", 3)
        joined = Demreg().solve(*pixels, response).em
        np.testing.assert_allclose(joined, whole)
