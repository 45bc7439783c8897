"""Calibration of AIA maps: preparation, photometric errors, degradation, alignment."""

from sunpy_deepem.calibrate.alignment import REFERENCE_CHANNEL, measure_misalignment
from sunpy_deepem.calibrate.degradation import correction_table, degradation_factor, known_until
from sunpy_deepem.calibrate.photometry import counts_uncertainty, error_table, native_pixels
from sunpy_deepem.calibrate.preparation import prepare

__all__ = [
    "REFERENCE_CHANNEL",
    "correction_table",
    "counts_uncertainty",
    "degradation_factor",
    "error_table",
    "known_until",
    "measure_misalignment",
    "native_pixels",
    "prepare",
]
