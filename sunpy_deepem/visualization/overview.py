"""The overview figure of a cube, and maps of bands with their intervals."""

import itertools

import numpy as np
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.patches import Patch

from sunpy_deepem.channels import CHANNELS
from sunpy_deepem.quality import Quality
from sunpy_deepem.temperature import BANDS
from sunpy_deepem.units import EM_UNIT
from sunpy_deepem.utils.product_maps import fade
from sunpy_deepem.visualization.panels import (
    checked_cube,
    checked_figure,
    color_bar,
    cover_doubtful,
    em_norm,
    intensity_norm,
    is_doubtful,
    log_t_norm,
    low_signal,
    picked_pixels,
    show_sky,
    sky_grid,
    thinned,
    undetermined,
    visible,
)

__all__ = ["plot_bands", "plot_summary"]

_EM = "EM (cm$^{-5}$)"
_COLUMNS = 6
_QUANTILES = (0.16, 0.5, 0.84)
_FLAGS = {
    Quality.FEW_CHANNELS: "#000000",
    Quality.SATURATED: "#D55E00",
    Quality.HIGH_CHI2: "#CC79A7",
    Quality.UNUSUAL: "#E69F00",
    Quality.LOW_SIGNAL: "#999999",
    Quality.PARTIAL: "#56B4E9",
    Quality.EDGE: "#F0E442",
    Quality.NEGATIVE: "#0072B2",
}


def plot_summary(cube, *, fig=None, norm=None, cmap="viridis"):
    """
    Plot an overview of a cube.

    It shows the observed and synthetic maps of the six channels on common scales and their residuals; the EM of bands
    that cover the log T of the cube; EM-weighted log T, χ², the quality flags and the EM curve of the whole field.

    Pixels flagged LOW_SIGNAL are faded. EM is faded and hatched where the prior determines it or its 68 % interval
    includes values near zero; this is decided by posterior draws of at most 64 × 64 pixels.

    Of cubes with more than 1024 pixels along a side every k-th pixel is used, so that native resolution needs little
    time and memory.

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
    >>> from sunpy_deepem.visualization import plot_summary
    >>> fig = plot_summary(sample_cube((64, 64)))
    """
    cube = picked_pixels(checked_cube(cube))
    frame = cube.em_weighted_log_t()
    fig = checked_figure(fig, (21, 16))
    margins = {"left": 0.045, "right": 0.955, "wspace": 0.42, "hspace": 0.2}
    panels = sky_grid(fig, frame, 4, _COLUMNS, top=0.94, bottom=0.27, **margins)
    low = sky_grid(fig, frame, 1, _COLUMNS, top=0.205, bottom=0.04, **margins)[0]
    _draw_channels(panels[:3], cube, frame)
    hatched = _draw_bands(panels[3], cube, frame, norm, cmap)
    log_t = show_sky(
        low[0], visible(cube, frame.data), frame, title="EM-weighted log T", cmap="plasma", norm=log_t_norm()
    )
    color_bar(low[0], log_t, label=r"$\log_{10}$ (T / K)", extend="both")
    fade(log_t, low_signal(cube))
    chi2 = visible(cube, cube.chi2)
    image = show_sky(low[1], chi2, frame, title="χ² (mean over channels)", cmap="cividis", norm=LogNorm(0.03, 30))
    color_bar(low[1], image, label="χ²", extend="both")
    fade(image, low_signal(cube))
    _draw_flags(low[2], cube, frame)
    for axes in low[3:]:
        axes.remove()
    _draw_curve(fig.add_axes([0.62, 0.05, 0.35, 0.155]), cube)
    note = "; hatched: the prior decides, the interval reaches zero, or the signal is low" if hatched else ""
    fig.suptitle(f"SDO/AIA emission measure, {cube.date.isot[:19]}{note}", fontsize=14)
    return fig


def plot_bands(cube, bands=BANDS, *, fig=None, norm=None, cmap="viridis", max_pixels=128, **draws):
    """
    Plot the EM of bands of log T with its interval: the quantiles 16, 50 and 84 %, and the relative uncertainty.

    The first three rows have one scale, so that a map of the lower quantile is dark where the interval reaches zero.
    Where the prior determines the EM, the maps are faded and hatched.

    Parameters
    ----------
    cube : `DEMCube`
    bands : sequence of pairs of `float`, optional
        Limits in log10(T/K).
    fig : `~matplotlib.figure.Figure` or `~matplotlib.figure.SubFigure`, optional
        Figure to draw on, by default a new one.
    norm, cmap : optional
        Scale and color map of the EM.
    max_pixels : `int`, optional
        Pixels along the longer side that are drawn at most, as draws take time; of larger cubes every k-th pixel.
    **draws
        Options of the posterior draws, as for `DEMCube.map_draws`.

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
    >>> from sunpy_deepem.visualization import plot_bands
    >>> fig = plot_bands(invert(sample_maps((64, 64))), max_pixels=16)
    """
    checked_cube(cube)._require_3d("plot_bands")
    thin, _ = thinned(cube, max_pixels)
    maps, frame = list(thin.band_maps(bands, quantiles=_QUANTILES, **draws)), thin.em_weighted_log_t()
    names = [smap.meta["content"].split(", ")[1] for smap in maps[:: len(_QUANTILES)]]
    images = np.array([smap.data for smap in maps]).reshape(len(names), len(_QUANTILES), *frame.data.shape)
    doubtful = is_doubtful(thin, bands, **draws)
    norm = em_norm(images[:, 1]) if norm is None else norm
    ny, nx = frame.data.shape
    height = 2.9 * np.clip(ny / nx, 0.5, 2) + 0.3
    width, total = 3.4 * len(bands) + 1.2, 4 * height + 1.1
    fig = checked_figure(fig, (width, total))
    margins = {"left": 0.9 / width, "right": 1 - 1.2 / width, "top": 1 - 0.8 / total, "bottom": 0.6 / total}
    panels = sky_grid(fig, frame, 4, len(bands), wspace=0.15, hspace=0.16, **margins)
    for column, (name, group) in enumerate(zip(names, images, strict=True)):
        for axes, image, quantile in zip(panels[:, column], group, _QUANTILES, strict=False):
            word = "median" if quantile == 0.5 else f"{100 * quantile:g} % quantile"
            drawn = show_sky(axes, image, frame, title=f"{name}, {word}", cmap=cmap, norm=norm)
            cover_doubtful(drawn, doubtful[column], drawn.get_extent())
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = (group[2] - group[0]) / 2 / group[1]
        spread = show_sky(
            panels[3, column], ratio, frame, title=f"{name}, relative", cmap="magma", norm=Normalize(0, 1)
        )
        fade(spread, low_signal(thin))
    for row in range(3):
        color_bar(panels[row, -1], drawn, label=_EM, extend="both")
    color_bar(panels[3, -1], spread, label="half 68 % interval / median", extend="max")
    fig.suptitle(f"EM in bands of log T, 68 % interval; hatched: the prior decides. {cube.date.isot[:19]}", fontsize=12)
    return fig


def _summary_bands(bins):
    """Return up to six bands that cover all bins: `BANDS`, cut to the bins, and the rest at both ends."""
    first, last = bins.edges[[0, -1]]
    limits = [limit for limit in dict.fromkeys(edge for band in BANDS for edge in band) if first < limit < last]
    edges = [first, *limits, last]
    return list(itertools.pairwise(edges))


def _draw_channels(panels, cube, frame):
    observed = visible(cube, cube.intensity.value)
    synthetic = visible(cube, np.stack([smap.data for smap in cube.synthesize()]))
    residual = visible(cube, np.stack([smap.data for smap in cube.residual_maps()]))
    faint = low_signal(cube)
    for column, channel in enumerate(CHANNELS):
        style = {"cmap": f"sdoaia{channel}", "norm": intensity_norm(observed[column])}
        for row, (word, data) in enumerate((("observed", observed), ("synthetic", synthetic))):
            axes = panels[row, column]
            image = show_sky(axes, data[column], frame, title=f"{channel} Å {word}", **style)
            color_bar(axes, image, label="DN s$^{-1}$ pix$^{-1}$" if column == len(CHANNELS) - 1 else "", extend="max")
        axes = panels[2, column]
        options = {"cmap": "RdBu_r", "norm": Normalize(-5, 5), "limb": "black"}
        image = show_sky(axes, residual[column], frame, title=f"{channel} Å residual", **options)
        fade(image, faint)
    color_bar(panels[2, -1], image, label="(observed − synthetic) / σ", extend="both")


def _draw_bands(panels, cube, frame, norm, cmap):
    bands = _summary_bands(cube.bins)
    maps = [visible(cube, (smap.data << smap.unit).to_value(EM_UNIT)) for smap in cube.band_maps(bands)]
    norm = em_norm(np.array(maps)) if norm is None else norm
    doubtful, extent = undetermined(cube, bands)
    for axes, (low, high), data, where in zip(panels, bands, maps, doubtful, strict=False):
        image = show_sky(axes, data, frame, title=f"EM, log T {low:.4g} to {high:.4g}", cmap=cmap, norm=norm)
        cover_doubtful(image, where, extent)
    for axes in panels[len(bands) :]:
        axes.remove()
    color_bar(panels[len(bands) - 1], image, label=_EM, extend="both")
    return bool(doubtful.any())


def _draw_flags(axes, cube, frame):
    quality = np.asarray(cube.quality)
    codes, colors, handles = np.zeros(quality.shape), ["white"], []
    for flag, color in reversed(_FLAGS.items()):
        where = (quality & np.uint16(flag)) != 0
        if where.any():
            colors.append(color)
            codes[where] = len(colors) - 1
            handles.append(Patch(color=color, label=f"{flag.name} {100 * where.mean():.2g} %"))
    cmap = ListedColormap(colors)
    norm = Normalize(-0.5, len(colors) - 0.5)
    show_sky(axes, codes, frame, title="quality flags", limb="black", cmap=cmap, norm=norm)
    if handles:
        axes.legend(handles=handles[::-1], loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=7, frameon=False)


def _draw_curve(axes, cube):
    curve, which = _field_curve(cube)
    if curve is None:
        axes.set(xlabel=r"$\log_{10}$ (T / K)", ylabel=_EM, xlim=cube.bins.edges[[0, -1]])
        return
    curve.plot(axes, label="EM")
    high = curve.em.value if curve.draws is None else curve.upper.value
    if high.max() > 0:
        axes.set(yscale="log", ylim=(high.max() / 1e5, high.max() * 3))
    axes.set_title(f"mean of {curve.n_pixels} pixels{which}", fontsize=10)
    axes.legend(fontsize=9)


def _field_curve(cube):
    """Return the EM curve of the whole field, and of which pixels it is, or `None` if there is no such curve."""
    usable = np.isfinite(cube.data).all(axis=0) & ~cube.sky_mask
    complete = usable & np.isfinite(cube.intensity.value).all(axis=0)
    # Each channel may be saturated in some pixels, so that too few are left for the mean of all.
    for pixels, which in ((usable, ""), (complete, " with six channels")):
        try:
            return (cube.curve(pixels), which) if pixels.any() else (None, "")
        except ValueError:
            continue
    return None, ""
