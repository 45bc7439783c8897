"""Tests of ``DEMCube.plot`` and of the names of axes."""

import itertools

import numpy as np
import pytest
from helpers import true_cube
from matplotlib.colors import LogNorm

from sunpy_deepem import Quality, invert
from sunpy_deepem.sample import sample_maps
from sunpy_deepem.visualization.panels import is_doubtful


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


class TestFaded:
    """Images are faded where the EM is undetermined, as in `plot_bins`, or the signal is low."""

    @pytest.fixture(scope="class")
    @classmethod
    def cube(cls):
        return invert(sample_maps((16, 16)))

    @pytest.fixture(scope="class")
    @classmethod
    def doubtful(cls, cube):
        return is_doubtful(cube, list(itertools.pairwise(cube.bins.edges)))

    @pytest.mark.parametrize("bin_", [8, 13, 16])
    def test_bins(self, cube, doubtful, bin_):
        assert_agree(veiled(cube[bin_].plot()), doubtful[bin_])
        assert doubtful[16].mean() > 0.5 > doubtful[8].mean()

    def test_along_log_t(self, cube, doubtful):
        assert_agree(veiled(cube[:, 7].plot()), doubtful[:, 7])
        assert_agree(veiled(cube[:, :, 7].plot()), doubtful[:, :, 7])

    def test_slices_of_slices(self, cube, doubtful):
        assert_agree(veiled(cube[13][3:9, 2:12].plot()), doubtful[13, 3:9, 2:12])
        assert_agree(veiled(cube[3:, 7][8:, 2:12].plot()), doubtful[11:, 7, 2:12])

    def test_swapped_axes(self, cube, doubtful):
        assert_agree(veiled(cube[13].plot(plot_axes=["x", "y"])), doubtful[13].T)

    def test_animation(self, cube, doubtful):
        pytest.importorskip("mpl_animators", reason='animations are an extra: pip install "sunpy_deepem[plotting]"')
        shown = cube.plot()
        slider = shown.sliders[0]._slider
        for bin_ in (0, 13, 12):
            slider.set_val(bin_)
            assert_agree(veiled(shown.axes), doubtful[bin_])

    def test_aspect_is_kept(self, cube):
        assert cube[:, 7].plot().get_aspect() == "auto"
        assert cube[8].plot().get_aspect() == 1

    def test_of_what_is_computed_from_a_slice(self, truth):
        quality = np.zeros((16, 16), dtype=np.uint16)
        quality[7, 6] = Quality.LOW_SIGNAL
        image, row = truth[8] * 2, truth[:, 7] * 2
        image.meta["quality"], row.meta["quality"] = quality, quality[7]
        np.testing.assert_array_equal(veiled(image.plot()), quality > 0)
        np.testing.assert_array_equal(veiled(row.plot()), np.broadcast_to(quality[7] > 0, (18, 16)))


def assert_agree(found, expected):
    """Draws of fewer bins differ in rounding, which may change a pixel on the edge."""
    assert found.shape == expected.shape
    assert (found == expected).mean() > 0.98


def veiled(axes):
    """Return where an image is faded."""
    first, *veils = axes.images
    return veils[0].get_array()[..., 3] > 0 if veils else np.zeros(first.get_array().shape, dtype=bool)


def test_own_options(truth):
    axes = truth[8].plot(cmap="gray", norm=LogNorm(1e24, 1e26))
    assert axes.images[0].cmap.name == "gray"
    assert axes.images[0].norm.vmax == 1e26
