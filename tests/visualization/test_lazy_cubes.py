"""Figures of cubes that are read from a file when they are needed."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from sunpy_deepem import invert
from sunpy_deepem.sample import real_maps


@pytest.mark.parametrize("name", ["plot_summary", "plot_roundtrip", "plot_temperature"])
def test_same_figure_as_in_memory(tmp_path, name):
    pytest.importorskip("dask")
    lazy = invert(real_maps(), shape=32, out=tmp_path / "dem.fits")
    assert hasattr(lazy.data, "dask")
    for cube in (lazy, lazy.compute()):
        getattr(cube, name)()
    pictures = []
    for number in plt.get_fignums():
        figure = plt.figure(number)
        figure.canvas.draw()
        pictures.append(np.asarray(figure.canvas.buffer_rgba()))
    np.testing.assert_array_equal(*pictures)
