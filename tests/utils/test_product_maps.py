"""Tests of maps that choose their own scale, title and color bar, and keep their uncertainty in files."""

import pickle
import tracemalloc

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np
import pytest
import sunpy.map
from helpers import true_cube
from matplotlib.colors import LogNorm, to_rgba
from sunpy.map.sources import AIAMap

from sunpy_deepem import Quality, invert
from sunpy_deepem.analysis import fe_xviii_map
from sunpy_deepem.io import read_map
from sunpy_deepem.sample import sample_maps
from sunpy_deepem.utils.product_maps import DerivedMap, ScaledLogNorm


@pytest.fixture(scope="module")
def truth():
    return true_cube(n=16)


def drawn(smap, **options):
    """Plot a map in a new figure; return its image and the label of its color bar, if any."""
    plt.figure()
    image = smap.plot(**options)
    image.figure.canvas.draw()
    return image, image.colorbar and image.colorbar.ax.get_ylabel()


EM_LABEL = r"EM ($\mathrm{cm^{-5}}$)"
PRODUCTS = {
    "EM": (lambda cube: cube.total_em(6.6, 7.0), "EM, log T 6.6 to 7", EM_LABEL, "viridis"),
    "log T": (lambda cube: cube.em_weighted_log_t(), "EM-weighted log10(T/K)", r"$\log_{10}$ (T / K)", "plasma"),
    "width": (lambda cube: cube.thermal_width(), "standard deviation of EM", "width (dex of T)", "cividis"),
    "residual": (
        lambda cube: cube.residual_maps()[0],
        "AIA 94 Å, residual, (observed - synthetic) / sigma",
        "(observed − synthetic) / σ",
        "RdBu_r",
    ),
    "synthetic": (lambda cube: cube.synthesize()[2], "AIA 171 Å, synthetic", "DN s$^{-1}$ pix$^{-1}$", "sdoaia171"),
    "observed": (lambda cube: cube.observed_maps()[2], "AIA 171 Å, observed", "DN s$^{-1}$ pix$^{-1}$", "sdoaia171"),
    "Fe XVIII": (fe_xviii_map, "Fe XVIII", "pix$^{-1}$)", "sdoaia94"),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_plot_says_what_it_shows(truth, name):
    make, title, label, cmap = PRODUCTS[name]
    image, shown = drawn(make(truth))
    assert image.axes.get_title().startswith(title)
    assert image.axes.get_title().splitlines()[1].startswith("2014-01-01T00:00")
    assert label in shown
    assert image.cmap.name == cmap


def test_contours_of_one_product_on_another(truth):
    image, _ = drawn(truth.em_weighted_log_t())
    contours = truth.total_em().draw_contours([1e26, 1e27] * u.cm**-5, axes=image.axes, colors="white")
    assert list(contours.levels) == [1e26, 1e27]


def test_color_bar_only_in_an_empty_figure(truth):
    smap = truth.total_em()
    assert drawn(smap, colorbar=False)[1] is None
    axes = plt.figure().add_subplot(projection=smap)
    assert smap.plot(axes=axes).colorbar is None
    assert smap.plot(axes=axes, colorbar=True).colorbar is not None


def test_own_scale(truth):
    image, _ = drawn(truth.total_em(), norm=LogNorm(1e26, 1e27), cmap="gray")
    assert (image.norm.vmin, image.norm.vmax, image.cmap.name) == (1e26, 1e27, "gray")


def test_zero_is_dark_and_scale_spans_four_decades():
    norm = ScaledLogNorm()
    assert norm(np.array([0.0, 1e20, 1e28]))[:2].tolist() == [0, 0]
    assert norm.vmax / norm.vmin == pytest.approx(1e4)


def test_residual_scale_is_symmetric(truth):
    norm = drawn(truth.residual_maps()[0])[0].norm
    assert norm.vmin == -norm.vmax


def test_low_signal_is_faded(truth):
    part = truth[:]
    part.meta["quality"] = np.where(np.eye(16) > 0, Quality.LOW_SIGNAL, 0).astype(np.uint16)
    image, _ = drawn(part.total_em())
    veil = image.axes.images[-1].get_array()
    np.testing.assert_array_equal(veil[..., 3] > 0, np.eye(16) > 0)
    assert tuple(veil[0, 0, :3]) == to_rgba("#999999")[:3]


def test_undetermined_em_is_faded():
    dem = invert(sample_maps((32, 32)))
    smap = dem.total_em(6.6, 7.0)
    low, median = (each.data for each in dem.total_em(6.6, 7.0, quantiles=(0.16, 0.5)))
    image, _ = drawn(smap)
    veil = image.axes.images[-1].get_array()[..., 3] > 0
    assert veil[low < 0.1 * median].all()
    assert not veil.all()
    copy = pickle.loads(pickle.dumps(smap))
    assert copy.cover is None
    np.testing.assert_array_equal(copy.data, smap.data)
    assert dem.total_em().cover is None  # the total is determined everywhere


def test_labels_stay_in_the_figure(truth):
    image, _ = drawn(truth.total_em(6.6, 7.0))
    inside = image.figure.bbox.padded(1)
    tight = image.axes.get_tightbbox(image.figure.canvas.get_renderer())
    assert inside.x0 <= tight.x0
    assert tight.x1 <= inside.x1


@pytest.mark.parametrize("product", ["total_em", "synthesize"])
class TestFiles:
    @pytest.fixture
    def smap(self, cube, product):
        part = cube[:, 60:64, 40:46]
        part.mask = np.indices((4, 6))[0] == 1
        return part.total_em(6.3, 6.6) if product == "total_em" else part.synthesize()[2]

    @pytest.mark.parametrize("name", ["map.fits", "map.fits.gz"])
    def test_fits_keeps_uncertainty_and_mask(self, smap, name, tmp_path):
        smap.save(tmp_path / name, filetype="fits")
        again = read_map(tmp_path / name)
        np.testing.assert_allclose(again.uncertainty.array, smap.uncertainty.array)
        np.testing.assert_array_equal(again.mask, smap.mask)
        np.testing.assert_array_equal(again.data, smap.data)

    def test_sunpy_reads_one_map(self, smap, tmp_path):
        smap.save(tmp_path / "map.fits")
        again = sunpy.map.Map(tmp_path / "map.fits")
        assert isinstance(again, DerivedMap if isinstance(smap, DerivedMap) else AIAMap)

    def test_asdf_keeps_uncertainty(self, smap, tmp_path):
        pytest.importorskip("asdf")
        smap.save(tmp_path / "map.asdf")
        again = sunpy.map.Map(tmp_path / "map.asdf")
        np.testing.assert_allclose(again.uncertainty.array, smap.uncertainty.array)


def test_saved_map_looks_the_same(truth, tmp_path):
    truth.total_em(6.6, 7.0).save(tmp_path / "map.fits")
    again = sunpy.map.Map(tmp_path / "map.fits")
    assert drawn(again)[1] == EM_LABEL


def test_mask_is_saved_as_bytes(truth, tmp_path):
    """astropy would make 64-bit integers of it, 24 bytes per pixel in all."""
    header, mask = truth.total_em().meta, np.eye(512, dtype=bool)
    smap = DerivedMap(np.ones(mask.shape, dtype=np.float32), header, mask=mask)
    tracemalloc.start()
    try:
        smap.save(tmp_path / "map.fits")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 6 * mask.size
    np.testing.assert_array_equal(read_map(tmp_path / "map.fits").mask, mask)


def test_read_map_fails(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file"):
        read_map(tmp_path / "map.fits")


def test_limits_are_temperatures_too(truth):
    np.testing.assert_allclose(truth.total_em(1 * u.MK, 3 * u.MK).data, truth.total_em(6.0, np.log10(3e6)).data)
    np.testing.assert_allclose(truth.bin_map(2 * u.MK).data, truth.bin_map(6.301).data)
    for wrong in (1 * u.m, -1 * u.K, [1, 2] * u.MK):
        with pytest.raises(ValueError, match="must be a positive temperature such as 2"):
            truth.total_em(wrong)


def test_relative_uncertainty(cube):
    part = cube[:, 60:64, 40:46]
    smap = part.relative_uncertainty(6.3, 6.6)
    low, median, high = (each.data for each in part.total_em(6.3, 6.6, quantiles=(0.15865, 0.5, 0.84135)))
    np.testing.assert_allclose(smap.data, (high - low) / 2 / median, rtol=1e-4)
    assert smap.meta["content"] == "relative uncertainty of EM, log T 6.3 to 6.6"
