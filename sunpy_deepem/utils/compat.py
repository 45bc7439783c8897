"""Differences between versions of aiapy."""

try:
    from aiapy.calibrate.utils import get_correction_table, get_error_table, get_pointing_table
except ImportError:  # aiapy < 0.11, the newest for Python 3.11
    from aiapy.calibrate.util import get_correction_table, get_error_table, get_pointing_table

__all__ = ["calculate_psf", "get_correction_table", "get_error_table", "get_pointing_table"]


def calculate_psf(wavelength):
    """Return AIA's point spread function, `aiapy.psf.calculate_psf`."""
    # Imported late, because aiapy.psf looks for GPUs.
    from aiapy import psf

    # The function has another name in aiapy < 0.11.
    return psf.calculate_psf(wavelength) if hasattr(psf, "calculate_psf") else psf.psf(wavelength)
