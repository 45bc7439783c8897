"""Simulated observations."""

import numpy as np
import pytest

from sunpy_deepem.training import simulate_observation


def test_simulated_noise_matches_sigma(response):
    # Bright enough that σ, estimated from the noisy counts, is close to the width of the noise.
    em = np.repeat(1e29 / 18 * np.ones((18, 1)), 4000, axis=1)
    truth = (response.matrix.value @ em[:, :1])[:, 0]
    for systematic, n_sample in ((0.0, 1), (0.0, 64), (0.1, 16)):
        intensity, sigma = simulate_observation(em, response, seed=1, systematic=systematic, n_sample=n_sample)
        pull = (intensity - truth[:, None]) / sigma
        assert pull.std(axis=1) == pytest.approx(np.ones(6), abs=0.08)
        assert intensity.mean(axis=1) == pytest.approx(truth, rel=0.01)
