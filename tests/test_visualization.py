"""Figures. That they are good to look at is for eyes to judge; that they show what they should, is here."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from helpers import changed, true_cube

from sunpy_deepem import CHANNELS, DEMCube
from sunpy_deepem.sample import sample_maps
from sunpy_deepem.visualization import plot_summary

N = 32


@pytest.fixture(scope="module")
def cube():
    """The true EM, with missing and saturated pixels."""
    maps = list(sample_maps((N, N)))
    data = maps[2].data.copy()
    data[5:9, 7], data[20, 3] = np.nan, 16000
    maps[2] = changed(maps[2], data=data)
    return true_cube(maps, N)


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def panels(fig):
    return [axes for axes in fig.axes if axes.get_title()]


def titles(fig):
    return [axes.get_title() for axes in panels(fig)]


def bars(fig):
    """Labels of the colour bars."""
    return [bar.get_ylabel() for axes in fig.axes for bar in axes.child_axes]


def drawn(fig):
    fig.canvas.draw()
    return fig


class TestSummary:
    @pytest.fixture(scope="class")
    @classmethod
    def fig(cls, cube):
        return drawn(cube.plot_summary())

    def test_panels(self, fig):
        assert sorted(titles(fig)) == sorted(
            [
                *(f"{channel} Å {word}" for channel in CHANNELS for word in ("observed", "synthetic")),
                *(f"EM, log T = {log_t:.1f}" for log_t in (5.5, 5.7, 5.8, 6.0, 6.1, 6.3, 6.4, 6.6, 6.7, 6.9, 7.0, 7.2)),
                "EM-weighted log T",
                "χ² (mean over channels)",
            ]
        )

    def test_observed_and_synthetic_share_a_scale(self, fig, cube):
        images = {axes.get_title(): axes.images[0] for axes in panels(fig)}
        for channel, smap, g in zip(CHANNELS, cube.synthesize(), cube.intensity.value, strict=True):
            observed, synthetic = images[f"{channel} Å observed"], images[f"{channel} Å synthetic"]
            assert observed.norm is synthetic.norm
            np.testing.assert_allclose(observed.get_array().filled(np.nan), g)
            np.testing.assert_allclose(synthetic.get_array().filled(np.nan), smap.data)

    def test_pixels_lie_where_they_are_on_the_sky(self, fig):
        for axes in panels(fig):
            np.testing.assert_allclose(axes.images[0].get_extent(), [-1228.8, 1228.8, -1228.8, 1228.8], atol=0.1)

    def test_date(self, fig):
        assert "2014-01-01T00:00" in fig.get_suptitle()

    def test_every_scale_has_its_unit(self, fig):
        labels = [axes.get_ylabel() for axes in fig.axes]
        assert "EM per bin (cm$^{-5}$)" in labels
        assert "y (arcsec)" in labels
        assert "EM per bin (cm$^{-5}$)" in bars(fig)
        assert any(text.get_text() == "DN s$^{-1}$ pix$^{-1}$" for axes in fig.axes for text in axes.texts)
        assert any(axes.get_xlabel() == r"$\log_{10}$ (T / K)" for axes in fig.axes)


def test_into_a_figure_that_is_there(cube):
    fig = plt.figure(figsize=(9, 8))
    assert plot_summary(cube, fig=fig) is fig
    assert len(panels(fig)) == 26


@pytest.mark.parametrize(
    "item",
    [np.s_[:13, 4:10, 2:30], np.s_[:, 5:6, 7:8], np.s_[3:9]],
    ids=["cutout", "one pixel", "six bins"],
)
def test_parts(cube, item):
    part = cube[item]
    fig = drawn(part.plot_summary())
    shown = [title for title in titles(fig) if title.startswith("EM, log T")]
    assert len(shown) == min(12, len(part.bins))
    assert shown[0] == f"EM, log T = {part.log_t[0]:.1f}"
    assert shown[-1] == f"EM, log T = {part.log_t[-1]:.1f}"
    # One colour bar to a row.
    assert bars(fig).count("EM per bin (cm$^{-5}$)") == (1 if len(shown) <= 6 else 2)


@pytest.mark.parametrize("value", [0, np.nan])
def test_nothing_to_see(cube, value):
    em = np.full_like(cube.data, value)
    options = {"intensity": cube.intensity, "uncertainty": cube.intensity_uncertainty}
    drawn(DEMCube.from_arrays(em, None, cube.response, cube.sky_header, cube.inputs, **options).plot_summary())


def test_a_temperature_or_a_pixel_cannot_be_summarised(cube):
    for part in (cube[4], cube[:, 3]):
        with pytest.raises(ValueError, match="needs the axes log T, y, x"):
            part.plot_summary()
    assert not plt.get_fignums()
