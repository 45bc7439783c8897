"""Plots of cubes and their slices by ndcube, with the scale and labels of an emission measure."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
from astropy.coordinates import SkyCoord

from sunpy_deepem.utils.product_maps import MASKED_COLOR, ScaledLogNorm
from sunpy_deepem.visualization.panels import cover_doubtful, low_signal, undetermined

__all__ = ["plot_cube"]

_DECADES = 4
_FEW_TICKS = {"ticks": {"number": 4}}


def plot_cube(cube, *args, **kwargs):
    """
    Plot the cube or a slice of it, as `ndcube.NDCube.plot` does.

    A cube is an animation through log T, a slice of two axes an image, and one of log T the EM curve of a pixel. EM has
    a logarithmic scale over four decades. The uncertainty of a curve is that of each bin by itself; `plot_profile`
    draws the interval of the posterior. Images are faded and hatched where the prior determines the EM, its 68 %
    interval includes values near zero, or pixels are flagged LOW_SIGNAL, as in `plot_bins`.

    Parameters
    ----------
    *args, **kwargs
        As for `ndcube.NDCube.plot`, such as ``axes``, ``plot_axes``, ``norm`` and ``cmap``.

    Returns
    -------
    `~astropy.visualization.wcsaxes.WCSAxes` or ``mpl_animators.ArrayAnimatorWCS``

    Raises
    ------
    ImportError
        If an animation is asked for and the extra ``plotting`` is not installed.
    """
    plot_axes = kwargs.get("plot_axes", args[1] if len(args) > 1 else None)
    is_image = cube.data.ndim > 1 and (plot_axes is None or "y" in plot_axes)
    if is_image:
        finite = cube.data[np.isfinite(cube.data)]
        norm = ScaledLogNorm(_DECADES)
        norm.autoscale_None(finite)
        kwargs = {"norm": norm, "cmap": "viridis"} | kwargs
        if cube.data.ndim == 3:
            kwargs = {"colorbar": True} | kwargs
        elif _has_log_t(cube):
            kwargs = {"aspect": "auto"} | kwargs
    alone = is_image and cube.data.ndim == 2 and kwargs.get("axes") is None and not plt.gcf().axes
    if alone and plt.gcf().get_layout_engine() is None:
        plt.gcf().set_layout_engine("constrained")  # with a color bar, labels would leave the figure
    shown = cube.plotter.plot(*args, **kwargs)
    axes = getattr(shown, "axes", shown)
    _label(cube, axes, is_image)
    order = list(plot_axes) if is_image and plot_axes is not None else ["y", "x"]
    is_transposed = order.index("x") < order.index("y")
    if cube.data.ndim == 3 and 0 in getattr(shown, "slider_axes", ()):
        _show_log_t(cube, shown)
        _cover_bins(cube, shown, is_transposed)
    elif is_image and cube.data.ndim == 2:
        _cover(axes.images[-1], *_doubtful(cube), is_transposed)
    return shown


def _cover(image, where, extent, is_transposed):
    """Fade and hatch what is doubtful in an image, and return what was drawn."""
    if is_transposed:
        where, extent = where.T, (*extent[2:], *extent[:2])
    return cover_doubtful(image, where, extent)


def _doubtful(cube):
    """Return where the EM of an image is not to be trusted, and the extent of that image in pixels."""
    whole, axis = cube.whole_slice()
    rows, columns = cube.data.shape
    if whole is None:
        low = np.expand_dims(low_signal(cube), tuple({0, 1} - set(np.atleast_1d(cube.meta.axes["quality"]))))
        return np.broadcast_to(low, cube.data.shape), (-0.5, columns - 0.5, -0.5, rows - 0.5)
    where, extent = undetermined(whole, list(itertools.pairwise(whole.bins.edges)))
    along = {0: extent, 1: (*extent[:2], -0.5, rows - 0.5), 2: (*extent[2:], -0.5, rows - 0.5)}
    return where.take(0, axis=axis), along[axis]


def _cover_bins(cube, animator, is_transposed):
    """Fade and hatch what is doubtful in the image of an animator, also after its slider moved to another bin."""
    doubtful, extent = undetermined(cube, list(itertools.pairwise(cube.bins.edges)))
    veils = []

    def draw(value):
        while veils:
            veils.pop().remove()
        veils.extend(_cover(animator.axes.images[0], doubtful[int(value)], extent, is_transposed))

    slider = animator.sliders[list(animator.slider_axes).index(0)]._slider
    draw(slider.val)
    slider.on_changed(draw)


def _show_log_t(cube, animator):
    """Show log T beside the slider of an animator, which starts with the index of the bin."""
    names = [f"{log_t:.2f}" for log_t in cube.log_t]
    animator.axis_ranges[0] = names.__getitem__
    slider = animator.sliders[list(animator.slider_axes).index(0)]._slider
    slider.valtext.set_text(names[0])
    # The panel is small, and is set up anew for each bin.
    animator.coord_params = {0: _FEW_TICKS, 1: _FEW_TICKS} | (animator.coord_params or {})
    for coordinate in list(animator.axes.coords)[:2]:
        coordinate.set_ticks(**_FEW_TICKS["ticks"])
    image = animator.axes.images[0]
    if image.colorbar is not None:
        image.colorbar.set_label(_em_label(cube))


def _em_label(cube):
    return f"EM per bin ({cube.unit.to_string('latex_inline')})"


def _label(cube, axes, is_image):
    label = _em_label(cube)
    if is_image:
        axes.set_facecolor(MASKED_COLOR)
        if cube.data.ndim == 2:
            axes.figure.colorbar(axes.images[-1], ax=axes, label=label)
            _hide_constant(cube, axes)
    else:
        top = np.nanmax(cube.data, initial=0) if np.isfinite(cube.data).any() else 0
        if top > 0:
            axes.set(yscale="log", ylim=(top / 10**_DECADES, 3 * top))
        axes.set_ylabel(label)
    axes.set_title("\n".join(filter(None, (_place(cube), cube.date.isot[:19]))), fontsize=10)


def _has_log_t(cube):
    return any((kind or "").endswith("log10") for kind in cube.wcs.low_level_wcs.world_axis_physical_types)


def _hide_constant(cube, axes):
    """Hide the coordinate of the sky that hardly changes along the only axis of the sky."""
    wcs = cube.wcs.low_level_wcs
    kinds = wcs.world_axis_physical_types
    sky = [index for index, kind in enumerate(kinds) if (kind or "").startswith("custom:pos.helioprojective")]
    if len(sky) < 2 or not _has_log_t(cube):
        return
    ends = np.array([wcs.pixel_to_world_values(*[end] * wcs.pixel_n_dim) for end in (0, min(cube.data.shape) - 1)])
    change = np.abs((np.diff(ends, axis=0)[0, sky] + 180) % 360 - 180)
    hidden = axes.coords[sky[int(np.argmin(change))]]
    hidden.set_ticks_visible(False)
    hidden.set_ticklabel_visible(False)
    hidden.set_axislabel(" ")
    hidden.set_auto_axislabel(False)


def _place(cube):
    """Return where on the sky or at which log T a slice is, as far as it is known."""
    for name in cube.global_coords:
        value = cube.global_coords[name]
        if isinstance(value, SkyCoord):
            x, y = (angle.to_value("arcsec") for angle in (value.spherical.lon.wrap_at("180d"), value.spherical.lat))
            return f"EM at x = {x:.0f}″, y = {y:.0f}″"
        if "log10" in cube.global_coords.physical_types.get(name, ""):
            return f"EM, log T = {float(value):.2f}"
    return "EM" if cube.data.ndim == 2 else ""
