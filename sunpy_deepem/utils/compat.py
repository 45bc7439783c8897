"""The one place that knows of differences between versions of the libraries below."""

try:
    from aiapy.calibrate.utils import get_correction_table, get_error_table, get_pointing_table
except ImportError:  # aiapy < 0.11, the last that Python 3.11 takes
    from aiapy.calibrate.util import get_correction_table, get_error_table, get_pointing_table

__all__ = ["calculate_psf", "get_correction_table", "get_error_table", "get_pointing_table"]


def calculate_psf(wavelength):
    """Return AIA's point spread function, `aiapy.psf.calculate_psf`."""
    # aiapy.psf looks for GPUs as it is imported, so it is left until it is needed.
    from aiapy import psf

    # aiapy < 0.11 has it by another name.
    return psf.calculate_psf(wavelength) if hasattr(psf, "calculate_psf") else psf.psf(wavelength)
