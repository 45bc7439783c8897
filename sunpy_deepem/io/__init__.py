"""Files of cubes: FITS, ASDF, and FITS files larger than memory."""

from sunpy_deepem.io.files import register
from sunpy_deepem.io.stream import FitsSink, lazy_planes
from sunpy_deepem.utils.product_maps import read_map

__all__ = ["FitsSink", "lazy_planes", "read_map"]

register()
