"""
Comparison of figures with reviewed images in ``baseline``.

Text is removed, as its rendering depends on the version of matplotlib; test_figures.py covers it. The position of
panels in a grid also depends on it by a pixel, so figures of many panels have a larger tolerance. It still detects a
different panel or color scale; that of single panels detects a missing limb. After an intended change, regenerate and
review:
``pytest tests/visualization/test_baseline_figures.py --mpl-generate-path=tests/visualization/baseline``.
"""

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np
import pytest
from helpers import LognormalMethod, spoiled, true_cube
from matplotlib.axes import Axes
from matplotlib.text import Text

from sunpy_deepem import TemperatureResponse
from sunpy_deepem.sample import sample_maps
from sunpy_deepem.visualization import plot_response

pytest.importorskip("pytest_mpl", reason="image comparison needs pytest-mpl")

N = 32


def compared(tolerance):
    """Compare the returned figure with its baseline; the tolerance is an RMS difference of 255 gray levels."""
    return pytest.mark.mpl_image_compare(
        baseline_dir="baseline", style="default", tolerance=tolerance, deterministic=True, savefig_kwargs={"dpi": 40}
    )


def without_text(fig):
    """Hide all text of a figure."""
    for axes in fig.findobj(Axes):
        if axes.get_legend() is not None:
            axes.get_legend().remove()
        for coordinate in getattr(axes, "coords", ()):
            coordinate.set_ticklabel_visible(False)
            coordinate.set_axislabel(" ")
    for text in fig.findobj(Text):
        text.set_visible(False)
    return fig


@pytest.fixture(scope="module")
def cube():
    """A cube of the true EM with missing pixels."""
    return true_cube([spoiled(smap, {(row, 7): np.nan for row in range(5, 9)}) for smap in sample_maps((N, N))], N)


@compared(tolerance=12)
def test_summary(cube):
    return without_text(cube.plot_summary())


@compared(tolerance=12)
def test_bins(cube):
    return without_text(cube[:, 8:24].plot_bins())


@compared(tolerance=12)
def test_roundtrip(cube):
    return without_text(cube.plot_roundtrip())


@compared(tolerance=3)
def test_temperature(cube):
    return without_text(cube.plot_temperature().figure)


@compared(tolerance=3)
def test_profile(cube):
    region = cube.total_em().pixel_to_world(23 * u.pix, 12 * u.pix)
    axes = plt.figure().add_subplot()
    return without_text(cube.plot_profile(region, axes=axes, method=LognormalMethod()).figure)


@compared(tolerance=3)
def test_animation_frame(cube):
    animation = cube[7:9].animate()
    animation.to_jshtml()  # draws all frames; the last one stays
    return without_text(plt.gcf())


@compared(tolerance=3)
def test_response():
    return without_text(plot_response(TemperatureResponse.default(), axes=plt.figure().add_subplot()).figure)
