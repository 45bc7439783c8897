"""Figures of cubes and responses."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm, Normalize

from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.temperature import BANDS
from sunpy_deepem.utils.product_maps import fade
from sunpy_deepem.visualization.panels import (
    CHANNEL_COLORS,
    CHANNEL_STYLES,
    RATIO_NORM,
    checked_cube,
    checked_figure,
    color_bar,
    cover_doubtful,
    em_norm,
    intensity_norm,
    log_t_norm,
    low_signal,
    picked_pixels,
    show_sky,
    sky_axes,
    sky_grid,
    undetermined,
    visible,
    visible_em,
)

__all__ = [
    "plot_bins",
    "plot_contraction",
    "plot_prior_sensitivity",
    "plot_profile",
    "plot_response",
    "plot_roundtrip",
    "plot_temperature",
]

_LOG_T = r"$\log_{10}$ (T / K)"
_EM = "EM per bin (cm$^{-5}$)"
_INTENSITY = "DN s$^{-1}$ pix$^{-1}$"
_COLUMNS = 6
# Intensity over σ below which ratios are faded.
_FAINT = 2
_RATIO_TICKS = (0.7, 0.85, 1.0, 1.2, 1.4)


def plot_response(response, *, axes=None):
    """
    Plot the temperature responses of the six channels against log T.

    Parameters
    ----------
    response : `TemperatureResponse`
    axes : `~matplotlib.axes.Axes`, optional
        Axes to draw on, by default the current ones.

    Returns
    -------
    `~matplotlib.axes.Axes`

    Examples
    --------
    >>> from sunpy_deepem import TemperatureResponse
    >>> from sunpy_deepem.visualization import plot_response
    >>> axes = plot_response(TemperatureResponse.default())
    """
    axes = plt.gca() if axes is None else axes
    log_t = np.log10(response.temperature.value)
    _plot_channels(axes, log_t, response.curves.value)
    axes.set(
        yscale="log",
        xlim=(max(5.0, log_t[0]), min(7.8, log_t[-1])),
        ylim=(1e-28, 3e-24),
        xlabel=_LOG_T,
        ylabel=f"response ({response.curves.unit.to_string('latex_inline')})",
    )
    axes.legend(ncols=2)
    return axes


def plot_bins(cube, *, fig=None, norm=None, cmap="viridis"):
    """
    Plot the EM of every bin of log T on one logarithmic scale over four decades.

    EM is faded and hatched where the prior determines it, its 68 % interval includes values near zero, or pixels are
    flagged LOW_SIGNAL, as in `plot_summary`. Of cubes with more than 1024 pixels along a side every k-th pixel is used.

    Parameters
    ----------
    cube : `DEMCube`
    fig : `~matplotlib.figure.Figure` or `~matplotlib.figure.SubFigure`, optional
        Figure to draw on, by default a new one.
    norm, cmap : optional
        Scale and color map of the EM.

    Returns
    -------
    `~matplotlib.figure.Figure` or `~matplotlib.figure.SubFigure`

    Raises
    ------
    TypeError
        If ``cube`` is not a `DEMCube` or ``fig`` is not a figure.
    ValueError
        If the cube lacks an axis.

    Examples
    --------
    >>> from sunpy_deepem.visualization import plot_bins
    >>> fig = plot_bins(sample_cube((64, 64)))
    """
    cube = picked_pixels(checked_cube(cube))
    frame = cube.em_weighted_log_t()
    columns = min(_COLUMNS, len(cube.bins))
    rows = -(-len(cube.bins) // columns)
    fig, panels = _grid_figure(fig, frame, rows, columns)
    hatched = _draw_bins(panels.ravel(), cube, frame, norm, cmap)
    note = "; hatched: the prior decides, or the interval reaches zero" if hatched else ""
    fig.suptitle(f"Emission measure in bins of log T, {_date(cube)}{note}", fontsize=13)
    return fig


def plot_contraction(cube, bands=BANDS, *, fig=None, norm=None, cmap="cividis", **draws):
    """
    Plot how much the data narrow the EM of bands of log T: the prior speaks where it is near zero.

    Pixels flagged LOW_SIGNAL are faded.

    Parameters
    ----------
    cube : `DEMCube`
    bands : sequence of pairs of `float`, optional
        Limits in log10(T/K).
    fig : `~matplotlib.figure.Figure` or `~matplotlib.figure.SubFigure`, optional
        Figure to draw on, by default a new one.
    norm, cmap : optional
        Scale and color map of the contraction.
    **draws
        Options of the posterior draws, as for `DEMCube.contraction`.

    Returns
    -------
    `~matplotlib.figure.Figure` or `~matplotlib.figure.SubFigure`

    Raises
    ------
    TypeError
        If ``cube`` is not a `DEMCube` or ``fig`` is not a figure.
    ValueError
        If the cube has no posterior, a band is invalid, or the cube lacks an axis.

    Examples
    --------
    >>> from sunpy_deepem.visualization import plot_contraction
    >>> fig = plot_contraction(invert(sample_maps((64, 64))), n=16)
    """
    cube = picked_pixels(checked_cube(cube))
    frame = cube.em_weighted_log_t()
    images = cube.contraction(bands, **draws)
    fig, panels = _grid_figure(fig, frame, 1, len(images))
    style = {"norm": Normalize(0, 1) if norm is None else norm, "cmap": cmap}
    for axes, (low, high), image in zip(panels[0], bands, images, strict=True):
        drawn = show_sky(axes, image, frame, title=f"log T {low:g} to {high:g}", **style)
        fade(drawn, low_signal(cube))
    color_bar(axes, drawn, label="contraction\n0: the prior decides, 1: the data")
    fig.suptitle(f"Contraction of the prior by the data, {_date(cube)}", fontsize=13)
    return fig


def plot_roundtrip(cube, *, fig=None, norm=None, cmap="PuOr"):
    """
    Plot the observed and the synthetic map of each channel and their ratio.

    The ratio is faded where the intensity of the channel is below 2 σ, as its noise exceeds the scale, and where pixels
    are flagged LOW_SIGNAL. Of cubes with more than 1024 pixels along a side every k-th pixel is used.

    Parameters
    ----------
    cube : `DEMCube`
    fig : `~matplotlib.figure.Figure` or `~matplotlib.figure.SubFigure`, optional
        Figure to draw on, by default a new one.
    norm, cmap : optional
        Scale and color map of the ratio.

    Returns
    -------
    `~matplotlib.figure.Figure` or `~matplotlib.figure.SubFigure`

    Raises
    ------
    TypeError
        If ``cube`` is not a `DEMCube` or ``fig`` is not a figure.
    ValueError
        If the cube lacks an axis.

    Examples
    --------
    >>> from sunpy_deepem.visualization import plot_roundtrip
    >>> fig = plot_roundtrip(sample_cube((64, 64)))
    """
    cube = picked_pixels(checked_cube(cube))
    frame = cube.em_weighted_log_t()
    fig, panels = _grid_figure(fig, frame, 3, len(CHANNELS), wspace=0.4)
    observed, synthetic = _draw_roundtrip(panels[:2], cube, frame)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(observed > 0, synthetic / observed, np.nan)
    faint = (observed < _FAINT * cube.intensity_uncertainty.value) | low_signal(cube)
    for axes, channel, image, where in zip(panels[2], CHANNELS, ratio, faint, strict=True):
        title = f"{channel} Å, median {np.nanmedian(image):.2f}" if np.isfinite(image).any() else f"{channel} Å"
        style = {"cmap": cmap, "norm": LogNorm(*RATIO_NORM) if norm is None else norm}
        drawn = show_sky(axes, image, frame, title=title, limb="black", **style)
        fade(drawn, where)
    ticks = {"ticks": _RATIO_TICKS, "format": "{x:g}"} if norm is None else {}
    color_bar(axes, drawn, label="synthetic / observed", extend="both", **ticks)
    axes.child_axes[-1].minorticks_off()
    note = f"; faded: below {_FAINT} σ" if faint.any() else ""
    fig.suptitle(f"Observed, synthetic and their ratio, {_date(cube)}{note}", fontsize=13)
    return fig


def plot_temperature(cube, *, axes=None, norm=None, cmap="plasma"):
    """
    Plot the EM-weighted log T. Pixels flagged LOW_SIGNAL are faded.

    Parameters
    ----------
    cube : `DEMCube`
    axes : `~astropy.visualization.wcsaxes.WCSAxes`, optional
        Axes with the pixels of the cube, such as ``fig.add_subplot(projection=cube.em_weighted_log_t())``; by default
        in a new figure.
    norm, cmap : optional
        Scale and color map.

    Returns
    -------
    `~astropy.visualization.wcsaxes.WCSAxes`

    Raises
    ------
    TypeError
        If ``cube`` is not a `DEMCube` or ``axes`` are not WCSAxes.
    ValueError
        If ``axes`` have other pixels, or the cube lacks an axis.

    Examples
    --------
    >>> from sunpy_deepem.visualization import plot_temperature
    >>> axes = plot_temperature(sample_cube((64, 64)))
    """
    # Axes that are given have the pixels of the cube.
    cube = picked_pixels(checked_cube(cube)) if axes is None else checked_cube(cube)
    frame = cube.em_weighted_log_t()
    axes = sky_axes(frame, axes)
    style = {"norm": log_t_norm() if norm is None else norm, "cmap": cmap}
    _draw_temperature(axes, cube, frame, style, label=f"EM-weighted {_LOG_T}", extend="both")
    note = "; faded: low signal" if low_signal(cube).any() else ""
    axes.set_title(f"EM-weighted log T, {_date(cube)}{note}", fontsize=11)
    return axes


def plot_profile(cube, region=None, *, axes=None, label="EM", color="black", **draws):
    """
    Plot the EM curve of a region, median and mean, with its 68 % interval and the EM loci of the six channels.

    The loci are upper limits of any EM distribution that explains the intensities.

    Parameters
    ----------
    cube : `DEMCube`
    region : `~astropy.coordinates.SkyCoord`, `~regions.Region` or `~numpy.ndarray` of `bool`, optional
        Coordinate, region or mask of shape ``(ny, nx)``, see `DEMCube.curve`; by default the whole field of view.
    axes : `~matplotlib.axes.Axes`, optional
        Axes to draw on, by default in a new figure.
    label, color : optional
        Name of the curve in the legend, and its color.
    **draws
        Options of the posterior draws, as for `DEMCube.curve`.

    Returns
    -------
    `~matplotlib.axes.Axes`

    Raises
    ------
    TypeError, ValueError
        If ``region`` has another type, lies outside or holds no valid pixel, or the cube lacks an axis.

    Examples
    --------
    >>> from sunpy_deepem.sample import sample_regions
    >>> from sunpy_deepem.visualization import plot_profile
    >>> axes = plot_profile(sample_cube((64, 64)), sample_regions((64, 64))["active region"])
    """
    checked_cube(cube)
    curve = cube.curve(region, **draws)
    axes = plt.figure(figsize=(8, 5), layout="constrained").add_subplot() if axes is None else axes
    response = cube.response
    curve.plot(axes, label=label, color=color)
    loci = curve.loci(response).value
    _plot_channels(axes, np.log10(response.temperature.value), loci, linewidth=1)
    high = curve.em.value if curve.draws is None else curve.upper.value
    top = max(high.max(), *(np.nanmin(locus) for locus in loci if np.isfinite(locus).any()), 0)
    if top > 0:
        axes.set(yscale="log", ylim=(top / 1e5, top * 10))
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), title="EM and EM loci", frameon=False)
    pixels = "1 pixel" if curve.n_pixels == 1 else f"mean of {curve.n_pixels} pixels"
    axes.set_title(f"Emission measure, {pixels}, {_date(cube)}", fontsize=10)
    return axes


def plot_prior_sensitivity(cube, region=None, *, axes=None, **options):
    """
    Plot the mean EM curve of a region under several priors, each with its 68 % interval.

    Where the intervals differ, the prior determines the answer.

    Parameters
    ----------
    cube : `DEMCube`
    region : optional
        As for `DEMCube.curve`.
    axes : `~matplotlib.axes.Axes`, optional
        Axes to draw on, by default in a new figure.
    **options
        As for `DEMCube.prior_curves`: ``methods``, ``n`` and ``seed``.

    Returns
    -------
    `~matplotlib.axes.Axes`

    Raises
    ------
    TypeError, ValueError
        As of `DEMCube.prior_curves`.

    Examples
    --------
    >>> from sunpy_deepem.visualization import plot_prior_sensitivity
    >>> axes = plot_prior_sensitivity(invert(sample_maps((64, 64))))
    """
    checked_cube(cube)
    axes = plt.figure(figsize=(8, 5), layout="constrained").add_subplot() if axes is None else axes
    high = 0.0
    for index, (name, curve) in enumerate(cube.prior_curves(region, **options).items()):
        curve.plot(axes, label=name, color=f"C{index}")
        high = max(high, curve.upper.value.max())
    axes.set(yscale="log", ylim=(high / 1e5, high * 10))
    axes.legend()
    axes.set_title(f"Emission measure by prior, {_date(cube)}", fontsize=10)
    return axes


def _grid_figure(fig, frame, rows, columns, wspace=0.15):
    """Return a figure and its panels on the sky of the map ``frame``, in the shape of its field of view."""
    ny, nx = frame.data.shape
    height = 2.7 * np.clip(ny / nx, 0.5, 2) + 0.3
    width, total = 2.7 * (1 + wspace) / 1.15 * columns + 2, height * rows + 1
    fig = checked_figure(fig, (width, total))
    margins = {"left": 0.9 / width, "right": 1 - 1.1 / width, "top": 1 - 0.7 / total, "bottom": 0.6 / total}
    return fig, sky_grid(fig, frame, rows, columns, wspace=wspace, hspace=0.16, **margins)


def _draw_roundtrip(panels, cube, frame):
    """Draw observed and synthetic maps on the same scales and return their data, two arrays (6, ny, nx)."""
    observed = visible(cube, cube.intensity.value)
    synthetic = visible(cube, np.stack([smap.data for smap in cube.synthesize()]))
    for column, channel in enumerate(CHANNELS):
        style = {"cmap": f"sdoaia{channel}", "norm": intensity_norm(observed[column])}
        for axes, word, data in zip(panels[:, column], ("observed", "synthetic"), (observed, synthetic), strict=True):
            image = show_sky(axes, data[column], frame, title=f"{channel} Å {word}", **style)
            color_bar(axes, image, label=_INTENSITY if column == len(CHANNELS) - 1 else "", extend="max")
    return observed, synthetic


def _draw_bins(panels, cube, frame, norm, cmap):
    em, n = visible_em(cube), len(cube.bins)
    norm = em_norm(em) if norm is None else norm
    doubtful, extent = undetermined(cube, list(itertools.pairwise(cube.bins.edges)))
    for axes, log_t, data, where in zip(panels, cube.log_t, em, doubtful, strict=False):
        image = show_sky(axes, data, frame, title=f"EM, log T = {log_t:.1f}", cmap=cmap, norm=norm)
        cover_doubtful(image, where, extent)
    for axes in panels[n:]:
        axes.remove()
    for first in range(0, n, _COLUMNS):
        color_bar(panels[min(first + _COLUMNS, n) - 1], image, label=_EM)
    return cube.has_posterior and doubtful.any()


def _draw_temperature(axes, cube, frame, style, **bar):
    log_t = visible(cube, frame.data)
    image = show_sky(axes, log_t, frame, title="EM-weighted log T", **style)
    fade(image, low_signal(cube))
    color_bar(axes, image, **bar)


def _plot_channels(axes, log_t, curves, **style):
    for channel, curve, color, dashes in zip(CHANNELS, curves, CHANNEL_COLORS, CHANNEL_STYLES, strict=True):
        axes.plot(log_t, curve, color=color, linestyle=dashes, label=f"{channel} Å", **style)


def _date(cube):
    # matplotlib takes text between dollars as a formula.
    return cube.date.isot[:19].replace("$", r"\$")
