"""Training a network: `fit`."""

import json
from dataclasses import asdict, replace

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from sunpy_deepem.network.architectures import ScaledNetwork
from sunpy_deepem.network.model import DeepEM
from sunpy_deepem.network.tiles import resolve_device
from sunpy_deepem.response.temperature_response import TemperatureResponse
from sunpy_deepem.training.consistency import fit_consistency
from sunpy_deepem.training.loss import COVERAGE, DEMLoss
from sunpy_deepem.training.options import Checkpoint, TrainingOptions
from sunpy_deepem.training.run import TrainingRun
from sunpy_deepem.units import EM_SCALE
from sunpy_deepem.utils.checks import whole_number
from sunpy_deepem.utils.parallel import background

__all__ = ["calibrate_spread", "fit"]

# Groups of pixels of similar noise in which the spread is calibrated, and how many pixels that takes.
_NOISE_GROUPS, _LEAST_PIXELS = 20, 2000
# Bins with a smaller fraction of a pixel's EM are not used for the calibration.
_LEAST_FRACTION = 0.01
# Pixels calibrated at a time.
_TILE = 65536


def fit(
    training,
    response,
    *,
    validation=None,
    network=(48, 48, 48),
    loss=None,
    options=None,
    checkpoint=None,
    device="auto",
    progress=False,
    **changes,
):
    """
    Train a network.

    On a GPU it trains in mixed precision. The same seed gives the same weights on the same machine, also after a
    training was killed and resumed.

    Parameters
    ----------
    training : `TrainingSet` or `PriorStream`
        Pixels to learn from.
    response : `TemperatureResponse`
        The response of the network.
    validation : `TrainingSet`, optional
        Pixels that decide which epoch's weights are returned, those with the smallest loss; by default the last ones.
    network : `~torch.nn.Module` or sequence of `int`, optional
        A network to start from, or the widths of the hidden layers of a new `~sunpy_deepem.network.ScaledNetwork`.
    loss : `DEMLoss`, optional
        By default ``DEMLoss()``.
    options : `TrainingOptions`, optional
        Epochs, batch size, learning rate and others.
    checkpoint : `Checkpoint`, `str` or `pathlib.Path`, optional
        File that holds the state after each epoch; a `Checkpoint` can be resumed from.
    device : `str`, optional
        As in `DeepEM.predict`.
    progress : `bool`, optional
        Whether to show a progress bar with the losses.
    **changes
        Attributes of `TrainingOptions` that replace those of ``options``, such as ``epochs=60``.

    Returns
    -------
    `DeepEM`
        With the losses of each epoch in ``meta["history"]``, as JSON.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If an option is out of range, the sets do not fit the response, no pixel is usable, the training loss or the
        weights do not stay finite, or the checkpoint is of another run.
    OSError
        If the checkpoint cannot be written.

    Examples
    --------
    >>> from sunpy_deepem.training import DEMPrior, TrainingSet, fit
    >>> response = TemperatureResponse.default()
    >>> pixels = TrainingSet.from_prior(DEMPrior(), response, 500, seed=0)
    >>> network = fit(pixels, response, network=(8,), epochs=1, consistency_epochs=0)
    >>> network.predict(pixels.intensity, pixels.uncertainty)[0].shape
    (18, 500)
    """
    options = replace(TrainingOptions() if options is None else options, **changes)
    checkpoint = checkpoint if isinstance(checkpoint, Checkpoint | None) else Checkpoint(checkpoint)
    _check_types(training, response, validation, loss)
    if options.patience is not None and validation is None:
        msg = "patience needs a validation set; pass validation=."
        raise ValueError(msg)
    loss = DEMLoss() if loss is None else loss
    device = resolve_device(device)
    torch.manual_seed(options.seed)
    matrix = response.matrix.value * EM_SCALE
    module = _module(network, matrix).to(device)
    run = TrainingRun(module, loss, torch.as_tensor(matrix, dtype=torch.float32, device=device), options)
    description = _description(run, response, training)
    if checkpoint is not None and checkpoint.exists:
        run.restore(checkpoint.path, description)

    def prepare(pixels):
        return _tensors(pixels.usable(response, keep_unsolved=options.keep_unsolved), device)

    validation = None if validation is None else prepare(validation)
    bar = tqdm(total=options.epochs, initial=len(run.history), desc="training", unit="epoch", disable=not progress)
    for data in _epochs(training, prepare, run):
        train_loss = run.epoch(data, np.random.default_rng([options.seed, len(run.history)]))
        run.close_epoch(train_loss, None if validation is None else run.evaluate(validation))
        bar.set_postfix({name: f"{value:.4g}" for name, value in run.history[-1].items() if name != "epoch"})
        bar.update()
        if checkpoint is not None:
            run.store(checkpoint.path, description)
    bar.close()
    module.load_state_dict(run.best_state)
    if getattr(loss, "spread", 0) and hasattr(module, "spread_law"):
        calibrate_spread(module, prepare(training.epoch(options.epochs)))
    consistency = None
    if options.consistency_epochs:
        passes = {"epochs": options.consistency_epochs, "keep_unsolved": options.keep_unsolved}
        consistency = fit_consistency(training, response, **passes, seed=options.seed, device=device, progress=progress)
    meta = {"history": json.dumps(run.history), "seed": options.seed, "loss": repr(loss)}
    return DeepEM(module.cpu(), bins=response.bins, response=response, consistency=consistency, meta=meta)


def _epochs(training, prepare, run):
    """Yield the pixels of each epoch; they are drawn while the network is trained on those before."""
    epochs = run.options.epochs
    with background() as executor:

        def draw(epoch):
            return executor.submit(lambda: prepare(training.epoch(epoch))) if epoch < epochs else None

        following = draw(len(run.history))
        while not run.finished:
            data = following.result()
            following = draw(len(run.history) + 1)
            yield data


@torch.no_grad()
def calibrate_spread(module, data):
    """
    Set how the spread of a `~sunpy_deepem.network.ScaledNetwork` depends on the noise.

    Averaged over all pixels, the loss makes EM ± spread hold the truth in 68 % of all cases. In groups of pixels of
    similar noise the interval may be too wide or too narrow; a power law of the noise corrects that.

    Parameters
    ----------
    module : `~sunpy_deepem.network.ScaledNetwork`
    data : sequence of `~torch.Tensor`
        Intensity, σ and true EM, channels or bins first.
    """
    module.eval()
    module.spread_law.zero_()
    if data[0].shape[1] < _LEAST_PIXELS:
        return
    noises, errors = [], []
    for start in range(0, data[0].shape[1], _TILE):
        intensity, uncertainty, truth = (array[None, :, None, start : start + _TILE] for array in data)
        em, spread = module(intensity, uncertainty)
        noise = module.relative(intensity, uncertainty)[1].mean(dim=1)
        relevant = em > _LEAST_FRACTION * em.sum(dim=1, keepdim=True)
        errors.append(torch.where(relevant, (em - truth).abs() / spread, torch.nan)[0, :, 0].cpu().numpy())
        noises.append(noise.flatten().cpu().numpy())
    noise, error = np.concatenate(noises), np.concatenate(errors, axis=1)
    groups = np.array_split(np.argsort(noise), _NOISE_GROUPS)
    width = [np.nanquantile(error[:, group], COVERAGE) for group in groups]
    slope, constant = np.polyfit(np.log2([np.median(noise[group]) for group in groups]), np.log2(width), 1)
    module.spread_law.copy_(torch.tensor([constant, slope]))


def _tensors(pixels, device):
    """Return intensity, σ and EM in the network's unit, channels or bins first."""
    arrays = (pixels.intensity, pixels.uncertainty, pixels.em / np.float32(EM_SCALE))
    return [torch.as_tensor(array, dtype=torch.float32, device=device) for array in arrays]


def _module(network, matrix):
    """Return a given network, or a new one with the given widths of its hidden layers."""
    if isinstance(network, nn.Module):
        return network
    try:
        widths = [whole_number(width, "network: each width") for width in network]
    except TypeError:
        msg = f"network must be a torch.nn.Module or widths of hidden layers, such as (48, 48), found {network!r}."
        raise TypeError(msg) from None
    return ScaledNetwork(matrix.sum(axis=1), matrix.shape[1], widths)


def _description(run, response, training):
    """Return, as JSON, what a resumed run must have in common with the one that it continues."""
    description = asdict(run.options)
    # More patience, or another consistency network, change none of the epochs that are done.
    del description["patience"], description["consistency_epochs"]
    description |= {"loss": repr(run.loss), "response": response.fingerprint}
    description |= {"architecture": run.module.architecture(), "training": training.identity}
    return json.dumps(description, sort_keys=True)


def _check_types(training, response, validation, loss):
    """Raise `TypeError` where an argument of `fit` has the wrong type."""
    for name, value, method in (("training", training, "epoch"), ("validation", validation, "usable")):
        if not hasattr(value, method) and (value is not None or name == "training"):
            msg = (
                f"{name} must be a TrainingSet{' or PriorStream' * (name == 'training')}, found {type(value).__name__}."
            )
            raise TypeError(msg)
    if not isinstance(response, TemperatureResponse):
        msg = f"response must be a TemperatureResponse, found {type(response).__name__}."
        raise TypeError(msg)
    if loss is not None and not callable(loss):
        msg = f"loss must be a DEMLoss or another callable, found {type(loss).__name__}."
        raise TypeError(msg)
