"""The one place that knows of differences between versions of the libraries below."""

try:
    from aiapy.calibrate.utils import get_correction_table, get_error_table
except ImportError:  # aiapy < 0.11, the last that Python 3.11 takes
    from aiapy.calibrate.util import get_correction_table, get_error_table

__all__ = ["get_correction_table", "get_error_table"]
