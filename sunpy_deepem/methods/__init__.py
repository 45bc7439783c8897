"""Methods of inversion: the protocol `Method`, its `Solution`, and the methods without a network."""

from sunpy_deepem.methods.base import METHODS, FunctionMethod, Method, Solution, SolveStatus, Teacher, get_method
from sunpy_deepem.methods.basis_pursuit import BasisPursuit, BasisPursuitSolution
from sunpy_deepem.methods.demreg import Demreg
from sunpy_deepem.methods.importance import Importance, Posterior

__all__ = [
    "METHODS",
    "BasisPursuit",
    "BasisPursuitSolution",
    "Demreg",
    "FunctionMethod",
    "Importance",
    "Method",
    "Posterior",
    "Solution",
    "SolveStatus",
    "Teacher",
    "get_method",
]
