"""
Figures against pictures of them that were looked at and found good, in ``baseline``.

Words, which every version of matplotlib writes a little differently, are left out; they are tested elsewhere. Nor do
versions agree on the screen pixel at which a panel of many begins and ends, so such figures have a wider tolerance: a
panel or scale that is another does not pass, and of single panels not even a limb that is missing. After a change that
is meant, make the pictures anew and look at them:
``pytest tests/test_figures.py --mpl-generate-path=tests/baseline``.
"""

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np
import pytest
from helpers import changed, true_cube
from matplotlib.axes import Axes
from matplotlib.text import Text

from sunpy_deepem import TemperatureResponse
from sunpy_deepem.sample import sample_maps
from sunpy_deepem.visualization.figures import plot_response

pytest.importorskip("pytest_mpl", reason="pictures are compared by pytest-mpl")

N = 32


def compared(tolerance):
    """Compare the figure with the picture of it, to so many of 255 grey levels (root mean square)."""
    return pytest.mark.mpl_image_compare(
        baseline_dir="baseline", style="default", tolerance=tolerance, deterministic=True, savefig_kwargs={"dpi": 40}
    )


def wordless(fig):
    """The figure without its words."""
    for axes in fig.findobj(Axes):
        if axes.get_legend() is not None:
            axes.get_legend().remove()
        for coordinate in getattr(axes, "coords", ()):
            coordinate.set_ticklabel_visible(False)
            coordinate.set_axislabel(" ")
    for words in fig.findobj(Text):
        words.set_visible(False)
    return fig


@pytest.fixture(scope="module")
def cube():
    """The true EM, with missing pixels."""
    maps = list(sample_maps((N, N)))
    data = maps[2].data.copy()
    data[5:9, 7] = np.nan
    maps[2] = changed(maps[2], data=data)
    return true_cube(maps, N)


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@compared(tolerance=12)
def test_summary(cube):
    return wordless(cube.plot_summary())


@compared(tolerance=12)
def test_bins(cube):
    return wordless(cube[:, 8:24].plot_bins())


@compared(tolerance=12)
def test_roundtrip(cube):
    return wordless(cube.plot_roundtrip())


@compared(tolerance=3)
def test_temperature(cube):
    return wordless(cube.plot_temperature().figure)


@compared(tolerance=3)
def test_profile(cube):
    where = cube.total_em().pixel_to_world(23 * u.pix, 12 * u.pix)
    return wordless(cube.plot_profile(where, axes=plt.figure().add_subplot()).figure)


@compared(tolerance=3)
def test_frame_of_an_animation(cube):
    animation = cube[7:9].animate()
    animation.to_jshtml()  # Draws every frame; the last one stays
    return wordless(plt.gcf())


@compared(tolerance=3)
def test_response():
    return wordless(plot_response(TemperatureResponse.default(), axes=plt.figure().add_subplot()).figure)
