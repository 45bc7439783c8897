"""Animations of a cube through log T, and of many cubes through time."""

import itertools

import numpy as np
from matplotlib.animation import FFMpegWriter, FuncAnimation, PillowWriter

from sunpy_deepem.utils.checks import real_number
from sunpy_deepem.utils.files import atomic_path, check_target, checked_path
from sunpy_deepem.visualization.panels import (
    checked_cube,
    color_bar,
    cover_doubtful,
    em_norm,
    show_sky,
    sky_axes,
    undetermined,
    visible,
    visible_em,
)

__all__ = ["animate", "animate_series"]

_BINS = "EM per bin (cm$^{-5}$)"


def animate(cube, path=None, *, axes=None, interval=300, norm=None, cmap="viridis"):
    """
    Animate the EM through the bins of log T.

    EM is faded and hatched where it is in `plot_bins`.

    Parameters
    ----------
    cube : `DEMCube`
    path : `str` or `pathlib.Path`, optional
        File to write, which ends in ``.gif`` or ``.mp4``. An existing file is replaced. MP4 needs the extra ``movies``
        or the program ffmpeg.
    axes : `~astropy.visualization.wcsaxes.WCSAxes`, optional
        Axes to draw on, see `plot_temperature`.
    interval : `float`, optional
        Time between bins in ms.
    norm, cmap : optional
        Scale and color map of the EM.

    Returns
    -------
    `~matplotlib.animation.FuncAnimation`
        Keep a reference while it runs. ``IPython.display.HTML(animation.to_jshtml())`` shows it in a notebook.

    Raises
    ------
    TypeError
        If ``cube`` is not a `DEMCube` or ``axes`` are not WCSAxes.
    ValueError
        If ``axes`` have other pixels, ``interval`` is not positive, ``path`` has another suffix, or the cube lacks an
        axis.
    ImportError
        If ffmpeg is needed and not installed.

    Examples
    --------
    >>> from sunpy_deepem.visualization import animate
    >>> page = animate(sample_cube((64, 64))[8:10]).to_jshtml()
    """
    checked_cube(cube)
    movie = _movie_writer(path, interval)
    frame = cube.em_weighted_log_t()
    axes = sky_axes(frame, axes)
    em, log_t, date = visible_em(cube), cube.log_t, _date(cube)
    veils = []
    image = show_sky(axes, em[0], frame, title="", cmap=cmap, norm=em_norm(em) if norm is None else norm)
    color_bar(axes, image, label=_BINS, extend="both")
    doubtful, extent = undetermined(cube, list(itertools.pairwise(cube.bins.edges)))

    def draw(index):
        image.set_data(np.ma.masked_invalid(em[index]))
        while veils:
            veils.pop().remove()
        veils.extend(cover_doubtful(image, doubtful[index], extent))
        axes.set_title(f"EM, log T = {log_t[index]:.1f}, {date}", fontsize=11)
        return (image,)

    animation = FuncAnimation(axes.figure, draw, frames=len(log_t), interval=interval)
    return _written(animation, path, movie)


def animate_series(cubes, path=None, *, low=None, high=None, axes=None, interval=300, norm=None, cmap="viridis"):
    """
    Animate the EM in a range of log T through time.

    Pixels flagged LOW_SIGNAL, and those where the prior determines the EM or its interval reaches zero, are faded.

    Parameters
    ----------
    cubes : `~sunpy_deepem.series.DEMCubeSequence`
        In order of time, on grids of the same shape.
    path : `str` or `pathlib.Path`, optional
        File to write, which ends in ``.gif`` or ``.mp4``, as for `animate`.
    low, high : `float` or `~astropy.units.Quantity`, optional
        Range of log10(T/K), as for `DEMCube.total_em`.
    axes : `~astropy.visualization.wcsaxes.WCSAxes`, optional
        Axes to draw on, with the pixels of the first cube, see `plot_temperature`.
    interval : `float`, optional
        Time between cubes in ms.
    norm, cmap : optional
        Scale and color map of the EM, common to all times.

    Returns
    -------
    `~matplotlib.animation.FuncAnimation`
        As of `animate`.

    Raises
    ------
    ValueError
        If the cubes have several shapes, or as of `animate` and `DEMCube.total_em`.
    ImportError
        As of `animate`.

    Examples
    --------
    >>> from sunpy_deepem.series import DEMCubeSequence
    >>> times = ["2014-01-01T00:00", "2014-01-01T00:02"]
    >>> sequence = DEMCubeSequence([invert(sample_maps((32, 32), obstime=time)) for time in times])
    >>> page = sequence.animate(low=6.0, high=6.3).to_jshtml()
    """
    movie = _movie_writer(path, interval)
    first, frames = None, []
    # One cube at a time, as cubes on disk may not fit in memory together.
    for cube in cubes:
        smap, *frame = _frame(cube, low, high)
        first = smap if first is None else first
        frames.append(frame)
    if len(shapes := {data.shape for _, data, _ in frames}) > 1:
        msg = f"cubes must have one shape of the sky, found {sorted(shapes)}. Invert with shape= and region=."
        raise ValueError(msg)
    title, data, _ = frames[0]
    axes = sky_axes(first, axes)
    norm = em_norm(np.array([data for _, data, _ in frames])) if norm is None else norm
    image = show_sky(axes, data, first, title=title, cmap=cmap, norm=norm)
    color_bar(axes, image, label=first.color_bar_label, extend="both")
    veils = []

    def draw(index):
        title, data, doubtful = frames[index]
        image.set_data(np.ma.masked_invalid(data))
        while veils:
            veils.pop().remove()
        veils.extend(cover_doubtful(image, *doubtful))
        axes.set_title(title, fontsize=11)
        return (image,)

    animation = FuncAnimation(axes.figure, draw, frames=len(frames), interval=interval)
    return _written(animation, path, movie)


def _frame(cube, low, high):
    """Return the map of a cube, its title, its data, and where it is doubtful with the extent of that image."""
    smap = checked_cube(cube).total_em(low, high)
    first, last = cube.bins.edges[[0, -1]]
    where, extent = undetermined(cube, [(first if low is None else low, last if high is None else high)])
    return smap, f"{smap.meta['content']}, {_date(cube)}", visible(cube, smap.data), (where[0], extent)


def _written(animation, path, movie):
    if path is not None:
        path = checked_path(path)
        with atomic_path(path) as partial:
            # Writers find the format by the suffix.
            named = partial.with_name(f"{partial.name}{path.suffix.lower()}")
            try:
                animation.save(named, writer=movie, dpi=100)
                named.replace(partial)
            finally:
                named.unlink(missing_ok=True)
    return animation


def _date(cube):
    # matplotlib takes text between dollars as a formula.
    return cube.date.isot[:19].replace("$", r"\$")


def _movie_writer(path, interval):
    """Return a writer of animations by the suffix of a path, `None` without one."""
    if not real_number(interval, "interval", "a positive time in ms") > 0:
        msg = f"interval must be a positive time in ms, found {interval}. The default is 300."
        raise ValueError(msg)
    if path is None:
        return None
    check_target(path)
    suffix = checked_path(path).suffix.lower()
    if suffix == ".gif":
        return PillowWriter(fps=1000 / interval)
    if suffix != ".mp4":
        msg = f"path must end in .gif or .mp4, found {path}."
        raise ValueError(msg)
    writer = FFMpegWriter if FFMpegWriter.isAvailable() else _packaged_ffmpeg()
    return writer(fps=1000 / interval, codec="h264", extra_args=["-pix_fmt", "yuv420p"])


def _packaged_ffmpeg():
    """Return a writer that runs the ffmpeg of the package imageio-ffmpeg."""
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        program = get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        msg = 'MP4 needs ffmpeg, which is not installed: pip install "sunpy_deepem[movies]". GIF needs nothing else.'
        raise ImportError(msg) from error

    class _PackagedFFMpeg(FFMpegWriter):
        @classmethod
        def bin_path(cls):
            return program

    return _PackagedFFMpeg
