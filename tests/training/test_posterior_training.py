"""Training of the posterior, channels left out at random, and the recipe of weights files."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from sunpy_deepem import DeepEM, LogTBins, invert
from sunpy_deepem.cli import main
from sunpy_deepem.network.splits import coordinates
from sunpy_deepem.sample import sample_maps
from sunpy_deepem.training import Checkpoint, DEMPrior, TrainingOptions, fit_posterior, prior_log_std
from sunpy_deepem.training.flags import drop_channels
from sunpy_deepem.units import TRACE

OPTIONS = TrainingOptions(epochs=3, batch_size=250, learning_rate=3e-3, max_gradient=5.0)


def train(response, **how):
    options = replace(OPTIONS, **how.pop("changes", {}))
    return fit_posterior(DEMPrior(), response, pixels=1000, options=options, device="cpu", **how)


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


@pytest.mark.slow
def test_same_seed_same_weights(response):
    network = train(response)
    assert same(network, train(response))
    assert not same(network, train(response, changes={"seed": 1}))


def test_resumed_training_gives_the_same_weights(response, tmp_path, monkeypatch):
    checkpoint = Checkpoint(tmp_path / "state", resume=True)
    whole = train(response)

    def killed(self, *args):
        raise KeyboardInterrupt

    from sunpy_deepem.training.run import TrainingRun

    evaluated = TrainingRun.close_epoch

    def close(self, *losses):
        if len(self.history) == 2:
            raise KeyboardInterrupt
        evaluated(self, *losses)

    monkeypatch.setattr(TrainingRun, "close_epoch", close)
    with pytest.raises(KeyboardInterrupt):
        train(response, checkpoint=checkpoint)
    monkeypatch.undo()
    assert same(train(response, checkpoint=checkpoint), whole)
    with pytest.raises(ValueError, match="is of another run"):
        train(response, checkpoint=checkpoint, changes={"seed": 1})


@pytest.mark.slow
def test_likelihood_rises(response):
    pixels = DEMPrior().sample(10, seed=0, trace=True)
    assert pixels.min() > 0
    short, longer = (train(response, changes={"epochs": epochs}) for epochs in (1, 8))
    em = DEMPrior().sample(500, seed=5, trace=True)
    intensity = torch.tensor(response.matrix.value @ em, dtype=torch.float32)[None, :, None]
    densities = []
    for network in (short, longer):
        with torch.no_grad():
            mixture, brightness = network(intensity, 0.1 * intensity)
            y = coordinates(torch.tensor(em.T / 1e25).float() / brightness[:, None])
            densities.append(mixture.log_density(y))
    assert densities[1].median() > densities[0].median() + 1


def test_prior_log_std(response):
    prior = DEMPrior()
    em = prior.sample(20_000, seed=9)
    np.testing.assert_allclose(prior_log_std(prior), np.log(em / em.sum(axis=0) + TRACE).std(axis=1), rtol=0.03)


# -- Channels left out -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [3, 4, 6, 9])
def test_dropped_channels(channels):
    rng = np.random.default_rng(0)
    intensity = rng.uniform(1, 100, (channels, 5000)).astype(np.float32)
    found, sigma, flags = drop_channels(intensity, 0.1 * intensity, np.ones(channels), rng=rng)
    missing, limit = flags[:channels], flags[channels:]
    assert not (missing & limit).any()
    lost = (missing | limit).sum(axis=0)
    assert lost.max() == min(3, channels - 3)
    if channels > 3:
        assert np.mean(lost == 0) == pytest.approx(0.6, abs=0.03)
        assert limit.any()
        assert (found[limit] < intensity[limit]).all()
        # Bright channels saturate first.
        assert np.median(intensity[limit]) > np.median(intensity)
    np.testing.assert_array_equal(found[~limit], intensity[~limit])
    np.testing.assert_allclose(sigma, 0.1 * found, rtol=1e-5)


# -- One command -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_train_and_info_from_the_shell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke
    command = ["train", "--prior", "neutral", "--out", "own.safetensors", "--epochs", "1", "--posterior-epochs", "1"]
    result = run(main, [*command, "--pixels", "2500", "--hidden", "8", "-q"])
    assert result.exit_code == 0, result.output
    assert [path.name for path in tmp_path.iterdir()] == ["own.safetensors"]
    network = DeepEM.load("own.safetensors")
    assert network.has_posterior
    assert network.consistency is not None
    assert network.prior == pytest.approx(DEMPrior.NEUTRAL_WEIGHTS)
    assert np.isfinite(network.sample(np.full(6, 10.0), np.full(6, 1.0), n=4)).all()
    printed = " ".join(run(main, ["info", "own.safetensors"]).output.split())
    assert "two components 25.0%" in printed
    assert "Training command " in printed


@pytest.mark.slow
def test_weights_for_plasma_beyond_the_default_bins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["train", "--prior", "--log-t", "5.5", "7.6", "--out", "hot.safetensors", "--pixels", "2500", "-q"]
    result = CliRunner().invoke(main, [*command, "--hidden", "8", "--epochs", "1", "--posterior-epochs", "1"])
    assert result.exit_code == 0, result.output
    network = DeepEM.load("hot.safetensors")
    assert network.bins == LogTBins(5.5, 0.1, 22)
    dem = invert(sample_maps((16, 16)), weights=network)
    assert dem.bins.edges[-1] == pytest.approx(7.65)
    low, high = dem.total_em(7.25, 7.65, quantiles=(0.16, 0.84), n=8)
    assert (high.data >= low.data).all()


def test_hot_families_extend_to_the_last_bin():
    for bins in (LogTBins(), LogTBins(5.5, 0.1, 22)):
        prior = DEMPrior(bins)
        for name in ("flare", "hot component", "isothermal", "components", "two components", "top hat", "power law"):
            em = prior.sample_family(name, 3000, seed=1)
            assert (em.argmax(axis=0) == len(bins) - 1).any(), name
        quiet = prior.sample_family("quiet Sun", 500, seed=1)
        assert (quiet[-1] < 1e-2 * quiet.sum(axis=0)).all()


@pytest.mark.parametrize("log_t", [("5.5", "7.55"), ("7.2", "5.5"), ("5.5", "nan")])
def test_bins_between_steps(log_t, tmp_path):
    command = ["train", "--prior", "--log-t", *log_t, "--out", str(tmp_path / "w.safetensors")]
    assert "--log-t must be two centers in steps of 0.1" in CliRunner().invoke(main, command).output
