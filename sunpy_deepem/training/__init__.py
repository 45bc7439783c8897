"""
Training: priors, teachers, training sets, the loss and `fit`.

Nothing outside this subpackage imports it: the only thing that passes from training to inference is a weights file. The
teachers are the solvers that `sunpy_deepem.invert` offers, too, and so live above it.
"""

from sunpy_deepem.methods.basis_pursuit import BasisPursuit, BasisPursuitSolution, SolveStatus
from sunpy_deepem.methods.teachers import BasisPursuitTeacher, DemregTeacher, Teacher, get_teacher, run_teacher
from sunpy_deepem.training.dataset import PriorStream, TrainingSet
from sunpy_deepem.training.prior import DEMPrior, simulate_observation

__all__ = [
    "BasisPursuit",
    "BasisPursuitSolution",
    "BasisPursuitTeacher",
    "DEMLoss",
    "DEMPrior",
    "DemregTeacher",
    "PriorStream",
    "SolveStatus",
    "Teacher",
    "TrainingSet",
    "fit",
    "get_teacher",
    "run_teacher",
    "simulate_observation",
]

# What needs torch, which takes seconds to import and which the processes of basis pursuit do without.
_WITH_TORCH = {"DEMLoss": "loss", "fit": "fitting"}


def __getattr__(name):
    if name in _WITH_TORCH:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_WITH_TORCH[name]}"), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__():
    return __all__
