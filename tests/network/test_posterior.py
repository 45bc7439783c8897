"""Draws from the posterior: shapes, common random numbers, missing channels, agreement with data and with predict."""

import numpy as np
import pytest
import torch

from sunpy_deepem import DeepEM, TemperatureResponse
from sunpy_deepem.network import PosteriorNetwork
from sunpy_deepem.network.conditioning import (
    Extra,
    Gaussians,
    condition_components,
    condition_draws,
    split_uncertainty,
)
from sunpy_deepem.network.sampling import half_width
from sunpy_deepem.network.splits import coordinates, log_em
from sunpy_deepem.training import DEMPrior, simulate_observation
from sunpy_deepem.units import TRACE

MATRIX = TemperatureResponse.default().matrix.value


@pytest.fixture(scope="module")
def default():
    return DeepEM.load("default")


def observed(n, systematic=0.1, seed=0):
    """Return true EM, intensity and σ of draws from the default prior."""
    rng = np.random.default_rng(seed)
    em = DEMPrior().sample(n, seed=rng)
    noise = {"systematic": systematic, "n_sample": 64}
    return em, *simulate_observation(em, TemperatureResponse.default(), seed=rng, **noise)


def chi2(draws, intensity, sigma):
    return np.mean(((np.einsum("ij,njp->nip", MATRIX, draws) - intensity) / sigma) ** 2, axis=1)


# -- Draws of many pixels --------------------------------------------------------------------------------------------


def test_shapes_and_values(default):
    _, intensity, sigma = observed(12)
    draws = default.sample(intensity.reshape(6, 3, 4), sigma.reshape(6, 3, 4), n=10)
    assert draws.shape == (10, 18, 3, 4)
    assert draws.dtype == np.float32
    assert np.isfinite(draws).all()
    assert (draws >= 0).all()
    assert default.sample(intensity[:, 0], sigma[:, 0], n=10).shape == (10, 18)
    assert default.sample(intensity[:, :0], sigma[:, :0], n=10).shape == (10, 18, 0)


def test_a_part_has_the_draws_of_the_whole(default):
    _, intensity, sigma = observed(300)
    whole = default.sample(intensity, sigma, n=16)
    np.testing.assert_array_equal(default.sample(intensity, sigma, n=16), whole)
    part = default.sample(intensity[:, 70:90], sigma[:, 70:90], n=16)
    # Compared with the total EM, since bins with hardly any EM differ by rounding.
    total = whole.sum(axis=1, keepdims=True)
    assert (np.abs(part - whole[..., 70:90]) < 1e-4 * total[..., 70:90]).all()
    assert (np.abs(default.sample(intensity, sigma, n=5) - whole[:5]) < 1e-4 * total[:5]).all()
    assert (default.sample(intensity, sigma, n=16, seed=1) != whole).any()


def test_neighbors_have_similar_draws(default):
    """The same random numbers in all pixels make each draw a coherent image."""
    _, intensity, sigma = observed(1)
    ramp = np.linspace(1, 1.02, 20)
    total = default.sample(intensity * ramp, sigma * ramp, n=32).sum(axis=1) / 1e27
    steps, spread = np.abs(np.diff(total, axis=1)), total.std(axis=0).mean()
    assert np.median(steps) < 0.05 * spread


def test_tensors_and_numbers_of_threads(default):
    _, intensity, sigma = observed(20)
    on_arrays = default.sample(intensity, sigma, n=8)
    on_tensors = default.sample(torch.tensor(intensity), torch.tensor(sigma), n=8)
    assert isinstance(on_tensors, torch.Tensor)
    np.testing.assert_allclose(on_tensors.numpy(), on_arrays, rtol=1e-3)


def test_reductions_tile_by_tile(default):
    _, intensity, sigma = observed(1000)
    draws = default.sample(intensity, sigma, n=32)
    total = draws.sum(axis=1)
    found, mean = default.map_draws(
        lambda em: (np.median(em.sum(axis=1), axis=0), em.mean(axis=0)),
        intensity.reshape(6, 50, 20),
        sigma.reshape(6, 50, 20),
        n=32,
    )
    np.testing.assert_allclose(found.ravel(), np.median(total, axis=0), rtol=1e-4)
    assert mean.shape == (18, 50, 20)
    for part, tile in default.sample_tiles(intensity, sigma, n=32):
        np.testing.assert_allclose(tile.numpy(), draws[..., part], rtol=1e-3)
    assert part.stop == 1000


# -- What the draws mean ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("systematic", "least", "most"), [(0.0, 0.3, 3), (0.02, 0.3, 3), (0.1, 0.3, 1.6)])
def test_draws_explain_the_data(default, systematic, least, most):
    _, intensity, sigma = observed(200, systematic)
    assert least < np.median(chi2(default.sample(intensity, sigma), intensity, sigma)) < most


@pytest.mark.parametrize("systematic", [0.0, 0.1])
def test_intervals_hold_the_truth(default, systematic):
    """A short simulation-based calibration: ranks of the truth among the draws are uniform."""
    em, intensity, sigma = observed(600, systematic, seed=3)
    quantities = [slice(0, 18), slice(1, 6), slice(5, 9), slice(8, 12), slice(11, 16)]
    values = default.map_draws(
        lambda draws: np.stack([draws[:, part].sum(axis=1) for part in quantities]), intensity, sigma
    )
    truth = np.stack([em[part].sum(axis=0) for part in quantities])
    rng = np.random.default_rng(0)
    rank = (values < truth[:, None]).mean(axis=1) + rng.random(truth.shape) * (values == truth[:, None]).mean(axis=1)
    for row in rank:
        assert 0.6 < np.mean(np.abs(row - 0.5) < 0.34) < 0.76
        assert np.mean(np.abs(row - 0.5) < 0.475) > 0.88
        assert abs(row.mean() - 0.5) < 0.04


def test_zero_is_in_the_interval_of_bins_without_plasma(default):
    truth = np.zeros((18, 1))
    truth[6] = 1e27
    intensity = MATRIX @ truth
    draws = default.sample(intensity, 0.1 * intensity, n=64)
    low, high = np.quantile(draws[:, 15:].sum(axis=1), (0.16, 0.84), axis=0)
    assert low < 3 * TRACE * 1e27
    assert high > 0
    assert 0.1 < (draws[:, 17] == 0).mean() < 0.6
    assert draws[:, 17].max() > TRACE / 100 * 1e27


def test_predict_agrees_with_the_draws(default):
    _, intensity, sigma = observed(500)
    em, em_std = default.predict(intensity, sigma)
    draws = default.sample(intensity, sigma, n=128)
    mean, half = draws.mean(axis=0), half_width(draws).numpy()
    large = mean > 0.1 * mean.sum(axis=0)
    assert np.median(np.abs(em / mean - 1)[large]) < 0.15
    assert np.median(em_std[large] / half[large]) == pytest.approx(1, abs=0.15)
    assert np.median(np.abs(em.sum(axis=0) / mean.sum(axis=0) - 1)) < 0.05


def test_predict_is_the_mean_of_draws_at_low_noise(default):
    _, intensity, sigma = observed(100, systematic=0.01)
    em, em_std = default.predict(intensity, sigma)
    draws = default.sample(intensity, sigma)
    sharp = (sigma / np.abs(intensity)).min(axis=0) < 0.04
    np.testing.assert_allclose(em[:, sharp], draws.mean(axis=0)[:, sharp], rtol=2e-3)
    np.testing.assert_allclose(em_std[:, sharp], half_width(draws).numpy()[:, sharp], rtol=2e-2, atol=1e20)


def test_predict_has_no_seam_between_network_and_draws(default):
    _, intensity, _ = observed(1)
    noise = np.linspace(0.03, 0.09, 200)
    em = default.predict(np.repeat(intensity, 200, axis=1), intensity * noise)[0]
    steps = np.abs(np.diff(em, axis=1)).sum(axis=0) / em.sum(axis=0)[1:]
    assert steps.max() < 0.05


def test_predict_is_the_mean_of_draws_where_the_network_misses_partial_data(default, monkeypatch):
    """The mean explains the channels that a pixel of a flare has left."""
    _, intensity, sigma = observed(2000)
    intensity[[2, 3], ::2] = np.nan
    partial = np.arange(2000) % 2 == 0
    # Contradicts the other channels.
    intensity[4, ::8], sigma[4, ::8] = 50 * intensity[4, ::8], 50 * sigma[4, ::8]
    limit = np.zeros(intensity.shape, dtype=bool)
    limit[5, 1::4] = True
    saturated = limit.any(axis=0)

    def chi2(em):
        return np.nanmean(np.where(limit, np.nan, (MATRIX @ em - intensity) / sigma) ** 2, axis=0)

    em, em_std = default.predict(intensity, sigma, lower_limit=limit)
    monkeypatch.setattr(type(default), "_sharpen", lambda *_: None)
    blunt, _ = default.predict(intensity, sigma, lower_limit=limit)
    draws = default.sample(intensity, sigma, lower_limit=limit)
    mean, half = draws.mean(axis=0), half_width(draws).numpy()
    for where in (partial & (chi2(blunt) > 2.1) & (chi2(mean) < 1.9), saturated):
        assert where.sum() > 20
        np.testing.assert_allclose(em[:, where], mean[:, where], rtol=2e-3, atol=1e20)
        np.testing.assert_allclose(em_std[:, where], half[:, where], rtol=2e-2, atol=1e20)
    # The network is used where all channels are there, where it explains them, and where draws do not.
    for where in (~partial & ~saturated, partial & (chi2(blunt) < 0.9), partial & (chi2(mean) > 4.1)):
        assert where.sum() > 5
        np.testing.assert_array_equal(em[:, where], blunt[:, where])


# -- Channels --------------------------------------------------------------------------------------------------------


def test_fewer_channels_widen_the_interval(default):
    _, intensity, sigma = observed(300)
    fewer = intensity.copy()
    fewer[[0, 3]] = np.nan
    width = [half_width(default.sample(g, sigma)[:, 11:16].sum(axis=1)).median() for g in (intensity, fewer)]
    assert width[1] > width[0]
    nothing = np.full_like(intensity, np.nan)
    nothing[:2] = intensity[:2]
    assert np.isnan(default.sample(nothing, sigma, n=4)).all()


def test_infinite_sigma_leaves_a_channel_out(default):
    _, intensity, sigma = observed(50)
    gone, infinite = intensity.copy(), sigma.copy()
    gone[2], infinite[2] = np.nan, np.inf
    np.testing.assert_allclose(
        default.sample(gone, sigma, n=8), default.sample(intensity, infinite, n=8), rtol=1e-3, atol=1e18
    )


@pytest.mark.parametrize(("channel", "factor"), [(1, 0.3), (2, 0.3), (3, 0.3), (0, 1.5), (4, 1.5)])
def test_saturated_channels_are_lower_limits(default, channel, factor):
    """Also where the other channels expect less, as in flares, whose hottest plasma the prior does not know."""
    _, intensity, sigma = observed(300)
    limit = np.zeros(intensity.shape, dtype=bool)
    limit[channel] = True
    intensity, sigma = (np.where(limit, factor, 1) * values for values in (intensity, sigma))
    draws = default.sample(intensity, sigma, lower_limit=limit)
    assert np.mean(np.einsum("j,njp->np", MATRIX[channel], draws) >= intensity[channel]) > 0.84
    em, _ = default.predict(intensity, sigma, lower_limit=limit)
    assert np.mean(MATRIX[channel] @ em >= intensity[channel]) > 0.84


# -- Conditioning ----------------------------------------------------------------------------------------------------


def test_split_uncertainty_adds_up():
    intensity, sigma = torch.tensor([1.0, 100.0, -1.0]), torch.tensor([0.1, 1.0, 0.5])
    coarse, fraction = split_uncertainty(intensity, sigma)
    np.testing.assert_allclose((coarse**-2 + (fraction / sigma) ** 2).numpy(), (sigma**-2).numpy(), rtol=1e-5)
    assert (coarse >= sigma).all()
    assert coarse[2] == 0.5  # the whole of a negative intensity is for the network


def test_conditioning_is_exact_for_a_nearly_linear_model():
    """A narrow Gaussian: mean, covariance and evidence are those of the linear problem."""
    torch.manual_seed(0)
    bins, channels, n = 4, 3, 4000
    mean, scale = torch.randn(1, 1, bins), torch.full((1, 1, bins), 0.01)
    gaussians = Gaussians(mean, scale, torch.eye(bins)[None])
    matrix = torch.rand(1, channels, bins) * 100

    def synthesize(y):
        return matrix[0] @ log_em(y).exp()

    exact = torch.func.jacrev(synthesize)(mean[0, 0]) * scale[0, 0]
    extra = Extra(synthesize(mean[0, 0])[None] + 0.5, matrix, torch.full((1, bins), 3000.0))
    y, log_evidence = condition_components(gaussians, extra)
    covariance = torch.linalg.inv(torch.eye(bins) + exact.T @ exact)
    expected = covariance @ exact.T @ torch.full((channels,), 0.5)
    moved = (y - mean)[0, 0] / scale[0, 0]
    np.testing.assert_allclose(moved.numpy(), expected.numpy(), atol=0.02)
    data = torch.eye(channels) + exact @ exact.T
    half = torch.full((channels,), 0.5)
    exact_evidence = -0.5 * (half @ torch.linalg.solve(data, half) + torch.logdet(data))
    assert log_evidence.item() == pytest.approx(exact_evidence.item(), abs=0.03)
    index = torch.zeros(1, n, dtype=torch.long)
    gaussians = gaussians.take(index)
    anchor = gaussians.draw(torch.randn(1, n, bins))
    em = condition_draws(anchor, anchor, torch.randn(n, channels), gaussians, extra)
    z = ((coordinates(em) - mean) / scale)[0]
    np.testing.assert_allclose(z.mean(dim=0).numpy(), expected.numpy(), atol=0.06)
    np.testing.assert_allclose(torch.cov(z.T).numpy(), covariance.numpy(), atol=0.06)


def test_density_of_the_mixture_is_normalized():
    torch.manual_seed(0)
    network = PosteriorNetwork(np.ones(3), 2, hidden=(8,), components=3)
    network.start_from(torch.randn(3, 2))
    with torch.no_grad():
        mixture, _ = network(torch.ones(1, 3, 1, 1), torch.ones(1, 3, 1, 1))
        axis = torch.linspace(-12, 12, 400)
        grid = torch.cartesian_prod(axis, axis)
        repeated = type(mixture)(*(values.expand(len(grid), *values.shape[1:]) for values in mixture))
        total = torch.exp(repeated.log_density(grid)).sum() * (axis[1] - axis[0]) ** 2
    assert total.item() == pytest.approx(1, abs=0.01)
    factor = mixture.factor()[0]
    np.testing.assert_allclose((factor @ mixture.inverse_factor[0]).numpy(), np.eye(2), atol=1e-6)


@pytest.mark.parametrize("systematic", [0.0, 0.1])
def test_contradictory_channels_have_finite_draws(default, systematic):
    _, intensity, sigma = observed(500, systematic)
    swapped = [0, 1, 5, 3, 4, 2]
    assert np.isfinite(default.sample(intensity[swapped], sigma[swapped], n=16)).all()
    for values in default.predict(intensity[swapped], sigma[swapped]):
        assert np.isfinite(values).all()


# -- Bad input and weights -------------------------------------------------------------------------------------------


def test_bad_input(default):
    ones = np.ones((6, 3))
    with pytest.raises(ValueError, match="positive wherever"):
        default.sample(ones, 0 * ones)
    with pytest.raises(ValueError, match="lower_limit must have the shape"):
        default.sample(ones, ones, lower_limit=np.ones((6, 2), dtype=bool))
    with pytest.raises(ValueError, match="n must be a positive whole number"):
        default.sample(ones, ones, n=0)
    with pytest.raises(ValueError, match="seed must be"):
        default.sample(ones, ones, seed=-1)
    without = DeepEM(default.module, bins=default.bins)
    assert not without.has_posterior
    with pytest.raises(ValueError, match="no posterior"):
        without.sample(ones, ones)


@pytest.mark.parametrize("name", ["default", "neutral"])
def test_packaged_weights(name):
    network = DeepEM.load(name)
    assert network.has_posterior
    assert sum(network.prior.values()) == pytest.approx(1, abs=1e-4)
    assert network.prior_log_std.shape == (18,)
    assert (network.prior_log_std > 1).all()


def test_save_and_load(default, tmp_path):
    default.save(tmp_path / "weights.safetensors")
    again = DeepEM.load(tmp_path / "weights.safetensors")
    _, intensity, sigma = observed(10)
    np.testing.assert_array_equal(again.sample(intensity, sigma, n=4), default.sample(intensity, sigma, n=4))
    assert again.prior == default.prior
    assert again.fingerprint == default.fingerprint
    np.testing.assert_array_equal(again.prior_log_std, default.prior_log_std)
    again.posterior.layers[0].bias.data[0] = torch.nan
    assert again.fingerprint != default.fingerprint
    again.save(tmp_path / "nan.safetensors")
    with pytest.raises(ValueError, match="not finite: posterior"):
        DeepEM.load(tmp_path / "nan.safetensors")
