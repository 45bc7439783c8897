"""Building blocks of the figures: sky panels with limb, color scale and color bar."""

from dataclasses import replace

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np
import sunpy.visualization.colormaps  # noqa: F401 - registers AIA's color tables
from astropy.visualization import AsinhStretch, ImageNormalize
from astropy.visualization.wcsaxes import WCSAxes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import FigureBase
from scipy import ndimage

from sunpy_deepem.quality import PRIOR_DOMINATES, Quality
from sunpy_deepem.units import EM_UNIT
from sunpy_deepem.utils.product_maps import MASKED_COLOR, fade

__all__ = [
    "CHANNEL_COLORS",
    "CHANNEL_STYLES",
    "MASKED_COLOR",
    "RATIO_NORM",
    "checked_cube",
    "checked_figure",
    "color_bar",
    "cover_doubtful",
    "cover_undetermined",
    "em_norm",
    "intensity_norm",
    "is_doubtful",
    "log_t_norm",
    "low_signal",
    "picked_pixels",
    "show_sky",
    "sky_axes",
    "sky_grid",
    "thinned",
    "undetermined",
    "visible",
    "visible_em",
]

# NOTE: distinguishable with any color vision, Okabe & Ito (2008), https://jfly.uni-koeln.de/color/
CHANNEL_COLORS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00")
CHANNEL_STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)))
#: Range of synthetic over observed that the color scale resolves.
RATIO_NORM = (1 / 1.5, 1.5)

# Pixels along the longer side of a panel: more than a printed page shows.
_PANEL = 1024
# Pixels along the longer side of the grid on which draws decide where the prior dominates.
_GRID = 64
# The interval is drawn as including zero where its lower end is below this fraction of the median.
_NEGLIGIBLE = 0.1
_LABELS = ("Helioprojective x (arcsec)", "Helioprojective y (arcsec)")


def checked_cube(cube):
    """Return ``cube``, or raise `TypeError` unless it is a `DEMCube`."""
    # By duck typing, as the cube's methods draw with these functions.
    if not hasattr(type(cube), "em_weighted_log_t"):
        msg = f"cube must be a DEMCube, as invert and DEMCube.read return, found {type(cube).__name__}."
        raise TypeError(msg)
    return cube


def checked_figure(fig, figsize):
    """Return ``fig``, or a new figure of ``figsize`` if it is `None`."""
    if fig is None:
        return plt.figure(figsize=figsize)
    if not isinstance(fig, FigureBase):
        msg = f"fig must be a matplotlib Figure or SubFigure, found {type(fig).__name__}. Make one with plt.figure()."
        raise TypeError(msg)
    return fig


def sky_axes(frame, axes):
    """Return ``axes`` if they have the pixels of the map ``frame``; new axes if ``axes`` is `None`."""
    if axes is None:
        axes = plt.figure(figsize=(7, 6)).add_subplot(projection=frame)
        _label(axes)
        return axes
    if not isinstance(axes, WCSAxes):
        msg = (
            f"axes must be WCSAxes of the cube's sky, found {type(axes).__name__}. Make them with "
            "fig.add_subplot(projection=cube.em_weighted_log_t())."
        )
        raise TypeError(msg)
    ny, nx = frame.data.shape
    corners = np.array([0, nx - 1, 0, nx - 1]), np.array([0, 0, ny - 1, ny - 1])
    ours, theirs = (np.array(wcs.wcs_pix2world(*corners, 0)) for wcs in (frame.wcs, axes.wcs.celestial))
    pixel = np.abs(frame.wcs.wcs.cdelt).max()
    if np.abs((ours - theirs + 180) % 360 - 180).max() > 0.1 * pixel:
        msg = (
            "axes must lie on the pixels of the cube, found another field of view or plate scale. Make them with "
            "fig.add_subplot(projection=cube.em_weighted_log_t())."
        )
        raise ValueError(msg)
    _label(axes)
    return axes


def sky_grid(fig, frame, rows, columns, **margins):
    """Return panels on the sky of the map ``frame``, shape ``(rows, columns)``, labeled at the left and the bottom."""
    grid = fig.add_gridspec(rows, columns, **margins)
    panels = np.empty((rows, columns), dtype=object)
    for row in range(rows):
        for column in range(columns):
            axes = panels[row, column] = fig.add_subplot(grid[row, column], projection=frame)
            _label(axes, x=row == rows - 1, y=column == 0, size=8)
    return panels


def _label(axes, *, x=True, y=True, size=None):
    # Both coordinates cross every side of a rotated grid; label each on one side only.
    for coordinate, label, side, wanted in zip(axes.coords, _LABELS, "bl", (x, y), strict=True):
        coordinate.set_format_unit(u.arcsec, decimal=True, show_decimal_unit=False)
        coordinate.set_ticks(number=4)
        coordinate.set_ticks_position(side)
        coordinate.set_ticklabel_position(side)
        coordinate.set_axislabel_position(side)
        coordinate.set_ticklabel(size=size and size - 1, exclude_overlapping=True)
        coordinate.set_ticklabel_visible(wanted)
        # An empty label would be replaced by the name from the WCS.
        coordinate.set_axislabel(label if wanted else " ", size=size)
        coordinate.set_auto_axislabel(False)


def show_sky(axes, data, frame, *, title, limb="white", **style):
    """Draw an image on the sky of the map ``frame`` with its limb; NaN is gray."""
    axes.set_facecolor(MASKED_COLOR)
    image = axes.imshow(np.ma.masked_invalid(data), origin="lower", interpolation="nearest", **style)
    frame.draw_limb(axes=axes, color=limb, linewidth=0.7, alpha=0.7)
    axes.grid(False)
    axes.set_title(title, fontsize=10)
    return image


def color_bar(axes, image, *, label="", **ticks):
    """Draw a color bar beside a panel, without resizing the panel."""
    place = axes.inset_axes([1.03, 0, 0.05, 1], axes_class=plt.Axes)
    axes.figure.colorbar(image, cax=place, label=label, **ticks)
    place.tick_params(labelsize=7)


def visible(cube, data):
    """Return images, shape ``(..., ny, nx)``, with NaN in the masked pixels of the cube."""
    return np.where(cube.sky_mask, np.nan, data)


def visible_em(cube):
    """Return the EM per bin in cm^-5, with NaN in masked pixels."""
    return visible(cube, (cube.data << cube.unit).to_value(EM_UNIT))


def low_signal(cube):
    """Return where a pixel is flagged LOW_SIGNAL, shape ``(ny, nx)``."""
    return (np.asarray(cube.quality) & np.uint16(Quality.LOW_SIGNAL)) != 0


def picked_pixels(cube):
    """Return the cube in memory, or every k-th pixel of it, so that panels have at most 1024 along a side."""
    large = max(cube.data.shape[1:]) > _PANEL
    return (thinned(cube, _PANEL)[0] if large else cube).compute()


def thinned(cube, most):
    """
    Return every k-th pixel of a cube, so that draws take little time, and the extent of its image in pixels.

    Pixels are picked rather than averaged, as the interval of an average is narrower than those of the pixels.
    """
    ny, nx = cube.data.shape[1:]
    step = -(-max(ny, nx) // most)
    starts = [min(step // 2, n - 1) for n in (ny, nx)]
    part = [slice(start, None, step) for start in starts]

    def picked(image):
        return None if image is None else image[(..., *part)]

    planes = cube.planes
    arrays = {name: picked(getattr(planes, name)) for name in ("em", "std", "mask", "chi2", "quality", "saturation")}
    lists = {name: [picked(image) for image in getattr(planes, name)] for name in ("intensity", "sigma")}
    limit = None if planes.limit is None else [picked(image) for image in planes.limit]
    others = {name: picked(image) for name, image in planes.others.items()}
    wcs = cube.wcs.deepcopy()
    wcs.array_shape = cube.data.shape
    thin = cube.with_planes(
        replace(planes, **arrays, **lists, limit=limit, others=others), wcs=wcs.slice([slice(None), *part])
    )
    rows, columns = thin.data.shape[1:]
    left, bottom = (start - step / 2 for start in reversed(starts))
    return thin, (left, left + columns * step, bottom, bottom + rows * step)


def is_doubtful(cube, bands, **draws):
    """Return where the EM of bands is undetermined, may be near zero or has low signal, shape ``(bands, ny, nx)``."""
    quantiles = cube.band_maps(bands, quantiles=(0.16, 0.5), **draws)
    images = np.array([smap.data for smap in quantiles]).reshape(len(bands), 2, *cube.data.shape[1:])
    found = images[:, 0] < _NEGLIGIBLE * images[:, 1]
    if getattr(cube.posterior(draws.get("method")), "prior_log_std", None) is not None:
        found |= cube.contraction(bands, **draws) < PRIOR_DOMINATES
    return found | low_signal(cube)


def undetermined(cube, bands):
    """
    Return where the EM of bands is not to be trusted, on a coarse grid, and the extent of that grid in pixels.

    Without a posterior, only low signal is known, on the grid of the cube.
    """
    if cube.has_posterior:
        thin, extent = thinned(cube, _GRID)
        return is_doubtful(thin, bands), extent
    ny, nx = cube.data.shape[1:]
    where = np.broadcast_to(low_signal(cube), (len(bands), ny, nx))
    return where, (-0.5, nx - 0.5, -0.5, ny - 0.5)


def cover_undetermined(cube, band, image):
    """Fade and hatch the parts of an image of the EM in a band that are not to be trusted."""
    where, extent = undetermined(cube, [band])
    cover_doubtful(image, where[0], extent)


def cover_doubtful(image, where, extent):
    """
    Fade and hatch the parts of an image where the answer is the prior's, and return what was drawn.

    ``extent`` is that of ``where``.
    """
    if not where.any():
        return []
    drawn = [fade(image, where, extent)]
    left, right, bottom, top = extent
    ny, nx = where.shape
    if min(ny, nx) < 2:
        return drawn
    x = left + (np.arange(nx) + 0.5) * (right - left) / nx
    y = bottom + (np.arange(ny) + 0.5) * (top - bottom) / ny
    # Single pixels would fill the panel with outlines.
    smooth = ndimage.median_filter(where.astype(float), 3)
    if smooth.any():
        style = {"levels": [0.5, 1.5], "colors": "none", "hatches": ["////"], "transform": image.get_transform()}
        lines = image.axes.contourf(x, y, smooth, **style)
        lines.set(edgecolor=(1, 1, 1, 0.5), linewidth=0)
        drawn.append(lines)
    return drawn


def em_norm(em):
    """Return the color scale of EM per bin: four decades below its 99.9th percentile, dark below."""
    top = _top(em, 99.9)
    return LogNorm(top / 1e4, top, clip=True)


def log_t_norm():
    """Return the color scale of EM-weighted log T, from coronal holes to active regions."""
    return Normalize(5.8, 6.8)


def intensity_norm(observed):
    """Return the color scale of an image of one channel."""
    return ImageNormalize(vmin=0, vmax=_top(observed, 99.7), stretch=AsinhStretch(0.05), clip=False)


def _top(data, percentile):
    """Return a percentile of the finite values, or 1 if it is not positive."""
    finite = data[np.isfinite(data)]
    top = np.percentile(finite, percentile) if finite.size else 0
    return top if top > 0 else 1.0
