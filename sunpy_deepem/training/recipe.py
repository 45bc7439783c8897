"""All that a weights file for a prior needs, in one call: `train_on_prior`."""

import json
from dataclasses import replace

import torch

from sunpy_deepem.network.architectures import ScaledNetwork
from sunpy_deepem.network.model import DeepEM
from sunpy_deepem.network.tiles import resolve_device
from sunpy_deepem.training.consistency import fit_consistency
from sunpy_deepem.training.dataset import PriorStream, TrainingSet
from sunpy_deepem.training.draws import DRAWS_OPTIONS, fit_to_draws, match_coverage
from sunpy_deepem.training.fitting import pixel_tensors
from sunpy_deepem.training.options import Checkpoint
from sunpy_deepem.training.posterior import POSTERIOR_OPTIONS, fit_posterior, prior_log_std
from sunpy_deepem.training.prior import DEMPrior
from sunpy_deepem.units import EM_SCALE

__all__ = ["train_on_prior"]

# Most pixels that the posterior sees in an epoch, and the epoch from which the pixels with draws are.
_POSTERIOR_PIXELS, _DRAWN_EPOCH = 100_000, 2**30
# Limits of their systematic fraction, and the fraction of them with all channels. Where σ is smaller, `DeepEM.predict`
# answers with draws.
_DRAWN_SYSTEMATIC, _DRAWN_COMPLETE = (0.05, 0.3), 0.7
# Pixels of the calibration, and their noise: the default systematic error, and that of images of 512² pixels.
_COVERAGE_PIXELS, _COVERAGE_NOISE = 50_000, {"systematic": 0.1, "n_sample": 64}


def train_on_prior(
    prior,
    response,
    *,
    pixels=400_000,
    network=(48, 48, 48),
    options=DRAWS_OPTIONS,
    posterior_epochs=POSTERIOR_OPTIONS.epochs,
    checkpoint=None,
    device="auto",
    progress=False,
):
    """
    Train a posterior for a prior, the network that predicts its mean, and the one that compares channels.

    Parameters
    ----------
    prior : `DEMPrior`
    response : `TemperatureResponse`
    pixels : `int`, optional
        Pixels with draws, from which `DeepEM.predict` is trained; at most 100,000 in each epoch of the posterior.
    network : sequence of `int`, optional
        Widths of the hidden layers of the network of `DeepEM.predict`.
    options : `TrainingOptions`, optional
        Options of that network; its seed is that of all.
    posterior_epochs : `int`, optional
        Epochs of the posterior.
    checkpoint : `Checkpoint`, optional
        File that holds the state of the network after each epoch. That of the posterior is in another file next to it,
        see ``posterior_checkpoint``.
    device, progress
        As for `fit`.

    Returns
    -------
    `~sunpy_deepem.DeepEM`
    """
    device = resolve_device(device)
    posterior = fit_posterior(
        prior,
        response,
        pixels=min(pixels, _POSTERIOR_PIXELS),
        options=replace(POSTERIOR_OPTIONS, seed=options.seed, epochs=posterior_epochs),
        checkpoint=None if checkpoint is None else posterior_checkpoint(checkpoint),
        device=device,
        progress=progress,
    )
    torch.manual_seed(options.seed)
    module = ScaledNetwork(response.matrix.value.sum(axis=1) * EM_SCALE, len(response.bins), network)
    result = DeepEM(module.to(device), bins=response.bins, response=response, meta={"seed": options.seed})
    result.posterior = posterior
    result.prior = dict(zip(prior.families, prior.weights.round(6).tolist(), strict=True))
    result.prior_log_std = prior_log_std(prior, seed=options.seed)

    seed = [options.seed, _DRAWN_EPOCH]

    def tensors_of(drawn, **dropped):
        return pixel_tensors(drawn.usable(response), response, device, seed=seed, **dropped)

    few = TrainingSet.from_prior(prior, response, min(pixels, _COVERAGE_PIXELS), seed=seed, **_COVERAGE_NOISE)
    match_coverage(result, tensors_of(few), seed=options.seed)
    stream = PriorStream(prior, response, pixels, seed=options.seed, systematic=_DRAWN_SYSTEMATIC)
    data = tensors_of(stream.epoch(_DRAWN_EPOCH), complete=_DRAWN_COMPLETE)
    history = fit_to_draws(
        result,
        data,
        response,
        options,
        checkpoint=checkpoint,
        description=stream.identity,
        progress=progress,
    )
    result.meta["history"] = json.dumps(history)
    module.cpu()
    if options.consistency_epochs:
        # The Sun as usual: under a prior that allows for anything, hardly any channel is inconsistent.
        usual = PriorStream(DEMPrior.solar(response.bins), response, pixels, seed=options.seed)
        result.consistency = fit_consistency(
            usual, response, epochs=options.consistency_epochs, seed=options.seed, device=device, progress=progress
        ).eval()
    return result


def posterior_checkpoint(checkpoint):
    """Return the `Checkpoint` of the posterior, next to that of the network."""
    return Checkpoint(f"{checkpoint.path}.posterior", resume=checkpoint.resume)
