"""Methods of inversion: what each takes and returns, and how one is found by its name."""

from sunpy_deepem.methods.base import METHODS, NetworkEngine, Solution, SolverEngine, get_engine
from sunpy_deepem.methods.basis_pursuit import BasisPursuit, BasisPursuitSolution, SolveStatus
from sunpy_deepem.methods.importance import Importance, Posterior
from sunpy_deepem.methods.teachers import (
    BasisPursuitTeacher,
    DemregTeacher,
    Teacher,
    get_teacher,
    run_solver,
    run_teacher,
)

__all__ = [
    "METHODS",
    "BasisPursuit",
    "BasisPursuitSolution",
    "BasisPursuitTeacher",
    "DemregTeacher",
    "Importance",
    "NetworkEngine",
    "Posterior",
    "Solution",
    "SolveStatus",
    "SolverEngine",
    "Teacher",
    "get_engine",
    "get_teacher",
    "run_solver",
    "run_teacher",
]
