"""Warnings that point at the user's code."""

import inspect
import os
import warnings
from pathlib import Path

from sunpy.util.exceptions import SunpyUserWarning

__all__ = ["warn_user"]

_PACKAGE = f"{Path(__file__).parents[1]}{os.sep}"


def warn_user(message):
    """Emit a `~sunpy.util.exceptions.SunpyUserWarning` at the line that called the package."""
    # Python 3.12 has skip_file_prefixes, but it stops at the first decorator of another library.
    frame, level, outermost = inspect.currentframe(), 1, 1
    while frame is not None:
        if frame.f_code.co_filename.startswith(_PACKAGE):
            outermost = level
        frame, level = frame.f_back, level + 1
    warnings.warn(message, SunpyUserWarning, stacklevel=outermost + 1)
