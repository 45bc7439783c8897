"""State of a training between two epochs: `TrainingRun`."""

import json
import math

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from tqdm.auto import tqdm

from sunpy_deepem.utils.files import atomic_path
from sunpy_deepem.utils.logger import log
from sunpy_deepem.utils.parallel import background

__all__ = ["TrainingRun"]

_FORMAT = "sunpy_deepem checkpoint 1"
# Pixels evaluated at a time.
_TILE = 65536


class TrainingRun:
    """
    Network, optimizer, losses and best weights so far.

    Parameters
    ----------
    module : `~torch.nn.Module`
    objective : callable
        Called with the module, intensity, σ, EM in units of 10^25 cm^-5 and flags, shape ``(1, ..., 1, n)`` each with
        channels or bins along the second axis; returns the loss, a scalar.
    options : `TrainingOptions`
    """

    def __init__(self, module, objective, options):
        self.module, self.objective, self.options = module, objective, options
        self.optimizer = torch.optim.Adam(
            module.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
        )
        self.history, self.best_loss, self.best_epoch = [], math.inf, -1
        self.best_state = self._state()

    def _state(self):
        return {key: value.detach().clone() for key, value in self.module.state_dict().items()}

    def epoch(self, data, rng):
        """
        Train once over the pixels.

        Parameters
        ----------
        data : sequence of `~torch.Tensor`
            Intensity, σ, EM in the network's unit and flags, channels or bins first.
        rng : `~numpy.random.Generator`
            Source of the order of pixels.

        Returns
        -------
        `float`
            The mean loss.
        """
        self.module.train()
        n = data[0].shape[1]
        order = torch.as_tensor(rng.permutation(n), device=data[0].device)
        data = [array[:, order] for array in data]
        size = n if self.options.batch_size is None else self.options.batch_size
        losses, starts = [], range(0, n, size)
        for step, start in enumerate(starts):
            rate = self.options.rate(len(self.history) + (step + 0.5) / len(starts))
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.zero_grad(set_to_none=True)
            value = self._loss([array[:, start : start + size] for array in data])
            value.backward()
            if self.options.max_gradient is not None:
                torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.options.max_gradient)
            self.optimizer.step()
            losses.append(value.detach() * (min(start + size, n) - start))
        return float(torch.stack(losses).sum() / n)

    def evaluate(self, data):
        """Return the mean loss over ``data``."""
        self.module.eval()
        n, total = data[0].shape[1], 0.0
        with torch.no_grad():
            for start in range(0, n, _TILE):
                part = [array[:, start : start + _TILE] for array in data]
                total += float(self._loss(part)) * part[0].shape[1]
        return total / n

    def _loss(self, batch):
        batch = [array[None, :, None, :] for array in batch]
        with torch.autocast(batch[0].device.type, dtype=torch.bfloat16, enabled=batch[0].is_cuda):
            return self.objective(self.module, *batch)

    def close_epoch(self, train_loss, validation_loss):
        """Record the losses, and keep the weights if they are the best so far."""
        # The loss was computed before the last step, so check the weights as well.
        if not (math.isfinite(train_loss) and all(tensor.isfinite().all() for tensor in self.module.parameters())):
            msg = (
                f"The training loss is {train_loss} in epoch {len(self.history)}, and weights are no longer finite. "
                "Lower learning_rate, and look at the training set."
            )
            raise ValueError(msg)
        self.history.append({"epoch": len(self.history), "train": train_loss})
        if validation_loss is not None:
            self.history[-1]["validation"] = validation_loss
        # Without validation the last epoch is the best.
        score = -len(self.history) if validation_loss is None else validation_loss
        if score < self.best_loss:
            self.best_loss, self.best_epoch, self.best_state = score, self.history[-1]["epoch"], self._state()

    def train(self, prepare, validation=None, *, checkpoint=None, description="", progress=False, name="training"):
        """
        Train until the last epoch; pixels are prepared in the background.

        Parameters
        ----------
        prepare : callable
            Returns the pixels of an epoch, as in `epoch`, by its number.
        validation : sequence of `~torch.Tensor`, optional
            Pixels that decide which epoch's weights are the best.
        checkpoint : `Checkpoint`, optional
            File to continue from and to write after each epoch.
        description : `str`, optional
            What a run that continues this one must have in common with it.
        progress : `bool`, optional
            Whether to show a progress bar.
        name : `str`, optional
            Its title.
        """
        if checkpoint is not None and checkpoint.exists:
            self.restore(checkpoint.path, description)
            log.info("Continuing the %s after epoch %d of %s.", name, len(self.history), checkpoint.path)
        bar = tqdm(total=self.options.epochs, initial=len(self.history), desc=name, unit="epoch", disable=not progress)
        with background() as executor:
            following = None if self.finished else executor.submit(prepare, len(self.history))
            while not self.finished:
                data, number = following.result(), len(self.history)
                following = executor.submit(prepare, number + 1) if number + 1 < self.options.epochs else None
                loss = self.epoch(data, np.random.default_rng([self.options.seed, number]))
                self.close_epoch(loss, None if validation is None else self.evaluate(validation))
                bar.set_postfix({key: f"{value:.4g}" for key, value in self.history[-1].items() if key != "epoch"})
                bar.update()
                if checkpoint is not None:
                    self.store(checkpoint.path, description)
        bar.close()
        self.module.load_state_dict(self.best_state)

    @property
    def finished(self):
        """Whether all epochs are done, or the validation loss has not fallen for too many."""
        epochs, patience = len(self.history), self.options.patience
        return epochs >= self.options.epochs or (patience is not None and epochs - 1 - self.best_epoch >= patience)

    def store(self, path, description):
        """
        Write all that is needed to continue, without pickling.

        Parameters
        ----------
        path : `str` or `pathlib.Path`
        description : `str`
            What a run that continues this one must have in common with it.
        """
        tensors = {f"module.{key}": value for key, value in self.module.state_dict().items()}
        tensors |= {f"best.{key}": value for key, value in self.best_state.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
        meta = {
            "format": _FORMAT,
            "options": description,
            "run": json.dumps({"history": self.history, "best_loss": self.best_loss, "best_epoch": self.best_epoch}),
        }
        tensors = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
        with atomic_path(path) as partial:
            partial.write_bytes(save(tensors, metadata=meta))

    def restore(self, path, description):
        """
        Load the state that `store` wrote.

        Raises
        ------
        ValueError
            If the file cannot be read or has another description.
        """
        try:
            with safe_open(path, framework="pt") as file:
                meta = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        except SafetensorError as error:
            msg = f"checkpoint {path} cannot be read ({error}). Delete it to start anew."
            raise ValueError(msg) from None
        if meta.get("format") != _FORMAT or meta.get("options") != description:
            msg = (
                f"checkpoint {path} is of another run: it has options {meta.get('options')}, this run {description}. "
                "Give the same options, or another checkpoint."
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
