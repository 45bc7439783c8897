"""Comparison of the EM of a region in several cubes."""

import matplotlib.pyplot as plt
from astropy.table import QTable

from sunpy_deepem.temperature import BANDS
from sunpy_deepem.visualization.panels import checked_cube

__all__ = ["compare"]


def compare(cubes, region=None, *, axes=None, bands=BANDS, **draws):
    """
    Draw and tabulate the EM of a region in several cubes, for instance from several methods.

    Parameters
    ----------
    cubes : `dict`
        `DEMCube` by name. They may have different grids if ``region`` has coordinates; their bins have one width.
    region : optional
        As for `DEMCube.curve`, by default the whole field of view of each cube.
    axes : `~matplotlib.axes.Axes`, optional
        Axes to draw on, by default in a new figure.
    bands : sequence of pairs of `float`, optional
        Ranges of log10(T/K) in the table.
    **draws
        Options of the posterior draws, as for `DEMCube.curve`.

    Returns
    -------
    axes : `~matplotlib.axes.Axes`
    table : `~astropy.table.QTable`
        A row for each cube: ``name``, ``n_pixels``, ``chi2`` of the synthetic intensities of the mean EM, and
        ``total_em``, the EM of each band, ``log_t`` and ``width`` with the limits of their 68 % intervals, such as
        ``total_em_lower``, NaN without a posterior.

    Raises
    ------
    TypeError
        If ``cubes`` is not a `dict` of `DEMCube`, or as of `DEMCube.curve`.
    ValueError
        If there are no cubes, their bins have several widths, a band is invalid, or as of `DEMCube.curve`.

    Examples
    --------
    >>> from sunpy_deepem.visualization import compare
    >>> maps = sample_maps((64, 64))
    >>> axes, table = compare({"default": invert(maps), "neutral": invert(maps, weights="neutral")})
    >>> table["name"].tolist()
    ['default', 'neutral']
    """
    if not isinstance(cubes, dict) or not cubes:
        msg = f"cubes must be a dict of one or more DEMCubes by name, found {cubes!r}."
        raise TypeError(msg)
    curves = {name: checked_cube(cube).curve(region, **draws) for name, cube in cubes.items()}
    if len(steps := {round(curve.bins.step, 6) for curve in curves.values()}) > 1:
        msg = f"cubes must have bins of one width, found {sorted(steps)} dex. Rebin one of them along log T."
        raise ValueError(msg)
    axes = plt.figure(figsize=(8, 5), layout="constrained").add_subplot() if axes is None else axes
    rows, top = [], 0.0
    for index, (name, curve) in enumerate(curves.items()):
        curve.plot(axes, label=name, color=f"C{index}")
        top = max(top, (curve.em if curve.upper is None else curve.upper).value.max())
        rows.append(_row(name, curve, bands))
    if top > 0:
        axes.set(yscale="log", ylim=(top / 1e5, top * 10))
    edges = [edge for curve in curves.values() for edge in curve.bins.edges]
    axes.set_xlim(min(edges), max(edges))
    axes.legend()
    return axes, QTable(rows)


def _row(name, curve, bands):
    residual = curve.intensity_table()["residual"]
    used = residual[residual == residual]  # NaN in channels that are not used
    row = {"name": name, "n_pixels": curve.n_pixels, "chi2": float((used**2).mean())}
    for quantity, (value, lower, upper) in curve.products(bands).items():
        row |= {quantity: value, f"{quantity}_lower": lower, f"{quantity}_upper": upper}
    return row
