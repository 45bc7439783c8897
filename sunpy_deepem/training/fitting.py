"""Training a network: `fit`."""

import json
import math
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from tqdm.auto import tqdm

from sunpy_deepem.network.architectures import ScaledNetwork
from sunpy_deepem.network.model import DeepEM
from sunpy_deepem.network.tiles import resolve_device
from sunpy_deepem.response.temperature_response import TemperatureResponse
from sunpy_deepem.training.consistency import fit_consistency
from sunpy_deepem.training.loss import HELD, DEMLoss
from sunpy_deepem.units import EM_SCALE
from sunpy_deepem.utils.checks import real_number, whole_number
from sunpy_deepem.utils.files import atomic_path, check_target, checked_path
from sunpy_deepem.utils.parallel import background

__all__ = ["fit"]

_CHECKPOINT_FORMAT = "sunpy_deepem checkpoint 1"
# Pixels in order of their noise are taken in so many groups to find how their spread depends on it, if they are enough.
_NOISE_GROUPS, _LEAST_PIXELS = 20, 2000
# Bins with less than this share of a pixel's EM have no say in it.
_LEAST_SHARE = 0.01


def fit(
    training,
    response,
    *,
    validation=None,
    network=None,
    hidden=(48, 48, 48),
    loss=None,
    epochs=20,
    batch_size=1024,
    learning_rate=8e-3,
    weight_decay=0.0,
    schedule="cosine",
    max_gradient=1.0,
    patience=None,
    checkpoint=None,
    resume=False,
    keep_unsolved=False,
    consistency_epochs=12,
    seed=0,
    device="auto",
    progress=False,
    meta=None,
):
    """
    Train a network.

    Runs on a GPU, in mixed precision, where there is one. The same seed gives the same weights on the same machine,
    also if the run was killed and resumed.

    Parameters
    ----------
    training : `TrainingSet` or `PriorStream`
        What to learn from.
    response : `TemperatureResponse`
        The response for which the network is to hold.
    validation : `TrainingSet`, optional
        What to judge by: the weights returned are those of the epoch with the least validation loss.
    network : `~torch.nn.Module`, optional
        A network to start from, by default a fresh `~sunpy_deepem.network.ScaledNetwork`.
    hidden : sequence of `int`, optional
        Widths of the hidden layers of a fresh network.
    loss : `DEMLoss`, optional
        By default ``DEMLoss()``.
    epochs : `int`, optional
        Passes over ``training``.
    batch_size : `int` or `None`, optional
        Pixels in a step; `None` for the whole set, as in the DeepEM chapter.
    learning_rate, weight_decay : `float`, optional
        Of the Adam optimiser; the chapter's are 1e-4 and 1e-9.
    schedule : {"cosine", "constant"}, optional
        Whether the learning rate falls to zero over the epochs.
    max_gradient : `float` or `None`, optional
        Norm to which gradients are clipped, `None` for not at all, as in the chapter.
    patience : `int`, optional
        Stop after so many epochs without a lower validation loss.
    checkpoint : `str` or `pathlib.Path`, optional
        A file that holds the state after every epoch, written atomically.
    resume : `bool`, optional
        Go on from ``checkpoint`` if it exists.
    keep_unsolved : `bool`, optional
        Learn also from pixels whose status is not 0 or whose EM is zero, as the chapter did; an EM that is not finite
        then counts as zero.
    consistency_epochs : `int`, optional
        Passes over ``training`` after those of the network, in which a
        `~sunpy_deepem.network.ChannelConsistency` learns what each channel is where the other five are known; zero
        for weights that cannot tell an unusual pixel.
    seed : `int`, optional
        Seed of the initial weights and of the order of pixels.
    device : `str`, optional
        As in `DeepEM.predict`.
    progress : `bool`, optional
        Whether to show a progress bar with the losses.
    meta : `dict`, optional
        To be stored with the weights, such as the training command.

    Returns
    -------
    `DeepEM`
        With the losses of each epoch in ``meta["history"]``, as JSON.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If an option makes no sense, the sets do not fit the response, no pixel is left to learn from, the training loss
        or the weights do not stay finite, or the checkpoint is of another run.
    OSError
        If the checkpoint cannot be written.
    """
    _check_options(locals())
    loss = DEMLoss() if loss is None else loss
    device = resolve_device(device)
    torch.manual_seed(seed)
    matrix = response.matrix.value * EM_SCALE
    module = ScaledNetwork(matrix.sum(axis=1), len(response.bins), hidden) if network is None else network
    module = module.to(device)
    matrix = torch.as_tensor(matrix, dtype=torch.float32, device=device)
    run = _Run(module, loss, matrix, learning_rate, weight_decay, max_gradient)
    held_out = (
        None if validation is None else _tensors(validation.usable(response, keep_unsolved=keep_unsolved), device)
    )
    options = _options(locals())
    if resume and checkpoint is not None and Path(checkpoint).exists():
        run.restore(checkpoint, options)
    bar = tqdm(total=epochs, initial=len(run.history), desc="training", unit="epoch", disable=not progress)

    def prepare(epoch):
        return _tensors(training.epoch(epoch).usable(response, keep_unsolved=keep_unsolved), device)

    # The pixels of an epoch are drawn while the one before is learnt from; they depend on its number alone.
    with background() as drawing:
        following = drawing.submit(prepare, len(run.history)) if len(run.history) < epochs else None
        while len(run.history) < epochs and not run.stalled(patience):
            epoch = len(run.history)
            data = following.result()
            following = drawing.submit(prepare, epoch + 1) if epoch + 1 < epochs else None
            train_loss = run.epoch(
                data, batch_size, np.random.default_rng([seed, epoch]), _rates(epoch, epochs, schedule)
            )
            run.close_epoch(train_loss, None if held_out is None else run.evaluate(held_out))
            bar.set_postfix({name: f"{value:.4g}" for name, value in run.history[-1].items() if name != "epoch"})
            bar.update()
            if checkpoint is not None:
                run.store(checkpoint, options)
    bar.close()
    module.load_state_dict(run.best_state)
    if getattr(loss, "spread", 0) and hasattr(module, "spread_law"):
        calibrate_spread(module, prepare(epochs))
    consistency = None
    if consistency_epochs:
        passes = {"epochs": consistency_epochs, "keep_unsolved": keep_unsolved}
        consistency = fit_consistency(training, response, **passes, seed=seed, device=device, progress=progress)
    facts = {"history": json.dumps(run.history), "seed": seed, "loss": repr(loss)} | (meta or {})
    return DeepEM(module.cpu(), bins=response.bins, response=response, consistency=consistency, meta=facts)


class _Run:
    """A training run between two epochs: network, optimiser, history, best weights so far."""

    def __init__(self, module, loss, matrix, learning_rate, weight_decay, max_gradient):
        self.module, self.loss, self.matrix = module, loss, matrix
        self.learning_rate, self.max_gradient = learning_rate, max_gradient
        self.optimizer = torch.optim.Adam(module.parameters(), lr=learning_rate, weight_decay=weight_decay)
        self.history, self.best_loss, self.best_epoch = [], math.inf, -1
        self.best_state = self._state()

    def _state(self):
        return {key: value.detach().clone() for key, value in self.module.state_dict().items()}

    def epoch(self, data, batch_size, rng, rate):
        """Train once over ``data`` and return the mean loss."""
        self.module.train()
        n = data[0].shape[1]
        order = torch.as_tensor(rng.permutation(n), device=data[0].device)
        data = [array[:, order] for array in data]
        size = n if batch_size is None else batch_size
        losses, starts = [], range(0, n, size)
        for step, start in enumerate(starts):
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate * rate((step + 0.5) / len(starts))
            self.optimizer.zero_grad(set_to_none=True)
            value = self._loss([array[:, start : start + size] for array in data])
            value.backward()
            if self.max_gradient is not None:
                torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.max_gradient)
            self.optimizer.step()
            losses.append(value.detach() * (min(start + size, n) - start))
        return float(torch.stack(losses).sum() / n)

    def evaluate(self, data, tile=65536):
        """Return the mean loss over ``data``."""
        self.module.eval()
        n, total = data[0].shape[1], 0.0
        with torch.no_grad():
            for start in range(0, n, tile):
                part = [array[:, start : start + tile] for array in data]
                total += float(self._loss(part)) * part[0].shape[1]
        return total / n

    def _loss(self, batch):
        intensity, uncertainty, truth = (array[None, :, None, :] for array in batch)
        with torch.autocast(intensity.device.type, dtype=torch.bfloat16, enabled=intensity.is_cuda):
            em, spread = self.module(intensity, uncertainty)
        return self.loss(
            em.float(), None if spread is None else spread.float(), truth, intensity, uncertainty, self.matrix
        )

    def close_epoch(self, train_loss, validation_loss):
        """Note the losses; keep the weights if they are the best so far."""
        # The last step is in the weights, but not yet in the loss.
        if not (math.isfinite(train_loss) and all(tensor.isfinite().all() for tensor in self.module.parameters())):
            msg = (
                f"The training loss is {train_loss} in epoch {len(self.history)}, and weights are no longer finite. "
                "Lower learning_rate, and look at the training set."
            )
            raise ValueError(msg)
        self.history.append({"epoch": len(self.history), "train": train_loss})
        if validation_loss is not None:
            self.history[-1]["validation"] = validation_loss
        judged = -len(self.history) if validation_loss is None else validation_loss
        if judged < self.best_loss:
            self.best_loss, self.best_epoch, self.best_state = judged, self.history[-1]["epoch"], self._state()

    def stalled(self, patience):
        return patience is not None and len(self.history) - 1 - self.best_epoch >= patience

    def store(self, path, options):
        """Write all that is needed to go on, without pickling."""
        tensors = {f"module.{key}": value for key, value in self.module.state_dict().items()}
        tensors |= {f"best.{key}": value for key, value in self.best_state.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
        meta = {
            "format": _CHECKPOINT_FORMAT,
            "options": options,
            "run": json.dumps({"history": self.history, "best_loss": self.best_loss, "best_epoch": self.best_epoch}),
        }
        tensors = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
        with atomic_path(path) as partial:
            partial.write_bytes(save(tensors, metadata=meta))

    def restore(self, path, options):
        """Take up the state that `store` wrote."""
        try:
            with safe_open(path, framework="pt") as file:
                meta = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        except SafetensorError as error:
            msg = f"checkpoint {path} cannot be read ({error}). Delete it to start anew."
            raise ValueError(msg) from None
        if meta.get("format") != _CHECKPOINT_FORMAT or meta.get("options") != options:
            msg = (
                f"checkpoint {path} is of another run: it has options {meta.get('options')}, this run {options}. Give "
                "the same options, or another checkpoint."
            )
            raise ValueError(msg)
        parts = {"module": {}, "best": {}}
        adam = {}
        for key, value in tensors.items():
            part, name = key.split(".", 1)
            if part == "adam":
                index, name = name.split(".", 1)
                adam.setdefault(int(index), {})[name] = value
            else:
                parts[part][name] = value
        self.module.load_state_dict(parts["module"])
        self.best_state = parts["best"]
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": adam})
        run = json.loads(meta["run"])
        self.history, self.best_loss, self.best_epoch = run["history"], run["best_loss"], run["best_epoch"]


@torch.no_grad()
def calibrate_spread(module, data, tile=65536):
    """
    Set the law by which the spread of a `~sunpy_deepem.network.ScaledNetwork` depends on the noise.

    The loss makes intervals hold the truth in 68 % of cases on the whole. Groups of pixels of like noise tell by how
    much they are too wide or narrow there, and a straight line through that, in logarithms, is the law.

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
    for start in range(0, data[0].shape[1], tile):
        intensity, uncertainty, truth = (array[None, :, None, start : start + tile] for array in data)
        em, spread = module(intensity, uncertainty)
        noise = module.relative(intensity, uncertainty)[1].mean(dim=1)
        told = em > _LEAST_SHARE * em.sum(dim=1, keepdim=True)
        errors.append(torch.where(told, (em - truth).abs() / spread, torch.nan)[0, :, 0].cpu().numpy())
        noises.append(noise.flatten().cpu().numpy())
    noise, error = np.concatenate(noises), np.concatenate(errors, axis=1)
    groups = np.array_split(np.argsort(noise), _NOISE_GROUPS)
    width = [np.nanquantile(error[:, group], HELD) for group in groups]
    slope, constant = np.polyfit(np.log2([np.median(noise[group]) for group in groups]), np.log2(width), 1)
    module.spread_law.copy_(torch.tensor([constant, slope]))


def _tensors(training_set, device):
    """Return intensity, σ and EM in the network's unit, channels or bins first."""
    arrays = (training_set.intensity, training_set.uncertainty, training_set.em / np.float32(EM_SCALE))
    return [torch.as_tensor(array, dtype=torch.float32, device=device) for array in arrays]


def _rates(epoch, epochs, schedule):
    """Return the learning rate, relative to its start, as a function of the share of an epoch that is done."""
    if schedule == "constant":
        return lambda done: 1.0
    return lambda done: 0.5 * (1 + math.cos(math.pi * (epoch + done) / epochs))


def _options(given):
    """Return, as JSON, the options that a resumed run must share with the one that it resumes."""
    names = (
        "epochs",
        "batch_size",
        "learning_rate",
        "weight_decay",
        "schedule",
        "max_gradient",
        "seed",
        "keep_unsolved",
    )
    options = {name: given[name] for name in names}
    options |= {"loss": repr(given["loss"]), "response": given["response"].fingerprint}
    options["architecture"] = given["module"].architecture()
    options["training"] = given["training"].identity
    return json.dumps(options, sort_keys=True)


def _check_options(given):
    """Raise where an argument of `fit` makes no sense."""
    kinds = {"training": "epoch", "validation": "usable", "network": "parameters", "loss": "__call__"}
    for name, method in kinds.items():
        if not (hasattr(given[name], method) or (given[name] is None and name != "training")):
            msg = f"{name} is of the wrong kind, {type(given[name]).__name__}; see the documentation of fit."
            raise TypeError(msg)
    if not isinstance(given["response"], TemperatureResponse):
        msg = f"response must be a TemperatureResponse, found {type(given['response']).__name__}."
        raise TypeError(msg)
    if not isinstance(given["meta"], dict | None):
        msg = f"meta must be a dict, found {type(given['meta']).__name__}."
        raise TypeError(msg)
    for name in ("epochs", "batch_size", "patience"):
        if given[name] is not None or name == "epochs":
            whole_number(given[name], name)
    for name in ("consistency_epochs", "seed"):
        whole_number(given[name], name, least=0)
    _check_hidden(given["hidden"])
    learning_rate, weight_decay = (real_number(given[name], name) for name in ("learning_rate", "weight_decay"))
    if not 0 < learning_rate < math.inf or not 0 <= weight_decay < math.inf:
        msg = f"learning_rate must be positive and weight_decay not negative, found {learning_rate} and {weight_decay}."
        raise ValueError(msg)
    if given["max_gradient"] is not None and not real_number(given["max_gradient"], "max_gradient") > 0:
        msg = f"max_gradient must be positive, or None for no limit, found {given['max_gradient']}."
        raise ValueError(msg)
    if given["schedule"] not in ("cosine", "constant"):
        msg = f"schedule must be 'cosine' or 'constant', found {given['schedule']!r}."
        raise ValueError(msg)
    if given["patience"] is not None and given["validation"] is None:
        msg = "patience needs a validation set to judge by; pass validation=."
        raise ValueError(msg)
    _check_checkpoint(given["checkpoint"], given["resume"])


def _check_hidden(hidden):
    try:
        widths = list(hidden)
    except TypeError:
        msg = f"hidden must be widths of layers, such as (48, 48), found {hidden!r}."
        raise ValueError(msg) from None
    for width in widths:
        whole_number(width, "hidden: each width")


def _check_checkpoint(checkpoint, resume):
    if checkpoint is None:
        if resume:
            msg = "resume needs to know from what: pass checkpoint=."
            raise ValueError(msg)
        return
    checkpoint = checked_path(checkpoint, "checkpoint")
    if not checkpoint.resolve().parent.is_dir():
        msg = f"checkpoint lies in a folder that does not exist: {checkpoint.parent}. Make it first."
        raise ValueError(msg)
    check_target(checkpoint)
