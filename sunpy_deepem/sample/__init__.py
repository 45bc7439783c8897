"""Sample data: six maps of the real Sun, and maps of a synthetic Sun with known emission measure."""

from sunpy_deepem.sample.real import real_maps
from sunpy_deepem.sample.synthetic import sample_cube, sample_em, sample_maps, sample_regions

__all__ = ["real_maps", "sample_cube", "sample_em", "sample_maps", "sample_regions"]
