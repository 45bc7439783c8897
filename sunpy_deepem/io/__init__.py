"""Files of cubes: FITS, ASDF, FITS files larger than memory, and archives of many cubes."""

from sunpy_deepem.io.archive import DEMArchive
from sunpy_deepem.io.files import register
from sunpy_deepem.io.stream import FitsSink, lazy_planes
from sunpy_deepem.utils.product_maps import read_map

__all__ = ["DEMArchive", "FitsSink", "lazy_planes", "read_map"]

register()
