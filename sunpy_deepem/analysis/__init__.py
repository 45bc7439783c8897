"""What follows from emission measures: temperatures, densities, curves of regions, EM loci, Fe XVIII."""

from importlib import import_module

__all__ = ["EMCurve", "em_curve", "em_loci", "fe_xviii", "fe_xviii_map"]


def __getattr__(name):
    if name in __all__:
        return getattr(import_module("sunpy_deepem.analysis.products"), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
