"""Tests of the content of figures; test_baseline_figures.py compares their look."""

import sys
from dataclasses import replace

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.visualization.wcsaxes import WCSAxes
from helpers import LognormalMethod, cube_from_arrays, spoiled, true_cube
from matplotlib.animation import FFMpegWriter, FuncAnimation
from matplotlib.colors import Normalize, to_rgba
from matplotlib.patches import Circle

from sunpy_deepem import CHANNELS, Quality, invert
from sunpy_deepem.analysis import em_loci
from sunpy_deepem.sample import sample_maps
from sunpy_deepem.visualization import (
    animate,
    compare,
    plot_bins,
    plot_profile,
    plot_response,
    plot_roundtrip,
    plot_summary,
    plot_temperature,
)
from sunpy_deepem.visualization.panels import thinned

N = 32
MASKED = (6, 7)  # row, column
ON_FIGURES = [plot_summary, plot_bins, plot_roundtrip]
ON_SKY_AXES = [plot_temperature, animate]


@pytest.mark.parametrize("draw", [*ON_FIGURES, *ON_SKY_AXES, plot_profile])
@pytest.mark.parametrize("wrong", [np.ones((18, 4, 4)), None, "dem.fits"])
def test_invalid_cube(draw, wrong):
    with pytest.raises(TypeError, match=f"cube must be a DEMCube, .* found {type(wrong).__name__}"):
        draw(wrong)


@pytest.fixture(scope="module")
def cube():
    """A cube of the true EM with missing and saturated pixels."""
    maps = [spoiled(smap, {(row, 7): np.nan for row in range(5, 9)}) for smap in sample_maps((N, N))]
    maps[2] = spoiled(maps[2], {(20, 3): 16000})
    return true_cube(maps, N)


def rotated(cube, degrees):
    """Return the cube with a rotated WCS."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    header = cube.sky_header | {"pc1_1": cos, "pc1_2": -sin, "pc2_1": sin, "pc2_2": cos}
    return with_em(cube, cube.data, header)


def with_em(cube, em, header=None):
    options = {"intensity": cube.intensity, "uncertainty": cube.intensity_uncertainty, "quality": cube.quality}
    return cube_from_arrays(em, None, cube.response, header or cube.sky_header, cube.inputs, **options)


def panels(fig):
    return [axes for axes in fig.axes if axes.get_title()]


def titles(fig):
    return [axes.get_title() for axes in panels(fig)]


def images(fig):
    """Return the image of each title, with NaN for masked pixels."""
    return {axes.get_title(): axes.images[0].get_array().filled(np.nan) for axes in panels(fig) if axes.images}


def bars(fig):
    """Return the labels of the color bars."""
    return [bar.get_ylabel() for axes in fig.axes for bar in axes.child_axes]


def drawn(fig):
    fig.canvas.draw()
    return fig


def test_response(response):
    axes = plot_response(response, axes=plt.figure().add_subplot())
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [f"{channel} Å" for channel in CHANNELS]
    assert axes.get_xlabel() == r"$\log_{10}$ (T / K)"
    assert axes.get_ylabel().startswith("response")
    assert axes.get_yscale() == "log"
    for line, curve in zip(axes.lines, response.curves.value, strict=True):
        np.testing.assert_allclose(line.get_xdata(), np.log10(response.temperature.value))
        np.testing.assert_allclose(line.get_ydata(), curve)


class TestSummary:
    @pytest.fixture(scope="class")
    @classmethod
    def fig(cls, cube):
        return drawn(cube.plot_summary())

    def test_panels(self, fig, cube):
        assert sorted(titles(fig)) == sorted(
            [
                *(f"{channel} Å {word}" for channel in CHANNELS for word in ("observed", "synthetic", "residual")),
                "EM, log T 5.45 to 5.6",
                "EM, log T 5.6 to 6",
                "EM, log T 6 to 6.3",
                "EM, log T 6.3 to 6.6",
                "EM, log T 6.6 to 7",
                "EM, log T 7 to 7.25",
                "EM-weighted log T",
                "χ² (mean over channels)",
                "quality flags",
                f"mean of {(~cube.sky_mask).sum()} pixels",
            ]
        )

    def test_observed_and_synthetic_share_a_scale(self, fig, cube):
        by_title = {axes.get_title(): axes.images[0] for axes in panels(fig) if axes.images}
        shown = images(fig)
        for channel, smap, g in zip(CHANNELS, cube.synthesize(), cube.intensity.value, strict=True):
            assert by_title[f"{channel} Å observed"].norm is by_title[f"{channel} Å synthetic"].norm
            np.testing.assert_allclose(shown[f"{channel} Å observed"], np.where(cube.sky_mask, np.nan, g))
            np.testing.assert_allclose(shown[f"{channel} Å synthetic"], smap.data)

    def test_date(self, fig):
        assert "2014-01-01T00:00" in fig.get_suptitle()

    def test_scales_have_units(self, fig):
        labels = [axes.get_ylabel() for axes in fig.axes]
        assert "EM per bin (cm$^{-5}$)" in labels
        assert "Helioprojective y (arcsec)" in labels
        assert "EM (cm$^{-5}$)" in bars(fig)
        assert "DN s$^{-1}$ pix$^{-1}$" in bars(fig)
        assert "(observed − synthetic) / σ" in bars(fig)
        assert any(axes.get_xlabel() == r"$\log_{10}$ (T / K)" for axes in fig.axes)

    @pytest.mark.parametrize(
        "item",
        [np.s_[:13, 4:10, 2:30], np.s_[3:9, 5:6, 7:8]],
        ids=["cutout", "one masked pixel in six bins"],
    )
    def test_sliced_cube(self, cube, item):
        part = cube[item]
        fig = drawn(part.plot_summary())
        shown = [title for title in titles(fig) if title.startswith("EM, log T")]
        assert shown[0].startswith(f"EM, log T {part.bins.edges[0]:g} to")
        assert shown[-1].endswith(f"to {part.bins.edges[-1]:g}")
        assert bars(fig).count("EM (cm$^{-5}$)") == 1

    def test_flags_are_named(self, fig):
        (axes,) = [axes for axes in fig.axes if axes.get_title() == "quality flags"]
        names = [text.get_text().split()[0] for text in axes.get_legend().get_texts()]
        assert "FEW_CHANNELS" in names
        assert "SATURATED" in names

    def test_each_channel_is_saturated_somewhere(self):
        """As in flares: pixels have three channels, but no three are measured in all of them."""
        dem = invert(sample_maps((N, N)))
        planes = dem.planes
        intensity, limit = np.array(planes.intensity), np.full((6, N, N), np.nan)
        quality = planes.quality.copy()
        for channel in range(4):
            pixel = (channel, 16, channel + 10)
            intensity[pixel], limit[pixel] = np.nan, 1e3
            quality[pixel[1:]] |= Quality.SATURATED | Quality.PARTIAL
        part = dem.with_planes(replace(planes, intensity=list(intensity), limit=list(limit), quality=quality))
        with pytest.raises(ValueError, match="3 or more channels"):
            part.curve()
        assert f"mean of {N * N - 4} pixels with six channels" in titles(drawn(part.plot_summary()))

    def test_low_signal_is_faded(self, cube):
        part = cube[:]
        part.meta["quality"] = np.where(np.eye(N) > 0, Quality.LOW_SIGNAL, 0).astype(np.uint16)
        fig = plot_summary(part)
        faded = [axes for axes in fig.axes if axes.get_title() in ("EM-weighted log T", "χ² (mean over channels)")]
        assert len(faded) == 2
        for axes in faded:
            np.testing.assert_array_equal(axes.images[1].get_array()[..., 3] > 0, np.eye(N) > 0)
        assert "hatched: the prior decides, the interval reaches zero, or the signal is low" in fig.get_suptitle()


class TestSkyAxes:
    """Images have sky coordinates, also on a rotated grid."""

    @pytest.fixture(scope="class", params=[0, 30], ids=["upright", "rotated"])
    @classmethod
    def axes(cls, request, cube):
        return plot_temperature(rotated(cube, request.param) if request.param else cube)

    def test_pixel_coordinates(self, axes, cube, request):
        assert isinstance(axes, WCSAxes)
        frame = (rotated(cube, 30) if "rotated" in request.node.name else cube).total_em()
        for column, row in ((0, 0), (31, 0), (4, 29)):
            sky = frame.pixel_to_world(column * u.pix, row * u.pix)
            np.testing.assert_allclose(axes.wcs.world_to_pixel(sky), (column, row), atol=1e-3)
        np.testing.assert_allclose(axes.images[0].get_extent(), [-0.5, 31.5, -0.5, 31.5])

    def test_limb(self, axes, cube):
        (limb,) = [child for child in axes.get_children() if isinstance(child, Circle)]
        assert limb.radius * 3600 == pytest.approx(cube.total_em().rsun_obs.to_value("arcsec"), rel=1e-4)

    def test_axis_labels(self, axes):
        axes.figure.canvas.draw()
        assert axes.get_xlabel() == "Helioprojective x (arcsec)"
        assert axes.get_ylabel() == "Helioprojective y (arcsec)"
        assert {str(axes.coords[i].get_format_unit()) for i in (0, 1)} == {"arcsec"}

    def test_masked_pixels_are_gray(self, axes, cube):
        np.testing.assert_array_equal(np.ma.getmaskarray(axes.images[0].get_array()), cube.sky_mask)
        assert axes.get_facecolor() == to_rgba("0.6")


class TestBins:
    def test_bins_share_a_scale(self, cube):
        fig = drawn(cube.plot_bins())
        assert titles(fig) == [f"EM, log T = {log_t:.1f}" for log_t in cube.log_t]
        assert len({id(axes.images[0].norm) for axes in panels(fig)}) == 1
        for image, em in zip(images(fig).values(), cube.data, strict=True):
            np.testing.assert_allclose(image, em)
        assert "Emission measure in bins of log T" in fig.get_suptitle()

    def test_zero_em_is_dark(self, cube):
        em = cube.data.copy()
        em[:, 3, 4] = 0
        axes = panels(with_em(cube, em)[:1].plot_bins())[0]
        colors = axes.images[0].to_rgba(axes.images[0].get_array())
        np.testing.assert_allclose(colors[3, 4], plt.get_cmap("viridis")(0.0))
        np.testing.assert_allclose(colors[MASKED][3], 0)

    def test_undetermined_pixels_are_faded(self):
        dem = invert(sample_maps((N, N)))
        fig = drawn(dem.plot_bins())
        assert "hatched: the prior decides" in fig.get_suptitle()
        for axes, log_t in zip(panels(fig), dem.log_t, strict=True):
            low, median = (smap.data for smap in dem.bin_map(log_t, quantiles=(0.16, 0.5)))
            veil = axes.images[1].get_array()[..., 3] > 0 if len(axes.images) > 1 else np.zeros((N, N), dtype=bool)
            assert veil[low < 0.1 * median].all()

    def test_norm_and_color_map(self, cube):
        norm = Normalize(0, 1e27)
        for axes in panels(cube.plot_bins(norm=norm, cmap="magma")):
            assert axes.images[0].norm is norm
            assert axes.images[0].get_cmap().name == "magma"

    @pytest.mark.parametrize(("n", "rows"), [(1, 1), (6, 1), (7, 2)])
    def test_few_bins(self, cube, n, rows):
        fig = drawn(cube[:n].plot_bins())
        assert len(panels(fig)) == n
        assert bars(fig) == ["EM per bin (cm$^{-5}$)"] * rows


class TestRoundtrip:
    def test_ratio(self, cube):
        fig = drawn(cube.plot_roundtrip())
        shown = images(fig)
        assert len(shown) == 18
        for channel, g, smap in zip(CHANNELS, cube.intensity.value, cube.synthesize(), strict=True):
            (title,) = [title for title in shown if title.startswith(f"{channel} Å, median")]
            ratio = np.where((g > 0) & ~cube.sky_mask, smap.data / g, np.nan)
            np.testing.assert_allclose(shown[title], ratio)
            assert float(title.split()[-1]) == pytest.approx(np.nanmedian(ratio), abs=0.006)

    def test_low_signal_is_faded(self, cube):
        part = cube[:]
        part.meta["quality"] = np.where(np.eye(N) > 0, Quality.LOW_SIGNAL, 0).astype(np.uint16)
        ratios = panels(plot_roundtrip(part))[12:]
        below = part.intensity < 2 * part.intensity_uncertainty
        for axes, faint in zip(ratios, below, strict=True):
            np.testing.assert_array_equal(axes.images[1].get_array()[..., 3] > 0, (np.eye(N) > 0) | faint)

    def test_noisy_ratios_are_faded(self, cube):
        fig = plot_roundtrip(cube)
        assert fig.get_suptitle().endswith("faded: below 2 σ")
        ratio = panels(fig)[12 + CHANNELS.index(94)]
        faint = cube.intensity[0] < 2 * cube.intensity_uncertainty[0]
        assert 0 < faint.sum() < faint.size
        np.testing.assert_array_equal(ratio.images[1].get_array()[..., 3] > 0, faint)

    def test_norm_and_color_map(self, cube):
        norm = Normalize(0, 2)
        ratio = panels(drawn(cube.plot_roundtrip(norm=norm, cmap="RdBu")))[-1].images[0]
        assert ratio.norm is norm
        assert ratio.get_cmap().name == "RdBu"

    def test_agreement_is_white(self, cube):
        ratio = panels(cube.plot_roundtrip())[-1].images[0]
        assert ratio.norm(1.0) == pytest.approx(0.5)
        assert ratio.norm.vmin * ratio.norm.vmax == pytest.approx(1)
        assert min(ratio.cmap(0.5)[:3]) > 0.94


class TestTemperature:
    def test_em_weighted(self, cube):
        axes = drawn(cube.plot_temperature().figure).axes[0]
        np.testing.assert_allclose(axes.images[0].get_array().filled(np.nan), cube.em_weighted_log_t().data)
        assert bars(axes.figure) == [r"EM-weighted $\log_{10}$ (T / K)"]


class TestCompare:
    def test_curves_and_table(self, cube):
        axes, table = compare({"one": cube, "double": cube * 2}, np.eye(N) > 0, bands=[(6.0, 6.3)])
        curve = cube.curve(np.eye(N) > 0)
        drawn = {patch.get_label(): patch.get_data().values for patch in axes.patches}
        np.testing.assert_allclose(drawn["one"], curve.em.value)
        np.testing.assert_allclose(drawn["double"], 2 * curve.em.value)
        assert table["name"].tolist() == ["one", "double"]
        np.testing.assert_allclose(table["em_6.0_6.3"][1], 2 * table["em_6.0_6.3"][0])
        residual = (curve.intensity - curve.synthetic) / curve.intensity_uncertainty
        np.testing.assert_allclose(table["chi2"][0], (residual**2).mean())

    def test_invalid(self, cube):
        with pytest.raises(TypeError, match="cubes must be a dict"):
            compare([cube])
        with pytest.raises(ValueError, match="bins of one width"):
            compare({"fine": cube, "coarse": cube.rebin((2, 1, 1))})


class TestBands:
    def test_quantiles_and_relative_uncertainty(self):
        dem = invert(sample_maps((N, N)))
        fig = drawn(dem.plot_bands([(6.0, 6.3), (6.6, 7.0)], n=8))
        shown = images(fig)
        low, median, high = (smap.data for smap in dem.total_em(6.6, 7.0, quantiles=(0.16, 0.5, 0.84), n=8))
        np.testing.assert_allclose(shown["log T 6.6 to 7, 16 % quantile"], low)
        np.testing.assert_allclose(shown["log T 6.6 to 7, median"], median)
        with np.errstate(divide="ignore", invalid="ignore"):
            np.testing.assert_allclose(shown["log T 6.6 to 7, relative"], (high - low) / 2 / median, rtol=1e-4)
        assert bars(fig) == ["EM (cm$^{-5}$)"] * 3 + ["half 68 % interval / median"]

    def test_large_cubes_are_thinned(self):
        thin, extent = thinned(true_cube(n=N), 10)
        assert thin.data.shape == (18, 8, 8)
        np.testing.assert_array_equal(thin.data, true_cube(n=N).data[:, 2::4, 2::4])
        assert extent == (0, 32, 0, 32)

    def test_undetermined_pixels_are_faded(self):
        dem = invert(sample_maps((N, N)))
        axes = drawn(dem.plot_bands([(6.6, 7.0)], n=16)).axes[0]
        low, median = (smap.data for smap in dem.total_em(6.6, 7.0, quantiles=(0.16, 0.5), n=16))
        assert (axes.images[1].get_array()[..., 3] > 0)[low < 0.1 * median].all()


class TestContraction:
    def test_panels(self):
        dem = invert(sample_maps((N, N)))
        fig = drawn(dem.plot_contraction([(6.0, 6.3), (6.6, 7.0)], n=8))
        images = [axes.images[0].get_array() for axes in fig.axes if axes.images]
        np.testing.assert_allclose(images, dem.contraction([(6.0, 6.3), (6.6, 7.0)], n=8))
        assert [axes.get_title() for axes in fig.axes[:2]] == ["log T 6 to 6.3", "log T 6.6 to 7"]
        assert bars(fig) == ["contraction\n0: the prior decides, 1: the data"]

    def test_no_posterior(self, cube):
        with pytest.raises(ValueError, match="states no posterior"):
            cube.plot_contraction()


def test_prior_sensitivity():
    part = invert(sample_maps((N, N)))[:, 14:18, 14:18]
    axes = part.plot_prior_sensitivity(n=16)
    curves = part.prior_curves(n=16)
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert [name.split(",")[0] for name in names] == ["default"] * 3 + ["neutral"] * 3
    np.testing.assert_allclose(axes.patches[1].get_data().values, curves["default"].median.value)
    np.testing.assert_allclose(axes.patches[3].get_data().values, curves["neutral"].upper.value)
    drawn(axes.figure)


class TestProfile:
    def lines(self, axes):
        return {line.get_label(): line.get_ydata() for line in axes.lines}

    def stairs(self, axes):
        return {patch.get_label(): patch.get_data() for patch in axes.patches}

    @pytest.mark.parametrize("kind", ["coordinate", "mask", "whole"])
    def test_curve_band_and_loci(self, cube, kind):
        frame = cube.total_em()
        mask = np.zeros((N, N), dtype=bool)
        mask[10:13, 20] = True
        region = {"coordinate": frame.pixel_to_world(20 * u.pix, 11 * u.pix), "mask": mask, "whole": None}[kind]
        axes = cube.plot_profile(region, method=LognormalMethod())
        curve, stairs = cube.curve(region, method=LognormalMethod()), self.stairs(axes)
        np.testing.assert_allclose(stairs["EM, median"].values, curve.median.value)
        np.testing.assert_allclose(stairs["EM, mean"].values, curve.em.value)
        np.testing.assert_allclose(stairs["EM, median"].edges, cube.bins.edges)
        np.testing.assert_allclose(stairs["EM, 68 % interval"].values, curve.upper.value)
        np.testing.assert_allclose(stairs["EM, 68 % interval"].baseline, curve.lower.value)
        loci = em_loci(curve.intensity, cube.response).value
        for channel, locus in zip(CHANNELS, loci, strict=True):
            np.testing.assert_allclose(self.lines(axes)[f"{channel} Å"], locus)
        pixels = {
            "coordinate": "1 pixel",
            "mask": "mean of 3 pixels",
            "whole": f"mean of {(~cube.sky_mask).sum()} pixels",
        }
        assert f", {pixels[kind]}, 2014-01-01T00:00" in axes.get_title()
        assert axes.get_ylabel() == "EM per bin (cm$^{-5}$)"
        assert axes.get_xlabel() == r"$\log_{10}$ (T / K)"
        assert axes.get_yscale() == "log"
        drawn(axes.figure)

    def test_no_interval_without_posterior(self, cube):
        assert set(self.stairs(with_em(cube, cube.data).plot_profile(label="core"))) == {"core"}

    def test_given_axes(self, cube):
        axes = plt.figure().add_subplot()
        assert plot_profile(cube, axes=axes) is axes

    def test_invalid_region(self, cube):
        outside = SkyCoord(3000 * u.arcsec, 0 * u.arcsec, frame=cube.total_em().coordinate_frame)
        with pytest.raises(ValueError, match="region"):
            cube.plot_profile(outside)
        with pytest.raises(TypeError, match="region"):
            cube.plot_profile("the active region")
        assert not plt.get_fignums()


class TestAnimation:
    @pytest.mark.filterwarnings("ignore:Animation was deleted without rendering")
    def test_one_frame_per_bin(self, cube):
        animation = cube[4:8].animate()
        assert isinstance(animation, FuncAnimation)
        axes = plt.gcf().axes[0]
        seen = []
        for index in range(4):
            animation._func(index)
            seen.append(axes.get_title()[:15])
            np.testing.assert_allclose(axes.images[0].get_array().filled(np.nan), cube.data[4 + index])
        assert seen == ["EM, log T = 5.9", "EM, log T = 6.0", "EM, log T = 6.1", "EM, log T = 6.2"]

    def test_save_and_show(self, cube, tmp_path):
        animation = cube[:2, 10:20, 10:20].animate(interval=50)
        animation.save(tmp_path / "em.gif", writer="pillow", dpi=20)
        assert (tmp_path / "em.gif").read_bytes()[:3] == b"GIF"
        assert "<script" in animation.to_jshtml()

    def test_written_by_its_suffix(self, cube, tmp_path, monkeypatch):
        cube[:2, 10:20, 10:20].animate(tmp_path / "em.gif")
        assert (tmp_path / "em.gif").read_bytes()[:3] == b"GIF"
        with pytest.raises(ValueError, match=r"path must end in \.gif or \.mp4"):
            cube.animate(tmp_path / "em.avi")
        assert [path.name for path in tmp_path.iterdir()] == ["em.gif"]

    def test_mp4(self, cube, tmp_path, monkeypatch):
        imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
        monkeypatch.setattr(FFMpegWriter, "isAvailable", classmethod(lambda cls: False))  # without the program ffmpeg
        axes = plt.figure(figsize=(2.01, 1.51)).add_subplot(projection=cube.em_weighted_log_t())
        cube[4:8].animate(tmp_path / "em.mp4", axes=axes, interval=500)
        frames = imageio_ffmpeg.read_frames(str(tmp_path / "em.mp4"))
        meta = next(frames)
        assert (meta["codec"], meta["pix_fmt"][:7], meta["fps"]) == ("h264", "yuv420p", 2)
        assert len(list(frames)) == 4

    def test_mp4_without_ffmpeg(self, cube, tmp_path, monkeypatch):
        monkeypatch.setattr(FFMpegWriter, "isAvailable", classmethod(lambda cls: False))
        monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
        with pytest.raises(ImportError, match=r"pip install \"sunpy_deepem\[movies\]\""):
            cube.animate(tmp_path / "em.mp4")
        assert not plt.get_fignums()

    @pytest.mark.filterwarnings("ignore:Animation was deleted without rendering")
    def test_undetermined_bins_are_faded(self):
        dem = invert(sample_maps((N, N)))
        animation = dem.animate()
        axes = plt.gcf().axes[0]
        for index in (7, 17, 7):  # log T 6.2 and 7.2
            animation._func(index)
            (veil,) = axes.images[1:]
            low, median = (smap.data for smap in dem.bin_map(dem.log_t[index], quantiles=(0.16, 0.5)))
            assert (veil.get_array()[..., 3] > 0)[low < 0.1 * median].all()

    @pytest.mark.parametrize("interval", [0, -5, float("nan")])
    def test_invalid_interval(self, cube, interval):
        with pytest.raises(ValueError, match="interval must be a positive time in ms"):
            cube.animate(interval=interval)


class TestGivenFigures:
    def test_figure(self, cube):
        fig = plt.figure(figsize=(9, 8))
        assert plot_bins(cube, fig=fig) is fig
        assert len(panels(fig)) == 18

    @pytest.mark.parametrize("plot", ON_FIGURES)
    def test_subfigure(self, cube, plot):
        left, right = plt.figure(figsize=(18, 8)).subfigures(1, 2)
        assert plot(cube, fig=right) is right
        assert left.axes == []
        assert len(panels(right)) >= 18

    @pytest.mark.parametrize("plot", ON_FIGURES)
    @pytest.mark.parametrize("fig", ["figure", 3])
    def test_invalid_figure(self, cube, plot, fig):
        with pytest.raises(TypeError, match="fig must be a matplotlib Figure or SubFigure, found"):
            plot(cube, fig=fig)


@pytest.mark.parametrize("plot", ON_SKY_AXES)
class TestGivenAxes:
    @pytest.mark.filterwarnings("ignore:Animation was deleted without rendering")
    def test_axes_of_the_cube(self, cube, plot):
        axes = plt.figure().add_subplot(projection=cube.total_em())
        plot(cube, axes=axes)
        assert axes.images[0].get_array().shape == (N, N)

    def test_axes_without_wcs(self, cube, plot):
        with pytest.raises(TypeError, match=r"axes must be WCSAxes of the cube's sky, found Axes\. Make them with"):
            plot(cube, axes=plt.figure().add_subplot())

    def test_axes_of_another_field(self, cube, plot):
        axes = plt.figure().add_subplot(projection=cube[:, 1:].total_em())
        with pytest.raises(ValueError, match="axes must lie on the pixels of the cube"):
            plot(cube, axes=axes)


@pytest.mark.parametrize("value", [0, np.nan])
@pytest.mark.parametrize("plot", [plot_summary, plot_roundtrip])
def test_empty_cube(cube, plot, value):
    plot(with_em(cube, np.full_like(cube.data, value)))
    drawn(plt.gcf())


@pytest.mark.parametrize("plot", [*ON_FIGURES, *ON_SKY_AXES, plot_profile])
def test_missing_axis(cube, plot):
    for part in (cube[4], cube[:, 3]):
        with pytest.raises(ValueError, match="needs the axes log T, y, x"):
            plot(part)
    assert not plt.get_fignums()
