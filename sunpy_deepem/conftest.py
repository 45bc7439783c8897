"""Names that the examples in docstrings use without importing them."""

import pytest


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace):
    import astropy.units as u
    import numpy as np

    from sunpy_deepem import invert
    from sunpy_deepem.sample import sample_cube, sample_maps

    doctest_namespace.update(np=np, u=u, invert=invert, sample_cube=sample_cube, sample_maps=sample_maps)
