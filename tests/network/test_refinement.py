"""Refinement never raises χ², stays positive, and stops at the noise."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sunpy_deepem import DeepEM, TemperatureResponse
from sunpy_deepem.network.refinement import _update_once, refine
from sunpy_deepem.training import DEMPrior, simulate_observation

RESPONSE = TemperatureResponse.default()
MATRIX = RESPONSE.matrix.value


def chi2(em, intensity, uncertainty):
    return np.mean(((MATRIX @ em - intensity) / uncertainty) ** 2, axis=0)


def observed(n=300, **noise):
    em = DEMPrior.solar().sample(n, seed=1, trace=True)
    return em, *simulate_observation(em, RESPONSE, seed=2, **noise)


def test_chi2_above_tolerance_falls_to_target():
    truth, intensity, sigma = observed(systematic=0.05, n_sample=64)
    guess = truth * 10 ** np.random.default_rng(0).normal(0, 0.3, truth.shape)
    refined = refine(guess, intensity, sigma, MATRIX, tolerance=2.0, target=1.0)
    before, after = chi2(guess, intensity, sigma), chi2(refined, intensity, sigma)
    assert (after <= before * (1 + 1e-9)).all()
    assert np.median(before) > 3
    assert np.quantile(after[before > 2], 0.9) <= 1
    np.testing.assert_array_equal(refined[:, before <= 2], guess[:, before <= 2])


def test_single_precision_suffices_for_one_update():
    truth, intensity, sigma = observed(2000, systematic=0.05, n_sample=64)
    guess = truth * 10 ** np.random.default_rng(0).normal(0, 0.1, truth.shape)
    once = refine(guess, intensity, sigma, MATRIX, updates=1, tolerance=0)
    in_single = refine(
        *(array.astype(np.float32) for array in (guess, intensity, sigma)), MATRIX, updates=1, tolerance=0
    )
    assert in_single.dtype == np.float32
    assert (in_single != guess.astype(np.float32)).any(axis=0).mean() > 0.95
    np.testing.assert_allclose(in_single.sum(axis=0), once.sum(axis=0), rtol=1e-3)


def test_small_update_equals_optimal_estimation():
    em = 10 ** np.random.default_rng(1).uniform(24, 27, (18, 20))
    em_std = 1e-3 * em
    intensity = (MATRIX @ em) * np.random.default_rng(0).normal(1, 1e-3, (6, 20))
    sigma = 1e-3 * intensity
    refined = refine(em, intensity, sigma, MATRIX, em_std=em_std, updates=1, tolerance=0)
    for pixel in range(20):
        covariance = np.diag(em_std[:, pixel] ** 2)
        gain = covariance @ MATRIX.T @ np.linalg.inv(MATRIX @ covariance @ MATRIX.T + np.diag(sigma[:, pixel] ** 2))
        expected = gain @ (intensity[:, pixel] - MATRIX @ em[:, pixel])
        np.testing.assert_allclose(
            refined[:, pixel] - em[:, pixel], expected, rtol=0.01, atol=1e-6 * em[:, pixel].max()
        )


def test_updates_keep_the_ratio_of_spread_to_em():
    em = 10 ** np.random.default_rng(1).uniform(24, 27, (18, 20))
    intensity, sigma = 1.5 * (MATRIX @ em), 0.1 * (MATRIX @ em)
    ratio = 0.1
    expected = em.copy()
    for pixel in range(20):
        for _ in range(2):
            spread2 = (ratio * expected[:, pixel]) ** 2
            normal = MATRIX * spread2 @ MATRIX.T + np.diag(sigma[:, pixel] ** 2)
            weights = np.linalg.solve(normal, intensity[:, pixel] - MATRIX @ expected[:, pixel])
            expected[:, pixel] *= np.exp(spread2 / expected[:, pixel] * (MATRIX.T @ weights))
    once, twice = (
        refine(em, intensity, sigma, MATRIX, em_std=ratio * em, updates=updates, tolerance=0, target=0)
        for updates in (1, 2)
    )
    assert (chi2(twice, intensity, sigma) < chi2(once, intensity, sigma)).all()
    np.testing.assert_allclose(twice, expected, rtol=1e-6)


def test_certain_em_changes_least():
    truth, intensity, sigma = observed(100, systematic=0.05, n_sample=64)
    guess, em_std = 2 * truth, truth.copy()
    em_std[:, ::2] *= 1e-3
    refined = refine(guess, intensity, sigma, MATRIX, em_std=em_std, updates=1)
    change = np.abs(refined - guess).sum(axis=0) / guess.sum(axis=0)
    assert np.median(change[1::2]) > 100 * np.median(change[::2])


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), log_scale=st.floats(-2, 2))
def test_never_raises_chi2_and_stays_positive(seed, log_scale):
    rng = np.random.default_rng(seed)
    em = 10 ** rng.uniform(23, 28, (18, 20))
    intensity = (MATRIX @ em) * 10**log_scale * rng.normal(1, 0.5, (6, 20))
    sigma = 0.1 * np.abs(intensity) + 0.01
    refined = refine(em, intensity, sigma, MATRIX, updates=20)
    assert (chi2(refined, intensity, sigma) <= chi2(em, intensity, sigma) * (1 + 1e-4)).all()
    assert refined.min() > 0
    assert np.isfinite(refined).all()


def test_scales_with_brightness():
    truth, intensity, sigma = observed(40)
    one = refine(truth * 1.5, intensity, sigma, MATRIX)
    np.testing.assert_allclose(refine(truth * 3, 2 * intensity, 2 * sigma, MATRIX), 2 * one, rtol=1e-6)


def test_refined_em_is_as_close_to_the_truth():
    truth, intensity, sigma = observed(2000, systematic=0.1, n_sample=64)
    em, _ = DeepEM.load().predict(intensity, sigma)
    refined = refine(em, intensity, sigma, MATRIX)

    def distance(a):
        return np.median(np.abs(np.cumsum(a / a.sum(axis=0) - truth / truth.sum(axis=0), axis=0)).sum(axis=0))

    assert distance(refined) < 1.02 * distance(em)


def test_response_close_to_the_one_of_the_network():
    other = TemperatureResponse.default(obstime="2012-06-01")
    em = DEMPrior().sample(1000, seed=1)
    intensity, sigma = simulate_observation(em, other, seed=2, systematic=0.1)
    found, _ = DeepEM.load().predict(intensity, sigma)
    refined = refine(found, intensity, sigma, other.matrix.value)

    def poor(a):
        return (np.mean(((other.matrix.value @ a - intensity) / sigma) ** 2, axis=0) > 2).mean()

    assert poor(refined) < 0.02 < 0.05 < poor(found)


def test_invalid_pixels_are_unchanged():
    truth, intensity, sigma = observed(5)
    truth[:, 0] = np.nan
    intensity[2, 1] = np.nan
    refined = refine(truth, 2 * intensity, 1e-3 * sigma, MATRIX)
    for pixel in (0, 1):
        np.testing.assert_array_equal(refined[:, pixel], truth[:, pixel])
    assert (refined[:, 2:] != truth[:, 2:]).any()


def test_negative_intensities_leave_little_em():
    truth, intensity, _ = observed(5)
    refined = refine(truth, -intensity, 0.1 * intensity, MATRIX, updates=100)
    assert (refined > 0).all()
    assert (refined.sum(axis=0) < 0.1 * truth.sum(axis=0)).all()


def test_zero_updates_change_nothing():
    truth, intensity, sigma = observed(5)
    np.testing.assert_array_equal(refine(2 * truth, intensity, sigma, MATRIX, updates=0), 2 * truth)


@pytest.mark.parametrize("with_std", [True, False])
def test_in_place(with_std):
    truth, intensity, sigma = observed(systematic=0.05, n_sample=64)
    guess = 2 * truth
    arguments = {"em_std": guess.copy()} if with_std else {}
    expected = refine(guess, intensity, sigma, MATRIX, **arguments)
    np.testing.assert_array_equal(guess, 2 * truth)
    assert refine(guess, intensity, sigma, MATRIX, out=guess, **arguments) is guess
    np.testing.assert_array_equal(guess, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tensors(dtype):
    truth, intensity, sigma = observed(systematic=0.05, n_sample=64)
    arrays = [array.astype(dtype) for array in (2 * truth, intensity, sigma)]
    expected = refine(*arrays, MATRIX, em_std=arrays[0] / 2)
    em, *rest = (torch.from_numpy(array.reshape(len(array), 15, 20)) for array in arrays)
    refined = refine(em, *rest, MATRIX, em_std=em / 2)
    assert (refined.shape, refined.dtype) == (em.shape, em.dtype)
    np.testing.assert_array_equal(refined.reshape(18, -1).numpy(), expected)
    assert refine(em, *rest, MATRIX, em_std=em / 2, out=em) is em
    np.testing.assert_array_equal(em.numpy(), refined.numpy())


def test_tensors_in_bfloat16():
    truth, intensity, sigma = (torch.from_numpy(array) for array in observed(20, systematic=0.05, n_sample=64))
    em = (2 * truth).bfloat16()
    refined = refine(em, intensity, sigma, MATRIX)
    assert refined.dtype == torch.bfloat16
    np.testing.assert_allclose(refined.double(), refine(em.double(), intensity, sigma, MATRIX), rtol=0.01)


def test_updates_run_on_any_device():
    # "meta" computes shapes only; code that runs there needs no data on the CPU.
    em, em_std, intensity, sigma = (torch.empty(n, 5, device="meta") for n in (18, 18, 6, 6))
    with torch.inference_mode():
        chi2 = _update_once(em, em_std, intensity, sigma, torch.empty(6, 18, dtype=torch.float64, device="meta"))
    assert (chi2.shape, chi2.device.type) == ((5,), "meta")


def test_byte_order():
    truth, intensity, sigma = observed(20, systematic=0.05, n_sample=64)
    expected = refine(2 * truth, intensity, sigma, MATRIX)
    em = (2 * truth).astype(">f8")
    refined = refine(em, intensity.astype(">f8"), sigma.astype(">f8"), MATRIX, out=em)
    assert refined is em
    np.testing.assert_array_equal(em, expected)


def test_several_threads(monkeypatch):
    truth, intensity, sigma = observed(systematic=0.05, n_sample=64)
    expected = refine(2 * truth, intensity, sigma, MATRIX)
    monkeypatch.setattr("sunpy_deepem.network.refinement._PART", 100)
    monkeypatch.setattr("sunpy_deepem.network.refinement._TILE", 7)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        refined = refine(2 * truth, intensity, sigma, MATRIX)
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(refined, expected, rtol=1e-9)


def test_out():
    truth, intensity, sigma = observed(5)
    out = np.zeros_like(truth)
    assert refine(2 * truth, intensity, sigma, MATRIX, out=out) is out
    np.testing.assert_array_equal(out, refine(2 * truth, intensity, sigma, MATRIX))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"out": np.ones((18, 5))}, r"ndarray of float64 of shape \(18, 4\), found float64 of shape \(18, 5\)"),
        ({"out": np.ones((18, 4), dtype=np.float32)}, "out must match em, .* of float64 .* found float32"),
        ({"out": np.ones((4, 18)).T}, "out must match em, contiguous and writeable"),
        ({"out": np.broadcast_to(1.0, (18, 4))}, "out must match em, contiguous and writeable"),
        ({"out": torch.ones(18, 4)}, "out must match em, .* found Tensor"),
        ({"out": True}, "out must match em, .* found bool"),
        ({"em": torch.ones(18, 4), "out": np.ones((18, 4))}, "out must match em, .* Tensor of .* found ndarray"),
        ({"em": np.ones((17, 4))}, "matrix must have shape|em must have shape"),
        ({"intensity": np.ones((5, 4))}, "intensity must have shape"),
        ({"uncertainty": np.ones((6, 3))}, "uncertainty must have shape"),
        ({"updates": -1}, "updates must be"),
        ({"updates": 1.5}, "updates must be"),
        ({"target": np.nan}, "target must not be negative"),
    ],
)
def test_bad_input(change, message):
    arguments = {"em": np.ones((18, 4)), "intensity": np.ones((6, 4)), "uncertainty": np.ones((6, 4))} | change
    with pytest.raises(ValueError, match=message):
        refine(matrix=MATRIX, **arguments)


def test_nearly_empty_bins_do_not_overflow():
    """Swapped channels give such bins, with a spread that is far larger."""
    _, intensity, sigma = observed(2000, systematic=0.05, n_sample=64)
    swapped = [0, 1, 5, 3, 4, 2]
    intensity, sigma = intensity[swapped], sigma[swapped]
    em, em_std = DeepEM.load().predict(intensity, sigma)
    assert np.isfinite(refine(em, intensity, sigma, MATRIX, em_std=em_std)).all()
