"""Quantities derived from EM and intensities: temperatures, densities, curves of regions, EM loci, Fe XVIII."""

from sunpy_deepem.analysis.curves import EMCurve, em_curve
from sunpy_deepem.analysis.fe_xviii import fe_xviii, fe_xviii_map
from sunpy_deepem.analysis.loci import em_loci

__all__ = ["EMCurve", "em_curve", "em_loci", "fe_xviii", "fe_xviii_map"]
