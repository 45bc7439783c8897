"""Tests of the method that uses demregpy."""

import sys

import numpy as np
import pytest

from sunpy_deepem import TemperatureResponse
from sunpy_deepem.methods import Demreg, SolveStatus, demreg


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
        em, status = solution.em, solution.status
        assert (status == 0).all()
        matrix, bins = response.matrix.value, response.bins
        channels_last = (np.moveaxis(array, 0, -1) for array in pixels)
        fitted = demreg._import_dn2dem()(
            *channels_last, matrix.T, bins.centers, 10**bins.edges, dem_norm0=np.ones((2, 4, 18))
        )[4]
        np.testing.assert_allclose(np.tensordot(matrix, em, 1), np.moveaxis(fitted, -1, 0), rtol=1e-6)

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
