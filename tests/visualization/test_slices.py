"""Tests of ``DEMCube.plot`` and of the names of axes."""

import numpy as np
import pytest
from helpers import true_cube
from matplotlib.colors import LogNorm


@pytest.fixture(scope="module")
def truth():
    return true_cube(n=16)


def test_axes_have_names_and_types(truth):
    assert truth.wcs.world_axis_names == ["Helioprojective x", "Helioprojective y", "log10(T/K)"]
    assert truth.wcs.world_axis_physical_types[2] == "custom:phys.temperature.log10"
    assert truth[:, 3:5].wcs.world_axis_names[2] == "log10(T/K)"
    np.testing.assert_allclose(truth.axis_world_coords("custom:phys.temperature.log10")[0].value, truth.log_t)


def test_curve_of_a_pixel(truth):
    axes = truth[:, 8, 5].plot()
    axes.figure.canvas.draw()
    assert axes.get_xlabel() == "log10(T/K)"
    assert axes.get_ylabel() == r"EM per bin ($\mathrm{cm^{-5}}$)"
    assert axes.get_yscale() == "log"
    assert axes.get_title().startswith("EM at x = ")
    np.testing.assert_allclose(axes.lines[0].get_ydata(), truth.data[:, 8, 5])


def test_image_of_a_bin(truth):
    axes = truth[8].plot()
    axes.figure.canvas.draw()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Helioprojective x", "Helioprojective y")
    assert isinstance(axes.images[0].norm, LogNorm)
    assert axes.images[0].colorbar.ax.get_ylabel().startswith("EM per bin")
    assert axes.get_title() == "EM, log T = 6.30\n2014-01-01T00:00:05"


@pytest.mark.parametrize("item", [np.s_[:, 8], np.s_[:, :, 8]], ids=["along x", "along y"])
def test_image_along_log_t(truth, item):
    axes = truth[item].plot()
    axes.figure.canvas.draw()
    shown = [each.get_axislabel() for each in axes.coords if each.get_ticklabel_visible()]
    assert len(shown) == 2
    assert "log10(T/K)" in shown


def test_animation_through_log_t(truth):
    pytest.importorskip("mpl_animators", reason='animations are an extra: pip install "sunpy_deepem[plotting]"')
    shown = truth.plot()
    assert isinstance(shown.axes.images[0].norm, LogNorm)
    assert "log10(T/K)" in [text.get_text() for text in shown.sliders[0].texts]
    assert shown.axes.images[0].colorbar.ax.get_ylabel().startswith("EM per bin")
    slider = shown.sliders[0]._slider
    assert slider.valtext.get_text() == "5.50"
    slider.set_val(8)
    assert slider.valtext.get_text() == "6.30"
    np.testing.assert_allclose(shown.axes.images[0].get_array(), truth.data[8])


def test_own_options(truth):
    axes = truth[8].plot(cmap="gray", norm=LogNorm(1e24, 1e26))
    assert axes.images[0].cmap.name == "gray"
    assert axes.images[0].norm.vmax == 1e26
