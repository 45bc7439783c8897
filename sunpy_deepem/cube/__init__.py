"""The result of an inversion: an NDCube of emission measure on log T, y and x."""

from sunpy_deepem.cube.dem_cube import DEMCube

__all__ = ["DEMCube"]
