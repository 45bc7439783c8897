"""All that a weights file for a prior needs, in one call: `train_on_prior`."""

from dataclasses import replace

from sunpy_deepem.training.consistency import fit_consistency
from sunpy_deepem.training.dataset import PriorStream, TrainingSet
from sunpy_deepem.training.fitting import fit, pixel_tensors
from sunpy_deepem.training.options import Checkpoint, TrainingOptions
from sunpy_deepem.training.posterior import POSTERIOR_OPTIONS, fit_posterior, prior_log_std
from sunpy_deepem.training.prior import DEMPrior
from sunpy_deepem.training.spread import match_coverage, match_spread

__all__ = ["train_on_prior"]

# Most pixels to which half-widths are fitted and that the posterior sees in an epoch, and the epoch they are from.
_SPREAD_PIXELS, _POSTERIOR_PIXELS, _SPREAD_EPOCH = 200_000, 100_000, 2**30


def train_on_prior(
    prior,
    response,
    *,
    pixels=400_000,
    network=(48, 48, 48),
    options=None,
    posterior_epochs=POSTERIOR_OPTIONS.epochs,
    checkpoint=None,
    **how,
):
    """
    Train the network, its posterior and the consistency of channels for a prior.

    Parameters
    ----------
    prior : `DEMPrior`
    response : `TemperatureResponse`
    pixels : `int`, optional
        Pixels drawn in each epoch; at most 100,000 of the posterior's.
    network : sequence of `int`, optional
        Widths of the hidden layers of the network of `DeepEM.predict`.
    options : `TrainingOptions`, optional
        Options of that network; its seed is that of all.
    posterior_epochs : `int`, optional
        Epochs of the posterior.
    checkpoint : `Checkpoint`, optional
        File that holds the state of the network after each epoch. That of the posterior is in another file next to it,
        see ``posterior_checkpoint``.
    **how
        ``device`` and ``progress``, as for `fit`.

    Returns
    -------
    `~sunpy_deepem.DeepEM`
    """
    options = TrainingOptions(epochs=200) if options is None else options
    held_out = TrainingSet.from_prior(prior, response, max(1000, pixels // 10), seed=[options.seed, 2**31])
    stream = PriorStream(prior, response, pixels, seed=options.seed)
    result = fit(
        stream,
        response,
        validation=held_out,
        network=network,
        options=replace(options, consistency_epochs=0),
        checkpoint=checkpoint,
        **how,
    )
    result.posterior = fit_posterior(
        prior,
        response,
        pixels=min(pixels, _POSTERIOR_PIXELS),
        options=replace(POSTERIOR_OPTIONS, seed=options.seed, epochs=posterior_epochs),
        checkpoint=None if checkpoint is None else posterior_checkpoint(checkpoint),
        **how,
    )
    result.prior = dict(zip(prior.families, prior.weights.round(6).tolist(), strict=True))
    result.prior_log_std = prior_log_std(prior, seed=options.seed)
    data = PriorStream(prior, response, min(pixels, _SPREAD_PIXELS), seed=options.seed).epoch(_SPREAD_EPOCH)
    data = pixel_tensors(data.usable(response), response, "cpu", seed=[options.seed, _SPREAD_EPOCH])
    match_coverage(result, data, seed=options.seed)
    match_spread(result, data, seed=options.seed)
    if options.consistency_epochs:
        # The Sun as usual: under a prior that allows for anything, hardly any channel is inconsistent.
        usual = PriorStream(DEMPrior.solar(response.bins), response, pixels, seed=options.seed)
        result.consistency = fit_consistency(
            usual, response, epochs=options.consistency_epochs, seed=options.seed, **how
        ).eval()
    return result


def posterior_checkpoint(checkpoint):
    """Return the `Checkpoint` of the posterior, next to that of the network."""
    return Checkpoint(f"{checkpoint.path}.posterior", resume=checkpoint.resume)
