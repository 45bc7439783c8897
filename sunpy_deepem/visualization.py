"""Figures."""

import matplotlib.pyplot as plt
import numpy as np
import sunpy.visualization.colormaps  # noqa: F401 - registers AIA's colour tables
from astropy.visualization import AsinhStretch, ImageNormalize
from matplotlib.colors import LogNorm, Normalize

from sunpy_deepem.channels import CHANNELS

__all__ = ["plot_response", "plot_summary"]

# Line colours that are told apart with any colour vision, Okabe & Ito (2008).
_COLORS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00")
_STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)))
_EM_PANELS = 12


def plot_response(response, *, axes=None):
    """
    Draw the six temperature responses against log T.

    Parameters
    ----------
    response : `TemperatureResponse`
    axes : `~matplotlib.axes.Axes`, optional
        Where to draw, by default the current axes.

    Returns
    -------
    `~matplotlib.axes.Axes`
    """
    axes = plt.gca() if axes is None else axes
    log_t = np.log10(response.temperature.value)
    for channel, curve, color, style in zip(CHANNELS, response.response.value, _COLORS, _STYLES, strict=True):
        axes.plot(log_t, curve, color=color, linestyle=style, label=f"{channel} Å")
    axes.set(
        yscale="log",
        xlim=(max(5.0, log_t[0]), min(7.8, log_t[-1])),
        ylim=(1e-28, 3e-24),
        xlabel=r"$\log_{10}$ (T / K)",
        ylabel=f"response ({response.response.unit.to_string('latex_inline')})",
    )
    axes.legend(ncols=2)
    return axes


def plot_summary(cube, *, fig=None):
    """
    Draw the quick look of a cube.

    Six observed and six synthetic maps on the same scales, EM in twelve bins on one scale, EM-weighted log T and χ².

    Parameters
    ----------
    cube : `DEMCube`
    fig : `~matplotlib.figure.Figure`, optional
        Where to draw, by default a new figure.

    Returns
    -------
    `~matplotlib.figure.Figure`
    """
    date = cube.sky_header["date-obs"][:19]
    fig = plt.figure(figsize=(18, 15.5)) if fig is None else fig
    grid = fig.add_gridspec(5, 6, left=0.045, right=0.935, top=0.945, bottom=0.04, wspace=0.08, hspace=0.16)
    panels = np.array([[fig.add_subplot(grid[row, column]) for column in range(6)] for row in range(4)])
    extent = _extent(cube)
    _draw_maps(panels[:2], cube, extent)
    _draw_bins(panels[2:].ravel(), cube, extent)
    last = [fig.add_subplot(grid[4, column]) for column in range(2)]
    _draw_fit(last, cube, extent)
    _draw_profile(fig.add_subplot(grid[4, 3:]), cube)
    for axes in [*panels[:, 1:].ravel(), last[1]]:
        axes.tick_params(labelleft=False)
    for axes in [*panels[:, 0], last[0]]:
        axes.set_ylabel("y (arcsec)", fontsize=8)
    for axes in panels.ravel():
        axes.tick_params(labelbottom=False)
    for axes in last:
        axes.set_xlabel("x (arcsec)", fontsize=8)
    fig.suptitle(f"SDO/AIA emission measure, {date}", fontsize=14)
    return fig


def _draw_maps(panels, cube, extent):
    observed, synthetic = cube.intensity.value, [smap.data for smap in cube.synthesize()]
    for column, channel in enumerate(CHANNELS):
        norm = _intensity_norm(observed[column])
        for row, (word, data) in enumerate((("observed", observed[column]), ("synthetic", synthetic[column]))):
            image = _show(panels[row, column], data, extent, cmap=f"sdoaia{channel}", norm=norm)
            panels[row, column].set_title(f"{channel} Å {word}", fontsize=10)
        _bar(panels[0, column], image, inside=True, ticks=[norm.vmax / 10, norm.vmax], format=_three_figures)
    _note(panels[0, -1], "DN s$^{-1}$ pix$^{-1}$")


def _draw_bins(panels, cube, extent):
    log_t = cube.log_t
    chosen = np.unique(np.linspace(0, log_t.size - 1, min(_EM_PANELS, log_t.size)).round().astype(int))
    top = _top(cube.data, 99.9)
    norm = LogNorm(top / 1e4, top)
    for axes, index in zip(panels, chosen, strict=False):
        image = _show(axes, cube.data[index], extent, cmap="viridis", norm=norm)
        axes.set_title(f"EM, log T = {log_t[index]:.1f}", fontsize=10)
    for axes in panels[chosen.size :]:
        axes.set_axis_off()
    for first in range(0, chosen.size, 6):
        _bar(panels[min(first + 6, chosen.size) - 1], image, label="EM per bin (cm$^{-5}$)")


def _draw_fit(panels, cube, extent):
    image = _show(panels[0], cube.em_weighted_log_t(), extent, cmap="plasma", norm=Normalize(5.8, 6.8))
    panels[0].set_title("EM-weighted log T", fontsize=10)
    _bar(panels[0], image, inside=True, ticks=[6.0, 6.4, 6.8])
    image = _show(panels[1], cube.chi2, extent, cmap="cividis", norm=LogNorm(0.03, 30))
    panels[1].set_title("χ² (mean over channels)", fontsize=10)
    _bar(panels[1], image)


def _draw_profile(axes, cube):
    axes.set(xlabel=r"$\log_{10}$ (T / K)", ylabel="EM per bin (cm$^{-5}$)", xlim=cube.bins.edges[[0, -1]])
    valid = cube.data[:, np.isfinite(cube.data).all(axis=0)]
    if not valid.any():
        return
    low, middle, high = np.percentile(valid, [16, 50, 84], axis=1)
    axes.stairs(high, cube.bins.edges, baseline=low, fill=True, color="0.85", label="16–84 % of pixels")
    axes.stairs(middle, cube.bins.edges, baseline=None, color="black", label="median pixel")
    axes.set(yscale="log", ylim=(high.max() / 1e5, high.max() * 3))
    axes.legend(fontsize=9)


def _bar(axes, image, *, label="", inside=False, **ticks):
    """Draw a colour bar that takes no room from the panels: upright beside one, or lying in its lower left corner."""
    place = axes.inset_axes([0.04, 0.03, 0.4, 0.025] if inside else [1.03, 0, 0.05, 1])
    side = {"orientation": "horizontal", "ticklocation": "top"} if inside else {}
    axes.figure.colorbar(image, cax=place, label=label, **side, **ticks)
    place.tick_params(labelsize=7, **({"colors": "white"} if inside else {}))


def _three_figures(value, _position):
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _note(axes, text):
    axes.annotate(text, (1.03, 0.5), xycoords="axes fraction", rotation=90, va="center", fontsize=9)


def _show(axes, data, extent, **style):
    axes.tick_params(labelsize=7)
    axes.set_facecolor("0.6")  # What is masked
    return axes.imshow(data, origin="lower", extent=extent, interpolation="nearest", aspect="equal", **style)


def _intensity_norm(observed):
    return ImageNormalize(vmin=0, vmax=_top(observed, 99.7), stretch=AsinhStretch(0.05), clip=False)


def _top(data, percentile):
    """Return a percentile of what is finite; one where that is nothing to scale by."""
    finite = data[np.isfinite(data)]
    top = np.percentile(finite, percentile) if finite.size else 0
    return top if top > 0 else 1.0


def _extent(cube):
    """Return the edges of the field of view in arcsec, for the unrotated grids that AIA maps have."""
    header, (ny, nx) = cube.sky_header, cube.data.shape[1:]
    x, y = (
        header[f"crval{axis}"] + (np.array([0.5, n + 0.5]) - header[f"crpix{axis}"]) * header[f"cdelt{axis}"]
        for axis, n in (("1", nx), ("2", ny))
    )
    return (*x, *y)
