"""Training a network: `fit`."""

import json
from dataclasses import asdict, replace

import numpy as np
import torch
from torch import nn

from sunpy_deepem.network.architectures import ScaledNetwork
from sunpy_deepem.network.inputs import unused
from sunpy_deepem.network.model import DeepEM
from sunpy_deepem.network.tiles import resolve_device
from sunpy_deepem.response.temperature_response import TemperatureResponse
from sunpy_deepem.training.consistency import fit_consistency
from sunpy_deepem.training.flags import drop_channels
from sunpy_deepem.training.loss import DEMLoss
from sunpy_deepem.training.options import Checkpoint, TrainingOptions
from sunpy_deepem.training.run import TrainingRun
from sunpy_deepem.training.spread import calibrate_spread
from sunpy_deepem.units import EM_SCALE
from sunpy_deepem.utils.checks import whole_number

__all__ = ["describe_run", "fit", "pixel_tensors"]

# Seeds, after that of the training: of the channels left out, and instead of the epoch for the validation set.
_DROPPED, _VALIDATION = 1, 2**31


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
    matrix = torch.as_tensor(matrix, dtype=torch.float32, device=device)
    run = TrainingRun(module, _objective(loss, matrix), options)

    def prepare(pixels, *seed):
        pixels = pixels.usable(response, keep_unsolved=options.keep_unsolved)
        return pixel_tensors(pixels, response, device, seed=[options.seed, *seed])

    run.train(
        lambda epoch: prepare(training.epoch(epoch), epoch),
        None if validation is None else prepare(validation, _VALIDATION),
        checkpoint=checkpoint,
        description=describe_run(run, response, training=training.identity, loss=repr(loss)),
        progress=progress,
    )
    if getattr(loss, "spread", 0) and hasattr(module, "spread_law"):
        calibrate_spread(module, prepare(training.epoch(options.epochs), options.epochs))
    consistency = None
    if options.consistency_epochs:
        passes = {"epochs": options.consistency_epochs, "keep_unsolved": options.keep_unsolved}
        consistency = fit_consistency(training, response, **passes, seed=options.seed, device=device, progress=progress)
    meta = {"history": json.dumps(run.history), "seed": options.seed, "loss": repr(loss)}
    return DeepEM(module.cpu(), bins=response.bins, response=response, consistency=consistency, meta=meta)


def _objective(loss, matrix):
    """Return the objective of a `TrainingRun` for a loss on the EM and its spread."""

    def objective(module, intensity, uncertainty, truth, flags):
        em, spread = module(intensity, uncertainty, flags if module.needs_uncertainty else None)
        spread = None if spread is None else spread.float()
        # Channels without σ to judge by are left out of the loss.
        return loss(em.float(), spread, truth, intensity, uncertainty.masked_fill(unused(flags), torch.inf), matrix)

    return objective


def pixel_tensors(pixels, response, device, *, seed, **dropped):
    """
    Return the pixels of a training set as tensors, with channels left out at random, see `drop_channels`.

    Returns
    -------
    intensity, uncertainty, em, flags : `~torch.Tensor`
        Channels or bins first, EM in units of 10^25 cm^-5, flags as `drop_channels` returns them.
    """
    scale = response.matrix.value.sum(axis=1)
    rng = np.random.default_rng([*seed, _DROPPED])
    arrays = drop_channels(pixels.intensity, pixels.uncertainty, scale, rng=rng, **dropped)
    intensity, uncertainty, flags = (torch.as_tensor(array, device=device) for array in arrays)
    em = torch.as_tensor(pixels.em / np.float32(EM_SCALE), device=device)
    return [intensity.float(), uncertainty.float(), em.float(), flags]


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


def describe_run(run, response, **others):
    """Return, as JSON, what a resumed run must have in common with the one that it continues."""
    description = asdict(run.options)
    # More patience, or another consistency network, change none of the epochs that are done.
    del description["patience"], description["consistency_epochs"]
    description |= {"response": response.fingerprint, **others}
    description["architecture"] = run.module.architecture()
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
