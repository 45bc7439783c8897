"""
Training: priors, teachers, training sets, the loss and `fit`.

Inference does not import it; the only thing that passes from training to inference is a weights file.
"""

from sunpy_deepem.methods.basis_pursuit import BasisPursuit, BasisPursuitSolution, SolveStatus
from sunpy_deepem.methods.teachers import BasisPursuitTeacher, DemregTeacher, Teacher, get_teacher, run_teacher
from sunpy_deepem.training.dataset import PriorStream, TrainingSet
from sunpy_deepem.training.options import Checkpoint, TrainingOptions
from sunpy_deepem.training.prior import DEMPrior, simulate_observation

__all__ = [
    "BasisPursuit",
    "BasisPursuitSolution",
    "BasisPursuitTeacher",
    "Checkpoint",
    "DEMLoss",
    "DEMPrior",
    "DemregTeacher",
    "PriorStream",
    "SolveStatus",
    "Teacher",
    "TrainingOptions",
    "TrainingSet",
    "fit",
    "get_teacher",
    "run_teacher",
    "simulate_observation",
]

# Importing torch takes seconds, and the processes of basis pursuit do not need it.
_WITH_TORCH = {"DEMLoss": "loss", "fit": "fitting"}


def __getattr__(name):
    if name in _WITH_TORCH:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_WITH_TORCH[name]}"), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__():
    return __all__
