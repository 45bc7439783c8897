"""Training that needs draws from a posterior: `match_coverage` and `fit_to_draws`."""

import numpy as np
import torch
from tqdm.auto import trange

from sunpy_deepem.network.inputs import unused
from sunpy_deepem.network.sampling import half_width
from sunpy_deepem.training.fitting import describe_run
from sunpy_deepem.training.loss import DEMLoss
from sunpy_deepem.training.options import TrainingOptions
from sunpy_deepem.training.run import TrainingRun
from sunpy_deepem.units import COVERAGE, EM_SCALE

__all__ = ["DRAWS_OPTIONS", "fit_to_draws", "match_coverage"]

#: Options of the training of `fit_to_draws`.
DRAWS_OPTIONS = TrainingOptions(epochs=300, batch_size=512, learning_rate=6e-3)

# Calibration: draws of each pixel, the smallest fraction of a pixel's EM in bins that are judged, and factors of the
# widths that are tried.
_COVERAGE_DRAWS, _LEAST_FRACTION = 256, 0.01
_WIDENINGS = (1.0, 1.05, 1.1, 1.2, 1.4, 1.7, 2.0)
# Draws whose mean and half-width a network learns, and number of parts of the pixels with random numbers of their own.
_DRAWS, _PARTS = 64, 40
# Weights in the loss: of the total EM, which the data determine best, of the distance in dex between the distributions,
# of the synthetic intensities in units of σ, and of half-widths, whose errors are far larger than those of means.
_TOTAL, _DISTANCE, _FORWARD, _SPREAD = 5.0, 10.0, 2.0, 0.02
# Half-widths below this fraction of a pixel's total EM are not resolved.
_LEAST_SPREAD = 1e-3


def match_coverage(network, data, *, seed=0):
    """
    Widen the components of a posterior until 68 % intervals of its draws hold the truth in 68 % of the cases.

    The conditioning of draws on the data leaves them somewhat too narrow. This depends on how many channels a pixel
    lacks, and so does the factor. The intervals are those of bins with at least 1 % of the posterior mean EM.

    Parameters
    ----------
    network : `~sunpy_deepem.DeepEM`
        With a posterior, of which ``widening`` is set.
    data : sequence of `~torch.Tensor`
        Intensity, σ, true EM and flags as ``pixel_tensors`` returns them.
    seed : `int`, optional
        Seed of the draws.
    """
    data = [array.cpu() for array in data]
    *observed, limit = _observed(data)
    true = data[2].numpy() * EM_SCALE
    lost = unused(data[3][None])[0].sum(dim=0).numpy()
    # A limit says more about some pixels than others, so that intervals of saturated pixels hold other percentages.
    plain = ~limit.any(dim=0).numpy()
    groups = [plain & (lost == n) if n in lost[plain] else plain for n in range(lost.max() + 1)]
    held = []
    for widening in _WIDENINGS:
        network.posterior.widening = (widening,)
        low, high, relevant = network.map_draws(_interval, *observed, n=_COVERAGE_DRAWS, seed=seed, lower_limit=limit)
        relevant, inside = relevant.astype(bool), (low <= true) & (true <= high)
        held.append([inside[:, group][relevant[:, group]].mean() for group in groups])
    held = np.maximum.accumulate(held, axis=0).T
    network.posterior.widening = tuple(float(np.interp(COVERAGE, row, _WIDENINGS)) for row in held)


def _interval(draws):
    """Return the limits of the 68 % interval of draws, and whether the bin holds at least 1 % of the EM."""
    # With the default method, intervals of few draws are too narrow.
    low, high = np.quantile(draws, (0.5 - COVERAGE / 2, 0.5 + COVERAGE / 2), axis=0, method="hazen")
    mean = draws.mean(axis=0)
    return low, high, mean >= _LEAST_FRACTION * mean.sum(axis=0)


def _observed(data):
    """Return intensity with NaN where a channel is missing, σ, and where intensities are lower limits."""
    missing, limit = data[3].unflatten(0, (2, -1))
    return data[0].masked_fill(missing, torch.nan), data[1], limit


def fit_to_draws(network, data, response, options, *, checkpoint=None, description="", progress=False):
    """
    Train the network of `DeepEM.predict` to answer with the mean and half-width of the posterior's draws.

    The loss also includes the misfit of the intensities, so that the answer explains them somewhat better than the mean
    of the draws does where observations deviate from what the prior expects, as in flares.

    Parameters
    ----------
    network : `~sunpy_deepem.DeepEM`
        With a posterior, and a `~sunpy_deepem.network.ScaledNetwork` that is trained.
    data : sequence of `~torch.Tensor`
        Intensity, σ, true EM and flags as ``pixel_tensors`` returns them; the true EM is not used.
    response : `TemperatureResponse`
    options : `TrainingOptions`
        Epochs, batch size, learning rate and seed.
    checkpoint : `Checkpoint`, optional
        File that holds the state after each epoch.
    description : `str`, optional
        What identifies ``data``.
    progress : `bool`, optional
        Whether to show a progress bar.

    Returns
    -------
    `list` of `dict`
        The losses of each epoch.
    """
    module = network.module
    device = next(module.parameters()).device
    matrix = torch.as_tensor(response.matrix.value * EM_SCALE, dtype=torch.float32, device=device)
    loss, bins = DEMLoss(forward=_FORWARD, spread=0), module.n_bins

    def objective(module, intensity, uncertainty, target, flags):
        em, spread = (values.float() for values in module(intensity, uncertainty, flags))
        mean, half = target[:, :bins], target[:, bins:]
        lost = unused(flags)
        total = mean.sum(dim=1, keepdim=True)
        error = torch.log(spread / total + _LEAST_SPREAD) - torch.log(half / total + _LEAST_SPREAD)
        of_total = em.sum(dim=1, keepdim=True) / total - 1
        distance = response.bins.step * ((em - mean) / total).cumsum(dim=1).abs().sum(dim=1)
        value = loss(em, None, mean, intensity, uncertainty.masked_fill(lost, torch.inf), matrix)
        value = value + _TOTAL * of_total.square().clamp_max(1).mean() + _DISTANCE * distance.mean()
        return value + _SPREAD * error.square().mean()

    run = TrainingRun(module, objective, options)
    weights = [_TOTAL, _DISTANCE, _FORWARD, _SPREAD]
    description = describe_run(run, response, draws=[_DRAWS, _PARTS], weights=weights, data=description)
    *observed, limit = _observed(data)
    mean, half = _moments(network, observed, limit, seed=options.seed, progress=progress)
    target = torch.from_numpy(np.concatenate([mean, half]) / np.float32(EM_SCALE)).to(device)
    pixels = [data[0], data[1], target, data[3]]
    run.train(lambda epoch: pixels, checkpoint=checkpoint, description=description, progress=progress, name="predict")
    module.eval()
    return run.history


def _moments(network, observed, limit, *, seed, progress):
    """Return the mean and half-width of the draws of each pixel, shape ``(bins, n)`` each."""
    n = observed[0].shape[1]
    mean, half = np.empty((2, len(network.bins), n), np.float32)
    # A network would learn the error of the mean of draws whose random numbers are common to all pixels.
    for number in trange(min(_PARTS, n), desc="draws", disable=not progress):
        part = np.s_[:, number::_PARTS]
        mean[part], half[part] = network.map_draws(
            lambda draws: (draws.mean(axis=0), half_width(draws).numpy()),
            *(values[part] for values in observed),
            n=_DRAWS,
            seed=_PARTS * seed + number,
            lower_limit=limit[part],
        )
    return mean, half
