"""Options of `fit`: `TrainingOptions` and `Checkpoint`."""

import math
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from sunpy_deepem.utils.checks import real_number, whole_number
from sunpy_deepem.utils.files import check_target, checked_path

__all__ = ["Checkpoint", "TrainingOptions"]


@dataclass(frozen=True)
class TrainingOptions:
    """
    How a network is trained.

    Attributes
    ----------
    epochs : `int`
        Passes over the training set.
    batch_size : `int` or `None`
        Pixels per step; `None` for the whole set, as in the DeepEM chapter.
    learning_rate, weight_decay : `float`
        Of the Adam optimizer; the chapter's are 1e-4 and 1e-9.
    schedule : {"cosine", "constant"}
        Whether the learning rate falls to zero over the epochs.
    max_gradient : `float` or `None`
        Norm at which gradients are clipped; `None` for no clipping, as in the chapter.
    patience : `int` or `None`
        Stop after this many epochs without a lower validation loss.
    keep_unsolved : `bool`
        Also train on pixels whose status is not 0 or whose EM is zero, as the chapter did; an EM that is not finite
        then counts as zero.
    consistency_epochs : `int`
        Passes over the training set in which a `~sunpy_deepem.network.ChannelConsistency` is trained afterwards; zero
        for weights without one, which flag no pixel as unusual.
    seed : `int`
        Seed of the initial weights and of the order of pixels.

    Raises
    ------
    ValueError
        If a value is out of range.

    Examples
    --------
    >>> from sunpy_deepem.training import TrainingOptions
    >>> TrainingOptions(epochs=60).batch_size
    1024
    """

    epochs: int = 20
    batch_size: int | None = 1024
    learning_rate: float = 8e-3
    weight_decay: float = 0.0
    schedule: str = "cosine"
    max_gradient: float | None = 1.0
    patience: int | None = None
    keep_unsolved: bool = False
    consistency_epochs: int = 12
    seed: int = 0

    def __post_init__(self):
        whole_number(self.epochs, "epochs")
        for name in ("batch_size", "patience"):
            if getattr(self, name) is not None:
                whole_number(getattr(self, name), name)
        for name in ("consistency_epochs", "seed"):
            whole_number(getattr(self, name), name, least=0)
        learning_rate = real_number(self.learning_rate, "learning_rate")
        weight_decay = real_number(self.weight_decay, "weight_decay")
        if not 0 < learning_rate < math.inf or not 0 <= weight_decay < math.inf:
            msg = (
                f"learning_rate must be positive and weight_decay not negative, both finite, found {learning_rate} and "
                f"{weight_decay}."
            )
            raise ValueError(msg)
        if self.max_gradient is not None and not real_number(self.max_gradient, "max_gradient") > 0:
            msg = f"max_gradient must be positive, or None for no limit, found {self.max_gradient}."
            raise ValueError(msg)
        if self.schedule not in ("cosine", "constant"):
            msg = f"schedule must be 'cosine' or 'constant', found {self.schedule!r}."
            raise ValueError(msg)

    def rate(self, done):
        """
        Return the learning rate.

        Parameters
        ----------
        done : `float`
            Epochs completed, including fractions.
        """
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * (0.5 * (1 + math.cos(math.pi * done / self.epochs)))


@dataclass(frozen=True)
class Checkpoint:
    """
    File that holds the state of a training after each epoch, written atomically.

    Attributes
    ----------
    path : `str` or `pathlib.Path`
        The file.
    resume : `bool`
        Whether to continue from the file if it exists.

    Raises
    ------
    TypeError
        If ``path`` is not a path.
    OSError
        If the file cannot be written.
    """

    path: str | PathLike
    resume: bool = False

    def __post_init__(self):
        path = checked_path(self.path, "checkpoint")
        if not path.resolve().parent.is_dir():
            msg = f"checkpoint is in a folder that does not exist: {path.parent}. Create it first."
            raise ValueError(msg)
        check_target(path)

    @property
    def exists(self):
        """Whether there is a state to continue from."""
        return self.resume and Path(self.path).exists()
