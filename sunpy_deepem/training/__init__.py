"""
Training: priors, teachers, training sets, the loss, `fit` and `fit_posterior`.

Inference does not import it; the only thing that passes from training to inference is a weights file.
"""

from sunpy_deepem.methods.base import SolveStatus, Teacher
from sunpy_deepem.methods.basis_pursuit import BasisPursuit, BasisPursuitSolution
from sunpy_deepem.methods.demreg import Demreg
from sunpy_deepem.training.dataset import PriorStream, TrainingSet
from sunpy_deepem.training.observing import simulate_observation
from sunpy_deepem.training.options import Checkpoint, TrainingOptions
from sunpy_deepem.training.prior import DEMPrior

__all__ = [
    "BasisPursuit",
    "BasisPursuitSolution",
    "Checkpoint",
    "DEMLoss",
    "DEMPrior",
    "Demreg",
    "PriorStream",
    "SolveStatus",
    "Teacher",
    "TrainingOptions",
    "TrainingSet",
    "fit",
    "fit_posterior",
    "fit_to_draws",
    "match_coverage",
    "prior_log_std",
    "simulate_observation",
    "train_on_prior",
]

# Importing torch takes seconds, and the processes of basis pursuit do not need it.
_WITH_TORCH = {
    "DEMLoss": "loss",
    "fit": "fitting",
    "fit_posterior": "posterior",
    "fit_to_draws": "draws",
    "match_coverage": "draws",
    "prior_log_std": "posterior",
    "train_on_prior": "recipe",
}


def __getattr__(name):
    if name in _WITH_TORCH:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_WITH_TORCH[name]}"), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__():
    return __all__
