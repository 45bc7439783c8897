"""Sample data: maps of a synthetic Sun with known emission measure."""

from sunpy_deepem.sample.synthetic import sample_cube, sample_em, sample_maps, sample_regions

__all__ = ["sample_cube", "sample_em", "sample_maps", "sample_regions"]
