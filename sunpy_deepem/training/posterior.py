"""Training of the posterior: `fit_posterior`."""

import numpy as np
import torch

from sunpy_deepem.network.inputs import network_inputs
from sunpy_deepem.network.posterior import PosteriorNetwork
from sunpy_deepem.network.splits import coordinates
from sunpy_deepem.network.tiles import resolve_device
from sunpy_deepem.training.dataset import PriorStream
from sunpy_deepem.training.fitting import describe_run, pixel_tensors
from sunpy_deepem.training.options import TrainingOptions
from sunpy_deepem.training.run import TrainingRun
from sunpy_deepem.units import EM_SCALE, TRACE

__all__ = ["POSTERIOR_OPTIONS", "fit_posterior", "prior_log_std"]

# Limits of the systematic fraction. The network is asked for no less than 15 %, see network/conditioning.py.
_SYSTEMATIC = (0.08, 0.5)
# Pixels of an epoch, and the fraction of them with all channels. Those without are the harder ones to learn.
_PIXELS, _COMPLETE = 100_000, 0.45
#: Options of the training of the posterior.
POSTERIOR_OPTIONS = TrainingOptions(epochs=480, batch_size=500, learning_rate=5e-3, max_gradient=5.0)
# Seed of the prior's draws for its moments, after that of the training.
_MOMENTS = 3


def fit_posterior(
    prior,
    response,
    *,
    network=None,
    pixels=_PIXELS,
    options=POSTERIOR_OPTIONS,
    checkpoint=None,
    device="auto",
    progress=False,
):
    """
    Train a network that answers with the posterior of the EM under a prior.

    Maximum likelihood of the true EM, of new pixels in every epoch, some without all channels, makes the network's
    mixture the closest one to the posterior in the sense of Kullback and Leibler, averaged over the prior.

    Parameters
    ----------
    prior : `DEMPrior`
    response : `TemperatureResponse`
    network : `~sunpy_deepem.network.PosteriorNetwork`, optional
        A network to start from, by default a new one.
    pixels : `int`, optional
        Pixels drawn in each epoch.
    options : `TrainingOptions`, optional
        Epochs, batch size, learning rate, seed and others.
    checkpoint : `Checkpoint`, optional
        File that holds the state after each epoch.
    device : `str`, optional
        As in `DeepEM.predict`.
    progress : `bool`, optional
        Whether to show a progress bar.

    Returns
    -------
    `~sunpy_deepem.network.PosteriorNetwork`

    References
    ----------
    Papamakarios & Murray (2016), Adv. Neural Inf. Process. Syst. 29, https://arxiv.org/abs/1605.06376
    """
    device = resolve_device(device)
    torch.manual_seed(options.seed)
    stream = PriorStream(prior, response, pixels, seed=options.seed, systematic=_SYSTEMATIC)

    def prepare(epoch):
        pixels, seed = stream.epoch(epoch).usable(response), [options.seed, epoch]
        return pixel_tensors(pixels, response, device, seed=seed, complete=_COMPLETE)

    module = _new_network(response, prepare(options.epochs)) if network is None else network
    module = module.to(device)
    run = TrainingRun(module, _objective, options)
    run.train(
        prepare,
        checkpoint=checkpoint,
        description=describe_run(run, response, training=stream.identity),
        progress=progress,
        name="posterior",
    )
    return module.cpu().eval()


def prior_log_std(prior, *, n=100_000, seed=0):
    """
    Return the standard deviation over the prior of ln(EM of a bin / total EM + ``TRACE``).

    Parameters
    ----------
    prior : `DEMPrior`
    n : `int`, optional
        Number of draws.
    seed : `int`, optional
        Seed of the draws.

    Returns
    -------
    `~numpy.ndarray`
        Shape ``(bins,)``.
    """
    em = prior.sample(n, seed=[seed, _MOMENTS])
    return np.log(em / em.sum(axis=0) + TRACE).std(axis=1)


def _objective(module, intensity, uncertainty, em, flags):
    mixture, brightness = module(intensity, uncertainty, flags)
    return -mixture.log_density(coordinates((em[0, :, 0] / brightness).T)).mean()


def _new_network(response, data):
    """Return a network whose components start around draws of the prior."""
    scale = response.matrix.value.sum(axis=1) * EM_SCALE
    module = PosteriorNetwork(scale, len(response.bins))
    intensity, uncertainty, em, flags = (array[None, :, None, : module.components].cpu() for array in data)
    brightness = network_inputs(intensity, uncertainty, module.channel_scale, flags)[1]
    module.start_from(coordinates((em / brightness)[0, :, 0].T))
    return module
