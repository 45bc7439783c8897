"""`DEMCube`, an NDCube of emission measure on log T, y and x, and its arrays, `Planes`."""

from sunpy_deepem.cube.dem_cube import DEMCube
from sunpy_deepem.cube.planes import Planes

__all__ = ["DEMCube", "Planes"]
