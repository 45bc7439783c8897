"""Archives of the cubes of a series in one Zarr store."""

from sunpy_deepem.io.archive.store import DEMArchive

__all__ = ["DEMArchive"]
